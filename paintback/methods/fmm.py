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

With `particles` K > 1 every sample has K paths, of which one is drawn at the end with the weights

    ln w = - sum over steps (p . eps + |p|^2 / 2) - (y - A x0) . u / 2  at the last look,
    p    = alpha_s (1 - e^(-(1 + eta^2) l)) (D - D_0) / (sigma_s sqrt(1 - e^(-2 eta^2 l)))

where D_0 is D with x0 in place of x0'.

The system is solved over the Krylov space of `iterations` products, one further evaluation each: an exact denoiser's J
is symmetric, so that J v stands for the J^T v that backpropagation would give. V A^T u is a combination of the products
that the solver has made, and costs nothing. The products also tell how far V is from a covariance on that space, by its
antisymmetric part and its negative curvature, and so much of the identity is added to V (`linear.damped`): nothing
where the denoiser is exact, about a hundredth of the largest curvature on `photo`. No sample's residual becomes larger
than its gap. Without that, faint noise on flat areas, which no network takes for a picture's own, is answered by steps
without bounds: a hole of 20 x 20 in paper of level 235 and noise 2 came out anywhere from 1 to 255.

What the parts are for. One step is exact for one known value and a Gaussian; pictures, with thousands of known values,
gain from a second. eta = 0 is the ODE, which is best on exact denoisers; a network's J is neither symmetric nor exact,
and noise (eta = 1, the SDE) forgets its errors. A number `damping` c adds c (sigma / alpha)^2 to V in place of what is
measured, and the solver is then that of restarted conjugate gradients (`linear.restarted_gradient`). As c grows, V
becomes the identity, DDNM's. Below the noise level `hold` a noiseless y replaces
x0' on known entries, because a few steps of the solver leave a rest of it.
The times are the method's own, uniform in ln(alpha / sigma) from the noise level `high` (the model's own end where it
is 0) down to `low`, and within the levels that a model's own grid has where it brings one; of a step-distilled model,
which knows few, that grid itself. A `grid` that is given stays in force.

`cycles`: from the first time of the grid at or below the noise level `cycle_to` the state is noised again to
`cycle_from`, x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) eps, and comes down in
`cycle_steps` steps, `cycles` times over; then the run goes on. The weights of modes are settled at these levels, and
the Gaussian is nearly right there. A grid that does not cross `cycle_to` above its last time has no cycles.

The weights are those of importance sampling on paths: D_0 makes the step of the prior's own SDE, the sum is the
logarithm of the ratio of the two densities at the path drawn, and the rest is the likelihood of y at the last look, its
determinant left out. They cost no evaluation. With growing `particles` and steps and falling `low` the law is the
posterior itself. The paths beyond the first of every sample are kept in the run; a callback sees the first.

