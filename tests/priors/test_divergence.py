"""Divergences: analytic values, and the floor that exact samples reach."""

from __future__ import annotations

import math

import pytest
import torch

from paintback.priors import GaussianMixture, gaussian_kl, gaussian_w2, histogram_kl, knn_kl
from paintback.priors.problems import gaussian_2d, grid25


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(mean: list[float], covariance: list[list[float]]) -> GaussianMixture:
    return GaussianMixture([mean], [covariance])


COVARIANCE = [[1.0, 0.8], [0.8, 1.0]]


def test_gaussian_kl_and_w2_of_known_moments() -> None:
    """Samples whose moments are exact, so that the values are too."""
    root = 3.0**0.5 / 2  # four points with mean 0 and unit covariance (divisor n - 1)
    cross = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64) * root
    target = gaussian([1.0, -2.0], [[4.0, 0.0], [0.0, 0.25]])
    # KL(N(0, I) || N(m, C)) = (tr C^-1 + m' C^-1 m - 2 + ln det C) / 2
    assert gaussian_kl(cross, target) == pytest.approx(((0.25 + 4) + (0.25 + 16) - 2 + 0.0) / 2)
    # W2^2 = |m|^2 + sum (1 - std)^2
    assert gaussian_w2(cross, target) == pytest.approx(math.sqrt(5 + 1 + 0.25))
    assert gaussian_kl(cross, gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(0, abs=1e-12)
    # correlated: W2 of N(0, I) and N(0, C) is sqrt(sum (1 - sqrt(eigenvalue))^2)
    expected = math.sqrt((1 - 1.8**0.5) ** 2 + (1 - 0.2**0.5) ** 2)
    assert gaussian_w2(cross, gaussian([0.0, 0.0], COVARIANCE)) == pytest.approx(expected)


def test_gaussian_kl_is_moment_matched_for_mixtures() -> None:
    mixture = GaussianMixture([[-1.0], [1.0]], [[[0.5]], [[0.5]]])
    x = math.sqrt(1.5) * torch.randn(100_000, 1, generator=generator(), dtype=torch.float64)
    assert gaussian_kl(x, mixture) < 1e-4  # the same mean and variance, though the law differs
    assert histogram_kl(x, mixture, low=-4, high=4) > 0.02


@pytest.mark.parametrize("kl", [gaussian_kl, knn_kl])
def test_kl_of_a_shifted_gaussian(kl: object) -> None:
    """KL(N(m, C) || N(0, C)) = m' C^-1 m / 2, for both estimators, to their accuracy at 20,000 samples."""
    target = gaussian([0.0, 0.0], COVARIANCE)
    shift = torch.tensor([0.5, -0.3], dtype=torch.float64)
    exact = float(shift @ torch.linalg.solve(target.covariances[0], shift)) / 2
    x = target.sample(20_000, generator(1)) + shift
    assert exact > 0.8  # far above the tolerance
    assert kl(x, target) == pytest.approx(exact, abs=0.05)  # type: ignore[operator]


def test_histogram_kl_of_a_shifted_gaussian() -> None:
    target = gaussian([0.0], [[1.0]])
    x = target.sample(50_000, generator(1)) + 0.6
    assert histogram_kl(x, target, low=-5, high=5) == pytest.approx(0.18, abs=0.02)


def test_floors_of_exact_samples() -> None:
    """A .00006 and C .0013 at 20,000 samples, as measured for the peers; means over seeds."""
    a, c = gaussian_2d().posterior, grid25().posterior
    floor_a = sum(gaussian_kl(a.sample(20_000, generator(s)), a) for s in range(20)) / 20
    floor_c = sum(histogram_kl(c.sample(20_000, generator(s)), c) for s in range(10)) / 10
    assert 2e-5 < floor_a < 1e-4
    assert 0.0009 < floor_c < 0.0018
    prior = grid25().prior
    assert abs(knn_kl(prior.sample(20_000, generator(3)), prior)) < 0.05


def test_histogram_bins_and_tails() -> None:
    """Two bins by hand: everything outside counts in the end bins, and absent mass costs nothing."""
    target = gaussian([0.0], [[1.0]])
    x = torch.tensor([-99.0, -0.5, -0.1, 99.0], dtype=torch.float64)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert histogram_kl(x, target, bins=2, low=-1, high=1) == pytest.approx(expected)
    assert histogram_kl(x[:, None], target, bins=2, low=-1, high=1) == pytest.approx(expected)
    far = gaussian([0.0], [[1e-6]])
    assert histogram_kl(torch.full((5,), 2.9), far) == pytest.approx(-math.log(1e-6))  # the floor


def test_histogram_of_a_point_mass() -> None:
    point = gaussian([0.55], [[0.0]])
    assert histogram_kl(torch.full((4,), 0.55), point) == pytest.approx(0, abs=1e-9)


def test_histogram_sees_a_wrong_weight_of_a_mode() -> None:
    exact = GaussianMixture([[-1.0], [1.0]], [[[0.01]], [[0.01]]], [0.3, 0.7])
    wrong = GaussianMixture([[-1.0], [1.0]], [[[0.01]], [[0.01]]], [0.5, 0.5])
    expected = 0.5 * math.log(0.5 / 0.3) + 0.5 * math.log(0.5 / 0.7)
    assert histogram_kl(wrong.sample(50_000, generator()), exact) == pytest.approx(expected, abs=0.01)
    means, covariances = [[-1.0, 0.0], [1.0, 0.0]], [[[0.01, 0.0], [0.0, 0.01]]] * 2
    x = GaussianMixture(means, covariances, [0.5, 0.5]).sample(20_000, generator())
    assert knn_kl(x, GaussianMixture(means, covariances, [0.3, 0.7])) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("neighbours", [1, 5])
def test_knn_takes_the_kth_neighbour(neighbours: int) -> None:
    """The estimator written out over all pairs of points."""
    target = gaussian([0.0, 0.0], COVARIANCE)
    x, n = target.sample(300, generator(2)), 300
    distance = (x[:, None] - x).square().sum(2).sqrt().sort(1).values[:, neighbours]
    harmonic = sum(1 / i for i in range(1, n)) - sum(1 / i for i in range(1, neighbours))  # psi(n) - psi(k)
    entropy = math.log(math.pi) + harmonic + 2 * float(distance.log().mean())
    assert knn_kl(x, target, neighbours) == pytest.approx(-entropy - float(target.log_prob(x).mean()), abs=1e-9)


def test_collapsed_samples() -> None:
    target = gaussian([0.0, 0.0], COVARIANCE)
    x = torch.zeros(100, 2, dtype=torch.float64)
    assert gaussian_kl(x, target) == math.inf
    assert knn_kl(x, target) > 100
    assert gaussian_w2(x, target) == pytest.approx(math.sqrt(2))


def test_errors() -> None:
    target = gaussian([0.0, 0.0], COVARIANCE)
    flat = gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 0.0]])
    x = target.sample(10, generator())
    with pytest.raises(ValueError, match=r"at least 2 rows of 2 entries; got shape \(10, 1\)"):
        gaussian_kl(x[:, :1], target)
    with pytest.raises(ValueError, match="at least 6 rows"):
        knn_kl(x[:5], target)
    with pytest.raises(ValueError, match="not finite"):
        gaussian_w2(torch.full((3, 2), math.nan), target)
    with pytest.raises(ValueError, match="exact covariance is degenerate"):
        gaussian_kl(x, flat)
    with pytest.raises(ValueError, match="needs one dimension; got 2"):
        histogram_kl(x, target)
    with pytest.raises(ValueError, match="low < high"):
        histogram_kl(x[:, 0], gaussian([0.0], [[1.0]]), low=1, high=1)
    with pytest.raises(ValueError, match="neighbours must be at least 1"):
        knn_kl(x, target, neighbours=0)
