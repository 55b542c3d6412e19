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
from typing import Literal, NamedTuple

from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.run import Run
from paintback.schedules import Time

__all__ = [
    "SOLVERS",
    "Evaluate",
    "Exponential",
    "Solver",
    "SolverName",
    "ancestral",
    "ancestral_std",
    "ddim",
    "dpmpp_2m",
    "euler",
    "further_looks",
    "heun",
]

Evaluate = Callable[[Tensor, Time], tuple[Tensor, Prediction]]
Solver = Callable[[Run, Evaluate, Tensor, Time, Time], Tensor]
SolverName = Literal["euler", "heun", "dpmpp_2m", "ancestral"]


def ancestral_std(t: Time, s: Time) -> float:
    """Standard deviation of the ancestral (DDPM) step: sigma_s sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)."""
    return s.sigma * math.sqrt(max(0.0, 1 - (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2))


def ddim(prediction: Prediction, s: Time, eta: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """The DDIM step to s: alpha_s x0 + sqrt(sigma_s^2 - eta^2) x1 + eta noise (Song et al. 2021, arXiv:2010.02502).

    Args:
        prediction: at t.
        s: the next time.
        eta: standard deviation of the fresh noise, at most sigma_s; `ancestral_std` makes it DDPM's step.
        noise: standard normal, needed where eta > 0.
    """
    x = s.alpha * prediction.x0 + math.sqrt(max(0.0, s.sigma**2 - eta**2)) * prediction.x1
    return x if noise is None or eta == 0 else x + eta * noise


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


class Exponential(NamedTuple):
    """One step of the SDE with noise eta: x_s = keep x_t + gain D + std eps, D the picture along the step.

    D is held (order 1) or goes on from the last step (order 2, see `ahead`). eta = 0 is the ODE and `dpmpp_2m`,
    eta = 1 the ancestral step's law (DPM-Solver++, arXiv:2211.01095; with D held, it is DDPM's step exactly).

    Attributes:
        length: l = ln(alpha_s sigma_t / (alpha_t sigma_s)), infinite where alpha_t = 0.
        keep: (sigma_s / sigma_t) e^(-eta^2 l).
        gain: alpha_s (1 - e^(-(1 + eta^2) l)).
        std: sigma_s sqrt(1 - e^(-2 eta^2 l)).
    """

    length: float
    keep: float
    gain: float
    std: float

    @classmethod
    def between(cls, t: Time, s: Time, eta: float) -> Exponential:
        """The numbers of the step t -> s."""
        decay = t.alpha * s.sigma / (s.alpha * t.sigma)  # e^-l, 0 where alpha_t is
        noisy = decay ** (eta**2)
        length = -math.log(decay) if decay else math.inf
        return cls(length, s.sigma / t.sigma * noisy, s.alpha * (1 - decay * noisy), s.sigma * math.sqrt(1 - noisy**2))

    def ahead(self, now: Tensor, before: Tensor, length_before: float) -> Tensor:
        """D of second order: now + (now - before) l / (2 l_before); now itself where this step is endless."""
        return now + (now - before) * self.length / (2 * length_before) if math.isfinite(self.length) else now


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m, "ancestral": ancestral}


def further_looks(solver: str, times: Sequence[Time]) -> int:
    """How often a run over a grid looks at the model beyond once at every time above 0.

    Args:
        solver: a name of `SOLVERS`.
        times: the grid, the last time with sigma = 0.
    """
    return sum(t.alpha > 0 for t in times[:-2]) if solver == "heun" else 0
