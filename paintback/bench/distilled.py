"""Methods on ideal step-distilled models: how far their samples are from the exact posterior.

Two problems of `cases`, the 2-D Gaussian and the 25 components, whose priors are distilled in closed form
(`priors.DistilledDenoiser`), on a flow's grid of shift 3. The distance is Wasserstein-1 of the one unknown entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from paintback.bench.cases import case
from paintback.methods.base import Method
from paintback.priors import DistilledDenoiser

__all__ = ["PROBLEMS", "Distance", "at_cost", "floor", "measure", "table"]

PROBLEMS = ("A", "C")
EXACT, QUANTILES = 200_000, 2000


@dataclass(frozen=True)
class Distance:
    """One method on one problem, over seeds.

    Attributes:
        label: of the method.
        problem: of `PROBLEMS`.
        steps: grid intervals.
        evaluations: per sample, counted.
        vjps: likewise.
        w1: mean over seeds.
    """

    label: str
    problem: str
    steps: int
    evaluations: float
    vjps: float
    w1: float


def _quantiles(values: Tensor) -> Tensor:
    places = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    ordered = values.double().sort().values
    return ordered[(places * len(ordered)).long()]


def _exact(problem: str) -> Tensor:
    drawn = case(problem).posterior.sample(EXACT, torch.Generator().manual_seed(2**20))
    return _quantiles(drawn[:, 0])


def floor(problem: str, particles: int, seeds: int = 2) -> float:
    """The distance of as many exact samples."""
    drawn = [case(problem).posterior.sample(particles, torch.Generator().manual_seed(seed)) for seed in range(seeds)]
    return sum(float((_quantiles(x[:, 0]) - _exact(problem)).abs().mean()) for x in drawn) / seeds


def measure(
    methods: Mapping[str, tuple[Method, int]],
    problems: Iterable[str] = PROBLEMS,
    *,
    particles: int = 2000,
    seeds: int = 2,
) -> list[Distance]:
    """Runs methods on the distilled problems.

    Args:
        methods: by label, with the grid intervals.
        problems: of `PROBLEMS`.
        particles: samples of a run.
        seeds: how many; 0, 1, ...
    """
    rows = []
    for problem in problems:
        at, exact = case(problem), _exact(problem)
        denoiser = DistilledDenoiser(at.prior, shape=at.shape)
        for label, (method, steps) in methods.items():
            total = 0.0
            for seed in range(seeds):
                result = method.sample(
                    denoiser, at.observation, steps, torch.Generator().manual_seed(seed), num_samples=particles
                )
                total += float((_quantiles(at.unknown(result.x)[:, 0]) - exact).abs().mean())
            rows.append(Distance(label, problem, steps, result.evaluations, result.vjps, total / seeds))
    return rows


def at_cost(methods: Mapping[str, Method], evaluations: int) -> dict[str, tuple[Method, int]]:
    """Methods by label, each with as many grid intervals as a number of evaluations pays for; a gradient counts 2."""
    chosen = {}
    for label, method in methods.items():
        fits = [n for n in range(1, evaluations + 1) if method.evaluations(n) + 2 * method.vjps(n) <= evaluations]
        if fits:
            chosen[label] = (method, fits[-1])
    return chosen


def table(rows: Iterable[Distance], floors: Mapping[str, float]) -> str:
    """The distances as a Markdown table, a column for each problem."""
    rows = list(rows)
    problems = list(dict.fromkeys(row.problem for row in rows))
    lines = [
        f"| method | steps | evaluations | {' | '.join(f'{p}: {case(p).title}' for p in problems)} |",
        "|---" * (3 + len(problems)) + "|",
    ]
    for label, steps in dict.fromkeys((row.label, row.steps) for row in rows):
        own = {row.problem: row for row in rows if (row.label, row.steps) == (label, steps)}
        one = next(iter(own.values()))
        cost = f"{one.evaluations:g}" + (f" + {one.vjps:g} gradients" if one.vjps else "")
        lines.append(f"| {label} | {steps} | {cost} | {' | '.join(f'{own[p].w1:.3f}' for p in problems)} |")
    lines.append(f"| exact samples | | | {' | '.join(f'{floors[p]:.3f}' for p in problems)} |")
    return "\n".join(lines)
