"""PnP-DM: split Gibbs sampling, a picture that knows y and one that the model knows, tied by a falling distance.

Reference: Wu et al., Principled Probabilistic Imaging using Diffusion Models as Plug-and-Play Priors, NeurIPS 2024,
arXiv:2405.18782.

The posterior p(x) p(y | x) is split, p(x) p(y | z) N(z; x, rho^2 I), and both are drawn in turn, rho falling:
    likelihood   z ~ p(y | z) N(z; x, rho_t^2 I)          a Gaussian, in closed form
    prior        x ~ p(x) N(z; x, rho_t^2 I)              what the model draws from the noise level rho_t, state z, on

rho_t = sigma_t / alpha_t at the grid's times: the grid is the paper's annealing, by equal factors from `first` to
`last`; a `grid` that is given stays in force. The prior's draw takes `inner_steps` looks at Karras' levels from rho_t
down to `low`: ancestral steps ("sde"), which sample the law that the algorithm asks for, or DDIM's ("ode", the authors'
shipped setting), which make one picture of every z. At a fixed rho and with an exact prior step the Markov chain has
the split law as its stationary one, and that goes to the posterior as rho falls.

Choices: the paper's annealing goes from 10 down to 0.3 by factors of 0.9 and stays there, ours ends where it is (`last`
is ours); the authors walk all points of a grid of 100 below rho, which costs as many looks; their
SDE steps are Euler-Maruyama's, ours DDPM's. A noiseless y is z itself on known entries. The first x is y on known
entries, else 0, or the picture to refine. For linear operators the likelihood's draw is `conditioned` in `linear`.
Cost of N intervals: `inner_steps` N evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.linear import conditioned, first_picture
from paintback.schedules import Grid, log_snr

RHO = 7.0  # curvature of Karras' levels
FAR = 1e6  # in place of an infinite noise level


@dataclass(frozen=True)
class PnpDm(Method):
    """PnP-DM; see the head of this file.

    Attributes:
        inner_steps: looks of a draw of the prior.
        walk: "sde" or "ode".
        low: noise level of a draw's last look.
        first: rho of the first turn.
        last: rho of the last turn.
    """

    name: ClassVar[str] = "pnpdm"
    title: ClassVar[str] = "PnP-DM: split Gibbs sampling, the model's own draws between draws given y"
    paper: ClassVar[str] = "arXiv:2405.18782"
    family: ClassVar[Family] = "posterior"
    takes_operator: ClassVar[bool] = True

    inner_steps: int = option(5, "looks of every draw of the prior", low=1)
    walk: Literal["sde", "ode"] = option("sde", "steps of a draw of the prior", choices=("sde", "ode"))
    low: float = option(0.02, "noise level of a draw's last look", low=1e-4)
    first: float = option(10.0, "distance of the two pictures in the first turn", low=1e-3)
    last: float = option(0.1, "distance of the two pictures in the last turn", low=1e-3)

    def grid(self, denoiser: Denoiser, num_inference_steps: int) -> Grid:
        """Falling by equal factors from `first` to `last`."""
        return log_snr(sigma_min=self.last, sigma_max=self.first)

    def start(self, run: Run) -> Tensor:
        """The picture before the first draw."""
        return first_picture(run)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One turn at t; the state is the picture."""
        rho = min(t.ratio, FAR)
        x, path = (t.alpha or t.sigma / FAR) * conditioned(run, x_t, rho), self.path(run, t)
        for here, there in pairwise(path):
            std = ancestral_std(here, there) if self.walk == "sde" else 0.0
            x = ddim(run.denoise(x, here), there, std, run.noise() if std else None)
        run.answer = run.denoise(x, path[-1]).x0
        return run.answer

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture after the turn at the last time above 0."""
        return self.step(run, x_t, t, run.times[-1])

    def path(self, run: Run, t: Time) -> list[Time]:
        """The times of a draw, t the first; none below `low` or the model's finest level, but where t is."""
        laws = run.denoiser.schedule
        top = min(t.ratio, FAR)
        low = min(top, max(self.low, laws.at(laws.finest).ratio))
        ramp = torch.linspace(0, 1, self.inner_steps, dtype=torch.float64)
        levels = (top ** (1 / RHO) * (1 - ramp) + low ** (1 / RHO) * ramp) ** RHO
        return [t, *(laws.at(float(laws.time_of_ratio(level))) for level in levels[1:])]

    def evaluations(self, num_inference_steps: int) -> int:
        """N times `inner_steps`."""
        return self.inner_steps * num_inference_steps
