"""FlowChef: the predicted picture is moved towards y, the velocity is kept.

Reference: Patel et al., FlowChef: Steering of Rectified Flow Models for Controlled Generations, ICCV 2025,
arXiv:2412.00100.

One step t -> s, in flow coordinates (alpha = 1 - sigma; other models are rescaled to them):
    x0'  = x0 after `gradient_steps` steps of size a on the data term, in the space of pictures
    x_s  = x0' + sigma_s (x1 - x0)
No gradient goes through the network ("gradient skipping").

loss "square" is |A x - y|^2 / 2, which does not depend on the size of the picture. Released codes take the gradient of
|A x - y| itself: loss "norm", whose 10 steps of 0.9 move a picture by at most 9 in all, so that its settings do not
carry over between sizes, and whose known entries end up to a away from y. Our norm is that of each sample. With
"square", 10 steps of 0.9 (those of DING's comparison) leave 1e-10 of the residual. See `linear` for operators.

With the residual gone, known entries are x_s = y + sigma_s (x1 - x0): each step is one fixed-point iteration towards
states whose prediction on known entries is y itself. On Gaussian toys that is close to the exact posterior in few
steps; modes of a mixture it does not weigh right, and in other grids than the uniform flow one it takes more steps.
For noisy observations the gradient goes on to y itself, as in the paper: take fewer or shorter steps to stop short.
Cost of N intervals: N evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, option
from paintback.methods.linear import LOSSES, Loss, descend
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class FlowChef(Method):
    """FlowChef; see the head of this file.

    Attributes:
        gradient_steps: on the data term, at every time.
        step_size: a, of each.
        loss: "square" or "norm".
    """

    name: ClassVar[str] = "flowchef"
    family: ClassVar[Family] = "projection"
    title: ClassVar[str] = "FlowChef: gradient steps on the picture, along the model's velocity"
    paper: ClassVar[str] = "arXiv:2412.00100"
    takes_operator: ClassVar[bool] = True

    coordinates: Coordinates | None = option("flow", "coordinates of the run", choices=("vp", "flow", "edm"))
    gradient_steps: int = option(10, "gradient steps on the data term", low=0)
    step_size: float = option(0.9, "size of a gradient step", low=0.0)
    loss: Loss = option("square", "data term: half the square, or the norm itself", choices=LOSSES)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        at_t = run.denoise(x_t, t)
        x0 = run.answer = descend(run, at_t.x0, self.gradient_steps, self.step_size, self.loss)
        return (s.alpha + s.sigma) * x0 + s.sigma * (at_t.x1 - at_t.x0)

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The moved picture predicted at the last time above 0."""
        return descend(run, run.denoise(x_t, t).x0, self.gradient_steps, self.step_size, self.loss)
