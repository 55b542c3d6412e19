"""DPS: a gradient of the residual's norm through the denoiser, after every ancestral step.

Reference: Chung et al., Diffusion Posterior Sampling for General Noisy Inverse Problems, ICLR 2023, arXiv:2209.14687.

One step t -> s, A the mask or a linear operator:
    r    = y - A x0(x_t)
    x_s  = ancestral step - zeta grad_{x_t} |r|_2
         = alpha_s x0 + sqrt(sigma_s^2 - eta_s^2) x1 + eta_s eps + zeta J^T A^T r / |r|_2,    J = d x0 / d x_t

The norm is not squared: the paper's step size divides the gradient of the square by the norm. It is taken per sample,
and where r = 0 the gradient is 0. The paper's zeta = 1 goes with 1000 steps of DDPM and 256 x 256 pictures; with few
steps it must be tuned again (about .1 to .3 on our two-dimensional problems), since the pull per step does not depend
on the number of steps.

The pull has a length of about zeta for the whole picture, so that larger pictures are pulled less per entry.
`normalise` (our addition) multiplies it by sqrt(M), M the number of observed values, so that zeta is the pull per
entry whatever the size; zeta = 1 of the paper, at M = 3 x 256 x 256, is then 0.0023.

Noisy observations need no change: sigma_y is absorbed in zeta in the paper. Known entries are not set during the run;
nothing holds them at y but the pull. The last look, at the last time above 0, is pulled too, as in the paper's loop.
Cost of N intervals: N evaluations, N gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.linear import adjoint, misfit, observed, unit
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class Dps(Method):
    """DPS; see the head of this file.

    Attributes:
        zeta: length of the pull.
        normalise: zeta per observed value, in place of one for the whole picture.
    """

    name: ClassVar[str] = "dps"
    family: ClassVar[Family] = "gradients"
    title: ClassVar[str] = "DPS: gradient of the residual through the denoiser"
    paper: ClassVar[str] = "arXiv:2209.14687"
    takes_operator: ClassVar[bool] = True
    needs_vjp: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    zeta: float = option(1.0, "length of the pull towards the observation", low=0.0)
    normalise: bool = option(False, "zeta per observed value, whatever the picture's size")

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        at_t, pull = self.looks(run, x_t, t)
        return ddim(at_t, s, ancestral_std(t, s), run.noise()) + pull

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The pulled picture at the last time above 0."""
        at_t, pull = self.looks(run, x_t, t)
        return at_t.x0 + pull

    def looks(self, run: Run, x_t: Tensor, t: Time) -> tuple[Prediction, Tensor]:
        """The prediction at t, and zeta J^T A^T r / |r|."""
        at_t, vjp = run.linearise(x_t, t)
        zeta = self.zeta * observed(run).sqrt() if self.normalise else self.zeta
        pull = zeta * vjp(adjoint(run, unit(misfit(run, at_t.x0))))
        run.answer = at_t.x0 + pull
        return at_t, pull

    def vjps(self, num_inference_steps: int) -> int:
        """N."""
        return num_inference_steps
