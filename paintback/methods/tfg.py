"""TFG: plain Langevin dynamics of the unknown part inside every step; the control of LanPaint.

Reference: Cornwall et al., training-free guidance for generalised inpainting, 2024, OpenReview AC1QLOJK7l, as restated
in the comparison of LanPaint (arXiv:2502.03491), from which the form below is taken.

At every time t, with score s(z) = (alpha_t x0(z) - z) / sigma_t^2 and 1 - abar = sigma_t^2 in VP coordinates:
    known:    z <- alpha_t y + sigma_t n_t                            n_t one coherent forward path of y
    unknown:  inner_steps times  z <- z + tau s(z) + sqrt(2 tau) xi,  tau = eta (1 - abar)^m
    step:     an ODE solver's step from there

step_size eta = 0.15 is the one that LanPaint is compared at; other papers' values lie between 0.03 and 0.4. m = 1 keeps
tau / sigma_t^2 = eta at every time; Euler-Maruyama is unstable where eta (1 - abar)^(m - 1) nears 2, so that m below 1
needs a small eta. The last time above 0 has its inner iterations too.

Our reconstruction for noisy observations is that of `replacement`: only the noise that y lacks is added, and once the
state is cleaner than y the inner iterations stop setting known entries and move them like the others, from where they
are: from there down they are the model's.
Cost of N intervals: N (inner_steps + 1) evaluations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.known import PATHS, Path, replace_known
from paintback.methods.solvers import SOLVERS
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class Tfg(Method):
    """TFG; see the head of this file.

    Attributes:
        inner_steps: Langevin iterations before every step.
        step_size: eta.
        power: m.
        solver: of the step after the inner loop.
        path: noise of the known part over time.
    """

    name: ClassVar[str] = "tfg"
    family: ClassVar[Family] = "langevin"
    title: ClassVar[str] = "TFG: plain Langevin dynamics of the unknown part inside every step"
    paper: ClassVar[str] = "OpenReview AC1QLOJK7l"

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    inner_steps: int = option(5, "Langevin iterations before every step", low=0)
    step_size: float = option(0.15, "Langevin step at full noise", low=0.0, high=2.0)
    power: float = option(1.0, "exponent of the step in the noise variance", low=0.0)
    solver: Literal["euler", "dpmpp_2m"] = option("euler", "unconditional solver", choices=("euler", "dpmpp_2m"))
    path: Path = option("coherent", "noise of the known part over time", choices=PATHS)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s: the inner loop, then the solver from where it ended."""
        return SOLVERS[self.solver](run, lambda x, time: self.look(run, x, time), x_t, t, s)

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture predicted at the last time above 0, after its inner loop."""
        return self.look(run, x_t, t)[1].x0

    def look(self, run: Run, x: Tensor, t: Time) -> tuple[Tensor, Prediction]:
        """The state after the inner loop, and the model's prediction there."""
        z = replace_known(run, x, t, self.path)
        variance = t.sigma**2 / (t.alpha**2 + t.sigma**2)
        rate = self.step_size * variance ** (self.power - 1)  # tau / sigma_t^2
        moving = ~run.known if t.sigma > t.alpha * run.sigma else torch.ones_like(run.known)
        for _ in range(self.inner_steps):
            drift = t.alpha * run.denoise(z, t).x0 - z
            z = torch.where(moving, z + rate * drift + math.sqrt(2 * rate) * t.sigma * run.noise(), z)
        return z, run.denoise(z, t)

    def evaluations(self, num_inference_steps: int) -> int:
        """N (inner_steps + 1)."""
        return num_inference_steps * (self.inner_steps + 1)
