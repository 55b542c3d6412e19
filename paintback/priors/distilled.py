"""An ideal step-distilled model in closed form: its picture is the end of the ODE, and no mean.

Distillation (consistency models, Song et al. 2023, arXiv:2303.01469, and the adversarial kinds whose few steps aim at
the same) teaches a network f(x_t, t) to jump to where the probability-flow ODE du / dr = x1(u, r), u = x / alpha,
r = sigma / alpha, would arrive. Here that is computed: exactly for a Gaussian, whose ODE keeps every principal
coordinate's number of standard deviations; for a mixture by Heun's method on steps even in ln(r^2 + v), v its smallest
variance, below which nothing happens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paintback.denoiser import Denoiser, Prediction
from paintback.priors.mixture import GaussianMixture
from paintback.schedules import Flow, Schedule, Time

__all__ = ["DistilledDenoiser"]

FARTHEST = 1e4  # noise level that stands for that of pure noise
ENOUGH = 1e-3  # of the smallest standard deviation: where the steps end


class DistilledDenoiser(Denoiser):
    """The ideal distillation of a Gaussian mixture.

    Args:
        prior: law of the picture.
        schedule: of the states; None for the flow of shift 3.
        shape: of one picture; None for a vector.
        steps: of Heun's method for a mixture, two exact denoisers each.
    """

    step_distilled = True

    def __init__(
        self,
        prior: GaussianMixture,
        schedule: Schedule | None = None,
        shape: tuple[int, ...] | None = None,
        *,
        steps: int = 32,
    ) -> None:
        super().__init__(schedule or Flow(3.0))
        self.prior, self.steps, self.shape = prior, steps, shape or (prior.dim,)
        self._mean = prior.denoiser(Flow(), (prior.dim,))

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """Where the ODE ends from x, and the noise that goes with it."""
        ratio = min(time.ratio, FARTHEST)
        # where alpha is 0, x is sigma x1, and stands for the same noise at a level that is very high
        u = x.flatten(1).double() / (time.alpha if time.alpha else time.sigma / FARTHEST)
        end = self._gaussian(u, ratio) if len(self.prior) == 1 else self._solved(u, ratio)
        x0 = end.reshape(x.shape).to(x)
        x1 = (x - time.alpha * x0) / time.sigma if time.sigma else torch.zeros_like(x)
        return Prediction(x0, x1, rows=len(x))

    def _gaussian(self, u: Tensor, ratio: float) -> Tensor:
        values, vectors, mean = self.prior.values[0], self.prior.vectors[0], self.prior.means[0].double()
        scale = (values / (values + ratio**2)).sqrt()
        end: Tensor = mean + ((u - mean) @ vectors * scale) @ vectors.T
        return end

    def _solved(self, u: Tensor, ratio: float) -> Tensor:
        least = float(self.prior.values.min())
        low, high = math.log(least * (1 + ENOUGH**2)), math.log(ratio**2 + least)
        levels = (torch.linspace(high, low, self.steps + 1, dtype=torch.float64).exp() - least).clamp(min=0).sqrt()
        for here, there in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
            slope = self._slope(u, here)
            trial = u + (there - here) * slope
            u = u + (there - here) * (slope + self._slope(trial, there)) / 2
        return self._mean_at(u, levels[-1].item())

    def _slope(self, u: Tensor, ratio: float) -> Tensor:
        return (u - self._mean_at(u, ratio)) / ratio

    def _mean_at(self, u: Tensor, ratio: float) -> Tensor:
        time = Time(ratio / (1 + ratio), 1 / (1 + ratio), ratio / (1 + ratio))
        mean: Tensor = self._mean.predict(u * time.alpha, time).x0
        return mean
