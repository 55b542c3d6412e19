"""LanPaint: a few steps of fast, bidirectionally guided Langevin dynamics before every step of a solver.

Reference: Zheng et al., Training-Free Diffusion Inpainting with Asymptotically Exact and Fast Conditional Sampling,
TMLR 2025, arXiv:2502.03491. Written from the equations; the authors' code (GPL-3.0) was not opened.

At every time t, with score s(z) = (alpha_t x0(z) - z) / sigma_t^2:
    known:     z <- alpha_t y + sigma_t n_t                        n_t one coherent forward path of y
    BiG:       x0' = x0 on unknown, (1 + lambda) y - lambda x0_BIG on known, in place of x0 in the score;
               all entries move, so the known ones pull the unknown ones and are pulled by them
    FLD:       score = C - A z,  A = 1 / sigma_t^2 on unknown, (1 + lambda) / sigma_t^2 on known,
               dz = q dtau,  dq = Gamma (-q + C - A z) dtau + sqrt(2) Gamma dW,  Gamma = friction^2 A,
               solved exactly while C is held; tau = eta sigma_t^2
    N times:   advance tau / 2 under the old C;  C' = C at z (one evaluation);  kick z by (C' - C) tau, or the
               momentum by Gamma (C' - C) tau;  advance tau / 2 under the old C;  C <- C'.
               The first of the N evaluates C and advances by tau.
    step:      a solver's step from the moved z
With `order` 1 (the limit of infinite friction) z <- C / A + exp(-A tau) (z - C / A) + sqrt((1 - exp(-2 A tau)) / A) xi;
with 2 the momentum is kept over the N iterations. At the published friction both give the same law.

1 - abar of the paper is sigma_t^2 in VP coordinates. Written in units of sigma_t, as below, nothing depends on the
coordinates; "vp" is pinned because that is where the paper lives.

The last time above 0 has its inner iterations too. Cost of N_outer intervals: N_outer (inner_steps + 1) evaluations.
With heun N_outer - 1 more: its second look follows the ODE and has no inner loop of its own (the authors' package has
one there; between two random states the difference of slopes is mostly noise, and more so the longer the step). With
dpmpp_2m the picture kept from the last step does not know of the inner loop in between, which widens the samples (a
standard deviation of .66 for .60 on a Gaussian at 20 steps); euler is the paper's.

Choices and reconstructions:
  - preset "fast" is the schedule of the authors' package, version 2.1: lambda 5, eta .2, early_stop 1, ramp 1, i.e.
    tau = eta max(1 - abar, ramp) and round(N (1 - abar) / ramp) iterations where 1 - abar < ramp. A preset moves the
    fields that are not given; one that is given keeps its value, be it the paper's. Measured: it is 25 % cheaper and
    stops short of the posterior however many steps are taken, so it is not the default.
  - big = False freezes the known part during the inner loop, fast_langevin = False takes Euler-Maruyama steps (the
    two switches of the paper's ablation; without both it is plain Langevin, TFG). These diverge where tau A is above 2,
    which a noisy y or a large lambda brings about: an entry's tau is at most 1.5 / A (ours).
  - cfg_big mixes x0_BIG with another guidance scale from the same evaluation; -0.5 is the authors' "prompt first".
  - Noisy observations (sigma_y > 0; the paper has none), exact in the limit too: y is taken for the state of
    the diffusion at the time where sigma / alpha = sigma_y. Noisier than that, y lacks c^2 = sigma_t^2 -
    alpha_t^2 sigma_y^2, which replaces sigma_t^2 in the pull towards y: (1 + lambda) (alpha_t y - z) / c^2 -
    lambda s(z). Cleaner than that, y is a noisier state than z, with score (alpha_t y - z) / (alpha_t^2 sigma_y^2 -
    sigma_t^2) added to s(z), known entries are not set and lambda has no part.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.known import PATHS, Path, missing_std, replace_known, spread
from paintback.methods.solvers import SOLVERS, further_looks
from paintback.schedules import VP, Coordinates, make_grid

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "fast": {"guidance": 5.0, "step_size": 0.2, "ramp": 1.0, "early_stop": 1},
}

STIFF = 1.5  # tau A of an Euler-Maruyama step at most; from 2 on it diverges, the paper's settings have 1.35

_State = tuple[Tensor, Tensor]
_Solution = tuple[float, float, float, float, float, float, float]


@dataclass(frozen=True)
class LanPaint(Method):
    """LanPaint; see the head of this file.

    Attributes:
        inner_steps: N, Langevin iterations before every step; 10 for hard pictures.
        step_size: eta.
        guidance: lambda, how hard the known entries are pulled to y.
        friction: of the momentum, order 2 only; above 2 it is over-damped.
        order: 1 for the over-damped dynamics, 2 to carry momentum.
        early_stop: number of last times without inner iterations.
        ramp: noise variance below which iterations get fewer and tau no smaller; 0 for the paper's schedule.
        solver: of the step after the inner loop.
        path: noise of the known part over time.
        cfg_big: guidance scale of x0_BIG; None for the model's own.
        big: whether the known entries move.
        fast_langevin: exact damping and kicks; False for Euler-Maruyama.
        preset: "paper", or "fast" to move the fields that are not given.
    """

    name: ClassVar[str] = "lanpaint"
    family: ClassVar[Family] = "langevin"
    title: ClassVar[str] = "LanPaint: bidirectionally guided Langevin dynamics inside every step"
    paper: ClassVar[str] = "arXiv:2502.03491"
    needs_score: ClassVar[bool] = True
    _given: ClassVar[frozenset[str]]

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    inner_steps: int = option(5, "Langevin iterations before every step", low=0)
    step_size: float = option(0.15, "Langevin step, in units of the noise variance", low=0.0)
    guidance: float = option(8.0, "pull of the known entries towards y", low=0.0)
    friction: float = option(15.0, "friction of the momentum (order 2)", low=0.1)
    order: int = option(1, "1: over-damped, 2: with momentum", low=1, high=2)
    early_stop: int = option(0, "last times without Langevin iterations", low=0)
    ramp: float = option(0.0, "noise variance below which there are fewer iterations", low=0.0, high=1.0)
    solver: Literal["euler", "heun", "dpmpp_2m"] = option(
        "euler", "unconditional solver", choices=("euler", "heun", "dpmpp_2m")
    )
    path: Path = option("coherent", "noise of the known part over time", choices=PATHS)
    cfg_big: float | None = option(
        None, "guidance scale of the known part's prediction; none for the model's own", kind=float
    )
    big: bool = option(True, "the known part moves too (bidirectional guidance)")
    fast_langevin: bool = option(True, "exact damping; false for Euler-Maruyama")
    preset: Literal["paper", "fast"] = option("paper", "schedule of the inner loop", choices=tuple(PRESETS))

    def __new__(cls, *positional: Any, **fields: Any) -> LanPaint:
        """Keeps which fields are given, so that the preset does not move them whatever their values."""
        method = super().__new__(cls)
        first = [entry.name for entry in dataclasses.fields(cls) if not entry.kw_only][: len(positional)]
        object.__setattr__(method, "_given", frozenset((*first, *fields)))
        return method

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in PRESETS[self.preset].keys() - self._given:
            object.__setattr__(self, key, PRESETS[self.preset][key])

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s: the inner loop, then the solver from where it ended."""
        return SOLVERS[self.solver](run, lambda x, time: self.look(run, x, time), x_t, t, s)

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture predicted at the last time above 0, after its inner loop."""
        return self.look(run, x_t, t)[1].x0

    def look(self, run: Run, x: Tensor, t: Time) -> tuple[Tensor, Prediction]:
        """The state after the inner loop, and the model's prediction there."""
        x = self.langevin(run, replace_known(run, x, t, self.path), t, self.inner_count(t, run.times))
        return x, run.denoise(x, t)

    def inner_count(self, t: Time, times: Sequence[Time]) -> int:
        """Inner iterations at a time of a grid."""
        if t.t in [time.t for time in times[len(times) - 1 - min(self.early_stop, len(times) - 1) :]]:
            return 0
        return round(self.inner_steps * min(1.0, _variance(t) / self.ramp)) if self.ramp else self.inner_steps

    def langevin(self, run: Run, z: Tensor, t: Time, count: int) -> Tensor:
        """`count` inner iterations at t; as many evaluations."""
        if count == 0:
            return z
        drift = _Drift(run, t, self.guidance, self.cfg_big)
        eta = self.step_size * max(1.0, self.ramp / _variance(t))  # tau = eta sigma_t^2
        whole, half = (self.advance(run, drift, eta * part) for part in (1.0, 0.5))
        held, old = z, torch.zeros_like(z)
        v = run.noise() if self.order == 2 else old
        for k in range(count):
            if k and self.fast_langevin:
                z, v = half(z, v, old)
            z = z if self.big else torch.where(run.known, held, z)
            new = drift(z, run.denoise(z, t))
            if not self.fast_langevin:
                tau = (STIFF / drift.damping).clamp(max=eta)
                z = z + tau * drift.damping * (drift.centre(new) - z) + (2 * tau).sqrt() * t.sigma * run.noise()
            elif k == 0:
                z, v = whole(z, v, new)
            else:
                kick = eta * (new - old)  # (C' - C) tau
                if self.order == 1:
                    z = z + kick
                else:
                    v = v + self.friction * drift.damping.sqrt() / t.sigma * kick  # sqrt(Gamma) (C' - C) tau
                z, v = half(z, v, old)
            old = new
        return z if self.big else torch.where(run.known, held, z)

    def advance(self, run: Run, drift: _Drift, duration: float) -> Callable[[Tensor, Tensor, Tensor], _State]:
        """The exact solution over a time of `duration` sigma_t^2 under a held C': a function (z, v, C') -> (z, v)."""
        solve = _overdamped if self.order == 1 else partial(_damped, friction=self.friction)
        on_known, on_unknown = solve(drift.damping_known, duration), solve(1.0, duration)
        zz, zv, vz, vv, lz, lvz, lv = (drift.spread(*pair) for pair in zip(on_known, on_unknown, strict=True))
        sigma = drift.t.sigma

        def apply(z: Tensor, v: Tensor, old: Tensor) -> _State:
            centre, first = drift.centre(old), run.noise()
            away = z - centre
            if self.order == 1:
                return centre + zz * away + sigma * lz * first, v
            z = centre + zz * away + sigma * (zv * v + lz * first)
            return z, vz / sigma * away + vv * v + lvz * first + lv * run.noise()

        return apply

    def evaluations(self, num_inference_steps: int, times: Sequence[Time] | None = None) -> int:
        """N_outer (inner_steps + 1); with heun, early_stop or ramp, exact for the times (by default the VP grid)."""
        times = times or make_grid(VP(), num_inference_steps)
        return sum(self.inner_count(t, times) + 1 for t in times[:-1]) + further_looks(self.solver, times)


