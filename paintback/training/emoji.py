"""Emoji to train on: 3-D pictures with a label and tags each, split so that no emoji is on two sides.

Pictures: Microsoft's Fluent Emoji (MIT) as the npm package @lobehub/fluent-emoji-3d has them, WebP of 256 x 256 with
transparency, named by code points. Labels: en/data.json of the npm package emojibase-data (MIT; the names are those
of Unicode's CLDR).

An emoji with its skin tones, its genders and its directions is one base, and a base belongs to one split: a hash of
its code points sends about 10 % of the bases to "test", 5 % to "val" and the rest to "train". Bases that merely look
alike (the clocks, the hearts, a cat and its face) may still be on different sides.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paintback.models.vocabulary import split_words
from paintback.training.data import Pictures

__all__ = ["EmojiPictures", "Entry", "Split", "base_of", "code_points", "emoji_pictures", "read_entries", "split_of"]

Split = Literal["train", "val", "test"]
_SIDE = 128  # of the pictures in memory
_UNMIRRORED = frozenset({8, 9})  # emojibase's groups of symbols and flags, which hold letters

# Code points that say how a base looks, not which it is: presentation, skin tones, sexes, the direction and the end
# of a tag sequence. The joiner goes too, so that sequences compare by their parts.
_MODIFIERS = frozenset({0xFE0E, 0xFE0F, *range(0x1F3FB, 0x1F400), 0x2640, 0x2642, 0x200D, 0x27A1, 0xE007F})
_PERSON, _CHILD, _ELDER, _FAMILY = 0x1F9D1, 0x1F9D2, 0x1F9D3, 0x1F46A
# Man and woman are a person, boy and girl a child, old man and old woman an older person.
_NEUTRAL = {
    0x1F468: _PERSON, 0x1F469: _PERSON, 0x1F466: _CHILD, 0x1F467: _CHILD, 0x1F474: _ELDER, 0x1F475: _ELDER,
}  # fmt: skip
# Emoji whose variants have code points of their own.
_ALIASES: dict[tuple[int, ...], tuple[int, ...]] = {
    (0x1F46B,): (_PERSON, 0x1F91D, _PERSON),  # woman and man holding hands
    (0x1F46C,): (_PERSON, 0x1F91D, _PERSON),
    (0x1F46D,): (_PERSON, 0x1F91D, _PERSON),
    (0x1F491,): (_PERSON, 0x2764, _PERSON),  # couple with heart
    (0x1F48F,): (_PERSON, 0x2764, 0x1F48B, _PERSON),  # kiss
    (0x1FAF1, 0x1FAF2): (0x1F91D,),  # handshake of two tones
    (0x1F57A,): (0x1F483,),  # man and woman dancing
    (0x1F478,): (0x1F934,),  # princess and prince
    (0x1FAC5,): (0x1F934,),  # person with crown
    (0x1F936,): (0x1F385,),  # Mrs. and Mr. Claus
    (_PERSON, 0x1F384): (0x1F385,),  # Mx Claus
    (0x1FAC3,): (0x1F930,),  # pregnant man and woman
    (0x1FAC4,): (0x1F930,),
    (_PERSON, 0x1F37C): (0x1F931,),  # feeding a baby, breast-feeding
}


def code_points(name: str) -> tuple[int, ...]:
    """The code points of a file name or hexcode, such as "1f3c3-1f3fb-200d-2642-fe0f".

    Raises:
        ValueError: if it is no such name.
    """
    try:
        return tuple(int(part, 16) for part in name.replace("_", "-").split("-"))
    except ValueError:
        raise ValueError(f"{name!r} is no emoji's code points such as 1f34e; give a folder of such pictures.") from None


def base_of(points: tuple[int, ...]) -> tuple[int, ...]:
    """The emoji that this one is a variant of, by skin tone, gender, age within a family, or direction."""
    base = tuple(_NEUTRAL.get(point, point) for point in points if point not in _MODIFIERS)
    if not base:  # a modifier by itself, such as the female sign
        return points[:1]
    if base == (_FAMILY,) or (len(base) > 1 and set(base) <= {_PERSON, _CHILD}):
        return (_FAMILY,)
    return _ALIASES.get(base, base)


def split_of(base: tuple[int, ...]) -> Split:
    """The split of a base, by SHA-256 of its code points."""
    digest = hashlib.sha256("-".join(f"{point:x}" for point in base).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if place < 0.10 else "val" if place < 0.15 else "train"


@dataclass(frozen=True)
class Entry:
    """An emoji.

    Attributes:
        path: its picture.
        label: its CLDR name, such as "red apple".
        tags: more words that it is found by.
        base: see `base_of`.
        mirrors: whether it may be flipped left to right.
    """

    path: Path
    label: str
    tags: tuple[str, ...]
    base: tuple[int, ...]
    mirrors: bool


def _key(points: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(point for point in points if point not in (0xFE0E, 0xFE0F, 0xE007F))


def read_entries(folder: Path, labels: Path, split: Split | None = None) -> list[Entry]:
    """The emoji of a folder with their labels, in the order of their file names; of two names for one, the first.

    Args:
        folder: the unpacked package, searched with all its sub-folders for .webp.
        labels: en/data.json of emojibase-data.
        split: those of one split; None for all.

    Raises:
        FileNotFoundError: if there is no such folder or file.
        ValueError: for an unknown split, a folder without emoji, a JSON of another form, or a picture without a label.
    """
    if split is not None and split not in get_args(Split):
        raise ValueError(f"There is no split {split!r}; choose one of {', '.join(get_args(Split))}.")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; unpack the package @lobehub/fluent-emoji-3d there.")
    if not labels.is_file():
        raise FileNotFoundError(f"There is no file {labels}; give en/data.json of the package emojibase-data.")
    known: dict[tuple[int, ...], tuple[str, tuple[str, ...], Any]] = {}
    try:
        for emoji in json.loads(labels.read_text(encoding="utf-8")):
            tags = tuple(emoji.get("tags", ()))
            for variant in (emoji, *emoji.get("skins", ())):
                known[_key(code_points(variant["hexcode"]))] = variant["label"], tags, emoji.get("group")
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{labels} is not a list of emoji with hexcode and label; give en/data.json.") from error
    entries: dict[tuple[int, ...], Entry] = {}
    for path in sorted(folder.rglob("*.webp"), key=lambda path: path.stem):
        points = code_points(path.stem)
        if _key(points) not in known:
            raise ValueError(f"{path} has no label in {labels}; take a newer release of emojibase-data.")
        label, tags, group = known[_key(points)]
        base = base_of(points)
        if split is None or split_of(base) == split:
            entries.setdefault(_key(points), Entry(path, label, tags, base, group not in _UNMIRRORED))
    if not entries:
        raise ValueError(f"{folder} holds no emoji (.webp) of this split; give the package @lobehub/fluent-emoji-3d.")
    return list(entries.values())


def _read(path: Path, side: int) -> np.ndarray:
    """The picture on white, brought to (side, side, 3) uint8 by area averaging."""
    with Image.open(path) as file:
        picture = file.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    flat = np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
    rows, columns = (_area(0, length, side, length) for length in flat.shape[:2])
    return _averaged(flat, rows, columns)


def _area(start: float, length: float, size: int, pixels: int) -> np.ndarray:
    """Weights (size, pixels) of area averaging: `size` cells over [start, start + length) of a row of pixels."""
    edges = start + np.arange(size + 1) * (length / size)
    left = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    weights: np.ndarray = (overlap.clip(min=0) * (size / length)).astype(np.float32)
    return weights


def _averaged(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The product rows @ picture @ columns^T for every colour, rounded to uint8."""
    height, width, colours = picture.shape
    first = (rows @ picture.reshape(height, -1).astype(np.float32)).reshape(len(rows), width, colours)
    both = np.einsum("cw,rwk->rck", columns, first, optimize=True)
    pixels: np.ndarray = both.round().clip(0, 255).astype(np.uint8)
    return pixels


