"""Clips: frames as the user gave them, their masks, and a larger canvas for them. Files: see `clip_files`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paintback.images.clip_files import Clip, Colour, check_clip_path, read_clip_file, write_clip
from paintback.images.decoding import Array
from paintback.images.errors import PictureError, Say, remark
from paintback.images.formats import CLIPS
from paintback.images.masks import extend_picture, read_mask
from paintback.images.picture import Picture, is_torch, read_picture

__all__ = [
    "Clip",
    "Colour",
    "check_clip_path",
    "extend_clip",
    "is_clip_path",
    "read_clip",
    "read_clip_mask",
    "write_clip",
]

Masks = NDArray[np.bool_]
ClipSource = Union["Clip", str, "PathLike[str]", list[Any], tuple[Any, ...], Array, Any]


def is_clip_path(source: object) -> bool:
    """Whether something is the path of a clip, by its suffix."""
    return isinstance(source, str | PathLike) and Path(source).suffix.lower() in CLIPS


def read_clip(source: ClipSource, *, say: Say = remark) -> Clip:
    """Reads a clip from whatever the user has.

    Args:
        source: a `Clip`, returned as it is; the path of a file; a list of pictures as `read_picture` takes them;
            numpy (F, H, W, 3); torch (F, 3, H, W) or (1, F, 3, H, W).
        say: told in a sentence what of a file is not taken along; a warning otherwise.

    Raises:
        MissingPicture: the file does not exist.
        PictureError: anything else that is wrong with it, in one sentence.
    """
    if isinstance(source, Clip):
        return source
    if isinstance(source, str | PathLike):
        return read_clip_file(Path(source), say)
    if is_torch(source) and source.ndim == 5 and len(source) == 1:  # type: ignore[union-attr]
        source = source[0]
    several = isinstance(source, list | tuple)
    given = f"of shape {tuple(source.shape)}" if hasattr(source, "shape") else f"as {type(source).__name__}"
    if not several and (isinstance(source, Image.Image) or getattr(source, "ndim", 0) != 4):
        raise PictureError(
            f"a clip was given {given}, expected a path, a list of pictures, numpy (F, H, W, 3) or torch "
            "(F, 3, H, W); for one picture use Inpainter."
        )
    return Clip(_stack([read_picture(frame) for frame in source]))


def _stack(pictures: list[Picture]) -> Array:
    if not pictures:
        raise PictureError("the clip has no frames; give at least one.")
    first = pictures[0]
    for number, picture in enumerate(pictures, 1):
        if picture.shape != first.shape or picture.pixels.dtype != first.pixels.dtype:
            raise PictureError(
                f"frame {number} is {picture.size} of {picture.pixels.dtype} and the first {first.size} of "
                f"{first.pixels.dtype}, expected the same for all; bring them to one size and type."
            )
        if picture.alpha is not None:
            raise PictureError(f"frame {number} has transparency, which clips do not carry; flatten it first.")
    return np.stack([np.repeat(one.pixels, 3, axis=-1) if one.grey else one.pixels for one in pictures])


def read_clip_mask(source: Any, shape: tuple[int, int, int], *, mask_is: str | None = None, say: Say = remark) -> Masks:
    """Reads the mask of a clip: white = repaint.

    Args:
        source: one mask for all frames, as `masks.read_mask` takes it; or one for each: a list, an array (F, H, W) or
            (F, H, W, 3), a tensor (F, H, W) or (F, 1, H, W), or the path of a clip.
        shape: (F, H, W) of the clip.
        mask_is: see `masks.read_mask`; what is the hole is settled for all frames together.
        say: told what was taken for the hole where that is not plain white on black.

    Returns:
        bool (F, H, W).

    Raises:
        PictureError: another size or number of frames, or anything `read_mask` refuses.
    """
    count, *size = shape
    if is_clip_path(source):
        source = list(read_clip_file(Path(source), say).frames)
    dimensions = 0 if isinstance(source, Image.Image) else getattr(source, "ndim", 0)
    several = (
        isinstance(source, list | tuple)
        or (dimensions == 3 and tuple(source.shape[1:]) == tuple(size))
        or (dimensions == 4 and len(source) > 1)
    )
    if not several:
        mask = read_mask(source, (size[0], size[1]), mask_is=mask_is, say=say)
        return np.broadcast_to(mask, shape).copy()
    if len(source) not in (1, count):
        raise PictureError(
            f"the mask has {len(source)} frames and the clip {count}; give one for each frame, or one picture for all."
        )
    masks = _together(source, (size[0], size[1]), mask_is, say)
    if masks is None:
        masks = np.stack([read_mask(one, (size[0], size[1]), mask_is=mask_is, say=say) for one in source])
    return np.broadcast_to(masks, shape).copy()


def _together(source: Sequence[Any], size: tuple[int, int], mask_is: str | None, say: Say) -> Masks | None:
    """The masks of frames that are arrays of one size, by one rule for all; None for others.

    A frame of its own tells little: one that is black but for noise would be cut in two.
    """
    if not all(isinstance(one, np.ndarray) and one.dtype == np.uint8 and one.shape[:2] == size for one in source):
        return None
    if len({one.shape for one in source}) > 1:
        return None
    tall = np.concatenate(list(source))
    return read_mask(tall, mask_is=mask_is, say=say).reshape(len(source), *size)


def extend_clip(clip: Clip, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> tuple[Clip, Masks]:
    """Puts a clip on a larger canvas, to paint its surroundings.

    Args:
        clip: kept bit-identical inside.
        left: pixels to add at this side; likewise top, right and bottom.
        top: see left.
        right: see left.
        bottom: see left.

    Returns:
        The larger clip and the mask of the new area, bool (F, H, W).

    Raises:
        PictureError: a negative margin, or no margin at all.
    """
    extended = [extend_picture(Picture(frame), left, top, right, bottom) for frame in clip.frames]
    frames = np.stack([picture.pixels for picture, _ in extended])
    return replace(clip, frames=frames), np.stack([mask for _, mask in extended])
