"""Closed-form priors: exact denoiser, exact posterior, exact divergence; what every method is measured against."""

from paintback.priors.distilled import DistilledDenoiser
from paintback.priors.divergence import gaussian_kl, gaussian_w2, histogram_kl, knn_kl
from paintback.priors.exact import MixtureDenoiser
from paintback.priors.mixture import GaussianMixture
from paintback.priors.problems import (
    Problem,
    correlated16,
    ding_toy,
    gaussian_2d,
    grid25,
    picture_gaussian,
    spiral500,
)

__all__ = [
    "DistilledDenoiser",
    "GaussianMixture",
    "MixtureDenoiser",
    "Problem",
    "correlated16",
    "ding_toy",
    "gaussian_2d",
    "gaussian_kl",
    "gaussian_w2",
    "grid25",
    "histogram_kl",
    "knn_kl",
    "picture_gaussian",
    "spiral500",
]
