"""LTX-Video: a transformer on the latents of a VAE of 32 x 32 x 8 pixels a cell.

Reference: HaCohen et al. 2024 (arXiv:2501.00103).
The pipelines that start from a picture are left out: what is known of a clip is what its mask says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.models.diffusers.base import Condition, PipelineDenoiser
from paintback.models.diffusers.clips import ClipPipeline
from paintback.models.diffusers.codecs import ClipCodec
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["Ltx"]

RATE = 25  # frames a second, of the pipeline's call


class LtxCodec(ClipCodec):
    """LTX's VAE, whose decoder may be told a time too: 0, of a picture without noise, as the pipeline does."""

    def picture(self, z: Tensor) -> Tensor:
        time = torch.zeros(len(z), device=z.device, dtype=z.dtype) if self.vae.config.timestep_conditioning else None
        found: Tensor = self.vae.decode(z, time, return_dict=False)[0]
        return found


@dataclass(frozen=True)
class Ltx(ClipPipeline):
    """`LTXPipeline`."""

    trained: ClassVar[tuple[int, int]] = (608, 161)  # 704 x 512
    guidance_scale: ClassVar[float] = 3.0
    rescales: ClassVar[bool] = True
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    keywords: ClassVar[tuple[str, ...]] = ("frame_rate",)
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_attention_mask")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "mask", "negative_embeds", "negative_mask")

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return LtxCodec(pipe.vae, int(pipe.vae.spatial_compression_ratio), int(pipe.vae.temporal_compression_ratio))

    def finish(self, made: PipelineDenoiser, own: Mapping[str, Any]) -> PipelineDenoiser:
        """Tells the network how many frames there are a second."""
        for conditional in (True, False):
            made.tell({"rate": torch.tensor([float(own["frame_rate"] or RATE)])}, conditional=conditional)
        return made

    @property
    def patches(self) -> tuple[int, int]:
        """Cells of a token: along a side, and in time."""
        return self.pipe.transformer_spatial_patch_size, self.pipe.transformer_temporal_patch_size

    def as_latents(self, x: Tensor) -> Tensor:
        clip: Tensor = self.pipe._pack_latents(x if x.ndim == 5 else x[:, :, None], *self.patches)
        return clip.to(self.device)

    def look(self, x: Tensor, time: Time, condition: Condition) -> Tensor:
        frames, height, width = x.shape[2:]
        factor = self.codec.factor
        output: Tensor = self.pipe.transformer(
            hidden_states=self.pipe._pack_latents(x.to(self.dtype), *self.patches),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            timestep=self.clock(time, len(x)),
            encoder_attention_mask=condition.extras["mask"],
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(self.codec.frames / float(condition.extras["rate"][0]), factor, factor),
            return_dict=False,
            **condition.options,
        )[0]
        clip: Tensor = self.pipe._unpack_latents(output, frames, height, width, *self.patches)
        return clip
