"""`paintback.inpaint`: one call from a picture and its mask to the result, with one model kept for the next call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from typing_extensions import Unpack

from paintback.images.outputs import OutputType
from paintback.tasks.inpaint import Inpainter, Output
from paintback.tasks.options import Options, signature

__all__ = ["inpaint"]

_kept: dict[tuple[str, str, str], Inpainter] = {}


def inpaint(
    image: Any,
    mask_image: Any = None,
    *,
    model: str | Path | Inpainter = "photo",
    prompt: str | None = None,
    output_type: OutputType | None = None,
    device: Any = None,
    torch_dtype: torch.dtype | None = None,
    **options: Unpack[Options],
) -> Output[Any]:
    """Paints back what the mask hides, with a model by its name.

        pb.inpaint("photo.jpg", "mask.png").images[0].save("result.png")

    The model that was used last stays loaded. For many calls, or another bar, take an `Inpainter`.

    Args:
        image: a picture or a list of them: path, PIL, numpy (H, W, 3) or torch (3, H, W) in [0, 1].
        mask_image: likewise; white = repaint. None where `outpaint` says what is missing.
        model: an embedded model's name, the path of one's own weights, a pipeline's folder or Hub id; or an
            `Inpainter`.
        prompt: text, for models that take one.
        output_type: as an `Inpainter`'s; None for arrays where arrays are given, tensors where tensors are, else PIL.
        device: a torch device; None chooses.
        torch_dtype: of the network.
        **options: everything else that can be asked, `quality` first of all; see
            `tasks.options.Options`. An unknown name is refused.

    Returns:
        The pictures, of the input's size, bit-identical outside the hole, with their cost and settings.

    Raises:
        ValueError: for input that does not fit, in one sentence.
    """
    if output_type is None:
        first = image[0] if isinstance(image, list | tuple) else image
        output_type = "pt" if isinstance(first, torch.Tensor) else "np" if hasattr(first, "dtype") else "pil"
    if isinstance(model, Inpainter):
        inpainter = model
    else:
        key = (str(model), str(device), str(torch_dtype))
        if key not in _kept:
            _kept.clear()  # the old one's memory first
            _kept[key] = Inpainter.from_pretrained(model, device=device, torch_dtype=torch_dtype)
        inpainter = _kept[key]
    return inpainter(image, mask_image, prompt, output_type=output_type, **options)


inpaint.__signature__ = signature(  # type: ignore[attr-defined]
    "image", "mask_image=", model="photo", output_type=None, device=None, torch_dtype=None
)