class EmojiPictures(Pictures):
    """The emoji of one split, on white, each with a prompt.

    A batch draws a base uniformly and then one of its variants, so that the many skin tones do not outweigh the rest.
    For training, half of the pictures are mirrored (not flags and symbols, which hold letters), and each is scaled
    by a factor in [0.9, 1.1] and moved by up to 3 of 64 pixels in both directions, both uniform; what comes into
    view is white. The prompt is the label, in half of the cases with one to three of the tags. The other splits are
    neither mirrored nor moved, and their prompts are the labels.

    Args:
        folder: see `read_entries`.
        labels: likewise.
        split: "train", "val" or "test".
        size: side of a picture, in pixels.

    Attributes:
        entries: the emoji.
        vocabulary: the words of the labels, and those tags' words that at least two bases share; sorted.
    """

    channels = 3

    def __init__(self, folder: Path, labels: Path, *, split: Split = "train", size: int = 64) -> None:
        self.entries = read_entries(folder, labels, split)
        self.size, self.count, self.augment = size, len(self.entries), split == "train"
        # as distance from white, so that outside of a picture is 0
        self._ink = [255 - _read(entry.path, _SIDE) for entry in self.entries]
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, entry in enumerate(self.entries):
            groups.setdefault(entry.base, []).append(number)
        self._groups = list(groups.values())
        self.vocabulary = _vocabulary(self.entries)

    def batch(self, seed: int, step: int, size: int) -> Tensor:
        rng = np.random.default_rng((seed, step))
        return self._stack(self._draw(rng, size), rng)

    def prompts(self, seed: int, step: int, size: int) -> list[str]:
        chosen = self._draw(np.random.default_rng((seed, step)), size)
        rng = np.random.default_rng((seed, step, 1))
        return [self._prompt(self.entries[number], rng) for number in chosen]

    def spread(self, seed: int, size: int) -> tuple[Tensor, list[int]]:
        rng = np.random.default_rng((seed, 2))
        groups = np.resize(rng.permutation(len(self._groups)), size)
        chosen = [int(rng.choice(self._groups[group])) for group in groups]
        return self._stack(chosen, rng), chosen

    def _draw(self, rng: np.random.Generator, size: int) -> list[int]:
        groups = rng.integers(len(self._groups), size=size)
        places = rng.random(size)
        return [
            self._groups[group][int(place * len(self._groups[group]))]
            for group, place in zip(groups.tolist(), places.tolist(), strict=True)
        ]

    def _stack(self, chosen: list[int], rng: np.random.Generator) -> Tensor:
        pictures = np.stack([self._view(number, rng) for number in chosen])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def _view(self, number: int, rng: np.random.Generator) -> np.ndarray:
        side, shift = float(_SIDE), np.zeros(2)
        if self.augment:
            side, shift = _SIDE / rng.uniform(0.9, 1.1), rng.uniform(-3, 3, 2) * (_SIDE / 64)
        rows, columns = (_area((_SIDE - side) / 2 + move, side, self.size, _SIDE) for move in shift)
        if self.augment and self.entries[number].mirrors and rng.random() < 0.5:
            columns = columns[::-1]
        return 255 - _averaged(self._ink[number], rows, columns)

    def _prompt(self, entry: Entry, rng: np.random.Generator) -> str:
        if not self.augment or not entry.tags or rng.random() < 0.5:
            return entry.label
        count = min(len(entry.tags), int(rng.integers(1, 4)))
        return " ".join((entry.label, *rng.choice(entry.tags, count, replace=False)))


