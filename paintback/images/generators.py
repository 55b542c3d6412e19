"""Masks made up: boxes, halves, strokes, scratches, text. True (white) means repaint.

Shapes are (H, W). What is random draws from the generator that is passed, and from nothing else.
"""

from __future__ import annotations

from math import ceil, cos, floor, pi, sin
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paintback.images.errors import PictureError

Mask = NDArray[np.bool_]
Shape = tuple[int, int]


def free_form(shape: Shape, rng: np.random.Generator, coverage: float = 0.25) -> Mask:
    """Brush strokes as a hand would draw them: wandering, round ended, until they cover enough.

    Args:
        shape: (H, W).
        rng: source of randomness.
        coverage: part of the pixels to cover, in (0, 1); overshot by one dab at most (about 2 % of the picture).

    Raises:
        PictureError: coverage out of range.
    """
    if not 0 < coverage < 1:
        raise PictureError(f"coverage is {coverage}, expected a number between 0 and 1; 0.25 is usual.")
    height, width = _checked(shape)
    mask = np.zeros(shape, bool)
    wanted, covered = max(1, round(coverage * height * width)), 0
    scale = (height * width) ** 0.5
    while covered < wanted:
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        heading = rng.uniform(0, 2 * pi)
        radius = scale * rng.uniform(0.02, 0.06)
        for _ in range(int(rng.integers(4, 16))):
            heading += rng.normal(0, 0.6)
            step = scale * rng.uniform(0.02, 0.1)
            y_next = float(np.clip(y + step * sin(heading), 0, height))
            x_next = float(np.clip(x + step * cos(heading), 0, width))
            covered += _stroke(mask, (y, x), (y_next, x_next), radius)
            y, x = y_next, x_next
            if covered >= wanted:
                break
    return mask


def box(shape: Shape, rng: np.random.Generator | None = None, size: float | tuple[int, int] = 0.5) -> Mask:
    """One rectangle, centred, or anywhere when there is a generator.

    Args:
        shape: (H, W).
        rng: source of randomness for the place, or None.
        size: part of each side in (0, 1], or (height, width) in pixels.

    Raises:
        PictureError: size out of range.
    """
    height, width = _checked(shape)
    if isinstance(size, tuple):
        h, w = size
    else:
        h, w = max(1, round(height * size)), max(1, round(width * size))
    if (not isinstance(size, tuple) and not 0 < size <= 1) or not (0 < h <= height and 0 < w <= width):
        raise PictureError(
            f"the box was to be {size}, expected a part in (0, 1] or (height, width) within {shape}; make it smaller."
        )
    top, left = (height - h) // 2, (width - w) // 2
    if rng is not None:
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    mask = np.zeros(shape, bool)
    mask[top : top + h, left : left + w] = True
    return mask


