"""CoPaint: the state itself is optimised to agree with the observation before every deterministic step.

Reference: Zhang et al., Towards Coherent Image Inpainting Using Denoising Diffusion Implicit Models, ICML 2023,
arXiv:2304.03322.

One step t -> s, from x* = x_t:
    G times:  x <- x - lr grad_x L,   L = |m (y - x0(x))|^2 / (2 v_t) + |x - x*|^2 / (2 w_t)
              kept only where L has fallen; else that sample's lr is halved
    x_s = alpha_s x0(x) + sigma_s x1(x)
    with repeats > 1:  back to t by noise, x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t sigma_s /
              alpha_s)^2) eps, and all again (time travel of interval 1)

Squares are sums over a sample's entries. The values are those of the authors' configuration for ImageNet at 256 x 256:
G = 2, lr 0.02 at the first step growing by 1.012 a step of 250, v = 1/2, and 1 / (2 w) = 0.01, constant (theirs for
faces: 0.0001 growing by 1.01). Growth is by the part of the run that is done here, so that it does not depend on the
number of steps. Two repeats are the paper's CoPaint-TT.

`alpha_t` multiplies lr by alpha_t (over that of the finest level), which both configurations do: little moves while x_t
is noise. On the closed-form problems, KL at 10, 20 and 50 steps: A 0.18, 0.040, 0.060 with it and 0.085, 0.074, 0.15
without, C 0.57, 0.36, 0.35 and 0.62, 0.39, 0.36. On pictures an earlier measurement had LPIPS 0.010 to 0.030 higher
with it, so that it is off by default.

Our reconstruction: the halving (the authors' adaptive rate retries until the loss falls, so that its cost is not
known before) keeps G trials and the better point of each; a noisy observation weakens its term, 2 v = 1 + 2
sigma_y^2. The state is optimised at the last time above 0 too. A 1 / (2 v) of 1 is not scaled with the picture.
Cost of N intervals: ((N - 1) repeats + 1) (G + 1) evaluations and ((N - 1) repeats + 1) G gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, ddim, option
from paintback.methods.linear import misfit, sizes
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class CoPaint(Method):
    """CoPaint; see the head of this file.

    Attributes:
        iterations: G, trials of a gradient step at every time.
        step_size: lr at the first time.
        growth: factor of lr over 1/250 of the run.
        regularisation: 1 / (2 w) at the first time.
        regularisation_growth: its factor over 1/250 of the run.
        repeats: how often every step is taken, with a way back by noise in between.
        alpha_t: whether lr is multiplied by alpha_t.
    """

    name: ClassVar[str] = "copaint"
    family: ClassVar[Family] = "gradients"
    title: ClassVar[str] = "CoPaint: the state is optimised before every step"
    paper: ClassVar[str] = "arXiv:2304.03322"
    needs_vjp: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    iterations: int = option(2, "gradient steps on the state at every time", low=0)
    step_size: float = option(0.02, "gradient step at the first time", low=0.0)
    growth: float = option(1.012, "growth of the step over 1/250 of the run", low=0.5, high=1.2)
    regularisation: float = option(0.01, "pull back to where the optimisation started", low=0.0)
    regularisation_growth: float = option(1.0, "growth of that pull over 1/250 of the run", low=0.5, high=1.2)
    repeats: int = option(1, "times that every step is taken (time travel)", low=1)
    alpha_t: bool = option(False, "multiply the step by alpha_t, as the authors' configurations do")

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        x_s = ddim(self.optimise(run, x_t, t), s)
        for _ in range(self.repeats - 1):
            ratio = t.alpha / s.alpha
            x_t = ratio * x_s + math.sqrt(max(0.0, t.sigma**2 - (ratio * s.sigma) ** 2)) * run.noise()
            x_s = ddim(self.optimise(run, x_t, t), s)
        return x_s

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture predicted from the optimised state at the last time above 0."""
        return self.optimise(run, x_t, t).x0

    def optimise(self, run: Run, start: Tensor, t: Time) -> Prediction:
        """The prediction at the optimised state."""
        # the part of the run that is done, in the paper's 250 steps
        done = 250 * run.times.index(t) / max(1, len(run.times) - 1)
        laws = run.denoiser.schedule
        fade = t.alpha / laws.at(laws.finest).alpha if self.alpha_t else 1.0
        rate = torch.full_like(sizes(start), self.step_size * self.growth**done * fade)
        keep = self.regularisation * self.regularisation_growth**done
        weight = 1 / (1 + 2 * run.sigma**2)
        if not self.iterations:
            return run.denoise(start, t)

        best, vjp = run.linearise(start, t)
        x, gap = start, misfit(run, best.x0)
        loss = weight * sizes(gap) ** 2
        gradient = -2 * weight * vjp(gap)
        for k in range(self.iterations):
            trial = x - rate * gradient
            if k < self.iterations - 1:
                found, vjp = run.linearise(trial, t)
            else:
                found = run.denoise(trial, t)
            gap = misfit(run, found.x0)
            new_loss = weight * sizes(gap) ** 2 + keep * sizes(trial - start) ** 2
            better = new_loss < loss
            x, loss = torch.where(better, trial, x), torch.where(better, new_loss, loss)
            best = Prediction(torch.where(better, found.x0, best.x0), torch.where(better, found.x1, best.x1))
            run.answer = best.x0
            rate = torch.where(better, rate, rate / 2)
            if k < self.iterations - 1:
                there = -2 * weight * vjp(gap) + 2 * keep * (trial - start)
                gradient = torch.where(better, there, gradient)
        return best

    def evaluations(self, num_inference_steps: int) -> int:
        """((N - 1) repeats + 1) (G + 1)."""
        return ((num_inference_steps - 1) * self.repeats + 1) * (self.iterations + 1)

    def vjps(self, num_inference_steps: int) -> int:
        """((N - 1) repeats + 1) G."""
        return ((num_inference_steps - 1) * self.repeats + 1) * self.iterations
