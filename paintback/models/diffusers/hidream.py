"""HiDream-I1: a mixture-of-experts transformer told by four text encoders.

Reference: Cai et al. 2025 (arXiv:2505.22705).

The network's output is x0 - x1, and it takes at most `transformer.max_seq` tokens: a picture of 1024 x 1024, to whose
area the pipeline scales every size; here only larger ones are scaled down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from paintback.models.diffusers.base import Condition, Size, refuse
from paintback.models.diffusers.flow import FlowPipeline, together
from paintback.schedules import Time

__all__ = ["HiDreamImage"]

NAMES = ("prompt_embeds_t5", "prompt_embeds_llama3", "pooled_prompt_embeds")
NEGATIVE = ("negative_prompt_embeds_t5", "negative_prompt_embeds_llama3", "negative_pooled_prompt_embeds")


@dataclass(frozen=True)
class HiDreamImage(FlowPipeline):
    """`HiDreamImagePipeline`; the Dev and Fast releases want guidance_scale 0."""

    guidance_scale: ClassVar[float] = 5.0
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")

    @classmethod
    def area_of(cls, pipe: Any) -> int | None:
        token = pipe.transformer.config.patch_size * pipe.vae_scale_factor
        return int(pipe.transformer.max_seq * token**2)

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        refuse(embeddings, (*NAMES, *NEGATIVE, *self.words), self.name)
        together(embeddings, NAMES, self.name)
        together(embeddings, NEGATIVE, self.name)
        t5, t5_without, llama, llama_without, pooled, pooled_without = self.pipe.encode_prompt(
            prompt=None if NAMES[0] in embeddings else prompt,
            negative_prompt=negative_prompt,
            do_classifier_free_guidance=guided,
            device=self.device,
            **embeddings,
        )
        under = _condition(t5, llama, pooled)
        return under, _condition(t5_without, llama_without, pooled_without) if guided else None

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


def _condition(t5: Tensor, llama: Tensor, pooled: Tensor) -> Condition:
    """Llama's hidden states come as (layers, B, L, D)."""
    return Condition(t5, {"llama": llama.transpose(0, 1), "pooled": pooled})
