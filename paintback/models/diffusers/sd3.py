"""Stable Diffusion 3 and 3.5: a transformer on text and latents together.

Reference: Esser et al. 2024 (arXiv:2403.03206).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from paintback.models.diffusers.base import Condition, Size, refuse
from paintback.models.diffusers.flow import FlowPipeline, shift_of, together
from paintback.schedules import Time

__all__ = ["StableDiffusion3"]

NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@dataclass(frozen=True)
class StableDiffusion3(FlowPipeline):
    """`StableDiffusion3Pipeline`, with or without T5."""

    guidance_scale: ClassVar[float] = 7.0

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        refuse(embeddings, NAMES, self.name)
        together(embeddings, NAMES[::2], self.name)
        together(embeddings, NAMES[1::2], self.name)
        under, without, pooled, pooled_without = self.pipe.encode_prompt(
            None if "prompt_embeds" in embeddings else prompt,
            None,
            None,
            device=self.device,
            do_classifier_free_guidance=guided,
            negative_prompt=negative_prompt,
            **embeddings,
        )
        conditional = Condition(under, {"pooled": pooled})
        return conditional, Condition(without, {"pooled": pooled_without}) if guided else None

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        output: Tensor = self.pipe.transformer(
            hidden_states=x.to(self.dtype),
            timestep=self.clock(time, len(x)),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            return_dict=False,
        )[0]
        return output

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        if scheduler.config.get("use_dynamic_shifting", False):
            scheduler.set_timesteps(num_inference_steps, mu=shift_of(scheduler, self.tokens(size), max_shift=1.16))
        else:
            scheduler.set_timesteps(num_inference_steps)
