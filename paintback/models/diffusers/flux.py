"""FLUX.1: a transformer on packed latents, guidance distilled into the network.

Reference: Black Forest Labs, FLUX.1, 2024 (no paper; the architecture is that of diffusers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.flow import TrueGuidance
from paintback.schedules import Time

__all__ = ["Flux"]


@dataclass(frozen=True)
class Flux(TrueGuidance):
    """`FluxPipeline`: dev, whose guidance scale is an input of the network, and schnell, which has none."""

    packed: ClassVar[bool] = True
    guidance_scale: ClassVar[float] = 3.5
    told_scale: ClassVar[float] = 3.5
    attention: ClassVar[tuple[str, str] | None] = ("joint_attention_kwargs", "joint_attention_kwargs")
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_prompt_embeds")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "pooled", "")

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        packed = self.pack(x.to(self.dtype))
        output: Tensor = self.pipe.transformer(
            hidden_states=packed,
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            guidance=condition.extras.get("guidance"),
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            txt_ids=condition.embeds.new_zeros(condition.embeds.shape[1], 3, dtype=self.dtype),
            img_ids=self.image_ids(x, size),
            return_dict=False,
            **condition.options,
        )[0]
        return self.unpack(output, size)
