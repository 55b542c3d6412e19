"""Finding what is to be painted back: dust, scratches, print, a colour, an object.

Dust and scratches are told from the picture by three things: they are smaller or thinner than what surrounds them, they
stand out against the texture there and not only against the mean, and they are whole: a spot is round, a scratch long.
scikit-image brings the ridge filter and the morphology, OpenCV the GrabCut; both come with `paintback[finding]`.

References: Sato et al. 1998 (ridges), Serra 1982 (top hats), Rother et al. 2004 (GrabCut).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paintback.images.errors import PictureError
from paintback.images.masks import Mask, grow, mask_from_alpha
from paintback.images.picture import LUMA, Picture
from paintback.images.resizing import resize_unit

__all__ = ["WORDS", "colour", "dust", "find", "object_at", "object_in", "refine", "same_as", "scratches", "text"]

Floats = NDArray[np.float32]

WORDS = ("dust", "scratches", "text", "alpha", "colour=#rrggbb", "same-as=X,Y", "object=X,Y,W,H", "object-at=X,Y")
SIDE = 1024  # longer side, in pixels, that lengths below are meant for
LARGEST = 1536  # longer side at which dust and scratches are looked for
SPOT = 4.0  # radius of the largest dust
WIDEST = 2.5  # half the width of the widest scratch
SHORTEST = 32.0  # length of the shortest scratch
PIECE = 21.0  # length of the straight pieces that it is made of
CROWD = 0.03  # part of a picture that scratches may cover before they are compared with each other
LETTERS = 4  # signs that make a row of print
BOXES = (0.05, 0.08, 0.125, 0.19, 0.28, 0.4)  # of a picture's longer side: half of the boxes that an object grows into
ALIKE = 12.0  # distance of colours in CIELAB that are taken for the same


def find(words: str, picture: Picture, sensitivity: float = 1.0) -> Mask:
    """What the words name.

    Args:
        words: of `WORDS`, several joined by "+", as in "dust+scratches".
        picture: where it is looked for.
        sensitivity: above 1, fainter damage is found too, and more that is none.

    Returns:
        bool (H, W), True = repaint.

    Raises:
        PictureError: an unknown word, a library that is not installed, or nothing found.
    """
    if not 0 < sensitivity < float("inf"):
        raise PictureError(f"sensitivity={sensitivity:g} cannot be, expected a number above 0; 1 is usual.")
    plain: dict[str, Callable[[], Mask]] = {
        "dust": lambda: dust(picture, sensitivity),
        "scratches": lambda: scratches(picture, sensitivity),
        "text": lambda: text(picture, sensitivity),
        "alpha": lambda: mask_from_alpha(picture),
    }
    mask = np.zeros(picture.shape, bool)
    for word in words.split("+"):
        name, _, value = word.strip().partition("=")
        if name in plain and not value:
            mask |= plain[name]()
        elif name in ("colour", "color"):
            mask |= colour(picture, value, ALIKE * sensitivity)
        elif name == "same-as":
            x, y = _numbers(word, value, 2)
            mask |= same_as(picture, x, y, ALIKE * sensitivity)
        elif name == "object":
            mask |= object_in(picture, *_numbers(word, value, 4))
        elif name == "object-at":
            mask |= object_at(picture, *_numbers(word, value, 2))
        else:
            raise PictureError(
                f"{word!r} cannot be looked for, expected one of {', '.join(WORDS)}, several joined by +; choose one."
            )
    if not mask.any():
        raise PictureError(f"no {words} was found in the picture; raise the sensitivity, or draw a mask.")
    return mask


def dust(picture: Picture, sensitivity: float = 1.0) -> Mask:
    """Small round spots that are lighter or darker than what surrounds them.

    Args:
        picture: where to look.
        sensitivity: see `find`.

    Returns:
        bool (H, W).
    """
    morphology, measure = _skimage("morphology"), _skimage("measure")
    luma, unit = _reduced(picture)
    radius = SPOT * unit
    footprint = morphology.disk(ceil(radius))
    out = np.zeros(luma.shape, bool)
    for sign in (1, -1):
        lifted = _top_hat(sign * luma, footprint)
        around = _texture(lifted, ceil(8 * radius))
        weak = lifted > np.maximum(0.03, 2.0 * around) / sensitivity
        for spot in measure.regionprops(measure.label(weak), intensity_image=lifted):
            small = 2 * unit * unit <= spot.area and spot.axis_major_length <= 2.4 * radius
            round_ = spot.axis_major_length <= 2.5 * spot.axis_minor_length + 1.5 * unit and spot.solidity >= 0.7
            if not (small and round_ and spot.intensity_max > 0.07 / sensitivity):
                continue
            if _contrast(spot, sign * luma, ceil(2 * unit)) >= 3.0 / sensitivity:
                out[tuple(spot.coords.T)] = True
    return _enlarged(grow(out, 1.5 * unit), picture.shape)


def scratches(picture: Picture, sensitivity: float = 1.0) -> Mask:
    """Thin long lines, lighter or darker than what lies on both sides.

    In each direction, a pixel stands out where it is lighter (or darker) than what lies at both sides of a line in that
    direction, which are about alike: at the edge of a thing they are not. It counts where four fifths of a straight
    piece through it stand out so, which leaves little of texture, however strong. Where lines cover much of a picture,
    they are mostly its own, and only those that stand out from these are taken.

    Args:
        picture: where to look.
        sensitivity: see `find`.

    Returns:
        bool (H, W).
    """
    from scipy import ndimage

    luma, unit = _reduced(picture)
    smooth = np.asarray(ndimage.gaussian_filter(luma, 0.6 * unit), np.float32)
    around = _texture(np.abs(luma - ndimage.gaussian_filter(luma, 2 * unit)), ceil(16 * unit))
    least = np.maximum(0.04, 1.5 * around) / sensitivity
    out = np.zeros(luma.shape, bool)
    for sign in (1, -1):
        found, usual = _lines(sign * smooth, least, unit)
        if found.mean() > CROWD:
            found, _ = _lines(sign * smooth, np.maximum(least, 1.5 * usual), unit)
        out |= found
    return _enlarged(grow(out, 1.5 * unit), picture.shape)


def _lines(luma: Floats, least: Floats, unit: float) -> tuple[Mask, float]:
    """Thin long lines that are lighter than their surroundings, and how far they stand out, usually."""
    cv2, measure = _cv2(), _skimage("measure")
    aside = (WIDEST + 1) * unit
    seeds, wider = np.zeros(luma.shape, bool), np.zeros(luma.shape, bool)
    lifts = np.zeros(luma.shape, np.float32)
    for angle, kernel in _segments(ceil(PIECE * unit)):
        step = round(aside * np.cos(angle)), round(-aside * np.sin(angle))
        left, right = _shifted(luma, *step), _shifted(luma, -step[0], -step[1])
        lift, edge = luma - (left + right) / 2, np.abs(left - right)
        for kind, stands_out in ((seeds, lift - edge > least), (wider, lift - edge / 2 > 0.6 * least)):
            share = cv2.filter2D(stands_out.astype(np.float32), -1, kernel / kernel.sum())
            full = (share >= 0.8).astype(np.uint8)
            if full.any():
                kind |= cv2.dilate(full, kernel.astype(np.uint8)).astype(bool) & stands_out
        np.maximum(lifts, lift, out=lifts, where=seeds)
    # what goes on from a piece that stands out clearly is the same line, also where it crosses another
    out = np.zeros(luma.shape, bool)
    for line in measure.regionprops(measure.label(wider | seeds, connectivity=2), seeds.astype(np.uint8)):
        if line.intensity_mean >= 0.45 and line.feret_diameter_max >= SHORTEST * unit:
            out[tuple(line.coords.T)] = True
    return out, float(lifts[out].mean()) if out.any() else 0.0


def _shifted(values: Floats, down: int, right: int) -> Floats:
    """Values from so many pixels away; those at the border go on."""
    rows = np.clip(np.arange(values.shape[0]) + down, 0, values.shape[0] - 1)
    columns = np.clip(np.arange(values.shape[1]) + right, 0, values.shape[1] - 1)
    return values[rows][:, columns]


def _segments(length: int) -> list[tuple[float, Floats]]:
    """Straight segments of a length in all directions: the angle to the rows, and a kernel."""
    half, kernels = length // 2, []
    steps = np.arange(-half, half + 1)
    for angle in np.linspace(0, np.pi, max(32, round(np.pi * half / 2)), endpoint=False):
        kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
        kernel[half + np.rint(steps * np.sin(angle)).astype(int), half + np.rint(steps * np.cos(angle)).astype(int)] = 1
        kernels.append((float(angle), kernel))
    return kernels


def _contrast(spot: Any, luma: Floats, reach: int) -> float:
    """How far a spot stands out of the ring around it, in deviations of the ring."""
    top, left, bottom, right = spot.bbox
    rows = slice(max(0, top - 3 * reach), bottom + 3 * reach)
    columns = slice(max(0, left - 3 * reach), right + 3 * reach)
    own = np.zeros((luma[rows, columns]).shape, bool)
    own[spot.coords[:, 0] - rows.start, spot.coords[:, 1] - columns.start] = True
    ring = luma[rows, columns][~grow(own, reach)]
    if ring.size < 8:
        return 0.0
    low, middle, high = np.quantile(ring, (0.16, 0.5, 0.84))  # another spot in the ring does not count
    return float((luma[tuple(spot.coords.T)].mean() - middle) / ((high - low) / 2 + 0.012))


def text(picture: Picture, sensitivity: float = 1.0) -> Mask:
    """Print: rows of signs of one colour and of about one height.

    Signs are connected parts of a channel above or below one of sixteen levels, of the height of letters, of an even
    colour that all around them is not; a row is at least four of them side by side. In the rows found, everything of
    their colour is taken, so that dots and thin strokes go too.

    Args:
        picture: where to look.
        sensitivity: see `find`.

    Returns:
        bool (H, W).
    """
    lab = _lab(picture)
    pixels = picture.to_uint8().pixels if picture.white != 1 else picture.to_uint16().to_uint8().pixels
    signs = [sign for channel in np.moveaxis(pixels, 2, 0) for sign in _signs(channel, lab, sensitivity)]
    out = np.zeros(picture.shape, bool)
    for row in _rows(_distinct(signs)):
        usual = np.median([sign[4] for sign in row], axis=0)
        left, top = (int(min(sign[k] for sign in row)) for k in (0, 1))
        right, bottom = (int(max(sign[k] for sign in row)) for k in (2, 3))
        space = (bottom - top) // 2
        rows = slice(max(0, top - space // 2), bottom + space // 2)
        columns = slice(max(0, left - space), right + space)
        alike = np.linalg.norm(lab[rows, columns] - usual, axis=2) < 2 * ALIKE
        labels = _skimage("measure").label(alike, connectivity=2)
        area = np.bincount(labels.ravel())
        out[rows, columns] |= alike & (area <= (bottom - top) ** 2)[labels]  # what is larger is the picture's own
    return grow(out, 2 * max(1.0, _scale(picture) / 2))


Sign = tuple[float, float, float, float, NDArray[np.float32]]


def _signs(channel: NDArray[np.uint8], lab: Floats, sensitivity: float) -> list[Sign]:
    cv2 = _cv2()
    tall = max(12, min(channel.shape) // 10)
    signs: list[Sign] = []
    for level in range(8, 256, 16):
        for part in (channel > level, channel <= level):
            _, labels, stats, _ = cv2.connectedComponentsWithStats(part.astype(np.uint8), connectivity=8)
            wide, high, area = (stats[:, k].astype(float) for k in (2, 3, 4))
            filled = area / np.maximum(wide * high, 1)
            shaped = (high >= 6) & (high <= tall) & (wide <= 2 * high) & (filled >= 0.15) & (filled <= 0.9)
            shaped &= (filled <= 0.75) | (wide <= high / 2)
            for number in np.flatnonzero(shaped):
                left, top, width, height = (int(value) for value in stats[number, :4])
                rows, columns = slice(max(0, top - 2), top + height + 2), slice(max(0, left - 2), left + width + 2)
                own, near = labels[rows, columns] == number, lab[rows, columns]
                usual = np.median(near[own], axis=0)
                far = np.linalg.norm(near - usual, axis=2)
                ring = ~grow(own, 1.5)
                even = np.mean(far[own] < ALIKE) >= 0.55 / sensitivity
                if even and ring.any() and np.mean(far[ring] > 25 / sensitivity) >= 0.9:
                    signs.append((left, top, left + width, top + height, usual))
    return signs


def _distinct(signs: list[Sign]) -> list[Sign]:
    """Signs without those that are found again at another threshold."""
    kept: list[Sign] = []
    for sign in sorted(signs, key=lambda one: (one[3] - one[1]) * (one[2] - one[0]), reverse=True):
        middle = ((sign[0] + sign[2]) / 2, (sign[1] + sign[3]) / 2)
        same = (
            one[0] <= middle[0] <= one[2] and one[1] <= middle[1] <= one[3] and np.abs(one[4] - sign[4]).max() < ALIKE
            for one in kept
        )
        if not any(same):
            kept.append(sign)
    return kept


def _rows(signs: list[Sign]) -> list[list[Sign]]:
    """Rows of signs: neighbours of one height and colour, side by side."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if len(signs) < LETTERS:
        return []
    left, top, right, bottom = (np.array([sign[k] for sign in signs]) for k in range(4))
    colours, high = np.array([sign[4] for sign in signs]), bottom - top
    gap = np.maximum(left[:, None], left) - np.minimum(right[:, None], right)
    taller, lower = np.maximum(high[:, None], high), np.minimum(high[:, None], high)
    overlap = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    linked = (gap < taller) & (overlap > 0.6 * lower) & (taller < 2 * lower)
    linked &= np.abs(colours[:, None] - colours).max(axis=2) < 1.5 * ALIKE
    count, number = connected_components(coo_matrix(linked), directed=False)
    groups = [[signs[k] for k in np.flatnonzero(number == one)] for one in range(count)]
    return [group for group in groups if len(group) >= LETTERS]


