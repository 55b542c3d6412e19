"""Tiles, where the network need not or cannot see at once what is sampled as one.

There are no seams of the sampling: the network alone sees overlapping tiles, inside the denoiser. `TiledDenoiser` shows
all of a picture that is too large, `HoleTiles` of any crop only what lies around a thin hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paintback.denoiser import Denoiser, Prediction, predict
from paintback.images.masks import Mask
from paintback.images.regions import Box
from paintback.schedules import Time
from paintback.stopping import check

__all__ = ["TOGETHER", "HoleTiles", "TiledDenoiser", "Tiles", "cover", "tiled"]

_Place = tuple[int, int, int, int, int]  # row of the batch, of the pictures, top, left, side

WHOLE = 2**20  # a picture of more pixels is shown to the network in tiles
TILE, OVERLAP = 512, 64
WORTH = 0.75  # of a crop's cells: tiles that hold more save nothing
TOGETHER = 2**17  # cells of the tiles that go through the network at once: no more is faster, and memory is bounded


class TiledDenoiser(Denoiser):
    """A denoiser of pictures of any size that shows its model overlapping tiles and blends the answers.

    Averaging overlapping predictions: Bar-Tal et al., MultiDiffusion, ICML 2023, arXiv:2302.08113; the weights, which
    fall linearly to the borders of a tile, are ours. Tiles bound the memory of an evaluation, not that of a gradient.

    Args:
        inner: the model, of no fixed size.
        tile: side of a tile.
        overlap: of neighbours, at least.
        multiple: tiles begin at multiples of this.

    Raises:
        ValueError: for tiles that do not fit.
    """

    def __init__(self, inner: Denoiser, tile: int = TILE, overlap: int = OVERLAP, multiple: int = 8) -> None:
        super().__init__(inner.schedule)
        if tile < multiple or tile % multiple or not 0 <= overlap <= tile - multiple:
            raise ValueError(
                f"tile must be a multiple of {multiple} and exceed overlap by one; got {tile} and {overlap}."
            )
        self.inner, self.codec, self.condition = inner, inner.codec, inner.condition
        self.tile, self.overlap, self.multiple = tile, overlap, multiple

    def predict(self, x: Tensor, time: Time) -> Prediction:
        down, across = (self._begins(side) for side in x.shape[-2:])
        if len(down) == len(across) == 1:
            return self.inner.predict(x, time)
        x0, total, rows = torch.zeros_like(x), torch.zeros_like(x[:1, :1]), 0
        ramps = [self._ramp(min(self.tile, side), x.device) for side in x.shape[-2:]]
        weight = (ramps[0][:, None] * ramps[1]).to(x)
        for top in down:
            for left in across:
                here = (..., slice(top, top + self.tile), slice(left, left + self.tile))
                check()
                part = self.inner.predict(x[here], time)
                x0[here] += weight * part.x0
                total[here] += weight
                rows += part.rows or len(x)
        x0 = x0 / total
        x1 = (x - time.alpha * x0) / time.sigma if time.sigma else torch.zeros_like(x)
        return Prediction(x0, x1, rows=rows)

    def grid(self, num_inference_steps: int) -> Tensor | None:
        return self.inner.grid(num_inference_steps)

    def with_condition(self, condition: Tensor) -> Denoiser:
        return TiledDenoiser(self.inner.with_condition(condition), self.tile, self.overlap, self.multiple)

    def _begins(self, side: int) -> list[int]:
        """Where the tiles along a side begin, spread evenly."""
        last = max(0, side - self.tile)
        count = 1 + -(-last // (self.tile - self.overlap))
        return sorted(
            {last * k // max(1, count - 1) // self.multiple * self.multiple for k in range(count - 1)} | {last}
        )

    def _ramp(self, side: int, device: torch.device) -> Tensor:
        distance = torch.arange(side, device=device) + 1.0
        return torch.minimum(distance, distance.flip(0)).clamp(max=self.overlap + 1)


@dataclass(frozen=True)
class Tiles:
    """Squares of one size that hold a hole and what lies around it.

    Attributes:
        side: of each, in cells.
        corners: (top, left) of each in its crop.
    """

    side: int
    corners: tuple[tuple[int, int], ...]

    @property
    def cells(self) -> int:
        """Of all of them."""
        return len(self.corners) * self.side**2


def cover(part: Mask, sides: Sequence[int], margin: int) -> Tiles | None:
    """Few tiles of one size around all of a hole; None where they would hold nearly all of the crop.

    Args:
        part: bool (H, W), the hole in its crop.
        sides: of the tiles, to choose from.
        margin: cells between the hole and the border of the tile that is responsible for it, except where the crop
            ends.
    """
    found = [Tiles(side, _corners(part, side, margin)) for side in sides if 2 * margin < side <= min(part.shape)]
    best = min(found, key=lambda tiles: tiles.cells, default=None)
    return None if best is None or best.cells > WORTH * part.size else best


def _corners(part: Mask, side: int, margin: int) -> tuple[tuple[int, int], ...]:
    """The next tile takes what it can of the topmost band that is left, leftmost first, and has it in its middle."""
    points, corners = np.argwhere(part), []
    last, core = np.array(part.shape) - side, side - 2 * margin
    while len(points):
        band = points[: np.searchsorted(points[:, 0], points[0, 0] + core)]  # they are sorted by rows
        taken = band[band[:, 1] < band[:, 1].min() + core]
        corner = np.clip((taken.min(0) + taken.max(0) + 1 - side) // 2, 0, last)
        low = np.where(corner == 0, 0, corner + margin)
        high = np.where(corner == last, part.shape, corner + side - margin)
        corners.append((int(corner[0]), int(corner[1])))
        near = np.searchsorted(points[:, 0], high[0])
        inside = ((points[:near] >= low) & (points[:near] < high)).all(1)
        points = np.concatenate([points[:near][~inside], points[near:]])
    return tuple(corners)


class HoleTiles(Denoiser):
    """A denoiser that shows its network only the tiles around thin holes, as many at once as memory allows.

    Where tiles overlap their answers are blended as by `TiledDenoiser`. Outside of all tiles x0 is what is given there,
    and 0 where nothing is: no tile sees it.

    Args:
        inner: the model, of no fixed size.
        tiles: of each row of the batch.
        values: (B, C, H, W) what is given, 0 where nothing is.
        boxes: where each row's crop lies in its picture, one cell to a pixel.
        shapes: (H, W) of each row's picture.
    """

    def __init__(
        self,
        inner: Denoiser,
        tiles: Sequence[Tiles],
        values: Tensor,
        boxes: Sequence[Box],
        shapes: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__(inner.schedule)
        self.inner, self.codec, self.condition = inner, inner.codec, inner.condition
        self.tiles, self.values, self.boxes, self.shapes = tiles, values, boxes, shapes
        self._laid_out: dict[int, list[tuple[list[_Place], Denoiser]]] = {}

    def predict(self, x: Tensor, time: Time) -> Prediction:
        if time.sigma == 0:
            return self.inner.predict(x, time)
        each = len(x) // len(self.tiles)  # a row's multiples lie next to each other
        x0, total, rows = torch.zeros_like(x), torch.zeros_like(x[:, :1]), 0
        for chosen, inner in self._places(each):
            side = chosen[0][-1]
            distance = torch.arange(side, device=x.device)
            ramp = torch.minimum(distance + 1.0, side - distance + 0.0)
            weight = (ramp[:, None] * ramp).to(x)
            check()
            here = [(row, slice(None), slice(t, t + side), slice(left, left + side)) for row, _, t, left, _ in chosen]
            part = inner.predict(torch.stack([x[one] for one in here]), time)
            for one, made in zip(here, part.x0, strict=True):
                x0[one] += weight * made
                total[one] += weight
            rows += part.rows or len(chosen)
        values = self.values.to(x).repeat_interleave(each, dim=0)
        return predict("x0", torch.where(total > 0, x0 / total.clamp(min=1), values), x, time, rows=rows)

    def _places(self, each: int) -> list[tuple[list[_Place], Denoiser]]:
        """The tiles that are shown at once, smallest first, and the model told where they lie.

        They are laid out once, for a GPU has to be sent where they lie.

        Args:
            each: rows of every picture.
        """
        if each not in self._laid_out:
            places = [
                (row, row // each, top, left, tiles.side)
                for row in range(each * len(self.tiles))
                for tiles in (self.tiles[row // each],)
                for top, left in tiles.corners
            ]
            laid_out = self._laid_out[each] = []
            for side in sorted({tiles.side for tiles in self.tiles}):
                alike, most = [place for place in places if place[-1] == side], max(1, TOGETHER // side**2)
                parts = [alike[k : k + most] for k in range(0, len(alike), most)]
                laid_out += [(part, self._placed(part)) for part in parts]
        return self._laid_out[each]

    def _placed(self, chosen: Sequence[_Place]) -> Denoiser:
        """The model told where in its picture each of some tiles lies."""
        corners = [(self.boxes[row].top + top, self.boxes[row].left + left) for _, row, top, left, _ in chosen]
        side = chosen[0][-1]
        boxes = [(top, left, top + side, left + side) for top, left in corners]
        return self.inner.placed(boxes, [self.shapes[row] for _, row, *_ in chosen], 1)

    def grid(self, num_inference_steps: int) -> Tensor | None:
        return self.inner.grid(num_inference_steps)

    def with_condition(self, condition: Tensor) -> Denoiser:
        return HoleTiles(self.inner.with_condition(condition), self.tiles, self.values, self.boxes, self.shapes)


def tiled(denoiser: Denoiser, canvas: tuple[int, int], tile: int | None, multiple: int) -> Denoiser:
    """The denoiser, in tiles where asked for (or, for None, where the canvas is large) and the model takes any size."""
    if denoiser.shape is not None or (tile is None and canvas[0] * canvas[1] <= WHOLE):
        return denoiser
    return TiledDenoiser(denoiser, tile or TILE, min(OVERLAP, (tile or TILE) // 4), multiple)
