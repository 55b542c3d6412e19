"""Unconditional solvers of the probability-flow ODE, for methods that steer the state and leave the step to a solver.

One interface: `solver(run, evaluate, x_t, t, s) -> x_s`, s.sigma > 0. `evaluate(x, time) -> (x, prediction)` is the
look at the model that opens a step and may move x first (replacement sets the known part, LanPaint runs its inner
loop); the step starts from the moved state. Further looks of the same step are plain ones along the ODE: to move the
state between them would mix the slopes of two trajectories. With r = sigma / alpha and u = x / alpha the ODE is
du / dr = x1.

    euler       x_s = alpha_s x0 + sigma_s x1                     DDIM with eta 0 (arXiv:2010.02502)
    heun        x' = euler;  x_s = x' + alpha_s (r_s - r_t) (x1(x') - x1(x_t)) / 2       EDM (arXiv:2206.00364)
    dpmpp_2m    x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) D   (arXiv:2211.01095)
                D = x0 + h / (2 h_last) (x0 - x0_last),  h = ln(alpha_s / sigma_s) - ln(alpha_t / sigma_t)
    ancestral   x_s = alpha_s x0 + sqrt(sigma_s^2 - eta^2) x1 + eta eps,  eta the ancestral std   DDPM

All are right where alpha_t = 0, i.e. r infinite: there heun is euler, and dpmpp_2m has no use for a slope from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Run, Time, ancestral_std, ddim

__all__ = ["SOLVERS", "Evaluate", "Solver", "SolverName", "ancestral", "dpmpp_2m", "euler", "further_looks", "heun"]

Evaluate = Callable[[Tensor, Time], tuple[Tensor, Prediction]]
Solver = Callable[[Run, Evaluate, Tensor, Time, Time], Tensor]
SolverName = Literal["euler", "heun", "dpmpp_2m", "ancestral"]


def euler(run: Run, evaluate: Evaluate, x_t: Tensor, t: Time, s: Time) -> Tensor:
    """One Euler step; one evaluation."""
    _, at_t = evaluate(x_t, t)
    return ddim(at_t, s)


def heun(run: Run, evaluate: Evaluate, x_t: Tensor, t: Time, s: Time) -> Tensor:
    """One Heun step; two evaluations, the second at s, and one where alpha_t = 0."""
    _, at_t = evaluate(x_t, t)
    if t.alpha == 0:
        return ddim(at_t, s)
    trial = ddim(at_t, s)
    at_s = run.denoise(trial, s)
    return trial + s.alpha * (s.ratio - t.ratio) / 2 * (at_s.x1 - at_t.x1)


def dpmpp_2m(run: Run, evaluate: Evaluate, x_t: Tensor, t: Time, s: Time) -> Tensor:
    """One step of DPM-Solver++(2M); one evaluation, the last picture is kept in the run."""
    _, at_t = evaluate(x_t, t)
    x_s = ddim(at_t, s)
    kept: tuple[Time, Tensor] | None = run.memory.get("dpmpp_2m")
    run.memory["dpmpp_2m"] = (t, at_t.x0)
    # no slope without an earlier time, nor from one that is infinitely far in log-SNR
    if kept is None or not math.isfinite(kept[0].log_snr) or kept[0].log_snr >= t.log_snr:
        return x_s
    last, before = kept
    slope = (s.log_snr - t.log_snr) / (2 * (t.log_snr - last.log_snr))
    return x_s + (s.alpha - t.alpha * s.sigma / t.sigma) * slope * (at_t.x0 - before)


def ancestral(run: Run, evaluate: Evaluate, x_t: Tensor, t: Time, s: Time) -> Tensor:
    """One DDPM step; one evaluation, one draw."""
    _, at_t = evaluate(x_t, t)
    return ddim(at_t, s, ancestral_std(t, s), run.noise())


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m, "ancestral": ancestral}


def further_looks(solver: str, times: Sequence[Time]) -> int:
    """How often a run over a grid looks at the model beyond once at every time above 0.

    Args:
        solver: a name of `SOLVERS`.
        times: the grid, the last time with sigma = 0.
    """
    return sum(t.alpha > 0 for t in times[:-2]) if solver == "heun" else 0
