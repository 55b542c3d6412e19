"""The problems have the posteriors that the reference measurements state."""

from __future__ import annotations

import pytest
import torch

from paintback.priors import correlated16, ding_toy, gaussian_2d, grid25, picture_gaussian, spiral500
from paintback.priors.problems import Problem


def moments(problem: Problem) -> tuple[float, float]:
    return float(problem.posterior.mean()), float(problem.posterior.covariance())


def test_gaussians() -> None:
    assert moments(gaussian_2d()) == pytest.approx((1.54, 0.36))
    mean, variance = moments(ding_toy())
    assert (mean, variance) == pytest.approx((0.960, 0.360), abs=2e-4)
    assert mean == pytest.approx(0.8 * 1.2 / 1.0001)
    assert ding_toy().observation.sigma == 0.01
    assert gaussian_2d().observation.known.tolist() == [False, True]
    assert ding_toy().observation.known.tolist() == [True, False]


@pytest.mark.parametrize(("seed", "y", "mean", "std"), [(0, 0.3, 0.366, 1.043), (1, -0.8, 0.561, 1.376)])
def test_grid(seed: int, y: float, mean: float, std: float) -> None:
    problem = grid25(seed, y)
    found, variance = moments(problem)
    assert (found, variance**0.5) == pytest.approx((mean, std), abs=6e-4)
    assert len(problem.prior) == 25
    assert problem.observation.y[1] == y


def test_spiral() -> None:
    """The posterior by brute force: exact samples of the prior near y."""
    problem = spiral500()
    assert len(problem.prior) == 500
    x = problem.prior.sample(1_000_000, torch.Generator().manual_seed(0))
    near = x[(x[:, 1] - 0.6).abs() < 0.01, 0]
    assert len(near) > 2000
    assert moments(problem) == pytest.approx((float(near.mean()), float(near.var())), abs=0.06)


def test_correlated() -> None:
    problem = correlated16()
    assert problem.posterior.dim == 8
    assert problem.observation.known.tolist() == [True] * 4 + [False] * 8 + [True] * 4
    assert float(problem.prior.covariances[0, 3, 6]) == pytest.approx(0.9**3)
    # a Markov chain: only the nearest known entries, 3 and 12, matter
    y = problem.observation.y
    a, b = 0.9**1, 0.9**8
    ends = torch.tensor([[1.0, 0.9**9], [0.9**9, 1.0]], dtype=torch.float64)
    gain = torch.linalg.solve(ends, torch.tensor([a, b], dtype=torch.float64))
    assert float(problem.posterior.mean()[0]) == pytest.approx(float(gain @ y[[3, 12]]))
    assert torch.equal(correlated16().observation.y, y)
    assert not torch.equal(correlated16(1).observation.y, y)


def test_picture() -> None:
    rows = torch.arange(40, dtype=torch.float64)
    smooth = torch.sin(rows / 5)[:, None] * torch.cos(rows / 7)
    noise = torch.randn(40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = picture_gaussian(smooth + 0.05 * noise)
    assert problem.prior.dim == 64
    assert problem.posterior.dim == 16
    assert problem.observation.y.shape == (1, 8, 8)
    hidden = (~problem.observation.known).nonzero()
    assert hidden[:, 1:].amin(0).tolist() == [2, 2]
    assert hidden[:, 1:].amax(0).tolist() == [5, 5]
    # the patch is the middle of the picture, and neighbours predict it much better than the mean does
    truth = (smooth + 0.05 * noise)[16:24, 16:24]
    assert torch.equal(problem.observation.y[problem.observation.known], truth[None][problem.observation.known])
    hole = truth[2:6, 2:6].reshape(-1)
    prior_error = (problem.prior.mean().reshape(8, 8)[2:6, 2:6].reshape(-1) - hole).square().mean()
    assert (problem.posterior.mean() - hole).square().mean() < 0.1 * prior_error
    colours = picture_gaussian(torch.stack((smooth, smooth + noise, smooth - noise)))
    torch.testing.assert_close(colours.prior.means, picture_gaussian(smooth).prior.means)


def test_picture_errors() -> None:
    with pytest.raises(ValueError, match=r"shape \(H, W\) or \(C, H, W\); got \(4,\)"):
        picture_gaussian(torch.zeros(4))
    with pytest.raises(ValueError, match="10 x 9 picture has too few patches of side 8"):
        picture_gaussian(torch.zeros(9, 10))
