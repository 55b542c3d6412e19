"""The observation as linear algebra: y = A x + noise, A a mask or a linear operator; every sample for itself.

    misfit       y - A x                                    in the space of y; 0 where the mask hides
    adjoint      A^T v                                      back in the space of pictures
    correction   A^+ (y - A x)                              what takes x to the nearest picture that agrees with y

The data term of a loss is half the squared distance from x to that nearest picture,
    d(x)^2 / 2,   d(x) = |A^+ (A x - y)|,   gradient A^+ (A x - y), minus the correction.
For a mask that is |m (x - y)|^2 / 2, the papers' own term. For a linear operator it is theirs with residuals measured
by (A A^T)^-1, so that a step size means the same whatever the operator's scale (our choice).

For a latent model the picture is behind a decoder: `decoded` goes there and back, and `picture_observation` is what
`misfit` is then taken against.

The solvers take M as p -> (M p, W p), W any linear map whose value at the solution is wanted: u comes with W u, a
combination of the products made on the way, which costs no further one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.denoiser import Codec
from paintback.methods.run import Run

__all__ = [
    "LOSSES",
    "Apply",
    "Loss",
    "adjoint",
    "conditioned",
    "conjugate_gradient",
    "correction",
    "damped",
    "decoded",
    "descend",
    "first_picture",
    "gmres",
    "misfit",
    "observed",
    "picture_observation",
    "project",
    "project_to_noise",
    "restarted_gradient",
    "ridge",
    "sizes",
    "unit",
]

Apply = Callable[[Tensor], tuple[Tensor, Tensor]]
Loss = Literal["square", "norm"]
LOSSES = ("square", "norm")
_SOLVE = 30  # iterations in the space of y, where A A^T is well conditioned

# ------------------------------------------------------------------------------------------------------ A and its kin


def misfit(run: Run, x: Tensor, given: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The residual y - A x, of y's shape; 0 where the mask hides.

    Args:
        run: whose observation it is.
        x: (B, ...) pictures, or states of a pixel model.
        given: y and known as pictures, from `picture_observation`; None for the run's own.
    """
    y, known = given or (run.y, run.known)
    return y - run.operator(x) if run.operator else torch.where(known, y - x, 0.0)


def adjoint(run: Run, v: Tensor) -> Tensor:
    """A^T v for v in the range of `misfit`: of the state's shape."""
    return run.operator.transpose(v) if run.operator else v


def correction(run: Run, x: Tensor) -> Tensor:
    """A^+ (y - A x): what takes x to the nearest picture that agrees with y, of the state's shape."""
    gap = misfit(run, x)
    return run.operator.pseudo_inverse(gap) if run.operator else gap


def observed(run: Run) -> Tensor:
    """(B, 1, ...) the number of observed values of every sample."""
    if run.operator:
        return torch.full((run.batch, *[1] * (len(run.shape) - 1)), math.prod(run.y.shape[1:])).to(run.y)
    return run.per_sample(run.known.flatten(1).sum(1)).to(run.y)


def sizes(v: Tensor) -> Tensor:
    """(B, 1, ...) the L2 norm of every sample."""
    size: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return size.reshape(-1, *[1] * (v.ndim - 1))


def unit(v: Tensor) -> Tensor:
    """Every sample divided by its L2 norm; 0 where it is 0."""
    size = sizes(v)
    return v / torch.where(size > 0, size, torch.ones_like(size))


# ------------------------------------------------------------------------------------------------------ the data term


def project(run: Run, x: Tensor, strength: float = 1.0) -> Tensor:
    """The part `strength` of the way from x to the nearest picture that agrees with y; exactly y there at 1."""
    if run.operator is None and strength == 1:
        return torch.where(run.known, run.y, x)
    return x + strength * correction(run, x)


