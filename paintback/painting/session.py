"""The frame of every task: generators and seeds, the progress bar, memory and time, and the model let go at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from paintback import models
from paintback.methods.base import Result
from paintback.models.base import Model
from paintback.painting.layout import Step
from paintback.randomness import one_or_each
from paintback.resources import PeakMemory

__all__ = ["Generator", "Session", "count_steps", "draw_generators", "open_model"]

Generator = torch.Generator | Sequence[torch.Generator] | int | None


class Session:
    """One call of a task; a context manager around what it does.

    Args:
        model: that paints; it is released at the end, also after an error.
        label: of the bar.
        generator: one for all results, a list of one each, a seed, or None for one of the operating system's.
        count: results.
        steps: of all samplers together; None where a plan is still to be made.
        progress: keywords for tqdm.
        step: told of every step; returning True stops.

    Attributes:
        generators: one, or a list of one for each result.
        seeds: of each result.
        evaluations: denoiser calls of one result, over everything that was counted.
        vjps: gradients, likewise.
        stopped: whether a result is that of a run that was stopped.
        seconds: wall time of the call, after leaving.
        peak_memory_bytes: see `resources.PeakMemory`, after leaving.

    Raises:
        ValueError: for a list of another number of generators.
    """

    def __init__(
        self,
        model: Model,
        label: str,
        generator: Generator,
        count: int = 1,
        *,
        steps: int | None = None,
        progress: Mapping[str, Any] | None = None,
        step: Step | None = None,
    ) -> None:
        self._began = time.perf_counter()
        self.model, self.label = model, label
        self.generators, self.seeds = one_or_each(seeded(generator, count), count)
        self.evaluations: int | float = 0
        self.vjps: int | float = 0
        self.stopped = self._stop = False
        self.seconds = 0.0
        self.peak_memory_bytes: int | None = None
        self._told, self._memory = step, PeakMemory(model.device)
        self._bar_options = {"unit": "step", "leave": False, "desc": label, "total": steps, **(progress or {})}

    def __enter__(self) -> Session:
        self._memory.__enter__()
        self._bar = tqdm(**self._bar_options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.model.release()
        finally:
            self._bar.close()
            self._memory.__exit__(kind, error, trace)
            self.seconds, self.peak_memory_bytes = time.perf_counter() - self._began, self._memory.bytes

    def step(self, index: int, t: float, x: Tensor, x0: Tensor | None) -> bool:
        """One step was done; True stops, this run and those to come."""
        self._bar.update()
        self._stop |= bool(self._told is not None and self._told(index, t, x, x0))
        return self._stop

    def expect(self, steps: int) -> None:
        """The steps of all samplers together, once they are planned."""
        self._bar.total = steps
        self._bar.refresh()

    def part(self, text: str) -> None:
        """What runs now, for the bar."""
        self._bar.set_description(f"{self.label} {text}", refresh=False)

    def count(self, result: Result, times: int = 1) -> None:
        """Adds what a result cost, to be counted a number of times."""
        self.evaluations += result.evaluations * times
        self.vjps += result.vjps * times
        self.stopped |= result.stopped


def seeded(generator: Generator, count: int) -> torch.Generator | Sequence[torch.Generator] | None:
    """A seed as generators, one for each result, the next having the next seed; anything else as it is."""
    if isinstance(generator, bool):
        raise ValueError(f"generator must be a torch.Generator, a list of them, or a seed; got {generator}.")
    if not isinstance(generator, int):
        return generator
    return [torch.Generator().manual_seed(generator + k) for k in range(count)]


def draw_generators(
    generators: torch.Generator | Sequence[torch.Generator], count: int, draws: int
) -> torch.Generator | list[torch.Generator]:
    """Generators of `draws` draws for each answer, made by the answers' own; those themselves for one draw."""
    if draws == 1:
        return generators if isinstance(generators, torch.Generator) else list(generators)
    each = [generators] * count if isinstance(generators, torch.Generator) else generators
    seeds = [
        torch.randint(2**63 - 1, (draws,), generator=one, device=one.device, dtype=torch.int64).tolist() for one in each
    ]
    return [torch.Generator().manual_seed(seed) for row in seeds for seed in row]


def open_model(model: str | Path | Model, device: Any, torch_dtype: torch.dtype | None) -> Model:
    """The model itself, or the one of that name or path.

    Raises:
        ValueError: if there is none.
    """
    return model if isinstance(model, Model) else models.load(model, device=device, dtype=torch_dtype)


def count_steps(num_inference_steps: int | None, default: int = 20) -> int:
    """The number of grid intervals, the default for None.

    Raises:
        ValueError: if it is not a whole number of at least 1.
    """
    steps = default if num_inference_steps is None else num_inference_steps
    if int(steps) != steps or steps < 1:
        raise ValueError(f"num_inference_steps must be a whole number of at least 1; got {steps}.")
    return int(steps)
