"""MPGD: the gradient of the data term is applied to the predicted picture, not to the state.

Reference: He et al., Manifold Preserving Guided Diffusion, ICLR 2024, arXiv:2311.16424; the form
without an auto-encoder's projection.

One step t -> s:
    x0'  = x0 - c grad |A x0 - y|^2 / 2
    x_s  = alpha_s x0' + sqrt(sigma_s^2 - eta_s^2) x1 + eta_s eps,   eta_s = eta times the ancestral std
No gradient goes through the network in this form.

The paper tunes c for each task. Our choice is 0.5: half of the residual is removed at every step, so that it stays a
guidance; at c = 1 it corrects x0 as `ddnm` does. loss "norm" takes |A x0 - y| of each sample instead, whose fitting c
depends on the size of the picture. For linear operators see `linear`. eta = 1 is DDPM's step, 0 DDIM's.
For noisy observations nothing changes: c alone says how far y is followed.
Cost of N intervals: N evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.linear import LOSSES, Loss, descend


@dataclass(frozen=True)
class Mpgd(Method):
    """MPGD; see the head of this file.

    Attributes:
        step_size: c.
        eta: fresh noise, in units of the ancestral std.
        loss: "square" or "norm".
    """

    name: ClassVar[str] = "mpgd"
    family: ClassVar[Family] = "projection"
    title: ClassVar[str] = "MPGD: guidance of the predicted picture"
    paper: ClassVar[str] = "arXiv:2311.16424"
    takes_operator: ClassVar[bool] = True

    step_size: float = option(0.5, "step of the data term", low=0.0)
    eta: float = option(1.0, "fresh noise, in units of the ancestral std", low=0.0, high=1.0)
    loss: Loss = option("square", "data term: half the square, or the norm itself", choices=LOSSES)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        at_t = run.denoise(x_t, t)
        x0 = run.answer = descend(run, at_t.x0, 1, self.step_size, self.loss)
        return ddim(Prediction(x0, at_t.x1), s, self.eta * ancestral_std(t, s), run.noise())

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The guided picture predicted at the last time above 0."""
        return descend(run, run.denoise(x_t, t).x0, 1, self.step_size, self.loss)
