"""The 30 lines in `examples/editor_client.py`, against a real running server, with and without a token."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "examples" / "editor_client.py"


def test_picture_and_selection_in_layer_out(serve, tmp_path: Path) -> None:
    rows = np.linspace(0, 255, 40)[:, None, None] * np.ones((1, 48, 3))
    Image.fromarray(rows.astype(np.uint8)).save(tmp_path / "photo.png")
    hole = np.zeros((40, 48), np.uint8)
    hole[16:22, 20:27] = 255
    Image.fromarray(hole).save(tmp_path / "selection.png")
    server = serve()
    at = server.url.rstrip("/")
    command = [sys.executable, str(CLIENT), "photo.png", "selection.png", "layer.png", at]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "layer.png") as layer:
        assert layer.mode == "RGBA" and layer.size == (48, 40)
        made = np.asarray(layer)
    assert np.array_equal(made[..., 3], hole)
    assert np.array_equal(made[..., :3][hole == 0], rows.astype(np.uint8)[hole == 0])
    assert abs(made[16:22, 20:27, :3].astype(float) - rows[16:22, 20:27]).mean() < 25
    # a wish that cannot be is the server's sentence
    Image.fromarray(hole[:20]).save(tmp_path / "small.png")
    command[3] = "small.png"
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert refused.returncode != 0 and "409" in refused.stderr


def test_the_client_is_short() -> None:
    assert len([line for line in CLIENT.read_text(encoding="utf-8").splitlines() if line.strip()]) <= 30
