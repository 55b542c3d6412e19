"""Two things that many papers do with what is given: the known part set to the noised y, and walks back in time.

**Replacement** (Song et al., ICLR 2021, arXiv:2011.13456, appendix I.2): known entries of the state become

    alpha_t y + sigma_t n_t

The paper draws n_t afresh at every step; a "coherent" path takes one forward path of y instead, "fixed" one noise for
all times. The coherent path is drawn backwards through its exact bridge, so that nothing is stored:
n_s = rho n_t + sqrt(1 - rho^2) eps with rho = alpha_t sigma_s / (alpha_s sigma_t).

For noisy observations (sigma_y > 0), of which the papers are silent: y is a state of the diffusion itself, at the time
where sigma / alpha = sigma_y, so only the missing noise is added, sigma_t^2 - alpha_t^2 sigma_y^2 in place of sigma_t^2
(in rho too). From there down nothing is known of the state that it does not hold already, and the known part is left
to the model.

**Time travel** (Lugmayr et al., RePaint, CVPR 2022, arXiv:2201.09865, section 4.2 and the schedule of its appendix;
taken up by DDNM, arXiv:2212.00490, section 3.3): go back to a noisier time by adding noise, and come again. A run of N
intervals lands on the grid's points 1, ..., N, the last one clean. Point N - 1 and those a multiple of `length` before
it are stops, but for points before `length`: from each, the state jumps back `length` points,

    x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) eps,

and makes the same `length` steps again, `repeats` - 1 times. The last interval, to the clean picture, is made once.
That is the schedule of both papers' authors: 250 steps with jumps of 10, 10 times, stop at 19, 29, ..., 249 and make
2410 evaluations.
With a noisy y, stops whose state is cleaner than y (sigma / alpha < sigma_y) have no jump (ours): nothing puts y back
there, so that every walk would forget some of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from paintback.methods.run import Run
from paintback.schedules import Time

__all__ = ["PATHS", "Path", "missing_std", "renoise", "replace_known", "spread", "travel", "travel_cost"]

Path = Literal["fresh", "coherent", "fixed"]
PATHS = ("fresh", "coherent", "fixed")
Move = Callable[[Run, Tensor, Time, Time], Tensor]


def spread(run: Run, known: float, unknown: float) -> Tensor:
    """One number on the known entries, another on the rest, made on the run's device."""
    here, there = (run.template.new_full((), value) for value in (known, unknown))
    return torch.where(run.known, here, there)


def missing_std(t: Time, sigma_y: float) -> float:
    """Noise that y, noisy by sigma_y, lacks to be the state at t; 0 where it has too much already."""
    return math.sqrt(max(0.0, t.sigma**2 - (t.alpha * sigma_y) ** 2))


def replace_known(run: Run, x: Tensor, t: Time, path: Path) -> Tensor:
    """Sets the known part of a state to the noised observation; see the head of this file.

    Args:
        run: whose memory keeps the path, at one time at most.
        x: (B, ...) state.
        t: its time; no earlier (noisier) than that of the call before.
        path: how the noises of different times are coupled.
    """
    std = missing_std(t, run.sigma)
    if std == 0:
        return x
    last, noise = run.memory.get("path", (t, None))
    if noise is None or path == "fresh":
        noise = run.noise()
    elif path == "coherent" and last.t != t.t:
        rho = last.alpha * std / (t.alpha * missing_std(last, run.sigma))
        noise = rho * noise + math.sqrt(max(0.0, 1 - rho**2)) * run.noise()
    run.memory["path"] = (t, noise)
    return torch.where(run.known, t.alpha * run.y + std * noise, x)


def renoise(run: Run, x_s: Tensor, s: Time, t: Time) -> Tensor:
    """A draw of the state at t given that at the cleaner s; alpha_s > 0."""
    ratio = t.alpha / s.alpha
    return ratio * x_s + math.sqrt(max(0.0, t.sigma**2 - (ratio * s.sigma) ** 2)) * run.noise()


def travel(run: Run, move: Move, x_t: Tensor, t: Time, s: Time, length: int, repeats: int) -> Tensor:
    """The step t -> s, then the jumps back from s and the steps that lead to it again.

    Args:
        run: whose grid holds t and s.
        move: one step of a method.
        x_t: state at t.
        t: a time of the grid.
        s: the one after it, above 0.
        length: of a jump, in grid points.
        repeats: how often a stretch before a stop is walked in all; 1 for no time travel.
    """
    x = move(run, x_t, t, s)
    arrival = run.times.index(s)
    if not _is_stop(arrival, len(run.times) - 1, length) or s.sigma < s.alpha * run.sigma:
        return x
    stretch = run.times[arrival - length : arrival + 1]
    for _ in range(repeats - 1):
        x = renoise(run, x, s, stretch[0])
        for before, after in itertools.pairwise(stretch):
            x = move(run, x, before, after)
    return x


def travel_cost(steps: int, length: int, repeats: int) -> int:
    """Steps of a run of so many grid intervals, those walked again included; fewer where y is noisy."""
    stops = sum(_is_stop(arrival, steps, length) for arrival in range(1, steps + 1))
    return steps + (repeats - 1) * length * stops


def _is_stop(arrival: int, last: int, length: int) -> bool:
    return length <= arrival < last and (last - 1 - arrival) % length == 0
