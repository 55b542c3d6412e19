"""Pictures of floats brought to another size."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paintback.images.errors import PictureError

Array = NDArray[Any]
Filter = Literal["area", "bilinear", "bicubic", "lanczos"]


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
