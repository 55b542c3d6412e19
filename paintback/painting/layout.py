"""The one plan: which crops are painted at which scales, in how many steps, and what that costs.

It is made once for every picture, before anything is painted. The painter follows it, the progress bar counts by it,
the page shows its crops, a batch groups pictures by its sizes, and `--dry-run` prints it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.images.masks import Mask
from paintback.images.regions import Box, Region, thickness
from paintback.methods.base import Method
from paintback.models.base import Model
from paintback.models.latent import LatentPolicy
from paintback.models.own_picture import own_patches
from paintback.models.tiles import TOGETHER, Tiles
from paintback.painting.canvas import overlap
from paintback.painting.frames import Frame
from paintback.schedules import Grid, make_grid

__all__ = [
    "THIN",
    "Plan",
    "Policy",
    "Recipe",
    "Role",
    "Sizes",
    "Speed",
    "Stage",
    "Step",
    "measure_speed",
    "quick_grid",
    "refinement_grid",
    "tail",
    "thin_grid",
    "whole_grid",
]

LARGEST = 2**19  # pixels of a batch that is timed
LAST = 0.18  # noise level at which a thin hole is done, times the number of levels
THIN = 12  # pixels: the diameter of the largest disk in a hole whose draws are averaged by quality "best"
BACKWARD = 2.0  # evaluations that a gradient takes, in time

Step = Callable[[int, float, torch.Tensor, "torch.Tensor | None"], "bool | torch.Tensor | None"]
"""(step, t, x, x0) after every step, x0 None where it is not known; returning True stops."""

Role = Literal["whole", "along", "draft", "detail"]
"""What a stage is of its region: all of it at one scale, a crop along it, or its first and second pass (`cuts`)."""

Sizes = tuple[tuple[tuple[int, int, int, bool], ...], ...]
"""By region and scale: rows and columns of the crop as the model sees it, pixels per cell along a side, whether the
hole is thin."""


@dataclass(frozen=True)
class Policy:
    """How holes are cut into crops and scales.

    Attributes:
        widest: a hole wider than this many cells (the diameter of the largest disk in it) goes to a coarser scale.
        context: cells around the hole that every scale sees.
        refine_from: noise level (sigma / alpha) from which a finer scale starts.
        multiple: sides of the crops are multiples of this.
        margin: cells around a thin hole that the network sees of it; see `tiles.HoleTiles`.
        thin_from: noise level from which a thin hole starts that has a method of its own, filled smoothly before.
        fast_from: noise level from which quality "fast" starts, the hole filled smoothly before: its few steps are too
            few for what lies above as well, and flat areas then came out spotted.
        wide_from: noise level from which the other qualities start wide holes, likewise filled, at the same place of
            the whole grid, whose earlier steps are left out; 0 for pure noise.
        own_below: noise level below which what they paint there is half the network's and half that of the picture's
            own patches; see `models.own_picture`. 0 for the network alone.
        batch_pixels: samples are split so that a batch holds at most this many cells.
        detail_from: noise level (sigma / alpha) from which the second pass over a wide hole starts, for models that
            compose a crop at once.
    """

    widest: int = 64
    context: int = 32
    refine_from: float = 2.0
    multiple: int = 8
    margin: int = 12
    thin_from: float = 0.5
    fast_from: float = 1.0
    wide_from: float = 2.0
    own_below: float = 1.0
    batch_pixels: int = 2**21
    detail_from: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What a request says of how to paint, once it is resolved.

    Attributes:
        method: that samples; None for a model that takes the mask itself.
        thin: that samples thin holes of models of pixels; None for `method`.
        times: that are asked for; None for the method's own grid.
        match: whether the colours of what a codec gave back are brought to those around the hole.
        steps: intervals of a whole grid.
        policy: how holes are cut into crops and scales.
        strength: below 1, sampling starts from the picture itself, noised to this part of the grid.
        context: pixels around the hole, in place of the policy's.
        size: (height, width) that a latent model paints at; None leaves a side open.
        latent_mask: which latent cells count as known.
        leaky_encoding: encode the picture with what it hides.
        draws: for each answer.
        thin_draws: in thin holes that have a method of their own, of whose mean each draw is made.
        mean: whether the answer is the draws' mean in every hole, rather than in thin ones alone.
        filled: whether sampling starts from a smooth fill, as `quality.starts_filled` says.
        quick: whether it starts at the policy's `fast_from` then, with all steps below, and not at its `wide_from`.
    """

    method: Method | None
    steps: int
    policy: Policy
    strength: float = 1.0
    context: int | None = None
    size: tuple[int | None, int | None] = (None, None)
    latent_mask: LatentPolicy = "all"
    leaky_encoding: bool = False
    draws: int = 1
    mean: bool = True
    thin: Method | None = None
    match: bool = True
    thin_draws: int = 1
    filled: bool = False
    quick: bool = False
    times: Callable[[Denoiser, int], Grid] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Stage:
    """One run of the sampler: one scale of one region.

    Attributes:
        number: of the region.
        region: what is to be painted.
        box: the crop in pixels of the picture, beyond which it may reach.
        size: (rows, columns) that the model sees of it.
        factor: pixels of the picture per pixel that the model sees, along a side.
        together: rows that fit into one batch, where rows have generators of their own.
        frame: how the crop comes to that size, for models that compose a crop at once; None where cells are means.
        role: what it is of the region.
        tiles: what alone the network sees of the crop, around a thin hole; None for all of it.
        grid: the times; None for the method's own whole grid.
        steps: that run, for one batch.
        kept: of the whole grid's intervals, the last ones that are run.
        evaluations: of one draw, as the method documents them, all repeats.
        vjps: likewise.
        repeats: how often the sampler is run; the draw is the mean of what comes.
        asked: cells of one row for which the picture's own patches are asked, all evaluations and repeats.
    """

    number: int
    region: Region = field(repr=False)
    box: Box
    size: tuple[int, int]
    factor: int | float
    together: int
    frame: Frame | None = None
    role: Role = "whole"
    tiles: Tiles | None = field(default=None, repr=False)
    grid: tuple[float, ...] | None = field(default=None, repr=False)
    steps: int = 0
    kept: int = 0
    evaluations: int = 0
    vjps: int = 0
    repeats: int = 1
    asked: int = 0

    @property
    def cells(self) -> int:
        """Pixels that the network sees of one row."""
        return self.size[0] * self.size[1] if self.tiles is None else self.tiles.cells

    @property
    def part(self) -> Mask:
        """Bool of the crop's shape: what of it is painted."""
        part = np.zeros(self.box.shape, bool)
        here, there = overlap(self.box, Box(0, 0, *self.region.owners.shape))
        part[here] = self.region.owners[there] == self.region.index
        return part

    def hidden(self) -> Tensor:
        """Bool of `size`: the cells of which a part is painted."""
        return F.adaptive_max_pool2d(torch.from_numpy(self.part)[None].float(), self.size)[0] > 0

    @property
    def thin(self) -> bool:
        """Whether no disk wider than `THIN` fits into what is painted."""
        return (self.region.thickness if self.frame is None else thickness(self.part)) <= THIN

    def rows(self, count: int, each: bool) -> list[slice]:
        """The batches of a number of rows; all in one unless each row has a generator of its own."""
        most = max(1, min(count, self.together)) if each else count
        return [slice(first, min(first + most, count)) for first in range(0, count, most)]

    def timed(self, grid: Sequence[float] | None, steps: int, method: Method | None, repeats: int = 1) -> Stage:
        """This stage with its grid, and what its steps cost."""
        return replace(
            self,
            grid=None if grid is None else tuple(grid),
            steps=steps,
            kept=steps,
            evaluations=repeats * (steps if method is None else method.evaluations(steps)),
            vjps=0 if method is None else repeats * method.vjps(steps),
            repeats=repeats,
        )


