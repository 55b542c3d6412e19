"""Clips: frames as the user gave them, with their times; files through PyAV.

A file's frames become 8-bit RGB. Matroska (.mkv) is written losslessly, as FFV1 in RGB: what is read back is bit for
bit what was written. MP4 (.mp4) is H.264 and lossy everywhere, also where nothing was repainted. Sound is copied,
not encoded again.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paintback.images.decoding import Array
from paintback.images.encoding import check_place, temporary_beside
from paintback.images.errors import MissingPicture, PictureError
from paintback.images.formats import CLIPS, CLIPS_WRITTEN
from paintback.images.masks import extend_picture, read_mask
from paintback.images.picture import Picture, is_torch, read_picture

__all__ = [
    "Clip",
    "check_clip_path",
    "extend_clip",
    "is_clip_path",
    "read_clip",
    "read_clip_mask",
    "write_clip",
]

Masks = NDArray[np.bool_]
ClipSource = Union["Clip", str, "PathLike[str]", list[Any], tuple[Any, ...], Array, Any]

RATE = Fraction(16)  # frames a second where nothing says it; Wan 2.1's
CRF = "14"  # of H.264: losses that are not seen
UNSPECIFIED, BT709, LIMITED = 2, 1, 1  # H.264's numbers of colour matrices and ranges
HD = 720  # from this height on, a file that names no colour matrix is taken for BT.709, as players do


@dataclass(frozen=True)
class Clip:
    """Frames of one size, upright.

    Attributes:
        frames: (F, H, W, 3) RGB; uint8, uint16, or float32 in [0, 1].
        times: of the frames, in units of `time_base`; None for equal steps.
        time_base: seconds.
        rate: frames a second, on average.
        sound: the file whose sound belongs to it, or None.
    """

    frames: Array
    times: tuple[int, ...] | None = None
    time_base: Fraction = 1 / RATE
    rate: Fraction = RATE
    sound: Path | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(F, H, W)."""
        frames, height, width = self.frames.shape[:3]
        return int(frames), int(height), int(width)


def is_clip_path(source: object) -> bool:
    """Whether something is the path of a clip, by its suffix."""
    return isinstance(source, str | PathLike) and Path(source).suffix.lower() in CLIPS


def read_clip(source: ClipSource) -> Clip:
    """Reads a clip from whatever the user has.

    Args:
        source: a `Clip`, returned as it is; the path of a file; a list of pictures as `read_picture` takes them;
            numpy (F, H, W, 3); torch (F, 3, H, W) or (1, F, 3, H, W).

    Raises:
        MissingPicture: the file does not exist.
        PictureError: anything else that is wrong with it, in one sentence.
    """
    if isinstance(source, Clip):
        return source
    if isinstance(source, str | PathLike):
        return _decode(Path(source))
    if is_torch(source) and source.ndim == 5 and len(source) == 1:  # type: ignore[union-attr]
        source = source[0]
    several = isinstance(source, list | tuple)
    given = f"of shape {tuple(source.shape)}" if hasattr(source, "shape") else f"as {type(source).__name__}"
    if not several and (isinstance(source, Image.Image) or getattr(source, "ndim", 0) != 4):
        raise PictureError(
            f"a clip was given {given}, expected a path, a list of pictures, numpy (F, H, W, 3) or torch "
            "(F, 3, H, W); for one picture use Inpainter."
        )
    return Clip(_stack([read_picture(frame) for frame in source]))


def _stack(pictures: list[Picture]) -> Array:
    if not pictures:
        raise PictureError("the clip has no frames; give at least one.")
    first = pictures[0]
    for number, picture in enumerate(pictures, 1):
        if picture.shape != first.shape or picture.pixels.dtype != first.pixels.dtype:
            raise PictureError(
                f"frame {number} is {picture.size} of {picture.pixels.dtype} and the first {first.size} of "
                f"{first.pixels.dtype}, expected the same for all; bring them to one size and type."
            )
        if picture.alpha is not None:
            raise PictureError(f"frame {number} has transparency, which clips do not carry; flatten it first.")
    return np.stack([np.repeat(one.pixels, 3, axis=-1) if one.grey else one.pixels for one in pictures])


