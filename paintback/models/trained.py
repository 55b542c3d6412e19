"""What models add to `Model` that were trained to inpaint: they take the mask as an input and bring their own sampler.

They are the reference that training-free methods are measured against. No method runs on them and they make no
denoiser: `fill` is all they do, and the Inpainter calls it as `method="trained"`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.models.base import Kinds, Model, T, Told
from paintback.models.catalogue import TRAINED, Sampler

__all__ = ["Painting", "Step", "TrainedModel"]

Step = Callable[[int, float, Tensor], "bool | Tensor | None"]


@dataclass(frozen=True)
class Painting:
    """What one run gives back.

    Attributes:
        pixels: (B, 3, H, W) in [-1, 1].
        evaluations: guided calls of the network per sample, counted.
        network_rows: rows that the network saw per sample; 2 a call under classifier-free guidance.
        stopped: whether `step` ended the run early.
    """

    pixels: Tensor
    evaluations: int
    network_rows: int | float
    stopped: bool = False


@dataclass(frozen=True)
class TrainedModel(Model):
    """A model that takes the mask. A subclass defines `fill`.

    Attributes:
        takes_strength: whether it can start from the picture itself.
        takes_batches: whether samples with generators of their own can be painted together.
    """

    takes_strength: ClassVar[bool] = True
    takes_batches: ClassVar[bool] = True

    sampler: Sampler = field(default_factory=lambda: Sampler(TRAINED), kw_only=True)

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
    ) -> Denoiser:
        raise ValueError(f"The model {self.name!r} takes the mask as an input; it runs only as method={TRAINED!r}.")

    def paint(self, ways: Kinds[T]) -> T:
        return ways.trained(self)

    def check_takes(self, given: list[str]) -> None:
        if {"leaky_encoding", "latent_mask"} & set(given):
            raise ValueError(f"The model {self.name!r} takes the mask itself and no leaky_encoding or latent_mask.")

    def check_method(self, method: str | None) -> None:
        if method not in (None, TRAINED):
            raise ValueError(
                f"The model {self.name!r} takes the mask as an input and runs only as method={TRAINED!r}, "
                f"not {method!r}; leave the method out, or load a model that was not trained to inpaint."
            )

    def count_steps(self, num_inference_steps: int, kept: int) -> int:
        """How many steps run of a whole run's last `kept` intervals; some samplers take one more."""
        return kept

    def fill(
        self,
        picture: Tensor,
        hole: Tensor,
        told: Told,
        *,
        num_inference_steps: int,
        generator: torch.Generator | Sequence[torch.Generator],
        num_samples: int = 1,
        steps: int | None = None,
        step: Step | None = None,
    ) -> Painting:
        """Paints the hole of a picture.

        Args:
            picture: (1 or B, 3, H, W) in [-1, 1], on the model's device; the hole filled with what may be known of it.
            hole: (1 or B, 1, H, W) bool, True = repaint.
            told: of its content.
            num_inference_steps: of the whole run.
            generator: one for the batch, or one for each sample.
            num_samples: B.
            steps: the last ones of the run, from the picture itself noised to where they begin; None for all, from
                noise.
            step: called after every step with (step, timestep, x), x the state; returning True stops the run, a tensor
                is the state to go on from.

        Raises:
            ValueError: for an argument that the model does not take.
        """
        raise NotImplementedError
