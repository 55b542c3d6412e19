"""How a hole of any size is painted by a model that learnt from small pictures.

A model trained on 64-pixel pictures knows what fits in a few dozen pixels. So a wide hole is first painted at the
scale where it is a few dozen pixels wide, from pure noise or a smooth fill; the result is enlarged by 2, noised to a
moderate level, and painted again one scale finer, with the known pixels of that scale as the observation, until full
resolution. This is a policy around the sampler and not a method of its own: every method runs under it unchanged.

Each scale sees its own crop around the hole, the same number of cells wide, so the coarse ones see far around.
Cells are means of pixels (area averaging, as in training); below full resolution a cell counts as known where most of
its pixels are, and at full resolution only known pixels are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.images.masks import Mask
from paintback.images.regions import Box, Region, hole_regions, thickness
from paintback.methods.base import Method, Result
from paintback.models.base import Model, Told
from paintback.models.latent import fill_hole
from paintback.models.own_picture import with_own_patches
from paintback.models.tiles import HoleTiles, cover
from paintback.observation import Observation
from paintback.painting.canvas import Canvas
from paintback.painting.cuts import place
from paintback.painting.latent import Latents
from paintback.painting.layout import (
    THIN,
    Policy,
    Recipe,
    Stage,
    Step,
    quick_grid,
    refinement_grid,
    tail,
    thin_grid,
    whole_grid,
)
from paintback.stopping import kept

LARGE = 256  # side of the pictures of one size from which on a model of them paints large holes in crops

__all__ = ["Level", "Pyramid", "plan_levels"]


@dataclass(frozen=True)
class Level:
    """One scale of one region.

    Attributes:
        factor: pixels per cell along a side.
        box: the crop in pixels; it may reach beyond the picture.
    """

    factor: int
    box: Box


@dataclass
class Pyramid:
    """The way of painting of models of pixels.

    Attributes:
        model: that paints.
        recipe: how.
    """

    model: Model
    recipe: Recipe

    @property
    def shares(self) -> bool:
        """Whether crops that have frames share a batch with those of other pictures."""
        return False

    def regions(self, wide: Mask) -> list[Region]:
        """The crops of a hole, (H, W) bool; its thin parts have their own where they have a method of their own."""
        return hole_regions(
            wide,
            context=self.policy.context,
            minimum=self.model.training_size,
            multiple=self.policy.multiple,
            narrow=0 if self.recipe.thin is None else THIN,
        )

    @property
    def policy(self) -> Policy:
        """The recipe's, with the context that was asked for."""
        return self.recipe.policy

    def stages(self, number: int, region: Region) -> list[Stage]:
        """The scales of a region, coarse to fine; the finest alone where sampling starts from the picture."""
        shape = (region.owners.shape[0], region.owners.shape[1])
        levels = plan_levels(region, shape, self.policy, self.model.size)
        if self.model.size is not None and min(self.model.size) >= LARGE and levels[0].factor > 1:
            return self._whole.cut(number, region, levels[0].box)
        stages = []
        for level in levels[-1:] if self.recipe.strength < 1 else levels:
            size = (level.box.height // level.factor, level.box.width // level.factor)
            together = self.policy.batch_pixels // (size[0] * size[1])
            stages.append(Stage(number, region, level.box, size, level.factor, together))
        last = stages[-1]
        if last.factor == 1 and last.thin and self.model.size is None and self.model.network is not None:
            stages[-1] = replace(last, tiles=cover(last.part, self._sides(), self.policy.margin))
        return stages

    @property
    def _whole(self) -> Latents:
        """How large models of one size paint a hole that they cannot show at once at the picture's resolution."""
        return Latents(self.model, self.recipe)

    def _sides(self) -> list[int]:
        """Of tiles around thin holes: half of what the model learnt from, three quarters, and all."""
        multiple = self.policy.multiple
        return [self.model.training_size * quarters // 4 // multiple * multiple for quarters in (2, 3, 4)]

    def method(self, stage: Stage) -> Method:
        """What samples a stage: thin holes may have a method of their own."""
        method = self.recipe.thin if self.recipe.thin is not None and stage.thin else self.recipe.method
        assert method is not None
        return method

    def near(self, stage: Stage) -> bool:
        """Whether a smooth fill is near enough for a start at a low noise level: where a hole is thin."""
        return self.recipe.thin is not None and stage.thin

    def filled(self, stage: Stage) -> bool:
        """Whether a stage starts from a smooth fill."""
        start = self.policy.fast_from if self.recipe.quick else self.policy.wide_from
        return (
            ((self.recipe.filled and start > 0) or self.near(stage))
            and self.recipe.strength == 1
            and self.recipe.times is None
        )

    def denoiser(self, stage: Stage, told: Told) -> Denoiser:
        """The model's, under a prompt; with the picture's own patches where a wide hole starts from a smooth fill."""
        network = self.model.denoiser_at(stage.size, told)
        return with_own_patches(network, self.policy.own_below) if self._beside(stage) else network

    def _beside(self, stage: Stage) -> bool:
        recipe, below = self.recipe, self.policy.own_below
        return recipe.filled and not recipe.quick and below > 0 and not self.near(stage) and stage.tiles is None

    def timed(self, stages: Sequence[Stage], told: Told) -> list[Stage]:
        """The stages of a region with their grids: the first one whole, finer scales the last part of it."""
        if stages[0].frame is not None:
            return self._whole.timed(stages, told)
        method, recipe = self.method(stages[0]), self.recipe
        denoiser = self.denoiser(stages[0], told)
        whole = whole_grid(denoiser, method, recipe.steps, recipe.times)
        if recipe.strength < 1:
            steps = tail(len(whole) - 1, recipe.strength)
            return [stages[0].timed(whole[-1 - steps :], steps, method)]
        fine = refinement_grid(denoiser, recipe.steps, self.policy.refine_from, method, recipe.times)
        first, repeats = None if recipe.times is None else whole, 1
        if self.filled(stages[0]):
            if self.near(stages[0]):
                whole = thin_grid(denoiser, recipe.steps, self.policy.thin_from)
                repeats = recipe.thin_draws if len(stages) == 1 else 1
            elif recipe.quick:
                whole = quick_grid(denoiser, recipe.steps, self.policy.fast_from, method)
            else:
                whole = refinement_grid(denoiser, recipe.steps, self.policy.wide_from, method)
            first = whole
        grids = [whole, *([fine] * (len(stages) - 1))]
        timed = [
            stages[0].timed(first, len(whole) - 1, method, repeats),
            *(stage.timed(fine, len(fine) - 1, method) for stage in stages[1:]),
        ]
        return [self._asking(stage, grid, denoiser) for stage, grid in zip(timed, grids, strict=True)]

    def _asking(self, stage: Stage, grid: Sequence[float], denoiser: Denoiser) -> Stage:
        """A timed stage, told how often its cells ask the picture's own patches."""
        if not self._beside(stage):
            return stage
        low = [0 < denoiser.schedule.at(t).ratio < self.policy.own_below for t in grid[:-1]]
        return replace(stage, asked=stage.evaluations * sum(low) // len(low) * int(stage.hidden().sum()))

    def paint(
        self,
        canvases: Sequence[Canvas],
        plans: Sequence[Sequence[Stage]],
        told: Told,
        generators: Sequence[torch.Generator] | torch.Generator,
        count: int,
        step: Step,
    ) -> list[tuple[Stage, Result]]:
        """Paints one region of each picture into its canvas, coarse to fine, all of them in one batch.

        Args:
            canvases: of the pictures, read around the regions and added to.
            plans: the timed stages of each one's region, of the same sizes.
            told: of all pictures.
            generators: one for all samples or one each, those of a picture next to each other.
            count: samples of each picture.
            step: told of every step; returning True stops.

        Returns:
            The stages that ran, each with the result of its last batch.
        """
        if plans[0][0].frame is not None:
            return self._whole.paint(canvases, plans, told, generators, count, step)
        method, rows, each = (
            self.method(plans[0][0]),
            len(canvases) * count,
            not isinstance(generators, torch.Generator),
        )
        coarse = self._originals(canvases, plans, count) if self.recipe.strength < 1 else None
        done: list[tuple[Stage, Result]] = []
        for number, stage in enumerate(plans[0]):
            initial = coarse
            if number:
                assert coarse is not None
                initial = _enlarge_each(
                    coarse, [(_level(stages[number - 1]), _level(stages[number])) for stages in plans]
                )
            here = [stages[number] for stages in plans]
            denoiser = self.denoiser(stage, told)
            batches: list[Tensor] = []
            with kept(batches):
                for chosen in stage.rows(rows, each):
                    cells = _crop_rows(canvases, [one.box for one in here], chosen, count)
                    cells = _pool(*cells, int(stage.factor), most=self.model.size is None)
                    values, seen, beyond = (part.to(self.model.device) for part in cells)
                    values, known = _continued(values, seen, beyond)
                    start = None if initial is None else initial[chosen].to(self.model.device)
                    if start is not None:
                        start = torch.where(known & beyond, values, start)
                    elif self.filled(stage):
                        start = fill_hole(values, known)
                    shown = _shown(denoiser, canvases, here, chosen, count, values, seen)
                    results: list[Result] = []
                    while len(results) < stage.repeats and not (results and results[-1].stopped):
                        one = method.sample(
                            shown,
                            Observation(values, known),
                            num_inference_steps=self.recipe.steps,
                            generator=generators
                            if isinstance(generators, torch.Generator)
                            else list(generators[chosen]),
                            grid=stage.grid,
                            callback=step,
                            initial=start,
                        )
                        results.append(one)
                    made = _mean(results)
                    if batches and not made.evaluations:  # stopped before it saw anything
                        break
                    result = made
                    batches.append(result.x.cpu().float())
                    if result.stopped:
                        break
            coarse = torch.cat(batches)
            if len(coarse) < rows:  # it was stopped
                result = replace(result, stopped=True)
                # rows that were not come to: as the coarser scale has them, or else as their picture's last one
                rest = coarse[-1:].expand(-len(coarse) % count, -1, -1, -1)
                coarse = torch.cat((coarse, initial[len(coarse) :] if number and initial is not None else rest))
            done.append((stage, result))
            if result.stopped:
                break
        assert coarse is not None
        begun = plans[: len(coarse) // count]  # other pictures stay as they were given
        last = len(done) - 1
        coarse = _enlarge_each(coarse, [(_level(stages[last]), Level(1, stages[-1].box)) for stages in begun])
        for canvas, stages, values in zip(canvases, begun, coarse.split(count), strict=False):
            canvas.painted.append((stages[-1].box, torch.from_numpy(stages[-1].part), values))
        return done

    def _originals(self, canvases: Sequence[Canvas], plans: Sequence[Sequence[Stage]], count: int) -> Tensor:
        """The pictures themselves, what they hide included, as cells; one row for each sample."""
        cells = [
            F.avg_pool2d(canvas.original(stages[0].box), int(stages[0].factor))
            for canvas, stages in zip(canvases, plans, strict=True)
        ]
        return torch.stack(cells).repeat_interleave(count, dim=0)


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
    local, (top, left) = region.local_target, (region.box.top, region.box.left)
    rows, columns = np.flatnonzero(local.any(1)), np.flatnonzero(local.any(0))
    hole = Box(top + int(rows[0]), left + int(columns[0]), top + int(rows[-1]) + 1, left + int(columns[-1]) + 1)
    if size is not None:
        factor = 1
        while any(
            extent > side * factor * 3 // 4 and whole > side * factor
            for extent, side, whole in zip((hole.height, hole.width), size, shape, strict=True)
        ):
            factor += 1
        top = place(hole.top, hole.bottom, size[0] * factor, shape[0])
        left = place(hole.left, hole.right, size[1] * factor, shape[1])
        return [Level(factor, Box(top, left, top + size[0] * factor, left + size[1] * factor))]
    # the border of the picture is no known pixel, so only the hole's own crop with one pixel around it is measured
    around = Box(
        max(0, hole.top - 1), max(0, hole.left - 1), min(shape[0], hole.bottom + 1), min(shape[1], hole.right + 1)
    )
    width = thickness(np.asarray(region.owners[around.slices] == region.index))
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


def _level(stage: Stage) -> Level:
    return Level(int(stage.factor), stage.box)


def _crop_rows(
    canvases: Sequence[Canvas], boxes: Sequence[Box], rows: slice, num_samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`Canvas.crop` and `beyond` of a range of rows, of which every canvas has `num_samples`, next to each other."""
    parts = []
    for number, (canvas, box) in enumerate(zip(canvases, boxes, strict=True)):
        first, stop = (min(max(row - number * num_samples, 0), num_samples) for row in (rows.start, rows.stop))
        if first < stop:
            shown, seen = canvas.crop(box, slice(first, stop))
            parts.append((shown, seen, canvas.beyond(box).expand_as(seen)))
    values, known, beyond = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(known), torch.cat(beyond)


def _pool(values: Tensor, known: Tensor, beyond: Tensor, factor: int, *, most: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Cells as means of their known pixels, known where most (else all) of their pixels within the picture are."""
    if factor == 1:
        return values, known, beyond
    share, within = F.avg_pool2d(known.float(), factor), F.avg_pool2d((~beyond).float(), factor)
    means = F.avg_pool2d(values, factor) / share.clamp(min=1e-6)
    enough = share > (within * 0.5 if most else within - 0.5 / factor**2)
    enough = enough & (share > 0)
    return torch.where(enough, means, 0.0), enough, within == 0


def _continued(values: Tensor, known: Tensor, beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Beyond the border of the picture what is known of it goes on smoothly, and counts as known.

    Were it to be painted too, the model would think of things out there that reach into a hole at the border.
    """
    beyond = beyond & known.flatten(1).any(1)[:, None, None, None]
    if not bool(beyond.any()):
        return values, known
    return torch.where(beyond, fill_hole(values, known), values), known | beyond


def _mean(results: Sequence[Result]) -> Result:
    """The mean of some runs, with what all of them cost."""
    last = results[-1]
    if len(results) == 1:
        return last
    return replace(
        last,
        x=torch.stack([one.x.clamp(-1, 1) for one in results]).mean(0),
        evaluations=sum(one.evaluations for one in results),
        vjps=sum(one.vjps for one in results),
        network_rows=sum(one.network_rows for one in results),
        residual=torch.stack([one.residual for one in results]).amax(0),
    )


def _shown(
    denoiser: Denoiser,
    canvases: Sequence[Canvas],
    stages: Sequence[Stage],
    rows: slice,
    count: int,
    values: Tensor,
    known: Tensor,
) -> Denoiser:
    """The denoiser of a range of rows, told where they lie and what is known of them, in tiles where that is less."""
    owners = [row // count for row in range(rows.start, rows.stop)]
    boxes, shapes = [stages[owner].box for owner in owners], [canvases[owner].whole.shape for owner in owners]
    tiles = [stages[owner].tiles for owner in owners]
    if (few := [one for one in tiles if one is not None]) and len(few) == len(tiles):
        return HoleTiles(denoiser, few, values, boxes, shapes)
    places = [(box.top, box.left, box.bottom, box.right) for box in boxes]
    return denoiser.placed(places, shapes, int(stages[0].factor)).given(values, known)


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