def read_clip_mask(source: Any, shape: tuple[int, int, int]) -> Masks:
    """Reads the mask of a clip: white = repaint.

    Args:
        source: one mask for all frames, as `masks.read_mask` takes it; or one for each: a list, an array (F, H, W) or
            (F, H, W, 3), a tensor (F, H, W) or (F, 1, H, W), or the path of a clip.
        shape: (F, H, W) of the clip.

    Returns:
        bool (F, H, W).

    Raises:
        PictureError: another size or number of frames, or anything `read_mask` refuses.
    """
    count, *size = shape
    if is_clip_path(source):
        source = list(_decode(Path(source)).frames)
    dimensions = 0 if isinstance(source, Image.Image) else getattr(source, "ndim", 0)
    several = (
        isinstance(source, list | tuple)
        or (dimensions == 3 and tuple(source.shape[1:]) == tuple(size))
        or (dimensions == 4 and len(source) > 1)
    )
    if not several:
        return np.broadcast_to(read_mask(source, (size[0], size[1])), shape).copy()
    if len(source) not in (1, count):
        raise PictureError(
            f"the mask has {len(source)} frames and the clip {count}; give one for each frame, or one picture for all."
        )
    masks = [read_mask(one, (size[0], size[1])) for one in source]
    return np.broadcast_to(np.stack(masks), shape).copy()


