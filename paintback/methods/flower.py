"""Flower: predict the picture, bring it to y as far as both are trusted, noise it afresh.

Reference: Pourya et al., FLOWER: A Flow-Matching Solver for Inverse Problems, ICLR 2026, arXiv:2509.26287.

The law of the picture given x_t is taken for N(x0, nu_t^2 I). One step t -> s:
    nu_t^2 = sigma_t^2 / (alpha_t^2 + sigma_t^2)
    mu     = argmin_u |y - A u|^2 / (2 sigma_y^2) + |u - x0|^2 / (2 nu_t^2)
           = x0 + A^T (A A^T + (sigma_y / nu_t)^2 I)^-1 (y - A x0)
    x_s    = alpha_s (mu + kappa) + sigma_s eps

kappa is 0, which is the paper's own setting in its experiments (its gamma = 0); `uncertainty` draws it from N(0, (I /
nu_t^2 + A^T A / sigma_y^2)^-1), the posterior of that Gaussian (gamma = 1), which its theory is about. The draw is
`conditioned` in `linear`: exact, where the authors' code solves a second system.

The paper is written in flow coordinates; the formulas are the same in all. Its pictures are means of 1 or 5 runs, which
is up to the caller here. On a mask with a noiseless y, mu is y there and Flower is `ddnm` with eta 1: the noise of
every step is wholly new.
Cost of N intervals: N evaluations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.linear import conditioned, misfit, project, ridge
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class Flower(Method):
    """Flower; see the head of this file.

    Attributes:
        uncertainty: whether the corrected picture is drawn in place of its mean.
    """

    name: ClassVar[str] = "flower"
    title: ClassVar[str] = "Flower: the predicted picture, brought to y, is noised afresh"
    paper: ClassVar[str] = "arXiv:2509.26287"
    family: ClassVar[Family] = "projection"
    takes_operator: ClassVar[bool] = True

    coordinates: Coordinates | None = option("flow", "coordinates of the run", choices=("vp", "flow", "edm"))
    uncertainty: bool = option(False, "draw the corrected picture in place of its mean")

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        return s.alpha * self.picture(run, x_t, t) + s.sigma * run.noise()

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The corrected picture at the last time above 0."""
        return self.picture(run, x_t, t)

    def picture(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """Mu + kappa."""
        x0, nu = run.denoise(x_t, t).x0, t.sigma / math.hypot(t.alpha, t.sigma)
        if self.uncertainty:
            run.answer = conditioned(run, x0, nu)
        elif run.sigma:
            run.answer = x0 + ridge(run, misfit(run, x0), (run.sigma / nu) ** 2)
        else:
            run.answer = project(run, x0)
        return run.answer
