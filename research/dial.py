"""Two choices behind `quality`: which of eight draws `best` answers with, and up to where a hole is thin.

    python -m research.dial draws --photos photos-val --lpips lpips_alex.safetensors --limit 6
    python -m research.dial disks --photos photos-val --lpips lpips_alex.safetensors --limit 10

`draws` lets rules that see no truth choose among eight draws of wide holes, and says by how much the LPIPS of what they
choose is lower than that of the eight on average. `disks` hides disks of one diameter and paints them as thin holes and
as wide ones. Intervals: 95 %, Student's t over pictures or holes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from numpy.typing import NDArray

from paintback.bench.holes import crops, mask_set
from paintback.bench.lpips import LPIPS
from paintback.bench.pictures.summary import half_width
from paintback.cli.output import table
from paintback.painting import layout, pyramid
from paintback.tasks.inpaint import Inpainter
from research.command import run

__all__ = ["RULES", "disks", "draws"]

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
CROP, DRAWS = 128, 8
KINDS = ("ellipse", "object", "outpaint", "quarter")
DIAMETERS = (6, 9, 11, 13, 16, 20)
HIDDEN = 500  # pixels under disks


def _across(picture: Pixels, hole: Mask, order: int) -> float:
    """The mean square of differences of an order that have pixels on both sides of the rim."""
    found = []
    for axis in (0, 1):
        sides = [hole.take(range(k, hole.shape[axis] - order + k), axis) for k in range(order + 1)]
        rim = np.logical_or.reduce(sides) & ~np.logical_and.reduce(sides)
        found.append((np.diff(picture.astype(float), order, axis=axis) ** 2).sum(-1)[rim])
    return float(np.concatenate(found).mean())


def _roughness(picture: Pixels, hole: Mask) -> float:
    """How far the mean step inside is from that of a ring of 12 pixels around, as a ratio's logarithm."""
    from scipy.ndimage import binary_dilation

    steps = np.abs(np.diff(picture.astype(float), axis=1)).sum(-1)
    ring = binary_dilation(hole, iterations=12) & ~hole
    inside, around = (float(steps[part[:, 1:] & part[:, :-1]].mean()) for part in (hole, ring))
    return abs(math.log(max(inside, 1e-9) / max(around, 1e-9)))


RULES: dict[str, Callable[[Sequence[Pixels], Mask, NDArray[np.float64]], list[float]]] = {
    "nearest to the mean": lambda made, hole, apart: [
        float(np.square(one[hole] - np.mean([each[hole].astype(float) for each in made], axis=0)).mean())
        for one in made
    ],
    "smallest step across the rim": lambda made, hole, apart: [_across(one, hole, 1) for one in made],
    "smallest change of slope there": lambda made, hole, apart: [_across(one, hole, 2) for one in made],
    "least LPIPS to the others": lambda made, hole, apart: apart.sum(1).tolist(),
    "as rough as the surroundings": lambda made, hole, apart: [_roughness(one, hole) for one in made],
}
"""The lowest is chosen: of the draws, (H, W, 3), the hole, (H, W), and their mutual LPIPS, (draws, draws)."""


def draws(photos: Path, lpips: Path, limit: int) -> list[tuple[str, ...]]:
    """A table of rules: how the LPIPS and PSNR of their choices differ from the mean of all draws."""
    inpainter, distance = _opened(lpips)
    rows: dict[str, list[tuple[float, float]]] = {rule: [] for rule in [*RULES, "knowing the truth"]}
    for number, (_, truth) in enumerate(crops(photos, CROP, limit)):
        for hole in mask_set(truth.shape[:2], number, KINDS, (), truth).values():
            output = inpainter(
                truth,
                hole,
                quality="good",
                num_images_per_prompt=DRAWS,
                generator=torch.Generator().manual_seed(number),
                output_type="np",
            )
            made = [_pixels(one) for one in output.images]
            psnr, far = np.array([(_psnr(truth, one, hole), distance(truth, one)) for one in made]).T
            apart = np.array([[distance(a, b) if a is not b else 0.0 for a in made] for b in made])
            chosen = {rule: int(np.argmin(measure(made, hole, apart))) for rule, measure in RULES.items()}
            for rule, k in {**chosen, "knowing the truth": int(np.argmin(far))}.items():
                rows[rule].append((float(far[k] - far.mean()), float(psnr[k] - psnr.mean())))
    return [
        ("the draw", "LPIPS, less the mean's", "PSNR, less the mean's, dB"),
        *((rule, *(_told([one[k] for one in found], 4 - 2 * k) for k in (0, 1))) for rule, found in rows.items()),
    ]


