"""PixArt-Sigma: a transformer in the latents of SDXL's VAE, on a schedule of noise.

Reference: Chen et al. 2024 (arXiv:2403.04692).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from paintback.models.diffusers.base import Condition, PipelineModel, Size
from paintback.models.latent import LatentCodec
from paintback.schedules import VP, Time

__all__ = ["PixArtSigma"]


@dataclass(frozen=True)
class PixArtSigma(PipelineModel):
    """`PixArtSigmaPipeline`; sizes are kept as they are, not those of its list of shapes."""

    of_noise: ClassVar[bool] = True
    guidance_scale: ClassVar[float] = 4.5
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_attention_mask")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "mask", "negative_embeds", "negative_mask")

    @classmethod
    def facts(cls, pipe: Any, codec: LatentCodec) -> dict[str, Any]:
        config = pipe.transformer.config
        return {
            "multiple": codec.factor * config.patch_size,
            "training_size": config.sample_size * codec.factor,
        }

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        assert isinstance(self.schedule, VP)
        clock = x.new_full((len(x),), time.t * self.schedule.num_train_timesteps - 1)
        output: Tensor = self.pipe.transformer(
            x.to(self.dtype),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            encoder_attention_mask=condition.extras["mask"],
            timestep=clock,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return output[:, : x.shape[1]]  # the rest is the variance that some networks learn
