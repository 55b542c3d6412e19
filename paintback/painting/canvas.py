"""The canvas: a picture with a hole before a model, and what has been painted of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from paintback.images.picture import Picture
from paintback.images.regions import Box
from paintback.models.base import Model

__all__ = ["Canvas", "Colours", "answer", "answers", "colours", "overlap", "padded"]


class Colours:
    """A picture in the model's colours, (C, H, W) in [-1, 1], of which only what is asked for is ever converted.

    Args:
        model: that paints.
        picture: as given.

    Raises:
        ValueError: for a coloured picture and a grey model.
    """

    def __init__(self, model: Model, picture: Picture) -> None:
        self.model, self.picture = model, picture.filled()
        if model.channels == 1 and not picture.grey:
            bands = self.picture.pixels
            _check_grey(model, all(np.array_equal(bands[..., 0], bands[..., k]) for k in range(1, bands.shape[2])))

    def __len__(self) -> int:
        return self.model.channels

    def __getitem__(self, index: tuple[slice, slice, slice]) -> Tensor:
        pixels = self.picture.pixels[index[1:]]
        unit = torch.from_numpy(replace(self.picture, pixels=pixels, alpha=None).to_unit()).permute(2, 0, 1)
        return self.model.to_model(unit[None])[0][index[0]]


@dataclass
class Canvas:
    """A picture with a hole, and what has been painted so far, for a number of samples.

    Attributes:
        picture: (C, H, W) in [-1, 1], or what is indexed alike; hidden values are read by `original` alone.
        hole: (H, W) bool, True = not known to the model.
        painted: boxes that are done, their part of the hole, and (n, C, h, w) values.
        draft: likewise, of what is painted again at a finer scale; it is not known to the model.
    """

    picture: Tensor | Colours
    hole: Tensor
    painted: list[tuple[Box, Tensor, Tensor]] = field(default_factory=list)
    draft: tuple[Box, Tensor, Tensor] | None = None

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
        for done in self.painted:
            _lay(values, known, box, done, samples)
        return values, known

    def beyond(self, box: Box) -> Tensor:
        """(1, 1, h, w) bool: what of a box lies outside of the picture."""
        beyond = torch.ones(1, 1, box.height, box.width, dtype=torch.bool)
        beyond[(..., *overlap(box, self.whole)[0])] = False
        return beyond

    def drafted(self, box: Box, samples: slice, values: Tensor, known: Tensor) -> Tensor:
        """The values of a crop with the draft where nothing is known."""
        assert self.draft is not None
        drafted, has = values.clone(), torch.zeros_like(known)
        _lay(drafted, has, box, self.draft, samples)
        return torch.where(has & ~known, drafted, values)

    def drawn(self, box: Box) -> Tensor:
        """(h, w) bool: what of a box has been painted."""
        drawn = torch.zeros(1, 1, box.height, box.width, dtype=torch.bool)
        for done in self.painted:
            _lay(None, drawn, box, done, slice(0, 1))
        return drawn[0, 0]

    @property
    def differs(self) -> bool:
        """Whether samples no longer see the same picture."""
        return bool(self.painted) or self.draft is not None

    def keep_draft(self, first: int) -> None:
        """Takes the draft for painted, below what was painted from index `first` on, where a run has ended early."""
        if self.draft is not None:
            self.painted.insert(first, self.draft)
            self.draft = None

    def settle(self, draws: int, mean: bool, first: int) -> None:
        """Makes one answer of every `draws` draws of what was painted last: their mean, or the one nearest to it.

        Args:
            draws: of each answer.
            mean: see `answer`.
            first: the index in `painted` from which on all belongs to one answer.
        """
        last = self.painted[first:]
        made = answers([(values.unflatten(0, (-1, draws)), part) for _, part, values in last], mean=mean)
        self.painted[first:] = [
            (box, part, one.repeat_interleave(draws, dim=0)) for (box, part, _), one in zip(last, made, strict=True)
        ]


def _lay(values: Tensor | None, known: Tensor, box: Box, done: tuple[Box, Tensor, Tensor], samples: slice) -> None:
    """Lays what was painted over the values of a box, and notes where."""
    other, part, painted = done
    here, there = overlap(box, other)
    fresh = part[there]
    if fresh.numel():
        if values is not None:
            view = values[(..., *here)]
            view[:] = torch.where(fresh, painted[(samples, slice(None), *there)], view)
        known[(..., *here)] |= fresh


def answers(crops: list[tuple[Tensor, Tensor]], *, mean: bool) -> list[Tensor]:
    """What some draws of each of n answers come to, over crops that belong together; see `answer`.

    Args:
        crops: (n, draws, ...) values of each crop, and bool what of it is painted.
        mean: the mean of the draws, or the one that is nearest to it over all crops.
    """
    draws = [values.clamp(-1, 1) for values, _ in crops]
    middle = [values.mean(1) for values in draws]
    if mean or not crops:
        return middle
    far = torch.stack(
        [
            torch.where(part, values - centre[:, None], 0.0).square().flatten(2).sum(2)
            for values, centre, (_, part) in zip(draws, middle, crops, strict=True)
        ]
    ).sum(0)
    nearest = far.argmin(1)
    return [values[torch.arange(len(values)), nearest] for values in draws]


def answer(draws: Tensor, part: Tensor, *, mean: bool) -> Tensor:
    """What some draws of each of n answers come to, (n, ...) of (n, draws, ...).

    Args:
        draws: all of them.
        part: bool, what of an answer is painted; the nearest draw is sought there.
        mean: the mean of the draws, or the one that is nearest to it.
    """
    return answers([(draws, part)], mean=mean)[0]


def colours(model: Model, picture: Picture) -> Tensor:
    """(C, H, W) in [-1, 1]: the picture in the model's colours.

    Raises:
        ValueError: for a coloured picture and a grey model.
    """
    unit = torch.from_numpy(picture.filled().to_unit()).permute(2, 0, 1)
    if model.channels == 1:
        _check_grey(model, bool((unit == unit[:1]).all()))
    return model.to_model(unit[None])[0]


def _check_grey(model: Model, grey: bool) -> None:
    if not grey:
        raise ValueError(f"The model {model.name!r} paints grey pictures; turn the picture grey or use another model.")


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
