"""PnP-Flow: data step, interpolation with fresh noise, denoising, over and over.

Reference: Martin et al., PnP-Flow: Plug-and-Play Image Restoration with Flow Matching, ICLR 2025, arXiv:2410.02423.

The state is the picture x. At every time t, noisy to clean:
    z  = x - gamma_t A^+ (A x - y),    gamma_t = step_size u^decay,   u = sigma_t / (alpha_t + sigma_t)
    x  = mean over `samples` draws of eps of  x0(alpha_t z + sigma_t eps, t)
A^+ is A^T for a mask; see `linear` for linear operators. u is the paper's 1 - t. Its exponent is tuned for each
task; 0.5 is that of box inpainting as far as we know (not checked), 0 a constant step (DING's comparison). Written
with u, the rule needs no flow coordinates.
x starts at A^+ y (y on known entries, else 0) or at the picture to refine; at t = 1 it has no influence.

A restoration, not a sampler: averaging pulls towards the mean and the spread is that of the last draws. For noisy
observations the gradient is the same one, which is the paper's with its step in units of sigma_y^2.
Cost of N intervals: samples N evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.linear import descend, first_picture


@dataclass(frozen=True)
class PnpFlow(Method):
    """PnP-Flow; see the head of this file.

    Attributes:
        samples: draws that are averaged, an evaluation each.
        step_size: of the data term at u = 1.
        decay: exponent of the step in u.
    """

    name: ClassVar[str] = "pnpflow"
    family: ClassVar[Family] = "projection"
    title: ClassVar[str] = "PnP-Flow: data step, fresh noise, denoise, average"
    paper: ClassVar[str] = "arXiv:2410.02423"
    takes_operator: ClassVar[bool] = True

    samples: int = option(5, "draws that are averaged", low=1)
    step_size: float = option(1.0, "step of the data term at the noisy end", low=0.0)
    decay: float = option(0.5, "exponent of the step as noise falls", low=0.0)

    def start(self, run: Run) -> Tensor:
        """The picture before the first step."""
        return first_picture(run)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One round at t; the state is the picture."""
        gamma = self.step_size * (t.sigma / (t.alpha + t.sigma)) ** self.decay
        z = t.alpha * descend(run, x_t, 1, gamma, "square")
        pictures = [run.denoise(z + t.sigma * run.noise(), t).x0 for _ in range(self.samples)]
        run.answer = sum(pictures[1:], pictures[0]) / self.samples
        return run.answer

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture after the round at the last time above 0."""
        return self.step(run, x_t, t, run.times[-1])

    def evaluations(self, num_inference_steps: int) -> int:
        """N times `samples`."""
        return self.samples * num_inference_steps
