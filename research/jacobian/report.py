"""The results of `suite` as JSON, Markdown, plots, and the pictures of the red square."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np
from torch import Tensor

from paintback.bench.posterior_report import png, pyplot
from research.jacobian.derivative import Estimate
from research.jacobian.holes import DAMPING, DIAGONAL
from research.jacobian.suite import Level, RedSquare

__all__ = ["beside_diagonal", "markdown", "plot", "squares", "to_json"]

Cells = Sequence[str]


def to_json(levels: Sequence[Level], about: dict[str, Any]) -> str:
    """Protocol and levels; a number that is not finite is null."""
    return json.dumps({"protocol": about, "levels": _plain(list(levels))}, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return _plain({"mean": value.mean, "error": value.error, "each": list(value.each)})
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def beside_diagonal(errors: dict[str, Estimate], label: str) -> tuple[float, float | None]:
    """The mean error of a V over that of the diagonal one on the same pictures, and its standard error.

    Args:
        errors: of one hole, by V.
        label: the V.

    Returns:
        The ratio, and its standard error by the delta method (pictures are paired); None of a single picture.
    """
    own = errors[label].each
    base = errors[DIAGONAL].each[: len(own)]
    mean = math.fsum(base) / len(base)
    ratio = math.fsum(own) / len(own) / mean
    rest = Estimate(tuple(a - ratio * b for a, b in zip(own, base, strict=True)))
    return ratio, None if rest.error is None else rest.error / mean


def markdown(levels: Sequence[Level]) -> str:
    """Tables of what was measured."""
    first = levels[0]
    parts = [
        "### The derivative",
        "",
        "alpha = 1; mean ± standard error over pictures. VP: the largest eigenvalue in VP coordinates. Cosine: of the "
        "angle between J e and J^T e in the hole.",
        "",
        *_rows(
            [
                "sigma",
                "asymmetry",
                "largest of S",
                "VP",
                "smallest of S",
                "skew part",
                *map(_cosine_title, first.cosines),
            ],
            [_derivative(level) for level in levels],
        ),
        "",
        "### Forward differences",
        "",
        "Relative error of the forward difference along the residual of the box, by its length rms(h v) in units of "
        "sigma; FCS: its own rule, max|h v| = 0.005 in VP coordinates.",
        "",
        *_rows(
            ["sigma", *first.differences],
            [[f"{at.sigma:g}", *(_short(one.mean) for one in at.differences.values())] for at in levels],
        ),
        "",
    ]
    for hole, errors in first.holes.items():
        few = [label for label in errors if label.endswith("solved")]
        many = [label for label in errors if label != DIAGONAL and label not in few]
        for title, labels in (("conjugate gradients", many), ("solved", few)):
            if not labels:
                continue
            count = len(errors[labels[0]].each)
            parts += [
                f"### Hidden {hole}: {title}",
                "",
                "Mean squared error in the hole of the diagonal V, then that of the other V over it (below 1: better); "
                f"mean ± standard error over {count} picture{'s'[: count > 1]}.",
                "",
                *_rows(["sigma", DIAGONAL, *labels], [_hole(level, hole, labels, count) for level in levels]),
                "",
            ]
    return "\n".join(parts)


def _cosine_title(hole: str) -> str:
    return f"cosine, {hole}"


def _rows(head: Cells, rows: Sequence[Cells]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _derivative(level: Level) -> list[str]:
    largest, smallest, skew = (
        Estimate(tuple(getattr(one, name) for one in level.spectra)) for name in ("largest", "smallest", "skew")
    )
    vp = Estimate(tuple(value * math.hypot(1, level.sigma) for value in largest.each))
    numbers = (level.asymmetry, largest, vp, smallest, skew, *level.cosines.values())
    return [f"{level.sigma:g}", *(_cell(one.mean, one.error) for one in numbers)]


def _hole(level: Level, hole: str, labels: Cells, count: int) -> list[str]:
    errors = level.holes[hole]
    base = Estimate(errors[DIAGONAL].each[:count])
    return [
        f"{level.sigma:g}",
        _cell(base.mean, base.error),
        *(_cell(*beside_diagonal(errors, label)) for label in labels),
    ]


def _cell(value: float, error: float | None) -> str:
    return _short(value) + (f" ± {error:.1g}" if error is not None and error < 1000 else "")


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.2g}"


def plot(levels: Sequence[Level]) -> bytes:
    """Asymmetry, spectrum, differences and holes against the noise level; a PNG."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 3, figsize=(17, 10))
    sigmas = [level.sigma for level in levels]
    _asymmetry(axes[0, 0], levels, sigmas)
    _spectra(axes[0, 1], levels, sigmas)
    _differences(axes[0, 2], levels, plt)
    for axis, hole in zip((axes[1, 0], axes[1, 1]), levels[0].holes, strict=True):
        _holes(axis, levels, sigmas, hole, plt)
    _eigenvalues(axes[1, 2], levels, plt)
    figure.tight_layout()
    return png(figure)


