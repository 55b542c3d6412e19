"""The frame of every task: generators and seeds, the progress bar, memory and time, and the model let go at the end."""

from __future__ import annotations

import contextlib
import operator
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from paintback import models
from paintback.methods.base import Method, Result
from paintback.models.base import Model
from paintback.painting.layout import Step
from paintback.painting.request import LARGEST_SEED
from paintback.randomness import one_or_each, seed_from_system
from paintback.resources import PeakMemory

__all__ = ["Generator", "Session", "draw_generators", "open_model"]

Generator = torch.Generator | Sequence[torch.Generator | int] | int | None


class Session:
    """One call of a task; a context manager around what it does.

    Args:
        model: that paints; it is released at the end, also after an error.
        label: of the bar.
        generator: one for all results, a list of one each, a seed or a list of them, or None for one of the operating
            system's.
        count: results.
        steps: of all samplers together; None where a plan is still to be made.
        progress: keywords for tqdm.
        step: told of every step; returning True stops. Where it has a method
            `expect`, that is told of their number.
        method: that samples, or None; where its steps decode too, offloading leaves network and decoder together.

    Attributes:
        generators: one, or a list of one for each result.
        seeds: of each result, None where no seed makes it alone.
        evaluations: denoiser calls of one result, over everything that was counted.
        vjps: gradients, likewise.
        stopped: whether a result is that of a run that was stopped.
        seconds: wall time of the call, after leaving.
        peak_memory_bytes: see `resources.PeakMemory`, after leaving.

    Raises:
        ValueError: for a list of another number of generators, and what `seeded` refuses.
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
        method: Method | None = None,
    ) -> None:
        self._began = time.perf_counter()
        self.model, self.label = model, label
        self.generators, self.seeds = one_or_each(seeded(generator, count), count)
        self.evaluations: int | float = 0
        self.vjps: int | float = 0
        self.stopped = self._stop = False
        self.seconds = 0.0
        self.peak_memory_bytes: int | None = None
        self._told, self._memory, self._steps = step, PeakMemory(model.device), steps
        self._expects = getattr(step, "expect", None)
        decodes = method is not None and method.decodes
        self._together = model.together() if decodes else contextlib.nullcontext()
        self._bar_options = {"unit": "step", "leave": False, "desc": label, "total": steps, **(progress or {})}

    def __enter__(self) -> Session:
        self._memory.__enter__()
        self._together.__enter__()
        self._bar = tqdm(**self._bar_options)
        if self._steps is not None:
            self.expect(self._steps)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._together.__exit__(kind, error, trace)
            self.model.release()
        finally:
            self._bar.close()
            self._memory.__exit__(kind, error, trace)
            self.seconds, self.peak_memory_bytes = time.perf_counter() - self._began, self._memory.bytes
        if isinstance(error, torch.OutOfMemoryError):
            raise MemoryError(out_of_memory(self.model)) from error

    def step(self, index: int, t: float, x: Tensor, x0: Tensor | None) -> bool | Tensor:
        """One step was done; True stops, this run and those to come; a tensor is the state to go on from."""
        self._bar.update()
        answer = None if self._told is None else self._told(index, t, x, x0)
        if isinstance(answer, Tensor):
            return answer
        self._stop |= bool(answer)
        return self._stop

    def expect(self, steps: int) -> None:
        """The steps of all samplers together, once they are planned."""
        self._bar.total = steps
        self._bar.refresh()
        if self._expects is not None:
            self._expects(steps)

    def part(self, text: str) -> None:
        """What runs now, for the bar."""
        self._bar.set_description(f"{self.label} {text}", refresh=False)

    def count(self, result: Result, times: int = 1) -> None:
        """Adds what a result cost, to be counted a number of times."""
        self.evaluations += result.evaluations * times
        self.vjps += result.vjps * times
        self.stopped |= result.stopped


def out_of_memory(model: Model) -> str:
    """One sentence on a device whose memory did not do: what fits."""
    fits = ["fewer answers or pictures at a time", "a smaller height and width"]
    if any(module.dtype == torch.float32 for module in model.networks() if hasattr(module, "dtype")):
        fits.insert(0, "torch_dtype=torch.bfloat16")
    if hasattr(model, "pipe"):
        fits.insert(0, 'offload="model"')
    return f"The memory of {model.device} did not do for {model.name!r}; what needs less: {', '.join(fits)}."


def seeded(generator: Generator, count: int) -> torch.Generator | Sequence[torch.Generator] | None:
    """Seeds as generators, those of one seed having the next ones each; generators as they are.

    A seed of -1 is the operating system's choice, of each where several are listed.

    Raises:
        ValueError: for what is none of these, and for a seed that no entry point takes.
    """
    given: Any = getattr(generator, "tolist", lambda: generator)()  # numpy's and torch's numbers
    if given is None or isinstance(given, torch.Generator):
        return given
    if isinstance(given, list | tuple):
        return [one if isinstance(one, torch.Generator) else _made(one, generator) for one in given]
    first = _made(given, generator).initial_seed()
    return [_made(first + k, generator) for k in range(count)]


def _made(seed: Any, given: Any) -> torch.Generator:
    """A generator of one seed, which was given by itself or among others."""
    number = whole(seed)
    if number is None:
        raise ValueError(f"generator must be a torch.Generator, a list of them, or a seed; got {given!r}.")
    if not -1 <= number <= LARGEST_SEED:
        raise ValueError(f"Seeds must be between 0 and {LARGEST_SEED}, or -1 for a random one; got {number}.")
    return torch.Generator().manual_seed(seed_from_system() if number == -1 else number)


def whole(value: object) -> int | None:
    """A whole number of Python, NumPy or torch as an int; None for anything else, truth values too."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    try:
        return operator.index(value)
    except TypeError:  # torch's tensors have the method, and refuse where they hold no whole number
        return None


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
