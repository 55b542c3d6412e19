"""Crops of pictures for training, cut and changed as one batch on the device that trains.

A crop's cells are means of pixels, of squares of 1/2 to 2 or more pixels of the picture: coarse scales of the
coarse-to-fine policy see whole pictures, fine ones see the soft pixels of a camera or a scanner, which are wider than
what a reduced picture resolves. The changes are what old pictures have: grain, the noise of a scan, blocks of JPEG,
faded or missing colour, the border of a film or a print, flat paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Crops", "augment", "cut", "draw_crops"]

ENLARGED, NATIVE = 0.3, 0.2  # chances of a crop with cells smaller than a pixel, and of one with pixels as cells
SUBSAMPLES = 3  # points along a side over which a cell is averaged
KNOWN = 0.75  # chance that the network is told the place


@dataclass(frozen=True)
class Crops:
    """Where a batch of crops lies, in pixels of the pictures.

    Attributes:
        top: (B,).
        left: (B,).
        cell: (B,) pixels of a cell along a side.
        side: cells of a crop along a side.
        mirror: (B,) bool.
        known: (B,) bool, whether the place is told.
    """

    top: Tensor
    left: Tensor
    cell: Tensor
    side: int
    mirror: Tensor
    known: Tensor

    def places(self, sides: Tensor) -> Tensor:
        """(B, 6) for a `UNet` that takes the place; `sides` is (B, 2), the pictures' heights and widths."""
        height, width = sides.float().T
        extent = self.cell * self.side
        left, right = (2 * edge / width - 1 for edge in (self.left, self.left + extent))
        left, right = torch.where(self.mirror, -right, left), torch.where(self.mirror, -left, right)
        zoom = torch.log2(sides.amin(1).float() / self.cell / 64)
        top, bottom = (2 * edge / height - 1 for edge in (self.top, self.top + extent))
        told = torch.stack((top, left, bottom, right, zoom, torch.ones_like(zoom)), dim=1)
        return torch.where(self.known[:, None], told, 0.0)


def draw_crops(sides: Tensor, side: int, rng: torch.Generator) -> Crops:
    """Draws the place of a crop of every picture.

    Args:
        sides: (B, 2) heights and widths.
        side: cells of a crop along a side.
        rng: of all draws, on the device of `sides`.
    """
    count, device = len(sides), sides.device

    def uniform() -> Tensor:
        return torch.rand(count, generator=rng, device=device)

    largest = sides.amin(1).float() / side  # the whole short side in the crop
    kind, where = uniform(), uniform()
    smaller = 0.5**where  # cells of half a pixel to one pixel
    cell = torch.where(kind < ENLARGED, smaller, largest.clamp(min=1) ** where)
    cell = torch.where((kind >= ENLARGED) & (kind < ENLARGED + NATIVE), torch.ones_like(cell), cell).minimum(largest)
    room = sides.float() - (cell * side)[:, None]
    spots = torch.rand(count, 2, generator=rng, device=device) * room.clamp(min=0)
    return Crops(spots[:, 0], spots[:, 1], cell, side, uniform() < 0.5, uniform() < KNOWN)


def cut(pictures: Tensor, crops: Crops, side: int) -> Tensor:
    """The crops, every cell the mean over its square.

    Args:
        pictures: (B, 3, H, W) uint8, padded to one size.
        crops: of each.
        side: cells along a side.

    Returns:
        (B, 3, side, side) in [-1, 1].
    """
    count, _, rows, columns = pictures.shape
    device = pictures.device
    points = (torch.arange(side * SUBSAMPLES, device=device) + 0.5) / SUBSAMPLES  # in cells
    down = crops.top[:, None] + points * crops.cell[:, None]
    along = torch.where(crops.mirror[:, None], side - points, points)
    along = crops.left[:, None] + along * crops.cell[:, None]
    grid = torch.stack(
        (
            (2 * along / columns - 1)[:, None, :].expand(count, len(points), len(points)),
            (2 * down / rows - 1)[:, :, None].expand(count, len(points), len(points)),
        ),
        dim=-1,
    )
    fine = F.grid_sample(pictures.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(fine, SUBSAMPLES) / 127.5 - 1


def augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Gives some crops what old, scanned and compressed pictures have.

    Args:
        x: (B, 3, S, S) in [-1, 1].
        rng: of all draws, on x's device.

    Returns:
        Of x's shape, in [-1, 1]; rather more than half of the crops are as they were.
    """
    count, device = len(x), x.device

    def uniform(low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=rng, device=device) * (high - low) + low

    def some(chance: float) -> Tensor:
        return uniform() < chance

    def normal() -> Tensor:
        return torch.randn(x.shape, generator=rng, device=device)

    x = torch.where(some(0.10), torch.lerp(x, _soften(x), uniform(0.4, 1.0)), x)
    x = torch.where(some(0.06), _soften(_soften(x)), x)
    x = torch.where(some(0.25), _retone(x, uniform), x)
    x = torch.where(some(0.06), _grey(x), x)
    x = torch.where(some(0.05), _fade(x, uniform), x)
    x = torch.where(some(0.04), _paper(x, uniform), x)
    x = torch.where(some(0.03), _border(x, uniform), x)
    x = torch.where(some(0.06), x + normal() * uniform(0.004, 0.08), x)
    x = torch.where(some(0.05), x + 2.5 * _soften(normal()) * uniform(0.01, 0.06), x)
    x = torch.where(some(0.04), x + normal().mean(1, keepdim=True) * 1.7 * uniform(0.01, 0.08), x)
    x = x.clamp(-1, 1)
    x = torch.where(some(0.10), _jpeg(x, uniform, rng), x)
    return x.clamp(-1, 1)


_Uniform = Callable[..., Tensor]


def _soften(x: Tensor) -> Tensor:
    """The binomial filter (1, 2, 1) / 4 along both sides."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = 0.25 * (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :])
    return 0.25 * (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:])


