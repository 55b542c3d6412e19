"""Noise schedules, time grids, and the maps between coordinates.

Everywhere x_t = alpha_t x0 + sigma_t x1 with x1 ~ N(0, I) and t in [0, 1], t = 1 the noisy end. Schedules that share
sigma / alpha describe the same noisy picture in other units: x0 and x1 are the same in all of them, only x_t is
multiplied by a number. `Rescaled` uses that to run any model in the coordinates that a paper's formulas are written in.

References: VP: Ho et al. 2020 (arXiv:2006.11239), Nichol and Dhariwal 2021 (arXiv:2102.09672, cosine), Rombach et al.
2022 (scaled linear). EDM: Karras et al. 2022 (arXiv:2206.00364). Flow: Lipman et al. 2022 (arXiv:2210.02747), the
shift of Esser et al. 2024 (arXiv:2403.03206).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = [
    "EDM",
    "GRIDS",
    "VP",
    "Coordinates",
    "Flow",
    "Grid",
    "Rescaled",
    "Schedule",
    "Time",
    "demand",
    "from_scheduler",
    "karras",
    "log_snr",
    "make_grid",
    "own_times",
    "power",
    "uniform",
]

Coordinates = Literal["vp", "flow", "edm"]
Grid = Sequence[float] | Tensor | Callable[["Schedule", int], Tensor]


@dataclass(frozen=True)
class Time:
    """One time of a schedule with its coefficients as Python floats, computed once before the loop.

    Attributes:
        t: in [0, 1].
        alpha: factor of the picture.
        sigma: factor of the noise.
    """

    t: float
    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """Sigma / alpha, the noise level of EDM; infinite where alpha is 0."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def log_snr(self) -> float:
        """ln(alpha / sigma); infinite at the ends."""
        if not self.alpha:
            return -math.inf
        return math.log(self.alpha / self.sigma) if self.sigma else math.inf


def whole(name: str, value: float) -> int:
    """A number that must be whole, at least 1 and at most a thousand million, as an int; a whole float is one.

    Raises:
        ValueError: for another number, in one sentence with its name.
    """
    if isinstance(value, bool) or not 1 <= value <= 1e9 or value != int(value):
        raise ValueError(f"{name} must be a whole number of at least 1; got {value}.")
    return int(value)


