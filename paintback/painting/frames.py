"""How a model that composes a whole scene at once sees a picture: which crop, and at which size.

A crop near the size that the model learnt from is painted as it is; a larger one is cut or painted twice (see `cuts`),
or, where the size is asked for, brought down to it, and a smaller one is brought up to the training area, as far as the
sides' multiple allows. Only the hole's pixels are taken from the result, so
what scaling and a codec do elsewhere never reaches the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from paintback.images.masks import Mask
from paintback.images.regions import Box, Region, hole_regions
from paintback.models.base import Model

__all__ = ["LARGEST", "Frame", "choose_size", "own_size", "whole_regions"]

SMALLEST, LARGEST = 0.75, 1.25  # of the training area: crops between these are painted at their own size
AROUND = 8  # crops show the training size divided by this around a hole, at least


@dataclass(frozen=True)
class Frame:
    """Where a crop lies and the size it is painted at.

    Attributes:
        box: in the picture.
        size: (H, W) before the model, multiples of what it takes.
        scaled: whether the crop is scaled to it, rather than padded.
    """

    box: Box
    size: tuple[int, int]
    scaled: bool

    def enter(self, x: Tensor) -> Tensor:
        """(B, C, h, w) of the box to the model's size."""
        if self.scaled:
            return F.interpolate(x, self.size, mode="bicubic", antialias=True).clamp(-1, 1)
        return F.pad(x, (0, self.size[1] - self.box.width, 0, self.size[0] - self.box.height), mode="replicate")

    def enter_known(self, known: Tensor) -> Tensor:
        """(B, 1, h, w) bool of the box to the model's size: known where all pixels that count are."""
        if self.scaled:
            share = F.interpolate(known.float(), self.size, mode="bilinear", antialias=True)
            return share > 1 - 1e-4
        return self.enter(known.float()) > 0.5

    def leave(self, x: Tensor) -> Tensor:
        """(B, C, H, W) back to the box."""
        if self.scaled:
            return F.interpolate(x, self.box.shape, mode="bicubic", antialias=True).clamp(-1, 1)
        return x[..., : self.box.height, : self.box.width]


def whole_regions(hole: Mask, model: Model, context: int | None) -> list[Region]:
    """The crops in which a hole is painted: the picture itself if it is near the training size, else around the hole.

    Args:
        hole: (H, W) bool, True = repaint.
        model: with its training size.
        context: pixels around the hole that the user asks for (`padding_mask_crop`): crops are cut that close and
            brought up to the training size. None: an eighth of the training size, and at least that in all.
    """
    if context is not None:
        return hole_regions(
            hole, context=context, minimum=model.multiple, maximum=2 * model.training_size, multiple=model.multiple
        )
    if hole.shape[0] * hole.shape[1] <= LARGEST * model.training_size**2:
        owners = hole.astype("int32") - 1
        return [Region(Box(0, 0, *hole.shape), owners, 0)]
    side = model.training_size
    most = math.isqrt(int(LARGEST * side**2))
    return hole_regions(hole, context=side // AROUND, minimum=side, maximum=most, multiple=model.multiple)


def choose_size(box: Box, model: Model, size: tuple[int | None, int | None] = (None, None)) -> Frame:
    """The size that a crop is painted at.

    Args:
        box: the crop.
        model: with its training size and the multiple of its sides.
        size: (height, width) that the user asks for; one alone brings the other with it, in the crop's proportions.

    Raises:
        ValueError: for sides that the model does not take.
    """
    for name, side in zip(("height", "width"), size, strict=True):
        if side is not None and (side < model.multiple or side % model.multiple):
            raise ValueError(f"{name} must be a multiple of {model.multiple} for {model.name!r}; got {side}.")
    area, trained = box.height * box.width, model.training_size**2
    most = model.largest_area or math.inf
    if size == (None, None) and SMALLEST * trained <= area <= LARGEST * trained:
        height, width = (-(-side // model.multiple) * model.multiple for side in box.shape)
        if height * width <= most:
            return Frame(box, (height, width), scaled=False)
    asked = [side / own for side, own in zip(size, box.shape, strict=True) if side is not None]
    scale = asked[0] if asked else math.sqrt(trained / area)
    height, width = (
        side or max(model.multiple, round(own * scale / model.multiple) * model.multiple)
        for side, own in zip(size, box.shape, strict=True)
    )
    while height * width > most and None in size:
        if size[0] is None and (size[1] is not None or height >= width):
            height -= model.multiple
        else:
            width -= model.multiple
    if height * width > most:
        raise ValueError(f"{model.name!r} takes at most {most} pixels; got height {height} and width {width}.")
    return Frame(box, (height, width), scaled=(height, width) != box.shape)


def own_size(box: Box, model: Model) -> Frame:
    """A crop at the picture's own resolution, padded to the multiple of the model's sides."""
    height, width = (-(-side // model.multiple) * model.multiple for side in box.shape)
    return Frame(box, (height, width), scaled=False)
