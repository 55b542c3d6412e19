"""The analysis of `derivative` and `holes` over noise levels, on a model and its pictures."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paintback import __version__
from paintback.denoiser import Denoiser
from paintback.models import find
from paintback.models.base import Model
from paintback.training.data import open_pictures
from research.jacobian import derivative as analysis
from research.jacobian import holes
from research.jacobian.derivative import Estimate, Spectrum

__all__ = ["EXACT", "Level", "RedSquare", "Settings", "analyse", "pictures_of", "protocol", "red_square", "states"]

EXACT = 1024  # entries up to which J is formed
PART = 4  # pictures linearised at once


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        levels: noise levels sigma / alpha.
        pictures: on which holes are filled.
        spectra: of these, the first ones whose J is analysed.
        probes: of Hutchinson's estimate, for pictures of more than `EXACT` entries.
        iterations: of Lanczos, likewise.
        seed: of pictures, noise, probes and first vectors.
    """

    levels: tuple[float, ...] = analysis.LEVELS
    pictures: int = 16
    spectra: int = 2
    probes: int = 6
    iterations: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Level:
    """What was measured at one noise level.

    Attributes:
        sigma: sigma / alpha.
        asymmetry: |J - J^T|_F / |J + J^T|_F.
        asymmetry_errors: standard errors of Hutchinson's estimates; 0 where J was formed.
        spectra: of every analysed picture.
        eigenvalues: of S for the first picture, rising; empty where J was not formed.
        differences: relative errors of forward differences, by their length.
        cosines: by hole, of J e and J^T e in the hole, e the residual on known entries.
        holes: by hole and V, mean squared error in the hole; fewer pictures where J is formed.
    """

    sigma: float
    asymmetry: Estimate
    asymmetry_errors: tuple[float, ...]
    spectra: tuple[Spectrum, ...]
    eigenvalues: tuple[float, ...]
    differences: dict[str, Estimate]
    cosines: dict[str, Estimate]
    holes: dict[str, dict[str, Estimate]] = field(default_factory=dict)


@dataclass(frozen=True)
class RedSquare:
    """J e and J^T e for a residual e that is a square of one colour.

    Attributes:
        sigma: noise level.
        x0: (C, H, W) expected picture.
        e: (C, H, W) the residual.
        forward: J e.
        transposed: J^T e.
    """

    sigma: float
    x0: Tensor
    e: Tensor
    forward: Tensor
    transposed: Tensor


def pictures_of(model: Model, data: Path, size: int, count: int, seed: int) -> tuple[Tensor, list[int]]:
    """Real pictures in the model's colours.

    Args:
        model: the model.
        data: a folder of pictures, or an IDX file.
        size: side of the crops from a folder; a model of one size takes its own.
        count: how many.
        seed: of the choice.

    Returns:
        (count, C, H, W) in [-1, 1], and the number of the file or picture that each was made from.

    Raises:
        ValueError: for pictures that the model does not take.
    """
    side = model.size[0] if model.size is not None else size
    source = open_pictures(data, size=side)
    x, chosen = source.spread(seed, count)
    if x.shape[1] == 3:
        x = model.to_model(x)
    side = x.shape[-1]
    if x.shape[1] != model.channels or side % model.multiple or (model.size is not None and (side, side) != model.size):
        wanted = f"{model.size[0]} x {model.size[1]}" if model.size else f"sides that are multiples of {model.multiple}"
        raise ValueError(
            f"{data} gives pictures of {x.shape[1]} x {side} x {side}, and the model {model.name!r} takes "
            f"{model.channels} colours and {wanted}; give another --size or other pictures."
        )
    return x.to(model.device), chosen


def states(x: Tensor, sigma: float, seed: int) -> Tensor:
    """X + sigma noise, the same noise at all levels."""
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)


