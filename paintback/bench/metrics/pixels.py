"""Metrics of pixels: PSNR where one asks, SSIM in the hole, how much samples of one hole differ.

References:
    SSIM: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE Transactions on
    Image Processing 13(4), 2004, equation 13, with the paper's Gaussian window of 11 pixels and sigma 1.5.
    Context PSNR: Moufad et al., Efficient Zero-shot Inpainting with Decoupled Diffusion Guidance, ICLR 2026,
    arXiv:2512.18365.

Pictures are (B, C, H, W) floats in [0, 1], holes (B, 1, H, W) bool, True = painted. All sums are in float64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CAP", "context_psnr", "context_psnr_released", "diversity", "psnr", "seam_step", "ssim"]

CAP = 100.0  # dB: what a PSNR is at most, so that the mean over pictures stays finite where some are equal
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr(truth: Tensor, made: Tensor, where: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of every picture, -10 log10 of the mean squared error.

    Args:
        truth: (B, C, H, W) in [0, 1].
        made: of truth's shape.
        where: (B, 1, H, W) bool, True = counted.

    Returns:
        (B,) float64, in dB; at most `CAP`, in place of infinity where the two are equal.

    Raises:
        ValueError: if the shapes do not fit, or nothing is to be counted in some picture.
    """
    _check(truth, made, where)
    return _decibel(_squares(truth, made, where) / (truth.shape[1] * where.sum((1, 2, 3))))


def context_psnr(truth: Tensor, made: Tensor, hole: Tensor) -> Tensor:
    """PSNR over the known pixels: (B,), in dB, at most `CAP`; arguments and errors as of `psnr`."""
    return psnr(truth, made, ~hole)


def context_psnr_released(truth: Tensor, made: Tensor, hole: Tensor) -> Tensor:
    """The context PSNR that DING's released code computes, for comparison with the numbers in its tables.

    The squared error is summed over the channels and divided by the number of pixels, not of entries: of colour
    pictures it is 10 log10(3) = 4.77 dB below `context_psnr`. Of grey ones the two are equal.

    Args:
        truth: (B, C, H, W) in [0, 1].
        made: of truth's shape.
        hole: (B, 1, H, W) bool.

    Returns:
        (B,) float64, in dB, at most `CAP`.

    Raises:
        ValueError: as of `psnr`.
    """
    _check(truth, made, ~hole)
    return _decibel(_squares(truth, made, ~hole) / (~hole).sum((1, 2, 3)))


def seam_step(made: Tensor, hole: Tensor, block: int = 16) -> Tensor:
    """How far the colours jump at the border of the hole: what the eye sees as a seam.

    The differences of neighbours of which one is painted, painted minus known, are averaged over blocks, so that
    texture cancels and a jump does not; what comes out is the root mean square of the blocks' means. A picture without
    a seam has a little of it too, where its own edges run along the border.

    Args:
        made: (B, C, H, W) in [0, 1].
        hole: (B, 1, H, W) bool.
        block: pixels along a side.

    Returns:
        (B,) float64, in parts of white.

    Raises:
        ValueError: if the shapes do not fit, or the hole has no border in some picture.
    """
    _check(made, made, hole)
    pad = (0, -made.shape[-1] % block, 0, -made.shape[-2] % block)
    jumps, counts = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for axis in (-2, -1):
        side = hole.to(torch.float64).diff(dim=axis)  # 1 where the second of a pair is painted, -1 where the first is
        missing = (0, 0, 0, 1) if axis == -2 else (0, 1)
        jump, pairs = (F.pad(part, missing) for part in (side * made.double().diff(dim=axis), side.abs()))
        jumps = jumps + F.avg_pool2d(F.pad(jump, pad), block)
        counts = counts + F.avg_pool2d(F.pad(pairs, pad), block)
    if not bool((counts.sum((1, 2, 3)) > 0).all()):
        raise ValueError("The hole has no border inside some picture; give one that leaves something known.")
    squares = torch.where(counts > 0, jumps.square() / counts.clamp(min=1e-12), 0.0)
    return (squares.mean(1, keepdim=True).sum((1, 2, 3)) / counts.sum((1, 2, 3))).sqrt()


