"""Restora-Flow: replacement on a flow, every step made again from the picture that it leads to.

Reference: Hadzic et al., Restora-Flow: Mask-Guided Image Restoration with Flow Matching, WACV 2026, arXiv:2511.20152.

One step t -> s, with m[x] the state whose known entries are set to alpha_t y + sigma_t n, n drawn afresh:
    x_s = alpha_s x0(m[x_t]) + sigma_s x1(m[x_t])                      an Euler step of the flow
C times, but not in the first step:
    x_t = alpha_t x0(x_s) + sigma_t eps                                jump to the picture, and back to t by noise
    x_s = alpha_s x0(m[x_t]) + sigma_s x1(m[x_t])

At the clean end x0(x_s) is x_s. C = 1 is the authors' value for holes in faces, at 64 steps. The order of looks and
draws is that of their code, which was run and not read. The formulas are the same in all coordinates.

Where `repaint` goes back from the new state, this goes back from the picture that the model sees in it, whose noise is
wholly new. Our reconstruction for noisy observations is that of `replacement`: only the noise that y lacks is added,
and once the state is cleaner than y its known part is left to the model.
Cost of N intervals: N + C (2 N - 3) evaluations; 1 for N = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, ddim, option
from paintback.methods.known import replace_known


@dataclass(frozen=True)
class RestoraFlow(Method):
    """Restora-Flow; see the head of this file.

    Attributes:
        corrections: C, how often a step is made again.
    """

    name: ClassVar[str] = "restoraflow"
    title: ClassVar[str] = "Restora-Flow: replacement, every step made again from the picture that it leads to"
    paper: ClassVar[str] = "arXiv:2511.20152"
    family: ClassVar[Family] = "replacement"

    corrections: int = option(1, "how often every step but the first is made again", low=0)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s; s may be 0."""
        if t == run.times[0]:
            return ddim(run.denoise(x_t, t), s)
        x_s = self.move(run, x_t, t, s)
        for _ in range(self.corrections):
            picture = run.denoise(x_s, s).x0 if s.sigma else x_s
            x_s = self.move(run, t.alpha * picture + t.sigma * run.noise(), t, s)
        return x_s

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The same step, to the clean picture."""
        return self.step(run, x_t, t, run.times[-1])

    def move(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """The flow's step from the state whose known part is set."""
        return ddim(run.denoise(replace_known(run, x_t, t, "fresh"), t), s)

    def evaluations(self, num_inference_steps: int) -> int:
        """N + C (2 N - 3), or 1 for N = 1."""
        return num_inference_steps + self.corrections * max(0, 2 * num_inference_steps - 3)
