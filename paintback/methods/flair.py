"""FLAIR: a variational picture, a velocity-matching regulariser, hard data steps, and a noise that is kept up to date.

Reference: Erbach et al., Solving Inverse Problems with FLAIR, 2025, arXiv:2506.02680.

The state is mu. At every time t, noisy to clean, in flow coordinates (other models are rescaled to them):
    n    = a x1h + sqrt(1 - a^2) eps            x1h the noise predicted at the time before, a = alpha_t
    x_t  = alpha_t mu + sigma_t n               "trajectory adjustment"
    mu  <- mu - lambda (mu - x0(x_t))           from the gradient of |v(x_t) - (n - mu)|^2 / 2 with v held
    mu  <- argmin |A x - y|^2 nearest to mu     hard data consistency
    x1h  = x1(x_t)
In flow coordinates v(x_t) - (n - mu) = (mu - x0(x_t)) / sigma_t exactly, so the regulariser's weight is written lambda
with the step and 1 / sigma_t in it: finite at every t.

Our reconstruction: the paper calibrates its weight over t on images, off line; ours is one number, lambda = 0.5, the
value of the authors of DING in their comparison. a = alpha_t is our choice of the paper's schedule. The paper minimises
the data term by gradient steps through the decoder; without one, the minimiser is a projection.
For noisy observations it stops where the root mean square of the residual is sigma_y.
mu starts at A^+ y (y on known entries, else 0) or at the picture to refine; the first n is pure noise.
Cost of N intervals: N evaluations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.linear import first_picture, project_to_noise
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class Flair(Method):
    """FLAIR; see the head of this file.

    Attributes:
        weight: lambda, how far mu goes towards the prediction.
        adjust: keep the predicted noise in the next one; False for fresh noise at every time.
    """

    name: ClassVar[str] = "flair"
    family: ClassVar[Family] = "projection"
    title: ClassVar[str] = "FLAIR: variational flow matching with hard data consistency"
    paper: ClassVar[str] = "arXiv:2506.02680"
    takes_operator: ClassVar[bool] = True

    coordinates: Coordinates | None = option("flow", "coordinates of the run", choices=("vp", "flow", "edm"))
    weight: float = option(0.5, "lambda, share of the way to the prediction", low=0.0, high=2.0)
    adjust: bool = option(True, "the predicted noise is kept in the next one")

    def start(self, run: Run) -> Tensor:
        """The picture before the first step."""
        return first_picture(run)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One round at t; the state is mu."""
        noise = run.noise()
        before: Tensor | None = run.memory.get("x1")
        if before is not None and self.adjust:
            kept = t.alpha / (t.alpha + t.sigma)
            noise = kept * before + math.sqrt(1 - kept**2) * noise
        at_t = run.denoise(t.alpha * x_t + t.sigma * noise, t)
        run.memory["x1"] = at_t.x1
        run.answer = project_to_noise(run, torch.lerp(x_t, at_t.x0, self.weight))
        return run.answer

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture after the round at the last time above 0."""
        return self.step(run, x_t, t, run.times[-1])
