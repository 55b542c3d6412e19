"""Made-up data, a suite of one's own on it, and the command."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paintback.bench.pictures import runner, worker
from paintback.bench.pictures.suite import load_suite
from paintback.bench.pictures.worker import Order
from paintback.cli.main import main

METHODS = "ddnm,ding,dps"
BUDGET = 6


def write_idx(path: Path, array: np.ndarray) -> None:
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_idx_folder(folder: Path, count: int = 12, seed: int = 0) -> Path:
    """Random pictures of 28 x 28 with labels, under the names of Fashion-MNIST's test set."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    write_idx(folder / "t10k-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
    write_idx(folder / "t10k-labels-idx1-ubyte", rng.integers(0, 10, count))
    return folder


def write_pictures(folder: Path, count: int = 3, size: tuple[int, int] = (40, 48), seed: int = 0) -> Path:
    """Random coloured pictures, 000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    return folder


def write_pie(folder: Path, entries: dict[str, Any]) -> Path:
    """PIE-Bench's mapping file, and a random picture of 512 x 512 for each entry, at 0/KEY.png."""
    pictures = folder / "annotation_images" / "0"
    pictures.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for key in entries:
        pixels = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{key}.png", compress_level=1)
    (folder / "mapping_file.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def pie_entry(key: str, mask: Any, prompt: str = "a [red] fox") -> dict[str, Any]:
    return {"image_path": f"0/{key}.png", "editing_prompt": prompt, "mask": mask}


def suite_values(**changes: Any) -> dict[str, Any]:
    """A suite of 4 pictures and 2 masks on the shipped model `fashion`; entries set to None are left out."""
    values = {
        "title": "Random pictures",
        "data": {**load_suite("fashion-32").data, "first": 0, "stop": 4, "validation": [8, 10]},
        "size": 32,
        "model": "fashion",
        "masks": [{"name": "box", "kind": "box", "size": 14}, {"name": "half", "kind": "half", "side": "right"}],
        "metrics": ["psnr", "ssim", "accuracy"],
        "diversity": {"pictures": 1, "samples": 2},
        "gradient_pictures": 2,
    }
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def write_suite(folder: Path, name: str = "small", **changes: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(suite_values(**changes)), encoding="utf-8")
    return path


def run_command(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command: exit code, stdout, stderr."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(*arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def idx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idx_folder(tmp_path_factory.mktemp("idx"))


def said_here(order: Order, *_: Any) -> list[dict[str, Any]]:
    """In place of `runner._lines`: what the worker says, in this process, where torch is there already."""
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        patch.setattr(sys, "stdin", io.StringIO(order.to_json()))
        worker.main()
    return [json.loads(line) for line in told.getvalue().splitlines()]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are painted in this process."""
    monkeypatch.setattr(runner, "_lines", said_here)


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, idx: Path) -> tuple[Path, Path]:
    """A suite's file, and the results of a finished run of it; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    suite, out = write_suite(folder), folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_lines", said_here)
        code = run_command(
            "bench", "images", suite, "--data", idx, "--methods", METHODS, "--budget", BUDGET, "--quiet", "-o", out
        )
    assert code == 0
    return suite, out
