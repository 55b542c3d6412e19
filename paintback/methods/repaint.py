"""RePaint: replacement after every ancestral step, walked several times over.

Reference: Lugmayr et al., RePaint: Inpainting using Denoising Diffusion Probabilistic Models, CVPR 2022,
arXiv:2201.09865.

One step t -> s:
    known:   x_s = alpha_s y + sigma_s eps
    unknown: x_s = alpha_s x0 + sqrt(sigma_s^2 - eta^2) x1 + eta eps,  eta the ancestral std
and at the stops of `travel` the state jumps back j = jump_length grid points and walks them again, r - 1 times.

The paper has r = 10 and j = 10 at 250 steps; jump_length 0 keeps that share of the grid, j = max(1, round(N / 25)).
The stops are those of the authors' code.

Our reconstruction for noisy observations is that of `replacement`: only the noise that y lacks is added, and once the
state is cleaner than y its known part is left to the model.
Cost of N intervals: N + (r - 1) j (number of stops) evaluations, stops those of j, ..., N - 1 that lie a multiple of j
before N - 1: 191 for N = 20, 482 for N = 50.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.known import replace_known, travel, travel_cost
from paintback.methods.linear import project


@dataclass(frozen=True)
class RePaint(Method):
    """RePaint; see the head of this file.

    Attributes:
        repeats: r, how often each stretch is walked.
        jump_length: j, in grid points; 0 for the paper's share of the grid.
    """

    name: ClassVar[str] = "repaint"
    family: ClassVar[Family] = "replacement"
    title: ClassVar[str] = "RePaint: replacement with resampling"
    paper: ClassVar[str] = "arXiv:2201.09865"
    takes_draws: ClassVar[bool] = True

    repeats: int = option(10, "how often each stretch is walked", low=1)
    jump_length: int = option(0, "grid points of a jump back; 0 for 10 in 250", low=0)

    def length(self, num_inference_steps: int) -> int:
        """Grid points of a jump on a grid of so many intervals."""
        return self.jump_length or max(1, round(num_inference_steps / 25))

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s, with its jumps."""
        return travel(run, self.move, x_t, t, s, self.length(len(run.times) - 1), self.repeats)

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture predicted at the last time above 0, y pasted in."""
        x0 = run.denoise(x_t, t).x0
        return x0 if run.sigma else project(run, x0)

    def move(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s, known part included."""
        return replace_known(run, ddim(run.denoise(x_t, t), s, ancestral_std(t, s), run.noise()), s, "fresh")

    def evaluations(self, num_inference_steps: int) -> int:
        """N + (r - 1) j (number of stops)."""
        return travel_cost(num_inference_steps, self.length(num_inference_steps), self.repeats)
