"""Clips in files, through PyAV.

A file's frames become RGB: of 8 bits, or of 16 where the file has more than 8, so that nothing is cut off. What it says
of its colours (primaries and transfer, as HLG and BT.2020) is handed on; the numbers themselves are not converted.
Matroska (.mkv) is written losslessly, as FFV1 in RGB: what is read back is bit for bit what was written. MP4 (.mp4) is
H.264, or HEVC of 10 bits for deep frames, and lossy everywhere, also where nothing was repainted. Sound is copied, not
encoded again.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from paintback.images.decoding import Array
from paintback.images.encoding import check_place, temporary_beside
from paintback.images.errors import MissingPicture, PictureError, Say, remark
from paintback.images.formats import CLIPS, CLIPS_WRITTEN
from paintback.images.picture import Picture

__all__ = ["Clip", "Colour", "check_clip_path", "read_clip_file", "write_clip"]

RATE = Fraction(16)  # frames a second where nothing says it; Wan 2.1's
CRF = "14"  # of H.264 and HEVC: losses that are not seen
UNSPECIFIED, BT709, BT2020, LIMITED = 2, 1, 9, 1  # numbers of colours and ranges (ITU-T H.273)
HD = 720  # from this height on, a file that names no colour matrix is taken for BT.709, as players do
SIDE = {
    "MASTERING_DISPLAY_METADATA": "HDR10 metadata",
    "CONTENT_LIGHT_LEVEL": "HDR10 metadata",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
}


@dataclass(frozen=True)
class Colour:
    """What a file says of its numbers, as ITU-T H.273 counts them; 2 where it says nothing.

    Attributes:
        primaries: 1 for BT.709, 9 for BT.2020.
        transfer: 1 for BT.709, 16 for PQ, 18 for HLG.
    """

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @classmethod
    def of(cls, frame: Any) -> Colour:
        """Of a decoded frame."""
        return cls(int(frame.color_primaries), int(frame.color_trc))

    @property
    def coded(self) -> int:
        """The matrix by which such colours are coded: BT.2020's or BT.709's."""
        return BT2020 if self.primaries == BT2020 else BT709


@dataclass(frozen=True)
class Clip:
    """Frames of one size, upright.

    Attributes:
        frames: (F, H, W, 3) RGB; uint8, uint16, or float32 in [0, 1].
        times: of the frames, in units of `time_base`; None for equal steps.
        time_base: seconds.
        rate: frames a second, on average.
        sound: the file whose sound belongs to it, or None.
        colour: what the file says of its numbers.
        aspect: width of a pixel by its height; .mp4 carries it.
    """

    frames: Array
    times: tuple[int, ...] | None = None
    time_base: Fraction = 1 / RATE
    rate: Fraction = RATE
    sound: Path | None = None
    colour: Colour = field(default_factory=Colour)
    aspect: Fraction = Fraction(1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(F, H, W)."""
        frames, height, width = self.frames.shape[:3]
        return int(frames), int(height), int(width)


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise PictureError(
            "clips in files need PyAV, which is not installed; run pip install 'paintback[video]'."
        ) from error


