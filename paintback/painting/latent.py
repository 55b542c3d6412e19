"""How a hole is painted by models that compose a whole scene at once: latent models, and those that take the mask.

Such a model needs no pyramid: a region is one crop at the size that the model learnt from (see `frames`), or, where
that would be smaller than the picture's own resolution, several (see `cuts`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.images.masks import Mask
from paintback.images.regions import Box, Region, context_crop
from paintback.methods.base import Result
from paintback.models.base import Model, Told
from paintback.models.latent import fill_hole, observe
from paintback.models.trained import TrainedModel
from paintback.painting.canvas import Canvas
from paintback.painting.colour import matched
from paintback.painting.cuts import band, crop_shape, is_narrow, tiles
from paintback.painting.frames import Frame, choose_size, own_size, whole_regions
from paintback.painting.layout import Recipe, Role, Stage, Step, refinement_grid, tail, whole_grid
from paintback.stopping import kept

__all__ = ["Latents", "Trained"]

OneOrEach = Sequence[torch.Generator] | torch.Generator
DETAIL = 0.4  # of their steps, the last ones, in which models that take the mask paint the details of a wide hole


class _Rows(NamedTuple):
    """One batch of a stage: what is seen of the crop, at the model's size.

    Attributes:
        values: what is known, the rest filled smoothly.
        known: where.
        drafted: `values` with the draft in place of the filling; None where there is none.
        generators: one, or one for each row.
        rows: how many.
    """

    values: Tensor
    known: Tensor
    drafted: Tensor | None
    generators: OneOrEach
    rows: int


@dataclass
class _Whole:
    """What both ways share: the stages of a region, batches, and the result's way back into the canvas."""

    model: Model
    recipe: Recipe

    @property
    def refines(self) -> bool:
        """Whether a second pass can start from the picture of the first."""
        return True

    @property
    def shares(self) -> bool:
        """Whether pictures of equal sizes are painted in one batch."""
        return False

    def regions(self, wide: Mask) -> list[Region]:
        """The crops of a hole, (H, W) bool."""
        return whole_regions(wide, self.model, self.recipe.context)

    def stages(self, number: int, region: Region) -> list[Stage]:
        """One stage of a region that is painted at once; those of `cut` where that would be made smaller."""
        whole = self._stage(number, region, "whole")
        if whole.cells >= region.box.height * region.box.width or self.recipe.size != (None, None):
            return [whole]
        return self.cut(number, region)

    def cut(self, number: int, region: Region, around: Box | None = None) -> list[Stage]:
        """The crops along a long hole, or the two passes over a wide one.

        Args:
            number: of the region.
            region: what is to be painted.
            around: the crop that a draft shows; None for one of half of the hole's longer side around it.
        """
        shape = (region.owners.shape[0], region.owners.shape[1])
        crop = crop_shape(self.model, shape)
        narrow = is_narrow(region.local_target, crop)
        if narrow or self.recipe.strength < 1:
            return [self._stage(number, one, "along") for one in tiles(region, shape, crop, along=narrow)]
        if around is None and self.recipe.context is None:
            side, multiple = self.model.training_size, self.model.multiple
            around = context_crop(region.target, context=0.5, minimum=side, multiple=multiple)
        wide = replace(region, box=around or region.box)
        if not self.refines:
            return [self._stage(number, wide, "whole")]
        return [
            self._stage(number, wide, "draft"),
            *(self._stage(number, one, "detail") for one in tiles(region, shape, crop, along=False)),
        ]

    def _stage(self, number: int, region: Region, role: Role) -> Stage:
        """A stage before it has a grid."""
        if role in ("along", "detail"):
            frame = own_size(region.box, self.model)
        elif self.model.size is not None:
            frame = Frame(region.box, self.model.size, scaled=True)
        else:
            frame = choose_size(region.box, self.model, self.recipe.size)
        pixels = frame.size[0] * frame.size[1]
        factor = round((frame.box.height * frame.box.width / pixels) ** 0.5, 3) if frame.scaled else 1
        together = self.recipe.policy.batch_pixels // pixels
        return Stage(number, region, region.box, frame.size, factor, together, frame, role)

    def _batches(self, canvas: Canvas, stage: Stage, generators: OneOrEach, count: int) -> Iterator[_Rows]:
        """What is seen of a stage's crop, batch by batch."""
        assert stage.frame is not None
        frame = stage.frame
        for chosen in stage.rows(count, not isinstance(generators, torch.Generator)):
            # all samples see the same picture, encoded once, unless what was painted before made them differ
            seen = chosen if canvas.differs else slice(chosen.start, chosen.start + 1)
            values, known = canvas.crop(frame.box, seen)
            own = generators if isinstance(generators, torch.Generator) else list(generators[chosen])
            filled = fill_hole(values, known)
            if bool(known.any()):  # beyond the border what is known goes on
                known = known | canvas.beyond(frame.box)
            drafted = canvas.drafted(frame.box, seen, filled, known) if stage.role == "detail" else None
            yield _Rows(
                frame.enter(filled),
                frame.enter_known(known),
                None if drafted is None else frame.enter(drafted),
                own,
                chosen.stop - chosen.start,
            )

    def _put(self, canvas: Canvas, stage: Stage, made: list[Tensor], count: int) -> None:
        """Puts batches at the model's size into the canvas; rows that were not come to look like the last one."""
        assert stage.frame is not None
        box = stage.frame.box
        values = torch.cat([stage.frame.leave(one) for one in made])
        values = torch.cat((values, values[-1:].expand(count - len(values), -1, -1, -1)))
        part = torch.from_numpy(stage.part)
        if stage.role == "draft":
            canvas.draft = (box, part, values)
            return
        if stage.role != "whole":
            weight = torch.from_numpy(band(stage.part, canvas.drawn(box).numpy()))
            before, _ = canvas.crop(box, slice(0, count))
            part, values = weight > 0, torch.lerp(before, values, weight)
        canvas.painted.append((box, part, values))

    @contextlib.contextmanager
    def _region(self, canvas: Canvas, stages: Sequence[Stage], done: list[tuple[Stage, Result]]) -> Iterator[None]:
        """Around the painting of a region; where that ends early, what was done is kept, the draft too.

        Args:
            canvas: that is painted.
            stages: of the region.
            done: the stages that ran, added to inside.
        """
        first = len(canvas.painted)
        with kept(done):
            yield
        if len(done) < len(stages):
            done[-1] = (done[-1][0], replace(done[-1][1], stopped=True))
            canvas.keep_draft(first)
        canvas.draft = None

    def _matched(self, made: Tensor, seen: _Rows, cell: int) -> Tensor:
        """What the model made of cells of so many pixels, in the colours of its surroundings if that is asked for."""
        return matched(made, seen.values, seen.known, cell) if self.recipe.match else made


