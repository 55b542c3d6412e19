"""HunyuanVideo: a transformer on clips, guidance distilled into the network.

Reference: Kong et al. 2024 (arXiv:2412.03603).
The pipelines that start from a picture, and HunyuanVideo 1.5, are other ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.clips import ClipPipeline
from paintback.models.diffusers.flow import TrueGuidance, set_shifted
from paintback.schedules import Time

__all__ = ["HunyuanVideo"]


@dataclass(frozen=True)
class HunyuanVideo(ClipPipeline, TrueGuidance):
    """`HunyuanVideoPipeline`."""

    trained: ClassVar[tuple[int, int]] = (960, 129)  # 1280 x 720
    guidance_scale: ClassVar[float] = 6.0
    told_scale: ClassVar[float] = 6.0
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "pooled", "mask")

    def look(self, x: Tensor, time: Time, condition: Condition) -> Tensor:
        told = condition.extras.get("guidance")
        output: Tensor = self.pipe.transformer(
            hidden_states=x.to(self.dtype),
            timestep=self.clock(time, len(x)),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            encoder_attention_mask=condition.extras["mask"].to(self.dtype),
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            guidance=None if told is None else told.to(self.dtype) * 1000,
            return_dict=False,
            **condition.options,
        )[0]
        return output

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        set_shifted(scheduler, num_inference_steps, None)
