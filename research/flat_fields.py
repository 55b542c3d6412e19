"""Flat areas with faint noise, as of scanned paper: does what is painted stay what is around it?

A field is one level or colour, or a gradient, with Gaussian noise that is the same in all channels, rounded to 8 bits;
a square is missing in its middle. The noise-free field is the right answer, up to the noise: a pixel is wrong where it
is farther from it than 6 noise deviations and 12 levels. A prior learnt from photographs does not take faint white
noise for a picture's own, so that fields try a method where its model is worst, and nothing but the field is right.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import torch
from torch import Tensor

from paintback import models
from paintback.cli.bench import method_of
from paintback.cli.output import Format, emit, format_option
from paintback.denoiser import Denoiser
from paintback.methods import get
from paintback.methods.base import Method
from paintback.observation import Observation
from research.command import run

__all__ = ["RECOMMENDED", "Field", "Filled", "every_field", "fill", "table"]

RECOMMENDED: dict[str, tuple[str, dict[str, Any], int]] = {
    "fmm": ("fmm", {}, 16),
    "ding": ("ding", {}, 25),
    "ding, delayed": ("ding", {"delayed": True}, 50),
    "ddnm": ("ddnm", {}, 50),
    "lanpaint": ("lanpaint", {}, 20),
    "aid": ("aid", {}, 50),
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
class Filled:
    """What became of the hole in one field.

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


@torch.no_grad()
def fill(
    label: str,
    method: Method,
    steps: int,
    denoiser: Denoiser,
    fields: Sequence[Field],
    *,
    side: int = 64,
    hole: int = 20,
    seed: int = 0,
    batch: int = 32,
) -> list[Filled]:
    """Fills the hole of every field.

    Args:
        label: of the method.
        method: that fills.
        steps: its grid intervals.
        denoiser: of a model of colour pictures.
        fields: to fill.
        side: of the pictures.
        hole: side of the hole, which is in the middle.
        seed: of the noise and of the runs; a field's result does not depend on the others.
        batch: fields at a time.
    """
    known = torch.ones(3, side, side, dtype=torch.bool)
    inside = slice((side - hole) // 2, (side - hole) // 2 + hole)
    known[:, inside, inside] = False
    results = []
    for first in range(0, len(fields), batch):
        some = fields[first : first + batch]
        given = torch.stack([one.noisy(side, torch.Generator().manual_seed(10_000 + seed)) for one in some])
        generators = [torch.Generator().manual_seed(seed) for _ in some]
        x = method.sample(denoiser, Observation(given / 127.5 - 1, known), steps, generators).x
        made = ((x.cpu() + 1) * 127.5).clamp(0, 255).round()
        for one, picture in zip(some, made, strict=True):
            gap = (picture - one.clean(side)).abs()[~known]
            worst = float(gap.max())
            results.append(
                Filled(label, one.name, one.noise, hole, seed, worst, float(gap.mean()), worst - one.allowed)
            )
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
    "--methods", "names", help=f"NAME[:field=value...]:STEPS,... in place of {', '.join(RECOMMENDED)}.", metavar="LIST"
)
@click.option("--holes", default="8,20,32", show_default=True, help="Sides of the holes.")
@click.option("--seeds", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option("--side", type=click.IntRange(16), default=64, show_default=True, help="Of the pictures.")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Takes every so-manieth field.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Begins no further seed after that long.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@format_option
def flat_fields(
    model: str,
    names: str | None,
    holes: str,
    seeds: int,
    side: int,
    every: int,
    minutes: float | None,
    threads: int,
    form: Format,
) -> None:
    """Fill holes in flat areas with faint noise and say how far what is painted is from what is right."""
    torch.set_num_threads(threads)
    chosen = {label: (get(name, **fields), steps) for label, (name, fields, steps) in RECOMMENDED.items()}
    if names is not None:
        parts = [text.strip().rpartition(":") for text in names.split(",") if text.strip()]
        if not all(text and steps.isdigit() for text, _, steps in parts):
            raise ValueError(f"--methods must be like ding:delayed=true:50,ddnm:25; got {names!r}.")
        chosen = {f"{text}:{steps}": (method_of(text), int(steps)) for text, _, steps in parts}
    sizes = [int(size) for size in holes.split(",")]
    if not all(0 < size < side for size in sizes):
        raise ValueError(f"--holes must be sides smaller than the pictures' {side}; got {holes!r}.")
    denoiser, fields = models.load(model).denoiser(), every_field()[::every]
    began, results = time.monotonic(), []
    for seed in range(seeds):
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            click.echo(f"stopped after {seed} of {seeds} seeds", err=True)
            break
        for (label, (method, steps)), hole in itertools.product(chosen.items(), sizes):
            results += fill(label, method, steps, denoiser, fields, side=side, hole=hole, seed=seed)
    emit(form, [asdict(one) for one in results], table(results))


if __name__ == "__main__":
    run(flat_fields)
