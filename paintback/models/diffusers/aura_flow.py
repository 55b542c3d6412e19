"""AuraFlow: a transformer of the kind of SD 3's, told by one large T5.

Reference: Fal, AuraFlow, 2024 (no paper; the architecture is that of diffusers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.flow import FlowPipeline
from paintback.schedules import Time

__all__ = ["AuraFlow"]


@dataclass(frozen=True)
class AuraFlow(FlowPipeline):
    """`AuraFlowPipeline`; padding is zero in its embeddings, and the network needs no mask."""

    guidance_scale: ClassVar[float] = 3.5
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_attention_mask")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "", "negative_embeds", "")

    @classmethod
    def area_of(cls, pipe: Any) -> int | None:
        config = pipe.transformer.config  # there is a position for each token of a square
        return int(config.pos_embed_max_size * (config.patch_size * pipe.vae_scale_factor) ** 2)

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        output: Tensor = self.pipe.transformer(
            x.to(self.dtype),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            return_dict=False,
            **condition.options,
        )[0]
        return output

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        scheduler.set_timesteps(num_inference_steps)
