"""A picture's own patches as a prior: the optimal denoiser under locality and equivariance, from one picture.

Reference: Kamb and Ganguli, An Analytic Theory of Creativity in Convolutional Diffusion Models, 2024, arXiv:2412.20292.

A denoiser that sees only the patch P_i around a pixel i, and treats all places alike, is best when it answers with
    D(x)_i = sum_j w_ij centre(c_j),    w_ij = softmax_j(-|P_i(x) - c_j|^2 / (2 sigma^2)),    x = clean + sigma noise,
over all patches c_j that it learnt from. Here these are the patches of the picture that are known in whole. As sigma
falls to 0 the answer is the centre of the nearest patch; as it grows, the mean of all centres. Where a patch reaches
beyond the picture, the distance is that of the part inside.

A picture is not the same everywhere, though: with a reach r the prior of a patch falls with its distance from the pixel
that asks, as exp(-|place_i - place_j|^2 / (2 r^2)), which is a factor of w_ij.

The search is exact: the distances of a number of patches are two products of matrices, |P|^2 being the same for all j.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Patches", "known_patches", "windows"]


@dataclass(frozen=True)
class Patches:
    """Patches of one size and their centres.

    Attributes:
        side: pixels along a side; odd.
        values: (N, C * side * side), less `middle`.
        middle: (C * side * side,), their mean; distances do not change by it and are rounded less.
        centres: (N, C).
        places: (N, 2), row and column of the centres.
    """

    side: int
    values: Tensor
    middle: Tensor
    centres: Tensor
    places: Tensor

    def expected(
        self,
        queries: Tensor,
        sigma: float,
        inside: Tensor | None = None,
        places: Tensor | None = None,
        reach: float = math.inf,
    ) -> Tensor:
        """The mean of the centres under the weights that noisy patches give them.

        Args:
            queries: (Q, C * side * side), patches of x.
            sigma: noise level, above 0.
            inside: (Q, C * side * side) bool, what of a patch is inside the picture; None for all of it.
            places: (Q, 2), row and column of their centres; None where `reach` is infinite.
            reach: pixels within which patches are likely.

        Returns:
            (Q, C).
        """
        moved, values = queries - self.middle, self.values
        squares = values.square()
        if inside is None:
            lengths = squares.sum(1)
        else:
            seen = inside.to(moved.dtype)
            lengths, moved = seen @ squares.T, moved * seen
        if places is not None:  # two more entries, in units in which sigma is the reach
            own = self.places * (sigma / reach)
            lengths = lengths + own.square().sum(1)
            moved, values = torch.cat((moved, places * (sigma / reach)), 1), torch.cat((values, own), 1)
        far = torch.addmm(lengths, moved, values.T, alpha=-2)
        return far.mul(-0.5 / sigma**2).softmax(1) @ self.centres


def windows(picture: Tensor, side: int) -> Tensor:
    """Every patch of a picture, (C, H, W) to (H', W', C, side, side), without a copy."""
    return picture.unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4)


def known_patches(values: Tensor, known: Tensor, side: int, *, most: int, mirror: bool = True) -> Patches | None:
    """The patches of a picture that are known in whole; of too many, those nearest to what is hidden.

    Neighbours stay together so, and a texture can go on as it lies there: of patches drawn here and there the shift of
    one by a pixel is seldom another, and answers blur.

    Args:
        values: (C, H, W).
        known: (H, W) bool.
        side: pixels along a side of a patch; odd.
        most: patches at most, mirror images included.
        mirror: whether a patch's image in a mirror, left for right, is a patch too.

    Returns:
        The patches; None where there is none.
    """
    if min(known.shape) < side:
        return None
    whole = F.max_pool2d((~known).to(values.dtype)[None], side, stride=1)[0] == 0
    rows, columns = whole.nonzero(as_tuple=True)
    room = most // 2 if mirror else most
    if not len(rows) or not room:
        return None
    if len(rows) > room:
        from scipy.ndimage import distance_transform_edt

        away = torch.from_numpy(distance_transform_edt(known.cpu().numpy())).to(rows.device)
        nearest = away[rows + side // 2, columns + side // 2].argsort(stable=True)[:room]
        rows, columns = rows[nearest], columns[nearest]
    found = windows(values, side)[rows, columns]
    if mirror:
        found = torch.cat((found, found.flip(-1)))
    centres, flat = found[..., side // 2, side // 2], found.flatten(1)
    middle = flat.mean(0)
    places = torch.stack((rows, columns), 1).to(values.dtype) + side // 2
    return Patches(side, flat - middle, middle, centres, torch.cat((places, places)) if mirror else places)
