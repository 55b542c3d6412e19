"""The classifier: its training on bars that anyone can tell apart, the command, and the shipped weights."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import paintback as pb
from paintback.bench.metrics.classifier import FASHION, ClassifierFeatures
from paintback.cli.main import main
from paintback.training.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierTraining,
    LabelledPictures,
    accuracy,
    load_classifier,
    train_classifier,
)

WIDTHS = (8, 8, 8, 16)
RECIPE = ClassifierTraining(epochs=4, batch=16, learning_rate=0.01, shift=1)
DATA = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist


def write_idx(path, array):
    path.write_bytes(b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """160 pictures of 14 x 14 with a bar across (class 0), upright (1) or both (2), for training and for testing."""
    folder = tmp_path_factory.mktemp("bars")
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        labels = rng.integers(3, size=160).astype(np.uint8)
        pictures = rng.integers(0, 60, (160, 14, 14)).astype(np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            top, left = rng.integers(1, 10, size=2)
            if label != 1:
                picture[top : top + 3] = 255
            if label != 0:
                picture[:, left : left + 3] = 255
        write_idx(folder / f"{name}-images-idx3-ubyte", pictures)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture(scope="module")
def trained(bars, tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier")
    data = LabelledPictures(bars / "train-images-idx3-ubyte")
    return train_classifier(data, out, training=RECIPE, widths=WIDTHS, progress=False)


def state(path):
    return load_classifier(path)[0].state_dict()


def test_it_learns(bars, trained):
    test = LabelledPictures(bars / "test-images-idx3-ubyte")
    assert (len(test), test.size, tuple(test.pictures.shape)) == (160, 16, (160, 16, 16))
    network, header = load_classifier(trained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = Classifier(network.config).eval()
    assert accuracy(untrained, test) < 0.6
    assert accuracy(network, test) > 0.9
    assert network.config == ClassifierConfig(size=16, widths=WIDTHS, classes=3)
    assert (header["kind"], json.loads(header["training"])["epochs"]) == ("classifier", 4)
    lines = [json.loads(line) for line in (trained.parent / "log.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["pictures"]) for line in lines] == [(k, 160 * k) for k in range(1, 5)]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    with safe_open(trained, "pt") as file:
        kinds = {key.rpartition(".")[2]: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert kinds.pop("num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {torch.float16}
    assert sorted(path.name for path in trained.parent.iterdir()) == ["classifier.safetensors", "log.jsonl"]


def test_the_same_seed_gives_the_same_weights(bars, tmp_path):
    data = LabelledPictures(bars / "train-images-idx3-ubyte")
    before = torch.get_rng_state()
    first, again, other = (
        state(train_classifier(data, tmp_path / str(k), training=replace(RECIPE, epochs=1, seed=seed), widths=WIDTHS))
        for k, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_features_are_what_the_head_sees(bars, trained):
    features = ClassifierFeatures(trained)
    network, _ = load_classifier(trained)
    grey = LabelledPictures(bars / "test-images-idx3-ubyte").pictures[:20, None].float() / 255
    made = features(grey)
    assert made.shape == (20, 16)
    assert made.min() >= 0
    torch.testing.assert_close(network.head(made), network(grey * 2 - 1))
    assert torch.equal(features.classify(grey), network(grey * 2 - 1).argmax(1))
    torch.testing.assert_close(features(grey.expand(-1, 3, -1, -1)), made)
    assert features.distance == "Frechet distance (classifier)"
    assert features.sha256 == hashlib.sha256(trained.read_bytes()).hexdigest()
    assert "16 x 16" in features.size
    for wrong in (grey[..., :8], grey.expand(-1, 2, -1, -1), grey[0]):
        with pytest.raises(ValueError, match=r"takes pictures \(B, 1 or 3, 16, 16\)"):
            features(wrong)


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["train", "classifier", *map(str, arguments)])
    return stop.value.code


def test_the_command_trains_and_measures(bars, tmp_path, capsys):
    data, out = bars / "train-images-idx3-ubyte", tmp_path / "out"
    assert not call("--data", data, "--out", out, "--epochs", 2, "--batch", 32, "--quiet", "--format", "json")
    told = json.loads(capsys.readouterr().out)
    assert told == {"weights": str(out / "classifier.safetensors"), "epochs": 2, "pictures": 160}
    given = ("--data", bars / "test-images-idx3-ubyte", "--labels", bars / "test-labels-idx1-ubyte")
    assert not call(*given, "--out", out, "--measure", "--format", "json")
    measured = json.loads(capsys.readouterr().out)
    network, _ = load_classifier(out / "classifier.safetensors")
    assert network.config.widths == ClassifierConfig.widths
    assert measured["accuracy"] == accuracy(network, LabelledPictures(bars / "test-images-idx3-ubyte"))
    assert not call(*given, "--out", out, "--measure")
    assert capsys.readouterr().out == f"{100 * measured['accuracy']:.2f} % of 160 pictures\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "TRAIN"], "give --out"),
        (["--data", "BARS/none-images-idx3-ubyte", "--out", "OUT"], "no file"),
        (["--data", "BARS/train-labels-idx1-ubyte", "--out", "OUT"], "give them with --labels"),
        (["--data", "TRAIN", "--labels", "TRAIN", "--out", "OUT"], "shape"),
        (["--data", "TRAIN", "--batch", "161", "--out", "OUT"], "smaller batch"),
        (["--data", "TRAIN", "--measure", "--out", "OUT"], "does not hold weights of a classifier"),
        (["--data", "TRAIN", "--measure"], "16 pixels wide"),
    ],
)  # fmt: skip
def test_wrong_input(arguments, message, bars, tmp_path, capsys):
    out = tmp_path / "out"
    names = {"TRAIN": f"{bars}/train-images-idx3-ubyte", "OUT": str(out)}
    code = call(*(names.get(text, text.replace("BARS", str(bars))) for text in arguments))
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not out.exists()


def test_other_weights_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "else.safetensors", {"kind": "prior"})
    for path in (tmp_path / "else.safetensors", tmp_path / "none.safetensors", pb.models.find("fashion").weights):
        with pytest.raises(ValueError, match="does not hold weights of a classifier"):
            load_classifier(path)


def test_the_shipped_classifier_is_no_prior(capsys):
    assert FASHION.stem not in [card.name for card in pb.models.catalogue()]
    with pytest.raises(ValueError, match="does not hold weights of an embedded model"):
        pb.models.load(str(FASHION))
    with pytest.raises(SystemExit) as stop:
        main(["models", "--format", "json"])
    assert not stop.value.code
    assert "classifier" not in capsys.readouterr().out


def test_the_shipped_classifier_tells_drawings_apart():
    """Garments of a few rectangles: trousers (1), a bag (8), a pullover or shirt with sleeves is none of the two."""
    features = ClassifierFeatures()
    assert (features.name, features.distance) == ("fashion classifier", "Frechet distance (fashion classifier)")
    trousers, bag = torch.zeros(2, 1, 32, 32)
    trousers[:, 3:29, 10:15] = trousers[:, 3:29, 17:22] = trousers[:, 3:8, 10:22] = 0.7
    bag[:, 14:29, 3:29] = 0.7
    bag[:, 6:8, 10:22] = bag[:, 6:14, 10:12] = bag[:, 6:14, 20:22] = 0.6
    assert features.classify(torch.stack((trousers, bag))).tolist() == [1, 8]
    assert features(trousers[None]).shape == (1, 128)
    network, header = load_classifier(FASHION)
    assert 100_000 < sum(p.numel() for p in network.parameters()) < 200_000
    assert header["kind"] == "classifier"


@pytest.mark.skipif(not DATA.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_card_says_the_accuracy_on_the_test_pictures():
    network, _ = load_classifier(FASHION)
    value = accuracy(network, LabelledPictures(DATA / "t10k-images-idx3-ubyte.gz"))
    assert value >= 0.91
    stated = re.search(r"([\d.]+) %", FASHION.with_suffix(".md").read_text(encoding="utf-8"))
    assert stated is not None
    assert abs(100 * value - float(stated[1])) < 0.03  # other processors round otherwise
