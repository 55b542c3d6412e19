"""FLUX.1: a transformer on packed latents, guidance distilled into the network.

Reference: Black Forest Labs, FLUX.1, 2024 (no paper; the architecture is that of diffusers).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from paintback.models.diffusers.base import Condition, PipelineDenoiser, Size, refuse
from paintback.models.diffusers.flow import FlowPipeline, embed_guidance, set_shifted, shift_of, together
from paintback.schedules import Time

__all__ = ["Flux"]

NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@dataclass(frozen=True)
class Flux(FlowPipeline):
    """`FluxPipeline`: dev, whose guidance scale is an input of the network, and schnell, which has none."""

    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    guidance_scale: ClassVar[float] = 3.5
    attention: ClassVar[tuple[str, str] | None] = ("joint_attention_kwargs", "joint_attention_kwargs")

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: Size | None = None,
        **embeddings: Tensor | float | None,
    ) -> PipelineDenoiser:
        """As `LatentModel.denoiser`, with `true_cfg_scale`: guidance by two calls, which needs a negative prompt.

        Raises:
            ValueError: for true_cfg_scale without a negative prompt, or a guidance scale where there is none.
        """
        if not self.distilled:
            self.refuse_guidance(guidance_scale, "leave it out, or give true_cfg_scale and a negative_prompt")
        true_scale = embeddings.pop("true_cfg_scale", None)
        negated = negative_prompt is not None or all(embeddings.get(name) is not None for name in NAMES[1::2])
        scale = true_cfg(self.name, true_scale, negated, 1.0)
        if negated and scale <= 1:
            warnings.warn(
                f"The model {self.name!r} does not look at a negative prompt unless true_cfg_scale is above 1.",
                stacklevel=2,
            )
        made = super().denoiser(prompt, negative_prompt, scale, size=size, **embeddings)
        if self.distilled:
            embed_guidance(made, self.guidance_scale if guidance_scale is None else float(guidance_scale))
        return made

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        refuse(embeddings, (*NAMES, *self.words), self.name)
        together(embeddings, NAMES[::2], self.name)
        together(embeddings, NAMES[1::2], self.name)
        length = {name: embeddings[name] for name in ("max_sequence_length",) if name in embeddings}
        under = self._told(prompt, *(embeddings.get(name) for name in (*NAMES[::2], "prompt_2")), **length)
        if not guided:
            return under, None
        more = (embeddings.get(name) for name in (*NAMES[1::2], "negative_prompt_2"))
        return under, self._told(negative_prompt or "", *more, **length)

    def _told(
        self, text: str, embeds: Tensor | None, pooled: Tensor | None, second: str | None, **length: int
    ) -> Condition:
        embeds, pooled, places = self.pipe.encode_prompt(
            prompt=text if embeds is None else None,
            prompt_2=second,
            prompt_embeds=embeds,
            pooled_prompt_embeds=pooled,
            device=self.device,
            **length,
        )
        assert embeds is not None
        assert pooled is not None
        return Condition(embeds, {"pooled": pooled, "places": places[None]})

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        packed = self.pack(x.to(self.dtype))
        height, width = (side // self.multiple for side in size)
        output: Tensor = self.pipe.transformer(
            hidden_states=packed,
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            guidance=condition.extras.get("guidance"),
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            txt_ids=condition.extras["places"][0],
            img_ids=self.remember(
                (height, width, x.device, self.dtype),
                lambda: self.pipe._prepare_latent_image_ids(1, height, width, x.device, self.dtype),
            ),
            return_dict=False,
            **condition.options,
        )[0]
        return self.unpack(output, size)

    def as_latents(self, x: Tensor) -> Tensor:
        return self.pack(super().as_latents(x))

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        set_shifted(scheduler, num_inference_steps, shift_of(scheduler, self.tokens(size)))


def true_cfg(name: str, scale: Tensor | float | None, negated: bool, default: float) -> float:
    """The scale of guidance by two calls, which these pipelines have only where there is a negative prompt.

    Args:
        name: of the model.
        scale: that the user gives, or None.
        negated: whether there is a negative prompt.
        default: of the pipeline.

    Returns:
        The scale; 1 where there is no guidance.

    Raises:
        ValueError: if a scale above 1 has no negative prompt.
    """
    if scale is not None and scale > 1 and not negated:
        raise ValueError(f"The model {name!r} needs a negative_prompt for true_cfg_scale; an empty one will do.")
    if not negated:
        return 1.0
    return default if scale is None else float(scale)
