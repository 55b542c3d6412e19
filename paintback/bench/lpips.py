"""LPIPS (version 0.1, AlexNet) from one local weights file, without torchvision.

Reference: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018,
arXiv:1801.03924.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

__all__ = ["LPIPS"]

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
STRIDES, PADDINGS = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)


class LPIPS:
    """The distance between two pictures.

    Args:
        path: a safetensors file with AlexNet's five convolutions (conv1.weight, conv1.bias, ...) and LPIPS' five
            linear heads (lin1.weight, ...).

    Raises:
        ValueError: if the file does not hold them.
    """

    def __init__(self, path: Path) -> None:
        try:
            state = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} is not a readable safetensors file with LPIPS weights.") from error
        try:
            self._layers = [
                (state[f"conv{k}.weight"], state[f"conv{k}.bias"], state[f"lin{k}.weight"].reshape(1, -1, 1, 1))
                for k in range(1, 6)
            ]
        except KeyError as error:
            raise ValueError(f"{path} lacks {error} of conv1..5.weight, conv1..5.bias and lin1..5.weight.") from None

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of pictures.

        Args:
            a: (B, 3, H, W) in [-1, 1].
            b: of a's shape.

        Returns:
            (B,), 0 for equal pictures.
        """
        total = torch.zeros(len(a))
        for layer in self._distances(a, b):
            total += layer.mean((1, 2, 3))
        return total

    @torch.no_grad()
    def where(self, a: Tensor, b: Tensor) -> Tensor:
        """Where pictures differ: every layer's distances brought to the pictures' size and added.

        Args:
            a: (B, 3, H, W) in [-1, 1].
            b: of a's shape.

        Returns:
            (B, 1, H, W), whose mean is near the distance.
        """
        total = torch.zeros(len(a), 1, *a.shape[-2:])
        for layer in self._distances(a, b):
            total += F.interpolate(layer, a.shape[-2:], mode="bilinear")
        return total

    def _distances(self, a: Tensor, b: Tensor) -> Iterator[Tensor]:
        """Of every layer, (B, 1, h, w)."""
        shift, scale = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (SHIFT, SCALE))
        x = torch.cat(((a - shift) / scale, (b - shift) / scale))
        for number, (weight, bias, head) in enumerate(self._layers):
            if number in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.conv2d(x, weight, bias, STRIDES[number], PADDINGS[number]).relu()
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            first, second = unit.chunk(2)
            yield ((first - second).square() * head).sum(1, keepdim=True)