def colour(picture: Picture, value: str, distance: float = ALIKE) -> Mask:
    """Everything of a colour.

    Args:
        picture: where to look.
        value: "#f00", "#ff0000" or a name such as "red".
        distance: in CIELAB, up to which colours are taken for the same.

    Returns:
        bool (H, W).

    Raises:
        PictureError: no colour.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(value)[:3]
    except ValueError:
        raise PictureError(f"{value!r} is no colour, expected one as in #f00 or red; give another.") from None
    asked = _skimage("color").rgb2lab(np.array([[[red, green, blue]]], np.float32) / 255)[0, 0]
    return grow(np.asarray(np.linalg.norm(_lab(picture) - asked, axis=2) <= distance), 1)


def same_as(picture: Picture, x: int, y: int, distance: float = ALIKE) -> Mask:
    """Everything that is connected with a pixel and has its colour.

    Args:
        picture: where to look.
        x: column of the pixel.
        y: row of the pixel.
        distance: in CIELAB, up to which colours are taken for the same.

    Returns:
        bool (H, W).

    Raises:
        PictureError: no such pixel.
    """
    _check_pixel(picture, x, y)
    lab = _lab(picture)
    labels = _skimage("measure").label(np.linalg.norm(lab - lab[y, x], axis=2) <= distance, connectivity=2)
    return grow(np.asarray(labels == labels[y, x]), 1)


def object_in(picture: Picture, x: int, y: int, width: int, height: int) -> Mask:
    """What stands out in a box from what lies around it, by GrabCut.

    Args:
        picture: where to look.
        x: of the box's left side.
        y: of its top.
        width: of the box.
        height: of the box.

    Returns:
        bool (H, W).

    Raises:
        PictureError: a box that is not in the picture, or is all of it.
    """
    cv2 = _cv2()
    rows, columns = picture.shape
    inside = 0 <= x < x + width <= columns and 0 <= y < y + height <= rows
    if not inside or (width, height) == (columns, rows):
        raise PictureError(
            f"the box {x},{y},{width},{height} was given for {columns} x {rows} pixels, expected X,Y,WIDTH,HEIGHT "
            "inside the picture with something around it; correct that."
        )
    reach = max(16, max(width, height) // 3)
    top, left = max(0, y - reach), max(0, x - reach)
    scale = min(1.0, 512 / max(width, height))  # GrabCut takes a second for half a megapixel
    crop = _colours(picture, slice(top, y + height + reach), slice(left, x + width + reach))
    size = (max(8, round(crop.shape[1] * scale)), max(8, round(crop.shape[0] * scale)))
    kinds = np.full(size[::-1], cv2.GC_BGD, np.uint8)
    first, second = round((y - top) * scale), round((x - left) * scale)
    kinds[first : first + round(height * scale), second : second + round(width * scale)] = cv2.GC_PR_FGD
    out = np.zeros(picture.shape, bool)
    out[top : top + crop.shape[0], left : left + crop.shape[1]] = _cut(crop, kinds)
    return _whole(out, width * height, picture)


def object_at(picture: Picture, x: int, y: int) -> Mask:
    """The object that a pixel belongs to: GrabCut in boxes around the pixel, the first that the object lies within.

    Args:
        picture: where to look.
        x: column of the pixel.
        y: row of the pixel.

    Returns:
        bool (H, W); what was found in the largest box where the object leaves all of them.

    Raises:
        PictureError: no such pixel.
    """
    cv2, measure = _cv2(), _skimage("measure")
    _check_pixel(picture, x, y)
    rows, columns = picture.shape
    out = np.zeros(picture.shape, bool)
    for share in BOXES:
        half = max(24, round(share * max(rows, columns)))
        reach = max(8, half // 3)
        top, left = max(0, y - half - reach), max(0, x - half - reach)
        crop = _colours(picture, slice(top, y + half + reach + 1), slice(left, x + half + reach + 1))
        scale = min(1.0, 288 / max(crop.shape[:2]))
        size = (max(8, round(crop.shape[1] * scale)), max(8, round(crop.shape[0] * scale)))
        down, right = np.indices(size[::-1])
        away = np.hypot(down / scale - (y - top), right / scale - (x - left))
        inside = np.maximum(abs(down / scale - (y - top)), abs(right / scale - (x - left))) <= half
        if inside.all():
            break
        kinds = np.where(inside, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
        kinds[inside & (away <= 0.6 * half)] = cv2.GC_PR_FGD
        kinds[away <= max(1.0 / scale, 0.06 * half)] = cv2.GC_FGD
        own = _cut(crop, kinds)
        labels = measure.label(own)
        own = labels == labels[y - top, x - left] if own[y - top, x - left] else own
        out[:] = False
        out[top : top + own.shape[0], left : left + own.shape[1]] = own
        frame = np.ones(own.shape, bool)  # of the box; where the picture ends, an object may too
        above, before = max(0, y - half) - top, max(0, x - half) - left
        below, after = min(rows, y + half + 1) - top, min(columns, x + half + 1) - left
        edge = max(2, half // 40)
        ends = above + edge * (y > half), below - edge * (y + half + 1 < rows)
        sides = before + edge * (x > half), after - edge * (x + half + 1 < columns)
        frame[ends[0] : ends[1], sides[0] : sides[1]] = False
        if (own & frame).sum() <= 0.02 * frame.sum() and own.sum() >= 0.2 * half * half:
            break
    return _whole(out, max(64, int(out.sum())), picture)


def refine(picture: Picture, mask: Mask, reach: float | None = None) -> Mask:
    """A mask with its edge moved to the edge of what it covers, by GrabCut in a band around it.

    Args:
        picture: that the mask is of.
        mask: (H, W) bool.
        reach: pixels that the edge may move; None for 12 of a picture of `SIDE`.

    Returns:
        bool (H, W), with a little around the object, which the hole has to cover.
    """
    cv2 = _cv2()
    reach = 12 * _scale(picture) if reach is None else reach
    out = mask.copy()
    for region in _skimage("measure").regionprops(_skimage("measure").label(grow(mask, reach))):
        rows, columns = (
            slice(max(0, region.bbox[k] - round(reach)), region.bbox[k + 2] + round(reach)) for k in (0, 1)
        )
        own = mask[rows, columns]
        inner, outer = grow(own, -reach), grow(own, reach)
        if outer.all() or not own.any():
            continue
        crop = _colours(picture, rows, columns)
        scale = min(1.0, 640 / max(crop.shape[:2]))
        size = (max(8, round(crop.shape[1] * scale)), max(8, round(crop.shape[0] * scale)))
        kinds = np.where(own, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        kinds[~outer], kinds[inner] = cv2.GC_BGD, cv2.GC_FGD
        found = _cut(crop, cv2.resize(kinds, size, interpolation=cv2.INTER_NEAREST))
        found = grow(inner | (found & outer), 2 * _scale(picture)) & outer
        out[rows, columns] = (out[rows, columns] & ~own) | found
    return out


def _colours(picture: Picture, rows: slice, columns: slice) -> NDArray[np.uint8]:
    """A part of a picture as 8 bits of three colours."""
    part = Picture(np.ascontiguousarray(picture.pixels[rows, columns])).to_uint8().pixels
    return np.ascontiguousarray(np.repeat(part, 3, axis=2) if picture.grey else part)


def _cut(crop: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> Mask:
    """GrabCut at the size of `kinds`, which says what is known of each pixel; True = the object, at the crop's size."""
    cv2 = _cv2()
    small = cv2.resize(crop, kinds.shape[::-1], interpolation=cv2.INTER_AREA)
    cv2.setRNGSeed(0)
    cv2.grabCut(small, kinds, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    own = ((kinds == cv2.GC_FGD) | (kinds == cv2.GC_PR_FGD)).astype(np.float32)
    return np.asarray(cv2.resize(own, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0.5)


def _whole(mask: Mask, area: int, picture: Picture) -> Mask:
    """An object of about an area without specks and holes, and with a little around it."""
    morphology = _skimage("morphology")
    mask = morphology.remove_small_objects(mask, max_size=max(4, area // 200))
    mask = morphology.remove_small_holes(mask, max_size=max(4, area // 50))
    return grow(np.asarray(mask), 3 * _scale(picture))


def _check_pixel(picture: Picture, x: int, y: int) -> None:
    height, width = picture.shape
    if not (0 <= x < width and 0 <= y < height):
        raise PictureError(
            f"there is no pixel {x},{y} in {width} x {height}; give X below {width} and Y below {height}."
        )


def _top_hat(values: Floats, footprint: NDArray[Any]) -> Floats:
    """How far values rise above the opening by a footprint: what is smaller than it, and nothing else."""
    from scipy import ndimage

    return np.asarray(values - ndimage.grey_opening(values, footprint=footprint), np.float32)


def _texture(response: Floats, reach: int) -> Floats:
    """How strongly a filter answers around a pixel: the 75 % quantile of blocks, which single defects do not move."""
    from scipy import ndimage

    height, width = response.shape
    side = max(4, reach // 2)
    rows, columns = -(-height // side), -(-width // side)
    padded = np.pad(response, ((0, rows * side - height), (0, columns * side - width)), mode="reflect")
    blocks = padded.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    usual = ndimage.median_filter(np.quantile(blocks, 0.75, axis=2), 3, mode="nearest")
    zoomed = ndimage.zoom(usual, side, order=1, grid_mode=True, mode="nearest")
    return np.asarray(zoomed[:height, :width], np.float32)


def _reduced(picture: Picture) -> tuple[Floats, float]:
    """Luma at the size that is worked at, and its pixels for one of a picture of `SIDE`."""
    luma, longer = _luma(picture), max(picture.size)
    if longer > LARGEST:
        luma = resize_unit(
            luma, (round(picture.shape[0] * LARGEST / longer), round(picture.shape[1] * LARGEST / longer))
        )
    return luma, max(1.0, min(longer, LARGEST) / SIDE)


def _enlarged(mask: Mask, shape: tuple[int, int]) -> Mask:
    """A mask at the picture's size."""
    if mask.shape == shape:
        return mask
    return np.asarray(resize_unit(mask.astype(np.float32), shape, "bilinear") > 0.25)


def _luma(picture: Picture) -> Floats:
    unit = picture.pixels.astype(np.float32) / np.float32(picture.white)
    return np.asarray(unit[..., 0] if picture.grey else unit @ LUMA, np.float32)


def _lab(picture: Picture) -> Floats:
    """(H, W, 3) in CIELAB, where distances are as large as they look."""
    unit = picture.pixels.astype(np.float32) / np.float32(picture.white)
    rgb = np.repeat(unit, 3, axis=2) if picture.grey else unit
    return np.asarray(_skimage("color").rgb2lab(rgb), np.float32)


def _scale(picture: Picture) -> float:
    """Pixels of the picture for one of a picture of `SIDE`; small pictures are not scaled down."""
    return max(1.0, max(picture.size) / SIDE)


def _numbers(word: str, value: str, count: int) -> list[int]:
    parts = value.split(",")
    if len(parts) != count or not all(part.strip().isdecimal() for part in parts):
        raise PictureError(
            f"{word!r} has no {count} whole numbers after the =, as in {'1,' * (count - 1)}1; give them."
        )
    return [int(part) for part in parts]


def _skimage(name: str) -> Any:
    return _library(f"skimage.{name}", "scikit-image")


def _cv2() -> Any:
    return _library("cv2", "OpenCV")


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise PictureError(
            f"finding a mask needs {package}, which is not installed; run pip install 'paintback[finding]'."
        ) from None
