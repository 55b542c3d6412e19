"""P2L: LDPS that tunes the prompt on the way and brings the picture back into the encoder's range.

Reference: Chung et al., Prompt-tuning Latent Diffusion Models for Inverse Problems, ICML 2024, arXiv:2310.01110.

One step t -> s, with encoder E, decoder D, prompt embedding c:
    c       <- K steps of Adam on |y - A D(x0(x_t, c))|^2, from the last step's c      where there is a prompt
    x0, x1   = the model at (x_t, c)
    every `period` steps:  x0' = E(argmin_u |y - A u|^2 + lambda |u - D(x0)|^2), else x0' = x0
    x_s      = alpha_s x0' + sqrt(sigma_s^2 - eta_s^2) x1 + eta_s eps - zeta grad_{x_t} |y - A D(x0(x_t, c))|_2

eta_s is the ancestral one. The embedding is tuned per sample, Adam is made anew at every step. A model without a
prompt skips the tuning; on a pixel model the rest is DPS with the known part of every `period`-th picture moved to
(y + lambda x0) / (1 + lambda).

K = 5, Adam's rate 1e-4, period 4, lambda 1, zeta 1 are our values: the paper's appendix could not be opened. For an
operator the minimum is found by conjugate gradients, without network calls. Of noise (sigma_y) and of the
picture behind a latent mask, what `dps` and `ldps` say holds.
The last look is as the others.
Cost of N intervals: N evaluations and N gradients; with a prompt, N K more of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.linear import adjoint, decoded, misfit, picture_observation, ridge, unit
from paintback.schedules import Coordinates


@dataclass(frozen=True)
class P2l(Method):
    """P2L; see the head of this file.

    Attributes:
        zeta: length of the pull of the residual.
        prompt_steps: K, steps of Adam on the prompt embedding.
        prompt_rate: Adam's rate.
        period: the picture is projected at every so many steps; 0 for never.
        softness: lambda of the projection.
    """

    name: ClassVar[str] = "p2l"
    family: ClassVar[Family] = "gradients"
    title: ClassVar[str] = "P2L: latent DPS with a tuned prompt and a projection"
    paper: ClassVar[str] = "arXiv:2310.01110"
    takes_operator: ClassVar[bool] = True
    decodes: ClassVar[bool] = True
    needs_vjp: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    zeta: float = option(1.0, "length of the pull towards the observation", low=0.0)
    prompt_steps: int = option(5, "steps on the prompt embedding, where there is one", low=0)
    prompt_rate: float = option(1e-4, "rate of these steps (Adam)", low=0.0)
    period: int = option(4, "steps from one projection to the next; 0 for none", low=0)
    softness: float = option(1.0, "weight of the model's picture in the projection", low=0.0)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        at_t, pull = self.looks(run, x_t, t)
        return ddim(at_t, s, ancestral_std(t, s), run.noise()) + pull

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The pulled picture at the last time above 0."""
        at_t, pull = self.looks(run, x_t, t)
        return at_t.x0 + pull

    def looks(self, run: Run, x_t: Tensor, t: Time) -> tuple[Prediction, Tensor]:
        """The prediction at t under the tuned prompt, its picture projected where it is time, and the pull."""
        if run.condition is not None and self.prompt_steps:
            self.tune_prompt(run, x_t, t)
        at_t, vjp = run.linearise(x_t, t)
        picture, back = decoded(run, at_t.x0)
        pull = self.zeta * vjp(back(adjoint(run, unit(misfit(run, picture, picture_observation(run))))))
        x0 = at_t.x0
        if self.period and (run.times.index(t) + 1) % self.period == 0:
            x0 = run.codec.encode(self.project(run, picture))
        run.answer = x0 + pull
        return Prediction(x0, at_t.x1), pull

    def tune_prompt(self, run: Run, x_t: Tensor, t: Time) -> None:
        """Adam (arXiv:1412.6980) on every sample's own embedding, which stays in the run."""
        assert run.condition is not None
        prompt = run.condition.repeat_interleave(run.batch // len(run.condition), dim=0)
        first, second = torch.zeros_like(prompt), torch.zeros_like(prompt)
        for k in range(1, self.prompt_steps + 1):
            at_t, vjp = run.linearise(x_t, t, condition=prompt)
            picture, back = decoded(run, at_t.x0)
            gradient = vjp(back(adjoint(run, -2 * misfit(run, picture, picture_observation(run)))))
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            moved = first / (1 - 0.9**k) / ((second / (1 - 0.999**k)).sqrt() + 1e-8)
            prompt = prompt - self.prompt_rate * moved
        run.condition, run.denoiser = prompt, run.denoiser.with_condition(prompt)

    def project(self, run: Run, picture: Tensor) -> Tensor:
        """argmin_u |y - A u|^2 + softness |u - picture|^2."""
        return picture + ridge(run, misfit(run, picture, picture_observation(run)), self.softness)

    def evaluations(self, num_inference_steps: int, prompted: bool = False) -> int:
        """N, and N K more with a prompt."""
        return num_inference_steps + self.vjps(num_inference_steps, prompted) - self.vjps(num_inference_steps)

    def vjps(self, num_inference_steps: int, prompted: bool = False) -> int:
        """N, and N K more with a prompt."""
        return num_inference_steps * (1 + (self.prompt_steps if prompted else 0))
