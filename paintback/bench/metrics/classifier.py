"""The shipped classifier of Fashion-MNIST as a yardstick: its features, and the classes it sees."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from paintback.models.catalogue import WEIGHTS
from paintback.training.classifier import load_classifier

__all__ = ["FASHION", "ClassifierFeatures"]

FASHION = WEIGHTS / "fashion-classifier.safetensors"


class ClassifierFeatures:
    """A classifier's penultimate features.

    Args:
        path: weights that `paintback train classifier` wrote.

    Attributes:
        name: of the network.
        distance: what the Frechet distance of these features is called.
        sha256: of the file.
        size: what pictures are brought to.

    Raises:
        ValueError: if the file does not hold a classifier.
    """

    def __init__(self, path: Path = FASHION) -> None:
        self._network, _ = load_classifier(path)
        self.name = "fashion classifier" if path == FASHION else path.stem
        self.distance = f"Frechet distance ({self.name})"
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        side = self._network.config.size
        self.size = f"{side} x {side}, as they are"

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Features of pictures.

        Args:
            pictures: (B, 3, H, W) or (B, 1, H, W) in [0, 1], of the classifier's own size; colours are averaged.

        Returns:
            (B, d) float32.

        Raises:
            ValueError: if the pictures are of another size.
        """
        return self._network.to(pictures.device).features(self._grey(pictures))

    @torch.no_grad()
    def classify(self, pictures: Tensor) -> Tensor:
        """The class of each picture, (B,) int64; argument and errors as of a call."""
        logits: Tensor = self._network.to(pictures.device)(self._grey(pictures))
        return logits.argmax(1)

    def _grey(self, pictures: Tensor) -> Tensor:
        side = self._network.config.size
        if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or pictures.shape[-2:] != (side, side):
            raise ValueError(
                f"The {self.name} takes pictures (B, 1 or 3, {side}, {side}); got {tuple(pictures.shape)}."
            )
        return pictures.float().mean(1, keepdim=True) * 2 - 1
