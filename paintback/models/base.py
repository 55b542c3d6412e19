"""What the Inpainter asks of a model, whatever family it is of."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from torch import Tensor, device, dtype, nn

from paintback.denoiser import Codec, Denoiser
from paintback.models.catalogue import TRAINED, Sampler

if TYPE_CHECKING:
    from paintback.models.latent import LatentModel
    from paintback.models.sound import SoundModel
    from paintback.models.trained import TrainedModel

__all__ = ["Kinds", "Model", "Told"]

T = TypeVar("T", covariant=True)


class Kinds(Protocol[T]):
    """Something that there is for each kind of model; `painting` has a way of painting for each."""

    def pixels(self, model: Model) -> T:
        """For a denoiser of small pictures, which paints coarse to fine."""

    def latents(self, model: LatentModel) -> T:
        """For a denoiser of latents, which composes a crop at once."""

    def trained(self, model: TrainedModel) -> T:
        """For a model that takes the mask itself."""


@dataclass(frozen=True)
class Told:
    """What is said of one picture's content.

    Attributes:
        prompt: text, or None.
        negative_prompt: likewise.
        guidance_scale: of classifier-free guidance; None for the model's own.
        embeddings: in place of the text, and further scales of guidance, by the pipeline's names; those that are given.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    embeddings: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Model:
    """A pretrained model, ready to make denoisers. A subclass defines `denoiser`.

    Attributes:
        takes_size: whether pictures of any size are asked of it, as height and width.
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
        step_distilled: whether the network was trained to paint in a few steps, so that its output is the end of the
            ODE and it knows few noise levels; see `models.distilled`.
        training_frames: of the clips that it learnt from; 1 for a model of pictures.
        largest_area: pixels that the network takes at most; None for any number.
        codec: pictures to the space that the denoiser works in and back; the identity for pixels.
    """

    takes_size: ClassVar[bool] = False

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
    step_distilled: bool = field(default=False, kw_only=True)
    training_frames: int = field(default=1, kw_only=True)
    largest_area: int | None = field(default=None, kw_only=True)
    codec: Codec = field(default_factory=Codec, kw_only=True)

    def paint(self, ways: Kinds[T]) -> T:
        """The way in which this kind of model paints: this model's one of `ways`."""
        return ways.pixels(self)

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

    def denoiser_at(self, size: tuple[int, ...], told: Told) -> Denoiser:
        """The frozen denoiser for pictures of a size and what is said of them.

        Args:
            size: (H, W), or (F, H, W) of a clip; models of pixels do not ask.
            told: prompt, guidance and embeddings.

        Raises:
            ValueError: for something that the model does not take.
        """
        self.check_takes(list(told.embeddings))
        return self.denoiser(told.prompt, told.negative_prompt, told.guidance_scale)

    def state_shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the sampler's state for one picture of a size."""
        return (self.channels, *size)

    def check_takes(self, given: list[str]) -> None:
        """Refuses what only models with a VAE take.

        Args:
            given: names of what was given of embeddings, height, width, latent_mask and leaky_encoding.

        Raises:
            ValueError: naming it.
        """
        if given:
            raise ValueError(f"The model {self.name!r} paints pixels and takes no {', '.join(given)}; leave that out.")

    def check_method(self, method: str | None) -> None:
        """Refuses a method that this kind of model does not run.

        Args:
            method: its name, or None where none was named.

        Raises:
            ValueError: saying which model or method to take.
        """
        if method == TRAINED:
            raise ValueError(
                f"method={TRAINED!r} needs a checkpoint that takes the mask as an input, and {self.name!r} takes "
                "none; load an inpainting pipeline of SD, SDXL, SD 3 (ControlNet) or Flux Fill, or name another method."
            )

    def as_clips(self) -> LatentModel:
        """This model as one of clips.

        Raises:
            ValueError: for a model of pictures.
        """
        raise ValueError(
            f"The model {self.name!r} paints pictures, not clips; give a model of clips, such as the folder of a "
            "WanPipeline."
        )

    def as_sound(self) -> SoundModel:
        """This model as one of sounds.

        Raises:
            ValueError: for a model of pictures or clips.
        """
        raise ValueError(
            f"The model {self.name!r} paints no sounds; give a model of sounds, such as the folder of a "
            "StableAudioPipeline."
        )

    def to_model(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to the model's colours."""
        return picture if self.channels == 3 else picture.mean(dim=1, keepdim=True)

    def to_picture(self, x: Tensor) -> Tensor:
        """The model's colours to (B, 3, H, W) in [-1, 1]."""
        return x if self.channels == 3 else x.expand(-1, 3, -1, -1)

    def exact(self) -> Model:
        """This model in float32, where fewer bits were chosen for their speed; a dtype that was asked for stays."""
        return self

    def networks(self) -> list[nn.Module]:
        """The torch modules that an evaluation runs; two for some families."""
        return [] if self.network is None else [self.network]

    def timestep(self, t: float) -> float:
        """What the model's scheduler calls a time in [0, 1]; the time itself where there is none."""
        return t

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Keeps the network and the codec on the device together; for models whose modules come and go."""
        return contextlib.nullcontext()

    def release(self) -> None:
        """Called after every use; for models whose modules come and go between devices."""
