"""How a hole is painted by models that compose a whole scene at once: latent models, and those that take the mask.

Such a model needs no pyramid: every region is one crop at the size that the model learnt from (see `frames`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
Sampler = Callable[[Tensor, Tensor, OneOrEach, int], tuple[Tensor, Result]]
"""(values, known, generators, count) -> pictures (count, 3, H, W) on the CPU, and what they cost."""


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

    def paint(
        self,
        canvases: Sequence[Canvas],
        plans: Sequence[Sequence[Stage]],
        told: Told,
        generators: Sequence[torch.Generator] | torch.Generator,
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
        assert stage.frame is not None
        frame, batches = stage.frame, []
        sample = self._sampler(canvas, stage, told, step)
        for chosen in stage.rows(count, not isinstance(generators, torch.Generator)):
            # all samples see the same picture, encoded once, unless an earlier region made them differ
            seen = chosen if canvas.painted else slice(chosen.start, chosen.start + 1)
            values, known = canvas.crop(frame.box, seen)
            own = generators if isinstance(generators, torch.Generator) else list(generators[chosen])
            shown, kept = frame.enter(fill_hole(values, known)), frame.enter_known(known)
            made, result = sample(shown, kept, own, chosen.stop - chosen.start)
            batches.append(frame.leave(made))
            if result.stopped:
                batches.append(batches[-1][-1:].expand(count - chosen.stop, -1, -1, -1))
                break
        canvas.painted.append((frame.box, torch.from_numpy(stage.region.local_target.copy()), torch.cat(batches)))
        return [(stage, result)]

    def _sampler(self, canvas: Canvas, stage: Stage, told: Told, step: Step) -> Sampler:
        """What paints the batches of a stage; what they share is made here."""
        raise NotImplementedError


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
    def _sampler(self, canvas: Canvas, stage: Stage, told: Told, step: Step) -> Sampler:
        model, recipe, method, denoiser = self.model, self.recipe, self.recipe.method, self.denoiser(stage, told)
        assert stage.frame is not None
        assert method is not None
        original = stage.frame.enter(canvas.original(stage.frame.box)[None]).to(model.device)
        initial = None if recipe.strength == 1 else model.codec.encode(original)[0].float()

        @torch.no_grad()
        def sample(values: Tensor, known: Tensor, generators: OneOrEach, count: int) -> tuple[Tensor, Result]:
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
                generator=generators,
                num_samples=count // len(values),
                grid=stage.grid,
                callback=step,
                initial=initial,
            )
            decoded = [model.to_picture(model.codec.decode(one[None])) for one in result.x]  # decoders are large
            return torch.cat(decoded).float().cpu().clamp(-1, 1), result

        return sample


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

    def _sampler(self, canvas: Canvas, stage: Stage, told: Told, step: Step) -> Sampler:
        model, recipe = self.model, self.recipe
        assert stage.frame is not None
        original = None if recipe.strength == 1 else stage.frame.enter(canvas.original(stage.frame.box)[None])

        @torch.no_grad()
        def sample(values: Tensor, known: Tensor, generators: OneOrEach, count: int) -> tuple[Tensor, Result]:
            shown = values if original is None else torch.where(known, values, original)
            painting = model.fill(
                shown.to(model.device),
                ~known.to(model.device),
                told,
                num_inference_steps=recipe.steps,
                generator=generators,
                num_samples=count,
                steps=None if original is None else stage.kept,
                step=lambda index, t, x: step(index, t, x, None),
            )
            made = painting.pixels.cpu().clamp(-1, 1)
            residual = torch.where(known, made - shown, 0.0).abs().flatten(1).amax(1)
            return made, Result(made, painting.evaluations, 0, painting.network_rows, residual, painting.stopped)

        return sample
