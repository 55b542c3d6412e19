"""Where to work: crops around the hole, and lists of crops for scattered holes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paintback.images.errors import PictureError

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]

MANY = 2048  # more groups than this are made coarser before they are merged one by one
OVERLAP = 0.25  # of the smaller crop: what "overlap a lot" means


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows top to bottom, columns left to right, the ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index (H, W) and (H, W, C) arrays; for (..., H, W) write `array[(..., *box.slices)]`."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class Region:
    """A crop and the part of the hole it is responsible for.

    Attributes:
        box: the crop.
        owners: (H, W) ints shared by all regions: which region owns a pixel, -1 = not in the hole.
        index: the number of this region in owners.
    """

    box: Box
    owners: NDArray[np.int32] = field(repr=False)
    index: int

    @property
    def target(self) -> Mask:
        """(H, W) bool: the hole pixels of this region, made on demand."""
        return np.asarray(self.owners == self.index)

    @property
    def local_target(self) -> Mask:
        """The target inside the crop, of the crop's shape."""
        return np.asarray(self.owners[self.box.slices] == self.index)

    @cached_property
    def thickness(self) -> float:
        """The diameter of the largest disk in the target, in pixels; see `thickness`."""
        return thickness(self.local_target)


def thickness(target: Mask) -> float:
    """The diameter of the largest disk in a hole; its longer side where it fills the whole crop."""
    from scipy.ndimage import distance_transform_edt

    if target.all():
        return float(max(target.shape))
    return 2 * float(distance_transform_edt(target).max())


def narrow_labels(labels: NDArray[np.int32], count: int, most: float, tile: int = 256) -> NDArray[np.bool_]:
    """Which connected parts of a hole are so narrow that no disk wider than a number of pixels fits into them.

    Distances are looked at tile by tile, where there is any hole, so that a large picture costs little.

    Args:
        labels: (H, W), 0 outside the hole, the parts from 1 on.
        count: of the parts.
        most: the widest disk's diameter, in pixels.
        tile: side of the tiles.

    Returns:
        (count,) bool.
    """
    from scipy.ndimage import distance_transform_edt

    wide = np.zeros(count + 1, bool)
    margin = int(most) // 2 + 2
    for top in range(0, labels.shape[0], tile):
        for left in range(0, labels.shape[1], tile):
            above, before = max(0, top - margin), max(0, left - margin)
            part = labels[above : top + tile + margin, before : left + tile + margin] > 0
            if not part.any():
                continue
            far = distance_transform_edt(part) if not part.all() else np.full(part.shape, max(part.shape))
            # only within the tile itself are the distances those of the whole picture, as far as they matter
            inner = far[top - above :, left - before :][:tile, :tile] > most / 2
            wide[np.unique(labels[top : top + tile, left : left + tile][inner])] = True
    return np.asarray(~wide[1:])


