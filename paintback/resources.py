"""Measuring the memory that a call needs at its peak."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

import torch

__all__ = ["PeakMemory", "free_bytes"]


class PeakMemory:
    """Measures the peak memory between entering and leaving.

    On CUDA it is what torch allocated on the device; on Linux the process's resident high-water mark, reset on entry
    (so it includes what was resident before); elsewhere it is unknown.

    Attributes:
        bytes: the peak, after leaving; None where it cannot be measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5")
                self._reset = True
            except OSError:  # a sandbox may forbid it: then the mark is of the whole life of the process, and no answer
                self._reset = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        elif sys.platform == "linux" and self._reset:
            status = Path("/proc/self/status").read_text()
            self.bytes = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a device has free; None where it cannot be asked."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
