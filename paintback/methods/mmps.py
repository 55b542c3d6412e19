"""MMPS: moment matching posterior sampling, the conditional mean under the denoiser's own covariance.

Reference: Rozet et al., Learning Diffusion Priors from Observations by Expectation Maximization, NeurIPS 2024,
arXiv:2405.13712.

The law of the picture given x_t is taken for N(x0, V), V = (sigma_t^2 / alpha_t) J^T its exact covariance (Tweedie),
J = d x0 / d x_t. Then the picture given x_t and y has the mean

    x0' = x0 + V A^T (A V A^T + sigma_y^2 I)^-1 (y - A x0)

and one step is DDIM(eta) from x0', x1' = (x_t - alpha_t x0') / sigma_t. V v is one vector-Jacobian product; the system
is solved by a few iterations of conjugate gradients (J symmetric, as for an exact denoiser) or of GMRES (a network's J
is not), every sample for itself. A breakdown of the iteration (a residual of 0, a direction without variance) ends it
for that sample, and neither solver's residual ever rises, whatever J is. For a Gaussian prior x0' is exact once the
solver has converged.

The answer is a combination of the products V A^T p that the solver has made already, so that the correction costs no
product beyond those of the iterations: k for k iterations, one less than when V is applied to the solution again.

Choices: eta = 0, plain Euler steps; `sigma_y` is the softness where the observation itself is noiseless, because a
network's J is too rough for a system without any. The last look is corrected too. Where alpha_t = 0, J says nothing
about V and the step is unguided; the gradients are computed and counted.
Cost of N intervals: N evaluations, N `iterations` gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.linear import adjoint, conjugate_gradient, gmres, misfit
from paintback.schedules import Coordinates

SOLVERS = {"cg": conjugate_gradient, "gmres": gmres}


@dataclass(frozen=True)
class Mmps(Method):
    """MMPS; see the head of this file.

    Attributes:
        iterations: of the solver; 1 is exact for one observed value.
        solver: "cg" or "gmres".
        eta: fresh noise of a step, as a part of the ancestral one.
        sigma_y: softness where the observation itself is noiseless.
    """

    name: ClassVar[str] = "mmps"
    family: ClassVar[Family] = "gradients"
    title: ClassVar[str] = "MMPS: conditional mean under the denoiser's own covariance"
    paper: ClassVar[str] = "arXiv:2405.13712"
    takes_operator: ClassVar[bool] = True
    needs_vjp: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    iterations: int = option(1, "iterations of the linear solver, one gradient each", low=1, high=64)
    solver: Literal["cg", "gmres"] = option("cg", "linear solver", choices=tuple(SOLVERS))
    eta: float = option(0.0, "fresh noise, as a part of the ancestral one", low=0.0, high=1.0)
    sigma_y: float = option(0.01, "softness of the known entries", low=0.0)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        std = self.eta * ancestral_std(t, s)
        return ddim(self.conditional(run, x_t, t), s, std, run.noise() if std else None)

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The conditional mean at the last time above 0."""
        return self.conditional(run, x_t, t).x0

    def conditional(self, run: Run, x_t: Tensor, t: Time) -> Prediction:
        """The prediction given y too."""
        at_t, vjp = run.linearise(x_t, t)
        factor = t.sigma**2 / t.alpha if t.alpha else 0.0
        soft = (run.sigma or self.sigma_y) ** 2

        def apply(p: Tensor) -> tuple[Tensor, Tensor]:
            image = factor * vjp(adjoint(run, p))
            seen = run.operator(image) if run.operator else torch.where(run.known, image, 0.0)
            return seen + soft * p, image

        correction = SOLVERS[self.solver](apply, misfit(run, at_t.x0), self.iterations)[1]
        if t.alpha == 0:
            return at_t
        x0 = run.answer = at_t.x0 + correction
        return Prediction(x0, (x_t - t.alpha * x0) / t.sigma)

    def vjps(self, num_inference_steps: int) -> int:
        """N times the iterations."""
        return num_inference_steps * self.iterations
