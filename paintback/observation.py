"""What is given of a picture: values, where they are, how noisy they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["KERNELS", "AveragePool", "Bicubic", "Downsampling", "Kernel", "LinearOperator", "Observation", "Separable"]

Kernel = Literal["bicubic", "area"]
KERNELS = ("bicubic", "area")


class LinearOperator:
    """A linear map from pictures (B, C, H, W) to measurements, with its transpose and pseudo-inverse."""

    def __call__(self, x: Tensor) -> Tensor:
        """A x."""
        raise NotImplementedError

    def transpose(self, y: Tensor) -> Tensor:
        """A^T y."""
        raise NotImplementedError

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A^+ y: the smallest x with A x = y."""
        raise NotImplementedError


@dataclass(frozen=True)
class AveragePool(LinearOperator):
    """Means of non-overlapping factor x factor blocks.

    Attributes:
        factor: side of a block; the picture's sides must be multiples of it.
    """

    factor: int

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise ValueError(
                f"A {x.shape[-1]} x {x.shape[-2]} picture cannot be pooled by {self.factor}; pad it first."
            )
        return F.avg_pool2d(x, self.factor)

    def transpose(self, y: Tensor) -> Tensor:
        return self.pseudo_inverse(y) / self.factor**2

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, dim=-1).repeat_interleave(self.factor, dim=-2)


