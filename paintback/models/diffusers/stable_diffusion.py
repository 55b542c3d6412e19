"""Stable Diffusion 1.x and 2.x, and SDXL: a U-Net with cross-attention in the latents of a VAE.

References: Rombach et al. 2022 (arXiv:2112.10752), Podell et al. 2023 (SDXL, arXiv:2307.01952).
SDXL's refiner is left out.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.models.diffusers.base import Condition, PipelineModel, Size, rescaled
from paintback.models.diffusers.control import CONTROL, Control
from paintback.models.diffusers.schedulers import edm_clock, edm_input, edm_picture
from paintback.models.diffusers.shown import PROMPTS, numbered
from paintback.models.latent import LatentCodec
from paintback.schedules import VP, Time

__all__ = ["StableDiffusion", "StableDiffusionXL"]


@dataclass(frozen=True)
class StableDiffusion(PipelineModel):
    """`StableDiffusionPipeline`: 1.x and 2.x, noise or v, LCM's embedded guidance where the U-Net has it."""

    part: ClassVar[str] = "unet"
    attention: ClassVar[tuple[str, str] | None] = ("cross_attention_kwargs", "cross_attention_kwargs")
    rescales: ClassVar[bool] = True
    guidance_scale: ClassVar[float] = 7.5
    of_noise: ClassVar[bool] = True
    edm: ClassVar[bool] = True
    keywords: ClassVar[tuple[str, ...]] = (*PROMPTS, *CONTROL)
    shown: ClassVar[tuple[str, ...]] = PROMPTS
    controls: ClassVar[tuple[str, ...]] = ("guess_mode",)

    @classmethod
    def check_pipe(cls, pipe: Any, name: str) -> None:
        taken, own = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
        if taken != own:
            raise ValueError(
                f"The U-Net of {name!r} takes {taken} channels, and {own} are expected (a model of pictures), or "
                f"{2 * own + 1} (one that takes the mask, in an inpainting pipeline)."
            )

    @classmethod
    def facts(cls, pipe: Any, codec: LatentCodec) -> dict[str, Any]:
        return {
            "multiple": codec.factor,  # the U-Net takes sides that do not halve
            "training_size": _largest(pipe.unet.config.sample_size) * codec.factor,
            "distilled": pipe.unet.config.time_cond_proj_dim is not None,
        }

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        with _flat_clip(self.pipe.text_encoder):
            return super().encode_prompt(prompt, negative_prompt, guided, embeddings)

    def scales(
        self, negative_prompt: str | None, guidance_scale: float | None, given: Mapping[str, Any]
    ) -> tuple[float, float | None]:
        if not self.distilled:
            return super().scales(negative_prompt, guidance_scale, given)
        return 1.0, self.guidance_scale if guidance_scale is None else guidance_scale

    def embed(self, condition: Condition, guidance_scale: float) -> Condition:
        """Of LCM, whose U-Net was distilled to take the guidance scale as an input."""
        clock = self.pipe.get_guidance_scale_embedding(
            torch.tensor([guidance_scale - 1.0]), embedding_dim=self.pipe.unet.config.time_cond_proj_dim
        )
        return replace(condition, extras={**condition.extras, "timestep_cond": clock.to(self.device, self.dtype)})

    def control_of_picture(self, picture: Tensor) -> Tensor:
        return picture

    def residuals(self, x: Tensor, time: Time, condition: Condition, size: Size, control: Control) -> dict[str, Any]:
        down, middle = self.controlnet(
            *self.inputs(x, time),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            **replace(control, seen=[one.to(self.dtype) for one in control.seen]).told(),
            guess_mode=control.guess,
            added_cond_kwargs=_added(condition) or None,
            return_dict=False,
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

    def inputs(self, x: Tensor, time: Time) -> tuple[Tensor, Tensor]:
        """The states and the time as the networks take them; EDM's are scaled, and its time is ln(sigma) / 4."""
        if isinstance(self.schedule, VP):
            clock = time.t * self.schedule.num_train_timesteps - 1
        else:
            scheduler = self.pipe.scheduler
            x, clock = edm_input(scheduler, x, time.sigma), edm_clock(scheduler, time.sigma)
        return x.to(self.dtype), x.new_full((), clock, dtype=torch.float32)

    @property
    def deviation(self) -> float:
        """Of the latents, by EDM's scheduler; Karras et al. 2022 (arXiv:2206.00364), table 1."""
        return float(self.pipe.scheduler.config.sigma_data)

    def rescaled(self, mixed: Prediction, conditional: Prediction, share: float, time: Time) -> Prediction:
        """EDM's network predicts v, or its negative, of latents that are divided by their deviation."""
        if isinstance(self.schedule, VP):
            return super().rescaled(mixed, conditional, share, time)
        norm = math.hypot(time.sigma, self.deviation)
        unit = Time(time.t, self.deviation / norm, time.sigma / norm)
        own, under = (Prediction(one.x0 / self.deviation, one.x1) for one in (mixed, conditional))
        made = rescaled("v", own, under, share, unit)
        return Prediction(made.x0 * self.deviation, made.x1)

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        extras: dict[str, Any] = _added(condition)
        prompts = numbered(dict(condition.extras), "image_embeds")
        if prompts:
            extras["image_embeds"] = [one.to(self.dtype) for one in prompts]
        output: Tensor = self.pipe.unet(
            *self.inputs(x, time),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            timestep_cond=condition.extras.get("timestep_cond"),
            added_cond_kwargs=extras or None,
            **condition.options,
            return_dict=False,
        )[0]
        output = output[:, : x.shape[1]]
        if isinstance(self.schedule, VP):
            return output
        return edm_picture(self.pipe.scheduler, x, output, time.sigma)


@dataclass(frozen=True)
class StableDiffusionXL(StableDiffusion):
    """`StableDiffusionXLPipeline`: two text encoders, told the size of the picture."""

    guidance_scale: ClassVar[float] = 5.0
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_prompt_embeds")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "negative_embeds", "text_embeds", "negative_text_embeds")

    def at_size(self, condition: Condition, size: Size) -> Condition:
        encoder = self.pipe.text_encoder_2
        pooled = condition.extras["text_embeds"]
        told = self.pipe._get_add_time_ids(
            size,
            (0, 0),
            size,
            dtype=condition.embeds.dtype,
            text_encoder_projection_dim=pooled.shape[-1] if encoder is None else encoder.config.projection_dim,
        )
        return replace(condition, extras={**condition.extras, "time_ids": told.to(self.device)})


def _added(condition: Condition) -> dict[str, Any]:
    """What SDXL's networks are told beside the words."""
    return {name: condition.extras[name] for name in ("text_embeds", "time_ids") if name in condition.extras}


@contextlib.contextmanager
def _flat_clip(encoder: Any) -> Iterator[None]:
    """CLIP of transformers 5 has no `text_model` within, where diffusers looks for its last norm under clip_skip."""
    flat = encoder is not None and not hasattr(encoder, "text_model") and hasattr(encoder, "final_layer_norm")
    if flat:
        object.__setattr__(encoder, "text_model", encoder)  # beside the modules: it is one of its own otherwise
    try:
        yield
    finally:
        if flat:
            object.__delattr__(encoder, "text_model")


def _largest(side: int | tuple[int, int]) -> int:
    return max(side) if isinstance(side, tuple | list) else int(side)
