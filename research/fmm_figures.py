"""The figures of docs/results/fmm.md, and the numbers behind the first of them.

    python -m research.fmm_figures     runs what docs/data/fmm-slope.json lacks, then draws both figures

`fmm-slope.png`: KL against evaluations, from 50 to 3,000, of FMM with particles, FMM with steps alone, LanPaint and TFG
with ever more inner steps. `fmm-search.png`: the tuned methods at each budget, from docs/data/fmm-search.json, which
`fmm_search.py` makes. One core, about 5 minutes. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from paintback import methods
from paintback.bench.cases import case
from paintback.schedules import VP, Grid, log_snr

DOCS = Path(__file__).resolve().parents[1] / "docs"
SLOPE = DOCS / "data" / "fmm-slope.json"
SEARCH = DOCS / "data" / "fmm-search.json"
FIGURES = DOCS / "figures"
SAMPLES = {"C": 4000, "C2": 4000, "D": 500}
LONGEST = {"C": 3500, "C2": 3500, "D": 1000, "E": 1000, "F": 1000}  # evaluations
FIXED: dict[str, dict[str, Any]] = {"fmm": {"damping": 0.0}}  # the denoisers are exact
SHORT: Grid = log_snr(sigma_min=0.02, sigma_max=15.0)
OFF_Y = 0.05
COLOURS = {"fmm, particles": "#00796b", "fmm, steps alone": "#80cbc4", "lanpaint": "#d81b60", "tfg": "#f9a825"}

# label: (method, [(steps, fields)])
RUNS: dict[str, tuple[str, list[tuple[int, dict[str, Any]]]]] = {
    "fmm, particles": (
        "fmm",
        [(n, {"iterations": 1, "particles": k}) for n, k in ((12, 2), (16, 3), (25, 6), (40, 12), (50, 30))],
    ),
    "fmm, steps alone": ("fmm", [(n, {"iterations": 1}) for n in (25, 50, 150, 500)]),
    "lanpaint": ("lanpaint", [(n, {"inner_steps": k}) for n, k in ((10, 4), (16, 5), (20, 14), (25, 39), (30, 99))]),
    "tfg": ("tfg", [(n, {"inner_steps": k}) for n, k in ((10, 4), (16, 5), (20, 14), (25, 39), (30, 99))]),
}

# what the page says of coarse grids and of many known entries: problem, label, steps, fields
MORE: list[tuple[str, str, int, dict[str, Any]]] = [
    *(("C", "6 steps", 6, {"iterations": 1, "particles": k}) for k in (1, 4, 16)),
    *((problem, "16 steps", 16, {"iterations": 2, "particles": k}) for problem in ("E", "F") for k in (1, 4, 16)),
    *(("C", "cycles", 16, {"iterations": 1, "cycles": k}) for k in (3, 11, 30, 100)),
]


def slope() -> list[dict[str, Any]]:
    """The runs behind the first figure; those in the file are kept."""
    rows: list[dict[str, Any]] = json.loads(SLOPE.read_text(encoding="utf-8")) if SLOPE.exists() else []
    done = {(row["problem"], row["label"], row["steps"], json.dumps(row["fields"])) for row in rows}
    todo = [
        (problem, label, steps, fields)
        for problem in SAMPLES
        for label, (_, settings) in RUNS.items()
        if problem == "C" or label in ("fmm, particles", "lanpaint")
        for steps, fields in settings
    ]
    for problem, label, steps, fields in [*todo, *MORE]:
        name = RUNS[label][0] if label in RUNS else "fmm"
        method = methods.get(name, **FIXED.get(name, {}), **fields)
        if (problem, label, steps, json.dumps(fields)) in done or method.evaluations(steps) > LONGEST[problem]:
            continue
        at, samples = case(problem), SAMPLES.get(problem, 2000)
        generator = torch.Generator().manual_seed(0)
        denoiser = at.prior.denoiser(VP(), at.shape)
        result = method.sample(denoiser, at.observation, steps, generator, samples, SHORT)
        row = {"problem": problem, "label": label, "steps": steps, "fields": fields, "samples": samples}
        rows.append({**row, "evaluations": result.evaluations, "kl": float(f"{at.kl(result.x):.4g}")})
        text = ",\n".join(json.dumps(row) for row in rows)
        SLOPE.write_text(f"[\n{text}\n]\n", encoding="utf-8")
        print(problem, label, result.evaluations, rows[-1]["kl"], flush=True)
    return rows


def draw_slope(rows: list[dict[str, Any]]) -> None:
    """KL against evaluations, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SAMPLES), figsize=(11, 4.2), constrained_layout=True)
    for axis, (problem, samples) in zip(axes, SAMPLES.items(), strict=True):
        for label, colour in COLOURS.items():
            points = sorted(
                (row["evaluations"], row["kl"]) for row in rows if (row["problem"], row["label"]) == (problem, label)
            )
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=label)
        axis.axhline(case(problem).floor(samples), color="grey", linestyle=":", label="as many exact samples")
        axis.set(xscale="log", yscale="log", title=f"{problem}: {case(problem).title}", xlabel="evaluations per sample")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("KL from the exact posterior, nats")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(FIGURES / "fmm-slope.png", dpi=110)
    plt.close(figure)


def draw_search() -> None:
    """FMM, the best of the others and all others at each budget, one panel a problem."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    studies = json.loads(SEARCH.read_text(encoding="utf-8"))["studies"]
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for entry in studies:
        for problem, row in entry["reported"].items():
            fair = row and row["kl"] is not None and (problem.endswith("-noisy") or row["observed"] <= OFF_Y)
            if fair:
                curves.setdefault(problem, {}).setdefault(entry["method"], []).append((entry["budget"], row["kl"]))
    order = ["A", "B", "C", "C2", "D", "E", "F", "A-noisy", "E-noisy", "F-noisy"]
    shown = [name for name in order if len(curves.get(name, {})) > 20]  # the others are not done yet
    rows = -(-len(shown) // 5)
    figure, axes = plt.subplots(rows, 5, figsize=(14, 3.2 * rows + 0.4), constrained_layout=True, squeeze=False)
    for axis, problem in zip(axes.flat, shown, strict=False):
        axis.set_xlabel("evaluations + gradients")
        best: dict[int, float] = {}
        for name, points in curves[problem].items():
            if name == "fmm":
                continue
            axis.plot(*zip(*points, strict=True), color="#bbbbbb", linewidth=0.7)
            for budget, kl in points:
                best[budget] = min(kl, best.get(budget, kl))
        axis.plot(*zip(*sorted(best.items()), strict=True), color="black", marker="s", label="best of the others")
        axis.plot(*zip(*curves[problem]["fmm"], strict=True), color="#00796b", marker="o", linewidth=2, label="fmm")
        axis.set(xscale="log", yscale="log", title=problem)
        axis.set_xticks([10, 25, 50, 100], ["10", "25", "50", "100"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("KL, nats")
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.savefig(FIGURES / "fmm-search.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Runs and draws."""
    argparse.ArgumentParser(prog="python -m research.fmm_figures", description=__doc__).parse_args()
    torch.set_num_threads(1)
    draw_slope(slope())
    draw_search()


if __name__ == "__main__":
    main()