def ssim(truth: Tensor, made: Tensor, hole: Tensor) -> Tensor:
    """Structural similarity, averaged over the hole's pixels and the channels.

    Every pixel's value comes from the window around it, so that near the hole's edge known pixels take part. At the
    picture's edge the window sees the mirrored picture, as in scikit-image. Data range 1, variances not corrected for
    the sample's size.

    Args:
        truth: (B, C, H, W) in [0, 1].
        made: of truth's shape.
        hole: (B, 1, H, W) bool.

    Returns:
        (B,) float64, at most 1.

    Raises:
        ValueError: if the shapes do not fit, a picture is smaller than half the window, or a hole is empty.
    """
    _check(truth, made, hole)
    if min(truth.shape[-2:]) < WINDOW // 2:
        raise ValueError(
            f"SSIM's window takes pictures of at least {WINDOW // 2} x {WINDOW // 2} pixels; got "
            f"{truth.shape[-1]} x {truth.shape[-2]}."
        )
    x, y = truth.double(), made.double()
    mean_x, mean_y, xx, yy, xy = _blurred(torch.stack((x, y, x * x, y * y, x * y)).flatten(0, 1)).chunk(5)
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    values = ((2 * mean_x * mean_y + C1) * (2 * cov + C2)) / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))
    total: Tensor = (values * hole).sum((1, 2, 3)) / (truth.shape[1] * hole.sum((1, 2, 3)))
    return total


def diversity(samples: Tensor, hole: Tensor) -> Tensor:
    """How much samples of one hole differ: the root of the mean, over the hole, of their variance (ddof 1).

    Args:
        samples: (B, S, C, H, W) in [0, 1], S samples of every hole.
        hole: (B, 1, H, W) bool.

    Returns:
        (B,) float64, in grey levels of 255.

    Raises:
        ValueError: if there is but one sample, the shapes do not fit, or a hole is empty.
    """
    if samples.ndim != 5 or samples.shape[1] < 2:
        raise ValueError(f"Diversity takes (B, S, C, H, W) with S of 2 or more; got {tuple(samples.shape)}.")
    _check(samples[:, 0], samples[:, 0], hole)
    variance = samples.double().var(1, correction=1)
    return ((variance * hole).sum((1, 2, 3)) / (samples.shape[2] * hole.sum((1, 2, 3)))).sqrt() * 255


def _check(truth: Tensor, made: Tensor, where: Tensor) -> None:
    if truth.ndim != 4 or truth.shape != made.shape:
        raise ValueError(
            f"The pictures must have one shape (B, C, H, W); got {tuple(truth.shape)} and {tuple(made.shape)}."
        )
    wanted = (len(truth), 1, *truth.shape[-2:])
    if tuple(where.shape) != wanted or where.dtype != torch.bool:
        raise ValueError(f"The mask must be bool, {wanted}; got {where.dtype}, {tuple(where.shape)}.")
    if not bool(where.flatten(1).any(1).all()):
        raise ValueError("A picture has no pixel to measure: its hole is empty, or it is all hole; leave it out.")


def _squares(truth: Tensor, made: Tensor, where: Tensor) -> Tensor:
    return ((truth.double() - made.double()).square() * where).sum((1, 2, 3))


def _decibel(error: Tensor) -> Tensor:
    return -10 * error.clamp(min=10 ** (-CAP / 10)).log10()


def _blurred(x: Tensor) -> Tensor:
    """(B, C, H, W) under the Gaussian window, the edge mirrored with the outermost pixel twice."""
    reach = WINDOW // 2
    window = [math.exp(-0.5 * (place / SIGMA) ** 2) for place in range(-reach, reach + 1)]
    for axis in (-2, -1):
        side = x.shape[axis]
        near, far = x.narrow(axis, 0, reach), x.narrow(axis, side - reach, reach)
        wide = torch.cat((near.flip(axis), x, far.flip(axis)), axis)
        x = torch.zeros_like(x)
        for start, weight in enumerate(window):  # seven times faster than conv2d in float64
            x.add_(wide.narrow(axis, start, side), alpha=weight / sum(window))
    return x