def half(shape: Shape, side: Literal["left", "right", "top", "bottom"] = "right") -> Mask:
    """One half of the picture; of an odd side the smaller part.

    Raises:
        PictureError: unknown side.
    """
    height, width = _checked(shape)
    mask = np.zeros(shape, bool)
    if side == "left":
        mask[:, : width // 2] = True
    elif side == "right":
        mask[:, width - width // 2 :] = True
    elif side == "top":
        mask[: height // 2] = True
    elif side == "bottom":
        mask[height - height // 2 :] = True
    else:
        raise PictureError(f"side is {side!r}, expected left, right, top or bottom; choose one.")
    return mask


def checkerboard(shape: Shape, cell: int = 32) -> Mask:
    """Every other cell of a board, the top left one kept.

    Raises:
        PictureError: cell is below 1.
    """
    height, width = _checked(shape)
    if cell < 1:
        raise PictureError(f"cell is {cell} pixels, expected 1 or more; 32 is usual.")
    return np.asarray((np.arange(height)[:, None] // cell + np.arange(width) // cell) % 2 == 1)


def outpaint(shape: Shape, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> Mask:
    """The new area around a picture of the given shape, as a mask of the larger canvas.

    Returns:
        bool (top + H + bottom, left + W + right), True in the new area.

    Raises:
        PictureError: a negative margin, or no margin at all.
    """
    height, width = _checked(shape)
    if min(left, top, right, bottom) < 0 or left + top + right + bottom == 0:
        raise PictureError(
            f"the margins are left {left}, top {top}, right {right}, bottom {bottom}, expected 0 or more and at least "
            "one above 0; say how many pixels to add."
        )
    mask = np.ones((top + height + bottom, left + width + right), bool)
    mask[top : top + height, left : left + width] = False
    return mask


def lines(shape: Shape, rng: np.random.Generator, width: float = 2.0, count: int = 12) -> Mask:
    """Thin scratches across the picture, slightly bent.

    Args:
        shape: (H, W).
        rng: source of randomness.
        width: of a scratch, in pixels.
        count: how many.

    Raises:
        PictureError: width or count not above 0.
    """
    height, breadth = _checked(shape)
    if not width > 0 or count < 1:
        raise PictureError(
            f"{count} lines of width {width} were asked for, expected at least 1 and above 0; raise them."
        )
    mask = np.zeros(shape, bool)
    for _ in range(count):
        y, x = rng.uniform(0, height), rng.uniform(0, breadth)
        heading, bend = rng.uniform(0, 2 * pi), rng.normal(0, 0.05)
        step = max(height, breadth) * rng.uniform(0.02, 0.06)
        for _ in range(16):
            heading += bend
            y_next, x_next = y + step * sin(heading), x + step * cos(heading)
            _stroke(mask, (y, x), (y_next, x_next), max(width, 1) / 2)
            y, x = y_next, x_next
    return mask


def text(shape: Shape, string: str = "Paintback", size: int | None = None) -> Mask:
    """Overprinted text: the string repeated over the whole picture, in Pillow's built-in font.

    Args:
        shape: (H, W).
        string: what is printed.
        size: height of the letters in pixels; a tenth of the picture's height when None.

    Raises:
        PictureError: an empty string, or a size below 1.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = _checked(shape)
    size = max(8, height // 10) if size is None else size
    if not string.strip() or size < 1:
        raise PictureError(f"text {string!r} of size {size} was asked for, expected letters and 1 or more; give both.")
    font = ImageFont.load_default(size)
    im = Image.new("L", (width, height))
    draw = ImageDraw.Draw(im)
    word = " ".join(string.split()) + "  "
    advance = max(1.0, draw.textlength(word, font=font))
    row = word * (ceil(width / advance) + 1)
    for line, y in enumerate(range(0, height, ceil(size * 1.5))):
        # Each row is moved on, so that the words do not stand in columns.
        draw.text((-(line * advance * 0.37 % advance), y), row, fill=255, font=font)
    return np.asarray(im) > 127


def _checked(shape: Shape) -> Shape:
    if len(shape) != 2 or min(shape) < 1:
        raise PictureError(
            f"the shape is {tuple(shape)}, expected (height, width) of 1 or more; give the picture's shape."
        )
    return shape


def _stroke(mask: Mask, start: tuple[float, float], end: tuple[float, float], radius: float) -> int:
    """Paint a segment with round ends into the mask; points are (y, x), pixel centres at + 0.5.

    Returns:
        How many pixels have become white.
    """
    (y0, x0), (y1, x1) = start, end
    rows = slice(max(0, floor(min(y0, y1) - radius)), max(0, ceil(max(y0, y1) + radius)))
    columns = slice(max(0, floor(min(x0, x1) - radius)), max(0, ceil(max(x0, x1) + radius)))
    window = mask[rows, columns]
    if window.size == 0:
        return 0
    y = np.arange(window.shape[0])[:, None] + rows.start + 0.5
    x = np.arange(window.shape[1]) + columns.start + 0.5
    dy, dx = y1 - y0, x1 - x0
    along = ((y - y0) * dy + (x - x0) * dx) / max(dy * dy + dx * dx, 1e-12)
    along = np.clip(along, 0, 1)
    painted = (y - y0 - along * dy) ** 2 + (x - x0 - along * dx) ** 2 <= radius * radius
    before = int(np.count_nonzero(window))
    window |= painted
    return int(np.count_nonzero(window)) - before
