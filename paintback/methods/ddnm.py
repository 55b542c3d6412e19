"""DDNM: the range of the operator is taken from y, its null space from the model.

Reference: Wang et al., Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model, ICLR 2023,
arXiv:2212.00490.

One step t -> s:
    x0' = x0(x_t) - A^+ (A x0(x_t) - y)                                  y on known entries, the model's elsewhere
    x_s = alpha_s x0' + sigma_s (eta eps + sqrt(1 - eta^2) x1(x_t))      x1 of the prediction before its correction

Noisy observations (sigma_y > 0): DDNM+ of the paper's section 3.3. The correction is scaled by lambda and the noise of
known entries by gamma, so that with y's own noise it makes sigma_s in all:
    lambda = min(1, sigma_s / (alpha_s sigma_y)),   gamma^2 = sigma_s^2 - (alpha_s lambda sigma_y)^2
The paper writes the budget for DDPM's posterior step; ours is the same argument for the step above (our
reconstruction), and the noise of unknown entries is left whole. Below sigma_s = alpha_s sigma_y known entries get no
fresh noise: y's stands in for it, so that for one y their spread is too small.

Time travel (section 3.3): see `travel`; the interval between jumps is their length. travel_repeats 1, the value of the
paper's experiments without it, is the default. For a linear operator y must be noiseless: DDNM+ would need its
singular values. Known entries of the result are y.
Cost of N intervals: N evaluations; with time travel N + (travel_repeats - 1) travel_length times the number of stops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.known import travel, travel_cost
from paintback.methods.linear import project


@dataclass(frozen=True)
class Ddnm(Method):
    """DDNM; see the head of this file.

    Attributes:
        eta: share of fresh noise.
        travel_length: grid points of a jump back.
        travel_repeats: how often a stretch is walked; 1 for no time travel.
    """

    name: ClassVar[str] = "ddnm"
    family: ClassVar[Family] = "projection"
    title: ClassVar[str] = "DDNM: the predicted picture is corrected to agree with y"
    paper: ClassVar[str] = "arXiv:2212.00490"
    takes_operator: ClassVar[bool] = True

    eta: float = option(0.85, "share of fresh noise", low=0.0, high=1.0)
    travel_length: int = option(1, "grid points of a jump back", low=1)
    travel_repeats: int = option(1, "how often a stretch is walked; 1 for no time travel", low=1)

    def start(self, run: Run) -> Tensor:
        """Noise at the first time.

        Raises:
            ValueError: for a noisy y behind a linear operator.
        """
        if run.operator is not None and run.sigma:
            raise ValueError(
                "ddnm takes a linear operator for noiseless observations only; use dps or pigdm, or sigma 0."
            )
        return super().start(run)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s, with its time travel."""
        return travel(run, self.move, x_t, t, s, self.travel_length, self.travel_repeats)

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The corrected picture predicted at the last time above 0."""
        return self.move(run, x_t, t, run.times[-1])

    def move(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s; at sigma_s = 0 it is the corrected picture."""
        at_t = run.denoise(x_t, t)
        own = s.alpha * run.sigma  # noise that y brings to the state at s
        strength = 1.0 if own <= s.sigma else s.sigma / own
        x0 = run.answer = project(run, at_t.x0, strength)
        if s.sigma == 0:
            return x0
        noise = s.sigma * (self.eta * run.noise() + math.sqrt(1 - self.eta**2) * at_t.x1)
        share = math.sqrt(max(0.0, 1 - (strength * own / s.sigma) ** 2))
        return s.alpha * x0 + (torch.where(run.known, share * noise, noise) if own else noise)

    def evaluations(self, num_inference_steps: int) -> int:
        """N, or more with time travel."""
        return travel_cost(num_inference_steps, self.travel_length, self.travel_repeats)
