"""How well dust, scratches and print are found: damage of known place on pictures, precision and recall.

    python -m research.finding -o docs/figures/finding.jpg

The pictures are those of scikit-image (CC0 and public domain) and the undamaged parts of the shipped examples are not
used. Damage is drawn from a seed of its own for each picture; what changes no channel by more than twenty levels is not
seen, and does not count. Recall is the part of the damage that the mask covers; precision the part of the mask that
lies within three pixels of damage. `clean` is the part of the undamaged picture that is taken for damage.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from paintback.cli.output import Format, emit, format_option
from paintback.images import Picture, lines
from paintback.images.finding import find
from research.command import run

__all__ = ["Found", "damaged", "measure", "pictures", "table"]

PICTURES = ("astronaut", "camera", "coffee", "chelsea", "rocket", "brick", "coins", "grass")
KINDS = ("dust", "scratches", "text")
SEEN = 20  # levels
NEAR = 3  # pixels
INKS = ((255, 255, 255), (255, 220, 0), (255, 140, 0), (0, 0, 0), (255, 0, 0))

Array = NDArray[Any]


@dataclass(frozen=True)
class Found:
    """One kind of damage on one picture, means over seeds.

    Attributes:
        kind: dust, scratches or text.
        picture: name in scikit-image.
        precision: part of the mask near damage; NaN where the mask is empty.
        recall: part of the damage in the mask.
        damage: part of the picture that is damaged.
        clean: part of the undamaged picture that is taken for damage.
    """

    kind: str
    picture: str
    precision: float
    recall: float
    damage: float
    clean: float


def pictures() -> dict[str, Array]:
    """Photographs of scikit-image, (H, W, 3) uint8."""
    from skimage import data

    found = {name: getattr(data, name)() for name in PICTURES}
    return {name: np.repeat(one[..., None], 3, -1) if one.ndim == 2 else one[..., :3] for name, one in found.items()}


def damaged(photo: Array, kind: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """A damaged copy, and (H, W) bool: where the damage is seen."""
    share, level = {"dust": _dust, "scratches": _scratches, "text": _text}[kind](photo.shape[:2], rng)
    out = np.rint(photo * (1 - share[..., None]) + level * share[..., None]).astype(np.uint8)
    return out, np.abs(out.astype(int) - photo).max(axis=2) > SEEN


def _dust(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Array, Array]:
    share, level = np.zeros(shape), np.zeros((*shape, 1))
    y, x = np.indices(shape)
    for _ in range(60):
        middle = rng.uniform(0, shape)
        radius, squeezed = rng.uniform(0.8, 2.8), rng.uniform(0.6, 1)
        own = np.clip(radius + 0.5 - np.hypot((y - middle[0]) * squeezed, x - middle[1]), 0, 1) * rng.uniform(0.6, 1)
        level[own > share] = 255 if rng.random() < 0.7 else 0
        share = np.maximum(share, own)
    return share, level


def _scratches(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Array, Array]:
    share, level = np.zeros(shape), np.zeros((*shape, 1))
    for _ in range(6):
        width = float(rng.choice([1.0, 1.5, 2.0, 3.0]))
        fine = lines((3 * shape[0], 3 * shape[1]), rng, 3 * width, 1)
        own = fine.reshape(shape[0], 3, shape[1], 3).mean(axis=(1, 3)) * rng.uniform(0.5, 0.95)
        level[own > share] = 255 if rng.random() < 0.7 else 10
        share = np.maximum(share, own)
    return share, level


def _text(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Array, Array]:
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("L", (shape[1], shape[0]))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(int(rng.uniform(14, 36)))
    for words, right, top in (("Copyright 1999", 0.3, (0.1, 0.4)), ("12.31.99 23:58", 0.4, (0.6, 0.85))):
        draw.text((rng.uniform(0.02, right) * shape[1], rng.uniform(*top) * shape[0]), words, fill=255, font=font)
    return np.asarray(page) / 255, np.array(INKS[int(rng.integers(len(INKS)))], float)


def measure(kind: str, name: str, photo: Array, seeds: int) -> tuple[Found, Array]:
    """Precision and recall on one picture, and the first seed's damage beside what was found of it."""
    from scipy.ndimage import distance_transform_edt

    rows, shown = [], np.zeros(0)
    for seed in range(seeds):
        worn, truth = damaged(photo, kind, np.random.default_rng(seed))
        mask = _find(kind, worn)
        near = distance_transform_edt(~truth) <= NEAR
        precision = (mask & near).sum() / mask.sum() if mask.any() else np.nan
        rows.append((precision, (mask & truth).sum() / truth.sum(), truth.mean()))
        if not seed:
            shown = np.concatenate([worn, _overlay(worn, mask, truth)], axis=1)
    precisions, recalls, damage = (np.array(column) for column in zip(*rows, strict=True))
    precision = float(np.nanmean(precisions)) if not np.isnan(precisions).all() else float("nan")
    clean = float(_find(kind, photo).mean())
    return Found(kind, name, precision, float(recalls.mean()), float(damage.mean()), clean), shown


def _find(kind: str, photo: Array) -> Array:
    try:
        return find(kind, Picture(photo))
    except ValueError:  # nothing was found
        return np.zeros(photo.shape[:2], bool)


def _overlay(worn: Array, mask: Array, truth: Array) -> Array:
    """Green: found; blue: missed; red: found where nothing is."""
    out = worn.astype(float)
    for where, colour in ((mask & ~truth, (255, 0, 0)), (truth & ~mask, (0, 80, 255)), (mask & truth, (0, 255, 0))):
        out[where] = out[where] * 0.3 + np.array(colour) * 0.7
    return out.astype(np.uint8)


def table(rows: list[Found]) -> str:
    """Precision / recall of every picture and kind, and the means, as Markdown."""
    names = list(dict.fromkeys(row.picture for row in rows))
    by = {(row.kind, row.picture): row for row in rows}
    kinds = list(dict.fromkeys(row.kind for row in rows))
    out = ["| picture | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for name in names:
        cells = [f"{by[kind, name].precision:.2f} / {by[kind, name].recall:.2f}" for kind in kinds]
        out.append(f"| {name} | {' | '.join(cells)} |")
    means = []
    for kind in kinds:
        own = [row for row in rows if row.kind == kind]
        means.append(f"{np.nanmean([r.precision for r in own]):.2f} / {np.mean([r.recall for r in own]):.2f}")
    out.append(f"| mean | {' | '.join(means)} |")
    clean = [f"{100 * np.mean([row.clean for row in rows if row.kind == kind]):.2f} %" for kind in kinds]
    out.append(f"| taken of the undamaged pictures | {' | '.join(clean)} |")
    return "\n".join(out)


@click.command("finding")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Draws of damage for each picture.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A sheet of what was found, to look at.")
@format_option
def main(seeds: int, out: Path | None, form: Format) -> None:
    """Measure how well dust, scratches and print are found."""
    rows, tiles = [], []
    for kind in KINDS:
        for name, photo in pictures().items():
            row, shown = measure(kind, name, photo, seeds)
            rows.append(row)
            if name in ("astronaut", "camera", "rocket"):
                tiles.append(shown)
    if out is not None:
        from PIL import Image

        small = [np.asarray(Image.fromarray(tile).resize((560, 280), Image.Resampling.LANCZOS)) for tile in tiles]
        columns = [np.concatenate(small[k::3]) for k in range(3)]
        Image.fromarray(np.concatenate(columns, axis=1)).save(out, quality=85)
    emit(form, [asdict(row) for row in rows], table(rows))


if __name__ == "__main__":
    run(main)
