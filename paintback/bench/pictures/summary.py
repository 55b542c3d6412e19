"""Tables of results: means over pictures with 95 % intervals (Student's t), by mask and over all masks.

Pictures differ more than methods do, so every row also has its mean difference from the best one's, picture by picture.

Where some methods painted fewer pictures than others, or fewer of their holes, there is a second set of rows over what
all of them painted: a Frechet distance depends on how many there are, and a mean on which.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import t as student

from paintback.bench.metrics.frechet import Moments, frechet_distance
from paintback.bench.pictures.cell import Cell, read_rows, write_rows
from paintback.bench.pictures.protocol import read_protocol
from paintback.bench.pictures.runner import read_cells
from paintback.images.encoding import write_whole

__all__ = ["ALL", "PAIRED", "RISING", "Row", "half_width", "read_results", "summarise", "write_summary"]

ALL = "all masks"
RESAMPLES = 20  # of the pictures, for the interval of a Frechet distance
FEATURES = ("frechet_alexnet", "frechet_classifier", "fid", "patch_fid")
RISING = {"psnr", "ssim", "accuracy", "clip", "context_psnr", "context_psnr_released"}
PAIRED = ("lpips", "psnr")  # the first that was measured is compared picture by picture
Results = list[tuple[Cell, list[dict[str, Any]]]]


@dataclass(frozen=True)
class Row:
    """One cell on one mask.

    Attributes:
        label: of the method, with its fields.
        method: its name.
        fields: those that were set.
        budget: evaluations and gradients, or None.
        budget_seconds: or seconds, or None.
        steps: grid intervals.
        mask: name, or `ALL`.
        pictures: how many.
        common: whether these are the holes that all methods of the same budget painted, where they differ.
        evaluations: per sample, mean.
        vjps: per sample, mean.
        seconds: per sample, mean.
        peak_memory_bytes: largest.
        diversity: spread of the samples of a hole, grey levels of 255; None for a single one.
        means: of every metric.
        intervals: half widths, 95 %.
        behind: how much worse the first of `PAIRED` is than the best row's of the same mask, cost and pictures, mean
            over the pictures; None for the best one and where there are fewer than two pictures.
        behind_interval: half width, 95 %.
    """

    label: str
    method: str
    fields: dict[str, Any]
    budget: int | None
    budget_seconds: float | None
    steps: int | None
    mask: str
    pictures: int
    common: bool
    evaluations: float
    vjps: float
    seconds: float
    peak_memory_bytes: int | None
    diversity: float | None
    means: dict[str, float]
    intervals: dict[str, float]
    behind: float | None = None
    behind_interval: float | None = None


def read_results(out: Path) -> Results:
    """All cells of a folder with their rows: cost, scores and features of every sample that was painted and scored."""
    results = []
    cycled = (read_protocol(out) or {}).get("suite", {}).get("pairing") == "cycle"
    for cell, folder in read_cells(out):
        rows = []
        for path in sorted(folder.glob("score-*.parquet")):
            parts = read_rows(path.with_name(path.name.replace("score-", "part-")))
            rows += [{**a, **b} for a, b in zip(parts, read_rows(path), strict=True)]
        masks: dict[str, set[str]] = {}
        for row in rows:
            masks.setdefault(row["mask"], set()).add(row["picture"])
        # of a run that goes on, the pictures whose masks are all done
        whole = rows if cycled else [row for row in rows if all(row["picture"] in some for some in masks.values())]
        if whole:
            results.append((cell, whole))
    return results


def summarise(results: Results, samples: int = 1) -> list[Row]:
    """The rows of the tables.

    Args:
        results: of all cells.
        samples: of every hole that the means are over; further ones tell diversity alone.
    """
    summary: list[Row] = []
    scores: list[tuple[str, dict[str, float]]] = []
    holes = [{(row["picture"], row["mask"]) for row in rows if row["sample"] < samples} for _, rows in results]
    for cell, rows in results:
        peers = [
            some
            for (c, _), some in zip(results, holes, strict=True)
            if (c.budget, c.seconds) == (cell.budget, cell.seconds)
        ]
        shared = set.intersection(*peers)
        for common in (False, True) if any(some != shared for some in peers) else (False,):
            chosen = [row for row in rows if not common or (row["picture"], row["mask"]) in shared]
            for mask in (*dict.fromkeys(row["mask"] for row in rows), ALL):
                some = [row for row in chosen if mask in (ALL, row["mask"])]
                if any(row["sample"] < samples for row in some):
                    summary.append(_row(cell, mask, some, common, samples))
                    metric = next((one for one in PAIRED if one in some[0]), "")
                    first = [row for row in some if row["sample"] < samples]
                    scores.append((metric, _by_picture(first, metric) if metric else {}))
    return _compared(summary, scores)


def _compared(summary: Sequence[Row], scores: Sequence[tuple[str, dict[str, float]]]) -> list[Row]:
    """The rows with their distance from the best one of the same cost and mask on the same pictures."""
    tables: dict[tuple[Any, ...], list[int]] = {}
    for place, (row, (metric, values)) in enumerate(zip(summary, scores, strict=True)):
        key = (metric, row.budget, row.budget_seconds, row.mask, row.common, tuple(values))
        tables.setdefault(key, []).append(place)
    made = list(summary)
    for (metric, *_), places in tables.items():
        sign = -1 if metric in RISING else 1
        best = min(places, key=lambda place: sign * summary[place].means.get(metric, math.inf))
        for place in places:
            mine, other = scores[place][1], scores[best][1]
            if place != best and len(mine) > 1:
                apart = np.array([sign * (mine[name] - other[name]) for name in mine])
                made[place] = replace(made[place], behind=float(apart.mean()), behind_interval=half_width(apart))
    return made


def _by_picture(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, float]:
    """The mean over a picture's holes."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["picture"], []).append(row[metric])
    return {name: float(np.mean(found[name])) for name in sorted(found)}


