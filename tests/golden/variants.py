"""The recorded denoiser, and Paintback's methods with the one change that makes a known difference vanish.

Every class here is named by `note_class` in a case of `cases/`; README.md says what each difference is and who follows
the paper.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paintback import methods
from paintback.denoiser import Denoiser, Prediction
from paintback.methods.base import Run, Time, ancestral_std, ddim
from paintback.methods.known import replace_known
from paintback.schedules import Schedule

NET = Path(__file__).with_name("net.npz")


class Net(Denoiser):
    """The random convolutional network of net.npz as a denoiser; it keeps what it was asked."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        with np.load(NET) as stored:
            self.layers = [
                tuple(torch.from_numpy(stored[f"{part}{k}"]) for part in ("weight", "bias")) for k in range(3)
            ]
        self.inputs: list[Tensor] = []
        self.times: list[float] = []

    def predict(self, x: Tensor, time: Time) -> Prediction:
        self.inputs.append(x.detach().clone())
        self.times.append(time.t)
        x0 = self.x0hat(x, time.alpha, time.sigma)
        return Prediction(x0, (x - time.alpha * x0) / time.sigma, rows=len(x))

    def x0hat(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """EDM's preconditioning for data of variance 1/4, so that only sigma / alpha and x / alpha matter."""
        d = sigma**2 + 0.25 * alpha**2
        h = torch.cat((x / math.sqrt(d), torch.full_like(x[:, :1], math.atan2(sigma, alpha))), 1)
        for k, (weight, bias) in enumerate(self.layers):
            h = torch.conv2d(torch.tanh(h) if k else h, weight, bias, padding=1)
        return 0.25 * alpha * x / d + 0.5 * sigma / math.sqrt(d) * h


class McgAlphaT(methods.types()["mcg"]):
    """The gradient multiplied by alpha_t."""

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        at_t, vjp = run.linearise(x_t, t)
        push = 2 * self.alpha * t.alpha * vjp(torch.where(run.known, run.y - at_t.x0, 0.0))
        return replace_known(run, ddim(at_t, s, ancestral_std(t, s), run.noise()) + push, s, "fresh")

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        at_t, vjp = run.linearise(x_t, t)
        return at_t.x0 + 2 * self.alpha * t.alpha * vjp(torch.where(run.known, run.y - at_t.x0, 0.0))


class RedDiffEps(methods.types()["reddiff"]):
    """Adam's 1e-8 beside the gradient of a sum, as it stands."""

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        at_t = run.denoise(t.alpha * x_t + t.sigma * run.noise(), t)
        gradient = torch.where(run.known, x_t - run.y, 0.0) + self.weight * (x_t - at_t.x0)
        count, first, second = run.memory.get("adam", (0, 0.0, 0.0))
        count += 1
        first = self.beta1 * first + (1 - self.beta1) * gradient
        second = self.beta2 * second + (1 - self.beta2) * gradient**2
        run.memory["adam"] = (count, first, second)
        scale = (second / (1 - self.beta2**count)).sqrt() + 1e-8
        return x_t - self.lr * first / (1 - self.beta1**count) / scale


class DdnmGamma(methods.types()["ddnm"]):
    """The noise multiplied by sqrt(1 - alpha_s^4) once more."""

    def move(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        at_t = run.denoise(x_t, t)
        x0 = torch.where(run.known, run.y, at_t.x0)
        if s.sigma == 0:
            return x0
        noise = self.eta * run.noise() + math.sqrt(1 - self.eta**2) * at_t.x1
        return s.alpha * x0 + s.sigma * math.sqrt(1 - s.alpha**4) * noise


VARIANTS = {kind.__name__: kind for kind in (McgAlphaT, RedDiffEps, DdnmGamma)}
