"""The closed-form problems as the bench runs them: one letter each, with or without noise on the observation.

    A    2-D Gaussian, one entry known
    B    DING's 2-D Gaussian, observed with noise 0.01
    C    25 components on a grid, one entry known; C2 with other weights
    D    spiral of 500 components, one entry known
    E    16-D correlated Gaussian, four entries at either end known
    F    64-D Gaussian of a real picture's patches, a hole of 4 x 4 in a patch of 8 x 8

"A-noisy" and so on have the same y, taken to be noisy by 0.1. B is noisy already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import torch
from torch import Tensor

from paintback.images import read_picture
from paintback.observation import Observation
from paintback.priors import (
    GaussianMixture,
    Problem,
    correlated16,
    ding_toy,
    gaussian_2d,
    gaussian_kl,
    gaussian_w2,
    grid25,
    histogram_kl,
    picture_gaussian,
    spiral500,
)

__all__ = ["CASES", "NOISE", "Case", "case"]

NOISE = 0.1
PICTURE = "outpaint.jpg"  # of the shipped examples
BINS = 61


@dataclass(frozen=True)
class Case:
    """One problem on the bench.

    Attributes:
        name: a letter, or a letter with "-noisy".
        title: one line.
        prior: law of the picture.
        observation: what is given of it, float32.
        posterior: exact law of the unknown entries.
        shape: of one picture.
        measure: "gaussian": KL of Gaussian fits; "histogram": KL of histograms, where modes count.
        particles: most that are worth their time; None for no limit.
    """

    name: str
    title: str
    prior: GaussianMixture
    observation: Observation
    posterior: GaussianMixture
    shape: tuple[int, ...]
    measure: Literal["gaussian", "histogram"]
    particles: int | None = None

    def unknown(self, x: Tensor) -> Tensor:
        """(B, u) the unknown entries of (B, ...) samples."""
        assert self.observation.known is not None
        return x.flatten(1)[:, ~self.observation.known.flatten()]

    def kl(self, x: Tensor) -> float:
        """KL of the samples from the exact posterior."""
        u = self.unknown(x)
        return gaussian_kl(u, self.posterior) if self.measure == "gaussian" else histogram_kl(u, self.posterior, BINS)

    def w2(self, x: Tensor) -> float:
        """Wasserstein-2 distance of the Gaussian fits."""
        return gaussian_w2(self.unknown(x), self.posterior)

    def floor(self, particles: int) -> float:
        """About the KL of as many exact samples."""
        d = self.posterior.dim
        return (d + d * (d + 1) / 2 if self.measure == "gaussian" else BINS - 1) / (2 * particles)


def _picture() -> Problem:
    """At twice the picture's contrast, from -3 to 1, in which all that is recorded was measured."""
    with resources.as_file(resources.files("paintback") / "examples" / PICTURE) as path:
        pixels = read_picture(path).to_unit()
    return picture_gaussian(torch.from_numpy(pixels).permute(2, 0, 1).double() * 2 - 1)


_Row = tuple[str, Callable[[], Problem], Literal["gaussian", "histogram"], int | None]
_ROWS: dict[str, _Row] = {
    "A": ("2-D Gaussian", gaussian_2d, "gaussian", None),
    "B": ("DING's toy, noise 0.01", ding_toy, "gaussian", None),
    "C": ("25 components", grid25, "histogram", None),
    "C2": ("25 components, other weights", lambda: grid25(1, -0.8), "histogram", None),
    "D": ("spiral of 500 components", spiral500, "histogram", 2000),
    "E": ("16-D correlated Gaussian, 8 known", correlated16, "gaussian", None),
    "F": ("64-D Gaussian of a picture, 48 known", _picture, "gaussian", 2000),
}
CASES = (*_ROWS, *(f"{name}-noisy" for name in _ROWS if name != "B"))


@cache
def case(name: str) -> Case:
    """The problem of a name in `CASES`.

    Raises:
        ValueError: for another name.
    """
    letter, _, noisy = name.partition("-")
    if name not in CASES:
        raise ValueError(f"Unknown problem {name!r}; valid are {', '.join(CASES)}.")
    title, make, measure, particles = _ROWS[letter]
    problem = make()
    given = problem.observation
    sigma = NOISE if noisy else given.sigma
    posterior = problem.prior.posterior(Observation(given.y, given.known, sigma)) if noisy else problem.posterior
    observation = Observation(given.y.float(), given.known, sigma)
    title += f", noise {NOISE:g}" if noisy else ""
    return Case(name, title, problem.prior, observation, posterior, tuple(given.y.shape), measure, particles)
