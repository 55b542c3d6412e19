"""The derivative of a denoiser, J = d x0 / d x_t: how symmetric it is, its spectrum, and its finite differences.

An exact denoiser's J is alpha_t / sigma_t^2 times the covariance of the picture given x_t (second-order Tweedie): it is
symmetric, without negative eigenvalues. FCS takes J e in place of the gradient J^T e (Graikos et al., NeurIPS 2025,
arXiv:2410.18804, whose notebooks have such an analysis), MMPS and FMM solve with J as with a covariance by conjugate
gradients. How far a network allows that is measured at states x_t = x0 + sigma noise of real pictures:

    asymmetry   |J - J^T|_F / |J + J^T|_F
    spectrum    largest and smallest eigenvalue of S = (J + J^T) / 2, largest imaginary part of K's, K = (J - J^T) / 2
    difference  |(x0(x_t + h v) - x0(x_t)) / h - J v| / |J v| for v = m (y - x0), which FCS and FMM start from

J of a small picture is formed row by row. Of larger ones the squares of the two norms are estimated without bias
(Hutchinson 1990: E |A v|^2 = |A|_F^2 for signs v), and the ends of the spectra are Ritz values of a Krylov space
(Lanczos with full orthogonalisation), which lie inside the true ends; the residual |A u - theta u| bounds how far the
next eigenvalue is. Products J v are the derivative of J^T u with respect to u, exact as J^T v is.

Units: alpha = 1, sigma the noise level. In VP coordinates, which FCS's numbers are in, J is sqrt(1 + sigma^2) as large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from paintback.denoiser import Codec, Denoiser
from paintback.methods.linear import sizes
from paintback.schedules import Time

__all__ = [
    "DELTAS",
    "FCS_DELTA",
    "LEVELS",
    "Estimate",
    "Linearised",
    "Spectrum",
    "cosine",
    "difference_errors",
    "estimate_asymmetry",
    "estimate_spectrum",
    "exact_asymmetry",
    "exact_spectrum",
    "forward_difference",
    "level_time",
    "matrix",
    "pixel_denoiser",
]

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 80.0)
DELTAS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
FCS_DELTA = 0.005  # max|h v| in VP coordinates
_BREAKDOWN = 1e-5  # relative length below which a Krylov space is complete, in float32

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures.

    Attributes:
        each: one number a picture.
    """

    each: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean."""
        return math.fsum(self.each) / len(self.each)

    @property
    def error(self) -> float | None:
        """Standard error of the mean; None of a single picture."""
        if len(self.each) < 2:
            return None
        square = math.fsum((value - self.mean) ** 2 for value in self.each)
        return math.sqrt(square / (len(self.each) - 1) / len(self.each))


@dataclass(frozen=True)
class Spectrum:
    """The ends of the spectra of S and K for one picture.

    Attributes:
        largest: eigenvalue of S.
        smallest: eigenvalue of S.
        skew: largest imaginary part of an eigenvalue of K.
        residuals: |A u - theta u| of the three unit Ritz vectors, in this order; 0 where the matrix was formed.
    """

    largest: float
    smallest: float
    skew: float
    residuals: tuple[float, float, float] = (0.0, 0.0, 0.0)


def pixel_denoiser(denoiser: Denoiser) -> Denoiser:
    """The denoiser in coordinates with alpha = 1.

    Raises:
        ValueError: for a latent model, where no pixel has an entry of its own.
    """
    if type(denoiser.codec) is not Codec:
        raise ValueError(
            "The analysis of the Jacobian is for pixel models, and this one is latent; give a pixel model."
        )
    return denoiser.in_coordinates("edm")


def level_time(denoiser: Denoiser, sigma: float) -> Time:
    """The time at which sigma / alpha is `sigma`.

    Raises:
        ValueError: where the model knows no such level.
    """
    time = denoiser.schedule.at(float(denoiser.schedule.time_of_ratio(torch.tensor(sigma, dtype=torch.float64))))
    if not sigma > 0 or abs(time.ratio / sigma - 1) > 1e-3:
        raise ValueError(
            f"The model has no noise level {sigma:g}; its levels end at {denoiser.schedule.at(1.0).ratio:g}."
        )
    return time


class Linearised:
    """A denoiser's x0 at a batch of states, and products with its derivative.

    Args:
        denoiser: with alpha = 1; every row's x0 must depend on that row alone.
        time: of the states.
        x: (B, ...) states.

    Attributes:
        x0: (B, ...) expected pictures.
    """

    def __init__(self, denoiser: Denoiser, time: Time, x: Tensor) -> None:
        with torch.enable_grad():
            self._x = x.detach().requires_grad_()
            self._output = denoiser(self._x, time).x0
        self.x0 = self._output.detach()

    @cached_property
    def _pulled(self) -> tuple[Tensor, Tensor]:
        """A dummy u, and J^T u as a function of it."""
        with torch.enable_grad():
            u = torch.zeros_like(self.x0).requires_grad_()
            return u, torch.autograd.grad(self._output, self._x, u, create_graph=True)[0]

    def forward(self, v: Tensor) -> Tensor:
        """J v of every row, (B, ...)."""
        u, pulled = self._pulled
        return torch.autograd.grad(pulled, u, v, retain_graph=True)[0]

    def transposed(self, v: Tensor) -> Tensor:
        """J^T v of every row, (B, ...)."""
        return torch.autograd.grad(self._output, self._x, v, retain_graph=True)[0]

    def symmetric(self, v: Tensor) -> Tensor:
        """(J + J^T) v / 2."""
        return (self.forward(v) + self.transposed(v)) / 2

    def skew(self, v: Tensor) -> Tensor:
        """(J - J^T) v / 2."""
        return (self.forward(v) - self.transposed(v)) / 2


def forward_difference(denoiser: Denoiser, time: Time, x: Tensor, x0: Tensor, v: Tensor, h: Tensor) -> Tensor:
    """(x0(x + h v) - x0(x)) / h of every row.

    Args:
        denoiser: the model.
        time: of the states.
        x: (B, ...) states.
        x0: their expected pictures.
        v: (B, ...) directions.
        h: (B, 1, ...) lengths; 0 gives 0.
    """
    with torch.no_grad():
        change = denoiser(x + h * v, time).x0 - x0
    return torch.where(h > 0, change / torch.where(h > 0, h, torch.ones_like(h)), 0.0)


def step_length(v: Tensor, length: float) -> Tensor:
    """(B, 1, ...) the h with rms(h v) = length; 0 where v is 0."""
    size = sizes(v) / math.sqrt(v[0].numel())
    return torch.where(size > 0, length / torch.where(size > 0, size, torch.ones_like(size)), 0.0)


def matrix(denoiser: Denoiser, time: Time, x: Tensor, chunk: int = 128) -> Tensor:
    """J of one picture, (n, n) float64, row by row.

    Args:
        denoiser: the model.
        time: of the state.
        x: one state, without batch axis.
        chunk: rows made at once.
    """
    count = x.numel()
    chunk = min(chunk, count)
    at = Linearised(denoiser, time, x.expand(chunk, *x.shape).contiguous())
    rows = []
    for start in range(0, count, chunk):
        v = torch.zeros(chunk, count, dtype=x.dtype, device=x.device)
        size = min(chunk, count - start)
        v[:size, start : start + size] = torch.eye(size, dtype=x.dtype, device=x.device)
        rows.append(at.transposed(v.view(chunk, *x.shape)).flatten(1)[:size].double())
    return torch.cat(rows)


def exact_asymmetry(j: Tensor) -> float:
    """|J - J^T|_F / |J + J^T|_F of a matrix that is not skew."""
    return float((j - j.mT).norm() / (j + j.mT).norm())


def exact_spectrum(j: Tensor) -> tuple[Spectrum, Tensor]:
    """The ends of the spectra of a matrix, and all eigenvalues of S, rising, (n,)."""
    values = torch.linalg.eigvalsh((j + j.mT) / 2)
    skew = torch.linalg.eigvalsh(1j * (j - j.mT) / 2)[-1]
    return Spectrum(float(values[-1]), float(values[0]), float(skew)), values


def estimate_asymmetry(at: Linearised, generator: torch.Generator, probes: int) -> list[tuple[float, float]]:
    """Hutchinson's estimate of the asymmetry.

    Args:
        at: the linearised denoiser.
        generator: of the signs, on the CPU.
        probes: at least 2; each costs a product J v and one J^T v.

    Returns:
        Of every row the estimate, whose squared numerator and denominator are unbiased, and its standard error.
    """
    minus, plus = [], []
    for _ in range(probes):
        signs = torch.randint(0, 2, at.x0.shape, generator=generator).to(at.x0) * 2 - 1
        ahead, back = at.forward(signs), at.transposed(signs)
        minus.append((ahead - back).flatten(1).double().square().sum(1))
        plus.append((ahead + back).flatten(1).double().square().sum(1))
    a, b = torch.stack(minus, 1), torch.stack(plus, 1)  # (B, probes)
    ratio = (a.mean(1) / b.mean(1)).sqrt()
    spread = (a / a.mean(1, keepdim=True).clamp(min=1e-300) - b / b.mean(1, keepdim=True)).std(1)
    error = ratio * spread / (2 * math.sqrt(probes))
    return list(zip(ratio.tolist(), error.tolist(), strict=True))


def estimate_spectrum(at: Linearised, generator: torch.Generator, iterations: int) -> list[Spectrum]:
    """The ends of the spectra from two Krylov spaces.

    Args:
        at: the linearised denoiser.
        generator: of the first vector, on the CPU.
        iterations: dimension of either space; each costs a product J v and one J^T v.

    Returns:
        Of every row the Ritz values and their residuals.
    """
    start = torch.randn(at.x0.shape, generator=generator).to(at.x0)
    found = []
    for product, factor in ((at.symmetric, 1.0), (at.skew, 1j)):
        basis, images, projected = _krylov(product, start, min(iterations, start[0].numel()))
        values, vectors = torch.linalg.eigh(projected * factor)
        rest = (factor * images).to(vectors) @ vectors - (basis.to(vectors) @ vectors) * values[:, None, :]
        found.append((values, torch.linalg.vector_norm(rest, dim=1)))
    (values, rest), (imaginary, rest_skew) = found
    return [
        Spectrum(
            float(values[row, -1]),
            float(values[row, 0]),
            float(imaginary[row, -1]),
            (float(rest[row, -1]), float(rest[row, 0]), float(rest_skew[row, -1])),
        )
        for row in range(len(start))
    ]


def _krylov(product: Product, start: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """An orthonormal basis (B, n, k) of a Krylov space, its images (B, n, k), and basis^T images (B, k, k)."""
    q = start.flatten(1).double()
    q = q / q.norm(dim=1, keepdim=True)
    basis, images = torch.zeros(len(q), q.shape[1], 0, dtype=q.dtype), torch.zeros(len(q), q.shape[1], 0, dtype=q.dtype)
    for _ in range(count):
        image = product(q.to(start.dtype).view(start.shape)).flatten(1).double()
        basis, images = torch.cat((basis, q[..., None]), 2), torch.cat((images, image[..., None]), 2)
        q, scale = image, image.norm(dim=1, keepdim=True)
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            q = q - (basis @ (basis.mT @ q[..., None]))[..., 0]
        size = q.norm(dim=1, keepdim=True)
        q = torch.where(size > _BREAKDOWN * scale, q / size.clamp(min=1e-300), 0.0)
    projected = basis.mT @ images
    # a complete space has columns of 0; their eigenvalue is set inside the spectrum, to the first Rayleigh quotient
    dead = (basis.abs().amax(1) == 0).to(projected)
    return basis, images, projected + torch.diag_embed(dead * projected[:, :1, 0])


def difference_errors(
    denoiser: Denoiser, time: Time, x: Tensor, at: Linearised, v: Tensor, deltas: Sequence[float] = DELTAS
) -> dict[str, Estimate]:
    """Relative errors of forward differences.

    Args:
        denoiser: the model.
        time: of the states.
        x: (B, ...) states.
        at: the denoiser linearised there.
        v: (B, ...) directions.
        deltas: lengths rms(h v) in units of sigma.

    Returns:
        By the length, and by "FCS" for FCS's rule max|h v| = 0.005 in VP coordinates.
    """
    exact = at.forward(v)
    lengths = {f"{delta:g}": step_length(v, delta * time.sigma) for delta in deltas}
    # both rules are invariant: a length in VP coordinates is sqrt(1 + sigma^2) as long where alpha is 1
    largest = v.flatten(1).abs().amax(1).reshape(sizes(v).shape)
    lengths["FCS"] = FCS_DELTA * math.hypot(1.0, time.sigma) / largest.clamp(min=1e-30)
    errors = {}
    for label, h in lengths.items():
        wrong = forward_difference(denoiser, time, x, at.x0, v, h) - exact
        errors[label] = Estimate(tuple((sizes(wrong) / sizes(exact)).flatten().tolist()))
    return errors


def cosine(a: Tensor, b: Tensor, where: Tensor) -> Estimate:
    """Cosine of the angle between two vectors of every row over the entries `where`."""
    a, b = (torch.where(where, one, 0.0).flatten(1).double() for one in (a, b))
    return Estimate(tuple(torch.nn.functional.cosine_similarity(a, b, dim=1).tolist()))
