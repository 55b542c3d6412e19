"""FCS: fast constrained sampling, J e in place of J^T e: guidance by finite differences, without gradients.

Reference: Graikos et al., Fast Constrained Sampling in Pre-trained Diffusion Models, NeurIPS 2025, arXiv:2410.18804,
and the algorithm of the authors' notebooks (MIT).

At every time t, n = inner_steps times with lr_k falling evenly from `step_size` to `last_step_size`:
    e    = m (y - x0(x))
    h    = delta / max|e|
    g    = (x0(x + h e) - x0(x)) / h                    about J e,  J = d x0 / d x
    x   <- x + lr_k g / max|g|
Then the step, where beta_t = 1 - abar(t) / abar(t - 1/1000) is that of ONE of 1000 levels, not of the step, so that
the noise is small and the step is close to DDIM:
    x_s  = alpha_s x0 + sqrt(sigma_s^2 - b) x1 + sqrt(b) eps,    b = beta_t (1 - abar_s) / (1 - abar_t)

No replacement; the last picture is x0 after the last inner loop. The maxima are per sample. e and g of 0 (converged,
nothing known, alpha = 0) leave the sample where it is. lr_k means what it says in VP coordinates, where states have a
size of about 1. The paper takes 20 steps.

For a linear operator e = -grad |y - A D(x0)|_2 = D'^T A^T r / |r|, D the decoder; the model itself is never
differentiated. The authors' super-resolution (x 8) takes inner_steps 10 and step_size = last_step_size = 0.1.

Linearised, e changes by -lambda m J J m e, lambda = lr / max|g|: with a symmetric J it shrinks where
0 < lambda < 2 / mu^2 for the largest eigenvalue mu of J. Measured: FCS optimises and does not sample; its pictures
agree with y and overshoot where they extrapolate from it.

Choices and reconstructions:
  - h e has a size of 0.005, which half precision hardly sees: a network in half precision is refused unless
    `allow_half`. `difference` = "central" takes (x0(x + h e) - x0(x - h e)) / 2 h, one more evaluation each time.
  - `restarts` (in the paper, not in the notebooks): the last picture is noised again to the first time of the grid at
    or below `restart_time` and goes down again. The callback does not see these passes.
  - `perturbation` (in the paper, magnitude not known): e is taken at x0 + perturbation eps.
  - Noisy observations: lr_k is weighted by max(0, 1 - sigma_y sqrt(M) / |y - A x0|), M observed values, the part of
    the residual that noise does not explain (the discrepancy principle); g has no length of its own to weight. The
    residual so ends at the size of the noise, sigma_y per value, on the side that it came from.
  - Steps finer than 1/1000 take their own beta.
Cost of N intervals: N (1 + 2 n) evaluations, N (1 + 3 n) with central differences, no gradients; 220 by default at
N = 20. A restart costs the same for the times that it passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Prediction, network_dtype
from paintback.methods.base import Family, Method, Run, Time, ddim, option
from paintback.methods.linear import decoded, misfit, observed, sizes
from paintback.schedules import VP, Coordinates, make_grid

_FLOOR = 1e-7  # of max|e|, and of max|g| relative to it: below is rounding


@dataclass(frozen=True)
class Fcs(Method):
    """FCS; see the head of this file.

    Attributes:
        inner_steps: n, corrections before every step.
        step_size: size of the first one.
        last_step_size: size of the last one.
        delta: size of the perturbation that J is measured with.
        difference: "forward" or "central"; "transpose" takes J^T e by a gradient in place of J e, for comparison.
        restarts: passes after the first.
        restart_time: where they start.
        perturbation: noise on the picture that e is taken at.
        allow_half: run networks in half precision.
    """

    name: ClassVar[str] = "fcs"
    family: ClassVar[Family] = "posterior"
    title: ClassVar[str] = "FCS: Jacobian-vector steps by finite differences"
    paper: ClassVar[str] = "arXiv:2410.18804"
    differences: ClassVar[bool] = True
    takes_operator: ClassVar[bool] = True
    decodes: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    inner_steps: int = option(5, "corrections before every step", low=0)
    step_size: float = option(0.5, "size of the first correction", low=0.0)
    last_step_size: float = option(0.1, "size of the last correction", low=0.0)
    delta: float = option(0.005, "size of the perturbation in finite differences", low=1e-6)
    difference: Literal["forward", "central", "transpose"] = option(
        "forward", "finite differences, or J^T e by a gradient", choices=("forward", "central", "transpose")
    )
    restarts: int = option(0, "passes from noise again, after the first", low=0)
    restart_time: float = option(0.5, "time that these start from", low=0.0, high=1.0)
    perturbation: float = option(0.0, "noise on the picture that the error is taken at", low=0.0)
    allow_half: bool = option(False, "run networks in half precision")

    def start(self, run: Run) -> Tensor:
        """The state at the first time.

        Raises:
            ValueError: for a network in half precision, unless `allow_half`.
        """
        dtype = network_dtype(run.denoiser)
        if dtype in (torch.float16, torch.bfloat16) and not self.allow_half:
            raise ValueError(
                f"fcs: the network runs in {str(dtype).removeprefix('torch.')}, which rounds away a perturbation of "
                f"{self.delta:g}; load the model with torch_dtype=torch.float32, or set allow_half and a larger delta."
            )
        return super().start(run)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s: the corrections, then the sampler's step."""
        _, at_t = self.correct(run, x_t, t)
        return ddim(at_t, s, self.noise_std(run, t, s), run.noise())

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture after the last corrections, and after the restarts."""
        x0 = self.correct(run, x_t, t)[1].x0
        times = _restarted(run.times, self.restart_time)
        for _ in range(self.restarts):
            x = times[0].alpha * x0 + times[0].sigma * run.noise()
            for r, s in pairwise(times):
                x = self.step(run, x, r, s)
            x0 = self.correct(run, x, times[-1])[1].x0
        return x0

    def correct(self, run: Run, x: Tensor, t: Time) -> tuple[Tensor, Prediction]:
        """The state after the inner loop, and the prediction there."""
        rates = self.rates()
        at_x, vjp = self.look(run, x, t, last=not rates)
        for k, rate in enumerate(rates):
            e = self.error(run, at_x.x0)
            g = self.directional(run, x, t, at_x.x0, e) if vjp is None else vjp(e)
            size, least = _peak(g), _FLOOR * _peak(e)
            moves = size > least
            g = torch.where(moves, g / torch.where(moves, size, torch.ones_like(size)), 0.0)
            x = x + rate * self.trust(run, at_x.x0) * g
            at_x, vjp = self.look(run, x, t, last=k == len(rates) - 1)
        return x, at_x

    def look(self, run: Run, x: Tensor, t: Time, *, last: bool) -> tuple[Prediction, Callable[[Tensor], Tensor] | None]:
        """The prediction, and J^T where the next correction goes by it."""
        return (run.denoise(x, t), None) if last or self.difference != "transpose" else run.linearise(x, t)

    def rates(self) -> list[float]:
        """lr_k of the inner loop."""
        return torch.linspace(self.step_size, self.last_step_size, self.inner_steps, dtype=torch.float64).tolist()

    def error(self, run: Run, x0: Tensor) -> Tensor:
        """e, the wanted change of x0, up to its length."""
        if self.perturbation:
            x0 = x0 + self.perturbation * run.noise()
        if run.operator is None:
            return misfit(run, x0)
        picture, back = decoded(run, x0)
        e = back(run.operator.transpose(run.y - run.operator(picture)))
        size = _peak(e)
        return e / torch.where(size > _FLOOR, size, torch.ones_like(size))

    def directional(self, run: Run, x: Tensor, t: Time, x0: Tensor, e: Tensor) -> Tensor:
        """J e by finite differences; 0 where e is."""
        size = _peak(e)
        moves = size > _FLOOR
        h = torch.where(moves, self.delta / torch.where(moves, size, torch.ones_like(size)), 0.0)
        forward = run.denoise(x + h * e, t, probe=True).x0
        if self.difference == "central":
            change = (forward - run.denoise(x - h * e, t, probe=True).x0) / 2
        else:
            change = forward - x0
        return torch.where(moves, change / torch.where(moves, h, torch.ones_like(h)), 0.0)

    def trust(self, run: Run, x0: Tensor) -> Tensor | float:
        """(B, 1, ...) the part of the residual that noise does not explain."""
        if run.sigma == 0:
            return 1.0
        residual = misfit(run, x0) if run.operator is None else run.y - run.operator(run.codec.decode(x0))
        size = run.per_sample(sizes(residual).flatten())
        safe = torch.where(size > 0, size, torch.ones_like(size))
        return torch.where(size > 0, (1 - run.sigma * observed(run).sqrt() / safe).clamp(min=0), 0.0)

    def noise_std(self, run: Run, t: Time, s: Time) -> float:
        """sqrt(b), the fresh noise of the step; in the run's own coordinates."""
        before = run.denoiser.schedule.at(max(t.t - 1 / 1000, s.t))
        beta = max(0.0, 1 - _abar(t) / _abar(before))
        return s.sigma * math.sqrt(min(1.0, beta / (1 - _abar(t))))

    def evaluations(self, num_inference_steps: int, times: Sequence[Time] | None = None) -> int:
        """N (1 + 2 n), or N (1 + 3 n) with central differences, and the restarts; exact for the given times."""
        each = {"forward": 2, "central": 3, "transpose": 1}[self.difference]
        return self.looks(num_inference_steps, times) * (1 + each * self.inner_steps)

    def vjps(self, num_inference_steps: int, times: Sequence[Time] | None = None) -> int:
        """None, or N n with "transpose"."""
        return self.looks(num_inference_steps, times) * self.inner_steps if self.difference == "transpose" else 0

    def looks(self, num_inference_steps: int, times: Sequence[Time] | None = None) -> int:
        """Noise levels at which the state is corrected."""
        times = times or make_grid(VP(), num_inference_steps)
        return len(times) - 1 + self.restarts * len(_restarted(times, self.restart_time))


def _restarted(times: Sequence[Time], start: float) -> list[Time]:
    """The times above 0 of a restart: those at or below its start, at least the last one."""
    above = list(times[:-1])
    return [time for time in above if time.t <= start + 1e-9] or above[-1:]


def _abar(t: Time) -> float:
    """alpha^2 in VP coordinates."""
    return t.alpha**2 / (t.alpha**2 + t.sigma**2)


def _peak(v: Tensor) -> Tensor:
    """(B, 1, ...) the largest absolute entry of every sample."""
    return v.abs().flatten(1).amax(1).reshape(-1, *[1] * (v.ndim - 1))
