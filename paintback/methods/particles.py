"""Particles: several paths of every sample, of which one is drawn by its weight, which makes a rough guidance exact.

A method whose step is that of the prior's own SDE plus a shift d, x_s = mean + d + std eps, draws from another law of
paths than the prior does. Importance sampling mends that: with p = d / std at every step,

    ln w = - sum over steps (p . eps + |p|^2 / 2) + ln likelihood of y at the last look,

where the sum is the logarithm of the ratio of the two densities at the path drawn. The weights cost no evaluation. With
growing numbers of paths and steps the law of the path drawn is the posterior itself, whatever the shift.

The run's state is the first path of every sample; the others are kept in the run's memory, and the rows of one sample
lie next to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from paintback.methods.run import Run

__all__ = ["Particles"]


@dataclass(frozen=True)
class Particles:
    """How many paths a sample has, and what is done with them; with one, everything here is the identity.

    Attributes:
        count: paths of a sample.
    """

    count: int

    def each(self, draw: Callable[[], Tensor]) -> Tensor:
        """One draw of the state's shape for every path."""
        if self.count == 1:
            return draw()
        return torch.stack([draw() for _ in range(self.count)], dim=1).flatten(0, 1)

    def keep(self, run: Run, x: Tensor) -> Tensor:
        """The first path of every sample, which is the run's state; all of them stay in the run."""
        if self.count == 1:
            return x
        run.memory["particles"] = x
        return x[:: self.count]

    def all(self, run: Run, x: Tensor) -> Tensor:
        """All paths, of which x is the first of every sample."""
        if self.count == 1:
            return x
        kept: Tensor = run.memory["particles"]
        return kept

    def weigh(self, run: Run, shift: Tensor, noise: Tensor, std: float) -> None:
        """Adds one step, shifted by `shift` and drawn with std noise, to the weights of the paths."""
        if self.count == 1:
            return
        pull = (shift / std).flatten(1).double()
        change = -(pull * noise.flatten(1)).sum(1) - pull.square().sum(1) / 2
        run.memory["log_weights"] = run.memory.get("log_weights", 0.0) + change

    def choose(self, run: Run, ends: Tensor, log_likelihood: Tensor) -> Tensor:
        """(B, ...) the end of one path of every sample, drawn by the weights; one draw of the generator.

        Args:
            run: with the weights so far.
            ends: of all paths.
            log_likelihood: (rows,) of y at the last look.
        """
        if self.count == 1:
            return ends
        logs = run.memory.get("log_weights", 0.0) + log_likelihood.double()
        weights = logs.reshape(-1, self.count).softmax(1)
        drawn = run.generators.uniform(weights[:, 0])[:, None]
        chosen = (weights.cumsum(1) < drawn).sum(1).clamp(max=self.count - 1)
        return ends[chosen + self.count * torch.arange(len(chosen), device=chosen.device)]
