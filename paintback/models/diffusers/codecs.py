"""Autoencoders of pipelines: of pictures, and of clips.

Encoding takes the mode of the encoder's Gaussian, so that it draws no noise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.models.latent import LatentCodec

__all__ = ["ClipCodec", "Statistics", "VaeCodec"]


class Statistics:
    """Means and deviations of a VAE's channels, which stay on the device that they were last asked for on.

    Args:
        mean: of every channel.
        std: likewise.
    """

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        self.both = torch.stack([torch.as_tensor(one, dtype=torch.float32) for one in (mean, std)])

    def like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both, to be used with x."""
        if self.both.device != x.device:
            self.both = self.both.to(x.device)
        mean, std = self.both.to(x.dtype).reshape(2, 1, -1, *[1] * (x.ndim - 2))
        return mean, std


class VaeCodec(LatentCodec):
    """A VAE with its scaling, or one with means and deviations per channel.

    Args:
        vae: the pipeline's own, with its tiling, slicing, hooks and dtype.
        factor: pixels per cell.
    """

    def __init__(self, vae: Any, factor: int) -> None:
        self.vae, self.factor = vae, factor
        config = vae.config
        self.channels = int(config.get("latent_channels") or config.z_dim)
        self.scaling = float(config.get("scaling_factor") or 1.0)
        self.shift = float(config.get("shift_factor") or 0.0)
        places = ("latents_mean", "latents_std")
        mean, std = (config[name] if name in config else getattr(vae, name, None) for name in places)
        self.statistics = None if mean is None or std is None else Statistics(mean, std)

    @contextlib.contextmanager
    def _dtype(self) -> Iterator[torch.dtype]:
        """The dtype to run in; SDXL's VAE overflows in float16 and runs in float32 for the while."""
        dtype = self.vae.dtype
        if dtype != torch.float16 or not getattr(self.vae.config, "force_upcast", False):
            yield dtype
            return
        try:
            self.vae.to(torch.float32)
            yield torch.float32
        finally:
            self.vae.to(dtype)

    def encode(self, picture: Tensor) -> Tensor:
        with self._dtype() as dtype:
            found = self.vae.encode(picture.to(dtype))
            latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latent
            z: Tensor = latents.to(picture.dtype)
        if self.statistics is not None:
            mean, std = self.statistics.like(z)
            return (z - mean) * self.scaling / std
        return (z - self.shift) * self.scaling

    def decode(self, x: Tensor) -> Tensor:
        if self.statistics is not None:
            mean, std = self.statistics.like(x)
            z = x * std / self.scaling + mean
        else:
            z = x / self.scaling + self.shift
        with self._dtype() as dtype:
            return self.picture(z.to(dtype)).to(x.dtype)

    def picture(self, z: Tensor) -> Tensor:
        """What the VAE makes of its own latents."""
        found: Tensor = self.vae.decode(z, return_dict=False)[0]
        return found


class ClipCodec(VaeCodec):
    """A VAE of clips that is causal in time: the first cell is the first frame, each further one the next `frames`.

    Pictures (B, 3, H, W) are clips of one frame, and their latents (B, C, h, w).

    Args:
        vae: the pipeline's own.
        factor: pixels per cell.
        frames: per cell in time.
    """

    def __init__(self, vae: Any, factor: int, frames: int = 1) -> None:
        super().__init__(vae, factor)
        self.frames = frames

    def encode(self, picture: Tensor) -> Tensor:
        if picture.ndim == 4:
            return super().encode(picture[:, :, None])[:, :, 0]
        return super().encode(picture)

    def decode(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return super().decode(x[:, :, None])[:, :, 0]
        return super().decode(x)

    def shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        *frames, height, width = size
        return (
            self.channels,
            *((count - 1) // self.frames + 1 for count in frames),
            height // self.factor,
            width // self.factor,
        )

    def share_known(self, known: Tensor) -> Tensor:
        if known.ndim == 4:
            return super().share_known(known)
        first = F.avg_pool3d(known[:, :, :1].float(), (1, self.factor, self.factor))
        if known.shape[2] == 1:
            return first
        return torch.cat((first, F.avg_pool3d(known[:, :, 1:].float(), (self.frames, self.factor, self.factor))), dim=2)
