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

import numpy as np
import torch

from paintback.inpainter import Inpainter
from paintback.methods.base import Method

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
    """

    seconds: float
    bare_seconds: float
    ratio: float
    evaluations: int | float
    shapes: dict[str, int]
    peak_memory_bytes: int | None


def measure_overhead(
    inpainter: Inpainter,
    method: str | Method | None = None,
    *,
    size: int = 512,
    hole: int = 64,
    num_inference_steps: int | None = None,
    pairs: int = 3,
) -> Overhead:
    """Times calls against bare forwards.

    Args:
        inpainter: of the model.
        method: that samples; None for the model's own.
        size: side of the picture, pixels.
        hole: side of the hole, pixels.
        num_inference_steps: grid intervals; None for the default.
        pairs: how many calls, each with its bare forwards.

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
    inputs: list[tuple[torch.Tensor, torch.Tensor]] = []
    inpainter.set_progress_bar_config(disable=True)

    def call(steps: int | None) -> tuple[float, int | float, int | None]:
        out = inpainter(
            picture, mask, method=method, num_inference_steps=steps, generator=torch.Generator().manual_seed(0)
        )
        return out.seconds, out.evaluations, out.peak_memory_bytes

    handle = network.register_forward_pre_hook(lambda module, args: inputs.append(args))
    call(num_inference_steps)
    handle.remove()
    shapes = Counter(f"{x.shape[-1]} x {x.shape[-2]}" for x, _ in inputs)
    best, memory = None, []
    for _ in range(pairs):
        seconds, evaluations, peak = call(num_inference_steps)
        memory.append(peak)
        began = time.perf_counter()
        with torch.no_grad():
            for x, clock in inputs:
                network(x, clock)
        bare = time.perf_counter() - began
        if best is None or seconds / bare < best[0] / best[1]:
            best = seconds, bare
    assert best is not None
    known = [value for value in memory if value is not None]
    return Overhead(best[0], best[1], best[0] / best[1], evaluations, dict(shapes), max(known) if known else None)