class Schedule:
    """t -> (alpha_t, sigma_t), sigma / alpha increasing in t.

    A subclass defines `coefficients` and `time_of_ratio`.

    Attributes:
        finest: the smallest time above 0 whose level a model of this schedule has learnt; 0 where its levels are a
            continuum. `make_grid` leaves no time between 0 and it.
    """

    finest: float = 0.0

    def __call__(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients at any times.

        Args:
            t: times in [0, 1], of any shape.

        Returns:
            alpha and sigma, float64 on the CPU, of t's shape.

        Raises:
            ValueError: if a time lies outside [0, 1].
        """
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        if t.numel() and not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(f"Times must lie in [0, 1]; got {t.min().item():g} to {t.max().item():g}.")
        return self.coefficients(t)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma of float64 times in [0, 1]."""
        raise NotImplementedError

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        """The times at which sigma / alpha has the given float64 values, clipped to [0, 1]; the inverse map."""
        raise NotImplementedError

    def at(self, t: float) -> Time:
        """The `Time` of one t."""
        alpha, sigma = self(t)
        return Time(float(t), float(alpha), float(sigma))


class VP(Schedule):
    """Variance preserving: alpha^2 + sigma^2 = 1, as in DDPM.

    t = k / T is the model's k-th noise level, whose squared alpha is the product of the first k factors 1 - beta, and
    t = 0 is the clean picture; ln(alpha) is linear in between (alpha itself where the last one is 0). The finest level
    is the first that has any noise: k = 1, but for betas that begin with zeros.

    Args:
        betas: "linear" (DDPM, ADM), "scaled_linear" (Stable Diffusion), "cosine" (improved DDPM), or the T values.
        beta_start: first beta of the two linear forms.
        beta_end: last beta of the two linear forms.
        num_train_timesteps: T.

    Raises:
        ValueError: for an unknown name of the betas, betas outside [0, 1], or none above 0.
    """

    def __init__(
        self,
        betas: Literal["linear", "scaled_linear", "cosine"] | Sequence[float] | Tensor = "linear",
        *,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        num_train_timesteps: int = 1000,
    ) -> None:
        if isinstance(betas, str):
            values = _named_betas(betas, beta_start, beta_end, whole("num_train_timesteps", num_train_timesteps))
        else:
            values = torch.as_tensor(betas, dtype=torch.float64).cpu()
        if values.ndim != 1 or len(values) < 1 or not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(f"betas must be a list of numbers in [0, 1]; got shape {tuple(values.shape)}.")
        self.num_train_timesteps = len(values)
        # ln alpha of levels 0..T; a last beta of 1 (zero terminal SNR) gives alpha = 0 there
        self._log_alpha = torch.cat((torch.zeros(1, dtype=torch.float64), torch.log1p(-values).cumsum(0) / 2))
        noisy = int((self._log_alpha < 0).sum())
        if not noisy:
            raise ValueError("The betas are all 0, so that no level has noise; give the model's own.")
        self.finest = (self.num_train_timesteps + 1 - noisy) / self.num_train_timesteps

    def __repr__(self) -> str:
        return f"VP({self.num_train_timesteps} levels up to {float(self.at(1.0).sigma):.4g})"

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        position = t * self.num_train_timesteps
        low = position.floor().clamp(max=self.num_train_timesteps - 1).long()
        fraction = position - low
        left, right = self._log_alpha[low], self._log_alpha[low + 1]
        # alpha itself is linear in a segment that ends at alpha = 0, whose logarithm is infinite
        log_alpha = torch.where(right.isinf(), left + torch.log1p(-fraction), torch.lerp(left, right, fraction))
        return log_alpha.exp(), torch.expm1(2 * log_alpha).abs().sqrt()

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        ratio = torch.as_tensor(ratio, dtype=torch.float64)
        log_alpha = -torch.log1p(ratio.square()) / 2
        table = -self._log_alpha
        high = torch.searchsorted(table, -log_alpha).clamp(1, self.num_train_timesteps)
        left, right = table[high - 1], table[high]
        width = right - left
        fraction = torch.where(width > 0, (-log_alpha - left) / width, torch.zeros_like(width))
        fraction = torch.where(right.isinf(), -torch.expm1(left + log_alpha), fraction)
        return ((high - 1 + fraction.clamp(0, 1)) / self.num_train_timesteps).to(torch.float64)


def _named_betas(name: str, start: float, end: float, count: int) -> Tensor:
    if name == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    if name == "cosine":
        steps = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        abar = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - abar[1:] / abar[:-1]).clamp(max=0.999)
    raise ValueError(f"Unknown betas {name!r}; valid are 'linear', 'scaled_linear', 'cosine', or the values.")


class EDM(Schedule):
    """Variance exploding: alpha = 1, sigma from 0 to sigma_max along Karras' curve.

    sigma(t) = ((a + t (b - a))^rho - sigma_min) sigma_max / (sigma_max - sigma_min), a and b the rho-th roots of
    sigma_min and sigma_max: Karras' grid, moved so that t = 0 is the clean picture itself.

    Args:
        sigma_min: where the curve flattens.
        sigma_max: noise level at t = 1.
        rho: curvature; 7 in the paper.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        if not 0 < sigma_min < sigma_max <= 1e30 or not 0.1 <= rho < math.inf:
            raise ValueError(
                "EDM needs 0 < sigma_min < sigma_max, which is finite, and rho of at least 0.1; "
                f"got {sigma_min}, {sigma_max}, {rho}."
            )
        self.sigma_min, self.sigma_max, self.rho = float(sigma_min), float(sigma_max), float(rho)

    def __repr__(self) -> str:
        return f"EDM({self.sigma_min:g}, {self.sigma_max:g}, {self.rho:g})"

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        sigma = ((low + t * (high - low)) ** self.rho - self.sigma_min).clamp(min=0)
        sigma = torch.where(t == 0, 0.0, sigma * (self.sigma_max / (self.sigma_max - self.sigma_min)))
        return torch.ones_like(t), sigma

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        ratio = torch.as_tensor(ratio, dtype=torch.float64)
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        moved = ratio * ((self.sigma_max - self.sigma_min) / self.sigma_max) + self.sigma_min
        t: Tensor = (moved ** (1 / self.rho) - low) / (high - low)
        return t.clamp(0, 1)


class Flow(Schedule):
    """Rectified flow: alpha = 1 - sigma, sigma = shift t / (1 + (shift - 1) t).

    Args:
        shift: of the times; 1 for none, 3 in SD 3.
    """

    def __init__(self, shift: float = 1.0) -> None:
        if not 1e-6 <= shift <= 1e6:
            raise ValueError(f"The shift must be positive; got {shift}.")
        self.shift = float(shift)

    def __repr__(self) -> str:
        return f"Flow({self.shift:g})"

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.shift * t / (1 + (self.shift - 1) * t)
        return 1 - sigma, sigma

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        ratio = torch.as_tensor(ratio, dtype=torch.float64)
        sigma = torch.where(ratio.isinf(), 1.0, ratio / (1 + ratio))
        return (sigma / (self.shift - (self.shift - 1) * sigma)).clamp(0, 1)


class Rescaled(Schedule):
    """Another schedule, its states divided by a number so that alpha and sigma obey the law of other coordinates.

    "vp" divides by sqrt(alpha^2 + sigma^2), "flow" by alpha + sigma, "edm" by alpha.

    Args:
        schedule: the schedule of the model.
        coordinates: the law wanted.
    """

    def __init__(self, schedule: Schedule, coordinates: Coordinates) -> None:
        if coordinates not in ("vp", "flow", "edm"):
            raise ValueError(f"Unknown coordinates {coordinates!r}; valid are 'vp', 'flow' and 'edm'.")
        self.schedule, self.coordinates, self.finest = schedule, coordinates, schedule.finest

    def __repr__(self) -> str:
        return f"Rescaled({self.schedule!r}, {self.coordinates!r})"

    def scale(self, t: float) -> float:
        """The number by which the model's own state at t is divided."""
        time = self.schedule.at(t)
        alpha, sigma = torch.tensor((time.alpha, time.sigma), dtype=torch.float64)
        return float(_norm(self.coordinates, alpha, sigma))

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule.coefficients(t)
        norm = _norm(self.coordinates, alpha, sigma)
        return alpha / norm, sigma / norm

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return self.schedule.time_of_ratio(ratio)


