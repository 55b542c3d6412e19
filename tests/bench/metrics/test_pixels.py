"""PSNR, SSIM and diversity against numpy, scikit-image and values known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from paintback.bench.metrics import pixels


@pytest.fixture(params=[(1, 32, 32), (3, 40, 29)], ids=["grey", "colour"])
def pair(request):
    """Three smooth pictures, noisy copies, and holes of different sizes: one of them at the picture's corner."""
    channels, height, width = request.param
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, channels, 6, 5, generator=rng)
    truth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    made = (truth + 0.1 * torch.randn(truth.shape, generator=rng)).clamp(0, 1)
    hole = torch.zeros(3, 1, height, width, dtype=torch.bool)
    hole[0, :, :9, :7] = True
    hole[1, :, 10:20, 5:25] = True
    hole[2] = torch.rand(1, height, width, generator=rng) < 0.3
    return truth, made, hole


def test_psnr_is_that_of_the_chosen_entries(pair):
    truth, made, hole = pair
    expected = [
        peak_signal_noise_ratio(t[where].numpy(), m[where].numpy(), data_range=1)
        for t, m, where in zip(truth.double(), made.double(), hole.expand_as(truth), strict=True)
    ]
    assert pixels.psnr(truth, made, hole).tolist() == pytest.approx(expected, abs=1e-9)
    assert pixels.psnr(truth, made, ~hole).tolist() == pixels.context_psnr(truth, made, hole).tolist()
    outside = made.clone()
    outside[~hole.expand_as(made)] = 0
    assert pixels.psnr(truth, outside, hole).tolist() == pytest.approx(expected, abs=1e-9)


def test_a_constant_error_has_the_psnr_of_its_size():
    truth = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
    where = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    assert pixels.psnr(truth, truth + 0.1, where).item() == pytest.approx(20)
    assert pixels.psnr(truth, truth, where).item() == pixels.CAP == 100
    assert pixels.psnr(truth, truth + 1e-6, where).item() == 100  # 120 dB without the cap


def test_the_released_context_psnr_divides_by_pixels(pair):
    truth, made, hole = pair
    standard, released = (f(truth, made, hole) for f in (pixels.context_psnr, pixels.context_psnr_released))
    below = 10 * math.log10(truth.shape[1])
    assert (standard - released).tolist() == pytest.approx([below] * 3, abs=1e-9)
    assert below == (0 if truth.shape[1] == 1 else pytest.approx(4.77, abs=0.002))
    filled = torch.where(hole, made, truth)
    assert pixels.context_psnr_released(truth, filled, hole).tolist() == [100] * 3


def test_ssim_agrees_with_scikit_image(pair):
    truth, made, hole = pair
    expected = []
    for t, m, where in zip(truth.double(), made.double(), hole, strict=True):
        _, values = structural_similarity(
            t.numpy(), m.numpy(), channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        expected.append(values[np.broadcast_to(where.numpy(), values.shape)].mean())
    assert pixels.ssim(truth, made, hole).tolist() == pytest.approx(expected, abs=1e-10)
    assert max(expected) < 0.9
    assert pixels.ssim(truth, truth, hole).tolist() == pytest.approx([1] * 3, abs=1e-12)


def test_diversity_is_the_spread_in_the_hole():
    rng = torch.Generator().manual_seed(0)
    samples = torch.rand(2, 5, 3, 12, 10, generator=rng)
    hole = torch.rand(2, 1, 12, 10, generator=rng) < 0.4
    expected = [
        255 * np.sqrt(np.var(one.numpy()[:, :, where[0].numpy()].astype(float), axis=0, ddof=1).mean())
        for one, where in zip(samples, hole, strict=True)
    ]
    assert pixels.diversity(samples, hole).tolist() == pytest.approx(expected, rel=1e-9)
    normal = 0.1 * torch.randn(1, 400, 1, 20, 20, generator=rng, dtype=torch.float64)
    everywhere = torch.ones(1, 1, 20, 20, dtype=torch.bool)
    assert pixels.diversity(normal, everywhere).item() == pytest.approx(25.5, rel=0.01)
    assert pixels.diversity(samples[:, :1].expand(-1, 3, -1, -1, -1), hole).tolist() == [0, 0]


def test_what_cannot_be_measured_is_said():
    x = torch.rand(2, 3, 16, 16)
    hole = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    hole[0] = True
    for metric in (pixels.psnr, pixels.ssim, pixels.context_psnr, pixels.context_psnr_released):
        with pytest.raises(ValueError, match="no pixel to measure"):
            metric(x, x, hole)
    with pytest.raises(ValueError, match="one shape"):
        pixels.psnr(x, x[:, :1], hole)
    with pytest.raises(ValueError, match="must be bool"):
        pixels.psnr(x, x, hole.float())
    with pytest.raises(ValueError, match="must be bool"):
        pixels.ssim(x, x, hole[:1])
    with pytest.raises(ValueError, match="at least 5 x 5"):
        pixels.ssim(x[..., :4], x[..., :4], torch.ones(2, 1, 16, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="S of 2 or more"):
        pixels.diversity(x[:, None], hole)


def test_seam_step_is_the_jump_at_the_border_and_not_texture():
    hole = torch.zeros(2, 1, 48, 64, dtype=torch.bool)
    hole[..., 16:40, 8:50] = True
    made = torch.full((2, 3, 48, 64), 0.4)
    made[1] += torch.where(hole[1], 0.1, 0.0)
    assert pixels.seam_step(made, hole).tolist() == pytest.approx([0.0, 0.1], abs=1e-6)
    rough = made + 0.1 * torch.randn(made.shape, generator=torch.Generator().manual_seed(0))
    quiet, jump = pixels.seam_step(rough, hole).tolist()
    assert quiet < 0.05 and 0.09 < jump < 0.13
    with pytest.raises(ValueError, match="no border"):
        pixels.seam_step(made, torch.ones_like(hole))
