"""MCGDiff: a particle filter on the model's own chain, guided by y at every noise level; exact in the limit.

Reference: Cardoso et al., Monte Carlo guided Diffusion for Bayesian linear inverse problems, ICLR 2024,
arXiv:2308.07983.

K particles of every sample follow the law p_t(x) g_t(x), p_t the model's and g_t(x) = N(x; alpha_t y, sigma_t^2 I) on
known entries: the noised y. One step t -> s, with the model's transition N(mu, eta_s^2 I),
mu = alpha_s x0 + sqrt(sigma_s^2 - eta_s^2) x1, and k = eta_s^2 / (eta_s^2 + sigma_s^2):

    weights    w(x_t) = N(mu; alpha_s y, (sigma_s^2 + eta_s^2) I) / g_t(x_t)       on known entries
    ancestors  K of the particles are drawn by their weights, with repetition
    known      x_s = (1 - k) mu + k alpha_s y + sqrt(k) sigma_s eps
    unknown    x_s = mu + eta_s eps

Start: the unknown part is noise, the known part is drawn from N(0, sigma_T^2 I) g_T. The proposal is the transition
given the noised y, so that the weight is what the transition thinks of y. No gradient is taken. As K and the steps
grow, and with an exact model, the particles follow the posterior itself: a reference that rough guidance can be held
against. They need to be many where many entries are known, as all particles but one die.

Choices: eta_s is `eta` times the ancestral standard deviation; ancestors are drawn independently of each other, at
every step, as in the paper's algorithm; the answer is the picture predicted from one particle, all of which have the
same weight there. Noisy observations, the paper's argument: y is a state of the diffusion at the level where
sigma / alpha = sigma_y, so that g_t has the variance sigma_t^2 - alpha_t^2 sigma_y^2; from there down the chain is the
model's own. The paper puts a time of the grid at that level, here it is the first one below it.
Cost of N intervals: `particles` N evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.known import missing_std
from paintback.methods.particles import Particles
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class McgDiff(Method):
    """MCGDiff; see the head of this file.

    Attributes:
        particles: K, of every sample.
        eta: fresh noise of a step, as a part of the ancestral one.
    """

    name: ClassVar[str] = "mcgdiff"
    title: ClassVar[str] = "MCGDiff: a particle filter guided by the noised y"
    paper: ClassVar[str] = "arXiv:2308.07983"
    family: ClassVar[Family] = "posterior"

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    particles: int = option(8, "particles of every sample; exact as they and the steps grow", low=1)
    eta: float = option(1.0, "fresh noise, as a part of the ancestral one", low=0.01, high=1.0)

    def start(self, run: Run) -> Tensor:
        """The first particle of every sample; the others are kept in the run."""
        paths, first = Particles(self.particles), run.times[0]
        x = paths.each(lambda: Method.start(self, run))
        std = missing_std(first, run.sigma)
        if run.initial is None and std:
            # the product of two Gaussians, that of the start and the noised y
            share = first.sigma**2 / (first.sigma**2 + std**2)
            known = share * first.alpha * self.rows(run.y) + (1 - share) ** 0.5 * x
            x = torch.where(self.rows(run.known), known, x)
        return paths.keep(run, x)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s of all particles."""
        paths, eta = Particles(self.particles), self.eta * ancestral_std(t, s)
        x = paths.all(run, x_t)
        y, known = self.rows(run.y), self.rows(run.known)
        at_t = run.denoise(x, t)
        mean = ddim(at_t, s, eta)
        before, after = missing_std(t, run.sigma), missing_std(s, run.sigma)
        if not before:  # cleaner than y: the model's own chain
            return paths.keep(run, mean + eta * paths.each(run.noise))
        gaps = (torch.where(known, a, 0.0).flatten(1).double() for a in (mean - s.alpha * y, x - t.alpha * y))
        ahead, behind = (gap.square().sum(1) for gap in gaps)
        logs = behind / (2 * before**2) - ahead / (2 * (after**2 + eta**2))
        mean = mean[self.ancestors(run, logs)]
        k = eta**2 / (eta**2 + after**2)
        eps = paths.each(run.noise)
        seen = (1 - k) * mean + k * s.alpha * y + k**0.5 * after * eps
        return paths.keep(run, torch.where(known, seen, mean + eta * eps))

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture predicted from one of the particles."""
        x0 = run.denoise(Particles(self.particles).all(run, x_t), t).x0
        return x0[:: self.particles]

    def ancestors(self, run: Run, logs: Tensor) -> Tensor:
        """(K B,) row numbers, drawn within each sample by the logarithms (K B,) of its weights."""
        totals = logs.reshape(-1, self.particles).softmax(1).cumsum(1)
        drawn = torch.stack([run.generators.uniform(totals[:, 0]) for _ in range(self.particles)], 1)
        chosen = torch.searchsorted(totals, drawn, right=True).clamp(max=self.particles - 1)
        return (chosen + self.particles * torch.arange(len(chosen), device=chosen.device)[:, None]).flatten()

    def rows(self, value: Tensor) -> Tensor:
        """A value of every sample, repeated for its particles."""
        return value.repeat_interleave(self.particles, dim=0)

    def evaluations(self, num_inference_steps: int) -> int:
        """N times `particles`."""
        return self.particles * num_inference_steps
