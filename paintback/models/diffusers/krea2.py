"""Krea 2: a transformer on packed latents of Qwen-Image's VAE, told several layers of its text encoder.

Reference: Krea AI, Krea 2, 2026 (no paper; the architecture is that of diffusers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.codecs import ClipCodec
from paintback.models.diffusers.flow import AddedGuidance, set_shifted, shift_of
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["Krea2"]


@dataclass(frozen=True)
class Krea2(AddedGuidance):
    """`Krea2Pipeline`; the Turbo release is step-distilled and has no guidance unless it is asked for."""

    packed: ClassVar[bool] = True
    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    guidance_scale: ClassVar[float] = 4.5
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_embeds_mask")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "mask")

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return ClipCodec(pipe.vae, int(pipe.vae_scale_factor))

    @classmethod
    def facts(cls, pipe: Any, codec: LatentCodec) -> dict[str, Any]:
        return {**super().facts(pipe, codec), "multiple": codec.factor * int(pipe.patch_size)}

    @classmethod
    def is_distilled(cls, pipe: Any) -> bool:
        return bool(pipe.config.is_distilled)

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        words = condition.embeds.to(self.dtype)
        place = (words.shape[1], *(side // self.multiple for side in size))
        output: Tensor = self.pipe.transformer(
            hidden_states=self.pack(x.to(self.dtype)),
            encoder_hidden_states=words,
            timestep=(self.clock(time, len(x)) / self.pipe.scheduler.config.num_train_timesteps).to(self.dtype),
            position_ids=self.remember((*place, x.device), lambda: self.pipe.prepare_position_ids(*place, x.device)),
            encoder_attention_mask=condition.extras["mask"],
            return_dict=False,
            **condition.options,
        )[0]
        unpacked: Tensor = self.pipe._unpack_latents(output, *size)
        return unpacked[:, :, 0]

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        mu = 1.15 if self.pipe.config.is_distilled else shift_of(scheduler, self.tokens(size), longest=6400)
        set_shifted(scheduler, num_inference_steps, mu)
