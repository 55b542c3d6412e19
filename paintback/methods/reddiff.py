"""RED-diff: the picture itself is optimised, with the denoiser's error as its regulariser.

Reference: Mardani et al., A Variational Perspective on Solving Inverse Problems with Diffusion Models, ICLR 2024,
arXiv:2305.04391.

The state is mu, the mean of a narrow law around the answer. At every time t, noisy to clean:
    x_t  = alpha_t mu + sigma_t eps
    loss = |A mu - y|^2 / 2 + w_t <stop_gradient(x1(x_t) - eps), mu>,   w_t = lambda sigma_t / alpha_t
    mu  <- Adam step on the loss
As alpha_t x0 + sigma_t x1 = x_t = alpha_t mu + sigma_t eps, the regulariser's gradient w_t (x1 - eps) is exactly
lambda (mu - x0(x_t)), which is how it is computed: finite at alpha_t = 0 too. No gradient goes through the network.

The paper's Adam: step 0.1, momenta 0.9 and 0.99, lambda 0.25. Sums stand for the paper's means, so that one sample's
step does not depend on the others. Adam sees the scale of the loss in its epsilon alone, which is the authors' 1e-8
beside the gradient of a mean over the sample's d entries: 1e-8 d here. mu starts at A^+ y (y on known entries, else 0),
or at the picture to refine. An optimiser, not a sampler: mu moves by about 0.1 a step at most, so that few steps fall
short, and its spread is not the posterior's. For linear operators see `linear`. The data term is not divided by
sigma_y^2: for noisy observations lambda is the balance (our reading).

Other people's code: DING's repository runs RED-diff on flow models with steps of 0.2, lambda 0.25 and a constant
weight, w_t = lambda without sigma_t / alpha_t: in terms of lambda (mu - x0) little while x_t is noisy and much at the
end. With that one change ours has its numbers: on problem A, KL 0.263 at 20 steps and 0.004 at 50 (0.291 and 0.004 with
its N - 1 evaluations; there 0.286 and 0.0039), then 0.042 at 100 and 0.15 at 200, as its spread passes the posterior's,
and y is missed by 0.16. With the paper's weight, as here: 0.404, 0.108 and 0.127 at 20, 50 and 100.
Cost of N intervals: N evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.linear import correction, first_picture


@dataclass(frozen=True)
class RedDiff(Method):
    """RED-diff; see the head of this file.

    Attributes:
        weight: lambda, of the regulariser.
        lr: Adam's step.
        beta1: Adam's momentum.
        beta2: Adam's memory of squares.
    """

    name: ClassVar[str] = "reddiff"
    family: ClassVar[Family] = "projection"
    title: ClassVar[str] = "RED-diff: variational, Adam on the picture"
    paper: ClassVar[str] = "arXiv:2305.04391"
    takes_operator: ClassVar[bool] = True

    weight: float = option(0.25, "lambda, weight of the regulariser", low=0.0)
    lr: float = option(0.1, "step of Adam", low=0.0)
    beta1: float = option(0.9, "momentum of Adam", low=0.0, high=0.9999)
    beta2: float = option(0.99, "memory of squares of Adam", low=0.0, high=0.9999)

    def start(self, run: Run) -> Tensor:
        """The picture before the first step."""
        return first_picture(run)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step of Adam at t; the state is mu."""
        at_t = run.denoise(t.alpha * x_t + t.sigma * run.noise(), t)
        gradient = self.weight * (x_t - at_t.x0) - correction(run, x_t)
        zero = torch.zeros_like(x_t)
        before: tuple[int, Tensor, Tensor] = run.memory.get("adam", (0, zero, zero))
        count, first, second = before
        count, first = count + 1, torch.lerp(gradient, first, self.beta1)
        second = torch.lerp(gradient.square(), second, self.beta2)
        run.memory["adam"] = (count, first, second)
        scale = (second / (1 - self.beta2**count)).sqrt() + 1e-8 * x_t[0].numel()
        run.answer = x_t - self.lr * (first / (1 - self.beta1**count)) / scale
        return run.answer

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture after the step at the last time above 0."""
        return self.step(run, x_t, t, run.times[-1])