@dataclass(frozen=True)
class Speed:
    """What one evaluation takes.

    Attributes:
        seconds: by itself.
        per_pixel: more for every pixel of every row that the network sees.
        per_asked: more for every cell of every row for which the picture's own patches are asked.
    """

    seconds: float
    per_pixel: float
    per_asked: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The plan of one picture, or of several of equal sizes that are painted in one batch.

    Attributes:
        stages: in the order in which they run.
        sizes: by which pictures are put into one batch; empty where pictures are painted one by one.
        draws: for each answer.
        rows: samples of all pictures, draws included.
        each: whether every row has a generator of its own.
    """

    stages: tuple[Stage, ...]
    sizes: Sizes = ()
    draws: int = 1
    rows: int = 1
    each: bool = True

    @property
    def steps(self) -> int:
        """That run, batch after batch."""
        return sum(stage.steps * stage.repeats * self.batches(stage) for stage in self.stages)

    @property
    def evaluations(self) -> int:
        """Of one answer, over all regions and scales, as the method documents them."""
        return self.draws * sum(stage.evaluations for stage in self.stages)

    @property
    def vjps(self) -> int:
        """Gradients, likewise."""
        return self.draws * sum(stage.vjps for stage in self.stages)

    @property
    def widest(self) -> float:
        """The diameter of the largest disk in a hole that is begun at a quarter of its size or less; 0 without one."""
        first = [stage for stage in self.stages if stage.frame is None and stage.factor >= 4]
        return max((stage.region.thickness for stage in first), default=0.0)

    def batches(self, stage: Stage) -> int:
        """In how many batches a stage runs."""
        return len(stage.rows(self.rows, self.each))

    def forwards(self, stage: Stage) -> int:
        """How often the network is called in one evaluation of all rows of a stage."""
        return sum(
            1 if stage.tiles is None else -(-(rows.stop - rows.start) * stage.tiles.cells // TOGETHER)
            for rows in stage.rows(self.rows, self.each)
        )

    def seconds(self, speed: Speed) -> float:
        """The time that it takes, reading, encoding and writing left out."""
        return sum(
            (stage.evaluations + BACKWARD * stage.vjps)
            * (self.forwards(stage) * speed.seconds + self.rows * stage.cells * speed.per_pixel)
            + self.rows * stage.asked * speed.per_asked
            for stage in self.stages
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values, for `--dry-run` and the page."""
        return {
            "steps": self.steps,
            "evaluations": self.evaluations,
            "vjps": self.vjps,
            "draws": self.draws,
            "regions": len({stage.number for stage in self.stages}),
            "stages": [
                {
                    "region": stage.number,
                    "role": stage.role,
                    "box": [stage.box.left, stage.box.top, stage.box.width, stage.box.height],
                    "size": [stage.size[1], stage.size[0]],
                    "factor": stage.factor,
                    "steps": stage.steps,
                    "batches": self.batches(stage),
                    "evaluations": stage.evaluations,
                    "vjps": stage.vjps,
                }
                for stage in self.stages
            ],
        }


