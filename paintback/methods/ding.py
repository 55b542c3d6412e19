"""DING: decoupled inpainting guidance.

Reference: Moufad et al., Efficient Zero-shot Inpainting with Decoupled Diffusion Guidance, ICLR 2026, arXiv:2512.18365.

One step t -> s, y given on the known entries with softness sigma_y:
    mu    = alpha_s x0(x_t) + sqrt(sigma_s^2 - eta_s^2) x1(x_t)
    z     = mu + eta_s eps1                       proxy, drawn from the prior step
    gamma = eta_s^2 / (eta_s^2 + alpha_s^2 sigma_y^2)
    known:   x_s = (1 - gamma) mu + gamma (alpha_s y + sigma_s x1(z)) + alpha_s sigma_y sqrt(gamma) eps2
    unknown: x_s = mu + eta_s eps2

The paper's released experiments are flow matching with eta_s = sigma_s (1 - alpha_s). Models of every other kind are
run in those coordinates too, x / (alpha + sigma): of a variance-exploding state that eta is 0, and in VP coordinates
the same formula renews far less noise at low noise levels, which measures worse on `fashion` (docs/methods/ding.md).
Cost of N intervals: 2 (N - 1) + 1 evaluations; N when delayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, ancestral_std, option
from paintback.schedules import Coordinates

Eta = Literal["square", "sqrt", "ddpm", "ddim", "zero"]
ETAS: dict[str, Callable[[Time, Time], float]] = {
    "square": lambda t, s: s.sigma * (1 - s.alpha),
    "sqrt": lambda t, s: s.sigma * math.sqrt(1 - s.alpha),
    "ddpm": ancestral_std,
    "ddim": lambda t, s: 0.01 * ancestral_std(t, s),
    "zero": lambda t, s: 0.0,
}


@dataclass(frozen=True)
class Ding(Method):
    """DING; see the head of this file.

    Attributes:
        sigma_y: softness of the known entries where the observation itself is noiseless.
        eta: standard deviation of the transition; "square" is the paper's. With "zero" gamma is 0: y is not looked at
            before the last paste, and the run is DDIM's, which it can be checked against.
        delayed: take x1(x_t) in place of x1(z): one evaluation a step.
    """

    name: ClassVar[str] = "ding"
    family: ClassVar[Family] = "posterior"
    title: ClassVar[str] = "DING: decoupled guidance, closed-form posterior step"
    paper: ClassVar[str] = "arXiv:2512.18365"
    coordinates: Coordinates | None = option(
        "flow", "coordinates of the run; none for the model's own", choices=("vp", "flow", "edm")
    )
    sigma_y: float = option(0.01, "softness of the known entries", low=0.0)
    eta: Eta = option("square", "standard deviation of a step", choices=tuple(ETAS))
    delayed: bool = option(False, "one evaluation a step, with the noise predicted at t")

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        at_t = run.denoise(x_t, t)
        eta = ETAS[self.eta](t, s)
        sigma_y = run.sigma or self.sigma_y
        mu = s.alpha * at_t.x0 + math.sqrt(max(0.0, s.sigma**2 - eta**2)) * at_t.x1
        x1 = at_t.x1 if self.delayed else run.denoise(mu + eta * run.noise(), s, probe=True).x1
        variance = eta**2 + (s.alpha * sigma_y) ** 2
        gamma = eta**2 / variance if variance else 1.0
        eps = run.noise()
        known = (1 - gamma) * mu + gamma * (s.alpha * run.y + s.sigma * x1) + s.alpha * sigma_y * gamma**0.5 * eps
        return torch.where(run.known, known, mu + eta * eps)

    def evaluations(self, num_inference_steps: int) -> int:
        """2 (N - 1) + 1, or N when delayed."""
        return num_inference_steps if self.delayed else 2 * num_inference_steps - 1
