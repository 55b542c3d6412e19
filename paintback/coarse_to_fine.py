"""How a hole of any size is painted by a model that learnt from small pictures.

A model trained on 64-pixel pictures knows what fits in a few dozen pixels. So a wide hole is first painted at the
scale where it is a few dozen pixels wide, from pure noise; the result is enlarged by 2, noised to a moderate level, and
painted again one scale finer, with the known pixels of that scale as the observation, until full resolution. This is
a policy around the sampler and not a method of its own: every method runs under it unchanged.

Each scale sees its own crop around the hole, the same number of cells wide, so the coarse ones see far around.
Cells are means of pixels (area averaging, as in training); below full resolution a cell counts as known where most of
its pixels are, and at full resolution only known pixels are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.images.regions import Box, Region
from paintback.methods.base import Method, Result
from paintback.observation import Observation
from paintback.schedules import make_grid

__all__ = ["Canvas", "Level", "Policy", "paint_regions", "plan_levels", "refinement_grid"]


@dataclass(frozen=True)
class Policy:
    """The numbers of the policy.

    Attributes:
        widest: a hole wider than this many cells (the diameter of the largest disk in it) goes to a coarser scale.
        context: cells around the hole that every scale sees.
        refine_from: noise level (sigma / alpha) from which a finer scale starts.
        multiple: sides of the crops are multiples of this.
        batch_pixels: samples are split so that a batch holds at most this many cells.
    """

    widest: int = 32
    context: int = 32
    refine_from: float = 0.5
    multiple: int = 8
    batch_pixels: int = 2**21


@dataclass(frozen=True)
class Level:
    """One scale of one region.

    Attributes:
        factor: pixels per cell along a side.
        box: the crop in pixels; it may reach beyond the picture, where nothing is known.
    """

    factor: int
    box: Box


@dataclass
class Canvas:
    """A picture with a hole, and what has been painted so far, for a number of samples.

    Attributes:
        picture: (C, H, W) in [-1, 1]; hidden values are read by `original` alone.
        hole: (H, W) bool, True = repaint.
        painted: boxes that are done, their part of the hole, and (n, C, h, w) values.
    """

    picture: Tensor
    hole: Tensor
    painted: list[tuple[Box, Tensor, Tensor]] = field(default_factory=list)

    def original(self, box: Box) -> Tensor:
        """(C, h, w) of the picture itself, hidden values included, 0 beyond its border; for `strength` alone."""
        values = torch.zeros(len(self.picture), box.height, box.width)
        here, there = _overlap(box, Box(0, 0, *self.hole.shape))
        values[(slice(None), *here)] = self.picture[(slice(None), *there)]
        return values

    def crop(self, box: Box, samples: slice) -> tuple[Tensor, Tensor]:
        """Values (n, C, h, w), 0 where unknown, and known (n, 1, h, w) of a box that may leave the picture."""
        count = samples.stop - samples.start
        height, width = box.bottom - box.top, box.right - box.left
        values = torch.zeros(count, len(self.picture), height, width)
        known = torch.zeros(count, 1, height, width, dtype=torch.bool)
        whole = Box(0, 0, *self.hole.shape)
        here, there = _overlap(box, whole)
        inside = ~self.hole[there]
        values[(..., *here)] = torch.where(inside, self.picture[(slice(None), *there)], 0.0)
        known[(..., *here)] = inside
        for done, part, painted in self.painted:
            here, there = _overlap(box, done)
            fresh = part[there]
            if fresh.numel():
                view = values[(..., *here)]
                view[:] = torch.where(fresh, painted[(samples, slice(None), *there)], view)
                known[(..., *here)] |= fresh
        return values, known


def _overlap(box: Box, other: Box) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The common part of two boxes, as slices into the first and into the second; empty slices where none."""
    top, left = max(box.top, other.top), max(box.left, other.left)
    bottom, right = max(top, min(box.bottom, other.bottom)), max(left, min(box.right, other.right))
    return tuple(  # type: ignore[return-value]
        (slice(top - b.top, bottom - b.top), slice(left - b.left, right - b.left)) for b in (box, other)
    )


