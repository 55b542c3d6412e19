"""What latent models add to `Model`: pictures are encoded before sampling and decoded after it.

Two cares are taken. The hidden pixels never reach the encoder: the hole is filled smoothly from the known pixels around
it first. And a latent cell sees more pixels than those it stands for, so which cells count as known is a named policy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.denoiser import Codec, Denoiser, not_finite
from paintback.models.base import Kinds, Model, T, Told
from paintback.observation import Observation

__all__ = ["LatentCodec", "LatentModel", "LatentPolicy", "fill_hole", "known_cells", "observe"]

LatentPolicy = Literal["all", "majority", "any"]


def _checked(convert: Callable[[Any, Tensor], Tensor], name: str) -> Callable[[Any, Tensor], Tensor]:
    """An `encode` or `decode` that raises where finite numbers become others."""

    @functools.wraps(convert)
    def checked(self: Any, x: Tensor) -> Tensor:
        out = convert(self, x)
        if not bool(out.detach().isfinite().all()) and bool(x.detach().isfinite().all()):
            dtype = getattr(getattr(self, "vae", None), "dtype", None)
            raise ValueError(not_finite(f"What the VAE {name}d", dtype))
        return out

    return checked


class LatentCodec(Codec):
    """A codec whose space has its own shape.

    Attributes:
        channels: of the latent space.
        frames: of a clip per latent cell in time, but for the first frame, which has a cell of its own.
    """

    channels: int
    frames: int = 1

    def __init_subclass__(cls, **more: Any) -> None:
        """Every codec's numbers are checked: VAEs are known to overflow in half precision, without a word."""
        super().__init_subclass__(**more)
        for name in ("encode", "decode"):
            if name in vars(cls):
                setattr(cls, name, _checked(vars(cls)[name], name))

    def shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The latent event shape of pictures of a size, (H, W) or (F, H, W)."""
        return (self.channels, *size[:-2], size[-2] // self.factor, size[-1] // self.factor)

    def modules(self) -> list[torch.nn.Module]:
        vae = getattr(self, "vae", None)
        return [vae] if isinstance(vae, torch.nn.Module) else []

    def share_known(self, known: Tensor) -> Tensor:
        return F.avg_pool2d(known.float(), self.factor)


@dataclass(frozen=True)
class LatentModel(Model):
    """A model that paints in the latent space of a codec.

    Attributes:
        codec: pictures (B, 3, H, W) in [-1, 1] to latents and back.
    """

    takes_size: ClassVar[bool] = True

    codec: LatentCodec = field(kw_only=True)

    def paint(self, ways: Kinds[T]) -> T:
        return ways.latents(self)

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: tuple[int, ...] | None = None,
        **embeddings: Tensor | float | None,
    ) -> Denoiser:
        """The frozen denoiser for a prompt and a size of pictures.

        Args:
            prompt: text.
            negative_prompt: text.
            guidance_scale: of classifier-free guidance; None for the model's own.
            size: (H, W), or (F, H, W) of a video; None for the training size.
            embeddings: ready embeddings under the names that the model's pipeline has for them, in place of the text.

        Raises:
            ValueError: for an argument that the model does not take.
        """
        raise NotImplementedError

    def denoiser_at(self, size: tuple[int, ...], told: Told) -> Denoiser:
        return self.denoiser(told.prompt, told.negative_prompt, told.guidance_scale, size=size, **told.embeddings)

    def state_shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return self.codec.shape(size)

    def check_takes(self, given: list[str]) -> None:
        """Latent models take all of it; which embeddings, `denoiser` says."""

    def as_clips(self) -> LatentModel:
        return super().as_clips() if self.training_frames == 1 else self


def fill_hole(values: Tensor, known: Tensor) -> Tensor:
    """Fills the hole smoothly: every hidden pixel takes the mean of the known ones near it, by a pyramid of means.

    Args:
        values: (B, C, H, W), whatever where hidden; or (B, C, F, H, W), every frame for itself.
        known: (B, 1, H, W) bool, or (B, 1, F, H, W).

    Returns:
        Of the same shape, the known pixels unchanged; 0 where nothing at all is known.
    """
    if bool(known.all()):
        return values
    if values.ndim == 5:
        frames = fill_hole(*(part.transpose(1, 2).flatten(0, 1) for part in (values, known)))
        clip: Tensor = frames.unflatten(0, (len(values), -1)).transpose(1, 2)
        return clip
    values = torch.where(known, values, torch.zeros((), dtype=values.dtype, device=values.device))
    if max(values.shape[-2:]) == 1:
        return values
    odd = (0, values.shape[-1] % 2, 0, values.shape[-2] % 2)
    share = F.avg_pool2d(F.pad(known.to(values), odd), 2)
    means = F.avg_pool2d(F.pad(values, odd), 2) / share.clamp(min=0.25)
    coarse = fill_hole(means, share > 0)
    fine = F.interpolate(coarse, scale_factor=2, mode="bilinear")[..., : values.shape[-2], : values.shape[-1]]
    return torch.where(known, values, fine)


def known_cells(codec: Codec, known: Tensor, policy: LatentPolicy) -> Tensor:
    """Which latent cells count as known: those of which all, most or any pixels are.

    Args:
        codec: of the model.
        known: (B, 1, H, W) bool, or (B, 1, F, H, W).
        policy: "all" is the cautious one.

    Raises:
        ValueError: for an unknown policy.
    """
    share = codec.share_known(known)
    if policy == "all":
        return share > 1 - 1e-5
    if policy == "majority":
        return share > 0.5
    if policy == "any":
        return share > 0
    raise ValueError(f"The latent mask policy must be all, majority or any; got {policy!r}.")


def observe(
    codec: Codec, picture: Tensor, known: Tensor, *, policy: LatentPolicy = "all", hidden: Tensor | None = None
) -> Observation:
    """The observation of a picture with a hole, in latents.

    Args:
        codec: of the model.
        picture: (B, 3, H, W) in [-1, 1], or (B, 3, F, H, W); hidden values are not looked at.
        known: (B, 1, H, W) bool, or (B, 1, F, H, W).
        policy: which cells count as known.
        hidden: the whole picture, hole included, to be encoded in place of the filled one (`leaky_encoding`: some
            papers' code does it, and so knows what it should not).
    """
    y = codec.encode(fill_hole(picture, known) if hidden is None else hidden)
    return Observation(y.float(), known_cells(codec, known, policy), picture=Observation(picture, known))
