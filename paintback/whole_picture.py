"""How a hole is painted by a large latent model: in one pass, over a crop at the size that the model learnt from.

Such a model composes a whole scene at once, so no pyramid is needed (`coarse_to_fine` is for the small models). A crop
near the training size is painted as it is; a larger one is brought down to the training area and a smaller one up to
it, as far as the sides' multiple allows. Only the hole's pixels are taken from the result, so what scaling and the
codec do elsewhere never reaches the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.coarse_to_fine import Canvas
from paintback.denoiser import Denoiser
from paintback.images.masks import Mask
from paintback.images.regions import Box, Region, hole_regions
from paintback.methods.base import Method, Result
from paintback.models.base import Model
from paintback.models.latent import LatentModel, LatentPolicy, fill_hole, observe
from paintback.models.trained import TrainedModel
from paintback.schedules import make_grid

__all__ = ["Frame", "choose_size", "paint_trained", "paint_whole", "whole_regions"]

SMALLEST, LARGEST = 0.75, 1.25  # of the training area: crops between these are painted at their own size


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
            brought up to the training size. None: half of the hole's longer side, and at least the training size.
    """
    if context is not None:
        return hole_regions(
            hole, context=context, minimum=model.multiple, maximum=2 * model.training_size, multiple=model.multiple
        )
    if hole.shape[0] * hole.shape[1] <= LARGEST * model.training_size**2:
        owners = hole.astype("int32") - 1
        return [Region(Box(0, 0, *hole.shape), owners, 0)]
    side = model.training_size
    return hole_regions(hole, context=0.5, minimum=side, maximum=2 * side, multiple=model.multiple)


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


