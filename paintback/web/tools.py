"""What the page asks for besides pictures and jobs: how long a job would take, masks that are found, many results.

All of it is made anew from what the store has; nothing here is kept but the picture that was read last.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from paintback.images.errors import PictureError
from paintback.web.schemas import Id

if TYPE_CHECKING:
    from pathlib import Path

    from paintback.images import Picture
    from paintback.images.masks import Mask

__all__ = ["FindRequest", "PlanView", "Reader", "archive", "find", "small"]

SIDE = 2048  # longer side of the picture that masks are looked for in
SMALL = 320  # of a small rendition
BLOCK = 1 << 18  # bytes


class PlanView(BaseModel):
    """What a job would take, were it asked for now."""

    seconds: float | None = Field(description="Of painting; null until the model is loaded and was timed.")
    evaluations: float | None = Field(description="Of all samples; null until the model is loaded.")
    vjps: float | None
    steps: int | None
    loading: bool = Field(description="Whether it is known once the model is loaded.")
    ahead: int = Field(description="Jobs that come before it.")


class FindRequest(BaseModel):
    """What is to be found, as `paintback mask` finds it, or which mask is to be refined."""

    words: str = Field("", max_length=200, description="As in auto:dust+scratches, without the auto.")
    sensitivity: float = Field(1.0, gt=0, le=16, description="Above 1 finds fainter damage, and more that is none.")
    mask: Id | None = Field(None, description="Without words: the mask whose edge is moved to what it covers.")


class Reader:
    """Reads pictures, and keeps the last one: plans and masks are asked for again and again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[str, Picture] | None = None

    def __call__(self, path: str | Path) -> Picture:
        """The picture of a file that does not change; it is not to be written to."""
        from paintback.images import read_picture

        name = str(path)
        with self._lock:
            if self._last is None or self._last[0] != name:
                self._last = name, read_picture(name)
            return self._last[1]


def find(picture: Picture, asked: FindRequest, mask: Mask | None) -> bytes:
    """A mask as a PNG, white where something was found.

    Large pictures are looked at smaller, so that an answer takes seconds and not minutes.

    Args:
        picture: where it is looked for.
        asked: what.
        mask: to be refined, where no words are given.

    Raises:
        PictureError: where nothing is found, or the words cannot be.
    """
    from PIL import Image

    from paintback.images.finding import find as found_in
    from paintback.images.finding import refine
    from paintback.images.resizing import resize_unit

    height, width = picture.shape
    factor = min(1.0, SIDE / max(height, width))
    looked = picture if factor == 1 else _smaller(picture, factor)
    if asked.words:
        words = "+".join(_scaled(word, looked, factor) for word in asked.words.split("+"))
        found = found_in(words, looked, asked.sensitivity)
    elif mask is None:
        raise PictureError("There is neither a word nor a mask; say what is to be found, or send a mask to refine.")
    elif mask.shape != picture.shape:
        raise PictureError(f"The mask is {mask.shape[1]} x {mask.shape[0]} and the picture {width} x {height}.")
    else:
        own = mask if factor == 1 else resize_unit(mask.astype(np.float32), looked.shape, "bilinear") > 0.5
        found = refine(looked, np.asarray(own))
    if factor < 1:
        found = np.asarray(resize_unit(found.astype(np.float32), (height, width), "bilinear") > 0.5)
    buffer = io.BytesIO()
    Image.fromarray(found).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _smaller(picture: Picture, factor: float) -> Picture:
    from PIL import Image

    from paintback.images import Picture as Made

    pixels = picture.to_uint8().pixels
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    image = Image.fromarray(pixels[..., 0] if picture.grey else pixels).resize(size, Image.Resampling.BOX)
    return Made(np.asarray(image).reshape(size[1], size[0], -1))


def _scaled(word: str, picture: Picture, factor: float) -> str:
    """A word whose places are those of a smaller picture."""
    name, equals, value = word.partition("=")
    if name not in ("same-as", "object", "object-at") or factor == 1:
        return word
    try:
        numbers = [int(int(number) * factor) for number in value.split(",")]
    except ValueError:
        return word  # which is told where it is read
    numbers[:2] = [min(number, side - 1) for number, side in zip(numbers[:2], picture.size, strict=False)]
    return name + equals + ",".join(str(number) for number in numbers)


def small(path: Path) -> tuple[bytes, str]:
    """A picture for a list, and its media type."""
    from PIL import Image

    from paintback.images import read_picture, to_pil

    image = to_pil(read_picture(path).to_uint8())
    image.thumbnail((SMALL, SMALL), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.convert("RGBA" if image.mode in ("RGBA", "LA", "PA") else "RGB").save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue(), "image/webp"


class _Sink(io.RawIOBase):
    """Takes what a ZIP file is written with, to be sent on."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.blocks.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        data, self.blocks = b"".join(self.blocks), []
        return data


def archive(files: list[tuple[str, Path]]) -> Iterator[bytes]:
    """A ZIP file of pictures, made while it is sent.

    Args:
        files: the name of each, and where it lies; of equal names the later ones are numbered.
    """
    sink, taken = _Sink(), set[str]()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as out:  # pictures are compressed already
        for name, path in files:
            own, number, parts = name, 2, PurePosixPath(name)
            while own in taken:
                own, number = f"{parts.stem}-{number}{parts.suffix}", number + 1
            taken.add(own)
            with path.open("rb") as file, out.open(own, "w", force_zip64=True) as entry:
                while block := file.read(BLOCK):
                    entry.write(block)
                    yield sink.taken()
    yield sink.taken()
