"""`pb.inpaint` beside `cv2.inpaint` and scikit-image's `inpaint_biharmonic` on the gallery, with times.

    python -m research.beside_opencv -o OUT

Each is called on the same arrays with its defaults (OpenCV: radius 3), once to warm up and once timed, on one thread
and by the process's own CPU time, which other programs on the machine disturb little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import paintback as pb
from research.command import run

__all__ = ["ways"]

GALLERY = Path(pb.__file__).resolve().parent / "examples"
NAMES = ("scratches", "text", "object")
Array = NDArray[Any]


def ways() -> Iterator[tuple[str, Callable[[Array, Array], Array]]]:
    """The label and the call of each: an RGB array of uint8 and a mask of uint8 in, an array of uint8 out."""
    import cv2
    from skimage.restoration import inpaint_biharmonic

    cv2.setNumThreads(1)
    yield "cv2.INPAINT_TELEA", lambda picture, mask: cv2.inpaint(picture, mask, 3, cv2.INPAINT_TELEA)
    yield "cv2.INPAINT_NS", lambda picture, mask: cv2.inpaint(picture, mask, 3, cv2.INPAINT_NS)
    yield (
        "inpaint_biharmonic",
        lambda picture, mask: np.rint(inpaint_biharmonic(picture, mask > 0, channel_axis=-1) * 255).astype(np.uint8),
    )
    for quality in ("fast", "good"):
        yield (
            f"pb.inpaint, {quality}",
            lambda picture, mask, quality=quality: pb.inpaint(
                picture, mask, quality=quality, generator=0, bgr=False
            ).images[0],
        )


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--names", default=",".join(NAMES), show_default=True, help="Pictures of the gallery.")
def beside_opencv(out: Path, names: str) -> None:
    """Time the gallery, and put the results side by side."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows, sheets = [], []
    pictures = {name: np.asarray(Image.open(GALLERY / f"{name}.jpg").convert("RGB")) for name in names.split(",")}
    holes = {name: np.asarray(Image.open(GALLERY / f"{name}-mask.png").convert("L")) for name in pictures}
    done = {name: [picture] for name, picture in pictures.items()}
    for label, call in ways():
        seconds = []
        for name, picture in pictures.items():
            hole = np.where(holes[name] > 127, 255, 0).astype(np.uint8)
            if not seconds:
                call(picture[:96, :96], _somewhere(hole[:96, :96]))
            began = time.process_time()
            made = call(picture, hole)
            seconds.append(time.process_time() - began)
            if not np.array_equal(made[hole == 0], picture[hole == 0]):
                raise ValueError(f"{label} changed {name} outside the mask.")
            done[name].append(made)
        rows.append(f"| {label} | " + " | ".join(f"{one:.2f}" for one in seconds) + " |")
    sizes = [f"{name}, {one.shape[1]} x {one.shape[0]}" for name, one in pictures.items()]
    head = ["| CPU seconds | " + " | ".join(sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    (out / "times.md").write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
    for name, made in done.items():
        down, across = (np.flatnonzero((holes[name] > 127).any(axis)) for axis in (1, 0))
        top, left = (max(0, int((one[0] + one[-1]) // 2) - 80) for one in (down, across))
        sheets.append(np.concatenate([one[top : top + 160, left : left + 160] for one in made], axis=1))
    width = min(sheet.shape[1] for sheet in sheets)
    Image.fromarray(np.concatenate([sheet[:, :width] for sheet in sheets])).save(out / "beside.jpg", quality=80)
    click.echo((out / "times.md").read_text(encoding="utf-8"), nl=False)


def _somewhere(hole: Array) -> Array:
    """A mask that has a hole, for the call that warms up."""
    hole = np.zeros_like(hole)
    hole[40:44, 40:44] = 255
    return hole


if __name__ == "__main__":
    run(beside_opencv)
