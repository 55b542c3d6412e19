"""What models add to `Model` that were trained to inpaint: they take the mask as an input and bring their own sampler.

They are the reference that training-free methods are measured against. No method runs on them and they make no
denoiser: `paint` is all they do, and the Inpainter calls it as `method="trained"`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.models.base import Model
from paintback.models.catalogue import TRAINED, Sampler

__all__ = ["Painting", "Step", "TrainedModel"]

Step = Callable[[int, float, Tensor], "bool | None"]


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
    """A model that takes the mask. A subclass defines `paint`.

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

    def paint(
        self,
        picture: Tensor,
        hole: Tensor,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        num_inference_steps: int,
        generator: torch.Generator | Sequence[torch.Generator],
        num_samples: int = 1,
        strength: float = 1.0,
        step: Step | None = None,
        embeddings: Mapping[str, Any] | None = None,
    ) -> Painting:
        """Paints the hole of a picture.

        Args:
            picture: (1 or B, 3, H, W) in [-1, 1], on the model's device; the hole filled with what may be known of it.
            hole: (1 or B, 1, H, W) bool, True = repaint.
            prompt: text.
            negative_prompt: text.
            guidance_scale: None for the model's own.
            num_inference_steps: of the whole run.
            generator: one for the batch, or one for each sample.
            num_samples: B.
            strength: below 1, from the picture itself noised to this part of the steps.
            step: called after every step with (step, t, x), x the state; returning True stops the run.
            embeddings: in place of the text.

        Raises:
            ValueError: for an argument that the model does not take.
        """
        raise NotImplementedError
