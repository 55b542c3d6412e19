"""Flat areas with faint noise, as of scanned paper: does what is painted stay what is around it?

A field is one level or colour, or a gradient, with Gaussian noise that is the same in all channels, rounded to 8 bits;
a square is missing in its middle. The noise-free field is the right answer, up to the noise: a pixel is wrong where it
is farther from it than 6 noise deviations and 12 levels. A prior learnt from photographs does not take faint white
noise for a picture's own, so that fields try a method where its model is worst, and nothing but the field is right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import click
import torch
from torch import Tensor

from paintback import models
from paintback.cli.bench import method_of
from paintback.cli.output import Format, emit, format_option
from paintback.denoiser import Denoiser
from paintback.methods import get
from paintback.methods.base import Method
from paintback.models.catalogue import recommended
from paintback.models.latent import fill_hole
from paintback.models.own_picture import with_own_patches
from paintback.observation import Observation
from paintback.painting import quality
from paintback.painting.layout import Policy, quick_grid, refinement_grid, thin_grid
from paintback.painting.request import Request
from research.command import run

__all__ = ["RECOMMENDED", "Field", "Filled", "Hole", "Way", "every_field", "every_hole", "fill", "table"]

SAMPLER = recommended("photo")


def quick(method: Method) -> int:
    """The steps that `quality="fast"` takes of what a model recommends."""
    return quality.intervals(Request(quality="fast"), method, SAMPLER.num_inference_steps)


STEPS = SAMPLER.num_inference_steps
GOOD = get(SAMPLER.method, **SAMPLER.fields)
THIN = quality.named(SAMPLER.thin or SAMPLER.method)


@dataclass(frozen=True)
class Way:
    """How holes are filled.

    Attributes:
        method: that fills.
        steps: its grid intervals.
        times: of a run that starts from a smooth fill; None for the method's own whole grid, from noise.
        own: whether the picture's own patches stand beside the model, as they do in wide holes at quality "good".
    """

    method: Method
    steps: int
    times: Callable[[Denoiser], Sequence[float]] | None = None
    own: bool = False


def thinly(steps: int) -> Way:
    """As thin holes are filled."""
    return Way(THIN, steps, lambda denoiser: thin_grid(denoiser, steps, Policy().thin_from))


# The last four are what `photo` and `quality` take. The answer of "best" is
# one of eight draws of "good", or the mean of eight of "good, thin": no pixel of it is farther off than in a draw.
RECOMMENDED: dict[str, Way] = {
    "fmm": Way(get("fmm"), 16),
    "ding": Way(get("ding"), 25),
    "ding, delayed": Way(get("ding", delayed=True), 25),
    "ddnm": Way(get("ddnm"), 25),
    "lanpaint": Way(get("lanpaint"), 8),
    "aid": Way(get("aid"), 25),
    "good": Way(GOOD, STEPS, lambda denoiser: refinement_grid(denoiser, STEPS, Policy().wide_from, GOOD), own=True),
    "fast": Way(GOOD, quick(GOOD), lambda denoiser: quick_grid(denoiser, quick(GOOD), Policy().fast_from, GOOD)),
    "good, thin": thinly(STEPS),
    "fast, thin": thinly(quick(THIN)),
}
COLOURS = {"red": (220, 20, 20), "green": (20, 160, 40), "blue": (10, 20, 240), "yellow": (250, 240, 10)}
LEVELS = (5, 30, 65, 100, 135, 170, 205, 235, 250)
NOISES = (0.0, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Field:
    """A flat field.

    Attributes:
        name: of its colour.
        corners: (3,) levels at the top left and at the bottom right, between which it goes in a straight line.
        noise: standard deviation, in levels.
    """

    name: str
    corners: tuple[tuple[float, float, float], tuple[float, float, float]]
    noise: float

    @classmethod
    def plain(cls, levels: float | tuple[float, float, float], noise: float, name: str = "") -> Field:
        """Of one grey level or colour."""
        colour = levels if isinstance(levels, tuple) else (levels, levels, levels)
        return cls(name or f"grey {colour[0]:g}", (colour, colour), noise)

    def clean(self, side: int) -> Tensor:
        """(3, side, side) levels without noise."""
        ramp = torch.linspace(0, 1, side)
        place = (ramp[:, None] + ramp) / 2
        first, last = (torch.tensor(corner, dtype=torch.float32)[:, None, None] for corner in self.corners)
        return torch.lerp(first, last, place)

    def noisy(self, side: int, generator: torch.Generator) -> Tensor:
        """(3, side, side) whole levels with noise."""
        noise = self.noise * torch.randn(1, side, side, generator=generator)
        return (self.clean(side) + noise).clamp(0, 255).round()

    @property
    def allowed(self) -> float:
        """The farthest that a pixel may be from the noise-free field, in levels."""
        return 12 + 6 * self.noise


@dataclass(frozen=True)
class Hole:
    """A hole to be filled.

    Attributes:
        field: that it is in.
        side: of the square, in the middle.
        seed: of the noise and of the run.
    """

    field: Field
    side: int
    seed: int = 0


@dataclass(frozen=True)
class Filled:
    """What became of a hole.

    Attributes:
        label: of the method.
        field: name of the field.
        noise: of the field.
        hole: side of the hole.
        seed: of the noise and of the run.
        worst: largest distance from the noise-free field in the hole, levels.
        mean: mean distance.
        over: levels beyond what is allowed; 0 or less is right.
    """

    label: str
    field: str
    noise: float
    hole: int
    seed: int
    worst: float
    mean: float
    over: float


def every_field() -> list[Field]:
    """Grey levels, saturated colours and gradients, under every noise."""
    plain = [Field.plain(level, noise) for level, noise in itertools.product(LEVELS, NOISES)]
    plain += [Field.plain(colour, noise, name) for (name, colour), noise in itertools.product(COLOURS.items(), NOISES)]
    gradients = {
        "paper in the light": ((200, 200, 195), (240, 240, 235)),
        "evening sky": ((30, 50, 120), (220, 160, 110)),
        "dark to bright": ((20, 20, 20), (235, 235, 235)),
    }
    return plain + [Field(name, ends, noise) for (name, ends), noise in itertools.product(gradients.items(), NOISES)]


def every_hole(fields: Sequence[Field], sides: Sequence[int], seeds: int, per_seed: int | None = None) -> list[Hole]:
    """Holes of every size in every field.

    Args:
        fields: that they are in.
        sides: of the holes.
        seeds: from 0 to one less than this.
        per_seed: so many holes of each seed, taken by turns: sizes and fields change from one to the next, and none is
            taken again before all have been; None for all of them with every seed.
    """
    kinds = list(itertools.product(fields, sides))
    if per_seed is None:
        return [Hole(*kind, seed) for seed in range(seeds) for kind in kinds]
    stride = next(k for k in itertools.count(int(0.618 * len(kinds)) or 1) if math.gcd(k, len(kinds)) == 1)
    return [Hole(*kinds[k * stride % len(kinds)], k // per_seed) for k in range(seeds * per_seed)]


@torch.no_grad()
def fill(
    label: str,
    way: Way,
    denoiser: Denoiser,
    holes: Sequence[Hole],
    *,
    side: int = 64,
    batch: int = 32,
) -> list[Filled]:
    """Fills holes.

    Args:
        label: of the way.
        way: that they are filled.
        denoiser: of a model of colour pictures.
        holes: to fill; a hole's result does not depend on the others.
        side: of the pictures.
        batch: holes at a time.
    """
    results = []
    for first in range(0, len(holes), batch):
        some = holes[first : first + batch]
        given = torch.stack([one.field.noisy(side, torch.Generator().manual_seed(10_000 + one.seed)) for one in some])
        known = torch.ones(len(some), 3, side, side, dtype=torch.bool)
        for one, mask in zip(some, known, strict=True):
            inside = slice((side - one.side) // 2, (side - one.side) // 2 + one.side)
            mask[:, inside, inside] = False
        generators = [torch.Generator().manual_seed(one.seed) for one in some]
        observation = Observation(given / 127.5 - 1, known)
        times, initial = None, None
        if way.times is not None:
            times, initial = list(way.times(denoiser)), fill_hole(observation.y, known[:, :1])
        shown = denoiser
        if way.own:
            shown = with_own_patches(denoiser, Policy().own_below).given(observation.y, known[:, :1])
        x = way.method.sample(shown, observation, way.steps, generators, grid=times, initial=initial).x
        made = ((x.cpu() + 1) * 127.5).clamp(0, 255).round()
        for one, picture, mask in zip(some, made, known, strict=True):
            gap = (picture - one.field.clean(side)).abs()[~mask]
            worst, mean, over = float(gap.max()), float(gap.mean()), float(gap.max()) - one.field.allowed
            results.append(Filled(label, one.field.name, one.field.noise, one.side, one.seed, worst, mean, over))
    return results


def table(results: Iterable[Filled]) -> str:
    """Of every method: how many holes are wrong, how far, and the worst."""
    lines = [
        "| method | holes | wrong | mean distance | farthest | where |",
        "|---|---|---|---|---|---|",
    ]
    by_label: dict[str, list[Filled]] = {}
    for one in results:
        by_label.setdefault(one.label, []).append(one)
    for label, some in by_label.items():
        worst = max(some, key=lambda one: one.over)
        lines.append(
            f"| {label} | {len(some)} | {sum(one.over > 0 for one in some)} "
            f"| {sum(one.mean for one in some) / len(some):.1f} | {worst.worst:.0f} "
            f"| {worst.field}, noise {worst.noise:g}, hole {worst.hole}, seed {worst.seed} |"
        )
    return "\n".join(lines)


@click.command()
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a file.")
@click.option(
    "--methods",
    "names",
    help=f"Some of {'; '.join(RECOMMENDED)}; or NAME[:field=value...]:STEPS; semicolons between.",
    metavar="LIST",
)
@click.option("--holes", default="8,16,24", show_default=True, help="Sides of the holes.")
@click.option("--seeds", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option(
    "--per-seed",
    type=click.IntRange(1),
    help="So many holes of each seed, fields and sizes by turns.  [default: all of them]",
)
@click.option("--side", type=click.IntRange(16), default=64, show_default=True, help="Of the pictures.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@format_option
def flat_fields(
    model: str, names: str | None, holes: str, seeds: int, per_seed: int | None, side: int, threads: int, form: Format
) -> None:
    """Fill holes in flat areas with faint noise and say how far what is painted is from what is right."""
    torch.set_num_threads(threads)
    chosen = dict(RECOMMENDED)
    if names is not None:
        chosen = {}
        for name in (text.strip() for text in names.split(";") if text.strip()):
            text, _, steps = name.rpartition(":")
            if name not in RECOMMENDED and not (text and steps.isdigit()):
                raise ValueError(f"--methods must be like good;ding:delayed=true:50;ddnm:25; got {names!r}.")
            chosen[name] = RECOMMENDED[name] if name in RECOMMENDED else Way(method_of(text), int(steps))
    sizes = [int(size) for size in holes.split(",")]
    if not all(0 < size < side for size in sizes):
        raise ValueError(f"--holes must be sides smaller than the pictures' {side}; got {holes!r}.")
    denoiser, every = models.load(model).denoiser(), every_hole(every_field(), sizes, seeds, per_seed)
    results = [
        one
        for label, way in chosen.items()
        for one in fill(f"{label} ({way.method.name}, {way.steps} steps)", way, denoiser, every, side=side)
    ]
    emit(form, [asdict(one) for one in results], table(results))


if __name__ == "__main__":
    run(flat_fields)