def _variance(t: Time) -> float:
    """1 - abar: the noise variance in VP coordinates."""
    return t.sigma**2 / (t.alpha**2 + t.sigma**2)


class _Drift:
    """The score that drives the inner loop at t, split into C - A z, everything in units of sigma_t^2.

    C / A = pull + C' / damping, with C' the part of C that depends on the model: what `__call__` returns.

    Attributes:
        damping_known: A sigma_t^2 on known entries; it is 1 on unknown ones.
        damping: both, of the state's shape.
        pull: what a damped entry returns to where C' is 0.
    """

    def __init__(self, run: Run, t: Time, guidance: float, cfg_big: float | None) -> None:
        self.run, self.t, self.guidance, self.cfg_big = run, t, guidance, cfg_big
        missing = missing_std(t, run.sigma) ** 2 / t.sigma**2
        self.below = t.sigma < t.alpha * run.sigma  # the state is cleaner than y
        if self.below:
            precision = 1 / ((t.alpha * run.sigma / t.sigma) ** 2 - 1)
            self.damping_known, share = 1 + precision, precision / (1 + precision)
        else:
            self.damping_known, share = min((1 + guidance) / missing if missing else math.inf, 1e12), 1.0
        self.damping = self.spread(self.damping_known, 1.0)
        self.pull = torch.where(run.known, share * t.alpha * run.y, 0.0)

    def spread(self, known: float, unknown: float) -> Tensor:
        """One number on the known entries, another on the rest."""
        return spread(self.run, known, unknown)

    def __call__(self, z: Tensor, at_z: Prediction) -> Tensor:
        """C' at z: alpha_t x0 on unknown, lambda (z - alpha_t x0_BIG) on known."""
        x0 = self.t.alpha * at_z.x0
        if self.below:
            return x0
        big = at_z if self.cfg_big is None else at_z.guided(self.cfg_big)
        return torch.where(self.run.known, self.guidance * (z - self.t.alpha * big.x0), x0)

    def centre(self, model: Tensor) -> Tensor:
        """C / A, where the damping takes z while C is held."""
        return self.pull + model / self.damping