def extend_clip(clip: Clip, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> tuple[Clip, Masks]:
    """Puts a clip on a larger canvas, to paint its surroundings.

    Args:
        clip: kept bit-identical inside.
        left: pixels to add at this side; likewise top, right and bottom.
        top: see left.
        right: see left.
        bottom: see left.

    Returns:
        The larger clip and the mask of the new area, bool (F, H, W).

    Raises:
        PictureError: a negative margin, or no margin at all.
    """
    extended = [extend_picture(Picture(frame), left, top, right, bottom) for frame in clip.frames]
    frames = np.stack([picture.pixels for picture, _ in extended])
    return replace(clip, frames=frames), np.stack([mask for _, mask in extended])


# Files --------------------------------------------------------------------------------------------------------------


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise PictureError(
            "clips in files need PyAV, which is not installed; run pip install 'paintback[video]'."
        ) from error


def _decode(path: Path) -> Clip:
    av = _av()
    if not path.exists():
        raise MissingPicture(f"{str(path)!r} does not exist, expected a clip; check the path.")
    frames, times = [], []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PictureError(f"{str(path)!r} has no moving picture in it; give a clip.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                frames.append(_to_array(frame))
                times.append(frame.pts)
            rate = Fraction(stream.average_rate or stream.guessed_rate or RATE)
            time_base = stream.time_base
            sound = path if container.streams.audio else None
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(
            f"{str(path)!r} cannot be read as a clip ({error.strerror or error}); give {', '.join(sorted(CLIPS))}."
        ) from error
    if not frames:
        raise PictureError(f"{str(path)!r} holds no frame that can be read; give a complete clip.")
    if len({frame.shape for frame in frames}) > 1:
        raise PictureError(f"the frames of {str(path)!r} change their size; bring them to one size first.")
    if time_base is None or _steady(times, Fraction(time_base), rate):
        return Clip(np.stack(frames), None, 1 / rate, rate, sound)
    return Clip(np.stack(frames), tuple(times), Fraction(time_base), rate, sound)


def _steady(times: list[int | None], time_base: Fraction, rate: Fraction) -> bool:
    """Whether times are those of a steady rate from 0, but for rounding; or are none, and must be taken for them."""
    known = [time for time in times if time is not None]
    if len(known) < len(times) or any(a >= b for a, b in zip(known, known[1:], strict=False)):
        return True
    return all(abs(time * time_base - number / rate) <= time_base for number, time in enumerate(known))


def _to_array(frame: Any) -> Array:
    """8-bit RGB (H, W, 3), turned upright."""
    options: dict[str, Any] = {}
    if not frame.format.is_rgb and frame.colorspace == UNSPECIFIED and frame.height >= HD:
        options["src_colorspace"] = "ITU709"
    array = frame.to_ndarray(format="rgb24", **options)
    return np.ascontiguousarray(np.rot90(array, round(getattr(frame, "rotation", 0) / 90)))


def check_clip_path(path: str | PathLike[str], shape: tuple[int, int, int]) -> None:
    """Refuses a path that a clip of a shape (F, H, W) cannot be written to.

    Raises:
        PictureError: unknown suffix, a missing folder, or odd sides for MP4.
    """
    path = Path(path)
    if path.suffix.lower() not in CLIPS_WRITTEN:
        raise PictureError(f"{str(path)!r} is no clip's name, expected .mkv (lossless) or .mp4; choose one of them.")
    check_place(path)
    _, height, width = shape
    if path.suffix.lower() == ".mp4" and (height % 2 or width % 2):
        raise PictureError(f"an .mp4 has even sides and the clip is {width} x {height} pixels; write an .mkv.")


def write_clip(clip: Clip, path: str | PathLike[str], *, settings: dict[str, Any] | None = None) -> bool:
    """Writes a clip, whole or not at all, in the format of the suffix: .mkv (lossless) or .mp4 (lossy).

    Args:
        clip: what to write; more than 8 bits are rounded.
        path: where; an existing file is replaced in one step.
        settings: stored as JSON in the file's comment.

    Returns:
        Whether the clip's sound is in the file; False where the format cannot hold it as it is, or there is none.

    Raises:
        PictureError: a name or folder that cannot be written to, or sides that the format does not take.
    """
    path = Path(path)
    check_clip_path(path, clip.shape)
    av = _av()
    temporary = temporary_beside(path)
    try:
        try:
            try:
                has_sound = _encode(av, clip, temporary, path.suffix.lower(), settings)
            except av.FFmpegError:
                if clip.sound is None:
                    raise
                has_sound = _encode(av, replace(clip, sound=None), temporary, path.suffix.lower(), settings)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(
            f"{str(path)!r} cannot be written ({error.strerror or error}); check that the folder may be written to and "
            "has room."
        ) from error
    return has_sound


def _encode(av: Any, clip: Clip, path: Path, suffix: str, settings: dict[str, Any] | None) -> bool:
    _, height, width = clip.shape
    lossless = suffix == ".mkv"
    with av.open(str(path), "w", format=CLIPS_WRITTEN[suffix]) as container:
        if settings is not None:
            container.metadata["comment"] = json.dumps(settings, ensure_ascii=False)
        stream = container.add_stream("ffv1" if lossless else "libx264", rate=clip.rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0" if lossless else "yuv420p"
        stream.codec_context.time_base = clip.time_base
        if not lossless:
            stream.options = {"crf": CRF}
            stream.codec_context.colorspace, stream.codec_context.color_range = BT709, LIMITED
        with _Sound(av, container, clip.sound) as sound:
            for frame, pts in _frames(av, clip, lossless):
                sound.copy(float(pts * clip.time_base))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            sound.copy(None)
            return sound.stream is not None


def _frames(av: Any, clip: Clip, lossless: bool) -> Iterator[tuple[Any, int]]:
    step = max(1, round(1 / (clip.rate * clip.time_base)))
    for number, pixels in enumerate(clip.frames):
        rgb = np.ascontiguousarray(Picture(pixels).to_uint8().pixels)
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        if not lossless:
            frame = frame.reformat(
                format="yuv420p",
                dst_colorspace="ITU709",
                dst_color_range="MPEG",
            )
        frame.pts = pts = number * step if clip.times is None else clip.times[number]
        frame.time_base = clip.time_base
        yield frame, pts


class _Sound:
    """The sound of one file, copied packet by packet into another."""

    def __init__(self, av: Any, container: Any, source: Path | None) -> None:
        self.container, self.stream, self.input = container, None, None
        if source is None:
            return
        self.input = av.open(str(source))
        own = self.input.streams.audio[0]
        if own.codec.name not in container.supported_codecs:
            return
        self.stream = container.add_stream_from_template(own)
        self.packets = (packet for packet in self.input.demux(own) if packet.dts is not None)
        self.next = next(self.packets, None)

    def __enter__(self) -> _Sound:
        return self

    def __exit__(self, *_: object) -> None:
        if self.input is not None:
            self.input.close()

    def copy(self, until: float | None) -> None:
        """Copies what begins before a time in seconds, or all that is left."""
        while self.stream is not None and self.next is not None:
            if until is not None and float(self.next.dts * self.next.time_base) >= until:
                return
            self.next.stream = self.stream
            self.container.mux(self.next)
            self.next = next(self.packets, None)
