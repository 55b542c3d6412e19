"""The pictures and masks of a suite, each a function of the suite and the data alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paintback.bench.pictures.suite import Suite
from paintback.images import generators
from paintback.images.picture import read_picture

__all__ = ["Case", "data_sha256", "make_cases"]

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Case:
    """One picture with one hole, and which sample of it.

    Attributes:
        picture: its name.
        number: of the picture within the suite.
        mask: name of the mask.
        sample: number of the sample.
        truth: (H, W, 3) or (H, W).
        hole: (H, W), True = hidden.
        prompt: text, or None.
        label: of its class, or -1.
        seed: of the sample.
    """

    picture: str
    number: int
    mask: str
    sample: int
    truth: Pixels
    hole: Mask
    prompt: str | None
    label: int
    seed: int


@dataclass(frozen=True)
class _Source:
    name: str
    truth: Pixels
    prompt: str | None = None
    label: int = -1
    own: Mask | None = None


def make_cases(
    suite: Suite, data: Path, *, limit: int | None = None, validation: bool = False
) -> tuple[list[Case], list[Case]]:
    """The cases of a suite.

    Args:
        suite: what is measured.
        data: folder of its data.
        limit: how many pictures; None for all.
        validation: the pictures to tune on in place of those to report, with one sample, and with one mask each
            where the data's `validation_pairing` is not "all".

    Returns:
        One sample (or the suite's number) of every hole, and the further samples that tell diversity. Within each,
        cases of a mask lie together, pictures in their order.

    Raises:
        ValueError: if the data is not there or does not fit.
    """
    if validation and "validation" not in suite.data:
        raise ValueError(
            f"The suite {suite.name!r} has no pictures to tune on; tune on another one with the same model."
        )
    chosen = suite.data["validation"] if validation else (suite.data.get("first", 0), suite.data.get("stop"))
    sources = list(islice(_sources(suite, data, chosen[0], chosen[1]), limit))
    if not sources:
        raise ValueError(f"{data} holds no picture of the suite {suite.name!r}; it needs {suite.data['needs']}.")
    first: list[Case] = []
    further: list[Case] = []
    pairing = suite.data.get("validation_pairing", "cycle") if validation else suite.pairing
    for place, mask in enumerate(suite.masks):
        for number, source in enumerate(sources):
            if pairing == "cycle" and number % len(suite.masks) != place:
                continue
            hole = _hole(mask, source, (suite.seed, int(chosen[0] or 0) + number, place))
            more = suite.diversity["samples"] if number < suite.diversity["pictures"] and not validation else 0
            for sample in range(max(suite.samples, more) if not validation else 1):
                key = f"{suite.seed}/{source.name}/{mask['name']}/{sample}"
                seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
                into = first if sample < suite.samples else further
                into.append(
                    Case(
                        source.name, number, mask["name"], sample, source.truth, hole, source.prompt, source.label, seed
                    )
                )
    return first, further


def data_sha256(cases: Sequence[Case]) -> str:
    """Of pictures, holes, prompts and seeds together."""
    total = hashlib.sha256()
    for case in cases:
        head = (case.picture, case.mask, case.sample, case.prompt, case.label, case.seed, case.truth.shape)
        total.update(json.dumps(head).encode())
        total.update(case.truth.tobytes())
        total.update(np.packbits(case.hole).tobytes())
    return total.hexdigest()


def _hole(mask: dict[str, Any], source: _Source, seed: tuple[int, int, int]) -> Mask:
    shape = (source.truth.shape[0], source.truth.shape[1])
    kind, rng = mask["kind"], np.random.default_rng(seed)
    if kind == "own":
        assert source.own is not None
        return source.own
    if kind == "box":
        return generators.box(shape, rng, size=(mask["size"], mask["size"]))
    if kind == "half":
        return generators.half(shape, mask["side"])
    if kind == "lines":
        return generators.lines(shape, rng, width=mask["width"], count=mask["count"])
    if kind == "free_form":
        return generators.free_form(shape, rng, coverage=mask["coverage"])
    if kind == "checkerboard":
        return generators.checkerboard(shape, mask["cell"])
    if kind == "text":
        return generators.text(shape, size=mask["size"])
    inside = np.zeros(shape, bool)
    rows, columns = (
        slice(round(side * mask[a]), round(side * mask[b]))
        for side, a, b in ((shape[0], "top", "bottom"), (shape[1], "left", "right"))
    )
    inside[rows, columns] = True
    return inside if kind == "hidden" else ~inside


def _sources(suite: Suite, data: Path, first: int, stop: int | None) -> Iterator[_Source]:
    if not data.is_dir():
        raise ValueError(f"There is no folder {data}; the suite {suite.name!r} needs {suite.data['needs']}.")
    kind = suite.data["kind"]
    if kind == "idx":
        yield from _idx(suite, data, first, stop)
    elif kind == "pie":
        yield from _pie(suite, data, first, stop)
    else:
        yield from _folder(suite, data, first, stop)


def _idx(suite: Suite, data: Path, first: int, stop: int | None) -> Iterator[_Source]:
    from paintback.training.data import IdxPictures, read_idx

    paths = [_one_of(data, suite.data[entry]) for entry in ("pictures", "labels")]
    pictures, labels = IdxPictures(paths[0], mirror=False).pictures.numpy(), read_idx(paths[1])
    if len(pictures) != len(labels):
        raise ValueError(f"{paths[0]} holds {len(pictures)} pictures and {paths[1]} {len(labels)} labels.")
    if pictures.shape[1] != suite.size:
        raise ValueError(f"{paths[0]} holds pictures of {pictures.shape[1]} pixels; the suite's have {suite.size}.")
    for number in range(first, len(pictures) if stop is None else min(stop, len(pictures))):
        yield _Source(f"{number:05}", pictures[number], label=int(labels[number]))


def _one_of(data: Path, name: str) -> Path:
    for path in (data / name, data / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"There is neither {name} nor {name}.gz in {data}.")


def _folder(suite: Suite, data: Path, first: int, stop: int | None) -> Iterator[_Source]:
    captions: dict[str, str] = {}
    if "captions" in suite.data:
        path = data / suite.data["captions"]
        if not path.is_file():
            raise ValueError(f"There is no {path}; the suite {suite.name!r} needs {suite.data['needs']}.")
        captions = _json(path)
    for path in sorted(p for p in data.rglob("*") if p.suffix.lower() in SUFFIXES)[first:stop]:
        name = path.relative_to(data).as_posix()
        if "captions" in suite.data and name not in captions:
            raise ValueError(f"{data / suite.data['captions']} has no caption for {name}.")
        truth = _fitted(read_picture(path).to_uint8().pixels, suite, path)
        yield _Source(name, truth, prompt=str(captions[name]) if name in captions else suite.prompt)


def _fitted(pixels: Pixels, suite: Suite, path: Path) -> Pixels:
    """The square in the middle, of the suite's size."""
    side, (height, width) = suite.size, pixels.shape[:2]
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = pixels[..., :3]
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(height, width, 1), 3, axis=2)
    if suite.fit == "resize":
        least = min(height, width)
        top, left = (height - least) // 2, (width - least) // 2
        square = Image.fromarray(np.ascontiguousarray(pixels[top : top + least, left : left + least]))
        return np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))
    top, left = (height - side) // 2, (width - side) // 2
    if min(top, left) < 0:
        raise ValueError(f"{path} is smaller than the suite's {side} x {side} pixels.")
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _pie(suite: Suite, data: Path, first: int, stop: int | None) -> Iterator[_Source]:
    """PIE-Bench: its editing prompt without brackets, its mask (runs of hidden pixels at 512 x 512, the border too)."""
    book = data / "mapping_file.json"
    if not book.is_file():
        raise ValueError(f"There is no {book}; the suite {suite.name!r} needs {suite.data['needs']}.")
    entries = _json(book)
    place = 0
    for key in sorted(entries):
        entry = entries[key]
        try:
            runs = [int(value) for value in entry["mask"]]
            image, text = str(entry["image_path"]), str(entry["editing_prompt"])
            pairs = list(zip(runs[::2], runs[1::2], strict=True))
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{book} has an entry {key!r} without image_path, editing_prompt or a mask of runs; give PIE-Bench's."
            ) from None
        hidden = np.zeros(512 * 512, bool)
        for start, length in pairs:
            hidden[start : start + length] = True
        mask = hidden.reshape(512, 512)
        mask[[0, -1]] = mask[:, [0, -1]] = True
        if mask.all():
            continue
        if place >= first and (stop is None or place < stop):
            path = (data / "annotation_images" / image).resolve()
            if data.resolve() not in path.parents:
                raise ValueError(f"{book} names a picture outside its folder: {image}.")
            truth = _fitted(read_picture(path).to_uint8().pixels, suite, path)
            own = np.asarray(Image.fromarray(mask).resize((suite.size, suite.size), Image.Resampling.NEAREST))
            prompt = re.sub(r"[\[\]]", "", text)
            yield _Source(key, truth, prompt=prompt, own=np.array(own, bool))
        place += 1


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a JSON object; give the one that goes with the pictures.")
    return values