def ridge(run: Run, gap: Tensor, softness: float) -> Tensor:
    """A^T (A A^T + softness I)^-1 gap, of the state's shape: `correction` where softness is 0.

    x plus that, for gap = y - A x, is the nearest compromise, argmin_u |y - A u|^2 + softness |u - x|^2. For a mask it
    is gap / (1 + softness); for an operator conjugate gradients solve it in the space of y, without network calls.

    Args:
        run: whose operator it is.
        gap: of y's shape, 0 where the mask hides.
        softness: at least 0.
    """
    a = run.operator
    if a is None:
        return gap / (1 + softness)
    if softness == 0:
        return a.pseudo_inverse(gap)
    solution, _ = conjugate_gradient(lambda v: (a(a.transpose(v)) + softness * v, v), gap, _SOLVE)
    return a.transpose(solution)


def conditioned(run: Run, mean: Tensor, std: float) -> Tensor:
    """A draw of N(mean, std^2 I) given y: a draw of the prior and of y's noise, moved to agree with y (Matheron)."""
    drawn = mean + std * run.noise()
    gap = misfit(run, drawn)
    if run.sigma:
        noise = run.sigma * run.generators.normal(run.y)
        gap = gap + (noise if run.operator else torch.where(run.known, noise, 0.0))
    return drawn + ridge(run, gap, (run.sigma / std) ** 2)


def project_to_noise(run: Run, x: Tensor) -> Tensor:
    """The same, only as far as y is to be trusted: to a residual of sigma_y in root mean square.

    A picture that agrees better than that stays as it is; with a noiseless y this is `project`.
    """
    if run.sigma == 0:
        return project(run, x)
    residual = misfit(run, x)
    given = run.known if run.operator is None else torch.ones_like(residual)
    size = residual.flatten(1).norm(dim=1)
    allowed = run.sigma * given.flatten(1).sum(1).sqrt()
    share = torch.where(size > allowed, 1 - allowed / size.clamp(min=torch.finfo(x.dtype).tiny), 0.0)
    return x + run.per_sample(share.to(x.dtype)) * correction(run, x)


def descend(run: Run, x: Tensor, steps: int, step_size: float, loss: Loss) -> Tensor:
    """Gradient steps on the data term, in the space of pictures.

    Args:
        run: whose observation it is.
        x: (B, ...) pictures.
        steps: number of gradient steps.
        step_size: of each.
        loss: "square" for d(x)^2 / 2; "norm" for d(x), whose gradient has length 1 in every sample, whatever the
            number of known entries, and is taken as 0 where d is.
    """
    for _ in range(steps):
        downhill = correction(run, x)
        if loss == "norm":
            size = run.per_sample(downhill.flatten(1).norm(dim=1))
            downhill = downhill / size.clamp(min=torch.finfo(x.dtype).tiny)
        x = x + step_size * downhill
    return x


def first_picture(run: Run) -> Tensor:
    """Where the variational methods start: the run's initial picture, else 0, corrected to agree with y."""
    return project(run, torch.zeros_like(run.template) if run.initial is None else run.initial)


# ------------------------------------------------------------------------------------------------- behind the decoder


