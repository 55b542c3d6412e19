"""`pb.inpaint` beside `cv2.inpaint` and scikit-image's `inpaint_biharmonic` on the gallery, with times.

    python -m research.beside_opencv -o OUT

Each is called on the same arrays with its defaults (OpenCV: radius 3), once to warm up and once timed, on one thread
and by the process's own CPU time, which other programs on the machine disturb little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

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
        yield f"pb.inpaint, {quality}", partial(_paint, quality)


def _paint(quality: Literal["fast", "good"], picture: Array, mask: Array) -> Array:
    return np.asarray(pb.inpaint(picture, mask, quality=quality, generator=0).images[0])


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--names", default=",".join(NAMES), show_default=True, help="Pictures of the gallery.")
@click.option("--shrink", type=click.IntRange(1), default=1, show_default=True, help="Make their sides smaller.")
def beside_opencv(out: Path, names: str, shrink: int) -> None:
    """Time the gallery, and put the results side by side."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    pictures, holes = {}, {}
    for name in names.split(","):
        with Image.open(GALLERY / f"{name}.jpg") as photo, Image.open(GALLERY / f"{name}-mask.png") as mask:
            pictures[name] = np.asarray(photo.convert("RGB").reduce(shrink))
            holes[name] = np.where(np.asarray(mask.convert("L").reduce(shrink)) > 0, 255, 0).astype(np.uint8)
    done = {name: [picture] for name, picture in pictures.items()}
    sizes = [f"{name}, {one.shape[1]} x {one.shape[0]}" for name, one in pictures.items()]
    rows = ["| CPU seconds | " + " | ".join(sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for label, call in ways():
        call(next(iter(pictures.values()))[:96, :96], _somewhere())
        seconds = []
        for name, picture in pictures.items():
            began = time.process_time()
            made = call(picture, holes[name])
            seconds.append(time.process_time() - began)
            if not np.array_equal(made[holes[name] == 0], picture[holes[name] == 0]):
                raise ValueError(f"{label} changed {name} outside the mask.")
            done[name].append(made)
        rows.append(f"| {label} | " + " | ".join(f"{one:.2f}" for one in seconds) + " |")
        (out / "times.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    sheets = []
    for name, every in done.items():
        middle = [
            (int(one[0]) + int(one[-1])) // 2 for one in map(np.flatnonzero, (holes[name].any(1), holes[name].any(0)))
        ]
        top, left = (min(max(0, at - 70), side - 140) for at, side in zip(middle, every[0].shape, strict=False))
        sheets.append(np.concatenate([one[top : top + 140, left : left + 140] for one in every], axis=1))
    Image.fromarray(np.concatenate(sheets)).save(out / "beside.jpg", quality=75)
    click.echo((out / "times.md").read_text(encoding="utf-8"), nl=False)


def _somewhere() -> Array:
    """A mask that has a hole, for the call that warms up."""
    hole = np.zeros((96, 96), np.uint8)
    hole[40:44, 40:44] = 255
    return hole


if __name__ == "__main__":
    run(beside_opencv)
