"""DAPS: decoupled annealing; the noise level falls, but each state is drawn from a fresh clean sample.

Reference: Zhang et al., Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, CVPR 2025,
arXiv:2407.01521.

One step t -> s:
    x0h   = probability-flow ODE from x_t to 0 in ode_steps Euler steps
    x0    = langevin_steps steps of Langevin dynamics from x0h on N(x0; x0h, r_t^2) N(y; m x0, sigma_y^2),
            x0 <- x0 - h ((x0 - x0h) / r_t^2 + m (x0 - y) / sigma_y^2) + sqrt(2 h) xi
    x_s   = alpha_s x0 + sigma_s eps

As the paper: r_t = sigma_t / alpha_t, softness 0.01 of a noiseless y (else the run's sigma), a step h that falls with
the noise level to step_decay of its first value. 5 ODE steps and 100 Langevin steps are the paper's smaller setting as
we know it (not checked against its tables; DING's comparison has 2 or 3, and 20).
Our choices: the ODE's times are uniform in t from the present one down; h is at most 1 / (1 / r_t^2 + m / sigma_y^2)
entry by entry, where a longer step would overshoot (the paper tunes h for each task instead). On known entries of a
noisy y, h is in units of its variance, (sigma / 0.01)^2 times as long: with the h of 0.01 the steps would end long
before such entries have come to y (0.75 from it at sigma = 0.1, measured). The result is the picture of the last time
above 0 after its Langevin steps.
At h = 1e-4 an unknown entry moves by about 0.1 from the ODE's end, so what the method does with hidden entries is the
ODE from known entries re-noised around y: more of h spreads them with r_t, which is much wider than the posterior.
Cost of N intervals: ode_steps N evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, ddim, option
from paintback.methods.known import spread


@dataclass(frozen=True)
class Daps(Method):
    """DAPS; see the head of this file.

    Attributes:
        ode_steps: Euler steps from the state to the clean picture.
        langevin_steps: in the space of pictures; no evaluations.
        step_size: of Langevin dynamics, at the first time.
        step_decay: share of it that is left at t = 0.
        sigma_y: softness of the known entries where the observation itself is noiseless.
    """

    name: ClassVar[str] = "daps"
    family: ClassVar[Family] = "langevin"
    title: ClassVar[str] = "DAPS: clean samples by ODE and Langevin steps, noised again"
    paper: ClassVar[str] = "arXiv:2407.01521"

    ode_steps: int = option(5, "Euler steps to the clean picture", low=1)
    langevin_steps: int = option(100, "Langevin steps on the clean picture", low=0)
    step_size: float = option(1e-4, "Langevin step at the first time", low=0.0)
    step_decay: float = option(0.01, "share of the Langevin step left at the end", low=0.0, high=1.0)
    sigma_y: float = option(0.01, "softness of the known entries", low=1e-6)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        return s.alpha * self.clean(run, x_t, t) + s.sigma * run.noise()

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The clean sample of the last time above 0."""
        return self.clean(run, x_t, t)

    def clean(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """A clean sample given the state at t."""
        run.answer = self.langevin(run, self.ode(run, x_t, t), t)
        return run.answer

    def ode(self, run: Run, x: Tensor, t: Time) -> Tensor:
        """The clean picture at the end of the probability-flow ODE from t; `ode_steps` evaluations."""
        prediction, schedule = run.denoise(x, t), run.denoiser.schedule
        for k in range(1, self.ode_steps):
            s = schedule.at(max(schedule.finest, t.t * (1 - k / self.ode_steps)))
            prediction = run.denoise(ddim(prediction, s), s)
        return prediction.x0

    def langevin(self, run: Run, x0: Tensor, t: Time) -> Tensor:
        """Langevin dynamics around the picture x0."""
        sigma_y = run.sigma or self.sigma_y
        prior = (t.alpha / t.sigma) ** 2
        data = spread(run, 1 / sigma_y**2, 0.0)
        longest = self.step_size * (self.step_decay + (1 - self.step_decay) * t.t / run.times[0].t)
        scale = spread(run, (sigma_y / self.sigma_y) ** 2, 1.0)
        h = torch.minimum(1 / (prior + data), longest * scale)
        kick, start = (2 * h).sqrt(), x0
        for _ in range(self.langevin_steps):
            x0 = x0 - h * (prior * (x0 - start) + data * (x0 - run.y)) + kick * run.noise()
        return x0

    def evaluations(self, num_inference_steps: int) -> int:
        """ode_steps N."""
        return self.ode_steps * num_inference_steps