def _overdamped(damping: float, duration: float) -> _Solution:
    """Ornstein-Uhlenbeck: decay, and standard deviation in units of sigma_t; the rest of `_damped`'s numbers are 0."""
    rate = damping * duration
    return math.exp(-rate), 0.0, 0.0, 0.0, math.sqrt(-math.expm1(-2 * rate) / damping), 0.0, 0.0


def _damped(damping: float, duration: float, friction: float) -> _Solution:
    """The 2 x 2 Ornstein-Uhlenbeck process of (z, v), v = q / sqrt(Gamma), exactly.

    With M = [[0, sqrt G], [-A sqrt G, -G]], h = G / 2, w^2 = h^2 - A G and S = sinh(w tau) / w:
    E = exp(M tau) = exp(-h tau) (cosh(w tau) + S (M + h)), and the covariance of the noise is diag(1 / A, 1) -
    E diag(1 / A, 1) E^T.

    Args:
        damping: A in units of 1 / sigma_t^2.
        duration: tau in units of sigma_t^2.
        friction: sqrt(G / A).

    Returns:
        E_zz, E_zv, E_vz, E_vv, and the Cholesky factor L_zz, L_vz, L_vv of the noise, z in units of sigma_t.
    """
    g = friction**2 * damping
    h, root, q = g / 2, math.sqrt(g), g * duration
    cosh, sinh = _hyperbolic(h, h * h - damping * g, duration)
    e = (cosh + h * sinh, root * sinh, -damping * root * sinh, cosh - h * sinh)
    zz = (-math.expm1(-q) - 2 * h * sinh * (cosh + h * sinh)) / damping
    if q < 1e-3:  # the closed form cancels to its order, tau^3: two terms of its series, right to 1e-6
        zz = 2 * g**2 * duration**3 * (1 / 3 - q / 4)
    vv = -math.expm1(-q) + 2 * h * sinh * (cosh - h * sinh)
    l_zz = math.sqrt(max(zz, 0.0))
    l_vz = g * root * sinh**2 / l_zz if l_zz else 0.0
    return *e, l_zz, l_vz, math.sqrt(max(vv - l_vz**2, 0.0))


def _hyperbolic(h: float, square: float, tau: float) -> tuple[float, float]:
    """exp(-h tau) cosh(w tau) and exp(-h tau) sinh(w tau) / w, for w^2 = square < h^2 of any sign."""
    w = math.sqrt(abs(square))
    if square > 0:
        slow = math.exp((square - h * h) / (h + w) * tau)  # exp((w - h) tau) without cancellation
        return slow * (1 + math.exp(-2 * w * tau)) / 2, slow * -math.expm1(-2 * w * tau) / (2 * w)
    decay = math.exp(-h * tau)
    return decay * math.cos(w * tau), decay * (math.sin(w * tau) / w if w else tau)
