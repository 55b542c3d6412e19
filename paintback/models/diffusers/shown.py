"""Pictures that a pipeline is shown beside the prompt: IP-Adapter's, and those of a ControlNet.

References: Ye et al. 2023 (IP-Adapter, arXiv:2308.06721), Zhang et al. 2023 (ControlNet, arXiv:2302.05543).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.images.picture import read_picture

__all__ = ["PROMPTS", "as_pil", "as_tensor", "cut", "image_prompts", "numbered", "references"]

PROMPTS = ("ip_adapter_image", "ip_adapter_image_embeds")
PADDED = 8  # sides are multiples of this; a crop that lacks less was padded, not scaled


def as_tensor(picture: Any) -> Tensor:
    """(1, 3, H, W) in [0, 1] of a picture of any kind that is taken for one to paint in."""
    if isinstance(picture, Tensor):
        return picture.float() if picture.ndim == 4 else picture[None].float()
    unit = torch.from_numpy(read_picture(picture).to_unit()).permute(2, 0, 1)[None]
    return (unit.expand(-1, 3, -1, -1).float() + 1) / 2


def as_pil(picture: Any) -> Any:
    """A picture of any kind as the pipelines' processors scale it best."""
    from PIL import Image

    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, Tensor):
        picture = picture.reshape(picture.shape[-3:]).permute(1, 2, 0).float().cpu().numpy()
    unit = read_picture(picture).filled().to_unit()
    return Image.fromarray(((unit[..., :3] + 1) * 127.5).round().astype("uint8"))


def references(shown: Any, name: str, most: int | None) -> list[Any]:
    """The pictures that a model is shown to go by, as PIL has them.

    Args:
        shown: one picture or a list of them, of any kind; None for none.
        name: of the model.
        most: how many it takes; None for any number.

    Raises:
        ValueError: for more than that.
    """
    if shown is None:
        return []
    pictures = [as_pil(one) for one in (shown if isinstance(shown, list | tuple) else [shown])]
    if most is not None and len(pictures) > most:
        raise ValueError(f"The model {name!r} is shown {most} reference picture at most; got {len(pictures)}.")
    return pictures


def cut(picture: Tensor, box: tuple[int, int, int, int], shape: tuple[int, int], size: Sequence[int]) -> Tensor:
    """What a control picture says of a crop, at the size that the crop is painted at.

    Args:
        picture: (1, 3, H, W) in [0, 1], of all of the picture that is painted in.
        box: (top, left, bottom, right) of the crop; beyond the border the picture's edge goes on.
        shape: (H, W) of the picture that is painted in.
        size: (h, w) before the model.
    """
    if picture.shape[-2:] != shape:
        picture = F.interpolate(picture, shape, mode="bilinear", antialias=True)
    top, left, bottom, right = box
    rows = torch.arange(top, bottom, device=picture.device).clamp(0, shape[0] - 1)
    columns = torch.arange(left, right, device=picture.device).clamp(0, shape[1] - 1)
    part = picture[..., rows[:, None], columns]
    more = [own - side for own, side in zip(size, part.shape[-2:], strict=True)]
    if all(0 <= one < PADDED for one in more):  # as a crop that is painted at its own size is
        return F.pad(part, (0, more[1], 0, more[0]), mode="replicate")
    return F.interpolate(part, tuple(size), mode="bicubic", antialias=True).clamp(0, 1)


def numbered(extras: dict[str, Tensor], name: str) -> list[Tensor]:
    """Takes `name_0`, `name_1`, ... out of what a condition holds besides."""
    found: list[Tensor] = []
    while f"{name}_{len(found)}" in extras:
        found.append(extras.pop(f"{name}_{len(found)}"))
    return found


def image_prompts(pipe: Any, own: Mapping[str, Any], device: Any, *, guided: bool) -> list[tuple[Tensor, Tensor]]:
    """The embeddings of each IP-Adapter's pictures, by the pipeline: the negative ones and those of the prompt.

    Args:
        pipe: with IP-Adapters.
        own: one of `PROMPTS`; embeddings under guidance have the negative ones first.
        device: of the embeddings.
        guided: whether there is a negative side.
    """
    pictures, embeds = (own[name] for name in PROMPTS)
    prepare = pipe.prepare_ip_adapter_image_embeds
    several = not hasattr(getattr(pipe, "transformer", None), "image_proj")  # SD 3 has one, and takes no list
    if several and embeds is not None and not isinstance(embeds, list):
        embeds = [embeds]
    if not several and isinstance(embeds, list | tuple) and len(embeds) == 1:
        (embeds,) = embeds
    with torch.no_grad():
        if "do_classifier_free_guidance" in inspect.signature(prepare).parameters:
            found = prepare(pictures, embeds, device, 1, guided)
            rows = found if isinstance(found, list) else [found]
            return [tuple(one.chunk(2)) if guided else (one, one) for one in rows]
        rows = prepare(pictures, embeds, device, 1)  # of FLUX.1: those of the prompt alone
        if not guided:
            return [(one[-1:], one[-1:]) for one in rows]
        if all(len(one) == 2 for one in rows):
            return [tuple(one.chunk(2)) for one in rows]
        black = np.zeros((64, 64, 3), dtype=np.uint8)
        return list(zip(prepare([black] * len(rows), None, device, 1), rows, strict=True))
