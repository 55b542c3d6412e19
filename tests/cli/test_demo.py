"""`paintback demo` and the pictures that it takes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from paintback.cli.demo import EXAMPLES

LISTING = json.loads((EXAMPLES / "examples.json").read_text())


@pytest.mark.parametrize("example", LISTING, ids=lambda example: example["name"])
def test_examples_are_what_they_say(example):
    photo = Image.open(EXAMPLES / example["photo"])
    assert max(photo.size) <= 600
    if "mask" in example:
        mask = Image.open(EXAMPLES / example["mask"])
        assert mask.size == photo.size
        assert 0.01 < np.asarray(mask).astype(bool).mean() < 0.2
    else:
        assert sum(example["outpaint"]) > 0
    assert f"`{example['photo']}`" in (EXAMPLES / "README.md").read_text()


def test_examples_are_small():
    assert sum(path.stat().st_size for path in EXAMPLES.iterdir()) < 1_500_000


def test_demo_writes_results_and_a_sheet(call, tiny_model, tmp_path):
    out = tmp_path / "new" / "folder"
    done = call("demo", "-o", out, "--only", "outpaint", "--model", tiny_model, "--steps", 2, "--format", "json")
    assert done.code == 0, done.err
    (row,) = done.json["outputs"]
    assert row["name"] == "outpaint"
    assert row["evaluations"] > 0
    assert sorted(path.name for path in out.iterdir()) == ["outpaint.png", "sheet.png"]
    assert Image.open(out / "outpaint.png").size == (464, 427)
