"""AID beside its rivals at equal, small numbers of evaluations: one table of the folders of `paintback bench images`.

    for budget in 4 8 10 20; do
        paintback bench images research/suites/fashion-aid.json --data DATA --lpips LPIPS \
            --methods aid,ddnm,ding:delayed=true,fmm --budget $budget -o OUT
    done
    python -m research.aid_beside OUT

Every method is on its own grid and at its default fields, with as many steps as the evaluations pay for. Intervals are
95 % over pictures; the last column is the difference in LPIPS from AID's, paired by picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import t as student

from paintback.bench.pictures.report import TITLES
from paintback.bench.pictures.summary import ALL, Results, Row, read_results, summarise
from research.command import run

__all__ = ["table"]

METRICS = ("psnr", "lpips", "frechet_alexnet", "frechet_classifier")


def table(results: Results, first: str = "aid") -> str:
    """The Markdown table of all masks together.

    Args:
        results: of `read_results`.
        first: label of the method that the others are compared with.
    """
    rows = [row for row in summarise(results) if row.mask == ALL and not row.common]
    metrics = [metric for metric in METRICS if metric in rows[0].means]
    heads = ["at most", "method", "evaluations", *(TITLES[metric] for metric in metrics), "spread", "LPIPS less AID's"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for budget in sorted({row.budget or 0 for row in rows}):
        at = [row for row in rows if row.budget == budget]
        base = _lpips(results, budget, first)
        for row in sorted(at, key=lambda row: row.means.get("lpips", 0.0)):
            parts = [str(budget), _named(row), f"{row.evaluations:g}"]
            parts += [_pm(row.means[m], row.intervals[m], 4 if m == "lpips" else 2) for m in metrics]
            parts.append("" if row.diversity is None else f"{row.diversity:.1f}")
            parts.append("" if row.label == first else _paired(_lpips(results, budget, row.label), base))
            lines.append("| " + " | ".join(parts) + " |")
    return "\n".join(lines)


def _named(row: Row) -> str:
    """The label, where a module of one's own is named by its folder alone."""
    guidance = row.fields.get("guidance")
    return row.label if guidance is None else f"aid, {Path(guidance).parent.name or guidance}"


def _pm(mean: float, interval: float, digits: int) -> str:
    return f"{mean:.{digits}f} ± {interval:.{digits}f}"


def _lpips(results: Results, budget: int, label: str) -> dict[Any, float]:
    """By picture, mean over its masks."""
    found: dict[Any, list[float]] = {}
    for cell, rows in results:
        if cell.budget == budget and cell.label == label:
            for row in rows:
                if row["sample"] == 0 and "lpips" in row:
                    found.setdefault(row["picture"], []).append(row["lpips"])
    return {picture: float(np.mean(values)) for picture, values in found.items()}


def _paired(these: dict[Any, float], base: dict[Any, float]) -> str:
    shared = sorted(set(these) & set(base))
    if len(shared) < 2:
        return ""
    gaps = np.array([these[key] - base[key] for key in shared])
    reach = float(student.ppf(0.975, len(gaps) - 1)) * gaps.std(ddof=1) / len(gaps) ** 0.5
    return f"{gaps.mean():+.4f} ± {reach:.4f}"


@click.command(name="aid-beside")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
def aid_beside(folders: Sequence[Path]) -> None:
    """Print the table of every folder that `paintback bench images` made."""
    for folder in folders:
        click.echo(table(read_results(folder)) + "\n")


if __name__ == "__main__":
    run(aid_beside)
