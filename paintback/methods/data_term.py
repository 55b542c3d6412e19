"""The observation as a term of a loss: residuals, gradients and projections, all of them sample by sample.

The data term is half the squared distance from x to the nearest picture that agrees with y,
    d(x)^2 / 2,   d(x) = |A^+ (A x - y)|,   gradient A^+ (A x - y).
For a mask that is |m (x - y)|^2 / 2, the papers' own term. For a linear operator it is theirs with residuals measured
by (A A^T)^-1, so that a step size means the same whatever the operator's scale (our choice).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from paintback.methods.base import Run

__all__ = ["LOSSES", "Loss", "descend", "first_picture", "misfit", "project", "project_to_noise"]

Loss = Literal["square", "norm"]
LOSSES = ("square", "norm")


def misfit(run: Run, x: Tensor) -> Tensor:
    """A^+ (A x - y): what takes x away from the nearest picture that agrees with y, of the state's shape."""
    if run.operator is not None:
        return run.operator.pseudo_inverse(run.operator(x) - run.y)
    return torch.where(run.known, x - run.y, 0.0)


def project(run: Run, x: Tensor, strength: float = 1.0) -> Tensor:
    """The part `strength` of the way from x to the nearest picture that agrees with y; exactly y there at 1."""
    if run.operator is None and strength == 1:
        return torch.where(run.known, run.y, x)
    return x - strength * misfit(run, x)


def project_to_noise(run: Run, x: Tensor) -> Tensor:
    """The same, only as far as y is to be trusted: to a residual of sigma_y in root mean square.

    A picture that agrees better than that stays as it is; with a noiseless y this is `project`.
    """
    if run.sigma == 0:
        return project(run, x)
    residual = torch.where(run.known, x - run.y, 0.0) if run.operator is None else run.operator(x) - run.y
    given = run.known if run.operator is None else torch.ones_like(residual)
    size = residual.flatten(1).norm(dim=1)
    allowed = run.sigma * given.flatten(1).sum(1).sqrt()
    share = torch.where(size > allowed, 1 - allowed / size.clamp(min=torch.finfo(x.dtype).tiny), 0.0)
    return x - run.per_sample(share.to(x.dtype)) * misfit(run, x)


def descend(run: Run, x: Tensor, steps: int, step_size: float, loss: Loss) -> Tensor:
    """Gradient steps on the data term, in the space of pictures.

    Args:
        run: whose observation it is.
        x: (B, ...) pictures.
        steps: number of gradient steps.
        step_size: of each.
        loss: "square" for d(x)^2 / 2; "norm" for d(x), whose gradient has length 1 in every sample, whatever the
            number of known entries, and is taken as 0 where d is.
    """
    for _ in range(steps):
        gradient = misfit(run, x)
        if loss == "norm":
            size = run.per_sample(gradient.flatten(1).norm(dim=1))
            gradient = gradient / size.clamp(min=torch.finfo(x.dtype).tiny)
        x = x - step_size * gradient
    return x


def first_picture(run: Run) -> Tensor:
    """Where the variational methods start: the run's initial picture, else 0, corrected to agree with y."""
    return project(run, torch.zeros_like(run.template) if run.initial is None else run.initial)
