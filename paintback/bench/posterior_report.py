"""The results of `bench.posterior` as JSON, Markdown and a plot of KL against cost."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from paintback import __version__
from paintback.bench.cases import case
from paintback.bench.posterior import Summary

__all__ = ["crossing", "markdown", "plot", "png", "protocol", "pyplot", "to_json"]

GOOD = 0.01  # LanPaint's dashed line


def protocol(particles: int, seeds: int, schedule: str, grid: str) -> dict[str, Any]:
    """What the numbers depend on besides the methods."""
    return {
        "paintback": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "particles": particles,
        "seeds": list(range(seeds)),
        "schedule": schedule,
        "vp": "linear betas 1e-4 to 0.02, T = 1000",
        "flow": "shift 1",
        "grid": f"{grid}, N intervals, the last time 0",
        "dtype": "float32",
        "kl": "nats; Gaussian fit of the samples (A, B, E, F), or histogram of 61 bins on [-3, 3] (C, C2, D), || exact",
        "observed": "root mean square of x - y on known entries, before the final paste",
    }


def to_json(rows: Sequence[Summary], about: dict[str, Any]) -> str:
    """Protocol and rows."""
    data = {"protocol": about, "rows": [{**asdict(row), "cost": row.cost} for row in rows]}
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def crossing(rows: Sequence[Summary], level: float = GOOD) -> Summary | None:
    """The row with the fewest steps from which on KL stays at or below a level, or None."""
    found = None
    for row in sorted(rows, key=lambda row: row.steps, reverse=True):
        if row.kl is None or row.kl > level:
            break
        found = row
    return found


def markdown(rows: Sequence[Summary], particles: int) -> str:
    """A table for each problem.

    A cell is KL +- its spread over seeds, then evaluations and, after a slash, gradients.
    """
    parts = []
    for problem in dict.fromkeys(row.problem for row in rows):
        at = case(problem)
        mine = [row for row in rows if row.problem == problem]
        steps = sorted({row.steps for row in mine})
        last = steps[-1]
        count = min(particles, at.particles or particles)
        columns = (*map(str, steps), f"W2 @{last}", f"observed @{last}", f"s @{last}", f"<= {GOOD:g} from")
        measure = "Gaussian fit" if at.measure == "gaussian" else "histogram"
        parts += [
            f"### {problem}: {at.title}",
            "",
            f"KL ({measure}) at N steps, (evaluations/gradients); about {at.floor(count):.2g} for exact samples.",
            "",
            f"| method | {' | '.join(columns)} |",
            "|---" * (len(columns) + 1) + "|",
        ]
        for label in dict.fromkeys(row.label for row in mine):
            own = {row.steps: row for row in mine if row.label == label}
            end = own.get(last)
            first = crossing(list(own.values()))
            tail = ("", "", "") if end is None else (_number(end.w2), _number(end.observed), f"{end.seconds:.2f}")
            where = f"N = {first.steps} ({_cost(first)})" if first else "-"
            parts.append(f"| {label} | {' | '.join(_cell(own.get(n)) for n in steps)} | {' | '.join(tail)} | {where} |")
        notes = sorted({f"{row.label}, N = {row.steps}: {row.note}" for row in mine if row.note})
        parts += ["", *(f"- {note}" for note in notes), ""]
    return "\n".join(parts)


def _cell(row: Summary | None) -> str:
    if row is None:
        return ""
    spread = f" ± {_number(row.kl_spread)}" if row.kl_spread is not None else ""
    return f"{_number(row.kl)}{spread} ({_cost(row)})"


def _cost(row: Summary) -> str:
    return f"{row.evaluations:g}" + (f"/{row.vjps:g}" if row.vjps else "")


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value >= 0.01 else f"{value:.1g}"


def pyplot() -> Any:
    """matplotlib.pyplot, drawing into memory.

    Raises:
        ValueError: where matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError:
        raise ValueError("The plot needs matplotlib; install it with `pip install 'paintback[bench]'`.") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def png(figure: Any) -> bytes:
    """A figure as a PNG file's bytes; the figure is closed."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=80, metadata={"Software": None})
    pyplot().close(figure)
    return data.getvalue()


def plot(rows: Sequence[Summary]) -> bytes:
    """KL against cost, a panel for each problem; a PNG."""
    plt = pyplot()
    from matplotlib import ticker

    problems = list(dict.fromkeys(row.problem for row in rows))
    labels = sorted({row.label for row in rows if row.kl is not None})
    across = min(3, len(problems))
    down = -(-len(problems) // across)
    columns = -(-len(labels) // (24 * down))
    legend = 2.3 * columns
    width = 5.2 * across + legend
    figure, axes = plt.subplots(down, across, figsize=(width, 4.2 * down), squeeze=False)
    colours, marks = plt.get_cmap("tab10"), "osD^v<>P"
    for axis in axes.flat[len(problems) :]:
        axis.set_axis_off()
    for axis, problem in zip(axes.flat, problems, strict=False):
        for number, label in enumerate(labels):
            own = [row for row in rows if (row.problem, row.label) == (problem, label) and row.kl is not None]
            own.sort(key=lambda row: row.cost)
            style = {"color": colours(number % 10), "marker": marks[number // 10 % len(marks)]}
            values = [max(row.kl or 0.0, 1e-5) for row in own]
            axis.plot([row.cost for row in own], values, label=label, linewidth=1, markersize=4, **style)
        axis.axhline(GOOD, color="black", linestyle="--", linewidth=1)
        axis.set(xscale="log", yscale="log", title=f"{problem}: {case(problem).title}")
        axis.set(xlabel="evaluations + 2 x gradients", ylabel="KL from the exact posterior, nats")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="center right", fontsize=7, ncol=columns)
    figure.tight_layout(rect=(0, 0, 1 - legend / width, 1))
    return png(figure)