def _norm(coordinates: Coordinates, alpha: Tensor, sigma: Tensor) -> Tensor:
    alpha, sigma = alpha.double(), sigma.double()
    if coordinates == "vp":
        return torch.hypot(alpha, sigma)
    if coordinates == "flow":
        return alpha + sigma
    if bool((alpha == 0).any()):
        raise ValueError("A state at alpha = 0 has no EDM coordinates (sigma is infinite); start at a smaller t.")
    return alpha


def coordinates_of(schedule: Schedule) -> Coordinates | None:
    """The coordinates that a schedule's own states are in; None if it is none of the three."""
    if isinstance(schedule, Rescaled):
        return schedule.coordinates
    return "vp" if isinstance(schedule, VP) else "edm" if isinstance(schedule, EDM) else (
        "flow" if isinstance(schedule, Flow) else None
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- time grids


def uniform(schedule: Schedule, num_inference_steps: int) -> Tensor:
    """N + 1 times uniform in t, from 1 to 0; the default grid.

    Args:
        schedule: unused; every grid has the same form.
        num_inference_steps: N.

    Returns:
        (N + 1,), float64, falling, the last one 0.
    """
    return torch.linspace(1, 0, num_inference_steps + 1, dtype=torch.float64)


def _from_ratios(schedule: Schedule, ratios: Tensor) -> Tensor:
    return torch.cat((schedule.time_of_ratio(ratios), torch.zeros(1, dtype=torch.float64)))


def _reach(schedule: Schedule) -> float:
    """The largest finite noise level of a schedule."""
    ratio = schedule.at(1.0).ratio
    return ratio if math.isfinite(ratio) else 157.4  # the level of DDPM's last step, where alpha is 0.0064


def _within(schedule: Schedule, low: float, high: float | None) -> tuple[float, float]:
    """The noise levels between which a grid runs: those that are asked for, within those of the schedule."""
    floor, top = schedule.at(schedule.finest).ratio, _reach(schedule)
    asked, high = low, min(top if high is None else high, top)
    low = max(low, floor)
    if not (asked > 0 and 0 < low <= high):
        raise ValueError(
            f"The noise levels of a grid must be positive and fall; got {high:g} to {asked:g} for a schedule that has "
            f"{top:g} to {floor:g}."
        )
    return low, high


def karras(
    num_inference_steps: int | None = None,
    *,
    sigma_min: float = 0.002,
    sigma_max: float | None = None,
    rho: float = 7.0,
) -> Callable[[Schedule, int], Tensor]:
    """Karras' grid: sigma / alpha uniform to the power 1 / rho, then 0 (arXiv:2206.00364, equation 5).

    Args:
        num_inference_steps: fixes N; None takes the N that the sampler asks for.
        sigma_min: last noise level above 0; the schedule's finest where that is above it.
        sigma_max: first noise level; None for the schedule's own end.
        rho: curvature, at least 0.1.

    Returns:
        A grid for `Method.sample(grid=...)`: (schedule, N) -> (N + 1,) times.

    Raises:
        ValueError: for a number out of range; for levels that the schedule does not have, when the grid is made.
    """
    own = None if num_inference_steps is None else whole("num_inference_steps", num_inference_steps)
    if not 0.1 <= rho < math.inf:
        raise ValueError(f"rho must be finite and at least 0.1; got {rho}.")

    def grid(schedule: Schedule, steps: int) -> Tensor:
        low, high = _within(schedule, sigma_min, sigma_max)
        ramp = torch.linspace(0, 1, own or steps, dtype=torch.float64)
        return _from_ratios(schedule, (high ** (1 / rho) * (1 - ramp) + low ** (1 / rho) * ramp) ** rho)

    return grid


def log_snr(
    num_inference_steps: int | None = None, *, sigma_min: float = 0.01, sigma_max: float | None = None
) -> Callable[[Schedule, int], Tensor]:
    """A grid uniform in ln(alpha / sigma), then 0.

    Args:
        num_inference_steps: fixes N; None takes the N that the sampler asks for.
        sigma_min: last noise level (sigma / alpha) above 0; the schedule's finest where that is above it.
        sigma_max: first noise level; None for the schedule's own end.

    Returns:
        A grid for `Method.sample(grid=...)`: (schedule, N) -> (N + 1,) times.

    Raises:
        ValueError: for a number out of range; for levels that the schedule does not have, when the grid is made.
    """
    own = None if num_inference_steps is None else whole("num_inference_steps", num_inference_steps)

    def grid(schedule: Schedule, steps: int) -> Tensor:
        low, high = _within(schedule, sigma_min, sigma_max)
        ramp = torch.linspace(math.log(high), math.log(low), own or steps, dtype=torch.float64)
        return _from_ratios(schedule, ramp.exp())

    return grid


def power(exponent: float = 2.0) -> Callable[[Schedule, int], Tensor]:
    """A grid of t_k = (1 - k / N)^exponent: above 1 with more steps at the clean end, below 1 at the noisy one.

    2 is the quadratic grid of DiffPIR (arXiv:2305.08995) and DDIM (arXiv:2010.02502).

    Args:
        exponent: above 0; 1 is `uniform`.

    Returns:
        A grid for `Method.sample(grid=...)`: (schedule, N) -> (N + 1,) times.

    Raises:
        ValueError: for an exponent that is not positive.
    """
    if not (exponent > 0 and math.isfinite(exponent)):
        raise ValueError(f"The exponent of a grid must be positive; got {exponent}.")

    def grid(schedule: Schedule, steps: int) -> Tensor:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** exponent

    return grid


def demand(missing: float = 1.0, weak: float = 0.0, strength: float = 1.0) -> Callable[[Schedule, int], Tensor]:
    """A grid for the operator: more steps at the noisy end the more is missing, at the clean end the more is faint.

    Spectrum-adaptive scheduling (Cao et al., Making Every Step Count, 2026): with u = sigma / (alpha + sigma), a flow's
    time, the times lie so that the density

        q(u) = 1 + strength (missing u^2 + weak (1 - u)^2) / (u^2 + (1 - u)^2)

    has the same mass between any two. The paper writes it for flows, from u = 1 to 0.18; here the last step ends at the
    clean picture, and any schedule is put at the same noise levels.

    Args:
        missing: part of the picture that y does not show, 0 to 1: the hole's, for a mask.
        weak: sum of what the operator takes of the rest, 0 to 1: (rank - squared Frobenius norm / squared largest
            singular value) / entries; 0 for a mask.
        strength: the paper's lambda, 1 there; 0 is a grid uniform in u.

    Returns:
        A grid for `Method.sample(grid=...)`: (schedule, N) -> (N + 1,) times.

    Raises:
        ValueError: for parts outside [0, 1] or a negative strength.
    """
    if not (0 <= missing <= 1 and 0 <= weak <= 1 and strength >= 0):
        raise ValueError(
            f"missing and weak must lie between 0 and 1 and strength be at least 0; got {missing}, {weak}, {strength}."
        )

    def mass(u: Tensor) -> Tensor:
        # the integral of u^2 / (u^2 + (1 - u)^2) is u / 2 + ln(u^2 + (1 - u)^2) / 4
        bend = (u.square() + (1 - u).square()).log() / 4
        return u + strength * (missing * (u / 2 + bend) + weak * (u / 2 - bend))

    def grid(schedule: Schedule, steps: int) -> Tensor:
        ratio = schedule.at(1.0).ratio
        low = torch.zeros(steps + 1, dtype=torch.float64)
        high = torch.full_like(low, ratio / (1 + ratio) if math.isfinite(ratio) else 1.0)
        wanted = mass(high) * torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        for _ in range(60):  # bisection of a function that rises
            middle = (low + high) / 2
            below = mass(middle) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        times = schedule.time_of_ratio(high / (1 - high))
        times[0], times[-1] = 1.0, 0.0
        return times

    return grid


# The grids that a name stands for: None is the model's, or the method's own.
GRIDS: dict[str, Grid | None] = {
    "own": None,
    "uniform": uniform,
    "quadratic": power(2.0),
    "noisy_end": demand(),
    "log_snr": log_snr(),
    "karras": karras(),
}


def from_scheduler(scheduler: Any, schedule: Schedule) -> Tensor:
    """The grid of a diffusers scheduler on which `set_timesteps` was called.

    Args:
        scheduler: a diffusers scheduler; its `sigmas` are read where it has them (Euler and flow schedulers),
            else its integer `timesteps`; times that it takes twice (PNDM, Heun) count once.
        schedule: the schedule whose times are wanted.

    Returns:
        (N + 1,), float64, falling, the last one 0.

    Raises:
        ValueError: if the scheduler has no timesteps yet.
    """
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None or len(timesteps) == 0:
        raise ValueError("The scheduler has no timesteps; call its set_timesteps(num_inference_steps) first.")
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) >= len(timesteps):
        sigmas = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")[: len(timesteps)].unique().flip(0)
        sigmas = sigmas[sigmas > 0]
        own = schedule
        while isinstance(own, Rescaled):
            own = own.schedule
        if isinstance(own, Flow):
            return _from_ratios(schedule, sigmas / (1 - sigmas))
        return _from_ratios(schedule, sigmas)
    count = int(scheduler.config.num_train_timesteps)
    # a scheduler's integer timestep k is the level after k + 1 factors
    times = (torch.as_tensor(timesteps, dtype=torch.float64, device="cpu").unique().flip(0) + 1) / count
    return torch.cat((times.clamp(0, 1), torch.zeros(1, dtype=torch.float64)))


