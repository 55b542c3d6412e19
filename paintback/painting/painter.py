"""How an `Inpainter` paints: pictures laid out in crops, crops painted by the model's way, results pasted back.

Small models of pixels go coarse to fine, latent models paint a crop in one pass, and models that take the mask run
through their own pipeline. Whatever the way, only the hole's pixels are taken from the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from paintback.coarse_to_fine import Canvas, Level, Policy, paint_regions, plan_levels
from paintback.images import masks
from paintback.images.picture import Picture
from paintback.images.regions import Region, hole_regions
from paintback.methods.base import Method, Result
from paintback.models.base import Model
from paintback.models.latent import LatentModel, LatentPolicy
from paintback.models.trained import TrainedModel
from paintback.stopping import Stopped
from paintback.whole_picture import Frame, paint_trained, paint_whole, whole_regions

__all__ = ["LatentOptions", "Painter", "Plan", "Scale", "Sheet", "Told", "lay_out", "plan_of"]

Plan = tuple[tuple[tuple[int, int, int], ...], ...]
"""By region and level: rows and columns of the crop as the model sees it, and pixels per cell along a side."""


@dataclass(frozen=True)
class Scale:
    """What one scale of one region cost.

    Attributes:
        region: number of the region within its picture.
        factor: pixels of the picture per pixel that was painted, along a side.
        size: (width, height) that was painted.
        evaluations: per sample.
        vjps: per sample.
    """

    region: int
    factor: int | float
    size: tuple[int, int]
    evaluations: int | float
    vjps: int | float


@dataclass(frozen=True)
class Told:
    """What is said of one picture's content."""

    prompt: str | None
    negative_prompt: str | None
    guidance_scale: float | None


@dataclass(frozen=True)
class LatentOptions:
    """What only latent models take.

    Attributes:
        size: (height, width) to paint at; None leaves a side open.
        policy: which latent cells count as known.
        leaky_encoding: encode the picture with what it hides.
        embeddings: in place of text, and further scales of guidance, by the pipeline's names.
    """

    size: tuple[int | None, int | None]
    policy: LatentPolicy
    leaky_encoding: bool
    embeddings: dict[str, Any]

    def check(self, model: Model) -> None:
        """Refuses what a model does not take.

        Raises:
            ValueError: naming it.
        """
        if isinstance(model, LatentModel):
            return
        if isinstance(model, TrainedModel):
            if self.leaky_encoding or self.policy != "all":
                raise ValueError(
                    f"The model {model.name!r} takes the mask itself and no leaky_encoding or latent_mask."
                )
            return
        given = [name for name, value in self.embeddings.items() if value is not None]
        given += [name for name, value in zip(("height", "width"), self.size, strict=True) if value is not None]
        given += ["leaky_encoding"] * self.leaky_encoding + ["latent_mask"] * (self.policy != "all")
        if given:
            raise ValueError(f"The model {model.name!r} paints pixels and takes no {', '.join(given)}; leave that out.")


@dataclass
class Sheet:
    """One picture laid out for painting.

    Attributes:
        picture: as given.
        hole: (H, W) bool, what the user hid.
        told: of its content.
        weight: (H, W) of the blended seam, or None.
        canvas: in the model's colours.
        regions: what is painted one after another.
        policy: the numbers.
    """

    picture: Picture
    hole: np.ndarray
    told: Told
    weight: np.ndarray | None
    canvas: Canvas
    regions: list[Region]
    policy: Policy


def lay_out(
    model: Model,
    policy: Policy,
    picture: Picture,
    hole: np.ndarray,
    told: Told,
    mask_blur: float,
    context: int | None,
) -> Sheet:
    """Lays a picture out.

    Args:
        model: that paints.
        policy: how holes are cut into crops and scales.
        picture: as given.
        hole: (H, W) bool, True = repaint.
        told: of its content.
        mask_blur: the hole is grown by this many pixels, over which old and new are blended.
        context: pixels around the hole, in place of the policy's.

    Raises:
        ValueError: for a coloured picture and a grey model, or a mask that is full once it is blurred.
    """
    if context is not None:
        policy = dataclasses.replace(policy, context=context)
    unit = torch.from_numpy(picture.to_unit()).permute(2, 0, 1)
    if model.channels == 1 and not bool((unit == unit[:1]).all()):
        raise ValueError(f"The model {model.name!r} paints grey pictures; turn the picture grey or use another model.")
    weight = masks.blur(hole, mask_blur) if mask_blur else None
    wide = hole if weight is None else weight > 0
    masks.check_mask(wide)
    canvas = Canvas(model.to_model(unit[None])[0], torch.from_numpy(wide))
    if isinstance(model, LatentModel | TrainedModel):
        regions = list(whole_regions(wide, model, context))
    else:
        regions = hole_regions(wide, context=policy.context, minimum=model.training_size, multiple=policy.multiple)
    return Sheet(picture, hole, told, weight, canvas, regions, policy)


