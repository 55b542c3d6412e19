"""The closed-form suite: its problems, its cells, what is kept, what is written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from paintback.bench import posterior
from paintback.bench.cases import CASES, NOISE, Case, case
from paintback.bench.guidance import optimal_guidance
from paintback.bench.posterior import Cell, Score, Store, Summary, run, run_cell, summarise
from paintback.bench.posterior_report import crossing, markdown, to_json
from paintback.methods import get
from paintback.methods.base import Method
from paintback.methods.ddnm import Ddnm
from paintback.models.guidance import Guide
from paintback.observation import Observation
from paintback.priors import GaussianMixture
from paintback.schedules import EDM
from paintback.training.actor_critic import Learner, Task
from paintback.training.aid import AidTraining, levels, psi


def cell(name: str = "ddnm", problem: str = "A", steps: int = 5, seed: int = 0, **fields: object) -> Cell:
    return Cell(name, get(name, **fields), problem, steps, seed, 200, "vp", "uniform")


def row(steps: int, kl: float | None) -> Summary:
    return Summary("m", "ddnm", "A", steps, "vp", 1, kl, None, 0.1, None, 0.2, steps, 2, 0.1, "")


# ------------------------------------------------------------------------------------------------------------ problems


@pytest.mark.parametrize("name", CASES)
def test_exact_samples_reach_the_floor(name: str) -> None:
    at = case(name)
    known = at.observation.known
    assert known is not None
    assert at.posterior.dim == int((~known).sum())
    x = torch.empty(4000, *at.shape, dtype=torch.float64)
    x.flatten(1)[:, ~known.flatten()] = at.posterior.sample(4000, torch.Generator().manual_seed(0))
    assert at.kl(x) < 2 * at.floor(4000)
    assert at.w2(x) < 0.05 * at.posterior.dim
    x.flatten(1)[:, ~known.flatten()] += 0.5
    assert at.kl(x) > 20 * at.floor(4000)


def test_measured_problems_are_those_of_the_references() -> None:
    assert case("A").posterior.mean().item() == pytest.approx(1.54)
    assert case("B").posterior.mean().item() == pytest.approx(0.96, abs=1e-3)
    assert case("C").posterior.mean().item() == pytest.approx(0.366, abs=1e-3)
    assert case("C2").posterior.covariance().sqrt().item() == pytest.approx(1.376, abs=1e-3)
    assert case("D").particles == case("F").particles == 2000
    assert case("F").shape == (1, 8, 8)
    assert case("F").posterior.dim == 16


def test_noise_is_known_to_the_posterior() -> None:
    clean, noisy = case("A"), case("A-noisy")
    assert noisy.observation.sigma == NOISE
    assert torch.equal(clean.observation.y, noisy.observation.y)
    # gain 0.8 of y in place of 0.8 / 1.01
    assert noisy.posterior.mean().item() == pytest.approx(0.5 + 0.8 / 1.01 * 1.3)
    with pytest.raises(ValueError, match="valid are A, B"):
        case("Z")


# --------------------------------------------------------------------------------------------------------------- cells


def test_a_cell_is_measured() -> None:
    score = run_cell(cell("mmps", steps=50))
    assert score.kl is not None and score.kl < 0.05
    assert (score.evaluations, score.vjps) == (50, 50)
    assert score.seconds > 0
    assert run_cell(cell("mmps", steps=50)).kl == score.kl
    assert run_cell(cell("mmps", steps=50, seed=1)).kl != score.kl


def test_observed_error_is_that_before_the_paste() -> None:
    assert run_cell(cell("ddnm")).observed == 0
    result = get("dps").sample(
        case("A").prior.denoiser(posterior.VP()), case("A").observation, 5, torch.Generator().manual_seed(0), 200
    )
    # one entry is known, so that the largest deviation of a sample is its deviation
    score = run_cell(cell("dps"))
    assert score.observed == pytest.approx(float(result.residual.double().square().mean().sqrt()), rel=1e-5)
    assert score.observed is not None and score.observed > 0.05


def test_divergence_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Ddnm.step
    monkeypatch.setattr(Ddnm, "step", lambda self, run, x, t, s: step(self, run, x, t, s) * 1e30)
    score = run_cell(cell("ddnm", steps=40))
    assert score.kl is None and "not finite" in score.note
    json.dumps(score.__dict__, allow_nan=False)


def test_cells_follow_the_papers_models() -> None:
    made = posterior.cells({"ding": get("ding"), "dps": get("dps")}, ["A", "D"], [5, 10], 3, 5000)
    assert len(made) == 2 * 2 * 2 * 3
    assert {c.schedule for c in made if c.label == "ding"} == {"flow"}
    assert {c.schedule for c in made if c.label == "dps"} == {"vp"}
    assert {c.particles for c in made if c.problem == "D"} == {2000}
    assert {c.schedule for c in posterior.cells({"ding": get("ding")}, ["A"], [5], 1, 10, "edm")} == {"edm"}
    with pytest.raises(ValueError, match="Unknown problem"):
        posterior.cells({}, ["X"], [5], 1, 10)


# ------------------------------------------------------------------------------------------------------ AID's module


@pytest.mark.parametrize("name", ["A", "E", "F", "A-noisy"])
def test_no_other_guidance_costs_less(name: str) -> None:
    at = case(name)
    known = at.observation.known
    assert known is not None
    denoiser, training = at.prior.denoiser(EDM(), at.shape), AidTraining()
    learner = Learner(denoiser, nn.Linear(1, 1), nn.Linear(1, 1), training.rules(known.numel()))
    rng = torch.Generator().manual_seed(0)
    y = at.observation.y.double().expand(500, *at.shape)
    truth = y.clone()
    truth[:, ~known] = at.posterior.sample(500, rng)
    start = 80 * torch.randn(y.shape, generator=rng, dtype=torch.float64)
    task = Task(start, y, known.expand(y.shape), psi(truth, y, known, 1, 1))
    best = optimal_guidance(at)

    def cost(guide: Guide) -> float:
        return learner.costs(task, levels(80), guide)["cost"]

    least = cost(best)
    others = [lambda *a, k=k: k * best(*a) for k in (0.8, 1.25)]
    others += [lambda *a, k=k: best(*a) + k * a[-1] / (1 + a[-1]) for k in (-0.1, 0.1)]
    others += [optimal_guidance(at, beta) for beta in (training.beta / 2, 2 * training.beta)]
    assert all(cost(other) > least for other in others)


def test_on_the_scalar_problem_it_is_that_of_the_reference() -> None:
    prior = GaussianMixture([[0.0]], [[[1.0]]])
    observation = Observation(torch.tensor([0.7]), torch.tensor([True]))
    at = Case("scalar", "", prior, observation, prior, (1,), "gaussian")
    x, sigma = torch.tensor([[0.3], [-2.0]], dtype=torch.float64), 1.3
    phi = 1 / math.sqrt(1 + sigma**2)
    u = -phi * (phi * x - 0.7) / (0.5 + math.atan(sigma))  # Psi = (x - 0.7)^2 / 2 and beta = 0.5, so twice as much here
    torch.testing.assert_close(optimal_guidance(at, 1.0)(x, x, x, x > 0, sigma), sigma * u)
    with pytest.raises(ValueError, match="Gaussian priors"):
        optimal_guidance(case("C"))


# ---------------------------------------------------------------------------------------------------------------- store


def test_finished_cells_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "cells.jsonl"
    todo = [cell(steps=n) for n in (2, 3)]
    first = list(run(todo, Store(path)))
    ran: list[Cell] = []
    monkeypatch.setattr(posterior, "run_cell", lambda c: ran.append(c) or Score(1, 1, 1, 1, 0, 1))
    seen: list[Cell] = []
    assert list(run(todo, Store(path), seen.append)) == first
    assert not ran and seen == todo
    # everything that the numbers depend on tells cells apart
    other = [
        cell(steps=4),
        cell(steps=2, seed=1),
        cell(steps=2, eta=0.5),
        cell("ddrm", steps=2),
        cell(steps=2, problem="B"),
    ]
    other += [replace(todo[0], particles=7), replace(todo[0], schedule="flow"), replace(todo[0], grid="karras")]
    list(run(other, Store(path)))
    assert ran == other


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    list(run([cell(steps=2), cell(steps=3)], Store(path)))
    whole = path.read_text()
    path.write_text(whole[:-30])
    store = Store(path)
    assert store.get(cell(steps=2)) is not None and store.get(cell(steps=3)) is None
    list(run([cell(steps=3)], store))
    assert len(path.read_text().splitlines()) == 2
    assert Store(path).get(cell(steps=3)) is not None
    path.write_text("nonsense\n" + whole)
    with pytest.raises(ValueError, match="line 1"):
        Store(path)


def test_a_refusal_is_a_note_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Method, *_: object, **__: object) -> None:
        raise ValueError("needs training first.")

    monkeypatch.setattr(type(get("ddnm")), "sample", refuse)
    store = Store(tmp_path / "cells.jsonl")
    ((_, score),) = run([cell()], store)
    assert score.kl is None and score.note == "needs training first."
    assert store.get(cell()) is None


# -------------------------------------------------------------------------------------------------------------- summary


def test_means_and_spreads_over_seeds() -> None:
    scores = [Score(kl, 1.0, 0.5, 10, 2, 0.1) for kl in (0.1, 0.3)]
    (summary,) = summarise([(cell(seed=k), score) for k, score in enumerate(scores)])
    assert summary.kl == pytest.approx(0.2)
    assert summary.kl_spread == pytest.approx(math.sqrt(0.02))
    assert (summary.seeds, summary.cost, summary.observed) == (2, 14, 0.5)
    missing = [*scores, Score(None, None, None, 10, 2, 0.1, "gone")]
    (summary,) = summarise([(cell(seed=k), score) for k, score in enumerate(missing)])
    assert summary.kl is None and summary.note == "gone"
    (single,) = summarise([(cell(), scores[0])])
    assert single.kl_spread is None


def test_crossing_is_for_good() -> None:
    assert crossing([row(10, 0.5), row(20, 0.009), row(50, 0.02)]) is None
    found = crossing([row(50, 0.002), row(10, 0.5), row(20, 0.009)])
    assert found is not None and found.steps == 20
    assert crossing([row(10, 0.001), row(20, None)]) is None


def test_markdown_and_json() -> None:
    rows = [row(10, 0.5), row(20, 0.004)]
    text = markdown(rows, 1000)
    assert "| m | 0.5 (10/2) | 0.004 (20/2) | 0.1 | 0.2 | 0.10 | N = 20 (20/2) |" in text
    data = json.loads(to_json(rows, {"particles": 1000}))
    assert data["protocol"] == {"particles": 1000}
    assert data["rows"][1]["kl"] == 0.004 and data["rows"][1]["cost"] == 24
