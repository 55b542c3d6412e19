"""Cycles: the state is noised again to a level where modes are settled, and comes down from there.

From the first time s of the grid at or below the noise level `end` the state goes back to the level `start`,

    x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) eps,

and comes down to s in `steps` steps of the method's own, `count` times over; then the run goes on. Unlike the time
travel of `known`, which walks points of the grid again, a cycle has times of its own, even in ln(alpha / sigma), and
happens at one noise level alone. A grid that does not cross `end` above its last time has no cycles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from paintback.methods.run import Run
from paintback.schedules import Time

__all__ = ["Cycles"]


@dataclass(frozen=True)
class Cycles:
    """How often the state is noised again, and between which levels.

    Attributes:
        count: how often; 0 for never.
        start: noise level sigma / alpha that a cycle begins at.
        end: noise level that it ends at, or the first time of the grid below.
        steps: of a cycle, besides those of the grid.
    """

    count: int
    start: float
    end: float
    steps: int

    def crosses(self, t: Time, s: Time) -> bool:
        """Whether a step begins above the level `end` and comes to it or below."""
        return t.ratio > self.end >= s.ratio

    def extra(self, times: Sequence[Time]) -> int:
        """Steps that the cycles add to a run over a grid."""
        return self.count * self.steps * any(self.crosses(t, s) for t, s in pairwise(times[:-1]))

    def way(self, run: Run, s: Time) -> list[Time]:
        """The times of a cycle that ends at s, even in ln(alpha / sigma); none is noisier than the run's first."""
        top = min(self.start, run.times[0].ratio)
        levels = torch.linspace(math.log(top), math.log(s.ratio), self.steps + 1, dtype=torch.float64).exp()
        schedule = run.denoiser.schedule
        return [*(schedule.at(float(schedule.time_of_ratio(level))) for level in levels[:-1]), s]

    def walk(
        self,
        run: Run,
        x: Tensor,
        s: Time,
        move: Callable[[Run, Tensor, Time, Time], Tensor],
        noise: Callable[[], Tensor],
        restart: Callable[[], None],
    ) -> Tensor:
        """The state at s after all cycles.

        Args:
            run: whose grid gives the highest level.
            x: state at s.
            s: where the cycles end.
            move: one step of the method.
            noise: fresh noise of x's shape.
            restart: called before and after every descent: what a method kept of the last one says nothing of this.
        """
        path = self.way(run, s)
        ratio = path[0].alpha / s.alpha
        std = math.sqrt(max(0.0, path[0].sigma ** 2 - (ratio * s.sigma) ** 2))
        for _ in range(self.count):
            x = ratio * x + std * noise()
            restart()
            for here, there in pairwise(path):
                x = move(run, x, here, there)
        restart()
        return x