def own_times(schedule: Schedule, timesteps: Sequence[float] | None, sigmas: Sequence[float] | None) -> Tensor:
    """The grid of levels as a family names them; see `Denoiser.times_of`.

    Raises:
        ValueError: for levels that do not fall, or timesteps where there are none.
    """
    if sigmas is not None:
        levels = torch.as_tensor(sigmas, dtype=torch.float64)
        levels = levels[levels > 0]
        times = schedule.time_of_ratio(levels / (1 - levels).clamp(min=0) if isinstance(schedule, Flow) else levels)
    elif isinstance(schedule, VP):
        times = (torch.as_tensor(timesteps, dtype=torch.float64) + 1) / schedule.num_train_timesteps
    elif isinstance(schedule, Flow):
        levels = torch.as_tensor(timesteps, dtype=torch.float64) / 1000
        times = schedule.time_of_ratio(levels / (1 - levels).clamp(min=0))
    else:
        raise ValueError("This model's noise levels have no numbers; give sigmas in place of timesteps.")
    times = times[times > 0]
    if not len(times) or not bool((times.diff() < 0).all()) or float(times[0]) > 1:
        raise ValueError("timesteps and sigmas must fall, within the levels of the model.")
    return torch.cat((times, torch.zeros(1, dtype=torch.float64)))