class Separable(LinearOperator):
    """A matrix for the rows of a picture and one for its columns: A x = R x C^T, channel by channel.

    The factors, and their pseudo-inverses once they are asked for, are made once and kept for every dtype and device
    that they meet.

    Args:
        rows: R, (h, H).
        columns: C, (w, W).
    """

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        self.rows, self.columns = rows.double(), columns.double()
        self._kept: dict[tuple[bool, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def __repr__(self) -> str:
        (h, height), (w, width) = self.rows.shape, self.columns.shape
        return f"{type(self).__name__}({height} x {width} to {h} x {w})"

    def __call__(self, x: Tensor) -> Tensor:
        height, width = self.rows.shape[1], self.columns.shape[1]
        if x.shape[-2:] != (height, width):
            raise ValueError(f"This operator takes {width} x {height} pictures; got {x.shape[-1]} x {x.shape[-2]}.")
        rows, columns = self._factors(x)
        return rows @ x @ columns.T

    def transpose(self, y: Tensor) -> Tensor:
        rows, columns = self._factors(y)
        return rows.T @ y @ columns

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        rows, columns = self._factors(y, inverse=True)
        return rows @ y @ columns.T

    def _factors(self, like: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """R and C, or their pseudo-inverses, of a tensor's dtype and on its device."""
        key = (inverse, like.dtype, like.device)
        if key not in self._kept:
            both: list[Tensor] = [self.rows, self.columns]
            if inverse:
                both = [torch.linalg.pinv(factor) for factor in both]
            self._kept[key] = both[0].to(like), both[1].to(like)
        return self._kept[key]


class Bicubic(Separable):
    """Antialiased bicubic down-sampling (a = -0.5, as Pillow's); borders are renormalised.

    Args:
        factor: of both sides.
        height: of the picture.
        width: of the picture.

    Raises:
        ValueError: for a side that the factor does not divide.
    """

    def __init__(self, factor: int, height: int, width: int) -> None:
        super().__init__(_bicubic_matrix(height, factor), _bicubic_matrix(width, factor))


class Downsampling(Separable):
    """Bicubic reduction or the means of blocks, of a window of a larger canvas.

    Args:
        kernel: "bicubic" or "area".
        factor: side of the enlarged picture over that of the given one.
        shape: (h, w) of the given picture.
        canvas: (H, W) of the pictures it takes; the enlarged one is at the top left, the rest is not looked at.

    Raises:
        ValueError: for an unknown kernel.
    """

    def __init__(self, kernel: Kernel, factor: int, shape: tuple[int, int], canvas: tuple[int, int]) -> None:
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}; got {kernel!r}.")
        self.window = (shape[0] * factor, shape[1] * factor)
        made = _bicubic_matrix if kernel == "bicubic" else _area_matrix
        rows, columns = (
            F.pad(made(length, factor), (0, side - length)) for length, side in zip(self.window, canvas, strict=True)
        )
        super().__init__(rows, columns)


def _area_matrix(length: int, factor: int) -> Tensor:
    """(length / factor, length) float64 means of blocks."""
    return torch.eye(length // factor, dtype=torch.float64).repeat_interleave(factor, dim=1) / factor


def _bicubic_matrix(length: int, factor: int) -> Tensor:
    """(length / factor, length) float64 weights of Keys' cubic stretched by the factor."""
    if factor < 1 or length % factor:
        raise ValueError(f"A side of {length} cannot be divided by {factor}; pad the picture first.")
    centre = (torch.arange(length // factor, dtype=torch.float64) + 0.5) * factor - 0.5
    u = (torch.arange(length, dtype=torch.float64) - centre[:, None]).abs() / factor
    near = 1.5 * u**3 - 2.5 * u**2 + 1
    far = -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2
    weights = torch.where(u <= 1, near, torch.where(u < 2, far, torch.zeros_like(u)))
    return weights / weights.sum(1, keepdim=True)


class Observation:
    """Given values y of a picture.

    Without `operator`, y has the picture's shape and its values count where `known`; hidden values are dropped here
    (set to 0, so that even NaN there reaches nothing). With `operator`, y is A x plus noise.

    Args:
        y: the event shape, or (B,) + event shape; for an operator, the shape of its output.
        known: bool, of the event shape or of y's; True = given; None = all of y.
        sigma: standard deviation of the noise in y.
        operator: a linear operator, in place of `known`.
        picture: where y is the encoding of a picture: the picture itself, as an observation of pixels, for the methods
            that compare after decoding.

    Raises:
        ValueError: for shapes that do not fit, a `known` that is not boolean, a negative sigma, values that are not
            finite where known, or both `known` and `operator`.
    """

    def __init__(
        self,
        y: Tensor,
        known: Tensor | None = None,
        sigma: float = 0.0,
        operator: LinearOperator | None = None,
        *,
        picture: Observation | None = None,
    ) -> None:
        if not torch.is_tensor(y):
            raise ValueError(f"y must be a torch tensor; got {type(y).__name__}.")
        if known is not None and operator is not None:
            raise ValueError("An observation has either known or operator, not both.")
        if known is not None and known.dtype != torch.bool:
            raise ValueError(f"known must be boolean (True = given); got {known.dtype}.")
        if not 0 <= float(sigma) < math.inf:
            raise ValueError(f"sigma is a standard deviation and must be finite and at least 0; got {sigma}.")
        y = y if y.is_floating_point() else y.float()
        if known is not None:
            try:
                broadcast = known.broadcast_to(y.shape)
            except RuntimeError:
                raise ValueError(
                    f"known of shape {tuple(known.shape)} does not fit y of shape {tuple(y.shape)}."
                ) from None
            y = torch.where(broadcast, y, torch.zeros((), dtype=y.dtype, device=y.device))
        if not bool(y.isfinite().all()):
            raise ValueError("y holds values that are not finite where it is known; remove NaN and infinity first.")
        self.y = y
        self.known = known
        self.sigma = float(sigma)
        self.operator = operator
        self.picture = picture

    def is_batched(self, event_shape: tuple[int, ...] | None) -> bool:
        """Whether y's first axis is a batch, for pictures of the given event shape.

        Where the model does not state its event shape, a y of three axes is one picture (C, H, W), a `known` with fewer
        axes than y says that y has a batch, and else one is assumed for y of two, four and five axes.
        """
        if event_shape is not None and self.operator is None:
            if tuple(self.y.shape) == tuple(event_shape):
                return False
            if tuple(self.y.shape[1:]) == tuple(event_shape):
                return True
            raise ValueError(
                f"y of shape {tuple(self.y.shape)} does not fit the model's pictures of shape {tuple(event_shape)}."
            )
        if event_shape is not None:
            return self.y.ndim > len(event_shape)
        if self.known is not None and self.known.ndim < self.y.ndim and self.y.ndim != 3:
            return True
        return self.y.ndim in (2, 4, 5)
