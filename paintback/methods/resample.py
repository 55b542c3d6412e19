"""ReSample: hard data consistency at some of the times, and a way back to the noisy state.

Reference: Song et al., Solving Inverse Problems with Latent Diffusion Models via Hard Data Consistency, ICLR 2024,
arXiv:2307.08123.

One step t -> s:
    x_s'  = alpha_s x0 + sigma_s x1                                                    DDIM
            - soft alpha_t^2 grad_{x_t} |A x0(x_t) - y|^2 / 2                          where soft > 0
and, at every `every`-th time of the last two thirds of the grid,
    x0'   = argmin |A x - y|^2 nearest to x0                                           hard data consistency
    x_s   = (sigma_s^2 x_s' + g alpha_s x0') / (g + sigma_s^2) + sqrt(g sigma_s^2 / (g + sigma_s^2)) eps
with g = gamma times the ancestral variance, gamma = 40: the product of N(x_s'; x_s, g) and N(x_s; alpha_s x0',
sigma_s^2), the stochastic resampling.

The paper has every = 10 at 500 steps as far as we know (not checked); 0 keeps that share of the grid, max(1,
round(N / 50)). The ancestral variance in g is our reading. The paper minimises by gradient steps through the decoder;
without one, the minimiser is a projection, and for noisy observations it stops where the root mean square of the
residual is sigma_y. The soft term (0.15 in DING's comparison) takes a gradient through the network, so it is off by
default. For linear operators see `linear`.
Cost of N intervals: N evaluations; with soft > 0 also N - 1 gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.linear import correction, project_to_noise


@dataclass(frozen=True)
class ReSample(Method):
    """ReSample; see the head of this file.

    Attributes:
        every: times between two hard steps; 0 for the paper's share of the grid.
        gamma: variance of the resampling, in units of the ancestral one.
        soft: weight of the gradient of the data term through the network; above 0 it takes gradients.
    """

    name: ClassVar[str] = "resample"
    family: ClassVar[Family] = "projection"
    title: ClassVar[str] = "ReSample: hard data consistency and stochastic resampling"
    paper: ClassVar[str] = "arXiv:2307.08123"
    takes_operator: ClassVar[bool] = True

    every: int = option(0, "times between two hard data steps; 0 for 10 in 500", low=0)
    gamma: float = option(40.0, "variance of the resampling", low=0.0)
    soft: float = option(0.0, "weight of the data gradient through the network", low=0.0)

    def is_hard(self, index: int, num_inference_steps: int) -> bool:
        """Whether the grid's index-th time has its hard data step."""
        first = math.ceil(num_inference_steps / 3)
        every = self.every or max(1, round(num_inference_steps / 50))
        return index >= first and (index - first) % every == 0

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        if self.soft:
            at_t, vjp = run.linearise(x_t, t)
            x_s = ddim(at_t, s) + self.soft * t.alpha**2 * vjp(correction(run, at_t.x0))
        else:
            at_t = run.denoise(x_t, t)
            x_s = ddim(at_t, s)
        if not self.is_hard(run.times.index(t), len(run.times) - 1):
            return x_s
        g, variance = self.gamma * ancestral_std(t, s) ** 2, s.sigma**2
        run.answer = project_to_noise(run, at_t.x0)
        mean = (variance * x_s + g * s.alpha * run.answer) / (g + variance)
        return mean + math.sqrt(g * variance / (g + variance)) * run.noise()

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture predicted at the last time above 0, after a hard data step."""
        return project_to_noise(run, run.denoise(x_t, t).x0)

    def vjps(self, num_inference_steps: int) -> int:
        """0, or N - 1 where soft > 0."""
        return num_inference_steps - 1 if self.soft else 0
