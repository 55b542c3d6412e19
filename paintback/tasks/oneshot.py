"""`paintback.inpaint`: one call from a picture and its mask to the result, with one model kept for the next call."""

from __future__ import annotations

import copy
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Unpack

from paintback.images.outputs import OutputType
from paintback.images.picture import Picture, to_numpy
from paintback.models.catalogue import is_here
from paintback.resources import in_room
from paintback.tasks.inpaint import Inpainter, Output
from paintback.tasks.options import Options, each_of, signature

__all__ = ["inpaint"]

_kept: dict[tuple[str, str, str], Inpainter] = {}
_loading = threading.Lock()
_painting = threading.Lock()  # for pipelines, whose offloading and caches are not made for several threads


def inpaint(
    image: Any,
    mask_image: Any = None,
    *,
    model: str | Path | Inpainter = "photo",
    prompt: str | None = None,
    output_type: OutputType | None = None,
    channels_first: bool = False,
    bgr: bool = False,
    device: Any = None,
    torch_dtype: torch.dtype | None = None,
    **options: Unpack[Options],
) -> Output[Any]:
    """Paints back what the mask hides, with a model by its name.

        pb.inpaint("photo.jpg", "mask.png").images[0].save("result.png")

    An array comes back as it was given: dtype, axes, order of colours, and every value outside the hole.

        painted = pb.inpaint(cv2.imread("photo.jpg"), mask, bgr=True).images[0]

    The model that was used last stays loaded, and any number of threads may call this. For many calls, or another bar,
    take an `Inpainter`.

    Args:
        image: a picture or a list of them: path, PIL, numpy (H, W) or (H, W, C), uint8, uint16 or float in [0, 1], or
            torch (3, H, W) in [0, 1]; a batch, numpy (B, H, W, C) or torch (B, 3, H, W), is a list.
        mask_image: likewise; white = repaint. None where `outpaint` says what is missing.
        model: an embedded model's name, the path of one's own weights, a pipeline's folder or Hub id; or an
            `Inpainter`.
        prompt: text, for models that take one.
        output_type: as an `Inpainter`'s; None for arrays as they were given where arrays are, tensors where tensors
            are, else PIL.
        channels_first: whether arrays are (C, H, W).
        bgr: whether the colours of arrays are in OpenCV's order.
        device: a torch device; None chooses.
        torch_dtype: of the network.
        **options: everything else that can be asked, `quality` first of all; see
            `tasks.options.Options`. An unknown name is refused.

    Returns:
        The pictures, of the input's size, bit-identical outside the hole, with their cost and settings.

    Raises:
        ValueError: for input that does not fit, in one sentence.
    """
    arrays = [one for one in each_of(image) if isinstance(one, np.ndarray)]
    if (channels_first or bgr) and not arrays:
        raise ValueError("channels_first and bgr say how arrays are laid out; leave them out for other pictures.")
    if arrays and (channels_first or bgr):
        image = [_plain(one, channels_first, bgr) if isinstance(one, np.ndarray) else one for one in each_of(image)]
        if channels_first and isinstance(mask_image, np.ndarray) and mask_image.ndim == 3:
            mask_image = np.moveaxis(mask_image, 0, -1)
    inpainter = model if isinstance(model, Inpainter) else _keep(model, device, torch_dtype)
    own = copy.copy(inpainter)  # whose `interrupt` is this call's alone
    given = each_of(image)
    as_given = output_type is None and all(isinstance(one, np.ndarray) for one in given)
    if output_type is None:
        output_type = "picture" if as_given else "pt" if isinstance(given[0], torch.Tensor) else "pil"
    with _painting if hasattr(inpainter.model, "pipe") else nullcontext():
        out: Output[Any] = own(image, mask_image, prompt, output_type=output_type, **options)
    if not as_given:
        return out
    count = len(out.images) // len(given)
    made = [_as_given(new, given[k // count], channels_first, bgr) for k, new in enumerate(out.images)]
    return replace(out, images=np.stack(made) if len({one.shape for one in made}) == 1 else made)


def _keep(model: str | Path, device: Any, dtype: torch.dtype | None) -> Inpainter:
    """The Inpainter of a model, loaded once."""
    key = (str(model), str(device), str(dtype))
    with _loading:
        if key not in _kept:

            def load() -> Inpainter:
                return Inpainter.from_pretrained(model, device=device, torch_dtype=dtype)

            _kept[key] = in_room(load, _kept, 0, here=is_here(str(model)))  # the old one's memory first
        return _kept[key]


def _plain(array: NDArray[Any], channels_first: bool, bgr: bool) -> NDArray[Any]:
    """An array as (H, W, C) in RGB; the same function turns an RGB one to BGR."""
    if channels_first and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if bgr and array.ndim == 3 and array.shape[2] >= 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    return array


def _as_given(picture: Picture, given: NDArray[Any], channels_first: bool, bgr: bool) -> NDArray[Any]:
    """A result in the dtype and layout of the array that it is of; what was not painted keeps its very values."""
    new = to_numpy(picture, as_given=True)
    new = new[..., 0] if given.ndim == 2 else new
    if new.shape == given.shape:
        old = given.astype(new.dtype)
        new = np.where(new == old, given, new.astype(given.dtype))
    new = _plain(new.astype(given.dtype, copy=False), False, bgr)
    return np.moveaxis(new, -1, 0) if channels_first and new.ndim == 3 else new


inpaint.__signature__ = signature(  # type: ignore[attr-defined]
    "image",
    "mask_image=",
    model="photo",
    output_type=None,
    channels_first=False,
    bgr=False,
    device=None,
    torch_dtype=None,
)
