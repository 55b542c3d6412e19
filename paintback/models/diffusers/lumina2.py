"""Lumina-Image 2.0: a single-stream transformer told by Gemma 2.

Reference: Qin et al. 2025 (arXiv:2503.21758).

The network's time runs from 0 (noise) to 1, its output is x0 - x1, and guidance keeps the conditional velocity's length
along each row of cells, as the pipeline's `cfg_normalization` does by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from paintback.denoiser import Prediction
from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.flow import FlowPipeline, set_shifted, shift_of, with_length
from paintback.schedules import Time

__all__ = ["Lumina2"]


@dataclass(frozen=True)
class Lumina2(FlowPipeline):
    """`Lumina2Pipeline`."""

    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    guidance_scale: ClassVar[float] = 4.0
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_attention_mask")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "mask", "negative_embeds", "negative_mask")

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        output: Tensor = self.pipe.transformer(
            hidden_states=x.to(self.dtype),
            timestep=1 - self.clock(time, len(x)) / 1000,
            encoder_hidden_states=condition.embeds.to(self.dtype),
            encoder_attention_mask=condition.extras["mask"],
            return_dict=False,
            **condition.options,
        )[0]
        return -output

    def mix(self, conditional: Prediction, unconditional: Prediction, scale: float, time: Time) -> Prediction:
        return with_length(conditional, unconditional, scale, time, lambda v: v.norm(dim=-1, keepdim=True))

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        # the pipeline counts the channels of its latents where others count tokens
        set_shifted(scheduler, num_inference_steps, shift_of(scheduler, self.codec.channels))