def plan_of(model: Model, sheet: Sheet) -> Plan:
    """The sizes of all crops of a sheet; empty where the model's pictures are painted one by one."""
    if isinstance(model, LatentModel | TrainedModel):
        return ()
    height, width = sheet.hole.shape
    plans = [plan_levels(region, (height, width), sheet.policy, model.size) for region in sheet.regions]
    return tuple(
        tuple((level.box.height // level.factor, level.box.width // level.factor, level.factor) for level in levels)
        for levels in plans
    )


@dataclass
class Painter:
    """Paints pictures with one model, one method and one set of options, and keeps count.

    Attributes:
        model: that paints.
        policy: how holes are cut into crops and scales.
        method: that samples; None for a model that takes the mask itself.
        steps: grid intervals.
        strength: below 1, sampling starts from the picture itself.
        context: pixels around the hole that the user asks for, or None.
        options: of latent models.
        begin: told the scale's name and its number of steps, before it runs.
        step: told (step, t, x, x0) after every step; True stops.
        scales: what every scale cost.
        evaluations: per sample, over all pictures.
        vjps: likewise.
        stopped: whether a step was told to stop.
    """

    model: Model
    policy: Policy
    method: Method | None
    steps: int
    strength: float
    context: int | None
    options: LatentOptions
    begin: Callable[[str, int], None]
    step: Callable[[int, float, torch.Tensor, torch.Tensor | None], bool]
    scales: list[Scale] = field(default_factory=list)
    evaluations: int | float = 0
    vjps: int | float = 0
    stopped: bool = False

    def paint_all(
        self,
        given: list[tuple[Picture, np.ndarray, Told]],
        generators: torch.Generator | list[torch.Generator],
        count: int,
        mask_blur: float,
        batch_size: int,
    ) -> list[Picture]:
        """The samples of all pictures, those of a picture next to each other; equal plans share a batch."""
        finished: dict[int, list[Picture]] = {}
        waiting: dict[tuple[Plan, Told], list[tuple[int, Sheet]]] = {}

        def flush(group: list[tuple[int, Sheet]]) -> None:
            mine: Any = generators
            if not isinstance(generators, torch.Generator):
                mine = [one for k, _ in group for one in generators[k * count : (k + 1) * count]]
            painted = self.paint([sheet for _, sheet in group], mine, count)
            for (k, _), pictures in zip(group, painted, strict=True):
                finished[k] = pictures

        for k, (picture, hole, told) in enumerate(given):
            sheet = lay_out(self.model, self.policy, picture, hole, told, mask_blur, self.context)
            plan = () if batch_size == 1 else plan_of(self.model, sheet)
            if not plan or isinstance(generators, torch.Generator):
                flush([(k, sheet)])
                continue
            group = waiting.setdefault((plan, told), [])
            group.append((k, sheet))
            if len(group) == batch_size:
                flush(waiting.pop((plan, told)))
        for group in waiting.values():
            flush(group)
        return [picture for k in sorted(finished) for picture in finished[k]]

    def paint(self, sheets: list[Sheet], generators: Any, count: int) -> list[list[Picture]]:
        """The samples of each picture; pictures painted together have the same plan and are told the same."""
        first = sheets[0]
        try:
            self._paint_sheets(sheets, generators, count)
        except Stopped:  # regions that were not begun stay as they were given
            if not first.canvas.painted:
                raise
            self.stopped = True
        model, finished = self.model, []
        for sheet in sheets:
            unit = sheet.picture.to_unit()
            mine = []
            for k in range(count):
                new = unit.copy()
                for box, part, values in sheet.canvas.painted:
                    rows, columns = torch.nonzero(part, as_tuple=True)
                    colours = model.to_picture(values[k : k + 1])[0].permute(1, 2, 0)[rows, columns]
                    new[rows.numpy() + box.top, columns.numpy() + box.left] = colours.numpy()
                mine.append(sheet.picture.with_pixels(new, sheet.hole, sheet.weight))
            finished.append(mine)
        return finished

    def _paint_sheets(self, sheets: list[Sheet], generators: Any, count: int) -> None:
        model, (first, *more) = self.model, sheets
        if isinstance(model, LatentModel | TrainedModel):
            assert not more
            whole = self._paint_whole if isinstance(model, LatentModel) else self._paint_trained
            for number, region in enumerate(first.regions):
                whole(first.canvas, number, region, first.told, first.policy, generators, count)
            return
        told = first.told
        denoiser = model.denoiser(told.prompt, told.negative_prompt, told.guidance_scale)
        for number in range(len(first.regions)):
            self._paint_region(sheets, number, denoiser, generators, count)

    def _begin(self, scale: str, grid: list[float] | None) -> None:
        self.begin(scale, self.steps if grid is None else len(grid) - 1)

    def _count(
        self, number: int, factor: int | float, size: tuple[int, int], result: Result, pictures: int = 1
    ) -> None:
        self.scales += [Scale(number, factor, size, result.evaluations, result.vjps)] * pictures
        self.evaluations += result.evaluations * pictures
        self.vjps += result.vjps * pictures
        self.stopped |= result.stopped

    def _paint_whole(
        self, canvas: Canvas, number: int, region: Region, told: Told, policy: Policy, generators: Any, count: int
    ) -> None:
        model = self.model
        assert isinstance(model, LatentModel)
        assert self.method is not None

        def begin(frame: Frame, grid: list[float] | None) -> None:
            self._begin(f"{frame.size[1]} x {frame.size[0]}", grid)

        frame, result = paint_whole(
            canvas,
            region,
            model,
            lambda size: model.denoiser(
                told.prompt, told.negative_prompt, told.guidance_scale, size=size, **self.options.embeddings
            ),
            self.method,
            num_inference_steps=self.steps,
            generators=generators,
            num_samples=count,
            batch_pixels=policy.batch_pixels,
            size=self.options.size,
            strength=self.strength,
            policy=self.options.policy,
            leaky_encoding=self.options.leaky_encoding,
            begin=begin,
            step=self.step,
        )
        self._count_whole(number, frame, result)

    def _paint_trained(
        self, canvas: Canvas, number: int, region: Region, told: Told, policy: Policy, generators: Any, count: int
    ) -> None:
        model = self.model
        assert isinstance(model, TrainedModel)
        frame, result = paint_trained(
            canvas,
            region,
            model,
            {**vars(told), "embeddings": self.options.embeddings},
            num_inference_steps=self.steps,
            generators=generators,
            num_samples=count,
            batch_pixels=policy.batch_pixels,
            size=self.options.size,
            strength=self.strength,
            begin=lambda frame, grid: self._begin(f"{frame.size[1]} x {frame.size[0]}", grid),
            step=self.step,
        )
        self._count_whole(number, frame, result)

    def _count_whole(self, number: int, frame: Frame, result: Result) -> None:
        factor = round((frame.box.height * frame.box.width / (frame.size[0] * frame.size[1])) ** 0.5, 3)
        self._count(number, factor if frame.scaled else 1, (frame.size[1], frame.size[0]), result)

    def _paint_region(self, sheets: list[Sheet], number: int, denoiser: Any, generators: Any, count: int) -> None:
        assert self.method is not None

        def begin(level: Level, grid: list[float] | None) -> None:
            self._begin(f"1/{level.factor}", grid)

        results = paint_regions(
            [sheet.canvas for sheet in sheets],
            [sheet.regions[number] for sheet in sheets],
            denoiser,
            self.method,
            policy=sheets[0].policy,
            num_inference_steps=self.steps,
            generators=generators,
            num_samples=count,
            device=self.model.device,
            strength=self.strength,
            begin=begin,
            step=self.step,
        )
        for level, result in results:
            size = (level.box.width // level.factor, level.box.height // level.factor)
            self._count(number, level.factor, size, result, len(sheets))
