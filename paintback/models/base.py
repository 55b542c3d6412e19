"""What the Inpainter asks of a model, whatever family it is of."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, device, dtype, nn

from paintback.denoiser import Denoiser
from paintback.models.catalogue import Sampler

__all__ = ["Model"]


@dataclass(frozen=True)
class Model:
    """A pretrained model, ready to make denoisers. A subclass defines `denoiser`.

    Attributes:
        name: as the user named it.
        channels: colours of the pictures it paints; 1 for grey.
        multiple: sides of the pictures it takes are multiples of this.
        size: the one side length (height, width) it takes, or None for any.
        training_size: side of the pictures it learnt from, in pixels; larger holes are done coarse to fine.
        network: the torch module, or None where there is no single one.
        device: where it runs.
        dtype: of the network.
        sampler: what it is sampled with where the user names no method.
        distilled: whether guidance was distilled into the network, whose output is then no longer a denoiser's mean.
        largest_area: pixels that the network takes at most; None for any number.
    """

    name: str
    channels: int
    multiple: int
    size: tuple[int, int] | None
    training_size: int
    network: nn.Module | None
    device: device
    dtype: dtype
    sampler: Sampler = field(default_factory=Sampler, kw_only=True)
    distilled: bool = field(default=False, kw_only=True)
    largest_area: int | None = field(default=None, kw_only=True)

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
    ) -> Denoiser:
        """The frozen denoiser for a prompt.

        Args:
            prompt: text, for models that take one.
            negative_prompt: text, likewise.
            guidance_scale: of classifier-free guidance; None for the model's own.

        Raises:
            ValueError: if the model does not take prompts and one is given.
        """
        raise NotImplementedError

    def to_model(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to the model's colours."""
        return picture if self.channels == 3 else picture.mean(dim=1, keepdim=True)

    def to_picture(self, x: Tensor) -> Tensor:
        """The model's colours to (B, 3, H, W) in [-1, 1]."""
        return x if self.channels == 3 else x.expand(-1, 3, -1, -1)

    def release(self) -> None:
        """Called after every use; for models whose modules come and go between devices."""
