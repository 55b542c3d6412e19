"""The Frechet distance between two sets of features, and the patches that patch FID takes them from.

References:
    Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, NeurIPS 2017,
    arXiv:1706.08500, equation 6: |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).
    Merging moments: Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
    COMPSTAT 1982.

The distance is biased upwards where pictures are few: compare numbers of equal counts alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["Moments", "frechet_distance", "patches"]


class Moments:
    """Mean and covariance of features that come in batches, in float64.

    Attributes:
        count: of features seen.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None

    def update(self, features: Tensor) -> Moments:
        """Takes in a batch.

        Args:
            features: (B, d), finite.

        Returns:
            Itself.

        Raises:
            ValueError: if the features have another shape or size than those before, or are not finite.
        """
        if features.ndim != 2 or not len(features):
            raise ValueError(f"Features must be (B, d) with B of 1 or more; got {tuple(features.shape)}.")
        rows = features.detach().to("cpu", torch.float64)
        if not bool(rows.isfinite().all()):
            raise ValueError("A feature is not finite; the picture it comes from is not either.")
        mean = rows.mean(0)
        self._add(len(rows), mean, (rows - mean).T @ (rows - mean))
        return self

    def merge(self, other: Moments) -> Moments:
        """Takes in what another has seen.

        Args:
            other: of features of the same size; unchanged.

        Returns:
            Itself.

        Raises:
            ValueError: if the features have another size.
        """
        if other._mean is not None and other._scatter is not None:
            self._add(other.count, other._mean, other._scatter)
        return self

    @property
    def mean(self) -> Tensor:
        """(d,) float64. ValueError before the first feature."""
        if self._mean is None:
            raise ValueError("There are no features yet; update the moments first.")
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """(d, d) float64, divided by count - 1. ValueError before the second feature."""
        if self._scatter is None or self.count < 2:
            raise ValueError(f"A covariance takes 2 pictures or more; got {self.count}.")
        return self._scatter / (self.count - 1)

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if self._mean is None or self._scatter is None:
            self.count, self._mean, self._scatter = count, mean.clone(), scatter.clone()
            return
        if mean.shape != self._mean.shape:
            raise ValueError(f"Features of {len(mean)} and of {len(self._mean)} entries do not go together.")
        total, apart = self.count + count, mean - self._mean
        self._scatter = self._scatter + scatter + torch.outer(apart, apart) * (self.count * count / total)
        self._mean = self._mean + apart * (count / total)
        self.count = total


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Frechet (2-Wasserstein) distance of the two normal distributions with these moments.

    The trace of (C_a C_b)^(1/2) is that of the symmetric (C_a^(1/2) C_b C_a^(1/2))^(1/2), so eigenvalues stay real
    where there are fewer pictures than features.

    Args:
        a: of 2 features or more.
        b: of features of the same size.

    Returns:
        The distance, not negative.

    Raises:
        ValueError: if the sizes differ, or there are too few.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"Features of {len(a.mean)} and of {len(b.mean)} entries cannot be compared.")
    first, second = a.covariance, b.covariance
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = root @ second @ root
    overlap = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + first.trace() + second.trace() - 2 * overlap
    return max(0.0, float(distance))  # rounding leaves some -1e-12 between equal moments


def patches(pictures: Tensor, size: int = 256, count: int = 10, seed: int = 0, first: int = 0) -> Tensor:
    """Square crops at random places; pictures of equal numbers are cut at equal places, whatever they show.

    So crops of the truth and of what was made are aligned, and do not depend on how pictures are put into batches.

    Args:
        pictures: (B, C, H, W).
        size: side of a crop, pixels.
        count: of crops of each picture.
        seed: of places.
        first: number of the first of these pictures among all.

    Returns:
        (B * count, C, size, size), all crops of the first picture before those of the second.

    Raises:
        ValueError: if the pictures are smaller than the crops.
    """
    height, width = pictures.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"Crops of {size} x {size} pixels do not fit into pictures of {width} x {height}.")
    made = []
    for number, picture in enumerate(pictures, first):
        rng = np.random.default_rng((seed, number))
        tops, lefts = rng.integers(height - size + 1, size=count), rng.integers(width - size + 1, size=count)
        made += [picture[:, y : y + size, x : x + size] for y, x in zip(tops.tolist(), lefts.tolist(), strict=True)]
    return torch.stack(made)
