"""Fitting pictures to models: padding, mask-aware pooling, and models of one fixed size.

Models of a fixed size on larger photographs: the crop around the hole is reduced to the model's size by area averaging,
with its aspect ratio kept and the short side continued by reflection; the model paints; its result is enlarged with
Lanczos, and only the repainted pixels are brought back (`Picture.with_pixels`). Known pixels never go through this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from paintback.images.errors import PictureError
from paintback.images.regions import Box

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Pads = tuple[int, int, int, int]
Filter = Literal["area", "bilinear", "bicubic", "lanczos"]
AnyArray = TypeVar("AnyArray", NDArray[Any], "torch.Tensor")


def pad_to_multiple(
    array: AnyArray, multiple: int, mode: Literal["reflect", "edge"] = "reflect"
) -> tuple[AnyArray, Pads]:
    """Continue an array at the bottom and the right until its sides are multiples.

    Args:
        array: (..., H, W), numpy or torch, of any dtype (a mask is padded as its picture is).
        multiple: of both sides.
        mode: "reflect" mirrors without repeating the border (as often as needed), "edge" repeats it. A side of one
            pixel cannot be reflected and is repeated.

    Returns:
        The padded array, and (top, left, bottom, right), of which top and left are 0; for `unpad`.

    Raises:
        PictureError: unknown mode, multiple below 1, or an empty array.
    """
    height, width = int(array.shape[-2]), int(array.shape[-1])
    if mode not in ("reflect", "edge") or multiple < 1 or min(height, width) < 1:
        raise PictureError(
            f"an array {tuple(array.shape)} was to be padded to multiples of {multiple} by {mode!r}, expected at least "
            "one pixel, 1 or more, and reflect or edge; correct that."
        )
    bottom, right = -height % multiple, -width % multiple
    if bottom:
        array = array[..., _continued(height, bottom, mode), :]
    if right:
        array = array[..., _continued(width, right, mode)]
    return array, (0, 0, bottom, right)


def unpad(array: AnyArray, pads: Pads) -> AnyArray:
    """Take off what `pad_to_multiple` has added: (..., H, W) and (top, left, bottom, right)."""
    top, left, bottom, right = pads
    return array[..., top : array.shape[-2] - bottom, left : array.shape[-1] - right]


def average_pool(
    values: Array, known: Mask, factor: int, policy: Literal["all", "majority", "any"] = "all"
) -> tuple[Array, Mask]:
    """A coarser picture in which hidden pixels have no part.

    Args:
        values: (C, H, W) float.
        known: (H, W) bool, True = given.
        factor: cells are factor x factor pixels; at the bottom and right they may be smaller.
        policy: a cell is known if all, more than half, or any of its pixels are.

    Returns:
        values (C, ceil(H / factor), ceil(W / factor)): the mean of the known pixels of a cell, 0 (mid grey) where there
        are none; and known, bool, of the cells.

    Raises:
        PictureError: shapes that do not fit, factor below 1, or an unknown policy.
    """
    if values.ndim != 3 or values.shape[1:] != known.shape or factor < 1 or policy not in ("all", "majority", "any"):
        raise PictureError(
            f"values are {values.shape}, known {known.shape}, factor {factor}, policy {policy!r}, expected (C, H, W), "
            "(H, W), 1 or more, and all, majority or any; correct that."
        )
    count = _cell_sums(known.astype(np.int64), factor)
    total = _cell_sums(np.ones(known.shape, np.int64), factor)
    sums = _cell_sums(np.where(known, values, 0).astype(np.float64), factor)
    means = (sums / np.maximum(count, 1)).astype(values.dtype)
    if policy == "all":
        return means, np.asarray(count == total)
    return means, np.asarray(2 * count > total if policy == "majority" else count > 0)


def resize_unit(array: Array, shape: tuple[int, int], resample: Filter = "area") -> NDArray[np.float32]:
    """Resize floats of any range.

    Args:
        array: (H, W) or (H, W, C) float.
        shape: (H, W) of the result.
        resample: "area" (a box filter), "bilinear", "bicubic" (Pillow's, a = -0.5) or "lanczos" (three lobes); when
            reducing, all of them are widened by the scale and so do not alias.

    Returns:
        float32 of the new shape. The last two filters can overshoot.

    Raises:
        PictureError: unknown filter, or an empty shape.
    """
    from PIL import Image

    filters = {
        "area": Image.Resampling.BOX,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
    if resample not in filters or min(shape) < 1 or array.ndim not in (2, 3):
        raise PictureError(
            f"an array {array.shape} was to be resized to {shape} by {resample!r}, expected (H, W) or (H, W, C), "
            f"at least one pixel, and one of {', '.join(filters)}; correct that."
        )
    array = np.asarray(array, np.float32)
    if array.shape[:2] == tuple(shape):
        return np.array(array)
    planes = array[..., None] if array.ndim == 2 else array
    size = (shape[1], shape[0])
    resized = np.stack(
        [
            np.asarray(Image.fromarray(np.ascontiguousarray(planes[..., c])).resize(size, filters[resample]))
            for c in range(planes.shape[2])
        ],
        axis=-1,
    )
    return resized[..., 0] if array.ndim == 2 else resized


@dataclass(frozen=True)
class FixedSizePlan:
    """How a crop goes into a model of one size and comes back (policy: see the head of this module).

    Attributes:
        box: the crop of the picture.
        size: (H, W) of the model.
        inner: (H, W) that the crop takes up in the model's picture, at its top left; the rest is reflection.
    """

    box: Box
    size: tuple[int, int]
    inner: tuple[int, int]

    @property
    def reduces(self) -> bool:
        """True when the crop is larger than its place in the model's picture."""
        return self.inner[0] < self.box.height or self.inner[1] < self.box.width

    def to_model(self, unit: Array, mask: Mask) -> tuple[NDArray[np.float32], Mask]:
        """The crop at the model's size.

        Args:
            unit: (H, W, 3) in [-1, 1], the whole picture; hidden pixels do not reach known ones of the result.
            mask: (H, W) bool, True = repaint.

        Returns:
            (h, w, 3) with 0 in the hole, and its mask (h, w): a pixel is hole if any pixel under it is.
        """
        resample: Filter = "area" if self.reduces else "bilinear"
        hole = mask[self.box.slices]
        crop = np.where(hole[..., None], np.float32(0), unit[self.box.slices])
        small = resize_unit(crop, self.inner, resample)
        small_hole = resize_unit(hole.astype(np.float32), self.inner, resample) > 0
        small = np.where(small_hole[..., None], np.float32(0), small)
        rows = _continued(self.inner[0], self.size[0] - self.inner[0], "reflect")
        columns = _continued(self.inner[1], self.size[1] - self.inner[1], "reflect")
        return small[rows][:, columns], small_hole[rows][:, columns]

    def from_model(self, unit: Array) -> NDArray[np.float32]:
        """The model's picture (h, w, 3) at the crop's size, in [-1, 1]; the caller takes only the hole from it."""
        inner = unit[: self.inner[0], : self.inner[1]]
        return np.clip(resize_unit(inner, self.box.shape, "lanczos" if self.reduces else "area"), -1, 1)


def fixed_size_plan(box: Box, size: int | tuple[int, int]) -> FixedSizePlan:
    """Plan the way of a crop through a model of one size.

    Args:
        box: the crop, as from `context_crop`; nearly square ones waste least.
        size: the model's side, or (H, W).
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width, *box.shape) < 1:
        raise PictureError(f"the crop is {box.shape} and the model's size {size}, expected 1 or more; correct that.")
    scale = min(height / box.height, width / box.width)
    inner = (min(height, max(1, round(box.height * scale))), min(width, max(1, round(box.width * scale))))
    return FixedSizePlan(box, (height, width), inner)


def _continued(length: int, extra: int, mode: str) -> NDArray[np.int64]:
    """Indices 0 .. length - 1 and `extra` more that point back inside."""
    index = np.arange(length + extra)
    if mode == "edge" or length == 1:
        return np.minimum(index, length - 1)
    period = 2 * (length - 1)
    index = index % period
    return np.minimum(index, period - index)


def _cell_sums(values: Array, factor: int) -> Array:
    rows = np.arange(0, values.shape[-2], factor)
    columns = np.arange(0, values.shape[-1], factor)
    return np.asarray(np.add.reduceat(np.add.reduceat(values, rows, axis=-2), columns, axis=-1))
