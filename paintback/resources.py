"""Memory: what a call needs at its peak, and room for what is to be loaded. Torch is imported by who uses it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

__all__ = ["PeakMemory", "Unfit", "free_bytes", "in_room"]

_T = TypeVar("_T")


class Unfit(ValueError):  # noqa: N818 - it is raised as a ValueError, and told apart here alone
    """A model that does not fit the device."""


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
        import torch

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
        import torch

        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        elif sys.platform == "linux" and self._reset:
            status = Path("/proc/self/status").read_text()
            self.bytes = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a device has free; None where it cannot be asked."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def in_room(load: Callable[[], _T], kept: MutableMapping[Any, _T], most: int, *, here: bool) -> _T:
    """Loads a model beside others, of which the oldest go: beyond a number, and all where the memory does not do.

    Args:
        load: loads it.
        kept: the others, the oldest first.
        most: of them that may stay.
        here: whether the model is known to be there; for one that may not be, nothing goes before it is loaded.

    Raises:
        Exception: as `load` does.
    """

    def evict(most: int) -> None:
        if len(kept) > most:
            while len(kept) > most:
                del kept[next(iter(kept))]
            _release()

    if here:
        evict(most)
    try:
        new = load()
    except (Unfit, MemoryError, RuntimeError) as error:
        short = isinstance(error, Unfit | MemoryError) or "out of memory" in str(error)
        if not short or not kept:
            raise
        new = None
    if new is None:  # outside the handler, whose traceback holds what was loaded in part
        evict(0)
        return load()
    evict(most)
    return new


def _release() -> None:
    """Gives memory that nothing uses back to the device, which otherwise counts it as taken."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
