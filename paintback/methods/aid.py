"""AID: amortised inpainting guidance, a small trained module beside a frozen denoiser.

Reference: Huang and Zhou, AID, May 2026, arXiv:2605.13010. Read at second hand: the deterministic
guidance problem, its exploratory Gaussian form and the actor-critic that solves it are the paper's; the module, Psi and
the clock are our reconstruction (`models/guidance.py`, `training/aid.py`).

In EDM's variables, x = x_t / alpha_t and sigma = sigma_t / alpha_t, clock r = sigma_max - sigma:
    dx/dr  = -(x - D(x)) / sigma + u,     u the module's      the guided probability-flow ODE
           = -(x - D_guided) / sigma                          D_guided = D + sigma u = D + Delta
so guidance is a correction of the denoiser, and any solver takes the step t -> s:
    Delta  = module(x, D, y, known, sigma);   u = Delta / sigma       one action a step, from its first look
    x0     = D + Delta;   x1 = (x_t - alpha_t x0) / sigma_t
    x_s    = solver's step; where it looks again, at time r, x0 = D + (sigma_r / alpha_r) u with the same u
VP and flow models go through the maps: D, and so Delta, is the same in all coordinates.

The action of a module that was trained is bounded by what the run can measure (ours): on hidden entries D + Delta stays
within the values that the known entries of the channel have, or where D itself is beyond them. A module that has learnt
from photographs, and knows of no paper, leaves streaks in a flat area otherwise. `bounded=False` is without it.

`known` says how the known part is held. "guided": by the module alone, as the paper has it. "replaced" (ours): D is y
there and the module corrects the rest, so that the known part of the state walks from its noise to y in a straight
line; untrained, this is `replacement` with path "fixed". A module is trained for one of the two, which is the default.
With a noisy y (sigma_y > 0) "replaced" holds while sigma > sigma_y, and then the known part is the model's.

A module belongs to the model that it was trained beside. It never sees what is hidden and is trained with a squared
error, so that it pulls every sample towards the posterior's mean: not a posterior sampler. A small beta (strong
guidance) gives the smaller squared error, a large one keeps the backbone's sharpness and diversity. The shipped modules
are silent below a noise level that their cards name (ours): there the backbone alone draws the details. They learnt by
the paper's score-function actor, with credit that we made local; `guidance="adjoint"` are those that learnt by
backpropagation through the rollout.
Cost of N intervals: N evaluations (2 N - 1 with heun, one less on a grid that starts at alpha = 0) and N calls of the
module, which are not counted: it has about 1 % of the backbone's parameters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from paintback.denoiser import Denoiser, Prediction
from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.solvers import SOLVERS, SolverName, further_looks
from paintback.models.guidance import Guide, find_guidance, load_guidance
from paintback.schedules import VP, Coordinates, make_grid

__all__ = ["Aid", "GuidedDenoiser", "Known"]

Known = Literal["guided", "replaced"]
ADJOINT = "adjoint"  # names the shipped module that learnt by backpropagation, where a model has another one too


class GuidedDenoiser(Denoiser):
    """D + Delta: a denoiser with guidance, in any coordinates.

    The action of a step is decided at the first look after `release` and held until the next one.

    Args:
        inner: the frozen model.
        guide: the module.
        y: (B, ...) what is given.
        known: (B, ...) bool, True = given.
        replaced: whether D is y on the known part.
        bounded: whether its action is.
        sigma_y: noise of y.
    """

    def __init__(
        self,
        inner: Denoiser,
        guide: Guide,
        y: Tensor,
        known: Tensor,
        *,
        replaced: bool,
        bounded: bool = False,
        sigma_y: float = 0.0,
    ) -> None:
        super().__init__(inner.schedule)
        self.shape, self.codec, self.condition = inner.shape, inner.codec, inner.condition
        self.inner, self.guide, self.y, self.known = inner, guide, y, known
        self.replaced, self.bounded, self.sigma_y = replaced, bounded, sigma_y
        self._action: Tensor | None = None

    def release(self) -> None:
        """Lets the next look decide a new action."""
        self._action = None

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """The guided prediction; see the head of this file."""
        plain = self.inner.predict(x, time)
        if time.sigma == 0:
            return plain
        replaced = self.known if self.replaced and time.ratio > self.sigma_y else torch.zeros_like(self.known)
        if self._action is None:
            # above the levels that the module knows, the state is its noise alone and is scaled down to them
            level = min(time.ratio, float(getattr(self.guide, "sigma_max", 1e4)))
            delta = self.guide(x * (level / time.sigma), plain.x0, self.y, self.known, level).to(x.dtype)
            delta = self._within(delta, plain.x0) if self.bounded else delta
            self._action = delta / time.ratio
        else:
            delta = self._action * time.ratio
        correction = torch.where(replaced, self.y - plain.x0, delta)
        x1 = plain.x1 - correction * (time.alpha / time.sigma)
        return dataclasses.replace(plain, x0=plain.x0 + correction, x1=x1, conditional=None, unconditional=None)

    def _within(self, delta: Tensor, x0: Tensor) -> Tensor:
        """Delta, on hidden entries no more than what takes the model's picture into the range of the known values.

        Args:
            delta: of the module.
            x0: of the model; both of the state's shape, the range is that of every sample's every channel.
        """
        axes = tuple(range(2 if x0.ndim > 2 else 1, x0.ndim))
        lowest = torch.where(self.known, self.y, math.inf).amin(axes, keepdim=True)
        highest = torch.where(self.known, self.y, -math.inf).amax(axes, keepdim=True)
        within = torch.maximum(torch.minimum(x0 + delta, torch.maximum(x0, highest)), torch.minimum(x0, lowest))
        return torch.where(self.known, delta, within - x0)


def name_of(denoiser: Denoiser | None) -> str | None:
    """The name of the model behind a denoiser, or None."""
    while denoiser is not None:
        name = getattr(denoiser, "name", None)
        if name:
            return str(name)
        denoiser = getattr(denoiser, "inner", None)
    return None


@dataclass(frozen=True)
class Aid(Method):
    """AID; see the head of this file.

    Attributes:
        guidance: path of a trained module; a module itself, (x, x0, y, known, sigma) -> Delta; None for the shipped
            one that belongs to the model; or "adjoint" for the shipped one that learnt by backpropagation.
        solver: of the guided ODE ("ancestral" adds noise, which is no longer the problem that the module solves).
        known: how the known part is held: "guided" by the module, or "replaced"; None as the module was trained, and
            "guided" for a module given as an object.
        bounded: whether hidden entries stay within the known values, as above.
    """

    name: ClassVar[str] = "aid"
    family: ClassVar[Family] = "posterior"
    title: ClassVar[str] = "AID: amortised guidance from a small trained module"
    paper: ClassVar[str] = "arXiv:2605.13010"
    edm_coordinates: ClassVar[Coordinates] = "edm"

    guidance: Any = option(
        None, "path of a module that `paintback train aid` wrote, or adjoint; none for the model's own"
    )
    solver: SolverName = option("euler", "solver of the guided ODE", choices=tuple(SOLVERS))
    known: Known | None = option(
        None, "the known part is guided by the module or replaced; none as trained", choices=("guided", "replaced")
    )
    bounded: bool = option(True, "hidden entries stay within the known values, or where the model is beyond them")

    def module(self, denoiser: Denoiser) -> tuple[Guide, bool]:
        """The module for a model, and whether the known part is replaced.

        Raises:
            ValueError: if no module fits; the message names the command that trains one.
        """
        if callable(self.guidance):
            return self.guidance, self.known == "replaced"
        actor = ADJOINT if self.guidance == ADJOINT else None
        path = None if self.guidance is None or actor else Path(self.guidance)
        if path is None:
            name = name_of(denoiser)
            path = find_guidance(name, actor) if name else None
            if path is None:
                raise ValueError(
                    f"aid needs a guidance module trained beside {f'the model {name!r}' if name else 'this model'}, "
                    f"and none is shipped; train one with `paintback train aid --model {name or 'NAME'}` and give its "
                    "path as `guidance`."
                )
        module, header = load_guidance(path)
        return module, (self.known or header.get("known", "guided")) == "replaced"

    def start(self, run: Run) -> Tensor:
        """Noise; from here on the run's denoiser is the guided one."""
        guide, replaced = self.module(run.denoiser)
        if isinstance(guide, nn.Module):
            guide = guide.to(run.y.device)
        run.denoiser = GuidedDenoiser(
            run.denoiser,
            guide,
            run.y,
            run.known,
            replaced=replaced,
            bounded=self.bounded,
            sigma_y=run.sigma,
        )
        return super().start(run)

    def look(self, run: Run, x: Tensor, t: Time) -> tuple[Tensor, Prediction]:
        """The look that opens a step and decides its action."""
        assert isinstance(run.denoiser, GuidedDenoiser)
        run.denoiser.release()
        return x, run.denoise(x, t)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        return SOLVERS[self.solver](run, lambda x, time: self.look(run, x, time), x_t, t, s)

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The guided picture at the last time above 0."""
        return self.look(run, x_t, t)[1].x0

    def evaluations(self, num_inference_steps: int, times: Sequence[Time] | None = None) -> int:
        """N, or 2 N - 1 with heun; exact for the given times."""
        times = times or make_grid(VP(), num_inference_steps)
        return len(times) - 1 + further_looks(self.solver, times)