Where alpha_t = 0, x0 does not depend on x_t and the step is unguided.
Cost of N intervals: (1 + `iterations`) (N + `cycles` `cycle_steps`) `particles` evaluations, no cycles where N = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.cycles import Cycles
from paintback.methods.linear import adjoint, damped, restarted_gradient, sizes
from paintback.methods.particles import Particles
from paintback.methods.solvers import Exponential
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
        high: noise level sigma / alpha of the first look; 0 for the model's own end.
        damping: c of V = (sigma / alpha)^2 (alpha J + c I); None for what the curvature that was measured asks for.
        cycles: how often the state is noised again and descends again; 0 for never.
        cycle_from: noise level that a cycle begins at.
        cycle_to: noise level that it ends at; the first time of the grid there or below.
        cycle_steps: steps of a cycle, besides those of the grid.
        particles: paths of every sample, of which one is drawn by its weight; they cost as many evaluations each.

    Raises:
        ValueError: if cycle_from is not above cycle_to or low is above it, and for particles without noise or solver.
    """

    name: ClassVar[str] = "fmm"
    family: ClassVar[Family] = "posterior"
    title: ClassVar[str] = "FMM: forward moment matching, by finite differences"
    paper: ClassVar[str] = ""
    differences: ClassVar[bool] = True
    takes_operator: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    iterations: int = option(2, "iterations of the linear solver, one evaluation each", low=0, high=16)
    eta: float = option(1.0, "fresh noise; 0 for the ODE, 1 for the SDE", low=0.0, high=2.0)
    order: int = option(2, "of the integrator", low=1, high=2)
    delta: float = option(0.05, "length of the finite difference, in units of sigma", low=1e-5)
    hold: float = option(0.3, "noise level below which known entries are y itself", low=0.0)
    low: float = option(0.02, "noise level of the last look", low=1e-4)
    high: float = option(0.0, "noise level of the first look; 0 for the model's own end", low=0.0)
    damping: float | None = option(
        None, "added to the Jacobian's diagonal; none for how far from a covariance it is measured", low=0.0, kind=float
    )
    cycles: int = option(0, "times that the state is noised again and descends again", low=0)
    cycle_from: float = option(0.5, "noise level that a cycle begins at", low=1e-4)
    cycle_to: float = option(0.2, "noise level that a cycle ends at, or the first time of the grid below", low=1e-4)
    cycle_steps: int = option(3, "steps of a cycle", low=1)
    particles: int = option(1, "weighted candidates of every sample; exact as they and the steps grow", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycles and not self.cycle_from > self.cycle_to:
            raise ValueError(
                f"fmm: cycle_from must be above cycle_to; got {self.cycle_from:g} and {self.cycle_to:g}, swap them."
            )
        if self.cycles and self.low > self.cycle_to:
            raise ValueError(
                f"fmm: low must not be above cycle_to, or no cycle is reached; got {self.low:g} and {self.cycle_to:g}."
            )
        if self.particles > 1 and not (self.eta and self.iterations):
            raise ValueError(
                "fmm: particles above 1 are weighted by their noise and by the linear system; "
                "set eta above 0 and iterations to at least 1."
            )

    def grid(self, denoiser: Denoiser, num_inference_steps: int) -> Grid:
        """Uniform in ln(alpha / sigma), within the levels of the model's own grid; that itself where they are few."""
        own = denoiser.grid(num_inference_steps)
        if own is None:
            return log_snr(sigma_min=self.low, sigma_max=self.high or None)
        if denoiser.step_distilled:
            return own
        first, last = (denoiser.schedule.at(float(own[k])).ratio for k in (0, -2))
        high = min(self.high or math.inf, first)
        return log_snr(sigma_min=min(max(self.low, last), high), sigma_max=None if math.isinf(high) else high)

    def start(self, run: Run) -> Tensor:
        """Noise; the particles beyond the first of every sample are kept in the run."""
        paths = Particles(self.particles)
        return paths.keep(run, paths.each(lambda: Method.start(self, run)))

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s; where it crosses `cycle_to`, the cycles too."""
        paths, cycles = Particles(self.particles), self._cycles
        x = self.move(run, paths.all(run, x_t), t, s)
        if cycles.count and cycles.crosses(t, s):
            # the slope of the last descent says nothing of the next one
            x = cycles.walk(run, x, s, self.move, lambda: paths.each(run.noise), lambda: run.memory.pop("before", None))
        return paths.keep(run, x)

    def move(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step of the integrator."""
        x0, mean, _ = self.looks(run, x_t, t)
        by = Exponential.between(t, s, self.eta)
        drift, free, before = mean, x0, run.memory.get("before")
        if self.order == 2 and before is not None:
            drift, free = by.ahead(mean, before[0], before[1]), by.ahead(x0, before[2], before[1])
        run.memory["before"] = (mean, by.length, x0)
        x: Tensor = by.keep * x_t + by.gain * drift
        if not self.eta:
            return x
        paths = Particles(self.particles)
        noise = paths.each(run.noise)
        paths.weigh(run, by.gain * (drift - free), noise, by.std)
        return x + by.std * noise

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The conditional mean at the last time above 0; of one of the particles."""
        paths = Particles(self.particles)
        _, mean, energy = self.looks(run, paths.all(run, x_t), t)
        return paths.choose(run, mean, -energy / 2)

    def conditional(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """x0', the mean of the picture given x_t and y."""
        return self.looks(run, x_t, t)[1]

    def looks(self, run: Run, x_t: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """x0, x0', and (B,) (y - A x0)^T u; for a multiple of the run's rows."""
        x0 = run.denoise(x_t, t, probe=run.answer is not None).x0
        factor = t.sigma**2 / t.alpha if t.alpha else 0.0
        y, known = (part.repeat_interleave(len(x_t) // len(part), dim=0) for part in (run.y, run.known))

        def apply(p: Tensor) -> tuple[Tensor, Tensor]:
            v = adjoint(run, p)
            size = sizes(v) / math.sqrt(v[0].numel())
            h = torch.where(size > 0, self.delta * t.sigma / torch.where(size > 0, size, torch.ones_like(size)), 0.0)
            change = run.denoise(x_t + h * v, t, probe=True).x0 - x0
            image = factor * torch.where(h > 0, change / torch.where(h > 0, h, torch.ones_like(h)), 0.0)
            image = image + self.damping * t.ratio**2 * v if self.damping and t.alpha else image
            seen = run.operator(image) if run.operator else torch.where(known, image, 0.0)
            return seen + run.sigma**2 * p, image

        def ground(p: Tensor) -> tuple[Tensor, Tensor]:
            v = adjoint(run, p)
            return run.operator(v) if run.operator else v, v

        gap = y - run.operator(x0) if run.operator else torch.where(known, y - x0, 0.0)
        if not self.iterations:
            u, lift = torch.zeros_like(gap), adjoint(run, gap)
        elif self.damping is None:
            u, lift = damped(apply, ground, gap, self.iterations)
        else:
            u, lift = restarted_gradient(apply, gap, self.iterations)
        x = x0 + lift
        if run.operator is None and run.sigma == 0 and (t.ratio < self.hold or not self.iterations):
            x = torch.where(known, y, x)
        run.answer = x
        return x0, x, (gap * u).flatten(1).sum(1)

    @property
    def _cycles(self) -> Cycles:
        return Cycles(self.cycles, self.cycle_from, self.cycle_to, self.cycle_steps)

    def evaluations(self, num_inference_steps: int, times: Sequence[Time] | None = None) -> int:
        """(1 + iterations) (N + cycles cycle_steps) particles, no cycles where N = 1; exact for the given times."""
        if times is None:
            walked = num_inference_steps + (num_inference_steps > 1) * self.cycles * self.cycle_steps
        else:
            walked = len(times) - 1 + self._cycles.extra(times)
        return self.particles * (1 + self.iterations) * walked
