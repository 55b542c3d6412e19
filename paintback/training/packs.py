"""Packs of pictures: one blob of encoded pictures beside a table of where each lies, where it is from and its licence.

NAME.bin holds the files one after another, NAME.csv a line for each with at least the columns offset, length, source
and original. Pictures are drawn by the weight of their source and split into training and validation by original, so
that no two crops of one photograph are on different sides.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paintback.training.crops import Crops, augment, cut, draw_crops
from paintback.training.data import Pictures
from paintback.training.drawings import draw

__all__ = ["PackPictures", "Row", "is_pack", "read_table", "read_weights", "split_of"]

Split = Literal["train", "val", "all"]
DRAWN = "drawn"  # the source of pictures that are made here: paper, print and line art
HELD_OUT = 40  # one original of so many is for validation


@dataclass(frozen=True)
class Row:
    """A picture of a pack.

    Attributes:
        pack: path of the blob.
        offset: where it begins, in bytes.
        length: its bytes.
        source: the collection that it is from.
        original: the photograph that it was made from.
    """

    pack: Path
    offset: int
    length: int
    source: str
    original: str


def is_pack(path: Path) -> bool:
    """Whether a path is that of a blob with a table beside it."""
    return path.suffix == ".bin" and path.with_suffix(".csv").is_file()


def read_table(pack: Path) -> list[Row]:
    """The pictures of a pack, in its order.

    Args:
        pack: path of the blob.

    Raises:
        ValueError: if the table lacks a column, or points beyond the blob.
    """
    with pack.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    try:
        rows = [Row(pack, int(line["offset"]), int(line["length"]), line["source"], line["original"]) for line in lines]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{pack.with_suffix('.csv')} is no table of a pack, which has the columns offset, length, source and "
            f"original ({error}); give one that has."
        ) from None
    if any(row.offset < 0 or row.offset + row.length > pack.stat().st_size for row in rows):
        raise ValueError(f"{pack.with_suffix('.csv')} points beyond the end of {pack.name}; fetch the pack again.")
    return rows


def split_of(original: str) -> Split:
    """The side on which a photograph lies, by its name alone.

    Faces of a panorama, NAME_00.png, NAME_01.png, ..., and NAME.webp of another pack lie on one side.
    """
    name = re.sub(r"_\d\d$", "", PurePosixPath(original.lower()).stem)
    return "val" if crc32(name.encode()) % HELD_OUT == 0 else "train"


def read_weights(path: Path) -> dict[str, float]:
    """Weights by source, or by the name of a pack for all its sources that have no line of their own.

    Args:
        path: a JSON object of names and numbers; pictures of a source that neither names are left out.

    Raises:
        ValueError: if it is no such object.
    """
    try:
        weights = json.loads(path.read_text(encoding="utf-8"))
        good = isinstance(weights, dict) and all(float(value) >= 0 for value in weights.values())
    except (ValueError, TypeError):
        good = False
    if not good:
        raise ValueError(f'{path} does not hold weights; give a JSON object such as {{"flowers": 0.2, "pack": 0.8}}.')
    return {name: float(value) for name, value in weights.items()}


class PackPictures(Pictures):
    """Crops of the pictures of packs, decoded once and kept in one tensor on the device that trains.

    Args:
        packs: paths of the blobs.
        weights: see `read_weights`; None draws every picture equally often. The source "drawn" has no pack: it is
            paper, print and line art made here.
        size: side of a crop in pixels.
        sizes: sides that batches take turns with; a batch of side s has (size / s)^2 as many crops. None for `size`.
        split: which side of the split.
        device: where the pictures are kept and crops are cut.
        plain: no changes of tone, no grain, no blocks; for measuring.

    Attributes:
        by_source: number of pictures by source.

    Raises:
        ValueError: if no picture is left, or one cannot be read.
    """

    channels = 3

    def __init__(
        self,
        packs: Sequence[Path],
        *,
        weights: Mapping[str, float] | None = None,
        size: int = 64,
        sizes: Sequence[int] | None = None,
        split: Split = "train",
        device: torch.device | str = "cpu",
        plain: bool = False,
    ) -> None:
        self.size, self.sizes, self.plain = size, tuple(sizes or (size,)), plain
        self.device = torch.device(device)
        chosen: list[tuple[Row, str]] = []
        for pack in packs:
            for row in read_table(pack):
                group = row.source if weights is None or row.source in weights else row.pack.stem
                if (weights is None or weights.get(group, 0) > 0) and split in ("all", split_of(row.original)):
                    chosen.append((row, group))
        pictures = _decode([row for row, _ in chosen])
        groups = [group for _, group in chosen]
        if weights is not None and weights.get(DRAWN, 0) > 0:
            extra = draw(400 if split != "val" else 20, seed=1 if split == "val" else 0)
            pictures, groups = pictures + extra, groups + [DRAWN] * len(extra)
        if not pictures:
            raise ValueError("The packs hold no picture of a source with a weight; check the names of the sources.")
        self.count = len(pictures)
        names, of = np.unique(groups, return_inverse=True)
        counts = np.bincount(of)
        self.by_source = dict(zip(names.tolist(), counts.tolist(), strict=True))
        total = counts / counts.sum() if weights is None else np.array([weights[name] for name in names.tolist()])
        self.chances = torch.from_numpy((total / counts)[of] / total.sum()).float().to(self.device)
        rows, columns = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
        stacked = torch.zeros(len(pictures), 3, rows, columns, dtype=torch.uint8)
        for number, picture in enumerate(pictures):
            stacked[number, :, : picture.shape[0], : picture.shape[1]] = torch.from_numpy(picture).permute(2, 0, 1)
        self.pictures = stacked.to(self.device)
        self.sides = torch.tensor([picture.shape[:2] for picture in pictures], device=self.device)

    def batch(self, seed: int, step: int, size: int) -> Tensor:
        return self.placed(seed, step, size)[0]

    def placed(self, seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
        """A batch and the places of its crops.

        Args:
            seed: of the crops.
            step: likewise; a batch is a function of the arguments alone, on one kind of device.
            size: pictures of a batch whose crops have the side `size`.

        Returns:
            (B, 3, S, S) in [-1, 1] and (B, 6), see `UNet.forward`, S the side whose turn it is.
        """
        rng = torch.Generator(self.device).manual_seed((seed * 1_000_003 + step) % 2**63)
        side = self.sizes[step % len(self.sizes)]
        count = max(1, size * self.size**2 // side**2)
        chosen = torch.multinomial(self.chances, count, replacement=True, generator=rng)
        return self._crops(chosen, side, rng)

    def spread(self, seed: int, size: int) -> tuple[Tensor, list[int]]:
        rng = torch.Generator(self.device).manual_seed(seed)
        chosen = torch.randperm(self.count, generator=rng, device=self.device)
        chosen = chosen.repeat(-(-size // self.count))[:size]
        return self._crops(chosen, self.size, rng)[0], chosen.tolist()

    def _crops(self, chosen: Tensor, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        crops: Crops = draw_crops(self.sides[chosen], side, rng)
        x = cut(self.pictures[chosen], crops, side)
        return x if self.plain else augment(x, rng), crops.places(self.sides[chosen])


def _decode(rows: Sequence[Row]) -> list[np.ndarray]:
    """The pictures as (H, W, 3) uint8, the short side not above 288 pixels."""
    blobs = {pack: pack.read_bytes() for pack in {row.pack for row in rows}}

    def one(row: Row) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(blobs[row.pack][row.offset : row.offset + row.length])) as file:
                picture = file.convert("RGB")
        except OSError as error:
            raise ValueError(f"{row.pack} holds no picture at {row.offset} ({error}); fetch the pack again.") from None
        return np.array(picture)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, rows))
