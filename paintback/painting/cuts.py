"""How a hole is cut that does not fit into one crop at the picture's own resolution.

A hole that is long and nowhere wide (a scratch, a frame, a border to be added) is painted in crops of the size that the
model learnt from, one after another along the hole. Every crop overlaps the one before and sees what that has painted.

A wide hole is painted twice: first as a whole, at the training size (the draft), which settles what is there; then at
the picture's own resolution, crop by crop, from the draft noised to a moderate level, which gives it its details.

Each crop paints its own part of the hole. Where that meets what an earlier crop has painted, the two are blended over
a band that both have seen; pixels that were given are not touched.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from paintback.images.masks import Mask
from paintback.images.regions import Box, Region, thickness
from paintback.models.base import Model

__all__ = ["MARGIN", "band", "crop_shape", "is_narrow", "tiles"]

NARROW = 0.6  # of a crop's shorter side: a hole in which no wider disk fits is long, and else wide
MARGIN = 8  # a crop reaches its side divided by this beyond the part that it paints
BAND = 16  # crops are blended over their side divided by this
FINE = 48  # blocks along a crop's side, or its part's, in which a hole is measured and the way along it sought


def crop_shape(model: Model, shape: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of the crops of a picture at its own resolution: about the area that the model learnt from.

    Args:
        model: of a fixed size, whose crops may reach beyond the picture, or with a training size and a multiple.
        shape: (H, W) of the picture. Where it is lower or narrower than the training size, crops are longer.
    """
    if model.size is not None:
        return model.size
    most = min(model.training_size**2, model.largest_area or model.training_size**2)
    side = math.isqrt(most) // model.multiple * model.multiple
    height, width = (min(side, own) for own in shape)
    # a side that the picture limits is padded to the model's multiple
    padded = [-(-one // model.multiple) * model.multiple for one in (height, width)]
    longer = [min(2 * side, most // one // model.multiple * model.multiple) for one in padded]
    if height < side:
        return height, min(shape[1], max(width, longer[0]))
    if width < side:
        return min(shape[0], max(height, longer[1])), width
    return height, width


def is_narrow(hole: Mask, crop: tuple[int, int]) -> bool:
    """Whether a hole is long rather than wide: a crop along it then shows about as much that is known.

    Args:
        hole: (h, w) bool; beyond its border there is none.
        crop: (H, W) of the crops.
    """
    cell = max(1, min(crop) // FINE)  # as exact as it needs to be, and quick on large pictures
    coarse = 2 * _blocks(hole, cell) >= cell**2
    return thickness(np.pad(coarse, 1)) * cell <= NARROW * min(crop)


def tiles(region: Region, shape: tuple[int, int], crop: tuple[int, int], *, along: bool) -> list[Region]:
    """The crops of a region, each with its own part of the hole, in the order in which they are painted.

    Args:
        region: what is to be painted.
        shape: (H, W) of the picture.
        crop: (H, W) of a crop.
        along: along the hole, or row by row of an even lattice.
    """
    local = region.local_target
    core = tuple(side - 2 * (side // MARGIN) for side in crop)
    core, cores = (core, _walk(local, core)) if along else _lattice(local, core)
    owners = np.full(region.owners.shape, -1, np.int32)
    own = owners[region.box.slices]
    made: list[Region] = []
    for top, left in cores:
        here = (slice(max(0, top), top + core[0]), slice(max(0, left), left + core[1]))
        fresh = local[here] & (own[here] < 0)
        if fresh.any():
            own[here][fresh] = len(made)
            first = []
            for axis, (corner, begin) in enumerate(zip((region.box.top, region.box.left), here, strict=True)):
                found = np.flatnonzero(fresh.any(1 - axis)) + corner + begin.start
                first.append(place(int(found[0]), int(found[-1]) + 1, crop[axis], shape[axis]))
            box = Box(first[0], first[1], first[0] + crop[0], first[1] + crop[1])
            made.append(replace(region, box=box, owners=owners, index=len(made)))
    return made


def place(low: int, high: int, side: int, whole: int) -> int:
    """Where a crop of a side begins: around a part of the picture and inside it, or around a smaller picture."""
    if whole <= side:
        return -((side - whole) // 2)
    return min(max(0, (low + high - side) // 2), whole - side)


def _lattice(local: Mask, most: tuple[int, ...]) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """The size of even parts over a hole's bounds, none larger than `most`, and where they begin, there and back."""
    size, begins = [], []
    for axis, side in enumerate(most):
        found = np.flatnonzero(local.any(1 - axis))
        low, high = int(found[0]), int(found[-1]) + 1
        size.append(-(-(high - low) // -(-(high - low) // side)))
        begins.append(list(range(low, high, size[-1])))
    down, across = begins
    return tuple(size), [
        (top, left) for row, top in enumerate(down) for left in (across if row % 2 == 0 else across[::-1])
    ]


def _walk(local: Mask, core: tuple[int, ...]) -> list[tuple[int, int]]:
    """Parts along a hole: each time the one that covers most of it around the nearest pixel that is left."""
    cell = max(1, min(core) // FINE)
    tall, wide = (side // cell for side in core)
    left = _blocks(local, cell)
    found: list[tuple[int, int]] = []
    centre: tuple[float, float] | None = None
    while left.any():
        rows, columns = np.nonzero(left)
        nearest = 0
        if centre is not None:
            nearest = int(np.argmin(np.maximum(abs(rows - centre[0]) / tall, abs(columns - centre[1]) / wide)))
        row, column = int(rows[nearest]), int(columns[nearest])
        places = [
            (top, start)
            for top in (row, row - tall // 2, row - tall + 1)
            for start in (column, column - wide // 2, column - wide + 1)
        ]
        counts = [int(left[max(0, a) : a + tall, max(0, b) : b + wide].sum()) for a, b in places]
        top, start = places[int(np.argmax(counts))]
        left[max(0, top) : top + tall, max(0, start) : start + wide] = 0
        centre = (top + (tall - 1) / 2, start + (wide - 1) / 2)
        found.append((top * cell, start * cell))
    return found


def _blocks(local: Mask, cell: int) -> NDArray[np.int64]:
    """How many pixels of the hole lie in every block of cell x cell."""
    pad = [(0, -side % cell) for side in local.shape]
    padded = np.pad(local, pad)
    height, width = (side // cell for side in padded.shape)
    return np.asarray(padded.reshape(height, cell, width, cell).sum((1, 3), dtype=np.int64))


def band(own: Mask, drawn: Mask) -> NDArray[np.float32]:
    """How much of a crop is taken: all of its own part, and of what was painted before the less the further off.

    Args:
        own: (h, w) bool, its own part of the hole.
        drawn: (h, w) bool, what earlier crops have painted.

    Returns:
        (h, w) weights in [0, 1], 0 outside both.
    """
    from scipy.ndimage import distance_transform_edt

    width = max(1, min(own.shape) // BAND)
    near = np.clip(1 - distance_transform_edt(~own) / (width + 1), 0, 1).astype(np.float32)
    return np.where(own, np.float32(1), np.where(drawn, near, np.float32(0)))
