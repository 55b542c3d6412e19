"""LDPS: DPS with the decoder inside the residual.

Reference: the baseline of Rout et al., arXiv:2307.00619, after Chung et al. 2023 (DPS), arXiv:2209.14687.

One step t -> s, D the decoder of a latent model, A the mask or a linear operator on pictures:
    r    = y - A D(x0(x_t))
    x_s  = ancestral step - zeta grad_{x_t} |r|_2

Everything said of `dps` holds; for a pixel model D is the identity and the two are one.

Pictures behind a latent mask: the observation carries the picture that its y is the encoding of, and the residual is
taken there, on every known pixel, as in the paper. Where a caller gives latents alone, D(y) stands for the picture,
known where the latent mask is, enlarged to pixels; that is our reconstruction.
Cost of N intervals: N evaluations, N gradients, and as many through the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.linear import adjoint, decoded, misfit, observed, picture_observation, unit
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class Ldps(Method):
    """LDPS; see the head of this file.

    Attributes:
        zeta: length of the pull.
        normalise: zeta per observed value, in place of one for the whole picture.
    """

    name: ClassVar[str] = "ldps"
    family: ClassVar[Family] = "gradients"
    title: ClassVar[str] = "LDPS: DPS with the decoder inside the residual"
    paper: ClassVar[str] = "arXiv:2307.00619"
    takes_operator: ClassVar[bool] = True
    decodes: ClassVar[bool] = True
    needs_vjp: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    zeta: float = option(1.0, "length of the pull towards the observation", low=0.0)
    normalise: bool = option(False, "zeta per observed value, whatever the picture's size")

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        at_t, pull = self.looks(run, x_t, t)
        return ddim(at_t, s, ancestral_std(t, s), run.noise()) + pull

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The pulled picture at the last time above 0."""
        at_t, pull = self.looks(run, x_t, t)
        return at_t.x0 + pull

    def looks(self, run: Run, x_t: Tensor, t: Time) -> tuple[Prediction, Tensor]:
        """The prediction at t, and zeta times J^T `pull`."""
        at_t, vjp = run.linearise(x_t, t)
        zeta = self.zeta * observed(run).sqrt() if self.normalise else self.zeta
        pull = zeta * vjp(self.pull(run, at_t.x0))
        run.answer = at_t.x0 + pull
        return at_t, pull

    def pull(self, run: Run, x0: Tensor) -> Tensor:
        """Minus the gradient of the residual's norm with respect to x0, through the decoder."""
        picture, back = decoded(run, x0)
        return back(adjoint(run, unit(misfit(run, picture, picture_observation(run)))))

    def vjps(self, num_inference_steps: int) -> int:
        """N."""
        return num_inference_steps