def decoded(run: Run, x0: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D(x0), and v -> (d D / d x0)^T v, once."""
    with torch.enable_grad(), run.held_still():
        leaf = x0.detach().requires_grad_()
        picture = run.codec.decode(leaf)

    def back(v: Tensor) -> Tensor:
        with run.held_still():
            return torch.autograd.grad(picture, leaf, v)[0]

    return picture.detach(), back


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


# --------------------------------------------------------------------------------------------------- linear systems


def conjugate_gradient(apply: Apply, b: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Solves M u = b by conjugate gradients, every sample for itself; what it gives back has no larger residual before.

    For a symmetric and positive M it is the plain method, solved after as many iterations as M has different
    eigenvalues. For another M the plain method's iterates may grow without bounds: of those, the last one that did not
    raise the residual is given back, and where the first one does, the step of the smallest residual in its place.

    Args:
        apply: p -> (M p, W p), W any linear map whose value at the solution is wanted.
        b: (B, ...).
        iterations: applications of M.

    Returns:
        u, and W u.
    """
    image: Tensor | None = None
    u, r, p = torch.zeros_like(b), b, b
    best: Tensor = u
    best_image: Tensor | None = None
    least = sizes(b)
    for _ in range(iterations):
        m_p, w_p = apply(p)
        energy = sizes(r) ** 2
        step = _over(energy, _dot(p, m_p))
        u = u + step * p
        made = step.reshape(-1, *[1] * (w_p.ndim - 1)) * w_p
        image = made if image is None else made + image
        r = r - step * m_p
        better = sizes(r) <= least
        if best_image is None:
            careful = _over(_dot(b, m_p).clamp(min=0), _dot(m_p, m_p))
            step = torch.where(better, step, careful)
            best, best_image = step * b, step.reshape(-1, *[1] * (w_p.ndim - 1)) * w_p
            least = torch.where(better, sizes(r), sizes(b - careful * m_p))
        else:
            best = torch.where(better, u, best)
            best_image = torch.where(better.reshape(-1, *[1] * (w_p.ndim - 1)), image, best_image)
            least = torch.where(better, sizes(r), least)
        # a sample that broke down stands still from here on: its direction is 0
        p = torch.where((step > 0) & (energy > 0), r + _over(sizes(r) ** 2, energy) * p, 0.0)
    return best, best if best_image is None else best_image


def restarted_gradient(apply: Apply, b: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """As `conjugate_gradient`, for two or three iterations on a network's Jacobian: it begins anew where it would rise.

    M ought to be symmetric and positive. That of a network's Jacobian is not quite, and the plain method's step,
    |r|^2 / (p . M p), is without bounds where the curvature p . M p nearly vanishes. So a step that would make the
    residual larger, or goes along a direction without positive curvature, is replaced by the one that makes it
    smallest,

        (r . M p) / |M p|^2,   0 where r . M p is not positive,

    and the directions begin anew from the residual. For p = r that is the plain step damped by what was measured,
    |r|^2 / (r . M r + d |r|^2) with d = (|r|^2 |M r|^2 - (r . M r)^2) / (|r|^2 r . M r): the spread of M's curvature
    along r over its mean, 0 where r is an eigenvector.

    Args:
        apply: p -> (M p, W p), W any linear map whose value at the solution is wanted.
        b: (B, ...).
        iterations: applications of M.

    Returns:
        u, and W u.
    """
    u, image, r, p = torch.zeros_like(b), None, b, b
    for _ in range(iterations):
        m_p, w_p = apply(p)
        energy, bend = sizes(r) ** 2, _dot(p, m_p)
        step = _over(energy, bend)
        rises = ~(sizes(r - step * m_p) ** 2 <= energy) | (bend <= 0)
        step = torch.where(rises, _over(_dot(r, m_p).clamp(min=0), _dot(m_p, m_p)), step)
        u = u + step * p
        image = step.reshape(-1, *[1] * (w_p.ndim - 1)) * w_p + (0 if image is None else image)
        r = r - step * m_p
        p = torch.where(rises, r, r + _over(sizes(r) ** 2, energy) * p)
    return u, u if image is None else image


def gmres(apply: Apply, b: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Solves M u = b by GMRES: the smallest residual over the Krylov space, every sample for itself.

    Args:
        apply: p -> (M p, W p), as for `conjugate_gradient`.
        b: (B, ...).
        iterations: applications of M.

    Returns:
        u, and W u.
    """
    basis, moved, images = _krylov(apply, b, iterations)
    return _combined(_least_squares(_columns(moved), b), basis, images)


def damped(apply: Apply, ground: Apply, b: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Solves M u = b, M = A V A^T, for a V that ought to be a covariance; what it is short of that damps it.

    Over an orthonormal basis Q of the Krylov space the products made give H = Q^T M Q, every sample's own. A
    covariance's is symmetric and not negative. A network's Jacobian is neither, and how far from it is measured:

        d = |H - H^T| / 2 + max(0, - the smallest eigenvalue of (H + H^T) / 2)

    in the spectral norm. V + d I then takes the place of V: c = (H + H^T) / 2 + d I, y = c^-1 Q^T b, u = Q y, which are
    conjugate gradients where d is 0. No residual b - (M + d A A^T) u is larger than b: where that y's would be, the y
    of the smallest one (GMRES's) takes its place. An exact denoiser has d = 0, to rounding, and nothing is added.

    Args:
        apply: p -> (M p, W p), as for `conjugate_gradient`; W = V A^T.
        ground: p -> (A A^T p, A^T p), the same for V = I, without an evaluation.
        b: (B, ...).
        iterations: applications of M.

    Returns:
        u, and (V + d I) A^T u.
    """
    basis, moved, images = _krylov(apply, b, iterations)
    q, m = _columns(basis), _columns(moved)
    h = q.mT @ m
    symmetric = (h + h.mT) / 2
    d = torch.linalg.matrix_norm((h - h.mT) / 2, 2) - torch.linalg.eigvalsh(symmetric)[:, 0].clamp(max=0)
    more = [ground(v) for v in basis]
    m = m + d[:, None, None] * _columns([seen for seen, _ in more])
    images = [w + d.to(w).reshape(-1, *[1] * (w.ndim - 1)) * v for w, (_, v) in zip(images, more, strict=True)]
    right = b.flatten(1).double()[..., None]
    curved = symmetric + d[:, None, None] * torch.eye(iterations, dtype=d.dtype, device=d.device)
    weights = (torch.linalg.pinv(curved, hermitian=True) @ (q.mT @ right))[..., 0]
    rises = ~((right - m @ weights[..., None]).flatten(1).norm(dim=1) <= right.flatten(1).norm(dim=1))
    weights = torch.where(rises[:, None], _least_squares(m, b), weights)
    return _combined(weights, basis, images)


def _krylov(apply: Apply, b: Tensor, iterations: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """An orthonormal basis of the Krylov space, and M and W of it; 0 where the space has ended."""
    basis: list[Tensor] = []
    images: list[Tensor] = []
    moved: list[Tensor] = []
    v = b
    for _ in range(iterations):
        for other in basis + basis:  # twice is enough (Kahan and Parlett)
            v = v - _dot(v, other) * other
        size, scale = sizes(v), sizes(moved[-1] if moved else b)
        kept = size > 1e-5 * scale
        v = torch.where(kept, v / torch.where(kept, size, torch.ones_like(size)), 0.0)
        m_v, w_v = apply(v)
        basis.append(v)
        moved.append(m_v)
        images.append(w_v)
        v = m_v
    return basis, moved, images


def _columns(vectors: list[Tensor]) -> Tensor:
    """(B, d, k) float64."""
    return torch.stack([v.flatten(1) for v in vectors], dim=2).double()


def _least_squares(columns: Tensor, b: Tensor) -> Tensor:
    """(B, k) the weights of the columns whose sum is nearest to b; columns of 0 (breakdown) get none."""
    rtol = 10 * torch.finfo(b.dtype).eps
    weights: Tensor = (torch.linalg.pinv(columns, rtol=rtol) @ b.flatten(1).to(columns)[..., None])[..., 0]
    return weights


def _combined(weights: Tensor, basis: list[Tensor], images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """U = Q y and W u."""
    parts = weights.to(basis[0]).unbind(1)
    u, image = (
        torch.stack([w.reshape(-1, *[1] * (v.ndim - 1)) * v for w, v in zip(parts, vectors, strict=True)]).sum(0)
        for vectors in (basis, images)
    )
    return u, image


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(B, 1, ...) the inner product of every sample."""
    product: Tensor = (a * b).flatten(1).sum(1)
    return product.reshape(-1, *[1] * (a.ndim - 1))


def _over(a: Tensor, b: Tensor) -> Tensor:
    """A / b, 0 where b is not positive or the quotient not finite."""
    quotient = torch.where(b > 0, a / torch.where(b > 0, b, torch.ones_like(b)), 0.0)
    return torch.where(quotient.isfinite(), quotient, 0.0)