def _vocabulary(entries: list[Entry]) -> tuple[str, ...]:
    own = {word for entry in entries for word in split_words(entry.label)}
    tagged = {(word, entry.base) for entry in entries for tag in entry.tags for word in split_words(tag)}
    bases = Counter(word for word, _ in tagged)
    return tuple(sorted(own | {word for word, count in bases.items() if count > 1}))


def emoji_pictures(
    folder: Path, labels_json: Path, split: Split, *, one_per_base: bool = False
) -> list[tuple[str, np.ndarray, str]]:
    """The pictures of a split as they are, on white, 64 x 64 by area averaging.

    Args:
        folder: see `read_entries`.
        labels_json: likewise.
        split: "train", "val" or "test".
        one_per_base: of every base, only the variant with the fewest code points.

    Returns:
        (name, (64, 64, 3) uint8, label) of each, in the order of the names; the name is the file's without its suffix.
    """
    entries = read_entries(folder, labels_json, split)
    if one_per_base:
        first: dict[tuple[int, ...], Entry] = {}
        for entry in sorted(entries, key=lambda entry: len(code_points(entry.path.stem))):
            first.setdefault(entry.base, entry)
        entries = sorted(first.values(), key=lambda entry: entry.path.stem)
    return [(entry.path.stem, _read(entry.path, 64), entry.label) for entry in entries]
