"""The colours of what a codec gave back, brought to those of its surroundings before it is pasted in.

Codecs do not give back the colours that they were given: all of a crop comes out a little lighter or redder, and the
paste shows as a step. What is known of the crop says by how much. Its difference from what came back, as a mean of
every cell, is smoothed and continued into the hole, and added there; pixels that are known are not touched.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.models.latent import fill_hole

__all__ = ["matched"]


def matched(made: Tensor, values: Tensor, known: Tensor, cell: int) -> Tensor:
    """What was made, with the colours of what is known around it.

    Args:
        made: (B, C, H, W) in [-1, 1], as a codec gave it back.
        values: (1 or B, C, H, W) the crop that it was given; hidden values are not looked at.
        known: (1 or B, 1, H, W) bool.
        cell: pixels of a codec's cell along a side; H and W are multiples of it.

    Returns:
        (B, C, H, W) in [-1, 1]; `made` itself where no cell is wholly known, or where there are no cells.
    """
    sure = F.avg_pool2d(known.float(), cell) > 1 - 1e-5
    if cell == 1 or not bool(sure.any()):
        return made
    gap = F.avg_pool2d(torch.where(known, values - made, 0.0), cell)
    weight = F.avg_pool2d(sure.float(), 3, 1, 1)
    smooth = F.avg_pool2d(torch.where(sure, gap, 0.0), 3, 1, 1) / weight.clamp(min=1e-6)
    shift = fill_hole(smooth, (weight > 0).expand(len(smooth), -1, -1, -1))
    return (made + F.interpolate(shift, made.shape[-2:], mode="bilinear")).clamp(-1, 1)
