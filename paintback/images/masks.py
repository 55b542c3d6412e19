"""Masks: reading, checking and shaping them. True (white) means repaint, everywhere in this module.

The generators (`free_form`, `box`, ...) live in generators.py and are offered here too.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from os import PathLike
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from paintback.images.decoding import MAX_PIXELS, Array
from paintback.images.errors import PictureError, Say, remark
from paintback.images.formats import AUTO, is_mask_word
from paintback.images.generators import box, checkerboard, free_form, half, lines, outpaint, text
from paintback.images.mask_rule import check_mask_is, hole_of
from paintback.images.picture import Picture, Source, is_torch, read_picture

__all__ = [
    "Mask",
    "blur",
    "box",
    "check_mask",
    "checkerboard",
    "extend_picture",
    "fill_holes",
    "free_form",
    "grow",
    "half",
    "invert",
    "lines",
    "mask_from_alpha",
    "outpaint",
    "read_mask",
    "text",
]

Mask = NDArray[np.bool_]
MaskSource = Union[Source, "PathLike[str]"]


def read_mask(
    source: MaskSource,
    shape: tuple[int, int] | None = None,
    *,
    mask_is: str | None = None,
    picture: Picture | None = None,
    say: Say = remark,
    max_pixels: int = MAX_PIXELS,
) -> Mask:
    """Read a mask: white = repaint. Masks of other kinds are understood by the rule of `mask_rule`.

    Args:
        source: as for `read_picture`; besides, bool arrays and tensors, and tensors (H, W) or (1, 1, H, W); arrays of
            integers that hold only 0 and 1 count as bool. With a picture, also the word "alpha" for what of it is not
            opaque, and "auto:" with what is to be found in it, as in "auto:dust+scratches" (see `finding`).
        shape: (H, W) of the picture that it belongs to; None leaves the size unchecked.
        mask_is: None or "auto" for the rule, or what of the mask is the hole: "alpha", "white", "black", "nonzero" or
            "colour=#rrggbb"; see `mask_rule.hole_of`.
        picture: that it belongs to, in place of the shape.
        say: told in a sentence what was taken for the hole where that is not plain white on black; a warning otherwise.
        max_pixels: largest width times height, checked before decoding.

    Returns:
        bool (H, W).

    Raises:
        MissingPicture: the file does not exist.
        PictureError: another size than the picture, NaN, or anything `read_picture` refuses.
    """
    check_mask_is(mask_is)
    if picture is not None:
        shape = picture.shape
        if is_mask_word(source):
            from paintback.images.finding import find

            return find(str(source).removeprefix(AUTO), picture)
    mask = _from_flags(source)
    if mask is not None and mask_is == "black":
        mask = ~mask
    if mask is None:
        if is_torch(source) and source.ndim == 2:  # type: ignore[union-attr]
            source = source[None]  # type: ignore[index]
        mask = hole_of(read_picture(source, max_pixels=max_pixels), mask_is, say)
    if shape is not None and mask.shape != tuple(shape):
        what = (
            f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels and the picture is {shape[1]} x {shape[0]} "
            "(width x height), expected the same size; "
        )
        if mask.shape == tuple(shape)[::-1]:
            raise PictureError(
                f"{what}the mask lies on its side: a photo is turned upright by its EXIF orientation, so turn the mask "
                "by a quarter, or draw it on an upright copy of the photo."
            )
        raise PictureError(f"{what}resize or crop the mask to the picture.")
    return mask


def mask_from_alpha(picture: Picture) -> Mask:
    """What is not opaque is to be repainted, so that nothing see-through is left, at soft edges neither.

    Returns:
        bool (H, W).

    Raises:
        PictureError: the picture has no transparency, or no opaque pixel.
    """
    if picture.alpha is None:
        raise PictureError("the picture has no alpha channel, expected transparent pixels as the mask; give a mask.")
    mask = np.asarray(picture.alpha < picture.white)
    if not mask.any():
        raise PictureError("the picture is opaque everywhere, expected transparent pixels as the mask; give a mask.")
    if mask.all():
        raise PictureError("no pixel of the picture is quite opaque, so that alpha leaves nothing known; give a mask.")
    return mask


def check_mask(mask: Mask, cause: str = "") -> None:
    """Refuse a mask that leaves nothing to do, or nothing to go by.

    Args:
        mask: of any shape.
        cause: the setting that made it so, as "grow=-300", where not the mask itself is to blame.

    Raises:
        PictureError: all black, or all white.
    """
    if not mask.any():
        what, advice = "empty (no white pixel), there is nothing to repaint", "paint white what shall be repainted."
    elif mask.all():
        what = "white everywhere, nothing is known of the picture"
        advice = "leave something black, or use outpaint without a mask to continue a whole picture on a larger canvas."
    else:
        return
    raise PictureError(
        f"with {cause} the mask is {what}; give another value." if cause else f"the mask is {what}; {advice}"
    )


def grow(mask: Mask, pixels: float) -> Mask:
    """Grow a mask by a Euclidean disk of the given radius; a negative one shrinks it.

    Beyond the border of the picture nothing is assumed: a mask that touches the border does not shrink from there.
    """
    if pixels < 0:
        return np.asarray(~grow(~mask, -pixels))
    grown = np.array(mask)
    if pixels > 0 and mask.any():
        near = _around(mask, pixels)
        grown[near] = _distance(mask[near]) <= pixels
    return grown


def blur(mask: Mask, pixels: float) -> NDArray[np.float32]:
    """Blending weights for the seam.

    Args:
        mask: bool (H, W).
        pixels: how far the seam reaches outside the mask; 0 gives the mask itself.

    Returns:
        float32 (H, W): 1 in the mask, falling as a raised cosine of the distance to it, 0 further away than `pixels`.

    Raises:
        PictureError: pixels is negative.
    """
    if not pixels >= 0:
        raise PictureError(f"the seam was to be {pixels} pixels wide, expected 0 or more; give a width.")
    weights = mask.astype(np.float32)
    if pixels > 0 and mask.any():
        near = _around(mask, pixels)
        distance = _distance(mask[near])
        ramp = 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance / (pixels + 1), 1))
        weights[near] = np.where(distance <= pixels, ramp, 0)
    return weights


def fill_holes(mask: Mask) -> Mask:
    """Fill the black islands that white encloses completely (touching at corners does not let black out)."""
    from scipy import ndimage

    return np.asarray(ndimage.binary_fill_holes(mask), bool)


def invert(mask: Mask) -> Mask:
    """Swap what is repainted and what is kept."""
    return np.asarray(~mask)


def extend_picture(
    picture: Picture, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0
) -> tuple[Picture, Mask]:
    """Put a picture on a larger canvas, to paint its surroundings.

    Args:
        picture: kept bit-identical inside.
        left: pixels to add at this side; likewise top, right and bottom.
        top: see left.
        right: see left.
        bottom: see left.

    Returns:
        The larger picture, the new area mid grey (and opaque), and the mask of the new area, bool.

    Raises:
        PictureError: a negative margin, or no margin at all.
    """
    mask = outpaint(picture.shape, left, top, right, bottom)
    inside = np.s_[top : top + picture.shape[0], left : left + picture.shape[1]]
    middle = 0.5 if picture.white == 1 else (picture.white + 1) // 2
    pixels = np.full((*mask.shape, picture.pixels.shape[2]), middle, picture.pixels.dtype)
    pixels[inside] = picture.pixels
    alpha = None
    if picture.alpha is not None:
        alpha = np.full(mask.shape, picture.white, picture.alpha.dtype)
        alpha[inside] = picture.alpha
    return replace(picture, pixels=pixels, alpha=alpha), mask


def _from_flags(source: Any) -> Mask | None:
    """Masks given as arrays or tensors of flags; None for everything else."""
    if is_torch(source):
        if source.is_floating_point():
            return None
        source = source.detach().cpu()
        flags = np.asarray(source.numpy())
    elif isinstance(source, np.ndarray):
        flags = source
    else:
        return None
    if flags.dtype != bool and not (np.issubdtype(flags.dtype, np.integer) and flags.size and _zero_or_one(flags)):
        return None
    if flags.dtype != bool and flags.ndim == 3 and flags.shape[2] in (2, 3, 4):  # a picture, if a dark one
        return None
    while flags.ndim > 2 and flags.shape[0] == 1:
        flags = flags[0]
    if flags.ndim == 3 and flags.shape[2] == 1:
        flags = flags[..., 0]
    if flags.ndim != 2 or flags.size == 0:
        raise PictureError(
            f"the mask is {np.shape(source)}, expected (H, W) with at least one pixel; give one channel."
        )
    return flags.astype(bool)


def _zero_or_one(flags: Array) -> bool:
    return bool(flags.min() >= 0 and flags.max() <= 1)


def _around(mask: Mask, pixels: float) -> tuple[slice, slice]:
    """The part of the picture within reach of a mask that is not empty."""
    reach = ceil(pixels)
    slices = []
    for axis in (1, 0):
        hit = np.flatnonzero(mask.any(axis=axis))
        slices.append(slice(max(0, int(hit[0]) - reach), int(hit[-1]) + reach + 1))
    return slices[0], slices[1]


def _distance(mask: Mask) -> NDArray[np.float64]:
    """Distance of each pixel to the nearest white one, in pixels."""
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(~mask), np.float64)