def whole_grid(
    denoiser: Denoiser, method: Method, steps: int, times: Callable[[Denoiser, int], Grid] | None = None
) -> list[float]:
    """The times of a whole run of a method, or those that are asked for, falling, the last one 0."""
    grid = method.default_grid(denoiser, steps) if times is None else times(denoiser, steps)
    return [time.t for time in make_grid(denoiser.schedule, steps, grid)]


def tail(intervals: int, strength: float) -> int:
    """How many of a grid's intervals are run at a strength: that share of them, rounded down, and at least one."""
    return intervals if strength == 1 else max(1, int(intervals * strength))


def refinement_grid(
    denoiser: Denoiser,
    num_inference_steps: int,
    start: float,
    method: Method,
    times: Callable[[Denoiser, int], Grid] | None = None,
) -> list[float]:
    """The part of the method's or the model's grid below a noise level, starting exactly there.

    Args:
        denoiser: of the model.
        num_inference_steps: of the whole grid.
        start: sigma / alpha.
        method: whose grid it is.
        times: that are asked for, or None for the method's own.

    Returns:
        Times, falling, the last one 0.
    """
    whole = whole_grid(denoiser, method, num_inference_steps, times)
    first = float(denoiser.schedule.time_of_ratio(torch.tensor(start, dtype=torch.float64)))
    return [first, *(time for time in whole if time < first - 1e-9)]


