"""A tiny model, a photograph, a mask, and the command called in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from paintback.cli import output
from paintback.cli.main import main
from paintback.models.unet import UNet, UNetConfig


@dataclass
class Call:
    """What a call of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained network of a few thousand numbers, such as `train prior` writes."""
    config = UNetConfig(channels=3, widths=(8, 8), blocks=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(config)
        torch.nn.init.normal_(network.outlet.weight, std=0.1)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_file(network.state_dict(), path, {"config": json.dumps(config.to_dict()), "step": "1", "seconds": "1"})
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (30, 41, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    hole = np.zeros((30, 41), np.uint8)
    hole[10:16, 12:20] = 255
    path = tmp_path / "mask.png"
    Image.fromarray(hole).save(path)
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Call]:
    """Runs `paintback ARGUMENTS` in this process, with one torch thread as the other tests."""

    def run(*arguments: str | Path) -> Call:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Call(stop.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The parts of the work that a bar is told of: for each how many steps were done, and how many it expected."""
    told: list[tuple[int, int]] = []

    class Told(output.Count):
        def part(self, text: str, plan: Any = None) -> None:
            self.finish()
            super().part(text, plan)

        def finish(self) -> None:
            if self.number:
                told.append((self.steps, len(self.costs) - 1))

    @contextmanager
    def working(parts: int, *, quiet: bool) -> Iterator[Told]:
        count = Told(parts)
        yield count
        count.finish()
        assert len(told) == parts

    for name in ("superres", "layers", "video", "inpaint"):
        monkeypatch.setattr(f"paintback.cli.{name}.working", working)
    return told
