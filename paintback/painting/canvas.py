"""The canvas: a picture with a hole before a model, and what has been painted of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from paintback.images.picture import Picture
from paintback.images.regions import Box
from paintback.models.base import Model

__all__ = ["Canvas", "answer", "colours", "overlap", "padded"]


@dataclass
class Canvas:
    """A picture with a hole, and what has been painted so far, for a number of samples.

    Attributes:
        picture: (C, H, W) in [-1, 1]; hidden values are read by `original` alone.
        hole: (H, W) bool, True = not known to the model.
        painted: boxes that are done, their part of the hole, and (n, C, h, w) values.
    """

    picture: Tensor
    hole: Tensor
    painted: list[tuple[Box, Tensor, Tensor]] = field(default_factory=list)

    @property
    def whole(self) -> Box:
        """All of the picture."""
        return Box(0, 0, *self.hole.shape)

    def original(self, box: Box) -> Tensor:
        """(C, h, w) of the picture itself, hidden values included, 0 beyond its border; for `strength` alone."""
        values = torch.zeros(len(self.picture), box.height, box.width)
        here, there = overlap(box, self.whole)
        values[(slice(None), *here)] = self.picture[(slice(None), *there)]
        return values

    def crop(self, box: Box, samples: slice) -> tuple[Tensor, Tensor]:
        """Values (n, C, h, w), 0 where unknown, and known (n, 1, h, w) of a box that may leave the picture."""
        count = samples.stop - samples.start
        values = torch.zeros(count, len(self.picture), box.height, box.width)
        known = torch.zeros(count, 1, box.height, box.width, dtype=torch.bool)
        here, there = overlap(box, self.whole)
        inside = ~self.hole[there]
        values[(..., *here)] = torch.where(inside, self.picture[(slice(None), *there)], 0.0)
        known[(..., *here)] = inside
        for done, part, painted in self.painted:
            here, there = overlap(box, done)
            fresh = part[there]
            if fresh.numel():
                view = values[(..., *here)]
                view[:] = torch.where(fresh, painted[(samples, slice(None), *there)], view)
                known[(..., *here)] |= fresh
        return values, known

    def settle(self, draws: int, mean: bool) -> None:
        """Makes one answer of every `draws` draws of what was painted last: their mean, or the one nearest to it."""
        box, part, values = self.painted.pop()
        made = answer(values.unflatten(0, (-1, draws)), part, mean=mean)
        self.painted.append((box, part, made.repeat_interleave(draws, dim=0)))


def answer(draws: Tensor, part: Tensor, *, mean: bool) -> Tensor:
    """What some draws of each of n answers come to, (n, ...) of (n, draws, ...).

    Args:
        draws: all of them.
        part: bool, what of an answer is painted; the nearest draw is sought there.
        mean: the mean of the draws, or the one that is nearest to it.
    """
    draws = draws.clamp(-1, 1)
    middle = draws.mean(1)
    if mean:
        return middle
    far = torch.where(part, draws - middle[:, None], 0.0).square().flatten(2).sum(2)
    return draws[torch.arange(len(draws)), far.argmin(1)]


def colours(model: Model, picture: Picture) -> Tensor:
    """(C, H, W) in [-1, 1]: the picture in the model's colours.

    Raises:
        ValueError: for a coloured picture and a grey model.
    """
    unit = torch.from_numpy(picture.filled().to_unit()).permute(2, 0, 1)
    if model.channels == 1 and not bool((unit == unit[:1]).all()):
        raise ValueError(f"The model {model.name!r} paints grey pictures; turn the picture grey or use another model.")
    return model.to_model(unit[None])[0]


def padded(model: Model, picture: Picture, shape: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """The picture in the model's colours, and the canvas that a result of some shape needs.

    It has the sides that the model takes. What lies in its margin is not observed, so that the model fills it as it
    likes, and is cut off again.

    Args:
        model: that paints.
        picture: as given.
        shape: (H, W) of the result.

    Returns:
        (C, h, w) in [-1, 1], and (H', W') of the canvas.

    Raises:
        ValueError: for a coloured picture and a grey model, or a result larger than the model's one size.
    """
    values = colours(model, picture)
    canvas = model.size or (
        -(-shape[0] // model.multiple) * model.multiple,
        -(-shape[1] // model.multiple) * model.multiple,
    )
    if shape[0] > canvas[0] or shape[1] > canvas[1]:
        raise ValueError(
            f"The model {model.name!r} paints {canvas[1]} x {canvas[0]} pictures and the result would be {shape[1]} x "
            f"{shape[0]}; give a smaller picture or use another model."
        )
    return values, canvas


def overlap(box: Box, other: Box) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The common part of two boxes, as slices into the first and into the second; empty slices where none."""
    top, left = max(box.top, other.top), max(box.left, other.left)
    bottom, right = max(top, min(box.bottom, other.bottom)), max(left, min(box.right, other.right))
    return tuple(  # type: ignore[return-value]
        (slice(top - b.top, bottom - b.top), slice(left - b.left, right - b.left)) for b in (box, other)
    )
