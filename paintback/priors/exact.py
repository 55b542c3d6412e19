"""The exact denoiser of a Gaussian mixture.

With C_k = U_k diag(l_k) U_k^T, r_k = U_k^T (x_t - alpha m_k) and v_k = alpha^2 l_k + sigma^2:

    p_k  = softmax of  ln w_k - sum(ln v_k + r_k^2 / v_k) / 2        probability of component k given x_t
    x0   = sum_k p_k (m_k + U_k (alpha l_k / v_k) r_k)
    x1   = sum_k p_k U_k (sigma / v_k) r_k

so that a call costs two matrix products and no factorisation. The larger of alpha and sigma decides which of x0 and x1
is the sum and which follows from alpha x0 + sigma x1 = x_t; neither is ever divided by a small number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paintback.denoiser import Denoiser, Prediction
from paintback.schedules import Schedule, Time

if TYPE_CHECKING:
    from paintback.priors.mixture import GaussianMixture

__all__ = ["MixtureDenoiser", "log_densities"]

_ENTRIES = 2**16  # numbers in one block of rows: half a MB, so that a block stays in the processor's cache
_SMALLEST = 1e-30  # variance, so that its inverse and the energies stay finite in float32


@dataclass(frozen=True)
class _Coefficients:
    """What a call needs at one (alpha, sigma), in the layout (d, K) or, for a shared covariance, (d, 1).

    Attributes:
        basis: (d, d K) columns of U_k, ordered by entry, then component; (d, d) where shared.
        means: (d, K) alpha U_k^T m_k.
        inverse: 1 / v_k.
        constant: (K,) ln w_k - sum(ln v_k) / 2.
        gain: alpha l_k / v_k, or sigma / v_k where alpha >= sigma.
        plain: (K, d) m_k.
    """

    basis: Tensor
    means: Tensor
    inverse: Tensor
    constant: Tensor
    gain: Tensor
    plain: Tensor


class MixtureDenoiser(Denoiser):
    """E[x0 | x_t] and E[x1 | x_t] of a Gaussian mixture; see the head of this file.

    At sigma = 0 the picture is x_t / alpha and the noise 0; at alpha = 0 the picture is the prior's mean. Works in the
    dtype of x, on its device; autograd goes through.

    Args:
        prior: the mixture.
        schedule: any.
        shape: of one picture; None for (d,).

    Raises:
        ValueError: if the shape does not hold d entries.
    """

    shape: tuple[int, ...]

    def __init__(self, prior: GaussianMixture, schedule: Schedule, shape: Sequence[int] | None = None) -> None:
        super().__init__(schedule)
        self.shape = (prior.dim,) if shape is None else tuple(int(side) for side in shape)
        if math.prod(self.shape) != prior.dim:
            raise ValueError(f"A shape of {self.shape} does not hold the {prior.dim} entries of the prior.")
        self.prior = prior
        self._cache: dict[tuple[float, float, torch.dtype, torch.device], _Coefficients] = {}

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """The exact prediction.

        Args:
            x: (B, d) or (B,) + shape.
            time: t.

        Returns:
            x0 and x1 of x's shape.

        Raises:
            ValueError: if x has another shape.
        """
        if tuple(x.shape[1:]) not in (self.shape, (self.prior.dim,)):
            raise ValueError(f"x must have shape (B, {', '.join(map(str, self.shape))}); got {tuple(x.shape)}.")
        alpha, sigma = time.alpha, time.sigma
        if sigma == 0:
            return Prediction(x / alpha, torch.zeros_like(x), rows=len(x))
        flat = x.reshape(-1, self.prior.dim)
        at = self._at(time, x)
        blocks = [self._sum(block, at, alpha < sigma) for block in _blocks(flat, self.prior)]
        mean = torch.cat(blocks).reshape(x.shape) if len(blocks) != 1 else blocks[0].reshape(x.shape)
        if alpha < sigma:
            return Prediction(mean, (x - alpha * mean) / sigma, rows=len(x))
        return Prediction((x - sigma * mean) / alpha, mean, rows=len(x))

    def _at(self, time: Time, x: Tensor) -> _Coefficients:
        key = (time.alpha, time.sigma, x.dtype, x.device)
        if key not in self._cache:
            if len(self._cache) > 2048:
                self._cache.clear()
            with torch.inference_mode(False):  # a later call may want gradients
                self._cache[key] = _coefficients(self.prior, time.alpha, time.sigma, x)
        return self._cache[key]

    def _sum(self, x: Tensor, at: _Coefficients, picture: bool) -> Tensor:
        """(n, d): x0 where `picture`, else x1."""
        shared = len(self.prior.values) == 1
        turned = (x @ at.basis).unflatten(1, (self.prior.dim, -1))  # (n, d, K), or (n, d, 1) where shared
        if shared:
            probability = _softmax(_shared_logits(turned[..., 0], at), x.dtype)
            weighted = at.gain * (turned - (probability @ at.means.T)[..., None])
        else:
            rest = turned - at.means
            probability = (at.constant - (rest.square() * at.inverse).sum(1) / 2).softmax(1)
            weighted = probability[:, None, :] * at.gain * rest
        result: Tensor = weighted.flatten(1) @ at.basis.T
        if picture:
            result = result + probability @ at.plain
        return result


def _shared_logits(turned: Tensor, at: _Coefficients) -> Tensor:
    """Logarithms of p_k up to a constant, float64; one covariance for all, so that the term square in x falls out."""
    means, inverse = at.means.double(), at.inverse.double()
    scaled = means * inverse
    return turned.double() @ scaled + (at.constant.double() - (means * scaled).sum(0) / 2)


def _softmax(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Softmax over components in a lesser precision, once the largest is taken off."""
    return (logits - logits.detach().amax(1, keepdim=True)).to(dtype).softmax(1)


