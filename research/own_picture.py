"""The model `self` beside `photo`, with and without such patches, and Telea's filler, at eight places of photographs.

    python -m research.own_picture --photos FOLDER --lpips FILE

The places were chosen by eye before anything was tuned, and settings were then tuned on them: water, grass, a meadow,
dead leaves, a mushroom, a castle's roof, clouds, pavement. Each loses a box of 55 pixels or an ellipse of 119 x 91.
PSNR is that of the hole, LPIPS that of the 176 pixels around it, seconds are CPU seconds of one thread.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from paintback.bench.lpips import LPIPS
from paintback.cli.output import Format, emit, format_option, table
from paintback.images.picture import read_picture
from paintback.tasks.inpaint import Inpainter
from research.command import run

__all__ = ["ALONE", "PLACES", "hole", "measure"]

PLACES = (
    ("43051", 0.78, 0.25),
    ("268074", 0.6, 0.3),
    ("36046", 0.72, 0.65),
    ("69022", 0.78, 0.78),
    ("208078", 0.5, 0.5),
    ("201080", 0.55, 0.5),
    ("179084", 0.25, 0.55),
    ("249021", 0.7, 0.3),
)
AROUND = 176  # pixels
ALONE = ", the network alone"
Array = NDArray[Any]


def hole(shape: tuple[int, int], kind: str, down: float, right: float) -> tuple[Array, tuple[slice, slice]]:
    """A hole at a place of a picture, (H, W) bool, and the square around it.

    Args:
        shape: (H, W).
        kind: "box" or "ellipse".
        down: the middle, as a part of the height.
        right: likewise of the width.
    """
    height, width = shape
    row = min(max(int(height * down), 50), height - 50)
    column = min(max(int(width * right), 64), width - 64)
    y, x = np.mgrid[:height, :width]
    if kind == "box":
        lost = (abs(y - row) < 28) & (abs(x - column) < 28)
    else:
        lost = ((y - row) / 45) ** 2 + ((x - column) / 59) ** 2 <= 1
    top, left = (
        min(max(0, middle - AROUND // 2), side - AROUND)
        for middle, side in zip((row, column), (height, width), strict=True)
    )
    return lost, (slice(top, top + AROUND), slice(left, left + AROUND))


def measure(photos: Path, metric: LPIPS, kind: str, models: tuple[str, ...]) -> list[dict[str, Any]]:
    """Means over the places, one row for Telea's filler and for each model.

    Args:
        photos: the folder.
        metric: LPIPS with its weights.
        kind: of hole.
        models: names; with `ALONE` after it, a network without the picture's own patches.

    Raises:
        ValueError: if the folder lacks a photograph.
    """
    import cv2

    inpainters = {name: Inpainter.from_pretrained(name.removesuffix(ALONE)) for name in models}
    for name, inpainter in inpainters.items():
        if name.endswith(ALONE):
            inpainter.policy = replace(inpainter.policy, own_below=0.0)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ("telea", *models)}
    for name, down, right in PLACES:
        picture = read_picture(photos / f"{name}.jpg").to_uint8().pixels
        lost, around = hole(picture.shape[:2], kind, down, right)
        for filler, scores in found.items():
            began = time.process_time()
            if filler == "telea":
                filled = cv2.inpaint(picture, lost.astype(np.uint8) * 255, 3, cv2.INPAINT_TELEA)
            else:
                generator = torch.Generator().manual_seed(0)
                filled = np.asarray(inpainters[filler](picture, lost, generator=generator).images[0])
            seconds = time.process_time() - began
            error = np.square(filled[lost].astype(float) - picture[lost]).mean()
            there, truth = (
                torch.from_numpy(array[around].copy()).permute(2, 0, 1)[None] / 127.5 - 1 for array in (filled, picture)
            )
            scores.append((10 * np.log10(255**2 / error), float(metric(there, truth)), seconds))
    return [
        {
            "hole": kind,
            "filler": filler,
            **dict(zip(("psnr", "lpips", "seconds"), np.mean(scores, 0), strict=True)),
            "places": {name: lpips for (name, *_), (_, lpips, _) in zip(PLACES, scores, strict=True)},
        }
        for filler, scores in found.items()
    ]


@click.command(name="own-picture")
@click.option("--photos", type=click.Path(path_type=Path), required=True, help="Validation photographs of BSDS500.")
@click.option("--lpips", type=click.Path(path_type=Path), required=True, help="Weights of LPIPS, safetensors.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["box", "ellipse"]), help="Both by default.")
@click.option("--model", "models", multiple=True, default=("photo", "photo" + ALONE, "self"), help="Models to compare.")
@format_option
def main(photos: Path, lpips: Path, kinds: tuple[str, ...], models: tuple[str, ...], form: Format) -> None:
    """Measure the model `self` beside others, at eight places of validation photographs."""
    torch.set_num_threads(1)
    metric = LPIPS(lpips)
    rows = [row for kind in kinds or ("box", "ellipse") for row in measure(photos, metric, kind, models)]
    cells = [
        (row["hole"], row["filler"], f"{row['psnr']:.2f}", f"{row['lpips']:.4f}", f"{row['seconds']:.1f}")
        for row in rows
    ]
    emit(form, rows, table(cells))


if __name__ == "__main__":
    run(main)