def disks(photos: Path, lpips: Path, limit: int) -> list[tuple[str, ...]]:
    """A table of diameters: disks painted as thin holes are, and as wide ones, by quality good."""
    inpainter, distance = _opened(lpips)
    rows: list[tuple[str, ...]] = [
        ("diameter", "as thin holes", "as wide holes", "PSNR, thin less wide, dB", "LPIPS, thin less wide")
    ]
    for diameter in DIAMETERS:
        found: dict[int, list[tuple[float, float]]] = {}
        for number, (_, truth) in enumerate(crops(photos, CROP, limit)):
            hole = _disks(diameter, np.random.default_rng(100 * number + diameter))
            for limit_of_thin in (99, 0):
                generator = torch.Generator().manual_seed(number)
                with patch.object(layout, "THIN", limit_of_thin), patch.object(pyramid, "THIN", limit_of_thin):
                    output = inpainter(truth, hole, quality="good", generator=generator, output_type="np")
                made = _pixels(output.images[0])
                found.setdefault(limit_of_thin, []).append((_psnr(truth, made, hole), distance(truth, made)))
        thin, wide = (np.array(found[limit_of_thin]) for limit_of_thin in (99, 0))
        means = [f"{psnr:.2f}, {far:.4f}" for psnr, far in (thin.mean(0), wide.mean(0))]
        rows.append((str(diameter), *means, *(_told((thin - wide)[:, k].tolist(), 2 + 2 * k) for k in (0, 1))))
    return rows


def _disks(diameter: int, rng: np.random.Generator) -> Mask:
    """Bool (CROP, CROP): disks that stay six pixels apart, until enough is hidden."""
    from scipy.ndimage import binary_dilation

    rows, columns = np.mgrid[:CROP, :CROP] + 0.5
    hole = np.zeros((CROP, CROP), bool)
    while hole.sum() < HIDDEN:
        row, column = rng.uniform(diameter, CROP - diameter, 2)
        disk = (rows - row) ** 2 + (columns - column) ** 2 <= (diameter / 2) ** 2
        if not (binary_dilation(hole, iterations=6) & disk).any():
            hole |= disk
    return hole


def _opened(lpips: Path) -> tuple[Inpainter, Callable[[Pixels, Pixels], float]]:
    inpainter = Inpainter.from_pretrained("photo")
    inpainter.set_progress_bar_config(disable=True)
    network = LPIPS(lpips)

    def distance(a: Pixels, b: Pixels) -> float:
        one, other = (torch.from_numpy(each).permute(2, 0, 1)[None].float() / 127.5 - 1 for each in (a, b))
        return float(network(one, other))

    return inpainter, distance


def _pixels(picture: Any) -> Pixels:
    return np.asarray(np.rint(np.asarray(picture) * 255), np.uint8)


def _psnr(truth: Pixels, made: Pixels, hole: Mask) -> float:
    return 10 * math.log10(255**2 / max(1e-5, float(np.square(truth[hole].astype(float) - made[hole]).mean())))


def _told(values: Sequence[float], digits: int) -> str:
    found = np.array(values)
    return f"{found.mean():+.{digits}f} ± {half_width(found):.{digits}f}"


@click.command("dial")
@click.argument("study", type=click.Choice(["draws", "disks"]))
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--lpips", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--limit", type=click.IntRange(min=2), default=6, show_default=True, help="How many photographs.")
def main(study: str, photos: Path, lpips: Path, limit: int) -> None:
    """Which draw `best` answers with, and up to where a hole is thin."""
    click.echo(table((draws if study == "draws" else disks)(photos, lpips, limit)))


if __name__ == "__main__":
    run(main)
