"""How far samples are from an exact posterior.

`gaussian_kl` looks at mean and covariance only (LanPaint's measure); `histogram_kl` and `knn_kl` see the shape, so
that a wrong weight of a mode counts. Each has a floor that exact samples reach, about the number of fitted numbers over
2 n: (d + d (d + 1) / 2) / (2 n) for `gaussian_kl`, (bins - 1) / (2 n) for `histogram_kl`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paintback.priors.mixture import GaussianMixture

__all__ = ["gaussian_kl", "gaussian_w2", "histogram_kl", "knn_kl"]


def _rows(samples: Tensor, mixture: GaussianMixture, least: int) -> Tensor:
    """Samples as (n, d) float64 on the CPU."""
    if samples.ndim == 0 or len(samples) < least or samples[0].numel() != mixture.dim:
        raise ValueError(
            f"samples must be at least {least} rows of {mixture.dim} entries; got shape {tuple(samples.shape)}."
        )
    if not bool(samples.isfinite().all()):
        raise ValueError("samples hold values that are not finite; the run that made them has diverged.")
    return samples.detach().cpu().double().reshape(-1, mixture.dim)


def _moments(samples: Tensor, mixture: GaussianMixture) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and covariance of the samples, then of the mixture; float64."""
    x = _rows(samples, mixture, 2)
    centred = x - x.mean(0)
    return (
        x.mean(0),
        centred.T @ centred / (len(x) - 1),
        mixture.mean().cpu().double(),
        mixture.covariance().cpu().double(),
    )


def gaussian_kl(samples: Tensor, mixture: GaussianMixture) -> float:
    """KL(Gaussian with the samples' moments || Gaussian with the mixture's moments), in nats.

    Args:
        samples: (n, d), n >= 2, or (n,) + any shape of d entries.
        mixture: the exact law, with a covariance of full rank.

    Returns:
        At least 0; infinite where the samples have no variance in some direction.

    Raises:
        ValueError: for samples of another shape or not finite, or a degenerate exact covariance.
    """
    mean, covariance, exact_mean, exact_covariance = _moments(samples, mixture)
    factor, failed = torch.linalg.cholesky_ex(exact_covariance)
    if bool(failed):
        raise ValueError("The exact covariance is degenerate; compare marginals of full rank, or use gaussian_w2.")
    sign, log_det = torch.linalg.slogdet(covariance)
    if sign <= 0:
        return math.inf
    ratio = torch.cholesky_solve(covariance, factor).trace()
    shift = torch.cholesky_solve((mean - exact_mean)[:, None], factor)[:, 0] @ (mean - exact_mean)
    exact_log_det = 2 * factor.diagonal().log().sum()
    return float(ratio + shift - mixture.dim + exact_log_det - log_det) / 2


def gaussian_w2(samples: Tensor, mixture: GaussianMixture) -> float:
    """Wasserstein-2 distance between the Gaussians with the samples' and the mixture's moments, in the units of x.

    Args:
        samples: (n, d), n >= 2, or (n,) + any shape of d entries.
        mixture: the exact law; may be degenerate.

    Returns:
        sqrt(|m - m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2)).

    Raises:
        ValueError: for samples of another shape or not finite.
    """
    mean, covariance, exact_mean, exact_covariance = _moments(samples, mixture)
    values, vectors = torch.linalg.eigh(exact_covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
    square = (mean - exact_mean).square().sum() + covariance.trace() + exact_covariance.trace() - 2 * cross
    return math.sqrt(max(0.0, float(square)))


def histogram_kl(
    samples: Tensor,
    mixture: GaussianMixture,
    bins: int = 61,
    low: float = -3.0,
    high: float = 3.0,
    floor: float = 1e-6,
) -> float:
    """KL(histogram of the samples || exact probabilities of its bins) in one dimension, in nats.

    Args:
        samples: (n,) or (n, 1).
        mixture: the exact law, d = 1.
        bins: number of equal bins.
        low: lower end of the first bin; what lies below counts in it.
        high: upper end of the last bin; what lies above counts in it.
        floor: least probability of a bin, of either.

    Returns:
        The divergence.

    Raises:
        ValueError: for d other than 1, samples of another shape or not finite, or bins that make no histogram.
    """
    if mixture.dim != 1:
        raise ValueError(f"A histogram needs one dimension; got {mixture.dim}: use knn_kl, or a marginal.")
    if bins < 1 or not low < high:
        raise ValueError(f"A histogram needs bins >= 1 and low < high; got {bins}, {low}, {high}.")
    x = _rows(samples, mixture, 1)[:, 0]
    which = ((x - low) * (bins / (high - low))).floor().clamp(0, bins - 1).long()
    found = torch.bincount(which, minlength=bins).double() / len(x)
    inner = torch.linspace(low, high, bins + 1, dtype=torch.float64)[1:-1]
    deviation = mixture.covariances.cpu().double()[:, 0, 0].sqrt().clamp(min=1e-150)
    below = torch.special.ndtr((inner - mixture.means.cpu().double()) / deviation[:, None])
    cumulative = mixture.weights.cpu().double() @ below
    exact = torch.cat((torch.zeros(1), cumulative, torch.ones(1))).diff()
    return float((found * (found.clamp(min=floor) / exact.clamp(min=floor)).log()).sum())


def knn_kl(samples: Tensor, mixture: GaussianMixture, neighbours: int = 5) -> float:
    """KL(law of the samples || mixture) from nearest-neighbour distances, in nats; for d >= 2, where bins fail.

    The samples' entropy is estimated by Kozachenko and Leonenko, ln V_d + psi(n) - psi(k) + d mean ln r_k with r_k the
    distance to the k-th neighbour; the mixture's density is exact (Wang, Kulkarni and Verdu, IEEE Transactions on
    Information Theory 55, 2009, with one density known).

    Args:
        samples: (n, d), n > neighbours.
        mixture: the exact law, with covariances of full rank.
        neighbours: k; more for less variance and more bias.

    Returns:
        The estimate; it may fall a little below 0.

    Raises:
        ValueError: for samples of another shape or not finite, or a degenerate mixture.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1; got {neighbours}.")
    x = _rows(samples, mixture, neighbours + 1)
    n, dim = x.shape
    digamma = torch.special.digamma(torch.tensor([n, neighbours], dtype=torch.float64))
    log_ball = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)
    # equal samples have distance 0: no density at all, so a very large divergence and no infinity in the mean
    log_distance = _distances(x, neighbours).clamp(min=1e-100).log().mean()
    entropy = log_ball + digamma[0] - digamma[1] + dim * log_distance
    return float(-entropy - mixture.log_prob(x).cpu().mean())


def _distances(x: Tensor, neighbours: int) -> Tensor:
    """(n,) distance of every row to its k-th neighbour."""
    from scipy.spatial import cKDTree

    array = x.numpy()
    return torch.as_tensor(cKDTree(array).query(array, k=[neighbours + 1])[0][:, 0])
