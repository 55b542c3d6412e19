"""Sheets: pictures read and laid out, put into batches of equal sizes, painted region by region, and finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from paintback.images import extend_picture, grow, masks
from paintback.images.masks import Mask
from paintback.images.picture import Picture
from paintback.images.regions import Region
from paintback.methods.base import Result
from paintback.models.base import Kinds, Model, Told
from paintback.models.latent import LatentModel, fill_hole
from paintback.models.trained import TrainedModel
from paintback.painting.canvas import Canvas, Colours, colours
from paintback.painting.latent import Latents, Trained
from paintback.painting.layout import Plan, Recipe, Sizes, Stage, Step
from paintback.painting.pyramid import Pyramid
from paintback.painting.request import Request
from paintback.painting.session import Session, draw_generators
from paintback.stopping import Stopped

__all__ = ["Batch", "Scale", "Sheet", "Way", "Ways", "batches", "prepare"]


class Way(Protocol):
    """A way of painting: which regions and stages there are, with which grids, and how they are painted."""

    @property
    def recipe(self) -> Recipe:
        """How."""

    @property
    def shares(self) -> bool:
        """Whether pictures whose crops have frames of equal sizes share a batch."""

    def regions(self, wide: Mask) -> list[Region]:
        """The crops of a hole, (H, W) bool."""

    def stages(self, number: int, region: Region) -> list[Stage]:
        """What is run for a region, without its grids."""

    def timed(self, stages: Sequence[Stage], told: Told) -> list[Stage]:
        """The stages of a region with their grids."""

    def paint(
        self,
        canvases: Sequence[Canvas],
        plans: Sequence[Sequence[Stage]],
        told: Told,
        generators: Sequence[torch.Generator] | torch.Generator,
        count: int,
        step: Step,
    ) -> list[tuple[Stage, Result]]:
        """Paints one region of each picture into its canvas."""


@dataclass
class Ways(Kinds[Way]):
    """The way of painting of each kind of model, for a recipe."""

    recipe: Recipe

    def pixels(self, model: Model) -> Way:
        return Pyramid(model, self.recipe)

    def latents(self, model: LatentModel) -> Way:
        return Latents(model, self.recipe)

    def trained(self, model: TrainedModel) -> Way:
        return Trained(model, self.recipe)


@dataclass(frozen=True)
class Scale:
    """What one scale of one region cost.

    Attributes:
        region: number of the region within its picture.
        factor: pixels of the picture per pixel that was painted, along a side.
        size: (width, height) that was painted.
        evaluations: per answer.
        vjps: per answer.
    """

    region: int
    factor: int | float
    size: tuple[int, int]
    evaluations: int | float
    vjps: int | float


@dataclass
class Sheet:
    """One picture to be painted.

    Attributes:
        picture: as given.
        hole: (H, W) bool, what the user hid.
        told: of its content.
        weight: (H, W) of the blended seam, or None.
    """

    picture: Picture
    hole: Mask
    told: Told
    weight: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, picture: Picture, hole: Mask, told: Told, blur: float) -> Sheet:
        """The sheet of a picture whose hole is grown by `blur` pixels, over which old and new are blended.

        Raises:
            ValueError: for a mask that is full once it is blurred.
        """
        sheet = cls(picture, hole, told, masks.blur(hole, blur) if blur else None)
        masks.check_mask(sheet.wide, f"blur={blur:g}" if blur else "")
        return sheet

    @property
    def wide(self) -> Mask:
        """(H, W) bool: what is painted, the seam included."""
        return self.hole if self.weight is None else np.asarray(self.weight > 0)

    def canvas(self, model: Model) -> Canvas:
        """The picture in the model's colours.

        What lies under alpha 0 is as unknown to the model as the hole. In its place what is seen and kept goes on
        smoothly: were it to be painted too, the model would think of things out there whose edges lie in the hole.
        """
        hidden, unseen = torch.from_numpy(self.wide), self.picture.invisible
        if unseen is None:
            return Canvas(Colours(model, self.picture), hidden)
        nobodys = torch.from_numpy(unseen)
        kept = ~(hidden | nobodys)
        if not kept.any():  # nothing to go on
            return Canvas(Colours(model, self.picture), hidden | nobodys)
        values = colours(model, self.picture)
        return Canvas(torch.where(nobodys, fill_hole(values[None], kept[None, None])[0], values), hidden)

    def finish(self, model: Model, canvas: Canvas, rows: range) -> list[Picture]:
        """The samples in some rows of the canvas, as pictures of the given one's kind."""
        wide = self.wide
        given = replace(self.picture, pixels=self.picture.pixels[wide][None], alpha=None).to_unit()[0]
        finished = []
        for k in rows:
            new = np.zeros((*wide.shape, given.shape[1]), np.float32)  # its memory is taken where it is written to
            new[wide] = given
            for box, part, values in canvas.painted:
                down, across = torch.nonzero(part, as_tuple=True)
                made = model.to_picture(values[k : k + 1])[0].permute(1, 2, 0)[down, across]
                new[down.numpy() + box.top, across.numpy() + box.left] = made.numpy()
            finished.append(self.picture.with_pixels(new, self.hole, self.weight))
        return finished

    def sizes(self, stages: Sequence[Sequence[Stage]], way: Way) -> Sizes:
        """By which pictures are put into one batch; empty for those that are painted one at a time."""
        framed = any(stage.frame is not None for region in stages for stage in region)
        if framed and not (way.shares and all(len(region) == 1 and region[0].role == "whole" for region in stages)):
            return ()
        return tuple(tuple((*stage.size, int(stage.factor), stage.thin) for stage in region) for region in stages)


