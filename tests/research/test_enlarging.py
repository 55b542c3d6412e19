"""Enlarging noisy photographs at equal cost: the table, the pictures, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from research.command import run
from research.enlarging import enlarging

TINY = Path(__file__).parents[1] / "recorded" / "tiny.safetensors"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in "ab":
        noise = np.random.default_rng(ord(name)).integers(0, 256, (40, 44, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


@pytest.mark.slow
def test_methods_are_compared_within_a_budget(photos, tmp_path, capsys):
    asked = [
        "--model",
        TINY,
        "--crop",
        32,
        "--scale",
        2,
        "--budget",
        4,
        "--methods",
        "dps",
        "--pictures",
        tmp_path / "made",
    ]
    with pytest.raises(SystemExit) as stop:
        run(enlarging, [str(text) for text in ("--photos", photos, "--format", "json", *asked)])
    assert not stop.value.code
    rows = {row["label"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["bicubic", "dps"]
    assert all(row["photographs"] == 2 and row["lpips"] is None for row in rows.values())
    assert 0 < rows["dps"]["evaluations"] + rows["dps"]["vjps"] <= 4
    with Image.open(tmp_path / "made" / "000.png") as sheet:
        assert sheet.size == (4 * 32, 32)  # truth, given, bicubic, the method


def test_what_is_refused(photos, tmp_path, capsys):
    for more, part in ((["--methods", ","], "names no method"), (["--methods", "ddrm"], "cannot enlarge")):
        with pytest.raises(SystemExit) as stop:
            run(enlarging, ["--photos", str(photos), "--crop", "32", *more])
        assert stop.value.code == 2
        assert part in capsys.readouterr().err