def make_grid(schedule: Schedule, num_inference_steps: int, grid: Grid | None = None) -> list[Time]:
    """The times of a run with their coefficients.

    Times between 0 and the schedule's finest become the finest: a model has not learnt what is below. Where several
    do, they are one, and the run has fewer intervals.

    Args:
        schedule: of the run.
        num_inference_steps: number of grid intervals N, at least 1.
        grid: None for `uniform`; the times themselves; or a function of (schedule, N).

    Returns:
        The times, falling, the last one 0.

    Raises:
        ValueError: if N < 1, or the times do not fall strictly from at most 1 to 0.
    """
    steps = whole("num_inference_steps", num_inference_steps)
    if grid is None:
        grid = uniform
    times = grid(schedule, steps) if callable(grid) else grid
    times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if times.ndim != 1 or len(times) < 2 or times[-1] != 0 or times[0] > 1 or not bool((times.diff() < 0).all()):
        raise ValueError("A grid must be a list of times that fall strictly from at most 1 to exactly 0.")
    above = times[:-1].clamp(min=schedule.finest)
    times = torch.cat((above[: 1 + int((above.diff() < 0).sum())], times[-1:]))
    alphas, sigmas = schedule(times)
    return [
        Time(t, alpha, sigma) for t, alpha, sigma in zip(times.tolist(), alphas.tolist(), sigmas.tolist(), strict=True)
    ]