def analyse(
    denoiser: Denoiser, x: Tensor, settings: Settings, begin: Callable[[str], None] = lambda _: None
) -> Iterator[Level]:
    """Measures level by level.

    Args:
        denoiser: of a pixel model.
        x: (B, C, H, W) pictures.
        settings: how much.
        begin: told of every part.

    Raises:
        ValueError: for a latent model, or a level that the model does not know.
    """
    denoiser = analysis.pixel_denoiser(denoiser)
    times = [analysis.level_time(denoiser, sigma) for sigma in settings.levels]
    masks = {name: known.to(x.device) for name, known in holes.known_masks(tuple(x.shape[1:])).items()}
    exact = x[0].numel() <= EXACT
    few = min(settings.spectra, len(x))
    for sigma, time in zip(settings.levels, times, strict=True):
        x_t = states(x, sigma, settings.seed)
        begin(f"sigma {sigma:g}, J")
        at = analysis.Linearised(denoiser, time, x_t[:few])
        generator = torch.Generator().manual_seed(settings.seed + 1)
        eigenvalues: tuple[float, ...] = ()
        solved: dict[str, dict[str, list[float]]] = {name: {} for name in masks}
        if exact:
            ratios, spectra = [], []
            for row in range(few):
                j = analysis.matrix(denoiser, time, x_t[row])
                ratios.append((analysis.exact_asymmetry(j), 0.0))
                spectrum, values = analysis.exact_spectrum(j)
                spectra.append(spectrum)
                eigenvalues = eigenvalues or tuple(values.tolist())
                for name, known in masks.items():
                    for label, value in holes.solved_errors(j, sigma, at.x0[row], x[row], known).items():
                        solved[name].setdefault(label, []).append(value)
        else:
            ratios = analysis.estimate_asymmetry(at, generator, settings.probes)
            spectra = analysis.estimate_spectrum(at, generator, settings.iterations)
        e = torch.where(masks["box"], x[:few] - at.x0, 0.0)
        differences = analysis.difference_errors(denoiser, time, x_t[:few], at, e)
        begin(f"sigma {sigma:g}, holes")
        cosines = {}
        for name, known in masks.items():
            e = torch.where(known, x[:few] - at.x0, 0.0)
            cosines[name] = analysis.cosine(at.forward(e), at.transposed(e), ~known)
        del at
        found: dict[str, dict[str, list[float]]] = {name: {} for name in masks}
        for truth, x_part in zip(x.split(PART), x_t.split(PART), strict=True):
            at = analysis.Linearised(denoiser, time, x_part)
            for name, known in masks.items():
                for label, error in holes.iterative_errors(denoiser, time, x_part, at, truth, known).items():
                    found[name].setdefault(label, []).extend(error.each)
        errors = {
            name: {label: Estimate(tuple(values)) for label, values in (found[name] | solved[name]).items()}
            for name in masks
        }
        yield Level(
            sigma,
            Estimate(tuple(ratio for ratio, _ in ratios)),
            tuple(error for _, error in ratios),
            tuple(spectra),
            eigenvalues,
            differences,
            cosines,
            errors,
        )


def red_square(denoiser: Denoiser, x: Tensor, settings: Settings) -> list[RedSquare]:
    """FCS's experiment: which change of x_t reddens a square of the picture, by J e and by J^T e.

    Args:
        denoiser: of a pixel model.
        x: (C, H, W) picture.
        settings: levels and seed.

    Returns:
        One for every level; the square, of a quarter of the side, is red, or white in grey pictures.
    """
    denoiser = analysis.pixel_denoiser(denoiser)
    channels, height, width = x.shape
    colour = torch.tensor((1.0, -1.0, -1.0) if channels == 3 else (1.0,) * channels)
    e = torch.zeros_like(x)
    top, left, side = height * 3 // 8, width * 3 // 8, (height // 4, width // 4)
    e[:, top : top + side[0], left : left + side[1]] = colour.to(x)[:, None, None]
    found = []
    for sigma in settings.levels:
        at = analysis.Linearised(denoiser, analysis.level_time(denoiser, sigma), states(x[None], sigma, settings.seed))
        found.append(RedSquare(sigma, at.x0[0], e, at.forward(e[None])[0], at.transposed(e[None])[0]))
    return found


def protocol(
    model: Model, name: str, data: Path, x: Tensor, chosen: Sequence[int], settings: Settings
) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "paintback": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "model": model.name,
        **_hash(model, name),
        "data": data.name,
        "pictures": list(chosen),
        "shape": list(x.shape[1:]),
        "levels": list(settings.levels),
        "seed": settings.seed,
        "analysed": min(settings.spectra, len(x)),
        "matrix": "formed" if x[0].numel() <= EXACT else f"{settings.probes} probes, {settings.iterations} of Lanczos",
        "dtype": str(x.dtype).removeprefix("torch."),
        "units": "alpha = 1, J = d x0 / d x_t; errors in the hole are mean squares, pictures in [-1, 1]",
    }


def _hash(model: Model, name: str) -> dict[str, str]:
    """SHA-256 of the file of weights, or where there is no single one of the parameters in their order."""
    card = find(name)
    path = Path(name) if card is None else card.weights
    if path.is_file():
        return {"weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    digest = hashlib.sha256()
    for weight in model.network.state_dict().values() if model.network is not None else ():
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return {"parameters_sha256": digest.hexdigest()}
