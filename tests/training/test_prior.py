"""Training a prior: it learns, resumes, survives a kill, and the same seed gives the same weights."""

from __future__ import annotations

import gzip
import json
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from paintback.cli.main import main
from paintback.models.embedded import load_unet
from paintback.models.unet import UNet, UNetConfig
from paintback.training.data import open_pictures, prefetch, read_idx
from paintback.training.learner import PriorTraining, edm_loss
from paintback.training.prior import train_prior

NETWORK = UNetConfig(channels=1, widths=(8, 16), blocks=1)
RECIPE = PriorTraining(steps=20, batch=16, learning_rate=5e-3, warmup=3, sample_every=10)


@pytest.fixture(scope="module")
def idx(tmp_path_factory):
    """64 pictures of 14 x 14 with a bright bar each, gzipped."""
    rng = np.random.default_rng(0)
    pictures = np.zeros((64, 14, 14), np.uint8)
    for picture in pictures:
        top = rng.integers(10)
        picture[top : top + 4] = 255
    path = tmp_path_factory.mktemp("idx") / "bars-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">III", *pictures.shape) + pictures.tobytes()))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five pictures with gradients, one of them too small, and something else."""
    path = tmp_path_factory.mktemp("photos")
    ramp = np.linspace(0, 255, 48).astype(np.uint8)
    for k in range(4):
        colours = np.stack([np.tile(ramp, (40, 1)), np.full((40, 48), 60 * k), np.tile(ramp[::-1], (40, 1))], -1)
        Image.fromarray(colours.astype(np.uint8)).save(path / f"{k}.png")
    Image.new("RGB", (8, 8)).save(path / "small.png")
    (path / "notes.txt").write_text("no picture")
    return path


def evaluate(network, pictures):
    x0 = pictures.batch(99, 0, 64)
    rng = torch.Generator().manual_seed(1)
    sigma = torch.randn(64, generator=rng).sub(1).exp()
    with torch.no_grad():
        return float(edm_loss(network, x0, sigma, torch.randn(x0.shape, generator=rng)))


def tensors(path):
    return load_unet(path)[0].state_dict()


def same(one, other):
    return all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("kind", ["idx", "folder"])
def test_loss_falls_and_files_are_written(kind, idx, folder, tmp_path):
    pictures = open_pictures(idx if kind == "idx" else folder, size=16)
    assert (pictures.size, pictures.channels, pictures.count) == ((16, 1, 64) if kind == "idx" else (16, 3, 4))
    network = replace(NETWORK, channels=pictures.channels)
    torch.manual_seed(0)
    before = evaluate(UNet(network), pictures)
    weights = train_prior(pictures, tmp_path, network=network, training=RECIPE, progress=False)
    after, header = load_unet(weights)
    assert evaluate(after, pictures) < 0.9 * before
    assert (header["step"], header["pictures"], header["training_size"]) == ("20", "320", "16")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "log.jsonl", "model-2.safetensors", "model.safetensors", "samples-0000010.png", "samples-0000020.png",
        "state.safetensors",
    ]  # fmt: skip
    (line,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (line["step"], line["pictures"]) == (20, 320)
    assert 0 < line["loss"] < 3
    assert Image.open(tmp_path / "samples-0000020.png").size == (96, 96)


def test_same_seed_same_weights_and_no_global_generator(idx, tmp_path):
    pictures = open_pictures(idx)
    before = torch.get_rng_state()
    runs = [
        train_prior(
            pictures, tmp_path / str(k), network=NETWORK, training=replace(RECIPE, steps=6, seed=seed), progress=False
        )
        for k, seed in enumerate((3, 3, 4))
    ]
    assert torch.equal(before, torch.get_rng_state())
    first, second, third = map(tensors, runs)
    assert same(first, second)
    assert not same(first, third)


def test_resume_goes_on_counting_and_keeps_the_log_in_order(idx, tmp_path):
    pictures = open_pictures(idx)
    weights = train_prior(pictures, tmp_path, network=NETWORK, training=replace(RECIPE, steps=5), progress=False)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 8, "loss": 1}\n{"step": 9, "lo')  # what a killed run wrote after its last checkpoint
    again = train_prior(
        pictures, tmp_path, network=NETWORK, training=replace(RECIPE, steps=12), resume=weights, progress=False
    )
    assert load_unet(again)[1]["step"] == "12"
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [5, 12]
    with pytest.raises(ValueError, match="12 steps already"):
        train_prior(
            pictures, tmp_path, network=NETWORK, training=replace(RECIPE, steps=12), resume=again, progress=False
        )


def test_batches_depend_on_seed_and_step_alone(folder):
    pictures = open_pictures(folder, size=16)
    straight = [x for x, _ in prefetch(pictures, 0, 0, 5, 4)]
    resumed = [x for x, _ in prefetch(pictures, 0, 3, 5, 4)]
    assert torch.equal(straight[3], resumed[0])
    assert torch.equal(straight[4], resumed[1])
    assert straight[0].shape == (4, 3, 16, 16)
    assert straight[0].abs().max() <= 1


def test_a_killed_run_leaves_a_whole_checkpoint(idx, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "paintback", "train", "prior", "--data", idx, "--out", out, "--widths", "8,16"]
    command += ["--blocks", "1", "--batch", "8", "--steps", "100000", "--save-every", "0", "--threads", "1", "--quiet"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    weights = out / "model.safetensors"
    until = time.monotonic() + 300
    while not (weights.exists() and int(load_unet(weights)[1]["step"]) > 1) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.5)  # into some later step
    running.send_signal(signal.SIGKILL)
    running.communicate()
    step = int(load_unet(weights)[1]["step"])
    assert step > 1
    with pytest.raises(SystemExit) as stop:
        main([*map(str, command[3:]), "--steps", str(step + 3), "--resume"])
    assert not stop.value.code
    assert load_unet(weights)[1]["step"] == str(step + 3)
    assert not list(out.glob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "no file or folder"),
        (["--data", "FOLDER", "--size", "999"], "at least 999"),
        (["--data", "FOLDER", "--size", "18"], "multiples of"),
        (["--data", "FOLDER/notes.txt"], "IDX"),
        (["--data", "FOLDER", "--widths", "8,x"], "--widths"),
        (["--data", "FOLDER", "--resume"], "resume"),
        (["--data", "FOLDER", "--size", "16", "--resume", "FOLDER/notes.txt"], "weights"),
    ],
)
def test_wrong_input(arguments, message, folder, tmp_path, capsys):
    arguments = [text.replace("FOLDER", str(folder)) for text in arguments]
    with pytest.raises(SystemExit) as stop:
        main(["train", "prior", "--out", str(tmp_path / "out"), "--steps", "1", *arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_idx_files_that_are_cut_short(idx, tmp_path):
    cut = tmp_path / "cut"
    cut.write_bytes(gzip.decompress(idx.read_bytes())[:-1])
    with pytest.raises(ValueError, match="cut short"):
        read_idx(cut)


def test_the_loss_of_a_model_on_other_pictures(folder, capsys):
    tiny = Path(__file__).parents[1] / "recorded" / "tiny.safetensors"

    def loss(seed: int) -> float:
        given = ["--model", str(tiny), "--data", str(folder), "--batches", "1", "--seed", str(seed)]
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["train", "loss", *given, "--format", "json"])
        assert not stop.value.code
        return json.loads(capsys.readouterr().out)["loss"]

    first = loss(0)
    assert 0 < first == loss(0)
    assert first != loss(1)
