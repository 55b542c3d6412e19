"""AID's module for Gaussian problems: no trained one, but the one that training can at best reach.

A shipped module belongs to a network and a trained one would measure its training. For a Gaussian prior N(mu, S) the
guided problem is linear and quadratic, and solved in closed form (the general form of the scalar test of AID). With
the trainer's Psi(x) = |x - g|^2 / d, where g is y on known entries and its truth, unknown to the module, on hidden
ones, and the price beta / d of |u|^2 / 2:

    Phi   = S^1/2 (S + sigma^2)^-1/2            the end of the free flow from x is mu + Phi (x - mu)
    W     = int_0^sigma Phi^2 = S^1/2 arctan(sigma S^-1/2)
    u     = -(2 / beta) Phi (1 + 2 W / beta)^-1 (mu + Phi (x - mu) - E[g | y])
    Delta = sigma u

On mixtures nothing of the kind is known, and `aid` is left out.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from paintback.bench.cases import Case
from paintback.methods.aid import Aid
from paintback.methods.base import Method
from paintback.models.guidance import Guide
from paintback.training.aid import AidTraining

__all__ = ["optimal_guidance", "with_guidance"]


def optimal_guidance(at: Case, beta: float = AidTraining().beta) -> Guide:
    """The optimal module for a problem, (x, x0, y, known, sigma) -> Delta; y is the problem's own.

    Args:
        at: the problem.
        beta: price of guidance, as `AidTraining` has it.

    Raises:
        ValueError: for a prior that is no Gaussian.
    """
    if len(at.prior) > 1:
        raise ValueError(
            "aid needs a guidance module; the optimal one has a closed form for Gaussian priors only, not for mixtures."
        )
    known = at.observation.known
    assert known is not None
    mean = at.prior.means[0]
    goal = at.observation.y.flatten().to(mean).clone()
    goal[~known.flatten()] = at.posterior.means[0]
    variances, axes = torch.linalg.eigh(at.prior.covariances[0])
    spread = variances.sqrt()

    def guide(x: Tensor, x0: Tensor, y: Tensor, known: Tensor, sigma: float) -> Tensor:
        phi = spread / (variances + sigma**2).sqrt()
        reach = spread * torch.atan(sigma / spread)
        end = phi * ((x.flatten(1).to(mean) - mean) @ axes) - (goal - mean) @ axes
        delta = -sigma * 2 / beta * phi / (1 + 2 * reach / beta) * end
        back: Tensor = delta @ axes.T
        return back.to(x).reshape(x.shape)

    return guide


def with_guidance(method: Method, at: Case) -> Method:
    """The method itself; of an `aid` without a module, one with the optimal module.

    Raises:
        ValueError: as `optimal_guidance`.
    """
    if isinstance(method, Aid) and method.guidance is None:
        return replace(method, guidance=optimal_guidance(at), bounded=False)
    return method