def _asymmetry(axis: Any, levels: Sequence[Level], sigmas: Sequence[float]) -> None:
    errors = [level.asymmetry.error or 0.0 for level in levels]
    axis.errorbar(
        sigmas, [level.asymmetry.mean for level in levels], errors, marker="o", label="|J - J$^T$| / |J + J$^T$|"
    )
    for hole in levels[0].cosines:
        axis.plot(
            sigmas,
            [level.cosines[hole].mean for level in levels],
            marker="s",
            linestyle="--",
            label=f"cosine of J e and J$^T$ e in the {hole}",
        )
    axis.set(xscale="log", ylim=(0, 1.02), xlabel="sigma", title="Asymmetry")
    axis.legend()


def _spectra(axis: Any, levels: Sequence[Level], sigmas: Sequence[float]) -> None:
    for name, sign, title in (
        ("largest", 1, "largest of S"),
        ("skew", 1, "largest imaginary, skew part"),
        ("smallest", -1, "minus the smallest of S"),
    ):
        values = [[sign * getattr(one, name) for one in level.spectra] for level in levels]
        axis.plot(sigmas, [sum(row) / len(row) for row in values], marker="o", label=title)
    axis.plot(
        sigmas,
        [1 / math.hypot(1, sigma) ** 2 for sigma in sigmas],
        color="grey",
        linestyle=":",
        label="1 / (1 + sigma²)",
    )
    axis.set(xscale="log", yscale="log", xlabel="sigma", title="Ends of the spectra, alpha = 1")
    axis.legend()


def _differences(axis: Any, levels: Sequence[Level], plt: Any) -> None:
    for number, level in enumerate(levels):
        colour = plt.get_cmap("viridis")(number / max(1, len(levels) - 1))
        pairs = [(float(label), one.mean) for label, one in level.differences.items() if label != "FCS"]
        axis.plot(*zip(*pairs, strict=True), marker=".", color=colour, label=f"{level.sigma:g}")
    axis.axvline(0.05, color="black", linestyle="--", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="length, units of sigma", title="Relative error of forward differences")
    axis.legend(title="sigma", fontsize=7)


def _holes(axis: Any, levels: Sequence[Level], sigmas: Sequence[float], hole: str, plt: Any) -> None:
    # those that tell most; the others are in the tables
    damped = f"+ {DAMPING[0]:g},"
    shown = [one for one in levels[0].holes[hole] if "CG" in one or (one.startswith("S") and ">" not in one)]
    shown = [one for one in shown if "s =" not in one and ("+" not in one or damped in one)]
    for number, label in enumerate(shown):
        style = ":" if label.endswith("solved") else "--" if label.startswith("J^T") else "-"
        values = [beside_diagonal(level.holes[hole], label)[0] for level in levels]
        colour = plt.get_cmap("tab10")(number % 10)
        axis.plot(sigmas, values, style, marker=".", color=colour, label=label.replace("J^T", "J$^T$"))
    axis.axhline(1, color="black", linewidth=1)
    axis.set(
        xscale="log", yscale="log", ylim=(0.3, 30), xlabel="sigma", title=f"Hidden {hole}: error over the diagonal V's"
    )
    axis.legend(fontsize=7, ncol=2)


def _eigenvalues(axis: Any, levels: Sequence[Level], plt: Any) -> None:
    shown = [level for level in levels if level.eigenvalues]
    if not shown:
        axis.set_axis_off()
        return
    for number, level in enumerate(shown):
        values = sorted(level.eigenvalues, reverse=True)
        colour = plt.get_cmap("viridis")(number / max(1, len(shown) - 1))
        axis.plot(range(1, len(values) + 1), values, color=colour, label=f"{level.sigma:g}")
    axis.axhline(0, color="black", linewidth=1)
    axis.set_yscale("symlog", linthresh=1e-3)
    axis.set(xlabel="number", title="Eigenvalues of S, first picture")
    axis.legend(title="sigma", fontsize=7)


def squares(found: Sequence[RedSquare]) -> bytes:
    """x0, J e and J^T e side by side, the last two around mid grey on one scale at each level; a PNG."""
    plt = pyplot()
    figure, axes = plt.subplots(4, len(found), figsize=(1.6 * len(found) + 0.6, 7), squeeze=False)
    for number, (column, one) in enumerate(zip(axes.T, found, strict=True)):
        scale = max(float(one.forward.abs().max()), float(one.transposed.abs().max()), 1e-30)
        shown = (one.x0, one.e, one.forward / scale, one.transposed / scale)
        for axis, image, name in zip(column, shown, ("x0", "e", "J e", "J$^T$ e"), strict=True):
            axis.imshow(_visible(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if number == 0:
                axis.set_ylabel(name)
        column[0].set_title(f"sigma {one.sigma:g}", fontsize=9)
        column[2].set_title(f"scale {scale:.2g}", fontsize=8)
    figure.tight_layout()
    return png(figure)


def _visible(image: Tensor) -> np.ndarray:
    """(C, H, W) in [-1, 1] as (H, W, 3) or (H, W) in [0, 1]."""
    pixels: np.ndarray = np.clip(image.detach().cpu().permute(1, 2, 0).numpy() / 2 + 0.5, 0, 1)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
