"""What pipelines of sounds share: the Oobleck VAE, and the seconds that they are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from paintback.models.diffusers.base import PipelineModel, Size
from paintback.models.diffusers.denoising import PipelineDenoiser
from paintback.models.sound import SoundCodec, SoundModel

__all__ = ["OobleckCodec", "SoundPipeline"]


class OobleckCodec(SoundCodec):
    """The VAE of Stable Audio and ACE-Step; its latents are taken as they are.

    Args:
        vae: the pipeline's own.
        cells: see `SoundCodec`.
    """

    def __init__(self, vae: Any, cells: int | None = None) -> None:
        self.vae, self.cells = vae, cells
        self.factor, self.channels = int(vae.hop_length), int(vae.config.decoder_input_channels)

    def encode(self, picture: Tensor) -> Tensor:
        found: Tensor = self.vae.encode(picture[:, :, 0].to(self.vae.dtype)).latent_dist.mode()
        return found[:, :, None].to(picture.dtype)

    def decode(self, x: Tensor) -> Tensor:
        found: Tensor = self.vae.decode(x[:, :, 0].to(self.vae.dtype)).sample
        return found[:, :, None].to(x.dtype)


@dataclass(frozen=True)
class SoundPipeline(PipelineModel, SoundModel):
    """A pipeline of sounds.

    Attributes:
        duration: what it calls the seconds that a sound is long, which it is told.
        beside_text: what else of its call it is told, by its names.
    """

    duration: ClassVar[str]
    beside_text: ClassVar[tuple[str, ...]] = ()

    codec: OobleckCodec = field(kw_only=True)

    @classmethod
    def facts(cls, pipe: Any, codec: Any) -> dict[str, Any]:
        longest = cls.longest_of(pipe, codec)
        return {
            "multiple": codec.factor,
            "training_size": longest,
            "rate": int(pipe.vae.config.sampling_rate),
            "sound_channels": int(pipe.vae.config.audio_channels),
            "longest": longest,
            "said": cls.beside_text,
        }

    @classmethod
    def longest_of(cls, pipe: Any, codec: OobleckCodec) -> int:
        """Samples that it takes at once."""
        raise NotImplementedError

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: Size | None = None,
        **embeddings: Any,
    ) -> PipelineDenoiser:
        """As `PipelineModel.denoiser`; the size is (1, samples), from which it is told the seconds."""
        size = size or (1, self.longest)
        told = {**embeddings, self.duration: size[-1] / self.rate}
        return super().denoiser(prompt, negative_prompt, guidance_scale, size=size, **told)

    def beside(self, own: Mapping[str, Any]) -> dict[str, Any]:
        return {name: own[name] for name in (self.duration, *self.beside_text) if own[name] is not None}