@torch.no_grad()
def paint_whole(
    canvas: Canvas,
    region: Region,
    model: LatentModel,
    denoiser: Callable[[tuple[int, int]], Denoiser],
    method: Method,
    *,
    num_inference_steps: int,
    generators: Sequence[torch.Generator] | torch.Generator,
    num_samples: int,
    batch_pixels: int,
    size: tuple[int | None, int | None] = (None, None),
    strength: float = 1.0,
    policy: LatentPolicy = "all",
    leaky_encoding: bool = False,
    begin: Callable[[Frame, list[float] | None], None] = lambda frame, grid: None,
    step: Callable[[int, float, Tensor, Tensor], bool | None] | None = None,
) -> tuple[Frame, Result]:
    """Paints one region into the canvas.

    Args:
        canvas: read around the region and added to.
        region: what is to be painted, with its crop.
        model: that paints.
        denoiser: makes the denoiser for a size.
        method: that samples.
        num_inference_steps: of a whole grid.
        generators: one for all samples or one each.
        num_samples: n.
        batch_pixels: samples with generators of their own are split so that a batch holds at most this many pixels.
        size: (height, width) to paint at; None leaves a side open.
        strength: below 1, from the picture itself noised to this part of the grid.
        policy: which latent cells count as known.
        leaky_encoding: encode the picture with what it hides.
        begin: told the frame and the grid (None for the whole one) before the run.
        step: `Method.sample`'s callback.

    Returns:
        The frame and the result of the last batch, for the costs.
    """
    frame = choose_size(region.box, model, size)
    box, codec = frame.box, model.codec
    shown = denoiser(frame.size)
    original = frame.enter(canvas.original(box)[None]).to(model.device)
    grid = initial = None
    if strength < 1:
        times = make_grid(shown.schedule, num_inference_steps, method.grid(shown, num_inference_steps))
        grid = [time.t for time in times[-1 - max(1, int((len(times) - 1) * strength)) :]]
        initial = codec.encode(original)[0].float()
    begin(frame, grid)
    together = num_samples
    if not isinstance(generators, torch.Generator):
        together = max(1, min(num_samples, batch_pixels // (frame.size[0] * frame.size[1])))
    batches = []
    for first in range(0, num_samples, together):
        chosen = slice(first, min(first + together, num_samples))
        # all samples see the same picture, encoded once, unless an earlier region made them differ
        seen = chosen if canvas.painted else slice(first, first + 1)
        values, known = canvas.crop(box, seen)
        values = frame.enter(fill_hole(values, known)).to(model.device)
        observation = observe(
            codec,
            values,
            frame.enter_known(known).to(model.device),
            policy=policy,
            hidden=original.expand(len(values), -1, -1, -1) if leaky_encoding else None,
        )
        result = method.sample(
            shown,
            observation,
            num_inference_steps=num_inference_steps,
            generator=generators if isinstance(generators, torch.Generator) else list(generators[chosen]),
            num_samples=(chosen.stop - chosen.start) // len(values),
            grid=grid,
            callback=step,
            initial=initial,
        )
        decoded = [model.to_picture(codec.decode(one[None])) for one in result.x]  # one by one: decoders are large
        batches.append(frame.leave(torch.cat(decoded).float().cpu().clamp(-1, 1)))
        if result.stopped:
            batches.append(batches[-1][-1:].expand(num_samples - chosen.stop, -1, -1, -1))
            break
    part = torch.from_numpy(region.local_target.copy())
    canvas.painted.append((box, part, torch.cat(batches)))
    return frame, result


@torch.no_grad()
def paint_trained(
    canvas: Canvas,
    region: Region,
    model: TrainedModel,
    told: Mapping[str, Any],
    *,
    num_inference_steps: int,
    generators: Sequence[torch.Generator] | torch.Generator,
    num_samples: int,
    batch_pixels: int,
    size: tuple[int | None, int | None] = (None, None),
    strength: float = 1.0,
    begin: Callable[[Frame, list[float] | None], None] = lambda frame, grid: None,
    step: Callable[[int, float, Tensor, Tensor | None], bool | None] | None = None,
) -> tuple[Frame, Result]:
    """Paints one region into the canvas by a model that takes the mask itself.

    Args:
        canvas: read around the region and added to.
        region: what is to be painted, with its crop.
        model: that paints.
        told: `TrainedModel.paint`'s prompt, negative_prompt, guidance_scale and embeddings.
        num_inference_steps: of a whole run.
        generators: one for all samples or one each.
        num_samples: n.
        batch_pixels: samples with generators of their own are split so that a batch holds at most this many pixels.
        size: (height, width) to paint at; None leaves a side open.
        strength: below 1, from the picture itself noised to this part of the steps; else hidden pixels are not shown.
        begin: told the frame and None before the run.
        step: as `Method.sample`'s callback, with None for x0, which is not known here.

    Returns:
        The frame and the result of the last batch in pixels at the model's size, for the costs.
    """
    frame = choose_size(region.box, model, size)
    begin(frame, None)
    together = num_samples
    if not isinstance(generators, torch.Generator):
        fits = batch_pixels // (frame.size[0] * frame.size[1]) if model.takes_batches else 1
        together = max(1, min(num_samples, fits))
    batches = []
    for first in range(0, num_samples, together):
        chosen = slice(first, min(first + together, num_samples))
        values, known = canvas.crop(frame.box, chosen if canvas.painted else slice(first, first + 1))
        shown, kept = frame.enter(fill_hole(values, known)), frame.enter_known(known)
        if strength < 1:
            shown = torch.where(kept, shown, frame.enter(canvas.original(frame.box)[None]))
        painting = model.paint(
            shown.to(model.device),
            ~kept.to(model.device),
            **told,
            num_inference_steps=num_inference_steps,
            generator=generators if isinstance(generators, torch.Generator) else list(generators[chosen]),
            num_samples=chosen.stop - chosen.start,
            strength=strength,
            step=None if step is None else lambda index, t, x: step(index, t, x, None),
        )
        made = painting.pixels.cpu().clamp(-1, 1)
        residual = torch.where(kept, made - shown, 0.0).abs().flatten(1).amax(1)
        result = Result(made, painting.evaluations, 0, painting.network_rows, residual, painting.stopped)
        batches.append(frame.leave(made))
        if result.stopped:
            batches.append(batches[-1][-1:].expand(num_samples - chosen.stop, -1, -1, -1))
            break
    part = torch.from_numpy(region.local_target.copy())
    canvas.painted.append((frame.box, part, torch.cat(batches)))
    return frame, result
