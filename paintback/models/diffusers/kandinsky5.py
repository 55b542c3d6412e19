"""Kandinsky 5: one transformer for clips and for pictures, whose states have their channels last.

Reference: Arkhipkin et al. 2025 (arXiv:2511.14993).
The pipelines that start from a picture, or edit one, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.clips import ClipPipeline
from paintback.models.diffusers.codecs import ClipCodec, VaeCodec
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["Kandinsky5", "Kandinsky5Image"]


@dataclass(frozen=True)
class Kandinsky5(ClipPipeline):
    """`Kandinsky5T2VPipeline`; its network may have room for a picture to start from, which is left empty."""

    trained: ClassVar[tuple[int, int]] = (624, 121)  # 768 x 512
    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    guidance_scale: ClassVar[float] = 5.0
    embeds: ClassVar[tuple[str, ...]] = ()  # its `encode_prompt` takes none
    answers: ClassVar[tuple[str, ...]] = ("embeds", "pooled", "")
    negative: ClassVar[str] = (
        "Static, 2D cartoon, cartoon, 2d animation, paintings, images, worst quality, low quality, ugly, deformed, "
        "walking backwards"
    )

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return ClipCodec(pipe.vae, int(pipe.vae_scale_factor_spatial), int(pipe.vae_scale_factor_temporal))

    def as_latents(self, x: Tensor) -> Tensor:
        """Channels last, with those of the picture to start from and of where it is known."""
        clip = (x if x.ndim == 5 else x[:, :, None]).movedim(1, -1).to(self.device, self.dtype)
        if not self.pipe.transformer.config.visual_cond:
            return clip
        return torch.cat((clip, torch.zeros_like(clip), torch.zeros_like(clip[..., :1])), -1)

    def stretch(self, height: int, width: int) -> Any:
        """How far apart positions are, by the size in pixels."""
        return self.pipe._get_scale_factor(height, width)

    def look(self, x: Tensor, time: Time, condition: Condition) -> Tensor:
        latents, words = self.as_latents(x), condition.embeds.to(self.dtype)
        frames, height, width = x.shape[2:]
        sparse = getattr(self.pipe, "get_sparse_params", lambda *_: None)
        places = [torch.arange(count, device=x.device) for count in (frames, height // 2, width // 2)]
        output: Tensor = self.pipe.transformer(
            hidden_states=latents,
            encoder_hidden_states=words,
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            timestep=self.clock(time, len(x)).to(self.dtype),
            visual_rope_pos=places,
            text_rope_pos=torch.arange(words.shape[1], device=x.device),
            scale_factor=self.stretch(height * self.codec.factor, width * self.codec.factor),
            sparse_params=sparse(latents, x.device),
            return_dict=True,
        ).sample
        return output.movedim(-1, 1)

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        scheduler.set_timesteps(num_inference_steps)


@dataclass(frozen=True)
class Kandinsky5Image(Kandinsky5):
    """`Kandinsky5T2IPipeline`; sizes are kept as they are, and its pipeline would take the nearest of a list."""

    trained: ClassVar[tuple[int, int]] = (1024, 1)
    guidance_scale: ClassVar[float] = 3.5
    negative: ClassVar[str] = ""

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        codec = VaeCodec(pipe.vae, int(pipe.vae_scale_factor_spatial))
        codec.shift = 0.0  # the pipeline does not look at it
        return codec

    def stretch(self, height: int, width: int) -> Any:
        return [1.0, 1.0, 1.0]
