"""WAV files come back byte for byte, and what is no WAV file is refused in one sentence."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest
from scipy.io import wavfile

from paintback.images.sounds import Sound, read_sound, write_sound

KINDS = ("uint8", "int16", "int24", "int32", "float32", "float64")


def wav(kind, channels=2, count=101, rate=44100):
    """The bytes of a file of random samples, with markers before and behind them."""
    rng = np.random.default_rng(0)
    made = io.BytesIO()
    if kind == "int24":
        with wave.open(made, "wb") as file:
            file.setparams((channels, 3, rate, 0, "NONE", ""))
            file.writeframes(rng.bytes(3 * channels * count))
    else:
        dtype = np.dtype(kind)
        values = rng.uniform(-1.2, 1.2, (count, channels))
        if dtype.kind != "f":
            values = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (count, channels), endpoint=True)
        wavfile.write(made, rate, values.astype(dtype).squeeze())
    data = made.getvalue()
    place = data.index(b"data")
    (size,) = struct.unpack_from("<I", data, place + 4)
    marks = b"note" + struct.pack("<I", 5) + b"take\0\0"  # of an odd length, with its padding
    body = data[12:place] + marks + data[place : place + 8 + size] + b"\0" * (size % 2) + marks
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_comes_back_byte_for_byte(tmp_path, kind, channels):
    data = wav(kind, channels)
    (tmp_path / "in.wav").write_bytes(data)
    sound = read_sound(tmp_path / "in.wav")
    assert (sound.samples.shape, sound.rate) == ((101, channels), 44100)
    assert sound.bits == {"int24": 24, "float32": 0, "float64": 0}.get(kind, 8 * sound.samples.itemsize)
    write_sound(sound, tmp_path / "out.wav")
    assert (tmp_path / "out.wav").read_bytes() == data
    unit = sound.to_unit()
    assert 0.5 < abs(unit).max() <= 1.2
    hole = np.zeros(101, bool)
    hole[40:60] = True
    painted = sound.with_hole(unit, hole)  # what it was, to the last bit that float32 holds
    assert np.array_equal(painted.samples[~hole], sound.samples[~hole])
    assert np.abs(painted.to_unit() - unit).max() < 1e-6
    louder = sound.with_hole(unit * 3, hole)
    write_sound(louder, tmp_path / "out.wav")
    again = read_sound(tmp_path / "out.wav")
    assert np.array_equal(again.samples, louder.samples)
    assert np.abs(again.to_unit()).max() <= (3.6 if sound.bits == 0 else 1.0)
    assert (again.head, again.tail) == (sound.head, sound.tail)


def test_arrays_are_sounds_too(tmp_path):
    import torch

    one = read_sound(np.zeros(5, np.int16), 8000)
    assert (one.samples.shape, one.bits, one.seconds) == ((5, 1), 16, 5 / 8000)
    assert read_sound(torch.zeros(2, 7), 8000).samples.shape == (7, 2)
    assert read_sound(one) is one
    write_sound(one, tmp_path / "made.wav")
    assert np.array_equal(read_sound(tmp_path / "made.wav").samples, one.samples)


@pytest.mark.parametrize(("data", "sentence"), [
    (b"ID3 an mp3", "is no WAV file"),
    (b"RIFF\x04\0\0\0WAVE", "cannot be read as a WAV file"),
    (wav("int16")[:40], "cannot be read as a WAV file"),
    (wav("int16", channels=3), "3 channels"),
    (wav("int16", count=0), "0 samples"),
    (wav("int16").replace(b"\x10\0\0\0\x01\0", b"\x10\0\0\0\x07\0", 1), "cannot be read as a WAV file"),  # mu-law
])  # fmt: skip
def test_other_files_are_refused(tmp_path, data, sentence):
    (tmp_path / "in.wav").write_bytes(data)
    with pytest.raises(ValueError, match=sentence) as error:
        read_sound(tmp_path / "in.wav")
    assert str(error.value).count("\n") == 0


def test_what_is_no_sound_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_sound(tmp_path / "none.wav")
    with pytest.raises(ValueError, match="need the sampling_rate"):
        read_sound(np.zeros(5, np.int16))
    with pytest.raises(ValueError, match="got int64 of shape"):
        read_sound(np.zeros(5, np.int64), 8000)
    sound = Sound(np.zeros((5, 1), np.int16), 8000, 16)
    with pytest.raises(ValueError, match=r"end it in \.wav"):
        write_sound(sound, tmp_path / "out.flac")
    with pytest.raises(ValueError, match="check that the folder exists"):
        write_sound(sound, tmp_path / "none" / "out.wav")
    assert list(tmp_path.iterdir()) == []