def context_crop(mask: Mask, context: float = 0.5, minimum: int = 1, multiple: int = 1) -> Box:
    """A crop around all of the hole, with some of its surroundings.

    Args:
        mask: bool (H, W), not empty.
        context: at each side; an int counts pixels, a float is a part of the hole's longer side.
        minimum: least side in pixels, where the picture has that many.
        multiple: sides are rounded up to multiples of it, where the picture is large enough; else the whole side is
            taken.

    Returns:
        A box inside the picture that holds the hole.

    Raises:
        PictureError: the mask is empty, or a negative context.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        raise PictureError(
            "the mask is empty (no white pixel), there is nothing to crop around; paint something white."
        )
    _check(context, minimum, multiple)
    hole = np.array([[rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]], np.int64)
    return Box(*_crops(hole, mask.shape, context, minimum, multiple)[0].tolist())


def hole_regions(
    mask: Mask,
    *,
    context: float = 0.5,
    minimum: int = 256,
    maximum: int = 1024,
    multiple: int = 8,
    narrow: float = 0.0,
) -> list[Region]:
    """Cover a scattered hole with crops, each responsible for some of its pixels.

    Connected parts (corners connect) belong to one region. Parts are merged, closest first, while their crops overlap
    by a quarter of the smaller and the merged crop's sides stay within maximum. A part larger than that stays in one
    region all the same, merged only with others as long: working coarse to fine takes care of size. To stay fast,
    thousands of long parts side by side are put together beyond maximum too.

    Args:
        mask: bool (H, W).
        context: as in `context_crop`.
        minimum: as in `context_crop`.
        maximum: longest side of a merged crop, in pixels.
        multiple: as in `context_crop`.
        narrow: parts into which no disk wider than so many pixels fits are merged with each other alone; 0 for none.

    Returns:
        Regions, those of narrow parts last, of either those beyond maximum first, then in reading order of their crops;
        every hole pixel is in exactly one target. An empty list for an empty mask.

    Raises:
        PictureError: maximum below minimum, or a negative context.
    """
    _check(context, minimum, multiple)
    if maximum < max(minimum, 1):
        raise PictureError(f"maximum is {maximum}, expected at least minimum = {minimum}; raise it.")
    from scipy import ndimage

    labels = np.empty(mask.shape, np.int32)
    count = ndimage.label(mask, structure=np.ones((3, 3)), output=labels)
    if count == 0:
        return []
    parts = _bounds(labels, count)
    kind = narrow_labels(labels, count, narrow) if narrow else np.zeros(count, bool)
    group_of = np.arange(count)
    cell = max(1, maximum // 8)
    groups = parts
    while True:
        # Small parts whose centres share a cell start as one group; there may be millions of them.
        small = _sides(parts).max(axis=1) <= cell
        centre = (parts[:, :2] + parts[:, 2:]) // (2 * cell)
        key = 2 * (centre[:, 0] * (mask.shape[1] // cell + 1) + centre[:, 1]) + kind
        names, first, group_of = np.unique(
            np.where(small, key, -1 - np.arange(count)), return_index=True, return_inverse=True
        )
        groups = _union(parts, group_of, len(names))
        if len(groups) <= MANY or cell > max(mask.shape):
            break
        cell *= 2
    merged_of, holes, kind = _merge(groups, kind[first], mask.shape, context, minimum, maximum, multiple)
    crops = _crops(holes, mask.shape, context, minimum, multiple)
    order = np.lexsort((crops[:, 1], crops[:, 0], _sides(crops).max(axis=1) <= maximum, kind))
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    owner_of_label = np.concatenate([[-1], place[merged_of[group_of]]]).astype(np.int32)
    owners = owner_of_label[labels]
    return [Region(Box(*crops[old].tolist()), owners, new) for new, old in enumerate(order)]


def _check(context: float, minimum: int, multiple: int) -> None:
    if not context >= 0 or minimum < 0 or multiple < 1:
        raise PictureError(
            f"context is {context}, minimum {minimum}, multiple {multiple}, expected 0 or more, 0 or more and "
            "1 or more; raise what is below."
        )


def _crops(holes: Ints, shape: tuple[int, ...], context: float, minimum: int, multiple: int) -> Ints:
    """Crops around holes, both (N, 4) as top, left, bottom, right."""
    low, high = holes[:, :2], holes[:, 2:]
    size = high - low
    if isinstance(context, (int, np.integer)):
        margin = np.full((len(holes), 1), context, np.int64)
    else:
        margin = np.ceil(size.max(axis=1, keepdims=True) * context).astype(np.int64)
    limit = np.array(shape[:2], np.int64)
    side = np.maximum(size + 2 * margin, minimum)
    side = np.minimum(-(-side // multiple) * multiple, limit)
    start = np.clip(low - (side - size) // 2, 0, limit - side)
    return np.concatenate([start, start + side], axis=1)


def _bounds(labels: NDArray[np.int32], count: int) -> Ints:
    """Bounding boxes (count, 4) of the labels 1 to count."""
    boxes = np.empty((count, 4), np.int64)
    for axis, view in enumerate((labels, labels.T)):
        where, across = np.nonzero(view)
        label = view[where, across] - 1
        # Positions come in rising order, and of repeated indices the last assignment stays.
        boxes[label, 2 + axis] = where + 1
        boxes[label[::-1], axis] = where[::-1]
    return boxes


def _union(boxes: Ints, group_of: NDArray[Any], count: int) -> Ints:
    out = np.concatenate([np.full((count, 2), np.iinfo(np.int64).max), np.zeros((count, 2), np.int64)], axis=1)
    for column in range(4):
        (np.minimum if column < 2 else np.maximum).at(out[:, column], group_of, boxes[:, column])
    return out


def _merge(
    groups: Ints, kind: Mask, shape: tuple[int, ...], context: float, minimum: int, maximum: int, multiple: int
) -> tuple[Ints, Ints, Mask]:
    """Merge greedily what is of one kind; returns the merged group of each group, the merged boxes, their kinds."""
    holes, crops = groups.copy(), _crops(groups, shape, context, minimum, multiple)
    merged_of = np.arange(len(groups))
    alive = np.ones(len(groups), bool)
    for one in range(len(groups)):
        while alive[one]:
            others = np.flatnonzero(alive & (kind == kind[one]))
            others = others[others != one]
            inner = np.minimum(crops[others, 2:], crops[one, 2:]) - np.maximum(crops[others, :2], crops[one, :2])
            smaller = np.minimum(_area(crops[others]), _area(crops[one : one + 1]))
            overlap = np.clip(inner, 0, None).prod(axis=1) / smaller
            others, overlap = others[overlap >= OVERLAP], overlap[overlap >= OVERLAP]
            union = np.concatenate(
                [np.minimum(holes[others, :2], holes[one, :2]), np.maximum(holes[others, 2:], holes[one, 2:])], axis=1
            )
            wider = _crops(union, shape, context, minimum, multiple)
            # Two parts that are both too long may be put side by side; a small one is not lost in a large one.
            shorter = np.minimum(_sides(crops[others]), _sides(crops[one : one + 1]))
            fits = (_sides(wider) <= np.maximum(maximum, shorter)).all(axis=1)
            if not fits.any():
                break
            best = int(np.argmax(np.where(fits, overlap, -1)))
            other = others[best]
            holes[one], crops[one] = union[best], wider[best]
            alive[other] = False
            merged_of[merged_of == other] = one
    kept = np.flatnonzero(alive)
    return np.searchsorted(kept, merged_of), holes[kept], kind[kept]


def _sides(boxes: Ints) -> Ints:
    return boxes[:, 2:] - boxes[:, :2]


def _area(boxes: Ints) -> Ints:
    return np.asarray(_sides(boxes).prod(axis=1))
