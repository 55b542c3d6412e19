"""Chroma: FLUX.1's transformer, smaller, without distilled guidance, told which words are padding.

Reference: Lodestone Rock, Chroma1, 2025 (no paper; the architecture is that of diffusers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.flow import FlowPipeline
from paintback.models.diffusers.shown import PROMPTS
from paintback.schedules import Time

__all__ = ["Chroma"]


@dataclass(frozen=True)
class Chroma(FlowPipeline):
    """`ChromaPipeline`."""

    packed: ClassVar[bool] = True
    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    guidance_scale: ClassVar[float] = 5.0
    attention: ClassVar[tuple[str, str] | None] = ("joint_attention_kwargs", "joint_attention_kwargs")
    keywords: ClassVar[tuple[str, ...]] = PROMPTS
    shown: ClassVar[tuple[str, ...]] = PROMPTS
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_attention_mask")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "", "mask", "negative_embeds", "", "negative_mask")

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        packed, words = self.pack(x.to(self.dtype)), condition.embeds.to(self.dtype)
        seen = torch.cat((condition.extras["mask"], packed.new_ones(packed.shape[:2])), dim=1)
        options = self.options(condition)
        if (
            options.get("joint_attention_kwargs")
            and torch.is_grad_enabled()
            and self.pipe.transformer.gradient_checkpointing
        ):
            raise ValueError(  # diffusers 0.42 leaves them out there
                "Chroma's network does not see an IP-Adapter's picture or joint_attention_kwargs under gradient "
                "checkpointing; leave gradient_checkpointing out, or take a method without gradients."
            )
        output: Tensor = self.pipe.transformer(
            hidden_states=packed,
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            encoder_hidden_states=words,
            txt_ids=words.new_zeros(words.shape[1], 3),
            img_ids=self.image_ids(x, size),
            attention_mask=seen,
            return_dict=False,
            **options,
        )[0]
        return self.unpack(output, size)
