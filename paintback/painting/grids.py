"""The times of a run that a request names: a kind of grid, or `timesteps`, `sigmas` or times themselves."""

from __future__ import annotations

from collections.abc import Callable

from paintback.denoiser import Denoiser
from paintback.painting.request import Request, numbers
from paintback.schedules import Grid, karras, log_snr, uniform

__all__ = ["Times", "of_request"]

Times = Callable[[Denoiser, int], Grid]
"""(denoiser, N) -> the grid of a run."""


def of_request(request: Request) -> Times | None:
    """The grid that a request names, or None for the method's own.

    Raises:
        ValueError: for more than one of grid, timesteps and sigmas, or a number of steps beside a list.
    """
    named = [name for name in ("grid", "timesteps", "sigmas") if getattr(request, name) is not None]
    if not named:
        return None
    if len(named) > 1:
        raise ValueError(f"Got {' and '.join(named)}, which say the same in several ways; leave all but one out.")
    text = str(getattr(request, named[0]))
    kinds: dict[str, Times] = {
        "model": lambda denoiser, steps: uniform if (own := denoiser.grid(steps)) is None else own,
        "uniform": lambda denoiser, steps: uniform,
        "karras": lambda denoiser, steps: karras(),
        "log_snr": lambda denoiser, steps: log_snr(),
    }
    values = numbers(text)
    if values is None:
        return kinds[text]
    if named[0] == "grid":
        times = [*values, 0.0] if values[-1] else values
        return lambda denoiser, steps: times
    if named[0] == "timesteps":
        return lambda denoiser, steps: denoiser.times_of(timesteps=values)
    return lambda denoiser, steps: denoiser.times_of(sigmas=values)
