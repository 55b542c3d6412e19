"""Tiles, where a picture that is sampled as one is too large for the network.

It has no seams of its sampling: the network alone sees overlapping tiles, inside the denoiser.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paintback.denoiser import Denoiser, Prediction
from paintback.schedules import Time
from paintback.stopping import check

__all__ = ["TiledDenoiser", "tiled"]

WHOLE = 2**20  # a picture of more pixels is shown to the network in tiles
TILE, OVERLAP = 512, 64


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
        weight = self._ramp(min(self.tile, x.shape[-2]))[:, None] * self._ramp(min(self.tile, x.shape[-1]))
        weight = weight.to(x)
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

    def _ramp(self, side: int) -> Tensor:
        distance = torch.arange(side) + 1.0
        return torch.minimum(distance, distance.flip(0)).clamp(max=self.overlap + 1)


def tiled(denoiser: Denoiser, canvas: tuple[int, int], tile: int | None, multiple: int) -> Denoiser:
    """The denoiser, in tiles where asked for (or, for None, where the canvas is large) and the model takes any size."""
    if denoiser.shape is not None or (tile is None and canvas[0] * canvas[1] <= WHOLE):
        return denoiser
    return TiledDenoiser(denoiser, tile or TILE, min(OVERLAP, (tile or TILE) // 4), multiple)
