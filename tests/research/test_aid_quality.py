"""AID's guidance against replacement: equal evaluations, paired intervals over pictures."""

from __future__ import annotations

import math

import pytest
import torch

import paintback as pb
from paintback.models.guidance import GuidanceConfig
from paintback.schedules import EDM
from paintback.training.aid import AidTraining, train_aid
from paintback.training.data import Pictures
from research.aid_quality import _interval, measure, table

NETWORK = GuidanceConfig(channels=1, width=8, blocks=2, unshuffle=2, embedding=16)


class Bars(Pictures):
    """8 x 8 pictures, black but for a bright bar."""

    channels, size, count = 1, 8, 6

    def batch(self, seed, step, size):
        rng = torch.Generator().manual_seed(seed * 1000 + step)
        x = torch.full((size, 1, 8, 8), -1.0)
        for row, top in enumerate(torch.randint(6, (size,), generator=rng).tolist()):
            x[row, :, top : top + 2] = 1.0
        return x


@pytest.fixture(scope="module")
def bars():
    """The exact denoiser of the bars."""
    means = torch.full((6, 8, 8), -1.0)
    for top in range(6):
        means[top, top : top + 2] = 1.0
    prior = pb.priors.GaussianMixture(means.flatten(1), 1e-2 * torch.eye(64).expand(6, 64, 64))
    return prior.denoiser(EDM(), shape=(1, 8, 8))


def test_quality_is_measured_at_equal_evaluations(bars, tmp_path):
    training = AidTraining(steps=1, batch=8, rollout=4, watch_every=3, warmup=2, known="replaced")
    path = train_aid(
        bars, Bars(), tmp_path, backbone="bars", network=NETWORK, training=training, resume=False, progress=False
    )
    rows = measure(bars, Bars(), str(path), count=30, steps=4, kinds=("box", "half"), out=tmp_path, progress=False)
    assert [(row.mask, row.method) for row in rows] == [
        (mask, method) for mask in ("box", "half") for method in ("replacement", "replacement, fixed noise", "aid")
    ]
    assert {row.evaluations for row in rows} == {4}
    assert all(row.gain == 0 for row in rows[::3])
    assert all(row.mean_mse < row.mse for row in rows)
    assert table(rows).count("\n") == 7
    assert (tmp_path / "quality-half.png").exists()


def test_crops_of_one_picture_count_as_one():
    values = torch.tensor([[0.0, 1.0], [1.0, 2.0], [4.0, 4.0], [4.0, 6.0]])
    mean, reach = _interval(values, [5, 5, 2, 2])
    assert (mean, reach) == pytest.approx((2.75, 12.706 * (3.5 / 2**0.5) / 2**0.5), rel=1e-4)
    assert _interval(values, [0, 1, 2, 3])[0] == pytest.approx(2.75)
    assert math.isnan(_interval(values, [0, 0, 0, 0])[1])