@dataclass
class Batch:
    """Pictures of equal sizes that are painted together, told the same.

    Attributes:
        numbers: of the pictures in their list.
        sheets: the pictures.
        stages: by picture and region.
        plan: of all of them.
    """

    numbers: list[int]
    sheets: list[Sheet]
    stages: list[list[list[Stage]]]
    plan: Plan

    def paint(
        self,
        model: Model,
        way: Way,
        generators: torch.Generator | Sequence[torch.Generator],
        count: int,
        session: Session,
        scales: list[Scale],
    ) -> list[list[Picture]]:
        """Paints the pictures.

        Args:
            model: that paints.
            way: its way of painting.
            generators: one for all, or one for each answer, those of a picture next to each other.
            count: answers of each picture.
            session: counts costs, and is told of every step.
            scales: added to.

        Returns:
            The answers of each picture.

        Raises:
            Stopped: if it is stopped before anything was predicted.
        """
        draws, mean = way.recipe.draws, way.recipe.mean
        drawn = draw_generators(generators, len(self.sheets) * count, draws)
        canvases = [sheet.canvas(model) for sheet in self.sheets]
        told = self.sheets[0].told
        for number in range(len(self.stages[0])):
            begun = [len(canvas.painted) for canvas in canvases]
            plans = [stages[number] for stages in self.stages]
            if session.stopped:  # regions that were not begun stay as they were given
                break
            try:
                done = way.paint(canvases, plans, told, drawn, count * draws, session.step)
            except Stopped:
                if not session.evaluations:
                    raise
                session.stopped = True
                break
            for stage, result in done:
                session.count(result, draws * len(self.sheets))
                cost = Scale(number, stage.factor, stage.size[::-1], draws * result.evaluations, draws * result.vjps)
                scales += [cost] * len(self.sheets)
            if draws > 1:
                for canvas, first, stages in zip(canvases, begun, plans, strict=True):
                    canvas.settle(draws, mean or all(stage.thin for stage in stages), first)
        rows = range(0, count * draws, draws)
        return [sheet.finish(model, canvas, rows) for sheet, canvas in zip(self.sheets, canvases, strict=True)]


def batches(model: Model, way: Way, sheets: Sequence[Sheet], *, count: int, most: int, each: bool) -> list[Batch]:
    """Lays pictures out and puts those of equal sizes together.

    Args:
        model: that paints.
        way: its way of painting.
        sheets: the pictures.
        count: answers of each.
        most: pictures that are painted in one batch.
        each: whether every answer has a generator of its own; else no two pictures share a batch.

    Raises:
        ValueError: for a prompt that the model does not take.
    """
    groups: list[list[int]] = []
    waiting: dict[Any, list[int]] = {}
    laid_out = []
    for number, sheet in enumerate(sheets):
        stages = [way.stages(k, region) for k, region in enumerate(way.regions(sheet.wide))]
        laid_out.append(stages)
        sizes = sheet.sizes(stages, way) if most > 1 and each else ()
        key = (sizes, repr(sheet.told)) if sizes else number
        if key not in waiting:
            waiting[key] = []
            groups.append(waiting[key])
        waiting[key].append(number)
        if len(waiting[key]) == most:
            del waiting[key]
    made = []
    for group in groups:
        timed = [[way.timed(region, sheets[number].told) for region in laid_out[number]] for number in group]
        plan = Plan(
            stages=tuple(stage for region in timed[0] for stage in region),
            sizes=sheets[group[0]].sizes(timed[0], way),
            draws=way.recipe.draws,
            rows=len(group) * count * way.recipe.draws,
            each=each or way.recipe.draws > 1,
        )
        made.append(Batch(group, [sheets[number] for number in group], timed, plan))
    return made


def prepare(picture: Picture, mask: Any, request: Request) -> tuple[Picture, Mask]:
    """The picture and its hole, both extended as the request says, and the hole grown.

    Args:
        picture: as read.
        mask: whatever `read_mask` takes, "alpha" for the picture's transparency, or None where only `outpaint` says
            what is missing.
        request: with `mask_is`, `outpaint` and `grow`.

    Raises:
        ValueError: for a mask that does not fit or leaves nothing to do.
    """
    if mask is None and not any(request.outpaint):
        raise ValueError("There is no mask, and nothing to paint: give mask_image, or outpaint to widen the picture.")
    if mask is None:
        hole = np.zeros(picture.shape, bool)
    else:
        hole = masks.read_mask(mask, mask_is=request.mask_is, picture=picture)
    if any(request.outpaint):
        left, top, _, _ = request.outpaint
        height, width = picture.shape
        picture, wide = extend_picture(picture, *request.outpaint)
        wide[top : top + height, left : left + width] |= hole
        hole = wide
    masks.check_mask(hole, f"mask_is={request.mask_is}" if request.mask_is not in (None, "auto") else "")
    if request.grow:
        hole = grow(hole, request.grow)
        masks.check_mask(hole, f"grow={request.grow:g}")
    return picture, hole
