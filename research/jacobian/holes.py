"""What the hidden pixels gain from the known ones: the conditional mean under approximations V of the covariance.

At x_t = x0 + sigma noise of a real picture with the pixels m known, every method of the family of DDNM, PiGDM, MMPS and
FMM takes the mean

    x0' = x0 + V m^T (m V m^T + s^2 I)^-1 e,   e = m (y - x0(x_t)),   V about sigma^2 J

for the picture. The error is that of x0' in the hole, where the truth is known here; a method never knows it. V:

    diagonal                 the identity (DDNM) and every other diagonal V: V m^T is 0 on the rows of the hole, which
                             keeps x0(x_t) itself
    J, CG k                  k steps of conjugate gradients, products by forward differences, delta 0.05: FMM
    J^T, CG k                the same with vector-Jacobian products: MMPS
    J + c, CG k              J + c I in place of J in the system alone, as if y had noise of variance c sigma^2
    J, S, S >= 0             the matrix formed and the system factorised; S = (J + J^T) / 2, or S with its negative
                             eigenvalues set to 0; alone, with c, or with the variance 0.01^2 that MMPS takes for a
                             noiseless observation

CG ends where the curvature of a direction is not positive, as in the methods.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.methods.linear import conjugate_gradient
from paintback.schedules import Time
from research.jacobian.derivative import Estimate, Linearised, forward_difference, step_length

__all__ = [
    "DAMPING",
    "DELTA",
    "DIAGONAL",
    "SOFTNESS",
    "STEPS",
    "hole_error",
    "iterative_errors",
    "known_masks",
    "solved_errors",
]

STEPS = (1, 2, 4)  # of conjugate gradients
DELTA = 0.05  # FMM's
SOFTNESS = 0.01  # MMPS's sigma_y
DAMPING = (0.1, 0.3, 1.0)  # c
DIAGONAL = "diagonal"

Product = Callable[[Tensor], Tensor]


def known_masks(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The holes by name, (C, H, W) bool, True = known.

    Args:
        shape: of a picture, (C, H, W).

    Returns:
        "box": a square of 3/8 of the side in the middle is hidden; "half": the right half is.
    """
    _, height, width = shape
    box, half = torch.ones(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
    tall, wide = round(height * 3 / 8), round(width * 3 / 8)
    top, left = (height - tall) // 2, (width - wide) // 2
    box[:, top : top + tall, left : left + wide] = False
    half[:, :, width // 2 :] = False
    return {"box": box, "half": half}


def hole_error(x: Tensor, truth: Tensor, known: Tensor) -> Estimate:
    """Mean squared error over the hidden entries of every row."""
    wrong = (x - truth)[:, ~known].double()
    return Estimate(tuple(wrong.square().mean(1).tolist()))


def iterative_errors(
    denoiser: Denoiser, time: Time, x: Tensor, at: Linearised, truth: Tensor, known: Tensor
) -> dict[str, Estimate]:
    """Errors in the hole of the diagonal V and of a few steps of conjugate gradients.

    Args:
        denoiser: with alpha = 1.
        time: of the states.
        x: (B, C, H, W) states.
        at: the denoiser linearised there.
        truth: (B, C, H, W) pictures.
        known: (C, H, W) bool.

    Returns:
        By V, in the order of the head of this file.
    """
    e = torch.where(known, truth - at.x0, 0.0)

    def ahead(v: Tensor) -> Tensor:
        return forward_difference(denoiser, time, x, at.x0, v, step_length(v, DELTA * time.sigma))

    errors = {DIAGONAL: hole_error(at.x0, truth, known)}
    for label, product in (("J", ahead), ("J^T", at.transposed)):
        for steps, mean in _conjugate_gradients(product, e, known, time.sigma**2).items():
            errors[f"{label}, CG {steps}"] = hole_error(at.x0 + mean, truth, known)
    for c in DAMPING:
        for steps, mean in _conjugate_gradients(ahead, e, known, time.sigma**2, c).items():
            if steps > 1:
                errors[f"J + {c:g}, CG {steps}"] = hole_error(at.x0 + mean, truth, known)
    return errors


def _conjugate_gradients(
    product: Product, e: Tensor, known: Tensor, factor: float, c: float = 0.0
) -> dict[int, Tensor]:
    """V m^T u after the numbers of steps in `STEPS`, whose products are shared; the system is that of J + c I."""
    made: list[Tensor] = []

    def answer(steps: int) -> Tensor:
        count = iter(range(steps))

        def apply(p: Tensor) -> tuple[Tensor, Tensor]:
            k = next(count)
            if k == len(made):
                made.append(factor * product(p))
            return torch.where(known, made[k] + c * factor * p, 0.0), made[k]

        return conjugate_gradient(apply, e, steps)[1]

    return {steps: answer(steps) for steps in STEPS}


def solved_errors(j: Tensor, sigma: float, x0: Tensor, truth: Tensor, known: Tensor) -> dict[str, float]:
    """Errors in the hole of one picture with the system solved by factorisation, in float64.

    Args:
        j: (n, n) J, float64.
        sigma: noise level.
        x0: (C, H, W) expected picture.
        truth: (C, H, W) picture.
        known: (C, H, W) bool.

    Returns:
        By V; infinite where the matrix of the system is singular.
    """
    mask = known.flatten()
    e = (truth - x0).flatten().double()[mask]
    start, goal = (one.flatten().double()[~mask] for one in (x0, truth))
    symmetric = (j + j.mT) / 2
    values, vectors = torch.linalg.eigh(symmetric)
    positive = (vectors * values.clamp(min=0)) @ vectors.mT

    def error(v: Tensor, variance: float = 0.0) -> float:
        system = sigma**2 * v[mask][:, mask]
        system = system + variance * torch.eye(len(system), dtype=system.dtype)
        u, singular = torch.linalg.solve_ex(system, e)
        mean = start + sigma**2 * v[~mask][:, mask] @ u
        return float("inf") if int(singular) else float((mean - goal).square().mean())

    errors = {}
    for label, v in (("J", j), ("S", symmetric), ("S >= 0", positive)):
        if v is not positive:  # singular by its making
            errors[f"{label}, solved"] = error(v)
        errors[f"{label}, s = {SOFTNESS:g}, solved"] = error(v, SOFTNESS**2)
        errors |= {f"{label} + {c:g}, solved": error(v, c * sigma**2) for c in DAMPING}
    return errors
