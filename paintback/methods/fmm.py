"""FMM: forward moment matching, the conditional mean under the denoiser's own covariance, without a gradient.

Reference: Paintback's own. It joins the moment matching of MMPS (Rozet et al. 2024, arXiv:2405.13712), the finite
differences of FCS (Graikos et al. 2024, arXiv:2410.18804) and the multistep exponential integrator of DPM-Solver++ (Lu
et al. 2022, arXiv:2211.01095).

The law of the picture given x_t is taken for N(x0, V), V = (sigma_t^2 / alpha_t) J (second-order Tweedie), where
J = d x0 / d x_t. Given y = A x + noise too, its mean is

    x0'  = x0 + V A^T u,   (A V A^T + sigma_y^2 I) u = y - A x0
    J v ~ (x0(x_t + h v) - x0(x_t)) / h,   rms(h v) = `delta` sigma_t

and one step t -> s goes on from it, with l = ln(alpha_s sigma_t / (alpha_t sigma_s)):

    D    = x0'_t + (x0'_t - x0'_before) l / (2 l_before)
    x_s  = (sigma_s / sigma_t) e^(-eta^2 l) x_t + alpha_s (1 - e^(-(1 + eta^2) l)) D
           + sigma_s sqrt(1 - e^(-2 eta^2 l)) eps

The system is solved by `iterations` steps of conjugate gradients, one further evaluation each: an exact denoiser's J is
symmetric, so that J v stands for the J^T v that backpropagation would give. V A^T u is a combination of the products
that the solver has made, and costs nothing.

What the parts are for. One step is exact for one known value and a Gaussian; pictures, with thousands of known values,
gain from a second. eta = 0 is the ODE, which is best on exact denoisers; a network's J is neither symmetric nor exact,
and noise (eta = 1, the SDE) forgets its errors. Below the noise level `hold` a noiseless y replaces x0' on known
entries, because a few steps of the solver leave a rest of it. The times are the method's own, uniform in ln(alpha /
sigma) down to the noise level `low`; a `grid` that is given stays in force.

Where alpha_t = 0, x0 does not depend on x_t and the step is unguided.
Cost of N intervals: N (1 + `iterations`) evaluations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.methods.base import Method, Run, Time, option
from paintback.methods.dps import adjoint, misfit, sizes
from paintback.methods.mmps import conjugate_gradient
from paintback.schedules import Coordinates, Grid, log_snr


@dataclass(frozen=True)
class Fmm(Method):
    """FMM; see the head of this file.

    Attributes:
        iterations: of the linear solver; 0 puts y in place of x0's known entries and does nothing else.
        eta: fresh noise.
        order: of the integrator; 1 is Euler's.
        delta: length of the finite difference.
        hold: noise level sigma / alpha.
        low: noise level sigma / alpha of the last look.
    """

    name: ClassVar[str] = "fmm"
    title: ClassVar[str] = "FMM: forward moment matching, by finite differences"
    paper: ClassVar[str] = ""
    takes_operator: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    iterations: int = option(2, "iterations of the linear solver, one evaluation each", low=0, high=16)
    eta: float = option(1.0, "fresh noise; 0 for the ODE, 1 for the SDE", low=0.0, high=2.0)
    order: int = option(2, "of the integrator", low=1, high=2)
    delta: float = option(0.05, "length of the finite difference, in units of sigma", low=1e-5)
    hold: float = option(0.3, "noise level below which known entries are y itself", low=0.0)
    low: float = option(0.02, "noise level of the last look", low=1e-4)

    def grid(self, denoiser: Denoiser, num_inference_steps: int) -> Grid:
        """Uniform in ln(alpha / sigma)."""
        return log_snr(sigma_min=self.low)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        mean = self.conditional(run, x_t, t)
        decay = t.alpha * s.sigma / (s.alpha * t.sigma)  # e^-l, 0 where alpha_t is
        length = -math.log(decay) if decay else math.inf
        drift, before = mean, run.memory.get("before")
        if self.order == 2 and before is not None and math.isfinite(length):
            drift = mean + (mean - before[0]) * length / (2 * before[1])
        run.memory["before"] = (mean, length)
        noisy = decay ** (self.eta**2)
        x: Tensor = s.sigma / t.sigma * noisy * x_t + s.alpha * (1 - decay * noisy) * drift
        return x + s.sigma * math.sqrt(1 - noisy**2) * run.noise() if self.eta else x

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The conditional mean at the last time above 0."""
        return self.conditional(run, x_t, t)

    def conditional(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """x0', the mean of the picture given x_t and y."""
        x0 = run.denoise(x_t, t).x0
        factor = t.sigma**2 / t.alpha if t.alpha else 0.0

        def apply(p: Tensor) -> tuple[Tensor, Tensor]:
            v = adjoint(run, p)
            size = sizes(v) / math.sqrt(v[0].numel())
            h = torch.where(size > 0, self.delta * t.sigma / torch.where(size > 0, size, torch.ones_like(size)), 0.0)
            change = run.denoise(x_t + h * v, t).x0 - x0
            image = factor * torch.where(h > 0, change / torch.where(h > 0, h, torch.ones_like(h)), 0.0)
            seen = run.operator(image) if run.operator else torch.where(run.known, image, 0.0)
            return seen + run.sigma**2 * p, image

        gap = misfit(run, x0)
        x = x0 + conjugate_gradient(apply, gap, self.iterations)[1] if self.iterations else x0 + adjoint(run, gap)
        held = run.operator is None and run.sigma == 0 and (t.ratio < self.hold or not self.iterations)
        return torch.where(run.known, run.y, x) if held else x

    def evaluations(self, num_inference_steps: int) -> int:
        """N (1 + iterations)."""
        return num_inference_steps * (1 + self.iterations)
