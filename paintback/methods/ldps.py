"""LDPS: DPS with the decoder inside the residual.

Reference: the baseline of Rout et al., arXiv:2307.00619, after Chung et al. 2023 (DPS), arXiv:2209.14687.

One step t -> s, D the decoder of a latent model, A the mask or a linear operator on pictures:
    r    = y - A D(x0(x_t))
    x_s  = ancestral step - zeta grad_{x_t} |r|_2

Everything said of `dps` holds; for a pixel model D is the identity and the two are one.

Pictures behind a latent mask: the observation carries the picture that its y is the encoding of, and the residual is
taken there, on every known pixel, as in the paper. Where a caller gives latents alone, D(y) stands for the picture,
known where the latent mask is, enlarged to pixels; that is our reconstruction.
Cost of N intervals: N evaluations, N - 1 gradients, and as many through the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.denoiser import Codec
from paintback.methods.base import Run
from paintback.methods.dps import Dps, unit

__all__ = ["Ldps", "decoded", "picture_adjoint", "picture_misfit", "picture_observation"]


def picture_observation(run: Run) -> tuple[Tensor, Tensor]:
    """The observation as pictures: y and known, (B, C, H, W); for an operator, y and a mask of nothing."""
    if run.operator or type(run.codec) is Codec:
        return run.y, run.known
    if run.picture is not None:
        return run.picture
    if "picture" not in run.memory:
        y = run.codec.decode(run.y)
        known = run.known.flatten(2).all(1).reshape(run.batch, 1, *run.shape[2:]).to(y)
        run.memory["picture"] = y, F.interpolate(known, y.shape[2:], mode="nearest").bool().expand(y.shape)
    observation: tuple[Tensor, Tensor] = run.memory["picture"]
    return observation


def picture_misfit(run: Run, picture: Tensor) -> Tensor:
    """The residual y - A picture; 0 where the mask hides."""
    y, known = picture_observation(run)
    return y - run.operator(picture) if run.operator else torch.where(known, y - picture, 0.0)


def picture_adjoint(run: Run, v: Tensor) -> Tensor:
    """A^T v, a picture."""
    return run.operator.transpose(v) if run.operator else v


def decoded(run: Run, x0: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D(x0), and v -> (d D / d x0)^T v."""
    with torch.enable_grad():
        leaf = x0.detach().requires_grad_()
        picture = run.codec.decode(leaf)
    return picture.detach(), lambda v: torch.autograd.grad(picture, leaf, v, retain_graph=True)[0]


@dataclass(frozen=True)
class Ldps(Dps):
    """LDPS; see the head of this file."""

    name: ClassVar[str] = "ldps"
    title: ClassVar[str] = "LDPS: DPS with the decoder inside the residual"
    paper: ClassVar[str] = "arXiv:2307.00619"
    decodes: ClassVar[bool] = True

    def pull(self, run: Run, x0: Tensor) -> Tensor:
        """Minus the gradient of the residual's norm with respect to x0, through the decoder."""
        picture, back = decoded(run, x0)
        return back(picture_adjoint(run, unit(picture_misfit(run, picture))))
