"""Pictures to train on: any folder of pictures, or one IDX file (the format of MNIST and Fashion-MNIST).

Every batch is a function of (seed, step) alone, so that a training run that was stopped and resumed sees the
batches that an uninterrupted one would have seen.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from paintback.models.latent import LatentCodec

__all__ = ["EncodedPictures", "IdxPictures", "PictureFolder", "Pictures", "open_pictures", "prefetch", "read_idx"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


def read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    Args:
        path: the file.

    Returns:
        The array, uint8, of the shape that the file's header states.

    Raises:
        ValueError: if the file is not an IDX file of unsigned bytes, or is cut short.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes; give a folder of pictures or such a file.")
    rank = raw[3]
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    if len(raw) != 4 + 4 * rank + int(np.prod(shape)):
        raise ValueError(f"{path} is cut short: its header promises {shape}; fetch the file again.")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


class Pictures:
    """A source of training batches.

    Attributes:
        channels: colours of a picture.
        size: side of the squares that `batch` returns, in pixels.
        count: number of pictures behind it.
        vocabulary: words of the prompts; empty for pictures without.
        device: where the batches are.
    """

    channels: int
    size: int
    count: int
    vocabulary: tuple[str, ...] = ()
    device: torch.device = torch.device("cpu")

    def batch(self, seed: int, step: int, size: int) -> Tensor:
        """Returns (size, channels, self.size, self.size), float32 in [-1, 1]; a function of its arguments alone."""
        raise NotImplementedError

    def placed(self, seed: int, step: int, size: int) -> tuple[Tensor, Tensor | None]:
        """`batch`, and the places of its crops as `UNet.forward` takes them, where the source knows them."""
        return self.batch(seed, step, size), None

    def prompts(self, seed: int, step: int, size: int) -> list[str]:
        """A text for each picture of `batch(seed, step, size)`; empty texts for pictures without."""
        return [""] * size

    def spread(self, seed: int, size: int) -> tuple[Tensor, list[int]]:
        """Pictures to measure on, of as many different sources as there are.

        Returns:
            What `batch` returns, and the number of the picture that each was made from.
        """
        return self.batch(seed, 0, size), list(range(size))


class EncodedPictures(Pictures):
    """Pictures as a latent model sees them.

    Args:
        pictures: to be encoded, batch by batch.
        codec: of the model.

    Raises:
        ValueError: for a model of clips, or another number of colours or side than its codec takes.
    """

    def __init__(self, pictures: Pictures, codec: LatentCodec) -> None:
        shape = codec.shape((pictures.size, pictures.size))
        if len(shape) != 3 or codec.frames != 1:
            raise ValueError("A model of clips cannot be trained on pictures; take a model of pictures.")
        if pictures.channels != 3:
            raise ValueError(f"A latent model sees pictures in colour; these have {pictures.channels} channels.")
        if pictures.size % codec.factor:
            raise ValueError(f"The side must be a multiple of {codec.factor}, pixels a latent; got {pictures.size}.")
        self.pictures, self.codec = pictures, codec
        self.channels, self.size, self.count, self.device = shape[0], shape[1], pictures.count, pictures.device

    @torch.no_grad()
    def batch(self, seed: int, step: int, size: int) -> Tensor:
        return self.codec.encode(self.pictures.batch(seed, step, size)).float()

    @torch.no_grad()
    def spread(self, seed: int, size: int) -> tuple[Tensor, list[int]]:
        pictures, sources = self.pictures.spread(seed, size)
        return self.codec.encode(pictures).float(), sources


class IdxPictures(Pictures):
    """All pictures of an IDX file, padded on all sides with black to a multiple of 8, and mirrored at random.

    Args:
        path: the IDX file, (N, H, W) unsigned bytes.
        mirror: whether half of the pictures are flipped left to right.
        only: (first, end) of those to take; None for all.
    """

    def __init__(self, path: Path, *, mirror: bool = True, only: tuple[int, int] | None = None) -> None:
        pictures = read_idx(path)
        if pictures.ndim != 3:
            raise ValueError(f"{path} holds an array of shape {pictures.shape}; expected (N, H, W) pictures.")
        if only is not None:
            if not 0 <= only[0] < only[1] <= len(pictures):
                raise ValueError(f"{path} holds pictures 0 to {len(pictures)}; got the range {only[0]}:{only[1]}.")
            pictures = pictures[slice(*only)]
        self.size = -(-max(pictures.shape[1:]) // 8) * 8
        pads = [((self.size - side) // 2, self.size - side - (self.size - side) // 2) for side in pictures.shape[1:]]
        self.pictures = torch.from_numpy(np.pad(pictures, ((0, 0), *pads)))
        self.channels, self.count, self.mirror = 1, len(pictures), mirror

    def batch(self, seed: int, step: int, size: int) -> Tensor:
        rng = np.random.default_rng((seed, step))
        return self._take(rng.integers(self.count, size=size), rng)

    def spread(self, seed: int, size: int) -> tuple[Tensor, list[int]]:
        rng = np.random.default_rng((seed, 2))
        chosen = np.resize(rng.permutation(self.count), size)
        return self._take(chosen, rng), chosen.tolist()

    def _take(self, chosen: np.ndarray, rng: np.random.Generator) -> Tensor:
        x = self.pictures[torch.from_numpy(chosen)].float().div_(127.5).sub_(1)
        if self.mirror:
            flip = torch.from_numpy(rng.random(len(chosen)) < 0.5)
            x[flip] = x[flip].flip(-1)
        return x[:, None]


class PictureFolder(Pictures):
    """Square crops, at many scales, of the pictures of a folder.

    The side of the crop in the picture is `size` itself (scale 1/1) in `native` of the cases and log-uniform
    between `size` and the picture's short side in the rest; it is brought to `size` pixels by area averaging,
    the same filter that the coarse-to-fine policy uses.

    Args:
        folder: searched with all its sub-folders.
        size: side of a crop after scaling, in pixels.
        native: fraction of crops at scale 1/1.
        mirror: whether half of the crops are flipped left to right.

    Raises:
        ValueError: if no readable picture of at least `size` pixels on both sides is found.
    """

    channels = 3

    def __init__(self, folder: Path, *, size: int = 64, native: float = 0.4, mirror: bool = True) -> None:
        self.size, self.native, self.mirror = size, native, mirror
        self.pictures = []
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file).convert("RGB")
            if min(picture.size) >= size:
                self.pictures.append(picture)
        self.count = len(self.pictures)
        if not self.pictures:
            raise ValueError(f"{folder} holds no picture of at least {size} x {size} pixels; give another folder.")

    def batch(self, seed: int, step: int, size: int) -> Tensor:
        rng = np.random.default_rng((seed, step))
        return _stacked([self._crop(self.pictures[rng.integers(self.count)], rng) for _ in range(size)])

    def spread(self, seed: int, size: int) -> tuple[Tensor, list[int]]:
        rng = np.random.default_rng((seed, 2))
        chosen = np.resize(rng.permutation(self.count), size).tolist()
        return _stacked([self._crop(self.pictures[k], rng) for k in chosen]), chosen

    def _crop(self, picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
        side = self.size
        if rng.random() >= self.native:
            side = round(side * (min(picture.size) / side) ** rng.random())
        left = int(rng.integers(picture.width - side + 1))
        top = int(rng.integers(picture.height - side + 1))
        box = (left, top, left + side, top + side)
        crop = np.asarray(picture.resize((self.size, self.size), Image.Resampling.BOX, box=box))
        return crop[:, ::-1] if self.mirror and rng.random() < 0.5 else crop


def _stacked(crops: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def open_pictures(path: Path, *, size: int = 64, only: tuple[int, int] | None = None) -> Pictures:
    """Opens a folder of pictures or an IDX file.

    Args:
        path: a folder or a file.
        size: side of the training crops; an IDX file brings its own.
        only: (first, end) of the pictures of an IDX file to take; None for all.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if it cannot be trained on.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}; give a folder of pictures or an IDX file.")
    if not path.is_dir():
        return IdxPictures(path, only=only)
    if only is not None:
        raise ValueError(f"A range of pictures goes with an IDX file, and {path} is a folder; give another folder.")
    return PictureFolder(path, size=size)


def prefetch(pictures: Pictures, seed: int, start: int, stop: int, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yields the placed batches of steps `start` to `stop`, the next one made in a thread while the caller works.

    Batches that are cut on another device are made where they are asked for: that device works ahead by itself.
    """
    if pictures.device.type != "cpu":
        for step in range(start, stop):
            yield pictures.placed(seed, step, size)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(pictures.placed, seed, start, size)
        for step in range(start, stop):
            now = ahead.result()
            if step + 1 < stop:
                ahead = pool.submit(pictures.placed, seed, step + 1, size)
            yield now
