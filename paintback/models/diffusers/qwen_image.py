"""Qwen-Image: a transformer on packed latents of a video VAE, guided only where there is a negative prompt.

Reference: Wu et al. 2025 (arXiv:2508.02324).

Guidance keeps the conditional velocity's length: with c and u the velocities under the prompt and the negative one,
    v = m |c| / |m|,   m = u + w (c - u),
norms taken over each token, which is 2 x 2 cells. Not linear in w, so `Prediction.guided` is told of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.codecs import ClipCodec
from paintback.models.diffusers.flow import TrueGuidance, with_length
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["QwenImage"]


@dataclass(frozen=True)
class QwenImage(TrueGuidance):
    """`QwenImagePipeline`; a network with embedded guidance is told 1 where the user names no scale."""

    packed: ClassVar[bool] = True
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    guidance_scale: ClassVar[float] = 4.0  # the pipeline's true_cfg_scale
    true_scale: ClassVar[float] = 4.0
    instead: ClassVar[str] = "give true_cfg_scale and a negative_prompt"
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_embeds_mask")
    alone: ClassVar[bool] = True
    answers: ClassVar[tuple[str, ...]] = ("embeds", "mask")

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return ClipCodec(pipe.vae, int(pipe.vae_scale_factor))

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
        return with_length(conditional, unconditional, scale, time, _token_norm)


def _token_norm(v: Tensor) -> Tensor:
    """(B, 1, h, w): in every cell the norm over all channels of the token it lies in."""
    squares = torch.nn.functional.avg_pool2d(v.square().sum(1, keepdim=True), 2) * 4
    return squares.sqrt().repeat_interleave(2, -2).repeat_interleave(2, -1)
