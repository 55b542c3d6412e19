"""What models of sound add to latent ones: a sample rate, channels, and a length that they take.

A sound is a picture of one row: (B, channels, 1, samples) before the codec and (B, C, 1, cells) behind it, so that
every method takes it as it takes a picture. The size that a denoiser is made for is (1, samples).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NoReturn

import torch.nn.functional as F
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.models.base import Kinds, T, Told
from paintback.models.latent import LatentCodec, LatentModel

__all__ = ["SoundCodec", "SoundModel"]


class SoundCodec(LatentCodec):
    """A codec of sounds.

    Attributes:
        factor: samples per cell.
        cells: that a sound always has, whatever its length; None for as many as hold it.
    """

    cells: int | None = None

    def shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (self.channels, 1, self.cells or math.ceil(size[-1] / self.factor))

    def samples(self, count: int) -> int:
        """How many samples the cells of a sound of so many stand for."""
        return self.shape((1, count))[-1] * self.factor

    def share_known(self, known: Tensor) -> Tensor:
        return F.avg_pool2d(known.float(), (1, self.factor))


@dataclass(frozen=True)
class SoundModel(LatentModel):
    """A model that paints sounds.

    Attributes:
        codec: sounds (B, channels, 1, samples) in [-1, 1] to latents and back.
        rate: samples a second.
        sound_channels: 1 or 2.
        longest: samples that it takes at once.
        said: what it is told beside prompts, by its pipeline's names.
    """

    codec: SoundCodec = field(kw_only=True)
    rate: int = field(default=44100, kw_only=True)
    sound_channels: int = field(default=2, kw_only=True)
    longest: int = field(default=0, kw_only=True)
    said: tuple[str, ...] = field(default=(), kw_only=True)

    def paint(self, ways: Kinds[T]) -> T:
        """Refuses pictures."""
        self._refuse()

    def denoiser_at(self, size: tuple[int, ...], told: Told) -> Denoiser:
        """For sounds; a size of pictures is refused."""
        if len(size) != 2 or size[0] != 1:
            self._refuse()
        return super().denoiser_at(size, told)

    def as_clips(self) -> LatentModel:
        """Likewise."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"The model {self.name!r} paints sounds, not pictures; give it to `paintback audio` or pb.inpaint_audio."
        )

    def as_sound(self) -> SoundModel:
        return self
