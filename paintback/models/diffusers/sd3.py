"""Stable Diffusion 3 and 3.5: a transformer on text and latents together.

Reference: Esser et al. 2024 (arXiv:2403.03206).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Prediction, predict
from paintback.models.diffusers.base import Condition, PipelineDenoiser, Size
from paintback.models.diffusers.control import CONTROL, Control, asked
from paintback.models.diffusers.flow import FlowPipeline, shift_of
from paintback.models.diffusers.shown import PROMPTS
from paintback.schedules import Time

__all__ = ["StableDiffusion3"]

SKIPS = {"scale": "scale", "start": "begins", "stop": "ends"}  # skip_layer_guidance_..., and what it is here


class SkipDenoiser(PipelineDenoiser):
    """SD 3.5 with skip-layer guidance: early on, the network without some of its layers is what is moved away from.

    As the pipeline has it: + scale (c - c without the layers), in the steps between two shares of the run.

    Attributes:
        layers: that are skipped; none for no such guidance.
        scale: of it.
        begins: share of the steps after which it begins.
        ends: share of the steps at which it ends.
    """

    layers: Sequence[int] = ()
    scale: float = 2.8
    begins: float = 0.01
    ends: float = 0.2

    def adjusted(self, guided: Prediction, x: Tensor, time: Time) -> Prediction:
        if not self.layers or not self.begins < self.steps_at(time)[0] < self.ends:
            return guided
        assert self.conditional is not None
        assert guided.conditional is not None
        under = self.conditional.rows(len(x))
        under = under.called(skip_layers=list(self.layers), **asked(self, x, time, under))
        skipped = predict(self.model.parametrisation, self._run(x, time, under), x, time)
        away = [a - b for a, b in ((guided.conditional.x0, skipped.x0), (guided.conditional.x1, skipped.x1))]
        return replace(
            guided,
            x0=guided.x0 + self.scale * away[0],
            x1=guided.x1 + self.scale * away[1],
            rows=guided.rows + len(x),
        )


@dataclass(frozen=True)
class StableDiffusion3(FlowPipeline):
    """`StableDiffusion3Pipeline`, with or without T5."""

    guidance_scale: ClassVar[float] = 7.0
    attention: ClassVar[tuple[str, str] | None] = ("joint_attention_kwargs", "joint_attention_kwargs")

    keywords: ClassVar[tuple[str, ...]] = (
        "skip_guidance_layers",
        *(f"skip_layer_guidance_{one}" for one in SKIPS),
        *PROMPTS,
        *CONTROL,
    )
    shown: ClassVar[tuple[str, ...]] = PROMPTS
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_prompt_embeds")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "negative_embeds", "pooled", "negative_pooled")

    def finish(self, made: PipelineDenoiser, own: Mapping[str, Any]) -> PipelineDenoiser:
        """Adds SD 3.5's `skip_guidance_layers` and the settings of their guidance."""
        if not own["skip_guidance_layers"]:
            return super().finish(made, own)
        if made.unconditional is None:
            raise ValueError("skip_guidance_layers go with guidance; give a prompt and a guidance_scale above 1.")
        other = SkipDenoiser(self, made.size, made.conditional, made.unconditional, made.guidance_scale)
        other.layers = tuple(own["skip_guidance_layers"])
        for name, called in SKIPS.items():
            value = own[f"skip_layer_guidance_{name}"]
            if value is not None:
                setattr(other, called, float(value))
        return super().finish(other, own)

    def check_controlnet(self, nets: Sequence[Any]) -> None:
        if any(net.config.extra_conditioning_channels for net in nets):
            raise ValueError(
                f"A ControlNet of {self.name!r} takes the mask; load it by its pipeline's inpainting class "
                '(StableDiffusion3ControlNetInpaintingPipeline), which paints by itself (method "trained").'
            )

    def adapted(self, prompts: list[Tensor]) -> Any:
        return prompts[0]  # it has one IP-Adapter

    @property
    def plain_pooled(self) -> bool:
        """Whether the ControlNet is one that reads latents without their shift, and no pooled text."""
        first = getattr(self.controlnet, "nets", [self.controlnet])[0]
        return bool(first.config.force_zeros_for_pooled_projection)

    def control_of_picture(self, picture: Tensor) -> Tensor:
        latents = super().control_of_picture(picture)
        vae = self.pipe.vae.config
        return latents + vae.shift_factor * vae.scaling_factor if self.plain_pooled else latents

    def residuals(self, x: Tensor, time: Time, condition: Condition, size: Size, control: Control) -> dict[str, Any]:
        first = getattr(self.controlnet, "nets", [self.controlnet])[0]
        pooled = condition.extras["pooled"].to(self.dtype)
        said = self.controlnet(
            hidden_states=x.to(self.dtype),
            timestep=self.clock(time, len(x)),
            encoder_hidden_states=None if first.config.joint_attention_dim is None else condition.embeds.to(self.dtype),
            pooled_projections=torch.zeros_like(pooled) if self.plain_pooled else pooled,
            **replace(control, seen=[one.to(self.dtype) for one in control.seen]).told(),
            **condition.options,
            return_dict=False,
        )[0]
        return {"block_controlnet_hidden_states": said}

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        output: Tensor = self.pipe.transformer(
            hidden_states=x.to(self.dtype),
            timestep=self.clock(time, len(x)),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            **self.options(condition),
            return_dict=False,
        )[0]
        return output

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        if scheduler.config.get("use_dynamic_shifting", False):
            scheduler.set_timesteps(num_inference_steps, mu=shift_of(scheduler, self.tokens(size), max_shift=1.16))
        else:
            scheduler.set_timesteps(num_inference_steps)