def plan_levels(
    region: Region, shape: tuple[int, int], policy: Policy, size: tuple[int, int] | None = None
) -> list[Level]:
    """The scales of a region, coarse to fine.

    Args:
        region: what is to be painted.
        shape: (H, W) of the picture.
        policy: the numbers.
        size: (h, w) that a model of one fixed size takes. Then there is one level: the crop of that many cells around
            the hole, at the finest whole factor that leaves an eighth of it on every side as context; a larger crop
            is brought to the model's size by area averaging, and its hole comes back enlarged by cubic interpolation.

    Returns:
        Levels with factors 2^k, ..., 2, 1; or the one level of a fixed size.
    """
    from scipy.ndimage import distance_transform_edt

    target = region.target
    rows, columns = np.flatnonzero(target.any(1)), np.flatnonzero(target.any(0))
    hole = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    if size is not None:
        factor = 1
        while any(
            extent > side * factor * 3 // 4 and whole > side * factor
            for extent, side, whole in zip((hole.height, hole.width), size, shape, strict=True)
        ):
            factor += 1
        top = _place(hole.top, hole.bottom, size[0] * factor, shape[0])
        left = _place(hole.left, hole.right, size[1] * factor, shape[1])
        return [Level(factor, Box(top, left, top + size[0] * factor, left + size[1] * factor))]
    # the border of the picture is no known pixel, so only the hole's own crop with one pixel around it is measured
    around = Box(
        max(0, hole.top - 1), max(0, hole.left - 1), min(shape[0], hole.bottom + 1), min(shape[1], hole.right + 1)
    )
    part = target[around.top : around.bottom, around.left : around.right]
    width = 2 * float(distance_transform_edt(part).max()) if not part.all() else float(max(part.shape))
    factor = 1
    while width / factor > policy.widest and min(shape) / factor >= 2 * policy.multiple:
        factor *= 2
    levels = []
    while factor:
        grid, margin = policy.multiple * factor, policy.context * factor
        levels.append(
            Level(
                factor,
                Box(
                    max(0, hole.top - margin) // grid * grid,
                    max(0, hole.left - margin) // grid * grid,
                    -(-min(shape[0], hole.bottom + margin) // grid) * grid,
                    -(-min(shape[1], hole.right + margin) // grid) * grid,
                ),
            )
        )
        factor //= 2
    return levels


def _place(low: int, high: int, side: int, whole: int) -> int:
    """Where a crop of a side begins: around the hole inside the picture, or around a picture smaller than it."""
    if whole <= side:
        return -((side - whole) // 2)
    return min(max(0, (low + high - side) // 2), whole - side)


def refinement_grid(
    denoiser: Denoiser, num_inference_steps: int, start: float, method: Method | None = None
) -> list[float]:
    """The part of the method's or the model's grid below a noise level, starting exactly there.

    Args:
        denoiser: of the model.
        num_inference_steps: of the whole grid.
        start: sigma / alpha.
        method: whose grid it is; None for the model's.

    Returns:
        Times, falling, the last one 0.
    """
    own = denoiser.grid(num_inference_steps) if method is None else method.grid(denoiser, num_inference_steps)
    times = make_grid(denoiser.schedule, num_inference_steps, own)
    first = float(denoiser.schedule.time_of_ratio(torch.tensor(start, dtype=torch.float64)))
    return [first, *(time.t for time in times if time.t < first - 1e-9)]


def paint_regions(
    canvases: Sequence[Canvas],
    regions: Sequence[Region],
    denoiser: Denoiser,
    method: Method,
    *,
    policy: Policy,
    num_inference_steps: int,
    generators: Sequence[torch.Generator] | torch.Generator,
    num_samples: int,
    device: torch.device,
    strength: float = 1.0,
    begin: Callable[[Level, list[float] | None], None] = lambda level, grid: None,
    step: Callable[[int, float, Tensor, Tensor], bool | None] | None = None,
) -> list[tuple[Level, Result]]:
    """Paints one region of each picture into its canvas, coarse to fine, all of them in one batch.

    Args:
        canvases: of the pictures, read around the regions and added to.
        regions: what is to be painted, one for each canvas; their levels have the same factors and sizes.
        denoiser: of the model.
        method: that samples.
        policy: the numbers.
        num_inference_steps: of a whole grid; finer scales run only its last part.
        generators: one for all samples or one each, those of a picture next to each other.
        num_samples: n, of each picture.
        device: of the network.
        strength: below 1, only the finest scale runs, from the picture itself noised to this part of the grid.
        begin: told each level and its grid (None for the whole one) before it runs.
        step: `Method.sample`'s callback.

    Returns:
        Each level with the result of its last batch, for the costs.
    """
    size = None if denoiser.shape is None else (denoiser.shape[-2], denoiser.shape[-1])
    plans = [
        plan_levels(region, (canvas.hole.shape[0], canvas.hole.shape[1]), policy, size)
        for canvas, region in zip(canvases, regions, strict=True)
    ]
    results: list[tuple[Level, Result]] = []
    coarse: Tensor | None = None
    grid: list[float] | None = None
    rows = len(canvases) * num_samples
    if strength < 1:
        plans = [levels[-1:] for levels in plans]
        originals = [
            F.avg_pool2d(canvas.original(levels[0].box), levels[0].factor)
            for canvas, levels in zip(canvases, plans, strict=True)
        ]
        coarse = torch.stack(originals).repeat_interleave(num_samples, dim=0)
        times = make_grid(denoiser.schedule, num_inference_steps, method.grid(denoiser, num_inference_steps))
        grid = [time.t for time in times[-1 - max(1, int(num_inference_steps * strength)) :]]
    for number, level in enumerate(plans[0]):
        initial = coarse
        if number:
            assert coarse is not None
            grid = refinement_grid(denoiser, num_inference_steps, policy.refine_from, method)
            initial = _enlarge_each(coarse, [(levels[number - 1], levels[number]) for levels in plans])
        begin(level, grid)
        cells = level.box.height * level.box.width // level.factor**2
        together = rows
        if not isinstance(generators, torch.Generator):
            together = max(1, min(rows, policy.batch_pixels // cells))
        batches = []
        for first in range(0, rows, together):
            chosen = slice(first, min(first + together, rows))
            values, known = _crop_rows(canvases, [levels[number].box for levels in plans], chosen, num_samples)
            values, known = _pool(values, known, level.factor, most=size is None)
            result = method.sample(
                denoiser,
                Observation(values.to(device), known.to(device)),
                num_inference_steps=num_inference_steps,
                generator=generators if isinstance(generators, torch.Generator) else list(generators[chosen]),
                grid=grid,
                callback=step,
                initial=None if initial is None else initial[chosen].to(device),
            )
            batches.append(result.x.cpu().float())
        coarse = torch.cat(batches)
        results.append((level, result))
        if result.stopped:
            break
    assert coarse is not None
    last = len(results) - 1
    coarse = _enlarge_each(coarse, [(levels[last], Level(1, levels[-1].box)) for levels in plans])
    for canvas, region, levels, values in zip(canvases, regions, plans, coarse.split(num_samples), strict=True):
        box = levels[-1].box
        here, there = _overlap(box, Box(0, 0, *canvas.hole.shape))
        part = torch.zeros(box.height, box.width, dtype=torch.bool)
        part[here] = torch.from_numpy(np.ascontiguousarray(region.target[there]))
        canvas.painted.append((box, part, values))
    return results


def _crop_rows(
    canvases: Sequence[Canvas], boxes: Sequence[Box], rows: slice, num_samples: int
) -> tuple[Tensor, Tensor]:
    """`Canvas.crop` of a range of rows, of which every canvas has `num_samples`, next to each other."""
    parts = []
    for number, (canvas, box) in enumerate(zip(canvases, boxes, strict=True)):
        first, stop = (min(max(row - number * num_samples, 0), num_samples) for row in (rows.start, rows.stop))
        if first < stop:
            parts.append(canvas.crop(box, slice(first, stop)))
    values, known = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(known)


def _pool(values: Tensor, known: Tensor, factor: int, *, most: bool) -> tuple[Tensor, Tensor]:
    """Cells as means of their known pixels, known where most (else all) of their pixels are."""
    if factor == 1:
        return values, known
    share = F.avg_pool2d(known.float(), factor)
    means = F.avg_pool2d(values, factor) / share.clamp(min=1e-6)
    enough = share > (0.5 if most else 1 - 0.5 / factor**2)
    return torch.where(enough, means, 0.0), enough


def _enlarge_each(coarse: Tensor, levels: Sequence[tuple[Level, Level]]) -> Tensor:
    """`_enlarge` of the rows of each picture, which lie at places of their own in their coarser crops."""
    parts = coarse.split(len(coarse) // len(levels))
    return torch.cat([_enlarge(part, above, level) for part, (above, level) in zip(parts, levels, strict=True)])


def _enlarge(coarse: Tensor, above: Level, level: Level) -> Tensor:
    """A coarse result at a finer scale: bicubic, cut to the finer level's crop."""
    ratio = above.factor // level.factor
    if ratio == 1:
        return coarse
    fine = F.interpolate(coarse, scale_factor=ratio, mode="bicubic").clamp(-1, 1)
    top, left = (level.box.top - above.box.top) // level.factor, (level.box.left - above.box.left) // level.factor
    return fine[..., top : top + level.box.height // level.factor, left : left + level.box.width // level.factor]