def read_clip_file(path: Path, say: Say) -> Clip:
    """Reads a clip from a file.

    Args:
        path: of a suffix in `formats.CLIPS`, usually.
        say: told in a sentence what is not taken along.

    Raises:
        MissingPicture: the file does not exist.
        PictureError: anything else that is wrong with it, in one sentence.
    """
    av = _av()
    if not path.exists():
        raise MissingPicture(f"{str(path)!r} does not exist, expected a clip; check the path.")
    frames: list[Array] = []
    times: list[int | None] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PictureError(f"{str(path)!r} has no moving picture in it; give a clip.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            colour, turned, more = Colour(), False, set()
            for frame in container.decode(stream):
                if not frames:
                    colour = Colour.of(frame)
                    turned = round(getattr(frame, "rotation", 0) / 90) % 2 == 1
                    _check_frame(frame, path)
                more |= {SIDE[one.type.name] for one in frame.side_data if one.type.name in SIDE}
                frames.append(_to_array(frame))
                times.append(frame.pts)
            aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
            more |= _further_streams(container)
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
    if more:
        say(f"{str(path)!r} has {', '.join(sorted(more))}, which a result does not carry.")
    clip = Clip(np.stack(frames), None, 1 / rate, rate, sound, colour, 1 / aspect if turned else aspect)
    if time_base is None or _steady(times, Fraction(time_base), rate):
        return clip
    known = tuple(time for time in times if time is not None)
    return replace(clip, times=known, time_base=Fraction(time_base))


def _check_frame(frame: Any, path: Path) -> None:
    if any(part.is_alpha for part in frame.format.components):
        raise PictureError(f"{str(path)!r} has transparency, which clips do not carry; flatten it first.")


def _further_streams(container: Any) -> set[str]:
    """What of a file beside its first moving picture and its first sound is not taken along."""
    more = set()
    if len([one for one in container.streams.video if not one.disposition & one.disposition.attached_pic]) > 1:
        more.add("more than one moving picture")
    if len(container.streams.audio) > 1:
        more.add("more than one sound track")
    if container.streams.subtitles:
        more.add("subtitles")
    if container.chapters():
        more.add("chapters")
    return more


def _steady(times: list[int | None], time_base: Fraction, rate: Fraction) -> bool:
    """Whether times are those of a steady rate from 0, but for rounding; or are none, and must be taken for them."""
    known = [time for time in times if time is not None]
    if len(known) < len(times) or any(a >= b for a, b in zip(known, known[1:], strict=False)):
        return True
    return all(abs(time * time_base - number / rate) <= time_base for number, time in enumerate(known))


def _to_array(frame: Any) -> Array:
    """RGB (H, W, 3) of 8 bits, or of 16 where the file has more than 8, turned upright."""
    deep = max(part.bits for part in frame.format.components) > 8
    options: dict[str, Any] = {}
    if not frame.format.is_rgb and frame.colorspace == UNSPECIFIED and frame.height >= HD:
        options["src_colorspace"] = "ITU709"
    array = frame.to_ndarray(format="rgb48le" if deep else "rgb24", threads=1, **options)
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


def write_clip(
    clip: Clip, path: str | PathLike[str], *, settings: dict[str, Any] | None = None, say: Say = remark
) -> bool:
    """Writes a clip, whole or not at all, in the format of the suffix: .mkv (lossless) or .mp4 (lossy).

    Args:
        clip: what to write; uint8 frames as 8 bits, others as 16 bits in .mkv and as 10 bits (HEVC) in .mp4.
        path: where; an existing file is replaced in one step.
        settings: stored as JSON in the file's comment.
        say: told in a sentence what the format does not carry; a warning otherwise.

    Returns:
        Whether the clip's sound is in the file; False where the format cannot hold it as it is, or there is none.

    Raises:
        PictureError: a name or folder that cannot be written to, or sides that the format does not take.
    """
    path = Path(path)
    check_clip_path(path, clip.shape)
    av = _av()
    if clip.aspect != 1 and path.suffix.lower() == ".mkv":
        say(f"The pixels of the clip are {clip.aspect} as wide as high, which an .mkv does not say here; an .mp4 does.")
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
        deep = clip.frames.dtype != np.uint8
        codec = "ffv1" if lossless else "libx265" if deep else "libx264"
        stream = container.add_stream(codec, rate=clip.rate)
        form = ("rgb48le" if deep else "bgr0") if lossless else "yuv420p10le" if deep else "yuv420p"
        stream.width, stream.height, stream.pix_fmt = width, height, form
        context = stream.codec_context
        context.time_base, context.sample_aspect_ratio = clip.time_base, clip.aspect
        if clip.colour.primaries != UNSPECIFIED:
            context.color_primaries = clip.colour.primaries
        if clip.colour.transfer != UNSPECIFIED:
            context.color_trc = clip.colour.transfer
        if not lossless:
            stream.options = {"crf": CRF}
            context.colorspace, context.color_range = clip.colour.coded, LIMITED
        if codec == "libx265":
            stream.options = {"crf": CRF, "x265-params": "log-level=error"}
            context.codec_tag = "hvc1"  # what players look for
        with _Sound(av, container, clip.sound) as sound:
            for frame, pts in _frames(av, clip, None if lossless else form):
                sound.copy(float(pts * clip.time_base))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            sound.copy(None)
            return sound.stream is not None


def _frames(av: Any, clip: Clip, coded: str | None) -> Iterator[tuple[Any, int]]:
    step = max(1, round(1 / (clip.rate * clip.time_base)))
    for number, pixels in enumerate(clip.frames):
        deep = pixels.dtype != np.uint8
        rgb = np.ascontiguousarray(Picture(pixels).to_uint16().pixels if deep else pixels)
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb48le" if deep else "rgb24")
        if coded is not None:
            # with threads, a few pixels at their borders came out as garbage now and then
            frame = frame.reformat(format=coded, dst_colorspace=clip.colour.coded, dst_color_range="MPEG", threads=1)
        if clip.colour.primaries != UNSPECIFIED:
            frame.color_primaries = clip.colour.primaries
        if clip.colour.transfer != UNSPECIFIED:
            frame.color_trc = clip.colour.transfer
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