def _grey(x: Tensor) -> Tensor:
    red, green, blue = x.split(1, dim=1)
    grey: Tensor = (0.299 * red + 0.587 * green + 0.114 * blue).expand_as(x)
    return grey


def _retone(x: Tensor, uniform: _Uniform) -> Tensor:
    """Exposure, contrast and saturation."""
    unit = (0.5 * (x + 1)).clamp(1e-3, 1) ** (2.0 ** uniform(-0.7, 0.7))
    x = 2 * unit - 1
    grey = _grey(x)
    return (grey + (x - grey) * uniform(0.5, 1.4)) * uniform(0.8, 1.15)


def _fade(x: Tensor, uniform: _Uniform) -> Tensor:
    """Little contrast, lifted blacks, a cast."""
    cast = torch.cat([uniform(0.0, 0.25), uniform(-0.05, 0.15), uniform(-0.25, 0.05)], dim=1)
    faded: Tensor = torch.lerp(x, _grey(x), uniform(0.3, 1.0)) * uniform(0.4, 0.8) + uniform(-0.1, 0.3) + cast
    return faded


def _paper(x: Tensor, uniform: _Uniform) -> Tensor:
    """A flat field of any colour, with a slope of light across it and hardly any texture left of the picture."""
    height, width = x.shape[-2:]
    down = torch.linspace(-1, 1, height, device=x.device)[:, None]
    along = torch.linspace(-1, 1, width, device=x.device)
    light = uniform(-0.9, 1.0)
    tint = torch.cat([uniform(-1.0, 1.0) for _ in range(3)], dim=1) * uniform() ** 3
    slope = uniform(-0.15, 0.15) * down + uniform(-0.15, 0.15) * along
    return (light + tint + slope * (uniform() < 0.5) + x * uniform(0.0, 0.04) * (uniform() < 0.5)).clamp(-1, 1)


def _border(x: Tensor, uniform: _Uniform) -> Tensor:
    """A straight border beyond which there is film or paper."""
    height, width = x.shape[-2:]
    down = torch.linspace(-1, 1, height, device=x.device)[:, None]
    along = torch.linspace(-1, 1, width, device=x.device)
    angle = (uniform(0, 4).floor() + uniform(-0.03, 0.03)) * (math.pi / 2)
    beyond = angle.sin() * down + angle.cos() * along - uniform(-0.2, 0.9)
    share = (0.5 + beyond * width / uniform(2.0, 6.0)).clamp(0, 1)
    colour = torch.where(uniform() < 0.5, uniform(-1.0, -0.8), uniform(0.6, 1.0))
    return torch.lerp(x, (colour + 0.1 * uniform(-1.0, 1.0)).expand_as(x), share)


_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip


def _jpeg(x: Tensor, uniform: _Uniform, rng: torch.Generator) -> Tensor:
    """Rounds the blocks' cosine coefficients as JPEG does (ITU-T T.81, annex K), colours with twice the steps."""
    k = torch.arange(8, device=x.device, dtype=torch.float32)
    cosines = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    cosines[0] *= math.sqrt(0.5)
    to_ycc = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], device=x.device)
    quality = uniform(25, 92)
    steps = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = torch.tensor(_LUMINANCE, device=x.device, dtype=torch.float32)
    steps = (steps * table).clamp(min=1) / 127.5
    steps = torch.stack((steps[:, 0], 2 * steps[:, 0], 2 * steps[:, 0]), dim=1)[:, :, None, None]
    shift = list(divmod(rng.initial_seed() * 2_654_435_761 // 128 % 64, 8))  # known without asking the device
    rolled = torch.roll(torch.einsum("yc,bchw->byhw", to_ycc, x), shift, (-2, -1))
    blocks = rolled.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)  # (B, 3, h/8, w/8, 8, 8)
    rounded = torch.round(cosines @ blocks @ cosines.T / steps) * steps
    blocks = (cosines.T @ rounded @ cosines).transpose(-3, -2).flatten(-2).flatten(-3, -2)
    back = torch.linalg.inv(to_ycc)
    return torch.einsum("cy,byhw->bchw", back, torch.roll(blocks, [-one for one in shift], (-2, -1)))
