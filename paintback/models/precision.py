"""In which dtype a shipped network runs on a CPU where nobody says: bfloat16 where that was measured to be faster.

Only CPUs that compute in bfloat16 (AMX, or AVX512 with BF16) are measured; others emulate it, slowly.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch

from paintback.models.unet import UNet, UNetConfig

__all__ = ["native", "quicker", "seconds_of"]

GAIN = 1.2  # times faster: less is not worth the rounding
SIDE, ROWS = 64, 4  # of the forward that is timed

_found: dict[tuple[UNetConfig, int], bool] = {}  # once a process for each shape of network and number of threads


def native(capabilities: Callable[[], dict[str, object]] | None = None) -> bool:
    """Whether this CPU computes in bfloat16.

    Args:
        capabilities: what the CPU has, by torch's names; None asks torch (2.10 and newer; others say no).
    """
    asked = capabilities or getattr(torch.cpu, "get_capabilities", None)
    found = {} if asked is None else asked()
    return bool(found.get("amx_bf16")) or bool(found.get("avx512_bf16"))


def seconds_of(network: UNet, dtype: torch.dtype) -> float:
    """The time of one forward, the least of three after one to warm up."""
    x = torch.zeros(ROWS, network.config.channels, SIDE, SIDE, dtype=dtype)
    clock, taken = torch.zeros(ROWS), []
    with torch.no_grad():
        for _ in range(4):
            began = time.perf_counter()
            network(x, clock)
            taken.append(time.perf_counter() - began)
    return min(taken[1:])


def quicker(network: UNet, seconds: Callable[[UNet, torch.dtype], float] = seconds_of) -> UNet | None:
    """A copy of a network in bfloat16 where that is quicker on this CPU, measured at first use; else None.

    Args:
        network: in float32, on the CPU.
        seconds: the time of a forward of a network in a dtype.
    """
    key = (network.config, torch.get_num_threads())
    if _found.get(key, True):
        half = copy.deepcopy(network).to(torch.bfloat16)
        if key not in _found:
            _found[key] = seconds(half, torch.bfloat16) * GAIN < seconds(network, torch.float32)
        if _found[key]:
            return half
    return None
