"""What a call costs over the bare network: time, and memory at the peak.

The floor of a run is its evaluations times one bare forward at the same shape. `measure_overhead` paints a square hole
in the middle of a noise picture, records the shape of every forward that the run made, times the same sequence of bare
forwards right after it, and takes the smallest ratio of several such pairs, since other work on the machine can only
add to either.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from paintback.methods.base import Method
from paintback.resources import PeakMemory
from paintback.tasks.inpaint import Inpainter

__all__ = ["Overhead", "measure_overhead"]


@dataclass(frozen=True)
class Overhead:
    """What was measured.

    Attributes:
        seconds: wall time of the fastest call.
        bare_seconds: wall time of the same forwards of the network alone, beside that call.
        ratio: smallest ratio of the two over the pairs.
        evaluations: of a call.
        shapes: (width, height) of the forwards and how many there were of each.
        peak_memory_bytes: largest of the calls; None where it cannot be measured.
        bare_peak_memory_bytes: largest of the bare forwards, without gradients; likewise.
    """

    seconds: float
    bare_seconds: float
    ratio: float
    evaluations: int | float
    shapes: dict[str, int]
    peak_memory_bytes: int | None
    bare_peak_memory_bytes: int | None


def measure_overhead(
    inpainter: Inpainter,
    method: str | Method | None = None,
    *,
    size: int = 512,
    hole: int = 64,
    num_inference_steps: int | None = None,
    pairs: int = 3,
    prompt: str | None = None,
) -> Overhead:
    """Times calls against bare forwards.

    Args:
        inpainter: of the model.
        method: that samples; None for the model's own.
        size: side of the picture, pixels.
        hole: side of the hole, pixels.
        num_inference_steps: grid intervals; None for the default.
        pairs: how many calls, each with its bare forwards.
        prompt: for a model that reads text; with it there is guidance.

    Returns:
        The fastest pair's times, and the peak memory of all.
    """
    network = inpainter.model.network
    assert network is not None
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (size, size, inpainter.model.channels), np.uint8)
    mask = np.zeros((size, size), bool)
    low = (size - hole) // 2
    mask[low : low + hole, low : low + hole] = True
    inputs: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    inpainter.set_progress_bar_config(disable=True)

    def call(steps: int | None) -> tuple[float, int | float, int | None]:
        out = inpainter(
            picture, mask, prompt, method=method, num_inference_steps=steps, generator=torch.Generator().manual_seed(0)
        )
        return out.seconds, out.evaluations, out.peak_memory_bytes

    def record(module: torch.nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        inputs.append((tuple(map(_detached, args)), {name: _detached(value) for name, value in keywords.items()}))

    handle = network.register_forward_pre_hook(record, with_kwargs=True)
    call(num_inference_steps)
    handle.remove()
    shapes = Counter(_shape(args, keywords) for args, keywords in inputs)
    best, memory, bare_memory = None, [], []
    for _ in range(pairs):
        seconds, evaluations, peak = call(num_inference_steps)
        memory.append(peak)
        with PeakMemory(inpainter.model.device) as measured, torch.no_grad():
            began = time.perf_counter()
            for args, keywords in inputs:
                network(*args, **keywords)
            bare = time.perf_counter() - began
        bare_memory.append(measured.bytes)
        if best is None or seconds / bare < best[0] / best[1]:
            best = seconds, bare
    assert best is not None
    return Overhead(
        best[0], best[1], best[0] / best[1], evaluations, dict(shapes), _largest(memory), _largest(bare_memory)
    )


def _detached(value: Any) -> Any:
    return value.detach() if torch.is_tensor(value) else value


def _shape(args: tuple[Any, ...], keywords: dict[str, Any]) -> str:
    x = args[0] if args else next(value for value in keywords.values() if torch.is_tensor(value))
    return f"{x.shape[-1]} x {x.shape[-2]}" if x.ndim >= 4 else f"{x.shape[-2]} tokens"


def _largest(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
