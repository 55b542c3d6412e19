"""Replacement: the known part of the state is set to the noised observation before every look at the model.

Reference: Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, ICLR 2021,
arXiv:2011.13456, appendix I.2 ("projection" in later papers).

One step t -> s:
    known:   x_t <- alpha_t y + sigma_t n_t
    all:     x_s = any unconditional solver's step from x_t

The paper draws n_t afresh at every step. `path` = "coherent" takes one forward path of y instead, and "fixed" one
noise for all times. The coherent path is drawn backwards through its exact bridge, so that nothing is stored:
n_s = rho n_t + sqrt(1 - rho^2) eps with rho = alpha_t sigma_s / (alpha_s sigma_t).

Our reconstruction for noisy observations (sigma_y > 0), of which the paper is silent: y is a state of the diffusion
itself, at the time where sigma / alpha = sigma_y, so only the missing noise is added, sigma_t^2 - alpha_t^2 sigma_y^2
in place of sigma_t^2 (in rho too). From there down nothing is known of the state that it does not hold already, and
the known part is left to the model.
Not a posterior sampler: the unknown part never learns that it disagrees with y, however many steps are taken.
Cost of N intervals: N evaluations; 2 N - 1 with heun (one less on a grid that starts at alpha = 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.known import PATHS, Path, replace_known
from paintback.methods.solvers import SOLVERS, SolverName, further_looks
from paintback.schedules import VP, make_grid


@dataclass(frozen=True)
class Replacement(Method):
    """Replacement; see the head of this file.

    Attributes:
        solver: of the unconditional step.
        path: "fresh" noise at every look (the paper), one "coherent" forward path of y, or one "fixed" noise.
    """

    name: ClassVar[str] = "replacement"
    family: ClassVar[Family] = "replacement"
    title: ClassVar[str] = "Replacement: the known part is the noised observation"
    paper: ClassVar[str] = "arXiv:2011.13456"

    solver: SolverName = option("euler", "unconditional solver", choices=tuple(SOLVERS))
    path: Path = option("fresh", "noise of the known part over time", choices=PATHS)

    def look(self, run: Run, x: Tensor, t: Time) -> tuple[Tensor, Prediction]:
        """The state with its known part replaced, and the model's prediction there."""
        x = replace_known(run, x, t, self.path)
        return x, run.denoise(x, t)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        return SOLVERS[self.solver](run, lambda x, time: self.look(run, x, time), x_t, t, s)

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture predicted at the last time above 0, the known part of its state replaced once more."""
        return self.look(run, x_t, t)[1].x0

    def evaluations(self, num_inference_steps: int, times: Sequence[Time] | None = None) -> int:
        """N, or 2 N - 1 with heun; exact for the given times."""
        times = times or make_grid(VP(), num_inference_steps)
        return len(times) - 1 + further_looks(self.solver, times)