def quick_grid(denoiser: Denoiser, num_inference_steps: int, start: float, method: Method) -> list[float]:
    """As many intervals as asked for, all of them below a noise level: the end of the method's or the model's grid.

    It is the end of a finer grid, so that none of the few is spent where a smooth fill says all that can be known. A
    grid that begins below that level anyway, or has no finer one, stays whole.

    Args:
        denoiser: of the model.
        num_inference_steps: intervals.
        start: sigma / alpha, from which a smooth fill is painted over.
        method: whose grid it is.

    Returns:
        Times, falling, the last one 0.
    """
    found = whole_grid(denoiser, method, num_inference_steps)
    for finer in range(num_inference_steps, 4 * num_inference_steps + 1):
        grid = refinement_grid(denoiser, finer, start, method)
        if len(grid) > num_inference_steps + 1:
            break
        if len(grid) == num_inference_steps + 1:
            found = grid
    return found


def thin_grid(denoiser: Denoiser, num_inference_steps: int, start: float) -> list[float]:
    """The grid of a thin hole: four levels and one for every five steps, their logarithms equally far apart.

    Chosen on validation photographs, where nine levels from 0.5 on were better than the 25 of a whole grid.

    Args:
        denoiser: of the model.
        num_inference_steps: of a whole grid; never fewer than are run.
        start: sigma / alpha, from which a smooth fill is painted over; the last level is 0.18 over their number.

    Returns:
        Times, falling, the last one 0.
    """
    count = min(num_inference_steps, 4 + num_inference_steps // 5)
    ratios = torch.logspace(math.log10(start), math.log10(min(start, LAST / count)), count, dtype=torch.float64)
    times = denoiser.schedule.time_of_ratio(ratios).unique(sorted=True)  # a model may know no level as low
    return [*times[times > 0].flip(0).tolist(), 0.0]


@torch.no_grad()
def measure_speed(model: Model, denoiser: Callable[[tuple[int, int]], Denoiser], plan: Plan) -> Speed:
    """Times evaluations of two sizes that a plan has, each after one to warm up.

    They are its smallest batch, and the largest of at most half a megapixel, by which larger ones are estimated.

    Args:
        model: that paints.
        denoiser: of the model, for a size.
        plan: whose stages are to be estimated.
    """
    sizes = {}
    for stage in plan.stages:
        batch = stage.rows(plan.rows, plan.each)[0]
        rows, size = batch.stop - batch.start, stage.size
        if stage.tiles is not None:
            size = (stage.tiles.side, stage.tiles.side)
            rows = min(rows * len(stage.tiles.corners), TOGETHER // stage.tiles.side**2)
        sizes[rows * size[0] * size[1]] = (rows, size, stage)
    taken = {}
    largest = max((pixels for pixels in sizes if pixels <= LARGEST), default=min(sizes))
    for pixels in {min(sizes), largest}:
        rows, size, stage = sizes[pixels]
        x = torch.zeros(rows, *model.state_shape(size), device=model.device)
        hole = F.adaptive_max_pool2d(torch.from_numpy(stage.part)[None, None].float(), x.shape[-2:]) > 0
        shown = denoiser(stage.size).given(x, ~hole.to(x.device).expand(rows, -1, -1, -1))
        seconds = []
        for _ in range(4):
            began = time.perf_counter()
            float(shown(x, 0.5).x0.flatten()[0])  # read back, so that a GPU has done it
            seconds.append(time.perf_counter() - began)
        taken[pixels] = statistics.median(seconds[1:])
    (low, least), (high, most) = min(taken.items()), max(taken.items())
    slope = most / high if high == low else max(0.0, (most - least) / (high - low))
    return Speed(max(0.0, least - slope * low), slope, _per_asked(model, plan))


def _per_asked(model: Model, plan: Plan) -> float:
    """Times the picture's own patches in the first stage of a plan that asks them; 0 where none does."""
    stage = next((stage for stage in plan.stages if stage.asked), None)
    if stage is None:
        return 0.0
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(1, *model.state_shape(stage.size), generator=noise).to(model.device)
    hole = stage.hidden()[None, None].to(x.device)
    own = own_patches().given(x, ~hole)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        float(own.at(x, 0.5).flatten()[0])
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]) / int(hole.sum())
