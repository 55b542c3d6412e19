"""How fast the local engine is, beside its network alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from paintback import models
from paintback.batch import Request, run
from paintback.models.unet import UNet

FEW, MANY, BATCH, STEPS = 16, 64, 8, 12
EVALUATIONS = 2 * (STEPS - 1) + 1


@pytest.fixture
def spent(tmp_path: Path) -> Callable[[int], float]:
    """CPU seconds of a run of that many pictures, files read and written and all.

    CPU time, because other programs change it less than the clock's; reading and writing, which overlap with the
    network where there is a second core, are counted in full. What is imported once is imported before.
    """
    rng = np.random.default_rng(0)
    hole = np.zeros((32, 32), np.uint8)
    hole[8:22, 8:24] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    jobs, runs = [], []
    for k in range(MANY):
        path = tmp_path / f"scan{k:03}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
        entries = {"photo": str(path), "mask": str(tmp_path / "mask.png"), "model": "fashion", "seed": k, "threads": 1}
        jobs.append(Request.parse({**entries, "method": "ding", "steps": STEPS}))

    def seconds(count: int) -> float:
        runs.append(count)
        began = time.process_time()
        report = run(jobs[:count], tmp_path / f"run-{len(runs)}", batch=BATCH)
        assert len(report.done) == count and report.done[0]["evaluations"] == EVALUATIONS
        return time.process_time() - began

    seconds(BATCH)
    return seconds


@pytest.mark.slow
def test_most_of_a_run_is_the_network(spent, monkeypatch):
    """The network's part of a picture's CPU time, both taken from the same runs: whatever slows a run slows both."""
    rows, network = [], []
    forward = UNet.forward

    def timed(self, x, *rest):
        began = time.thread_time()
        out = forward(self, x, *rest)
        network.append(time.thread_time() - began)
        rows.append(len(x))
        return out

    monkeypatch.setattr(UNet, "forward", timed)

    def both(count):
        rows.clear(), network.clear()
        total = spent(count)
        assert (
            rows.count(BATCH) == EVALUATIONS * count // BATCH
        )  # no evaluation more than the method's, in full batches
        assert len(rows) - rows.count(BATCH) <= 1  # on one row, when the model was loaded
        return np.array([sum(network), total])

    parts = []
    for _ in range(3):
        inside, total = (both(MANY) - both(FEW)) / (MANY - FEW)
        parts.append(inside / total)
        print(f"{EVALUATIONS} evaluations: {inside * 1e3:.1f} of {total * 1e3:.1f} ms in the network, {parts[-1]:.3f}")
    assert max(parts) >= 0.88


@pytest.mark.timing
def test_within_a_tenth_of_the_bare_network(spent):
    """CPU time of a picture beside that of the same evaluations alone, in a batch of 8."""
    network = models.load("fashion").network
    x, clock = torch.randn(BATCH, 1, 32, 32), torch.zeros(BATCH)

    def bare() -> float:
        began = time.process_time()
        with torch.no_grad():
            for _ in range(EVALUATIONS * (MANY - FEW) // BATCH):
                network(x, clock)
        return (time.process_time() - began) / (MANY - FEW)

    ratios = []
    for _ in range(3):
        before = bare()
        engine = (spent(MANY) - spent(FEW)) / (MANY - FEW)
        alone = (before + bare()) / 2
        ratios.append(alone / engine)
        print(f"{EVALUATIONS} evaluations: {alone * 1e3:.1f} ms alone, {engine * 1e3:.1f} here, {ratios[-1]:.3f}")
    assert sorted(ratios)[1] >= 0.9