@dataclass
class Latents(_Whole):
    """The way of painting of models with a codec: encode, sample by a method, decode."""

    def denoiser(self, stage: Stage, told: Told) -> Denoiser:
        """The model's, under a prompt and for the stage's size."""
        return self.model.denoiser_at(stage.size, told)

    def timed(self, stages: Sequence[Stage], told: Told) -> list[Stage]:
        """The region's stages with their grids: the method's own, or the last part of it."""
        return [self._timed(stage, told) for stage in stages]

    def _timed(self, stage: Stage, told: Told) -> Stage:
        recipe, method, denoiser = self.recipe, self.recipe.method, self.denoiser(stage, told)
        assert method is not None
        if stage.role == "detail":
            fine = refinement_grid(denoiser, recipe.steps, recipe.policy.detail_from, method, recipe.times)
            return stage.timed(fine, len(fine) - 1, method)
        whole = whole_grid(denoiser, method, recipe.steps, recipe.times)
        steps = tail(len(whole) - 1, recipe.strength)
        return stage.timed(
            None if recipe.strength == 1 and recipe.times is None else whole[-1 - steps :], steps, method
        )

    @torch.no_grad()
    def paint(
        self,
        canvases: Sequence[Canvas],
        plans: Sequence[Sequence[Stage]],
        told: Told,
        generators: OneOrEach,
        count: int,
        step: Step,
    ) -> list[tuple[Stage, Result]]:
        """Paints one region of every picture into its canvas; several pictures have one stage of the same size each.

        Args:
            canvases: of the pictures, read around the region and added to.
            plans: their timed stages.
            told: of the pictures.
            generators: one for all samples or one each, those of a picture next to each other.
            count: of samples of a picture.
            step: told of every step; returning True stops.

        Returns:
            The stages that ran, each with the result of its last batch.
        """
        if len(canvases) > 1:
            return self._paint_many(canvases, [stage for (stage,) in plans], told, generators, count, step)
        (canvas,), (stages,) = canvases, plans
        model, recipe, method = self.model, self.recipe, self.recipe.method
        assert method is not None
        done: list[tuple[Stage, Result]] = []
        with self._region(canvas, stages, done):
            for stage in stages:
                assert stage.frame is not None
                box = stage.frame.box
                denoiser = self.denoiser(stage, told)
                again = recipe.strength < 1
                original = stage.frame.enter(canvas.original(box)[None]).to(model.device)
                made: list[Tensor] = []
                with kept(made):
                    for seen in self._batches(canvas, stage, generators, count):
                        values, known = seen.values.to(model.device), seen.known.to(model.device)
                        drafted = None if seen.drafted is None else seen.drafted.to(model.device)
                        hidden = original.expand(len(values), -1, -1, -1) if recipe.leaky_encoding else drafted
                        observation = observe(model.codec, values, known, policy=recipe.latent_mask, hidden=hidden)
                        start = original if again else drafted
                        initial = None if start is None else model.codec.encode(start).float()
                        rows = len(values)
                        result = method.sample(
                            denoiser.placed(
                                [(box.top, box.left, box.bottom, box.right)] * seen.rows,
                                [canvas.whole.shape] * seen.rows,
                                max(1, round(stage.factor)),
                            ),
                            observation,
                            num_inference_steps=recipe.steps,
                            generator=seen.generators,
                            num_samples=seen.rows // rows,
                            grid=stage.grid,
                            callback=self._clocked(step, denoiser, stage),
                            initial=None
                            if initial is None
                            else initial.repeat_interleave(seen.rows // len(initial), dim=0),
                        )
                        # decoders are large, so one by one
                        decoded = [model.to_picture(model.codec.decode(one[None])) for one in result.x]
                        pixels = torch.cat(decoded).float().cpu().clamp(-1, 1)
                        made.append(self._matched(pixels, seen, model.codec.factor))
                        if result.stopped:
                            break
                self._put(canvas, stage, made, count)
                done.append((stage, replace(result, stopped=result.stopped or sum(map(len, made)) < count)))
                if done[-1][1].stopped:
                    break
        return done

    def _clocked(self, step: Step, denoiser: Denoiser, stage: Stage) -> Step:
        """The callback, told the scheduler's timestep at which a step began."""
        method = self.recipe.method
        assert method is not None
        times = whole_grid(denoiser, method, self.recipe.steps) if stage.grid is None else stage.grid
        return lambda index, t, x, x0: step(index, self.model.timestep(times[index]), x, x0)

    def _paint_many(
        self,
        canvases: Sequence[Canvas],
        stages: Sequence[Stage],
        told: Told,
        generators: OneOrEach,
        count: int,
        step: Step,
    ) -> list[tuple[Stage, Result]]:
        """Paints one region of several pictures in shared batches; every sample has a generator of its own."""
        model, recipe, method, first = self.model, self.recipe, self.recipe.method, stages[0]
        assert method is not None
        assert not isinstance(generators, torch.Generator)
        denoiser = self.denoiser(first, told)
        made: list[Tensor] = []
        with kept(made):
            for chosen in first.rows(len(canvases) * count, each=True):
                numbers = range(chosen.start, chosen.stop)
                rows = [self._row(canvases[k // count], stages[k // count], k % count) for k in numbers]
                seen, known, originals = (torch.cat(one) for one in zip(*rows, strict=True))
                values, original = seen.to(model.device), originals.to(model.device)
                hidden = original if recipe.leaky_encoding else None
                boxes = [stages[k // count].box for k in numbers]
                result = method.sample(
                    denoiser.placed(
                        [(box.top, box.left, box.bottom, box.right) for box in boxes],
                        [canvases[k // count].whole.shape for k in numbers],
                        max(1, round(first.factor)),
                    ),
                    observe(model.codec, values, known.to(model.device), policy=recipe.latent_mask, hidden=hidden),
                    num_inference_steps=recipe.steps,
                    generator=list(generators[chosen]),
                    grid=first.grid,
                    callback=self._clocked(step, denoiser, first),
                    initial=model.codec.encode(original).float() if recipe.strength < 1 else None,
                )
                pixels = torch.cat([model.to_picture(model.codec.decode(one[None])) for one in result.x])
                batch = _Rows(seen, known, None, list(generators[chosen]), len(rows))
                made += self._matched(pixels.float().cpu().clamp(-1, 1), batch, model.codec.factor).split(1)
                if result.stopped:
                    break
        for number, (canvas, stage) in enumerate(zip(canvases, stages, strict=True)):
            own = made[number * count : (number + 1) * count]
            if own:  # pictures that were not come to stay as they were given
                self._put(canvas, stage, own, count)
        return [(first, replace(result, stopped=result.stopped or len(made) < len(canvases) * count))]

    def _row(self, canvas: Canvas, stage: Stage, sample: int) -> tuple[Tensor, Tensor, Tensor]:
        """What one sample sees of its picture at the model's size, where, and the picture itself."""
        assert stage.frame is not None
        frame = stage.frame
        values, known = canvas.crop(frame.box, slice(sample, sample + 1))
        original = frame.enter(canvas.original(frame.box)[None])
        return frame.enter(fill_hole(values, known)), frame.enter_known(known), original

    @property
    def shares(self) -> bool:
        """Whether pictures of equal sizes are painted in one batch; clips are not."""
        return self.model.takes_size and self.model.training_frames == 1


@dataclass
class Trained(_Whole):
    """The way of painting of models that take the mask: their own pipeline runs, and no method."""

    model: TrainedModel

    def __post_init__(self) -> None:
        if not self.model.takes_batches:
            self.recipe = replace(self.recipe, policy=replace(self.recipe.policy, batch_pixels=1))

    @property
    def refines(self) -> bool:
        return self.model.takes_strength

    def timed(self, stages: Sequence[Stage], told: Told) -> list[Stage]:
        """The region's stages with their steps; the grid is the pipeline's."""
        made = []
        for stage in stages:
            kept = tail(self.recipe.steps, DETAIL if stage.role == "detail" else self.recipe.strength)
            made.append(replace(stage.timed(None, self.model.count_steps(self.recipe.steps, kept), None), kept=kept))
        return made

    @torch.no_grad()
    def paint(
        self,
        canvases: Sequence[Canvas],
        plans: Sequence[Sequence[Stage]],
        told: Told,
        generators: OneOrEach,
        count: int,
        step: Step,
    ) -> list[tuple[Stage, Result]]:
        """As `Latents.paint`."""
        (canvas,), (stages,) = canvases, plans
        done: list[tuple[Stage, Result]] = []
        with self._region(canvas, stages, done):
            for stage in stages:
                assert stage.frame is not None
                again = self.recipe.strength < 1
                original = stage.frame.enter(canvas.original(stage.frame.box)[None])
                made: list[Tensor] = []
                for seen in self._batches(canvas, stage, generators, count):
                    shown = seen.values if seen.drafted is None else seen.drafted
                    if again:
                        shown = torch.where(seen.known, seen.values, original)
                    painting = self.model.fill(
                        shown.to(self.model.device),
                        ~seen.known.to(self.model.device),
                        told,
                        num_inference_steps=self.recipe.steps,
                        generator=seen.generators,
                        num_samples=seen.rows,
                        steps=stage.kept if again or stage.role == "detail" else None,
                        step=lambda index, t, x: step(index, t, x, None),
                    )
                    pixels = painting.pixels.cpu().clamp(-1, 1)
                    made.append(self._matched(pixels, seen, self.model.multiple))
                    residual = torch.where(seen.known, pixels - shown, 0.0).abs().flatten(1).amax(1)
                    result = Result(pixels, painting.evaluations, 0, painting.network_rows, residual, painting.stopped)
                    if result.stopped:
                        break
                self._put(canvas, stage, made, count)
                done.append((stage, result))
                if result.stopped:
                    break
        return done
