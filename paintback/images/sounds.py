"""WAV files: what is not painted of them is kept byte for byte.

The samples are read by scipy, which knows whole numbers of 8 to 32 bits and floating-point ones; the standard library's
`wave` knows no floating-point. A file is written as it was read, with the samples of its data chunk in their place: all
that stands around them (markers, the recorder's notes) stays.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paintback.images.encoding import write_whole
from paintback.images.errors import MissingPicture, PictureError

__all__ = ["Sound", "check_sound_path", "read_sound", "write_sound"]


@dataclass(frozen=True)
class Sound:
    """A sound as its file has it.

    Attributes:
        samples: (N, channels), uint8, int16, int32 or floating-point; of 24 bits int32, the lowest 8 bits 0.
        rate: samples a second.
        bits: of a whole number in the file; 0 for floating-point.
        head: what stands in the file before the samples; None for a sound that was no file.
        tail: what stands behind them.
    """

    samples: NDArray[Any]
    rate: int
    bits: int
    head: bytes | None = None
    tail: bytes = b""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate

    def to_unit(self) -> NDArray[np.float32]:
        """(channels, N) in [-1, 1]; floating-point samples as they are."""
        samples = self.samples.astype(np.float64)
        if self.samples.dtype == np.uint8:
            samples = (samples - 128) / 128
        elif self.bits:
            samples = samples / 2.0 ** (8 * self.samples.itemsize - 1)
        return np.ascontiguousarray(samples.T, np.float32)

    def with_hole(self, values: NDArray[np.float32], hole: NDArray[np.bool_]) -> Sound:
        """The sound with the values (channels, N) in [-1, 1] in its hole (N,); the rest is not touched."""
        samples, new = self.samples.copy(), values.T[hole].astype(np.float64)
        if self.bits:
            largest = 2.0 ** (self.bits - 1)
            whole = np.rint(new * largest).clip(-largest, largest - 1)
            new = whole + 128 if samples.dtype == np.uint8 else whole * 2.0 ** (8 * samples.itemsize - self.bits)
        samples[hole] = new.astype(samples.dtype)
        return replace(self, samples=samples)

    def to_bytes(self) -> bytes:
        """The samples as the file has them."""
        samples = np.ascontiguousarray(self.samples.astype(self.samples.dtype.newbyteorder("<"), copy=False))
        if self.bits != 24:
            return samples.tobytes()
        return samples.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()


def read_sound(source: Any, rate: int | None = None) -> Sound:
    """Reads a WAV file, or takes samples as a sound.

    Args:
        source: a path; numpy (N,) or (N, channels), of the types that `Sound` has; torch (channels, N) in [-1, 1]; or a
            `Sound`.
        rate: samples a second, of an array.

    Raises:
        PictureError: for what is no WAV file that is kept byte for byte, or no array of sound.
    """
    if isinstance(source, Sound):
        return source
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise MissingPicture(f"There is no file {str(path)!r}; give the path of a WAV file.")
        return _parse(path.read_bytes(), str(path))
    if rate is None:
        raise PictureError("Samples need the sampling_rate too, in samples a second; give it.")
    if hasattr(source, "detach"):
        source = source.detach().cpu().float().numpy().T
    samples = np.asarray(source)
    samples = samples[:, None] if samples.ndim == 1 else samples
    kinds = {"uint8": 8, "int16": 16, "int32": 32, "float32": 0, "float64": 0}
    if samples.ndim != 2 or not len(samples) or samples.dtype.name not in kinds:
        raise PictureError(
            "A sound is an array (samples, channels) of uint8, int16, int32, float32 or float64; got "
            f"{samples.dtype} of shape {samples.shape}."
        )
    return _checked(Sound(samples, int(rate), kinds[samples.dtype.name]), "The sound")


def check_sound_path(path: Path) -> None:
    """Refuses a name that is none of a WAV file.

    Raises:
        PictureError: naming it.
    """
    if path.suffix.lower() not in (".wav", ".wave"):
        raise PictureError(f"{str(path)!r} is no name of a WAV file, and others are not written; end it in .wav.")


def write_sound(sound: Sound, path: str | Path) -> None:
    """Writes a WAV file, whole or not at all.

    Args:
        sound: as it was read, painted or not; or made of an array.
        path: where; an existing file is replaced in one step.

    Raises:
        PictureError: for another kind of name, a folder that is not there, or a disk that is full.
    """
    check_sound_path(Path(path))
    if sound.head is None:
        from scipy.io import wavfile

        made = io.BytesIO()
        wavfile.write(made, sound.rate, sound.samples)
        write_whole(made.getvalue(), Path(path))
        return
    write_whole(sound.head + sound.to_bytes() + sound.tail, Path(path))


def _parse(data: bytes, name: str) -> Sound:
    from scipy.io import wavfile

    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise PictureError(
            f"{name!r} is no WAV file (RIFF); turn it into one first, as in ffmpeg -i SOUND -c:a pcm_s24le sound.wav."
        )
    place, end = _chunk(data, b"data")
    kind, _ = _chunk(data, b"fmt ")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of chunks that it passes over, which are kept here
            rate, samples = wavfile.read(io.BytesIO(data))
        bits = (
            0 if samples.dtype.kind == "f" else 8 * (struct.unpack_from("<H", data, kind + 12)[0] // _channels(samples))
        )
    except Exception as error:  # its own, of struct, of numpy: all of a file that it cannot read
        raise PictureError(f"{name!r} cannot be read as a WAV file: {' '.join(str(error).split())}.") from error
    samples = samples[:, None] if samples.ndim == 1 else samples
    sound = Sound(samples, int(rate), bits, data[:place], data[end:])
    if sound.to_bytes() != data[place:end]:
        raise PictureError(
            f"{name!r} has samples of a kind that could not be written back byte for byte; turn it into PCM of 16 or "
            "24 bits first."
        )
    return _checked(sound, repr(name))


def _channels(samples: NDArray[Any]) -> int:
    return 1 if samples.ndim == 1 else samples.shape[1]


def _chunk(data: bytes, wanted: bytes) -> tuple[int, int]:
    """Where the contents of a chunk begin and end; (0, 0) where there is none."""
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        if name == wanted:
            return place + 8, min(place + 8 + size, len(data))
        place += 8 + size + size % 2
    return 0, 0


def _checked(sound: Sound, name: str) -> Sound:
    if not len(sound.samples) or sound.samples.shape[1] > 2:
        raise PictureError(
            f"{name} has {len(sound.samples)} samples of {sound.samples.shape[1]} channels, and at least one sample of "
            "one or two channels is expected."
        )
    return sound
