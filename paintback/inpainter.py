"""Inpainter: picture and mask in, picture out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from paintback import methods, models
from paintback.coarse_to_fine import Canvas, Level, Policy, paint_region
from paintback.images import masks
from paintback.images.picture import Picture, read_picture, to_numpy, to_pil, to_torch
from paintback.images.regions import Region, hole_regions
from paintback.methods.base import Method
from paintback.models.base import Model
from paintback.models.catalogue import Sampler
from paintback.randomness import seed_from_system
from paintback.resources import PeakMemory

__all__ = ["Inpainter", "Output", "Scale"]

OutputType = Literal["pil", "np", "pt", "picture"]
Generator = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class Scale:
    """What one scale of one region cost.

    Attributes:
        region: number of the region within its picture.
        factor: pixels per cell.
        size: (width, height) of the crop in cells.
        evaluations: per sample.
        vjps: per sample.
    """

    region: int
    factor: int
    size: tuple[int, int]
    evaluations: int | float
    vjps: int | float


@dataclass
class Output:
    """What an `Inpainter` gives back.

    Attributes:
        images: the pictures, samples of a picture together, in the type asked for.
        evaluations: denoiser calls per sample, over all regions and scales of all pictures.
        vjps: gradients per sample, likewise.
        seconds: wall time of the call.
        peak_memory_bytes: see `resources.PeakMemory`.
        seeds: the seed of every picture in `images`.
        settings: what is needed to make the same pictures again, as plain JSON values.
        scales: the evaluations by region and scale.
        stopped: whether it was interrupted: the pictures then show the last prediction.
    """

    images: Any
    evaluations: int | float
    vjps: int | float
    seconds: float
    peak_memory_bytes: int | None
    seeds: list[int]
    settings: dict[str, Any]
    scales: list[Scale] = field(default_factory=list)
    stopped: bool = False


class Inpainter:
    """Paints back the missing part of pictures with a frozen model and any method.

    Args:
        model: a loaded model; `from_pretrained` finds one by name.
        policy: how holes of any size are cut into crops and scales.
    """

    def __init__(self, model: Model, *, policy: Policy | None = None) -> None:
        self.model = model
        self.policy = policy or Policy(multiple=model.multiple)
        self.interrupt = False
        self._progress: dict[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: Any = None, torch_dtype: torch.dtype | None = None
    ) -> Inpainter:
        """Loads a model by name.

        Args:
            name: an embedded model's name, or the path of one's own weights.
            device: a torch device; None chooses.
            torch_dtype: of the network.

        Raises:
            ValueError: if there is no such model.
        """
        return cls(models.load(name, device=device, dtype=torch_dtype))

    def set_progress_bar_config(self, **config: Any) -> None:
        """Keywords for tqdm, as in diffusers; `disable=True` silences the bar."""
        self._progress = config

    def __call__(
        self,
        image: Any,
        mask_image: Any,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        method: str | Method | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Generator = None,
        padding_mask_crop: int | None = None,
        mask_blur: float = 0,
        output_type: OutputType = "pil",
        callback_on_step_end: Callable[[Inpainter, int, float, dict[str, Any]], Any] | None = None,
        strength: float = 1.0,
    ) -> Output:
        """Paints back what the mask hides.

        Args:
            image: a picture or a list of them: path, PIL, numpy (H, W, 3) or torch (3, H, W) in [0, 1].
            mask_image: a mask or a list of them, of the pictures' sizes; white = repaint.
            prompt: text, for models that take one.
            negative_prompt: text, likewise.
            method: a name, or a method made by `methods.get`; None for what the model's card recommends, and "ding"
                where it names nothing.
            num_inference_steps: grid intervals; None for 25, or what goes with the recommended method.
            guidance_scale: of classifier-free guidance; None for the model's own.
            num_images_per_prompt: samples of each picture.
            generator: one for all, or a list of one per output picture; None seeds from the operating system.
            padding_mask_crop: pixels of context around the hole; None for the model's own.
            mask_blur: the hole is grown by this many pixels, over which old and new are blended.
            output_type: "pil" (a list), "np" ((N, H, W, 3) in [0, 1]), "pt" ((N, 3, H, W) in [0, 1]), each a list
                where the pictures' sizes differ, or "picture" (a list of `images.Picture`, 16 bit and alpha kept).
            callback_on_step_end: called with (self, step, t, {"latents": x, "x0": prediction}) after every step;
                setting `self.interrupt = True` stops.
            strength: below 1, the hidden part is not forgotten: sampling starts from the picture itself, noised to
                this fraction of the steps.

        Returns:
            The pictures, of the input's size, bit-identical outside the hole, with their cost and settings.

        Raises:
            ValueError: for input that does not fit, in one sentence.
        """
        began = time.perf_counter()
        pictures = [read_picture(one) for one in (image if isinstance(image, list | tuple) else [image])]
        given = mask_image if isinstance(mask_image, list | tuple) else [mask_image] * len(pictures)
        if len(given) != len(pictures):
            raise ValueError(
                f"Got {len(pictures)} pictures and {len(given)} masks; give one mask each, or one for all."
            )
        if output_type not in ("pil", "np", "pt", "picture"):
            raise ValueError(f"output_type must be pil, np, pt or picture; got {output_type!r}.")
        if num_images_per_prompt < 1:
            raise ValueError(f"num_images_per_prompt must be at least 1; got {num_images_per_prompt}.")
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1]; got {strength}.")
        if not mask_blur >= 0:
            raise ValueError(f"mask_blur must be at least 0 pixels; got {mask_blur}.")
        holes = []
        for picture, one in zip(pictures, given, strict=True):
            hole = masks.read_mask(one, picture.shape)
            masks.check_mask(hole)
            holes.append(hole)
        own = self.model.sampler if method is None else Sampler()
        if method is None:
            method = methods.get(own.method, **own.fields)
        chosen = methods.get(method) if isinstance(method, str) else method
        steps = own.num_inference_steps if num_inference_steps is None else num_inference_steps
        if int(steps) != steps or steps < 1:
            raise ValueError(f"num_inference_steps must be a whole number of at least 1; got {steps}.")
        denoiser = self.model.denoiser(prompt, negative_prompt, guidance_scale)
        generators, seeds = _generators(generator, len(pictures) * num_images_per_prompt)
        self.interrupt = False

        finished: list[Picture] = []
        output = Output([], 0, 0, 0.0, None, seeds, {})
        with PeakMemory(self.model.device) as memory, tqdm(**{"unit": "step", "leave": False, **self._progress}) as bar:
            job = _Job(
                self, denoiser, chosen, int(steps), strength, padding_mask_crop, callback_on_step_end, bar, output
            )
            for k, (picture, hole) in enumerate(zip(pictures, holes, strict=True)):
                mine = slice(k * num_images_per_prompt, (k + 1) * num_images_per_prompt)
                given_to = generators if isinstance(generators, torch.Generator) else generators[mine]
                for painted in job.paint(picture, hole, given_to, num_images_per_prompt, mask_blur):
                    finished.append(painted)
        output.images = _convert(finished, output_type)
        output.seconds = time.perf_counter() - began
        output.peak_memory_bytes = memory.bytes
        fields = dataclasses.asdict(chosen)
        output.settings = {
            "model": self.model.name,
            "method": chosen.name,
            "fields": fields,
            "num_inference_steps": int(steps),
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "guidance_scale": guidance_scale,
            "num_images_per_prompt": num_images_per_prompt,
            "padding_mask_crop": padding_mask_crop,
            "mask_blur": mask_blur,
            "strength": strength,
            "policy": dataclasses.asdict(self.policy),
        }
        return output


@dataclass
class _Job:
    """One call's constants, to paint its pictures one after another."""

    inpainter: Inpainter
    denoiser: Any
    method: Method
    steps: int
    strength: float
    context: int | None
    callback: Callable[[Inpainter, int, float, dict[str, Any]], Any] | None
    bar: Any
    output: Output

    def paint(self, picture: Picture, hole: np.ndarray, generators: Any, count: int, mask_blur: float) -> list[Picture]:
        """The samples of one picture."""
        model, policy = self.inpainter.model, self.inpainter.policy
        if self.context is not None:
            policy = dataclasses.replace(policy, context=self.context)
        unit = torch.from_numpy(picture.to_unit()).permute(2, 0, 1)
        if model.channels == 1 and not bool((unit == unit[:1]).all()):
            raise ValueError(
                f"The model {model.name!r} paints grey pictures; turn the picture grey or use another model."
            )
        weight = masks.blur(hole, mask_blur) if mask_blur else None
        wide = hole if weight is None else weight > 0
        masks.check_mask(wide)
        canvas = Canvas(model.to_model(unit[None])[0], torch.from_numpy(wide))
        regions = hole_regions(wide, context=policy.context, minimum=model.training_size, multiple=policy.multiple)
        for number, region in enumerate(regions):
            self._paint_region(canvas, number, region, policy, generators, count)
        finished = []
        for k in range(count):
            new = unit.permute(1, 2, 0).numpy().copy()
            for box, part, values in canvas.painted:
                rows, columns = torch.nonzero(part, as_tuple=True)
                colours = model.to_picture(values[k : k + 1])[0].permute(1, 2, 0)[rows, columns]
                new[rows.numpy() + box.top, columns.numpy() + box.left] = colours.numpy()
            finished.append(picture.with_pixels(new, hole, weight))
        return finished

    def _paint_region(
        self, canvas: Canvas, number: int, region: Region, policy: Policy, generators: Any, count: int
    ) -> None:
        def begin(level: Level, grid: list[float] | None) -> None:
            self.bar.total = (self.bar.total or 0) + (self.steps if grid is None else len(grid) - 1)
            self.bar.set_description(f"{self.method.name} 1/{level.factor}", refresh=False)

        def step(index: int, t: float, x: torch.Tensor, x0: torch.Tensor) -> bool:
            self.bar.update()
            if self.callback is not None:
                self.callback(self.inpainter, index, t, {"latents": x, "x0": x0})
            return self.inpainter.interrupt

        results = paint_region(
            canvas,
            region,
            self.denoiser,
            self.method,
            policy=policy,
            num_inference_steps=self.steps,
            generators=generators,
            num_samples=count,
            device=self.inpainter.model.device,
            strength=self.strength,
            begin=begin,
            step=step,
        )
        for level, result in results:
            size = (level.box.width // level.factor, level.box.height // level.factor)
            self.output.scales.append(Scale(number, level.factor, size, result.evaluations, result.vjps))
            self.output.evaluations += result.evaluations
            self.output.vjps += result.vjps
            self.output.stopped |= result.stopped


def _generators(generator: Generator, count: int) -> tuple[torch.Generator | list[torch.Generator], list[int]]:
    if generator is None:
        first = seed_from_system()
        generator = [torch.Generator().manual_seed(first + k) for k in range(count)]
    if isinstance(generator, torch.Generator):
        return generator, [generator.initial_seed()] * count
    if len(generator) != count:
        raise ValueError(f"Got {len(generator)} generators for {count} pictures to make; give one, or one for each.")
    return list(generator), [one.initial_seed() for one in generator]


def _convert(pictures: list[Picture], output_type: OutputType) -> Any:
    """As diffusers has it: a list for "pil"; one array for "np" and "pt", or a list of them where sizes differ."""
    if output_type == "picture":
        return pictures
    if output_type == "pil":
        return [to_pil(picture) for picture in pictures]
    if output_type == "np":
        arrays = [to_numpy(picture) for picture in pictures]
        return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
    tensors = [to_torch(picture) for picture in pictures]
    return torch.cat(tensors) if len({tensor.shape for tensor in tensors}) == 1 else tensors
