"""Pictures of paper, print and line art, made here: what scans and screens have and photographs lack."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw"]

SIDE = 144
TEXT = (
    "the of and to in a is that it was for on are with as his they be at one have this from or had by hot word but "
    "what some we can out other were all there when up use your how said an each she which do their time if will way "
    "about many then them would write like so these her long make thing see him two has look more day could go come"
)
WORDS = TEXT.split()


def draw(count: int, *, seed: int = 0) -> list[np.ndarray]:
    """Draws pictures: flat and shaded paper, lines of print, strokes, shapes with flat colours.

    Args:
        count: how many.
        seed: of all of them.

    Returns:
        (144, 144, 3) uint8 each.
    """
    rng = np.random.default_rng((seed, 7))
    return [_one(rng) for _ in range(count)]


def _colour(rng: np.random.Generator, low: float = 0, high: float = 255) -> tuple[int, int, int]:
    base = rng.uniform(low, high)
    tint = rng.normal(0, 60 * rng.random() ** 2, 3)
    return tuple(int(v) for v in np.clip(base + tint, 0, 255))  # type: ignore[return-value]


def _one(rng: np.random.Generator) -> np.ndarray:
    big = 3 * SIDE  # drawn large and reduced, for smooth edges
    paper = rng.random() < 0.7
    ground = _colour(rng, 190, 255) if paper else _colour(rng)
    ink = _colour(rng, 0, 90) if sum(ground) > 380 else _colour(rng, 170, 255)
    picture = Image.new("RGB", (big, big), ground)
    pen = ImageDraw.Draw(picture)
    kind = rng.integers(4)
    if kind == 0:  # print
        size = int(rng.integers(24, 110))
        font = ImageFont.load_default(size)
        top = -int(rng.integers(size))
        while top < big:
            line = " ".join(rng.choice(WORDS, 12))
            line = line.upper() if rng.random() < 0.1 else line.capitalize() if rng.random() < 0.3 else line
            pen.text((-int(rng.integers(80)), top), line, fill=ink, font=font)
            top += int(size * rng.uniform(1.1, 1.8))
    elif kind == 1:  # strokes
        for _ in range(int(rng.integers(2, 14))):
            points = rng.uniform(-0.1, 1.1, (4, 2)) * big
            t = np.linspace(0, 1, 40)[:, None]
            curve = sum(math.comb(3, k) * t**k * (1 - t) ** (3 - k) * points[k] for k in range(4))
            colour = ink if rng.random() < 0.8 else _colour(rng)
            pen.line([tuple(p) for p in np.asarray(curve)], fill=colour, width=int(rng.integers(2, 16)), joint="curve")
    elif kind == 2:  # shapes
        for _ in range(int(rng.integers(2, 8))):
            low = rng.uniform(-0.2, 0.9, 2) * big
            box = [*low, *(low + rng.uniform(0.1, 0.7, 2) * big)]
            outline = ink if rng.random() < 0.6 else None
            shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
            shape(
                box, fill=_colour(rng) if rng.random() < 0.8 else None, outline=outline, width=int(rng.integers(2, 9))
            )
    else:  # rules of a form, or nothing
        gap = int(rng.integers(30, 140))
        for at in range(int(rng.integers(gap)), big, gap):
            pen.line((0, at, big, at), fill=ink, width=int(rng.integers(2, 6)))
            if rng.random() < 0.3:
                pen.line((at, 0, at, big), fill=ink, width=int(rng.integers(2, 6)))
    if rng.random() < 0.5:
        picture = picture.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BILINEAR, fillcolor=ground)
    pixels = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    if rng.random() < 0.6:  # light falls off
        ramp = np.linspace(-1, 1, SIDE)
        shade = 1 + rng.uniform(-0.15, 0.15) * ramp[:, None] + rng.uniform(-0.15, 0.15) * ramp
        pixels = pixels * shade[..., None]
    if rng.random() < 0.5:
        pixels = pixels + rng.normal(0, rng.uniform(0.5, 5), pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)
