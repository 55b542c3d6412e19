"""Gibbs: a walk between picture and noise, for step-distilled models, whose picture is a draw and no mean.

Reference: Paintback's own, on consistency functions (Song et al. 2023, arXiv:2303.01469); the sampler that it
conditions is their multistep one, and with a mean in place of a draw and no aim it would be RePaint
(arXiv:2201.09865).

At every time t of the grid, `repeats` times over (at the first one once), with f(x_t) = x0 the model's picture:
    aim   x_t <- x_t + sqrt(alpha_t^2 + sigma_t^2) (y - f(x_t)) on known entries, `aims` times
    draw  x0   = f(x_t);  known:  x0 <- y
    noise x_t <- alpha_t x0 + sigma_t eps
after the last of them with s in place of t; at the last time above 0 the picture itself is the answer.

Why it works. Take the joint law of the picture and its noised state, p(x0) N(x_t; alpha_t x0, sigma_t^2), given that
the known part of x0 is y. A Gibbs sampler draws in turn x_t given x0, which is the third line exactly, and the unknown
part of x0 given x_t and y. A denoiser gives only the mean of that, and a walk of means contracts to a blur. A
step-distilled f is no mean: where x_t has the law of the noised prior, f(x_t) has that of the prior, so that with
nothing known the walk keeps the prior itself, at every level and for any number of repeats. With y, f(x_t) stands for
the second draw as if x_t alone spoke of y. What that leaves out vanishes as sigma_t falls, and the repeats let the
unknown part follow. The aim puts most of it in at once: it moves the state along the known entries until the end of its
ODE is y there, and f takes the unknown entries along, by its own regression on the known ones (for a Gaussian and one
known entry, Matheron's rule with f's Jacobian for the covariance). Its step is that of a picture of unit variance.

Choices:
  - The first level is as good as pure noise, in which a picture put back is lost: it is looked at once.
  - Without aims the weights of far modes come out a little better in 4 evaluations, and everything else worse.
  - Noisy observations: y is put in with the noise that it lacks while it is cleaner than the state, and aimed at by the
    part of its distance that its noise does not explain; below that the walk is the ODE's, which keeps what it holds.
    The answer's known part is then the model's.
  - A denoiser that is no distillation gives means, and the walk contracts: take another method there.
Cost of N intervals: (1 + `aims`) (1 + `repeats` (N - 1)) evaluations, no gradients; 30 by default at N = 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.known import missing_std


@dataclass(frozen=True)
class Gibbs(Method):
    """The walk; see the head of this file.

    Attributes:
        repeats: looks at every level but the first.
        aims: moves of the state towards y before each.
    """

    name: ClassVar[str] = "gibbs"
    title: ClassVar[str] = "Gibbs: a walk on the end of the ODE, for step-distilled models"
    paper: ClassVar[str] = ""
    family: ClassVar[Family] = "replacement"
    takes_draws: ClassVar[bool] = True

    repeats: int = option(2, "looks at every level but the first", low=1)
    aims: int = option(1, "moves of the state towards y before each, one evaluation each", low=0)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """The repeats at t, then down to s."""
        return self.noise(run, self.walk(run, x_t, t), t, s)

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The repeats at the last time above 0, and the last picture."""
        return self.walk(run, x_t, t).x0

    def walk(self, run: Run, x: Tensor, t: Time) -> Prediction:
        """The last picture of the repeats at t, with y in it, and its noise."""
        at_t = self.draw(run, x, t)
        for _ in range(self.repeats - 1 if t != run.times[0] else 0):
            at_t = self.draw(run, self.noise(run, at_t, t, t), t)
        return at_t

    def draw(self, run: Run, x: Tensor, t: Time) -> Prediction:
        """The model's picture of the state, after the aims, and its noise; a noiseless y in the picture."""
        share = max(0.0, 1 - (run.sigma * t.alpha / t.sigma) ** 2)
        at_t = run.denoise(x, t)
        for _ in range(self.aims):
            gap = torch.where(run.known, run.y - at_t.x0, 0.0)
            x = x + share * math.hypot(t.alpha, t.sigma) * gap
            at_t = run.denoise(x, t)
        if run.sigma:
            return at_t
        run.answer = torch.where(run.known, run.y, at_t.x0)
        return Prediction(run.answer, at_t.x1)

    def noise(self, run: Run, at_t: Prediction, t: Time, s: Time) -> Tensor:
        """The state at s around the picture: y with the noise that it lacks, the rest with fresh noise."""
        if run.sigma * t.alpha >= t.sigma:
            return s.alpha * at_t.x0 + s.sigma * at_t.x1
        eps = run.noise()
        given = s.alpha * run.y + missing_std(s, run.sigma) * eps
        return torch.where(run.known, given, s.alpha * at_t.x0 + s.sigma * eps)

    def evaluations(self, num_inference_steps: int) -> int:
        """(1 + aims) (1 + repeats (N - 1))."""
        return (1 + self.aims) * (1 + self.repeats * (num_inference_steps - 1))
