"""`paintback audio`: a WAV file in, one out, by a tiny random Stable Audio."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.io import wavfile

from tests.models import tiny_pipelines as tiny


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "song.wav"
    wavfile.write(path, 800, (9000 * np.sin(np.arange(1600)[:, None] / [5, 7])).astype(np.int16))
    return path


@pytest.fixture
def paint(call, tmp_path_factory):
    folder = tiny.folder("stable_audio", tmp_path_factory)

    def run(*arguments):
        return call("audio", *arguments, "--model", folder, "--steps", 2, "--threads", 1, "--quiet")

    return run


def test_the_seconds_are_painted_and_the_rest_is_kept(paint, sound, tmp_path):
    out = tmp_path / "out.wav"
    holes = ("--hole", "0.5:0.75", "--hole", "1.5:1.6")
    done = paint(sound, *holes, "--prompt", "a bell", "--samples", 2, "--seed", 7, "-o", out, "--format", "json")
    assert done.code == 0, done.err
    report = done.json
    paths = [tmp_path / "out-1.wav", tmp_path / "out-2.wav"]
    assert [row["path"] for row in report["outputs"]] == [str(path) for path in paths]
    assert [row["seed"] for row in report["outputs"]] == [7, 8]
    assert report["settings"]["hole"] == "0.5:0.75,1.5:1.6"
    assert (report["settings"]["method"], report["settings"]["steps"]) == ("ding", 2)
    assert set(report["settings"]["sha256"]) == {"sound"}
    before = wavfile.read(sound)[1]
    hole = np.zeros(1600, bool)
    hole[400:600] = hole[1200:1280] = True
    after = [wavfile.read(path)[1] for path in paths]
    for samples in after:
        assert samples.dtype == before.dtype
        assert np.array_equal(samples[~hole], before[~hole])
        assert (samples[hole] != before[hole]).mean() > 0.9
    assert (after[0][hole] != after[1][hole]).mean() > 0.7  # both are clipped at the ends of 16 bits
    assert sound.read_bytes()[:44] == paths[0].read_bytes()[:44]


def test_the_input_is_written_over_only_where_that_is_said(paint, sound):
    before = sound.read_bytes()
    refused = paint(sound, "--hole", "0.5:0.6", "-o", sound)
    assert (refused.code, sound.read_bytes()) == (2, before)
    assert "--overwrite" in refused.err
    done = paint(sound, "--hole", "0.5:0.6", "-o", sound, "--overwrite")
    assert done.code == 0, done.err
    assert len(sound.read_bytes()) == len(before)
    assert sound.read_bytes() != before
    assert sorted(path.name for path in sound.parent.iterdir()) == ["song.wav"]


@pytest.mark.parametrize(("more", "sentence"), [
    (("--hole", "5:6"), "lies behind the sound's end at 2 s"),
    (("--hole", "now"), "hole is none of those"),
    (("--hole", "0.5:0.6", "--set", "eta=zero"), "--set goes with --method"),
    pytest.param(("--hole", "0.5:0.6", "--lyrics", "la"), "takes no lyrics", marks=pytest.mark.slow),
    (("--hole", "0.5:0.6", "--fade", "-1"), "at least 0"),
    pytest.param(("--hole", "0.5:0.6", "--method", "aid"), "aid", marks=pytest.mark.slow),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_wrong_input_is_one_sentence(paint, sound, tmp_path, more, sentence):
    done = paint(sound, *more, "-o", tmp_path / "out.wav")
    assert done.code == 2
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out.wav").exists()


def test_other_names_and_models_are_refused_before_the_work(call, sound, tmp_path):
    done = call("audio", sound, "--hole", "0.5:0.6", "-o", tmp_path / "out.mp3", "--model", "photo")
    assert done.code == 2 and "end it in .wav" in done.err
    done = call("audio", sound, "--hole", "0.5:0.6", "-o", tmp_path / "out.wav")
    assert done.code == 2 and "No model is named" in done.err
    done = call("audio", sound, "--hole", "0.5:0.6", "-o", tmp_path / "out.wav", "--model", "photo")
    assert done.code == 2 and "paints no sounds" in done.err
    (tmp_path / "other.wav").write_bytes(json.dumps([1]).encode())
    done = call("audio", tmp_path / "other.wav", "--hole", "0.5:0.6", "-o", tmp_path / "out.wav", "--model", "photo")
    assert done.code == 2 and "is no WAV file" in done.err
