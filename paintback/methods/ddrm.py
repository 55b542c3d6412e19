"""DDRM: a step of its own for every singular value; for a mask these are 1 and 0.

Reference: Kawar et al., Denoising Diffusion Restoration Models, NeurIPS 2022, arXiv:2201.11793.

One step t -> s, with the paper's variance-exploding formulas multiplied by alpha_s, S = sigma / alpha:
    unknown:                       x_s = alpha_s x0 + sigma_s (sqrt(1 - eta^2) x1 + eta eps)
    known, S_s >= sigma_y:         x_s = alpha_s ((1 - eta_b) x0 + eta_b y)
                                         + sqrt(sigma_s^2 - (alpha_s sigma_y eta_b)^2) eps
    known, S_s < sigma_y:          x_s = alpha_s x0 + sigma_s (sqrt(1 - eta^2) (y - x0) / sigma_y + eta eps)
    start, at t = T:               known: alpha_T y + sqrt(sigma_T^2 - (alpha_T sigma_y)^2) eps;  unknown: sigma_T eps

Noisy observations are the paper's own subject. Linear operators other than masks would need their singular vectors.
The known part of a noiseless y is not predicted but drawn afresh at every step, which is where it differs from `ddnm`.
Cost of N intervals: N evaluations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.known import replace_known


@dataclass(frozen=True)
class Ddrm(Method):
    """DDRM; see the head of this file.

    Attributes:
        eta: share of fresh noise on unknown entries.
        eta_b: weight of y against the prediction on known entries.
    """

    name: ClassVar[str] = "ddrm"
    family: ClassVar[Family] = "projection"
    title: ClassVar[str] = "DDRM: spectral steps, y mixed in where the state is noisier than it"
    paper: ClassVar[str] = "arXiv:2201.11793"

    eta: float = option(0.85, "share of fresh noise", low=0.0, high=1.0)
    eta_b: float = option(1.0, "weight of y against the prediction", low=0.0, high=1.0)

    def start(self, run: Run) -> Tensor:
        """Noise at the first time, around y on the known entries."""
        return replace_known(run, super().start(run), run.times[0], "fresh")

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s; s may be 0."""
        at_t = run.denoise(x_t, t)
        eps, kept = run.noise(), math.sqrt(1 - self.eta**2)
        own = s.alpha * run.sigma
        if s.sigma >= own:
            mean = torch.lerp(at_t.x0, run.y, self.eta_b)
            known = s.alpha * mean + math.sqrt(s.sigma**2 - (own * self.eta_b) ** 2) * eps
        else:
            known = s.alpha * at_t.x0 + s.sigma * (kept * (run.y - at_t.x0) / run.sigma + self.eta * eps)
        return torch.where(run.known, known, s.alpha * at_t.x0 + s.sigma * (kept * at_t.x1 + self.eta * eps))

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The same step, to the clean picture."""
        return self.step(run, x_t, t, run.times[-1])
