"""Moments against numpy, the Frechet distance against scipy's square root and closed forms, and aligned patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from paintback.bench.metrics.frechet import Moments, frechet_distance, patches


def features(count, size, seed):
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=rng, dtype=torch.float64)
    return torch.randn(count, size, generator=rng, dtype=torch.float64) @ mix + torch.randn(size, generator=rng)


def test_moments_do_not_depend_on_batches():
    rows = features(57, 6, 0).float() + 1000  # a large mean: sums of squares in float32 would lose the covariance
    whole = Moments().update(rows)
    parts = Moments()
    for batch in rows.split(10):
        parts.update(batch)
    merged = Moments().merge(Moments().update(rows[:1])).merge(Moments().update(rows[1:])).merge(Moments())
    exact = np.cov(rows.double().numpy(), rowvar=False)
    for moments in (whole, parts, merged):
        assert moments.count == 57
        np.testing.assert_allclose(moments.mean, rows.double().mean(0), rtol=1e-13)
        np.testing.assert_allclose(moments.covariance, exact, rtol=1e-9, atol=1e-9)
        assert moments.covariance.dtype == torch.float64


def test_merging_leaves_the_other_alone():
    one, other = Moments().update(features(5, 3, 0)), Moments().update(features(7, 3, 1))
    fresh = Moments().merge(other)
    before = other.mean.clone(), other.covariance.clone()
    fresh.merge(one)
    assert other.count == 7
    assert torch.equal(other.mean, before[0]) and torch.equal(other.covariance, before[1])


@pytest.mark.parametrize(("count", "size"), [(200, 8), (500, 40)])
def test_distance_agrees_with_the_matrix_square_root(count, size):
    a, b = (Moments().update(features(count, size, seed)) for seed in (0, 1))
    root = sqrtm((a.covariance @ b.covariance).numpy())
    assert abs(root.imag).max() < 1e-6
    expected = float((a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace()) - 2 * root.real.trace()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_distance_of_known_distributions():
    rows = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = Moments().update(rows)
    assert frechet_distance(a, Moments().update(rows)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, Moments().update(rows + 2)) == pytest.approx(5 * 4)
    wider = frechet_distance(a, Moments().update(3 * (rows - a.mean) + a.mean))  # tr (3 - 1)^2 C
    assert wider == pytest.approx(4 * float(a.covariance.trace()))


def test_fewer_pictures_than_features():
    """Two sets on different axes share no direction: the overlap is zero, and the traces and means add up."""
    one, other = torch.zeros(10, 30), torch.zeros(12, 30)
    one[:, 0], other[:, 1] = torch.arange(10.0), 2 * torch.arange(12.0)
    a, b = Moments().update(one), Moments().update(other)
    expected = 4.5**2 + 11**2 + float(np.var(range(10), ddof=1) + 4 * np.var(range(12), ddof=1))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_moments_that_cannot_be():
    with pytest.raises(ValueError, match="no features yet"):
        frechet_distance(Moments(), Moments())
    one = Moments().update(torch.ones(1, 4))
    with pytest.raises(ValueError, match="2 pictures or more"):
        frechet_distance(one, one)
    with pytest.raises(ValueError, match="4 entries do not go together"):
        one.update(torch.ones(2, 3))
    with pytest.raises(ValueError, match="cannot be compared"):
        frechet_distance(Moments().update(torch.rand(3, 4)), Moments().update(torch.rand(3, 5)))
    with pytest.raises(ValueError, match="not finite"):
        one.update(torch.tensor([[1.0, 2.0, float("nan"), 3.0]]))
    with pytest.raises(ValueError, match=r"\(B, d\)"):
        one.update(torch.ones(4))
    assert one.count == 1


def test_patches_are_aligned_and_do_not_depend_on_batches():
    place = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij"))
    truth = place.expand(3, -1, -1, -1)
    cut = patches(truth, size=16, count=4, seed=1)
    assert cut.shape == (12, 2, 16, 16)
    corners = cut[:, :, 0, 0]
    for k, (top, left) in enumerate(corners.int().tolist()):
        assert torch.equal(cut[k], place[:, top : top + 16, left : left + 16])
    assert len(corners.unique(dim=0)) == 12
    assert torch.equal(patches(-truth, size=16, count=4, seed=1), -cut)
    assert torch.equal(patches(truth[:1], size=16, count=4, seed=1, first=2), cut[8:])
    assert not torch.equal(patches(truth, size=16, count=4, seed=2), cut)
    assert torch.equal(
        patches(truth[:, :, :40, :40], size=40, count=2, seed=0), truth[:, :, :, :40].repeat_interleave(2, 0)
    )
    with pytest.raises(ValueError, match="do not fit"):
        patches(truth, size=41)


def test_patches_reach_every_place():
    """All tops and lefts come about equally often, the first and the last too."""
    place = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij"))[None]
    cut = patches(place, size=4, count=3000, seed=0)[:, :, 0, 0].int()
    for axis, places in ((0, 3), (1, 4)):
        counts = torch.bincount(cut[:, axis], minlength=places)
        assert len(counts) == places
        assert (counts - 3000 / places).abs().max() < 120
