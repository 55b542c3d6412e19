"""GradPaint: a normalised gradient step on the state towards agreement and smooth seams, in the first steps.

Reference: Grechka et al., GradPaint: Gradient-Guided Inpainting with Diffusion Models, CVIU 240, 2024,
arXiv:2309.09614. The authors' code is not published and the full text could not be opened: what a field below offers
is what the sources leave open, its default our reconstruction, and no number of the paper was reproduced.

In the first `fraction` of the steps, K = ceil(fraction N) of them:
    L_mse = sum(m (x0(x_t) - y)^2) / sum(m)
    z     = m y + (1 - m) x0                                       composite; or x0 itself
    L_al  = mean over neighbouring pixels p, q with m_p != m_q, and over channels, of (z_p - z_q)^2
    g     = grad_{x_t} (L_mse + lambda_al L_al)                    through the model
    x_t  <- x_t - rho sqrt(d) sigma_t g / |g|_2                    d entries; or rho sigma_t g / max|g|
In all steps:
    x_s   = DDPM step from x_t;    known:  x_s <- alpha_s y + sigma_s eps

Norms are per sample; a gradient of 0 moves nothing. sqrt(d) makes rho the root mean square of the move per entry, in
units of the noise, whatever the picture's size (sigma_t = sqrt(1 - abar_t) in the paper's VP coordinates).

Choices:
  - L_al is for pictures, (B, C, H, W) states of pixel models; vectors and latents have L_mse alone.
  - `recompute` looks at the model again from the moved x_t. Without it the old noise prediction steps from there,
    x_s is moved by (alpha_s / alpha_t) times the move of x_t, as in DDPM's formula; where alpha_t = 0, by
    sqrt(sigma_s^2 - eta_s^2) / sigma_t.
  - `replace` keeps the replacement of the baseline that the paper improves.
  - Noisy observations: only the noise that y lacks is added in the replacement, and the move shrinks by
    max(0, 1 - sigma_y^2 / L_mse): y is not followed closer than it is known.
  - `checkpointing` trades the memory of the model's activations for a second run of it inside the gradient, which is
    not counted as an evaluation.
Measured on Gaussian pictures: the first 45 % of a uniform VP grid are nearly pure noise and gain little; with
fraction 1, L_mse alone brings the mean nearer to the posterior's, while L_al with a weight of 1 smooths too much,
because its minimum is not 0 in a true picture and the move has a fixed size: lower lambda_al there.
Cost of N intervals: N + K evaluations (N without `recompute`), K gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Codec, Prediction
from paintback.methods.base import Family, Method, Run, Time, ancestral_std, ddim, option
from paintback.methods.known import replace_known
from paintback.methods.linear import unit
from paintback.schedules import Coordinates

__all__ = ["GradPaint", "alignment"]


def alignment(x0: Tensor, y: Tensor, known: Tensor, composite: bool) -> Tensor:
    """(B,) mean squared difference over neighbours on either side of the mask's edge.

    Args:
        x0: (B, C, H, W).
        y: observed values, of x0's shape.
        known: bool, of x0's shape.
        composite: takes y for the known one of a pair, else x0.
    """
    z = torch.where(known, y, x0) if composite else x0
    total = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
    count = torch.zeros_like(total)
    for axis in (2, 3):
        seam = known.diff(dim=axis)  # of booleans: whether they differ
        total = total + torch.where(seam, z.diff(dim=axis).square(), 0.0).flatten(1).sum(1)
        count = count + seam.flatten(1).sum(1)
    return total / count.clamp(min=1)


@dataclass(frozen=True)
class GradPaint(Method):
    """GradPaint; see the head of this file.

    Attributes:
        rho: size of the move, in units of the noise.
        fraction: part of the steps that are guided, the noisiest.
        lambda_al: weight of the alignment loss.
        seam: the alignment looks at the "composite" of y and x0, or at the "raw" x0.
        norm: "l2" or "inf".
        recompute: whether the model is looked at again after the move.
        replace: whether the known part is set to the noised observation after every step.
        eta: fresh noise of a step, as a part of the ancestral one; 1 is DDPM.
        checkpointing: less memory, more time.
    """

    name: ClassVar[str] = "gradpaint"
    family: ClassVar[Family] = "gradients"
    title: ClassVar[str] = "GradPaint: normalised gradient steps towards y and smooth seams"
    paper: ClassVar[str] = "arXiv:2309.09614"
    needs_vjp: ClassVar[bool] = True

    coordinates: Coordinates | None = option("vp", "coordinates of the run", choices=("vp", "flow", "edm"))
    rho: float = option(0.05, "size of the move per entry, in units of the noise", low=0.0)
    fraction: float = option(0.45, "part of the steps that are guided", low=0.0, high=1.0)
    lambda_al: float = option(1.0, "weight of the alignment loss", low=0.0)
    seam: Literal["composite", "raw"] = option("composite", "what the alignment looks at", choices=("composite", "raw"))
    norm: Literal["l2", "inf"] = option("l2", "norm that the gradient is divided by", choices=("l2", "inf"))
    recompute: bool = option(True, "look at the model again after the move")
    replace: bool = option(True, "set the known part to the noised observation after every step")
    eta: float = option(1.0, "fresh noise, as a part of the ancestral one", low=0.0, high=1.0)
    checkpointing: bool = option(False, "less memory, more time")

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        prediction, move = self.look(run, x_t, t)
        std = self.eta * ancestral_std(t, s)
        x_s = ddim(prediction, s, std, run.noise() if std else None)
        if move is not None:
            x_s = x_s + move * (s.alpha / t.alpha if t.alpha else math.sqrt(max(0.0, s.sigma**2 - std**2)) / t.sigma)
        return replace_known(run, x_s, s, "fresh") if self.replace else x_s

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The picture predicted at the last time above 0."""
        prediction, move = self.look(run, x_t, t)
        return prediction.x0 if move is None or not t.alpha else prediction.x0 + move / t.alpha

    def look(self, run: Run, x_t: Tensor, t: Time) -> tuple[Prediction, Tensor | None]:
        """The prediction to step with, and the move of x_t that it does not know of, if any."""
        if run.times.index(t) >= self.guided_steps(len(run.times) - 1):
            return run.denoise(x_t, t), None
        at_t, gradient = self.gradient(run, x_t, t)
        if self.norm == "l2":
            move = math.sqrt(gradient[0].numel()) * unit(gradient)
        else:
            peak = run.per_sample(gradient.abs().flatten(1).amax(1))
            move = gradient / torch.where(peak > 0, peak, torch.ones_like(peak))
        move = -self.rho * t.sigma * self.trust(run, at_t.x0) * move
        return (run.denoise(x_t + move, t), None) if self.recompute else (at_t, move)

    def gradient(self, run: Run, x_t: Tensor, t: Time) -> tuple[Prediction, Tensor]:
        """The prediction, and the gradient of the loss with respect to x_t."""
        at_t, vjp = run.linearise(x_t, t, checkpoint=self.checkpointing)
        with torch.enable_grad():
            x0 = at_t.x0.detach().requires_grad_()
            cotangent = torch.autograd.grad(self.loss(run, x0).sum(), x0)[0]
        return at_t, vjp(cotangent)

    def loss(self, run: Run, x0: Tensor) -> Tensor:
        """(B,) L_mse + lambda_al L_al."""
        loss = _mean_square(run, x0)
        if self.lambda_al and x0.ndim == 4 and type(run.codec) is Codec:
            loss = loss + self.lambda_al * alignment(x0, run.y, run.known, self.seam == "composite")
        return loss

    def trust(self, run: Run, x0: Tensor) -> Tensor:
        """(B, 1, ...) the part of the residual that noise does not explain."""
        square = _mean_square(run, x0)
        safe = torch.where(square > 0, square, torch.ones_like(square))
        return run.per_sample((1 - run.sigma**2 / safe).clamp(min=0))

    def guided_steps(self, num_inference_steps: int) -> int:
        """K = ceil(fraction N)."""
        return math.ceil(self.fraction * num_inference_steps - 1e-9)

    def evaluations(self, num_inference_steps: int) -> int:
        """N + K, or N without `recompute`."""
        return num_inference_steps + (self.guided_steps(num_inference_steps) if self.recompute else 0)

    def vjps(self, num_inference_steps: int) -> int:
        """K."""
        return self.guided_steps(num_inference_steps)


def _mean_square(run: Run, x0: Tensor) -> Tensor:
    square = torch.where(run.known, x0 - run.y, 0.0).square().flatten(1).sum(1)
    return square / run.known.flatten(1).sum(1).clamp(min=1)
