"""A tiny model, and folders of small pictures with masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from paintback.batch import Request
from paintback.models.unet import UNet, UNetConfig


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of an untrained network of a few thousand numbers, such as `train prior` writes."""
    config = UNetConfig(channels=3, widths=(8, 8), blocks=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(config)
        torch.nn.init.normal_(network.outlet.weight, std=0.1)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_file(network.state_dict(), path, {"config": json.dumps(config.to_dict()), "step": "1", "seconds": "1"})
    return str(path)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    hole = np.zeros((24, 32), np.uint8)
    hole[8:14, 10:18] = 255
    path = tmp_path / "mask.png"
    Image.fromarray(hole).save(path)
    return path


@pytest.fixture
def scans(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes `count` pictures into a folder."""

    def make(count: int, size: tuple[int, int] = (24, 32), folder: str = "in") -> list[Path]:
        rng = np.random.default_rng(count)
        (tmp_path / folder).mkdir(exist_ok=True)
        paths = [tmp_path / folder / f"scan{k:03}.png" for k in range(count)]
        for path in paths:
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        return paths

    return make


@pytest.fixture
def jobs(scans: Callable[..., list[Path]], mask: Path, tiny_model: str) -> Callable[..., list[Request]]:
    """Jobs of that many pictures."""

    def make(count: int, **settings: object) -> list[Request]:
        common = {"mask": str(mask), "model": tiny_model, "method": "replacement", "steps": 2, "threads": 1}
        return [
            Request.parse({**common, "photo": str(path), "seed": k, **settings}) for k, path in enumerate(scans(count))
        ]

    return make