def _coefficients(prior: GaussianMixture, alpha: float, sigma: float, like: Tensor) -> _Coefficients:
    vectors, values = prior.vectors.to(like.device), prior.values.to(like.device)  # (K or 1, d, d), (K or 1, d)
    exact = alpha**2 * values + sigma**2
    variance = exact.clamp(min=_SMALLEST)
    means = prior.means.to(like.device).double()
    turned = (means[:, None, :] @ vectors)[:, 0]
    gain = (alpha * values if alpha < sigma else sigma) / exact.clamp(min=1e-300)
    parts = (
        vectors.permute(1, 2, 0).flatten(1),
        alpha * turned.T,
        1 / variance.T,
        prior.log_weights.to(like.device) - variance.log().sum(1) / 2,
        gain.T,
        means,
    )
    return _Coefficients(*(part.to(like.dtype).contiguous() for part in parts))


def _blocks(x: Tensor, prior: GaussianMixture) -> Iterator[Tensor]:
    """Rows in blocks whose (n, d, K) intermediates stay small."""
    width = len(prior) * (1 if len(prior.values) == 1 else prior.dim)
    return iter(x.split(max(1, _ENTRIES // width))) if len(x) else iter((x,))


def log_densities(prior: GaussianMixture, x: Tensor) -> Tensor:
    """ln(w_k N(x; m_k, C_k)) of every component, (n, K), for x of shape (n, d) and covariances of full rank."""
    at = _coefficients(prior, 1.0, 0.0, x)
    constant = at.constant - prior.dim * math.log(2 * math.pi) / 2
    blocks = []
    for block in x.split(max(1, _ENTRIES // (len(prior) * prior.dim))) if len(x) else (x,):
        rest = (block @ at.basis).unflatten(1, (prior.dim, -1)) - at.means
        blocks.append(constant - (rest.square() * at.inverse).sum(1) / 2)
    return torch.cat(blocks)
