"""Qwen-Image: a transformer on packed latents of a video VAE, guided only where there is a negative prompt.

Reference: Wu et al. 2025 (arXiv:2508.02324).

Guidance keeps the conditional velocity's length: with c and u the velocities under the prompt and the negative one,
    v = m |c| / |m|,   m = u + w (c - u),
norms taken over each token, which is 2 x 2 cells. Not linear in w, so `Prediction.guided` is told of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.models.diffusers.base import Condition, PipelineDenoiser, Size, Statistics, refuse
from paintback.models.diffusers.flow import FlowPipeline, embed_guidance, set_shifted, shift_of
from paintback.models.diffusers.flux import true_cfg
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["QwenCodec", "QwenImage"]

NAMES = ("prompt_embeds", "prompt_embeds_mask", "negative_prompt_embeds", "negative_prompt_embeds_mask")
EMBEDDED = 1.0  # the guidance scale told to a distilled network where the user names none; the pipeline has no default


class QwenCodec(LatentCodec):
    """An `AutoencoderKLQwenImage`: a video VAE on single frames, with a mean and a deviation per channel.

    Args:
        pipe: the pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        self.vae, self.factor = pipe.vae, int(pipe.vae_scale_factor)
        config = pipe.vae.config
        self.channels = int(config.z_dim)
        self.statistics = Statistics(config.latents_mean, config.latents_std)

    def encode(self, picture: Tensor) -> Tensor:
        z = self.vae.encode(picture[:, :, None].to(self.vae.dtype)).latent_dist.mode()[:, :, 0].to(picture.dtype)
        mean, std = self.statistics.like(z)
        x: Tensor = (z - mean) / std
        return x

    def decode(self, x: Tensor) -> Tensor:
        mean, std = self.statistics.like(x)
        z = (x * std + mean)[:, :, None].to(self.vae.dtype)
        picture: Tensor = self.vae.decode(z, return_dict=False)[0][:, :, 0].to(x.dtype)
        return picture


@dataclass(frozen=True)
class QwenImage(FlowPipeline):
    """`QwenImagePipeline`."""

    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    guidance_scale: ClassVar[float] = 4.0  # the pipeline's true_cfg_scale

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return QwenCodec(pipe)

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
            self.refuse_guidance(guidance_scale, "give true_cfg_scale and a negative_prompt")
        true_scale = embeddings.pop("true_cfg_scale", None)
        negated = negative_prompt is not None or embeddings.get("negative_prompt_embeds") is not None
        scale = true_cfg(self.name, true_scale, negated, 1.0 if self.step_distilled else self.guidance_scale)
        made = super().denoiser(prompt, negative_prompt, scale, size=size, **embeddings)
        if self.distilled:
            embed_guidance(made, EMBEDDED if guidance_scale is None else float(guidance_scale))
        return made

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        refuse(embeddings, (*NAMES, *self.words), self.name)
        under = self._told(prompt, "", embeddings)
        return under, self._told(negative_prompt or "", "negative_", embeddings) if guided else None

    def _told(self, text: str, negative: str, given: Mapping[str, Any]) -> Condition:
        embeds, mask = (given.get(f"{negative}{name}") for name in NAMES[:2])
        embeds, mask = self.pipe.encode_prompt(
            prompt=text if embeds is None else None,
            prompt_embeds=embeds,
            prompt_embeds_mask=mask,
            device=self.device,
            max_sequence_length=given.get("max_sequence_length", 512),
        )
        assert embeds is not None
        return Condition(embeds, {} if mask is None else {"mask": mask})

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        height, width = (side // self.multiple for side in size)
        output: Tensor = self.pipe.transformer(
            hidden_states=self.pack(x.to(self.dtype)),
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            guidance=condition.extras.get("guidance"),
            encoder_hidden_states_mask=condition.extras.get("mask"),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            img_shapes=[[(1, height, width)]] * len(x),
            return_dict=False,
            **condition.options,
        )[0]
        return self.unpack(output, size)

    def unpack(self, packed: Tensor, size: Size) -> Tensor:
        return super().unpack(packed, size)[:, :, 0]

    def mix(self, conditional: Prediction, unconditional: Prediction, scale: float, time: Time) -> Prediction:
        velocity = conditional.x1 - conditional.x0
        mixed = torch.lerp(unconditional.x1 - unconditional.x0, velocity, scale)
        length, own = (_token_norm(v) for v in (velocity, mixed))
        away = mixed * (length / own) - velocity
        return Prediction(conditional.x0 - time.sigma * away, conditional.x1 + time.alpha * away)

    def as_latents(self, x: Tensor) -> Tensor:
        return self.pack(super().as_latents(x))

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        set_shifted(scheduler, num_inference_steps, shift_of(scheduler, self.tokens(size)))


def _token_norm(v: Tensor) -> Tensor:
    """(B, 1, h, w): in every cell the norm over all channels of the token it lies in."""
    squares = torch.nn.functional.avg_pool2d(v.square().sum(1, keepdim=True), 2) * 4
    return squares.sqrt().repeat_interleave(2, -2).repeat_interleave(2, -1)
