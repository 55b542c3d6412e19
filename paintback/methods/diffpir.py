"""DiffPIR: a proximal step towards y inside every diffusion step (half-quadratic splitting).

Reference: Zhu et al., Denoising Diffusion Models for Plug-and-Play Image Restoration, CVPR workshops 2023,
arXiv:2305.08995.

One step t -> s:
    rho   = lambda sigma_y^2 alpha_t^2 / sigma_t^2
    x0'   = (y + rho x0) / (1 + rho) on known entries, x0 elsewhere        argmin |m (y - x)|^2 + rho |x - x0|^2
    x1'   = (x_t - alpha_t x0') / sigma_t
    x_s   = alpha_s x0' + sigma_s (sqrt(1 - zeta) x1' + sqrt(zeta) eps)

zeta = 1 is the paper's for inpainting (then x1' has no part), 0.3 that of DING's comparison. The paper tunes lambda
for each task; 1 is our choice, and matters only where sigma_t / alpha_t is near sigma_y. A noiseless y has the
softness sigma_y of a field, and rho is at least 1e-6. With noise, the run's sigma takes its place.
Cost of N intervals: N evaluations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, option

RHO_MIN = 1e-6


@dataclass(frozen=True)
class DiffPir(Method):
    """DiffPIR; see the head of this file.

    Attributes:
        sigma_y: softness of the known entries where the observation itself is noiseless.
        weight: lambda, of the model against y.
        zeta: share of fresh noise, in variance.
    """

    name: ClassVar[str] = "diffpir"
    family: ClassVar[Family] = "projection"
    title: ClassVar[str] = "DiffPIR: a proximal data step inside every diffusion step"
    paper: ClassVar[str] = "arXiv:2305.08995"

    sigma_y: float = option(0.01, "softness of the known entries", low=0.0)
    weight: float = option(1.0, "lambda, weight of the model against y", low=0.0)
    zeta: float = option(1.0, "share of fresh noise, in variance", low=0.0, high=1.0)

    def corrected(self, run: Run, x0: Tensor, t: Time) -> Tensor:
        """The minimiser x0' of the data term and the distance to the prediction at t."""
        rho = max(RHO_MIN, self.weight * ((run.sigma or self.sigma_y) * t.alpha / t.sigma) ** 2)
        run.answer = torch.where(run.known, (run.y + rho * x0) / (1 + rho), x0)
        return run.answer

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        x0 = self.corrected(run, run.denoise(x_t, t).x0, t)
        x1 = (x_t - t.alpha * x0) / t.sigma
        return s.alpha * x0 + s.sigma * (math.sqrt(1 - self.zeta) * x1 + math.sqrt(self.zeta) * run.noise())

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The corrected picture predicted at the last time above 0."""
        return self.corrected(run, run.denoise(x_t, t).x0, t)
