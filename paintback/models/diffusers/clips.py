"""What flow pipelines of clips share: a VAE that is causal in time, and pictures as clips of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.codecs import ClipCodec
from paintback.models.diffusers.flow import FlowPipeline
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["ClipPipeline"]


@dataclass(frozen=True)
class ClipPipeline(FlowPipeline):
    """A flow pipeline of clips; a subclass has `look` in place of `run`.

    Attributes:
        trained: what it learnt from, which nothing in a folder says: (side of a square of the area, frames).
    """

    trained: ClassVar[tuple[int, int]]

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return ClipCodec(pipe.vae, int(pipe.vae.spatial_compression_ratio), int(pipe.vae.temporal_compression_ratio))

    @classmethod
    def facts(cls, pipe: Any, codec: LatentCodec) -> dict[str, Any]:
        side, frames = cls.trained
        patch = pipe.transformer.config.patch_size
        return {
            "multiple": codec.factor * int(patch if isinstance(patch, int) else patch[-1]),
            "training_size": side,
            "training_frames": frames,
            "distilled": cls.is_distilled(pipe),
        }

    def tokens(self, size: Size) -> int:
        _, *frames, _, _ = self.codec.shape(size)
        return super().tokens(size[-2:]) * (frames[0] if frames else 1)

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        if x.ndim == 4:
            return self.look(x[:, :, None], time, condition)[:, :, 0]
        return self.look(x, time, condition)

    def look(self, x: Tensor, time: Time, condition: Condition) -> Tensor:
        """The network's output for states of clips, (B, C, F, h, w), in their shape."""
        raise NotImplementedError
