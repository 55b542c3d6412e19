"""The closed-form problems that methods are measured on: prior, observation, exact posterior.

All are in float64. The letters are those of the measurements in docs: A, B, C, C2, E.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.observation import Observation
from paintback.priors.mixture import GaussianMixture

__all__ = [
    "Problem",
    "correlated16",
    "ding_toy",
    "gaussian_2d",
    "grid25",
    "picture_gaussian",
    "spiral500",
]


class Problem(NamedTuple):
    """A prior, what is seen, and the exact answer.

    Attributes:
        prior: law of the picture.
        observation: what is given of it.
        posterior: exact law of the unknown entries, in order.
    """

    prior: GaussianMixture
    observation: Observation
    posterior: GaussianMixture


def _problem(prior: GaussianMixture, y: Tensor, known: Tensor, sigma: float = 0.0) -> Problem:
    observation = Observation(y, known, sigma)
    return Problem(prior, observation, prior.posterior(observation))


def _pair(hidden_first: bool, value: float) -> tuple[Tensor, Tensor]:
    """Two entries of which one is known to be `value`."""
    known = torch.tensor([not hidden_first, hidden_first])
    return known.double() * value, known


def gaussian_2d(y: float = 1.0) -> Problem:
    """Problem A: N((0.5, -0.3), [[1, 0.8], [0.8, 1]]), the second entry known; the first is N(1.54, 0.36) at y = 1."""
    prior = GaussianMixture([[0.5, -0.3]], [[[1.0, 0.8], [0.8, 1.0]]])
    return _problem(prior, *_pair(True, y))


def ding_toy(y: float = 1.2, sigma: float = 0.01) -> Problem:
    """Problem B: zero mean, unit variances, correlation 0.8, the first entry known with noise; N(0.960, 0.360)."""
    prior = GaussianMixture([[0.0, 0.0]], [[[1.0, 0.8], [0.8, 1.0]]])
    return _problem(prior, *_pair(False, y), sigma)


def grid25(seed: int = 0, y: float = 0.3) -> Problem:
    """Problem C: 25 Gaussians on a 5 x 5 grid over [-2, 2]^2, standard deviation 0.15, the second entry known.

    Seeds of the weights and y: (0, 0.3) is C, with posterior mean 0.366 and standard deviation 1.043; (1, -0.8) is C2,
    with 0.561 and 1.376.

    Args:
        seed: of `numpy.random.default_rng(seed).dirichlet(ones(25))`, the weights; first entry slowest.
        y: the second entry.
    """
    import numpy as np

    axis = torch.linspace(-2, 2, 5, dtype=torch.float64)
    means = torch.cartesian_prod(axis, axis)
    weights = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(25)))
    covariances = (0.15**2 * torch.eye(2, dtype=torch.float64)).repeat(25, 1, 1)
    return _problem(GaussianMixture(means, covariances, weights), *_pair(True, y))


def spiral500(y: float = 0.6, components: int = 500) -> Problem:
    """A two-turn spiral of 500 equal Gaussians, standard deviation 0.05, the second entry known.

    The radius grows evenly from 0.2 to 2 over two turns. The geometry is ours: LanPaint's is not published.
    """
    part = torch.linspace(0, 1, components, dtype=torch.float64)
    angle, radius = 4 * torch.pi * part, 0.2 + 1.8 * part
    means = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1)
    covariances = (0.05**2 * torch.eye(2, dtype=torch.float64)).repeat(components, 1, 1)
    return _problem(GaussianMixture(means, covariances), *_pair(True, y))


def correlated16(seed: int = 0) -> Problem:
    """Problem E: 16 entries of zero mean and covariance 0.9^|i - j|, the four at either end known.

    Args:
        seed: of the sample of the prior whose entries are seen.
    """
    place = torch.arange(16, dtype=torch.float64)
    prior = GaussianMixture(torch.zeros(1, 16).double(), (0.9 ** (place - place[:, None]).abs())[None])
    truth = prior.sample(1, torch.Generator().manual_seed(seed))[0]
    return _problem(prior, truth, (place < 4) | (place >= 12))


def picture_gaussian(picture: Tensor, side: int = 8) -> Problem:
    """The Gaussian of a real picture's patches, a hole in the middle of one patch.

    Mean and covariance are those of all overlapping side x side patches, plus a variance of 1e-4 (noise of 0.01 in a
    picture of range 2) that makes the covariance full rank. The patch in the middle of the picture is observed without
    its central half: side / 2 squared entries are unknown.

    Args:
        picture: (H, W) or (C, H, W), finite; colours are averaged. Use the range [-1, 1].
        side: of a patch, at least 4.

    Returns:
        The problem; y and known have the shape (1, side, side).

    Raises:
        ValueError: for another shape, or a picture with fewer patches than it takes to estimate the covariance.
    """
    if picture.ndim not in (2, 3):
        raise ValueError(f"picture must have shape (H, W) or (C, H, W); got {tuple(picture.shape)}.")
    grey = picture.detach().cpu().double().reshape(-1, *picture.shape[-2:]).mean(0)
    height, width = grey.shape
    if side < 4 or (height - side + 1) * (width - side + 1) <= side**2 or min(height, width) < side:
        raise ValueError(
            f"A {width} x {height} picture has too few patches of side {side} (at least 4); use a larger one."
        )
    patches = F.unfold(grey[None, None], side)[0].T
    covariance = torch.cov(patches.T) + 1e-4 * torch.eye(side**2, dtype=torch.float64)
    prior = GaussianMixture(patches.mean(0)[None], covariance[None])
    top, left = (height - side) // 2, (width - side) // 2
    known = torch.ones(1, side, side, dtype=torch.bool)
    known[:, side // 4 : side - side // 4, side // 4 : side - side // 4] = False
    return _problem(prior, grey[None, top : top + side, left : left + side], known)
