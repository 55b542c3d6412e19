"""HiDream-I1: a mixture-of-experts transformer told by four text encoders.

Reference: Cai et al. 2025 (arXiv:2505.22705).

The network's output is x0 - x1, and it takes at most `transformer.max_seq` tokens: a picture of 1024 x 1024, to whose
area the pipeline scales every size; here only larger ones are scaled down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.flow import FlowPipeline
from paintback.schedules import Time

__all__ = ["HiDreamImage"]


@dataclass(frozen=True)
class HiDreamImage(FlowPipeline):
    """`HiDreamImagePipeline`; the Dev and Fast releases want guidance_scale 0."""

    guidance_scale: ClassVar[float] = 5.0
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds_t5", "prompt_embeds_llama3", "pooled_prompt_embeds")
    answers: ClassVar[tuple[str, ...]] = (
        *("embeds", "negative_embeds", "llama", "negative_llama"),
        *("pooled", "negative_pooled"),
    )

    @classmethod
    def area_of(cls, pipe: Any) -> int | None:
        token = pipe.transformer.config.patch_size * pipe.vae_scale_factor
        return int(pipe.transformer.max_seq * token**2)

    def condition(self, found: Mapping[str, Any], prefix: str = "") -> Condition:
        made = super().condition(found, prefix)  # Llama's hidden states come as (layers, B, L, D)
        return replace(made, extras={**made.extras, "llama": made.extras["llama"].transpose(0, 1)})

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        output: Tensor = self.pipe.transformer(
            hidden_states=x.to(self.dtype),
            timesteps=self.clock(time, len(x)),
            encoder_hidden_states_t5=condition.embeds.to(self.dtype),
            encoder_hidden_states_llama3=condition.extras["llama"].transpose(0, 1).to(self.dtype),
            pooled_embeds=condition.extras["pooled"].to(self.dtype),
            return_dict=False,
            **condition.options,
        )[0]
        return -output

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        if type(scheduler).__name__ == "UniPCMultistepScheduler":
            scheduler.set_timesteps(num_inference_steps)
            return
        from diffusers.pipelines.hidream_image.pipeline_hidream_image import calculate_shift

        scheduler.set_timesteps(num_inference_steps, mu=calculate_shift(self.pipe.transformer.max_seq))
