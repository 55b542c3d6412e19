"""The types that pictures are given back in."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from paintback.images.picture import Picture, to_numpy, to_pil, to_torch

__all__ = ["OutputType", "check_output_type", "convert"]

OutputType = Literal["pil", "np", "pt", "picture"]


def check_output_type(output_type: str) -> None:
    """Refuses an unknown type of output.

    Raises:
        ValueError: naming the valid ones.
    """
    if output_type not in ("pil", "np", "pt", "picture"):
        raise ValueError(f"output_type must be pil, np, pt or picture; got {output_type!r}.")


def convert(pictures: list[Picture], output_type: OutputType) -> Any:
    """Pictures in the type asked for, as diffusers has it.

    Args:
        pictures: of any sizes.
        output_type: "pil": a list; "np": (N, H, W, 3) in [0, 1]; "pt": (N, 3, H, W) in [0, 1], each a list where sizes
            differ; "picture": the pictures themselves.
    """
    if output_type == "picture":
        return pictures
    if output_type == "pil":
        return [to_pil(picture) for picture in pictures]
    if output_type == "np":
        arrays = [to_numpy(picture) for picture in pictures]
        return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
    import torch

    tensors = [to_torch(picture) for picture in pictures]
    return torch.cat(tensors) if len({tensor.shape for tensor in tensors}) == 1 else tensors
