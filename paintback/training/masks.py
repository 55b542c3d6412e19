"""A mixture of masks to train on: every batch a function of (seed, step) alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from paintback.images import generators

__all__ = ["KINDS", "mixed_masks", "one_mask"]

KINDS = ("box", "half", "strokes", "expand", "lines")
"""A rectangle somewhere; one side's half; brush strokes; all but a rectangle (outpainting); thin scratches."""


def one_mask(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """One mask, True = repaint.

    Args:
        kind: one of `KINDS`.
        size: side of the picture.
        rng: source of randomness.

    Raises:
        ValueError: for an unknown kind.
    """
    shape = (size, size)
    if kind == "box":
        height, width = rng.integers(max(1, size // 4), max(2, size * 5 // 8) + 1, 2)
        return generators.box(shape, rng, size=(int(height), int(width)))
    if kind == "half":
        return generators.half(shape, ("left", "right", "top", "bottom")[rng.integers(4)])
    if kind == "strokes":
        return generators.free_form(shape, rng, coverage=float(rng.uniform(0.15, 0.5)))
    if kind == "expand":
        height, width = rng.integers(max(1, size * 3 // 8), max(2, size * 3 // 4) + 1, 2)
        return ~generators.box(shape, rng, size=(int(height), int(width)))
    if kind == "lines":
        return generators.lines(shape, rng, width=max(1.0, size / 32), count=int(rng.integers(4, 13)))
    raise ValueError(f"Unknown kind of mask {kind!r}; valid are {', '.join(KINDS)}.")


def mixed_masks(seed: int, step: int, count: int, size: int, kinds: tuple[str, ...] = KINDS) -> Tensor:
    """Masks of equally likely kinds, none of them empty or full.

    Args:
        seed: of the training run.
        step: of the batch.
        count: number of masks.
        size: side of the pictures.
        kinds: to choose from.

    Returns:
        (count, 1, size, size) bool, True = given.
    """
    rng = np.random.default_rng((seed, step, 1))
    masks: list[np.ndarray] = []
    while len(masks) < count:
        hole = one_mask(kinds[rng.integers(len(kinds))], size, rng)
        if hole.any() and not hole.all():
            masks.append(~hole)
    return torch.from_numpy(np.stack(masks))[:, None]
