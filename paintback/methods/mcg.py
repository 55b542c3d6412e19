"""MCG: manifold-constrained gradient, then the known part is the noised observation.

Reference: Chung et al., Improving Diffusion Models for Inverse Problems using Manifold Constraints, NeurIPS 2022,
arXiv:2206.00941.

One step t -> s:
    r       = m (y - x0(x_t))
    x_s     = ancestral step - alpha grad_{x_t} |r|^2 = ancestral step + 2 alpha J^T r
    known:  x_s <- alpha_s y + sigma_s eps

alpha is 0.1 or 1: the two values that LanPaint's authors tried; 0.1 is our default. The square is a sum over the
known entries, so that the pull per entry does not depend on the picture's size. No norm is divided by.

Our reconstruction for noisy observations is that of `replacement`: only the noise that y lacks is added, and once the
state is cleaner than y its known part is left to the model and to the gradient. The last look has the gradient too.
Cost of N intervals: N evaluations, N gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.known import replace_known
from paintback.methods.linear import misfit
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class Mcg(Method):
    """MCG; see the head of this file.

    Attributes:
        alpha: step along the gradient of the squared residual.
    """

    name: ClassVar[str] = "mcg"
    family: ClassVar[Family] = "replacement"
    title: ClassVar[str] = "MCG: manifold-constrained gradient and replacement"
    paper: ClassVar[str] = "arXiv:2206.00941"
    needs_vjp: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    alpha: float = option(0.1, "step along the gradient of the squared residual", low=0.0)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        at_t, vjp = run.linearise(x_t, t)
        pull = 2 * self.alpha * vjp(misfit(run, at_t.x0))
        run.answer = at_t.x0 + pull
        x_s = ddim(at_t, s, ancestral_std(t, s), run.noise()) + pull
        return replace_known(run, x_s, s, "fresh")

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The pulled picture at the last time above 0; a noiseless y is pasted in by the loop."""
        at_t, vjp = run.linearise(x_t, t)
        return at_t.x0 + 2 * self.alpha * vjp(misfit(run, at_t.x0))

    def vjps(self, num_inference_steps: int) -> int:
        """N."""
        return num_inference_steps
