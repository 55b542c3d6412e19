"""`paintback superres` and `paintback layers`, with a tiny untrained model."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from paintback.images import read_settings


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(path)
    return path


def test_superres_writes_the_picture_and_its_settings(call, small, tiny_model, tmp_path):
    out = tmp_path / "out.png"
    options = ("--model", tiny_model, "--steps", 2, "--threads", 1, "--format", "json")
    done = call("superres", small, "-o", out, "--scale", 3, "--set", "inner_steps=2", "--seed", 5, *options)
    assert done.code == 0, done.err
    (row,) = done.json["outputs"]
    assert (row["path"], row["seed"], row["evaluations"], row["vjps"]) == (str(out), 5, 2 * 5, 0)
    assert row["residual"] >= 0 and row["seconds"] > 0
    assert Image.open(out).size == (27, 18)
    settings = read_settings(out)
    assert settings == done.json["settings"]
    assert (settings["command"], settings["scale"], settings["seed"], settings["steps"]) == ("superres", 3, 5, 2)
    assert (settings["fields"]["inner_steps"], settings["fields"]["step_size"]) == (2, 0.1)
    assert set(settings["sha256"]) == {"photo", "weights"}


def test_superres_samples_can_be_made_alone(call, small, tiny_model, tmp_path):
    options = ("--model", tiny_model, "--steps", 2, "--threads", 1, "--method", "ddnm", "--kernel", "area")
    done = call("superres", small, "-o", tmp_path / "out.png", "--samples", 2, *options)
    assert done.code == 0, done.err
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out-1.png", "out-2.png", "out-sheet.png"]
    assert "residual" in done.out
    assert call("superres", small, "-o", tmp_path / "one.png", "--seed", 1, *options).code == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "out-2.png").read_bytes()


def test_layers_writes_two_layers_and_a_mask(call, small, tiny_model, tmp_path):
    out = tmp_path / "parts"
    options = ("--model", tiny_model, "--steps", 2, "--threads", 1, "--set", "samples=2", "--set", "inner_steps=1")
    done = call("layers", small, "-o", out, "--format", "json", *options)
    assert done.code == 0, done.err
    assert sorted(p.name for p in out.iterdir()) == ["layer-1.png", "layer-2.png", "mask.png"]
    pages = {name: np.asarray(Image.open(done.json[name])).astype(float) for name in ("layer-1", "layer-2", "mask")}
    assert pages["mask"].shape == (6, 9)
    share = pages["mask"][..., None] / 255
    mixed = share * pages["layer-1"] + (1 - share) * pages["layer-2"]
    assert np.abs(mixed - np.asarray(Image.open(small))).max() < 3
    assert done.json["evaluations"] == 3 * (2 * 2 + 1)
    settings = read_settings(out / "mask.png")
    assert settings["command"] == "layers" and settings["page"] == "mask" and settings["fields"]["samples"] == 2
    first = (out / "mask.png").read_bytes()
    assert call("layers", small, "-o", out, *options).code == 0  # into the folder that is there
    assert (out / "mask.png").read_bytes() == first


@pytest.mark.parametrize(
    ("command", "extra", "part"),
    [
        ("superres", ("--scale", 9), "--scale"),
        ("superres", ("--method", "ding"), "fcs"),
        ("superres", ("--set", "magic=1"), "inner_steps"),
        ("superres", ("--kernel", "nearest"), "--kernel"),
        ("superres", ("--prompt", "a cat"), "prompt"),
        ("superres", ("--model", "magic"), "magic"),
        ("layers", ("--set", "delta=1"), "samples"),
        ("layers", ("--set", "samples=1"), "samples"),
        ("layers", ("--prompt-1", "a cat"), "prompt"),
        ("layers", ("--steps", 0), "--steps"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(call, small, tiny_model, tmp_path, command, extra, part):
    results = tmp_path / "results"
    results.mkdir()
    out = results / ("out.png" if command == "superres" else "out")
    done = call(command, small, "-o", out, "--steps", 1, "--model", tiny_model, *extra)
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.startswith("paintback: ") and done.err.count("\n") == 1 and part in done.err
    assert not list(results.iterdir())


def test_places_that_cannot_be_written_to(call, small, tiny_model, tmp_path):
    for command, out in (("superres", tmp_path / "no" / "out.png"), ("layers", tmp_path / "no" / "out"),
                         ("layers", small), ("superres", tmp_path / "out.xyz")):  # fmt: skip
        done = call(command, small, "-o", out, "--model", tiny_model)
        assert done.code == 2, done.err
        assert done.err.count("\n") == 1
    assert call("superres", tmp_path / "nowhere.png", "-o", tmp_path / "o.png").code == 2
    assert call("layers", tmp_path / "nowhere.png", "-o", tmp_path / "o").code == 2


@pytest.mark.parametrize("method", ["fcs", "ddnm", "pigdm"])
def test_the_bar_of_superres_knows_all_its_steps(call, small, tiny_model, tmp_path, parts, method):
    options = ("--model", tiny_model, "--steps", 3, "--threads", 1, "--method", method, "--samples", 2)
    assert call("superres", small, "-o", tmp_path / "out.png", *options).code == 0
    assert parts == [(3, 3)] * 2


def test_the_bar_of_layers_knows_all_its_steps(call, small, tiny_model, tmp_path, parts):
    options = ("--model", tiny_model, "--steps", 2, "--threads", 1, "--set", "samples=2", "--set", "inner_steps=1")
    assert call("layers", small, "-o", tmp_path / "parts", *options).code == 0
    assert parts == [(2, 2)]
