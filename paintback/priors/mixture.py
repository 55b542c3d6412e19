"""Gaussian mixtures: the priors whose denoiser and posterior are known in closed form, the yardstick of every method.

With component k drawn with weight w_k and x0 ~ N(m_k, C_k), everything that a sampler approximates is exact here: the
law of x_t is the mixture of N(alpha m_k, alpha^2 C_k + sigma^2 I), and the law of x0 given y = A x0 + sigma n is the
mixture of

    mean    m_k + G_k (y - A m_k),      G_k = C_k A^T (A C_k A^T + sigma^2 I)^-1
    cov     (I - G_k A) C_k
    weight  w_k N(y; A m_k, A C_k A^T + sigma^2 I), normalised

Reference: Bishop, Pattern Recognition and Machine Learning, 2006, sections 2.3.1 to 2.3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paintback.observation import Observation
from paintback.priors.exact import MixtureDenoiser, log_densities
from paintback.randomness import Generators
from paintback.schedules import Schedule

__all__ = ["GaussianMixture"]

_NULL = 1e-12  # eigenvalues below this part of the largest are 0: a degenerate direction


class GaussianMixture:
    """sum_k w_k N(m_k, C_k).

    Every covariance is decomposed once, here; nothing is factorised when the denoiser is called. Covariances may be
    degenerate (a direction without variance): only `log_prob` needs a density and then refuses.

    Args:
        means: (K, d).
        covariances: (K, d, d), symmetric, positive semi-definite.
        weights: (K,), positive; normalised here. None for equal ones.

    Attributes:
        means: (K, d), in the dtype given (float64 for lists and arrays).
        covariances: (K, d, d).
        weights: (K,), with sum 1.
        dim: d.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, weights that are not positive, or
            covariances that are not symmetric or not positive semi-definite.
    """

    def __init__(self, means: Any, covariances: Any, weights: Any = None) -> None:
        means, covariances = _tensor(means), _tensor(covariances)
        if means.ndim != 2 or 0 in means.shape:
            raise ValueError(f"means must have shape (K, d); got {tuple(means.shape)}.")
        count, dim = means.shape
        if covariances.shape != (count, dim, dim):
            raise ValueError(f"covariances must have shape {(count, dim, dim)}; got {tuple(covariances.shape)}.")
        weights = torch.ones(count, dtype=means.dtype) if weights is None else _tensor(weights)
        if weights.shape != (count,):
            raise ValueError(f"weights must have shape {(count,)}; got {tuple(weights.shape)}.")
        for name, value in (("means", means), ("covariances", covariances), ("weights", weights)):
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} holds values that are not finite; remove NaN and infinity first.")
        if not bool((weights > 0).all()):
            raise ValueError(f"weights must be positive; the smallest is {weights.min().item():g}.")
        size = covariances.abs().amax((1, 2)).double()
        skew = (covariances - covariances.mT).abs().amax((1, 2)).double()
        slack = 1e-4 if covariances.dtype in (torch.float16, torch.bfloat16, torch.float32) else 1e-8
        if bool((skew > slack * size).any()):
            raise ValueError(f"covariances must be symmetric; one differs from its transpose by {skew.max():g}.")
        self._fill(means, covariances, weights)
        if bool((self._lowest < -slack * size).any()):
            lowest = self._lowest.min().item()
            raise ValueError(f"covariances must be positive semi-definite; one has the eigenvalue {lowest:g}.")

    def _fill(self, means: Tensor, covariances: Tensor, weights: Tensor) -> None:
        dtype = torch.promote_types(torch.promote_types(means.dtype, covariances.dtype), weights.dtype)
        weights = weights.double() / weights.double().sum()
        self.means, self.weights, self.dim = means.to(dtype), weights.to(dtype), means.shape[1]
        self.covariances = ((covariances + covariances.mT) / 2).to(dtype)
        # one decomposition where all components share their covariance: the denoiser has a shorter way then
        shared = bool((self.covariances == self.covariances[:1]).all())
        values, self.vectors = torch.linalg.eigh(self.covariances[: 1 if shared else None].double())
        self._lowest = values[:, 0]
        self.values = torch.where(values > _NULL * values[:, -1:], values, 0.0)
        self.log_weights = weights.log()

    @classmethod
    def _computed(cls, means: Tensor, covariances: Tensor, weights: Tensor, dtype: torch.dtype) -> GaussianMixture:
        """A mixture from computed parts, whose rounding errors are not the caller's mistakes."""
        mixture = cls.__new__(cls)
        mixture._fill(means.to(dtype), covariances.to(dtype), weights.to(dtype))
        return mixture

    def __len__(self) -> int:
        """The number of components K."""
        return len(self.means)

    def __repr__(self) -> str:
        return f"GaussianMixture(components={len(self)}, dim={self.dim})"

    def denoiser(self, schedule: Schedule, shape: Sequence[int] | None = None) -> MixtureDenoiser:
        """The exact denoiser: x0 and x1 are posterior means given x_t.

        Args:
            schedule: any.
            shape: (C, H, W) views the d entries as a picture; None for (d,).

        Returns:
            A denoiser of (B, d) or (B,) + shape states, differentiable, that works in the state's dtype.

        Raises:
            ValueError: if the shape does not hold d entries.
        """
        return MixtureDenoiser(self, schedule, shape)

    def posterior(self, observation: Observation, *, joint: bool = False) -> GaussianMixture:
        """The exact law of the picture given an observation.

        Args:
            observation: y without a batch axis, of any shape that holds d entries (for an operator, its output).
            joint: keep all d entries in place of the unknown ones; always so for an operator. Noiseless known
                entries have variance 0 there.

        Returns:
            The mixture over the unknown entries in order (of the flattened picture), known ones being integrated out
            where they are noisy; or over all d entries. Components of weight 0 are left out.

        Raises:
            ValueError: if y has not the right number of entries, nothing is unknown, or y is impossible.
        """
        matrix, known = self._measurement(observation)
        y = observation.y.detach().cpu().double().reshape(-1)
        y = y if known is None else y[known]
        means, covariances = self.means.double().cpu(), self.covariances.double().cpu()
        cross = covariances @ matrix.T  # (K, d, m)
        inner = matrix @ cross + observation.sigma**2 * torch.eye(len(y), dtype=torch.float64)
        residual = y - means @ matrix.T
        inverse, log_weights = _evidence(inner, residual, self.log_weights.cpu())
        gain = cross @ inverse
        means = means + (gain @ residual[..., None])[..., 0]
        rest = torch.eye(self.dim, dtype=torch.float64) - gain @ matrix
        # Joseph's form, positive semi-definite by construction
        covariances = rest @ covariances @ rest.mT + observation.sigma**2 * gain @ gain.mT
        weights = (log_weights - log_weights.logsumexp(0)).exp()
        alive = weights > 0
        result = self._computed(means[alive], covariances[alive], weights[alive], self.means.dtype)
        if joint or known is None:
            return result
        if bool(known.all()):
            raise ValueError("Every entry is known, so that no posterior is left; pass joint=True for the known ones.")
        return result.marginal((~known).nonzero()[:, 0])

    def _measurement(self, observation: Observation) -> tuple[Tensor, Tensor | None]:
        """The matrix A, (m, d), and where it is a selection the flat mask of known entries."""
        y, eye = observation.y.detach().cpu().double(), torch.eye(self.dim, dtype=torch.float64)
        if observation.operator is None:
            if y.numel() != self.dim:
                raise ValueError(f"y of shape {tuple(y.shape)} does not hold the {self.dim} entries of this prior.")
            known = torch.ones((), dtype=torch.bool) if observation.known is None else observation.known.cpu()
            known = known.broadcast_to(y.shape).reshape(-1)
            return eye[known], known
        shape = observation.operator.pseudo_inverse(y[None]).shape[1:]
        if math.prod(shape) != self.dim:
            raise ValueError(
                f"y of shape {tuple(y.shape)} measures a picture of shape {tuple(shape)}, not {self.dim} entries."
            )
        return observation.operator(eye.reshape(-1, *shape)).reshape(self.dim, -1).T, None

    def sample(self, n: int, generator: torch.Generator | Sequence[torch.Generator] | None = None) -> Tensor:
        """Exact samples, (n, d), of the mixture's dtype.

        Args:
            n: how many.
            generator: one, or a list of one per sample; None seeds one from the operating system.
        """
        if n < 1:
            raise ValueError(f"The number of samples must be at least 1; got {n}.")
        draw = Generators(generator, n)
        blank = torch.empty(n, self.dim, dtype=torch.float64, device=self.vectors.device)
        cumulative = self.log_weights.exp().cumsum(0)
        which = torch.searchsorted(cumulative, draw.uniform(blank[:, 0])).clamp(max=len(self) - 1)
        roots = self.vectors * self.values.sqrt()[:, None, :]
        x = draw.normal(blank)
        if len(roots) == 1:
            x = x @ roots[0].T
        else:
            for k in which.unique().tolist():
                rows = which == k
                x[rows] = x[rows] @ roots[k].T
        return (self.means.double()[which] + x).to(self.means.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Natural logarithm of the density at x, (n, d) or (n,) + any shape of d entries.

        Returns:
            (n,), float64, differentiable.

        Raises:
            ValueError: for another number of entries, or degenerate covariances, which have no density.
        """
        if x.ndim == 0 or x[:1].numel() not in (0, self.dim):
            raise ValueError(f"x must have shape (n, {self.dim}); got {tuple(x.shape)}.")
        if bool((self.values == 0).any()):
            raise ValueError("A degenerate covariance has no density; add noise first with noised(1, sigma).")
        return log_densities(self, x.reshape(-1, self.dim).double()).logsumexp(1)

    def mean(self) -> Tensor:
        """(d,) mean of the mixture."""
        return (self.weights.double() @ self.means.double()).to(self.means.dtype)

    def covariance(self) -> Tensor:
        """(d, d) covariance of the mixture."""
        centred = self.means.double() - self.mean().double()
        between = (centred.T * self.weights.double()) @ centred
        within = torch.einsum("k,kij->ij", self.weights.double(), self.covariances.double())
        return (within + between).to(self.means.dtype)

    def marginal(self, indices: Sequence[int] | Tensor) -> GaussianMixture:
        """The mixture of some entries, in the order given.

        Args:
            indices: of the flattened picture.
        """
        indices = torch.as_tensor(indices, dtype=torch.long, device=self.means.device).reshape(-1)
        if len(indices) == 0 or int(indices.max()) >= self.dim or int(indices.min()) < -self.dim:
            raise ValueError(f"indices must name entries 0 to {self.dim - 1}; got {indices.tolist()}.")
        covariances = self.covariances[:, indices][:, :, indices]
        return self._computed(self.means[:, indices], covariances, self.weights, self.means.dtype)

    def noised(self, alpha: float | Tensor, sigma: float | Tensor) -> GaussianMixture:
        """The law of x_t = alpha x0 + sigma x1."""
        alpha, sigma = float(alpha), float(sigma)
        noise = sigma**2 * torch.eye(self.dim, dtype=self.means.dtype, device=self.means.device)
        return self._computed(alpha * self.means, alpha**2 * self.covariances + noise, self.weights, self.means.dtype)


def _tensor(value: Any) -> Tensor:
    if not torch.is_tensor(value):
        return torch.as_tensor(value, dtype=torch.float64)
    return value.detach() if value.is_floating_point() else value.double()


def _evidence(inner: Tensor, residual: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Pseudo-inverses of S_k, (K, m, m), and ln(w_k N(residual_k; 0, S_k)), (K,).

    A degenerate S_k forbids residuals along its null directions; a component that allows y there is infinitely more
    probable than one with fewer null directions.
    """
    values, vectors = torch.linalg.eigh(inner)
    if not inner.shape[1]:
        return inner, log_weights
    null = values <= _NULL * values[:, -1:].clamp(min=1e-300)
    coordinates = (residual[:, None, :] @ vectors)[:, 0]
    size = residual.abs().amax() + values.max().sqrt()
    allowed = ~((coordinates.abs() > 1e-7 * size) & null).any(1)
    if not bool(allowed.any()):
        raise ValueError("This y has probability 0 under the prior; give it a noise sigma above 0.")
    rank = torch.where(allowed, null.sum(1), -1)
    allowed &= rank == rank.max()
    safe = torch.where(null, 1.0, values)
    energy = torch.where(null, 0.0, coordinates.square() / safe).sum(1)
    logs = log_weights - (energy + safe.log().sum(1) + (~null).sum(1) * math.log(2 * math.pi)) / 2
    scale = torch.where(null, 0.0, 1 / safe)
    return (vectors * scale[:, None, :]) @ vectors.mT, torch.where(allowed, logs, -math.inf)
