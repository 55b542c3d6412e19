"""Which part of a picture is the hole: the one rule by which masks of any kind are understood.

1. Where transparency varies: strokes of one colour that is not dark are the hole (somebody has painted on an empty
   layer); white and black strokes count as a mask laid over black; in every other picture, dark or photographic, the
   hole is what is not opaque.
2. Of two levels, whatever they are, the lighter one is the hole: white on black, 1 on 0, red on black, an entry of a
   palette. Blurred and compressed borders between two levels do not count.
3. Several flat levels, black among them, as maps of labels and instances have: everything but black is the hole.
4. Everything else is cut at one half of white.

Plain white on black is read in silence. Otherwise one sentence says what was taken; for 3 and 4 it says what was seen
and names the option that settles it, `mask_is`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from paintback.images.errors import PictureError, Say
from paintback.images.picture import LUMA, Picture

__all__ = ["MASK_IS", "check_mask_is", "hole_of"]

Mask = NDArray[np.bool_]

MASK_IS = ("auto", "alpha", "white", "black", "nonzero", "colour=#rrggbb")
SETTLE = "mask_is (--mask-is) alpha, white, black, nonzero or colour=#rrggbb"
FEW = 64  # levels that a map of labels may have
SAMPLE = 1 << 17  # pixels that are looked at before all are
NEAR = 1 / 8  # of the way between two levels: what still is one of them
REACH = 2  # pixels from a border between two levels that it may be soft
SOFT, STRAY = 0.25, 0.005  # largest parts of a two-level mask that lie between the levels: near borders, elsewhere
DARK, LIGHT = 0.25, 0.75
SAME_COLOUR = 1 / 8  # largest difference to a colour that is named


def check_mask_is(mask_is: str | None) -> None:
    """Refuses an unknown way of reading a mask.

    Raises:
        PictureError: naming the ways.
    """
    if mask_is is not None and mask_is not in MASK_IS[:-1]:
        _named_colour(mask_is)


def hole_of(picture: Picture, mask_is: str | None, say: Say) -> Mask:
    """The hole that a picture given as a mask means.

    Args:
        picture: the mask.
        mask_is: "auto" or None for the rule above; "alpha": what is not opaque; "white": what is lighter than one half,
            laid over black; "black": what is visible and not lighter; "nonzero": what is visible and not quite black;
            "colour=#rrggbb": that colour, to an eighth of white.
        say: told in a sentence what was taken, unless it is white on black.

    Returns:
        bool (H, W).

    Raises:
        PictureError: an unknown mask_is, or "alpha" of a mask without transparency.
    """
    check_mask_is(mask_is)
    if mask_is in (None, "auto"):
        return _by_rule(picture, say)
    if mask_is == "alpha":
        if picture.alpha is None:
            raise PictureError("mask_is is alpha and the mask has no transparency; choose another, or leave it out.")
        return np.asarray(picture.alpha < picture.white)
    if mask_is == "nonzero":
        return np.asarray(picture.pixels.any(axis=2) & _visible(picture))
    if mask_is == "white":
        return np.asarray(_luma(picture) > 0.5)
    if mask_is == "black":
        return np.asarray((_luma(picture, over_black=False) <= 0.5) & _opaque(picture))
    colour = np.array(_named_colour(str(mask_is)), np.float32)
    far = np.abs(picture.pixels.astype(np.float32) / np.float32(picture.white) - colour).max(axis=2)
    return np.asarray((far <= SAME_COLOUR) & _visible(picture))


def _named_colour(mask_is: str) -> tuple[float, ...]:
    from PIL import ImageColor

    name, _, value = mask_is.partition("=") if isinstance(mask_is, str) else ("", "", "")
    try:
        if name not in ("colour", "color"):
            raise ValueError(mask_is)
        return tuple(channel / 255 for channel in ImageColor.getrgb(value)[:3])
    except ValueError:
        raise PictureError(f"mask_is is {mask_is!r}, expected one of {', '.join(MASK_IS)}; choose one.") from None


def _by_rule(picture: Picture, say: Say) -> Mask:
    if picture.white == 1:
        picture = picture.to_uint16()
    alpha = picture.alpha
    if alpha is not None and alpha.min() <= picture.white // 2 and alpha.min() < alpha.max():
        return _of_layer(picture, say)
    levels = _levels(picture.pixels)
    if len(levels) == 2:
        return _lighter(picture, levels, say)
    luma = _luma(picture)
    if len(levels) == 1:
        return np.asarray(luma > 0.5)
    if (found := _two_levels(luma)) is not None:
        dark, light, hole = found
        if dark > DARK or light < LIGHT:
            say(
                f"The mask has two levels with soft borders, {dark:.0%} and {light:.0%} of white; the lighter one, "
                f"{_part(hole)} of the picture, is repainted (another part: {SETTLE})."
            )
        return hole
    if levels and not any(map(any, levels[:1])):
        hole = np.asarray(picture.pixels.any(axis=2))
        names = [_name(level, picture) for level in levels]
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        say(
            f"The mask has {len(levels)} levels ({shown}), as a map of labels or instances has; all but black, "
            f"{_part(hole)} of the picture, is repainted (one of them alone: {SETTLE})."
        )
        return hole
    hole = np.asarray(luma > 0.5)
    seen = f"{len(levels)} levels" if levels else f"more than {FEW} levels, as a photograph or a soft brush has"
    say(
        f"The mask has {seen}; what is lighter than half of white, {_part(hole)} of the picture, is repainted; check "
        f"that photo and mask are not swapped, or say what is meant by {SETTLE}."
    )
    return hole


def _of_layer(picture: Picture, say: Say) -> Mask:
    """The hole of a mask whose transparency varies."""
    assert picture.alpha is not None
    opaque = _opaque(picture)
    colours = picture.pixels[opaque if opaque.any() else picture.alpha > 0]
    colours = colours[:: max(1, len(colours) // SAMPLE)].astype(np.float32) / np.float32(picture.white)
    usual = np.median(colours, axis=0)
    one = (np.abs(colours - usual).max(axis=1) <= NEAR).mean() >= 0.99
    if one and usual.max() > DARK:
        say(
            f"The mask is one colour on a transparent layer; the strokes, {_part(opaque)} of the picture, are "
            f"repainted (the transparent part instead: mask_is (--mask-is) alpha)."
        )
        return opaque
    flat = np.minimum(colours.max(axis=1), (1 - colours).max(axis=1)) <= NEAR
    if not one and flat.mean() >= 0.99 and colours.max() >= LIGHT:
        hole = np.asarray(_luma(picture) > 0.5)
        say(
            f"The mask is black and white with a transparent part; the white, {_part(hole)} of the picture, is "
            "repainted (the transparent part instead: mask_is (--mask-is) alpha)."
        )
        return hole
    hole = np.asarray(picture.alpha < picture.white)
    kind = "dark" if one else "of several colours"
    say(
        f"The mask is {kind} with a transparent part; what is not opaque, {_part(hole)} of the picture, is repainted "
        f"(what is visible instead: mask_is (--mask-is) {'black' if one else 'nonzero'})."
    )
    return hole


def _lighter(picture: Picture, levels: list[tuple[int, ...]], say: Say) -> Mask:
    """The lighter of two exact levels; of equally light ones the more colourful."""
    dark, light = sorted(levels, key=lambda level: (round(float(_weigh(level)), 6), max(level) - min(level), level))
    white = picture.white
    hole = np.ones(picture.shape, bool)
    for channel, value in enumerate(light):
        hole &= picture.pixels[..., channel] == value
    if max(dark) > DARK * white or min(light) < LIGHT * white:
        say(
            f"The mask has two levels, {_name(dark, picture)} and {_name(light, picture)}; the lighter one, "
            f"{_part(hole)} of the picture, is repainted (the other: {SETTLE})."
        )
    return hole


def _two_levels(luma: NDArray[np.float32]) -> tuple[float, float, Mask] | None:
    """The two levels of a mask with soft borders and its lighter part; None for what has no two levels."""
    from scipy import ndimage

    low, high = float(luma.min()), float(luma.max())
    if high - low < 4 / 255:  # noise about one level
        return None
    sample = luma.ravel()[:: max(1, luma.size // (4 * SAMPLE))]
    cut = _otsu(sample, low, high)
    below, above = sample[sample <= cut], sample[sample > cut]
    if not len(below) or not len(above):
        return None
    dark, light = float(np.quantile(below, 0.1)), float(np.quantile(above, 0.9))
    margin = NEAR * (light - dark)
    between = (luma > dark + margin) & (luma < light - margin)
    if between.mean() > SOFT:
        return None
    hole = np.asarray(luma > (dark + light) / 2)
    size = 2 * REACH + 1
    border = ndimage.maximum_filter(hole, size) & ~ndimage.minimum_filter(hole, size)
    if (between & ~border).mean() > STRAY:
        return None
    return dark, light, hole


def _otsu(values: NDArray[np.float32], low: float, high: float) -> float:
    """The cut that parts values best in two (Otsu 1979)."""
    counts, edges = np.histogram(values, 256, (low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def _levels(pixels: NDArray[Any]) -> list[tuple[int, ...]]:
    """The distinct colours of a picture, in rising order; an empty list where there are more than `FEW`."""
    bits = 8 * pixels.dtype.itemsize
    codes: NDArray[Any] = pixels[..., 0].ravel()
    if pixels.shape[2] == 3:
        wide = np.dtype(np.uint32 if bits == 8 else np.uint64)
        for channel in (1, 2):
            codes = codes.astype(wide) << wide.type(bits) | pixels[..., channel].ravel()
    found: list[int] = np.unique(codes[:: max(1, codes.size // SAMPLE)]).tolist()
    if len(found) > FEW:
        return []
    for code in found:
        codes = codes[codes != code]
    found = sorted({*found, *np.unique(codes[: 64 * SAMPLE]).tolist()})
    if len(found) > FEW:
        return []
    return [
        tuple(code >> bits * channel & (1 << bits) - 1 for channel in range(pixels.shape[2])[::-1]) for code in found
    ]


def _luma(picture: Picture, over_black: bool = True) -> NDArray[np.float32]:
    """(H, W) in [0, 1]."""
    unit = picture.pixels.astype(np.float32) / np.float32(picture.white)
    luma = unit[..., 0] if picture.grey else unit @ LUMA
    if over_black and picture.alpha is not None:
        luma = luma * (picture.alpha.astype(np.float32) / np.float32(picture.white))
    return np.asarray(luma, np.float32)


def _opaque(picture: Picture) -> Mask:
    if picture.alpha is None:
        return np.ones(picture.shape, bool)
    return np.asarray(picture.alpha > picture.white / 2)


def _visible(picture: Picture) -> Mask:
    return np.ones(picture.shape, bool) if picture.alpha is None else np.asarray(picture.alpha > 0)


def _weigh(level: tuple[int, ...]) -> float:
    return float(np.dot(level, LUMA)) if len(level) == 3 else level[0]


def _name(level: tuple[int, ...], picture: Picture) -> str:
    white = picture.white
    if len(level) == 3 and len(set(level)) > 1:
        return "#" + "".join(f"{round(value * 255 / white):02x}" for value in level)
    return "black" if level[0] == 0 else "white" if level[0] == white else f"{level[0]} of {white}"


def _part(hole: Mask) -> str:
    share = float(hole.mean())
    return f"{share:.1%}" if 0.0005 <= share < 0.9995 else f"{int(hole.sum())} pixels"
