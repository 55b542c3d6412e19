"""LanPaint's figure: its cells, its files, and what its score leaves out against the densities themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from paintback.bench.cases import case
from research import lanpaint_figure
from research.command import run
from research.lanpaint_figure import cells as figure_cells
from research.lanpaint_figure import norm_ratio


def test_norm_ratio_is_that_of_the_densities() -> None:
    at, guidance = case("C"), 3.0
    ratios = norm_ratio("C", guidance, particles=4000)
    sigmas = [sigma for sigma, _ in ratios]
    assert len(ratios) == 25 and sigmas == sorted(sigmas, reverse=True)
    draw = torch.Generator().manual_seed(5)
    for sigma, ratio in (ratios[4], ratios[15], ratios[-1]):
        alpha = math.sqrt(1 - sigma**2)
        x0 = torch.stack((at.posterior.sample(4000, draw)[:, 0], torch.full((4000,), 0.3).double()), dim=1)
        z = alpha * x0 + sigma * torch.randn(4000, 2, generator=draw, dtype=torch.float64)
        noised = at.prior.noised(alpha, sigma)
        y = z[:, 1:].clone().requires_grad_()
        joint = noised.log_prob(torch.cat((z[:, :1], y), dim=1)).sum()
        (of_joint,) = torch.autograd.grad(joint, y)
        (of_marginal,) = torch.autograd.grad(noised.marginal([1]).log_prob(y).sum(), y)
        towards_y = -(y.detach() - alpha * 0.3) / sigma**2
        exact = (of_joint - of_marginal) + (1 + guidance) * towards_y - guidance * of_marginal
        kept = (1 + guidance) * towards_y - guidance * of_joint
        dropped = exact - kept
        assert ratio == pytest.approx(float(dropped.norm() / kept.norm()), rel=0.25)  # rare states near two modes


def test_the_figure_has_all_its_runs() -> None:
    made = figure_cells(4000, 2)
    assert {c.problem for c in made} == {"A", "C", "D"}
    assert {c.method.name for c in made} == {"lanpaint", "tfg", "mcg", "dps", "copaint", "ddrm", "replacement"}
    texts = [json.dumps(c.key(), sort_keys=True) for c in made]
    assert len(set(texts)) == len(texts)


@pytest.mark.slow
def test_the_command_writes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A smaller figure: fewer steps, inner steps and step sizes."""
    for name, values in (("STEPS", (5,)), ("INNER", (1, 2)), ("SIZES", (0.3,))):
        monkeypatch.setattr(lanpaint_figure, name, values)
    count = len(figure_cells(50, 1))
    for _ in range(2):  # the second time from the store
        with pytest.raises(SystemExit) as stop:
            run(lanpaint_figure.figure, ["--particles", "50", "--seeds", "1", "-q", "-o", str(tmp_path)])
        assert not stop.value.code
    assert capsys.readouterr().out.count((tmp_path / "lanpaint.md").read_text()) == 2
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == count
    assert (tmp_path / "lanpaint.json").is_file()
    assert (tmp_path / "lanpaint.png").read_bytes().startswith(b"\x89PNG")
