"""How a hole is painted by models that compose a whole scene at once: latent models, and those that take the mask.

Such a model needs no pyramid: every region is one crop at the size that the model learnt from (see `frames`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.images.masks import Mask
from paintback.images.regions import Region
from paintback.methods.base import Result
from paintback.models.base import Told
from paintback.models.latent import LatentModel, fill_hole, observe
from paintback.models.trained import TrainedModel
from paintback.painting.canvas import Canvas
from paintback.painting.frames import choose_size, whole_regions
from paintback.painting.layout import Recipe, Stage, Step, tail, whole_grid

__all__ = ["Latents", "Trained"]

OneOrEach = Sequence[torch.Generator] | torch.Generator


@dataclass
class _Whole:
    """What both ways share: one stage for each region, batches, and the result's way back into the canvas."""

    model: LatentModel | TrainedModel
    recipe: Recipe

    def regions(self, wide: Mask) -> list[Region]:
        """The crops of a hole, (H, W) bool."""
        return whole_regions(wide, self.model, self.recipe.context)

    def stages(self, number: int, region: Region) -> list[Stage]:
        """The one stage of a region."""
        frame = choose_size(region.box, self.model, self.recipe.size)
        pixels = frame.size[0] * frame.size[1]
        factor = round((frame.box.height * frame.box.width / pixels) ** 0.5, 3) if frame.scaled else 1
        together = self.recipe.policy.batch_pixels // pixels
        return [Stage(number, region, region.box, frame.size, factor, together, frame)]

    def _batches(
        self, canvas: Canvas, stage: Stage, generators: OneOrEach, count: int
    ) -> Iterator[tuple[Tensor, Tensor, OneOrEach, int]]:
        """What is known, with its hole filled, and where, at the model's size; and a batch's generators and rows."""
        assert stage.frame is not None
        for chosen in stage.rows(count, not isinstance(generators, torch.Generator)):
            # all samples see the same picture, encoded once, unless an earlier region made them differ
            seen = chosen if canvas.painted else slice(chosen.start, chosen.start + 1)
            values, known = canvas.crop(stage.frame.box, seen)
            own = generators if isinstance(generators, torch.Generator) else list(generators[chosen])
            filled = stage.frame.enter(fill_hole(values, known))
            yield filled, stage.frame.enter_known(known), own, chosen.stop - chosen.start

    def _put(self, canvas: Canvas, stage: Stage, made: list[Tensor], count: int) -> None:
        """Puts batches at the model's size into the canvas; rows that were not come to look like the last one."""
        assert stage.frame is not None
        values = torch.cat([stage.frame.leave(one) for one in made])
        values = torch.cat((values, values[-1:].expand(count - len(values), -1, -1, -1)))
        canvas.painted.append((stage.frame.box, torch.from_numpy(stage.region.local_target.copy()), values))


@dataclass
class Latents(_Whole):
    """The way of painting of models with a codec: encode, sample by a method, decode."""

    model: LatentModel

    def denoiser(self, stage: Stage, told: Told) -> Denoiser:
        """The model's, under a prompt and for the stage's size."""
        return self.model.denoiser_at(stage.size, told)

    def timed(self, stages: Sequence[Stage], told: Told) -> list[Stage]:
        """The region's stage with its grid: the method's own, or the last part of it."""
        (stage,), method = stages, self.recipe.method
        assert method is not None
        whole = whole_grid(self.denoiser(stage, told), method, self.recipe.steps)
        steps = tail(len(whole) - 1, self.recipe.strength)
        return [stage.timed(None if self.recipe.strength == 1 else whole[-1 - steps :], steps, method)]

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
        """Paints one region into the canvas; one picture at a time.

        Args:
            canvases: of the picture, read around the region and added to.
            plans: its timed stage.
            told: of the picture.
            generators: one for all samples or one each.
            count: of samples.
            step: told of every step; returning True stops.

        Returns:
            The stage, with the result of its last batch.
        """
        (canvas,), ((stage,),) = canvases, plans
        model, recipe, method, denoiser = self.model, self.recipe, self.recipe.method, self.denoiser(stage, told)
        assert stage.frame is not None
        assert method is not None
        original = stage.frame.enter(canvas.original(stage.frame.box)[None]).to(model.device)
        initial = None if recipe.strength == 1 else model.codec.encode(original)[0].float()
        made: list[Tensor] = []
        for values, known, own, rows in self._batches(canvas, stage, generators, count):
            observation = observe(
                model.codec,
                values.to(model.device),
                known.to(model.device),
                policy=recipe.latent_mask,
                hidden=original.expand(len(values), -1, -1, -1) if recipe.leaky_encoding else None,
            )
            result = method.sample(
                denoiser,
                observation,
                num_inference_steps=recipe.steps,
                generator=own,
                num_samples=rows // len(values),
                grid=stage.grid,
                callback=step,
                initial=initial,
            )
            # decoders are large, so one by one
            decoded = [model.to_picture(model.codec.decode(one[None])) for one in result.x]
            made.append(torch.cat(decoded).float().cpu().clamp(-1, 1))
            if result.stopped:
                break
        self._put(canvas, stage, made, count)
        return [(stage, result)]


@dataclass
class Trained(_Whole):
    """The way of painting of models that take the mask: their own pipeline runs, and no method."""

    model: TrainedModel

    def __post_init__(self) -> None:
        if not self.model.takes_batches:
            self.recipe = replace(self.recipe, policy=replace(self.recipe.policy, batch_pixels=1))

    def timed(self, stages: Sequence[Stage], told: Told) -> list[Stage]:
        """The region's stage with its steps; the grid is the pipeline's."""
        kept = tail(self.recipe.steps, self.recipe.strength)
        steps = self.model.count_steps(self.recipe.steps, kept)
        return [replace(stage.timed(None, steps, None), kept=kept) for stage in stages]

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
        (canvas,), ((stage,),) = canvases, plans
        assert stage.frame is not None
        again = self.recipe.strength < 1
        original = stage.frame.enter(canvas.original(stage.frame.box)[None])
        made: list[Tensor] = []
        for values, known, own, rows in self._batches(canvas, stage, generators, count):
            shown = torch.where(known, values, original) if again else values
            painting = self.model.fill(
                shown.to(self.model.device),
                ~known.to(self.model.device),
                told,
                num_inference_steps=self.recipe.steps,
                generator=own,
                num_samples=rows,
                steps=stage.kept if again else None,
                step=lambda index, t, x: step(index, t, x, None),
            )
            made.append(painting.pixels.cpu().clamp(-1, 1))
            residual = torch.where(known, made[-1] - shown, 0.0).abs().flatten(1).amax(1)
            result = Result(made[-1], painting.evaluations, 0, painting.network_rows, residual, painting.stopped)
            if result.stopped:
                break
        self._put(canvas, stage, made, count)
        return [(stage, result)]
