"""Sana: a transformer with linear attention in the latents of a VAE of 32 pixels a cell.

Reference: Xie et al. 2024 (arXiv:2410.10629).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.control import CONTROL, Control
from paintback.models.diffusers.flow import FlowPipeline
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["Sana"]


@dataclass(frozen=True)
class Sana(FlowPipeline):
    """`SanaPipeline`; prompts have its `complex_human_instruction` before them, as in its own call."""

    guidance_scale: ClassVar[float] = 4.5
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    keywords: ClassVar[tuple[str, ...]] = CONTROL
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
        output: Tensor = self.pipe.transformer(
            x.to(self.dtype),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            encoder_attention_mask=condition.extras["mask"],
            timestep=self.clock(time, len(x)) * self.pipe.transformer.config.timestep_scale,
            return_dict=False,
            **condition.options,
        )[0]
        return output[:, : x.shape[1]]

    def residuals(self, x: Tensor, time: Time, condition: Condition, size: Size, control: Control) -> dict[str, Any]:
        said = self.controlnet(
            x.to(self.dtype),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            encoder_attention_mask=condition.extras["mask"],
            timestep=self.clock(time, len(x)),
            **replace(control, seen=[one.to(self.dtype) for one in control.seen]).told(),
            return_dict=False,
        )[0]
        return {"controlnet_block_samples": said}

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        scheduler.set_timesteps(num_inference_steps)
