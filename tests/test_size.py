"""What everyone downloads stays small: the wheel at most 20 MB, the tracked tree at most 32 MB."""

from __future__ import annotations

import subprocess
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def tracked() -> dict[str, int]:
    """Bytes of every tracked file that is there."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return {name: (ROOT / name).stat().st_size for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


def test_the_tree_and_the_wheel_stay_small():
    sizes = tracked()
    assert sum(sizes.values()) <= 32e6
    inside = [name for name in sizes if name.startswith("paintback/")]
    assert "paintback/weights/photo.safetensors" in inside
    wheel = sum(len(zlib.compress((ROOT / name).read_bytes())) for name in inside)
    assert 10e6 < wheel <= 20e6