def _row(cell: Cell, mask: str, rows: Sequence[dict[str, Any]], common: bool, samples: int) -> Row:
    means: dict[str, float] = {}
    intervals: dict[str, float] = {}
    first = [row for row in rows if row["sample"] < samples]
    pictures = {row["picture"] for row in first}
    skip = {"picture", "number", "mask", "sample", "seed", "hidden", "evaluations", "vjps", "seconds", "png"}
    for metric in first[0]:
        if metric in skip or metric == "peak_memory_bytes" or metric.endswith(("_made", "_truth")):
            continue
        values = np.array(list(_by_picture(first, metric).values()))
        means[metric] = float(values.mean())
        intervals[metric] = half_width(values)
    for metric in FEATURES:
        if f"{metric}_made" in first[0]:
            means[metric], intervals[metric] = _frechet(metric, first)
    memory = [row["peak_memory_bytes"] for row in rows if row["peak_memory_bytes"] is not None]
    evaluations, vjps, seconds = (
        float(np.mean([row[key] for row in first])) for key in ("evaluations", "vjps", "seconds")
    )
    return Row(
        cell.label, cell.method, cell.fields, cell.budget, cell.seconds, cell.steps, mask, len(pictures), common,
        evaluations, vjps, seconds, max(memory) if memory else None, _diversity(rows), means, intervals,
    )  # fmt: skip


def half_width(values: np.ndarray) -> float:
    """Of the 95 % interval of a mean, by Student's t; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def _frechet(metric: str, rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The distance of what was painted from the pictures themselves, and its interval from resampled pictures."""
    made, truth = (torch.tensor([row[f"{metric}_{which}"] for row in rows]) for which in ("made", "truth"))

    def distance(chosen: np.ndarray) -> float:
        a, b = (Moments().update(some[chosen].flatten(0, -2)) for some in (made, truth))
        return frechet_distance(a, b)

    rng, every = np.random.default_rng(0), np.arange(len(rows))
    if len(rows) < 3:
        return math.nan, math.nan
    again = [distance(rng.choice(every, len(every))) for _ in range(RESAMPLES)]
    return distance(every), float(1.96 * np.std(again, ddof=1))


def _diversity(rows: Sequence[dict[str, Any]]) -> float | None:
    """Root of the mean variance over the samples of a hidden entry, mean over holes."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["picture"], row["mask"]), []).append(row)
    values = []
    for group in groups.values():
        if len(group) > 1:
            shown = np.stack([_pixels(row) for row in group])
            channels = shown.shape[-1]
            values.append(math.sqrt(shown.var(axis=0, ddof=1).sum() / (group[0]["hidden"] * channels)))
    return float(np.mean(values)) if values else None


def _pixels(row: dict[str, Any]) -> np.ndarray:
    shown = np.asarray(Image.open(io.BytesIO(row["png"])), np.float64)
    return shown[..., None] if shown.ndim == 2 else shown


def write_summary(out: Path) -> list[Path]:
    """Writes results.parquet (a row for every sample, without pictures and features) and summary.json.

    Raises:
        ValueError: if the folder holds no scored result.
    """
    results, protocol = read_results(out), read_protocol(out)
    if not results:
        raise ValueError(f"{out} holds no results; `paintback bench images` makes them.")
    paths = [out / "results.parquet", out / "summary.json"]
    write_rows(list(_flat(results)), paths[0])
    samples = 1 if protocol is None else int(protocol["suite"]["samples"])
    rows = [asdict(row) for row in summarise(results, samples)]
    text = json.dumps({"protocol": protocol, "rows": _plain(rows)}, indent=1)
    write_whole(text.encode(), paths[1])
    return paths


def _flat(results: Results) -> Iterator[dict[str, Any]]:
    for cell, rows in results:
        for row in rows:
            kept = {key: value for key, value in row.items() if key != "png" and not isinstance(value, list)}
            yield {
                "label": cell.label,
                "budget": cell.budget,
                "budget_seconds": cell.seconds,
                "steps": cell.steps,
                **kept,
            }


def _plain(value: Any) -> Any:
    """NaN as null, so that it is JSON."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
