"""The 40 cells of the search behind docs/results/fmm.md, measured again by today's code: which rule is lowest where.

    python -m research.fmm_cells              makes what is missing, writes the data, the figure and the page's tables
    python -m research.fmm_cells --finished   makes nothing, writes what is there

A cell is a problem at a budget of evaluations (a gradient counted as one more). In each the settings that
`docs/data/fmm-search.json` has as the two lowest of the others and as FMM's own are run, and beside them five settings
that are the same in every cell, FMM's default among them. Four seeds that the search did not see. Two settings are told
apart where the difference of their mean KL is farther from 0 than its interval of 95 % (Welch's, over the seeds).

Finished runs are kept, one JSON object a line, in the folder `--out`; delete it after changing a method. About ten
minutes of one core. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from paintback import __version__, methods
from paintback.bench.cases import case
from paintback.bench.pictures.tuning import label_of
from paintback.bench.posterior_report import png, pyplot
from research.fmm_search import (
    BUDGETS,
    DATA,
    DOCS,
    FIXED,
    OTHER_PARTICLES,
    PAGE,
    PROBLEMS,
    REPORT_PARTICLES,
    fair,
    fill,
    measure,
    number,
)  # fmt: skip

CELLS = DOCS / "data" / "fmm-cells.json"
FIGURE = DOCS / "figures" / "fmm-cells.png"
COLUMNS = tuple(column for problem in PROBLEMS for column in ((problem, "C2") if problem == "C" else (problem,)))
SEEDS = (10, 11, 12, 13)
RIVALS = 2  # of a cell
OURS = "fmm"
ONE: dict[str, tuple[str, dict[str, Any]]] = {  # the same in every cell
    OURS: ("fmm", {}),
    "ding:eta=sqrt:delayed=true": ("ding", {"eta": "sqrt", "delayed": True}),
    "ddnm": ("ddnm", {}),
    "flowchef": ("flowchef", {}),
    "lanpaint:inner_steps=2": ("lanpaint", {"inner_steps": 2}),  # five would leave one step of ten evaluations
}


def settings() -> dict[tuple[str, int], dict[str, tuple[str, dict[str, Any], str]]]:
    """For every cell its settings by label: method, fields and grid; "tuned" ones are the search's of that cell."""
    studies = json.loads(DATA.read_text(encoding="utf-8"))["studies"]
    found: dict[tuple[str, int], dict[str, tuple[str, dict[str, Any], str]]] = {}
    for problem in COLUMNS:
        for budget in BUDGETS:
            rows = {
                entry["method"]: entry["reported"][problem]
                for entry in studies
                if entry["budget"] == budget and entry["reported"].get(problem) is not None
            }
            rows = {m: r for m, r in rows.items() if r["kl"] is not None and fair(problem, r)}
            others = sorted((m for m in rows if m != "fmm"), key=lambda m: rows[m]["kl"])[:RIVALS]
            one = {label: (name, fields, "own") for label, (name, fields) in ONE.items()}
            for name in ["fmm", *others] if "fmm" in rows else others:
                fields = {**FIXED.get(name, {}), **rows[name]["fields"]}
                one[f"{name}, tuned"] = (name, fields, rows[name]["grid"])
            found[problem, budget] = one
    return found


def run(out: Path, finished: bool) -> list[dict[str, Any]]:
    """All runs, those that are there already included."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "runs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    known = {json.dumps(entry["key"], sort_keys=True): entry for entry in map(json.loads, lines)}
    made = []
    for (problem, budget), own in settings().items():
        at = case(problem)
        count = min(REPORT_PARTICLES, at.particles or REPORT_PARTICLES)
        if problem in OTHER_PARTICLES:
            count = OTHER_PARTICLES[problem][1]
        for label, (name, fields, grid) in own.items():
            for seed in SEEDS:
                where = [problem, budget, label, name, fields, grid, seed]
                text = json.dumps(where, sort_keys=True)
                if text not in known:
                    if finished:
                        continue
                    # what the search held fixed for FMM is no part of its default
                    free = {"damping": None, **fields} if name == "fmm" else fields
                    known[text] = {"key": where, **measure(name, free, grid, at, budget, seed, count)}
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(known[text], allow_nan=False) + "\n")
                made.append(known[text])
        print(problem, budget, flush=True)
    return made


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for every setting of every cell: its KL by seed, whether it stays near y, what it is."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in runs:
        problem, budget, label, name, fields, grid, _ = entry["key"]
        row = rows.setdefault(
            json.dumps([problem, budget, label]),
            {"problem": problem, "budget": budget, "label": label, "setting": shortly(name, fields), "grid": grid,
             "steps": entry["steps"], "fair": True, "kl": []},
        )  # fmt: skip
        row["kl"].append(entry["kl"])
        row["fair"] &= entry["kl"] is not None and fair(problem, entry)
    return list(rows.values())


def shortly(name: str, fields: dict[str, Any]) -> str:
    """A setting's label, without what the method has by itself."""
    own = methods.get(name)
    return label_of(name, {key: value for key, value in fields.items() if getattr(own, key) != value})


def mean(row: dict[str, Any]) -> float:
    """Of the seeds; infinite where one has none."""
    return math.inf if None in row["kl"] else sum(row["kl"]) / len(row["kl"])


def behind(row: dict[str, Any], best: dict[str, Any]) -> tuple[float, float]:
    """How far a setting is above another, and Welch's half interval of 95 %."""
    if row is best:
        return 0.0, 0.0
    test = stats.ttest_ind(row["kl"], best["kl"], equal_var=False)
    low, high = test.confidence_interval(0.95)
    return mean(row) - mean(best), float(high - low) / 2


def level(row: dict[str, Any], best: dict[str, Any]) -> bool:
    """Whether a setting cannot be told from a lower one."""
    if not row["fair"] or math.isinf(mean(row)):
        return False
    gap, half = behind(row, best)
    return gap <= half


def tables(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The tables of the page by name."""
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["problem"], row["budget"]), []).append(row)
    listed = [
        "| problem | budget | lowest | its KL | FMM's default | default behind it | default is |",
        "|---|---|---|---|---|---|---|",
    ]
    lowest_or_level, alone = dict.fromkeys(ONE, 0), dict.fromkeys(ONE, 0)
    ratio: dict[str, list[float]] = {label: [] for label in ONE}
    tuned = {"lowest": 0, "level": 0}
    for (problem, budget), own in cells.items():
        near = [row for row in own if row["fair"]]
        best = min(near, key=mean)
        ours = next(row for row in own if row["label"] == OURS)
        gap, half = behind(ours, best)
        verdict = "lowest" if ours is best else "level" if level(ours, best) else "behind"
        apart = "" if ours is best else f"{number(gap)} ± {number(half)}"
        grid = "" if best["grid"] == "own" else f" on `{best['grid']}`"
        listed.append(
            f"| {problem} | {budget} | `{best['setting']}`{grid} | {number(mean(best))} | {number(mean(ours))} "
            f"| {apart} | {verdict} |"
        )
        fitted = next((row for row in own if row["label"] == "fmm, tuned"), None)
        if fitted is not None:
            tuned["lowest"] += fitted is best
            tuned["level"] += fitted is not best and level(fitted, best)
        single = [row for row in near if row["label"] in ONE]
        first = min(single, key=mean)
        for row in own:
            if row["label"] in ONE:
                lowest_or_level[row["label"]] += level(row, best)
                alone[row["label"]] += level(row, first)
                ratio[row["label"]].append(math.log(mean(row) / mean(best)) if mean(row) < math.inf else math.inf)
    rules = [
        "| one setting for all cells | cells in which it is the lowest of all or level | ... of these five "
        "| KL over the lowest, geometric mean |",
        "|---|---|---|---|",
    ]
    rules += [
        f"| `{label}` | {lowest_or_level[label]} | {alone[label]} | {math.exp(sum(ratio[label]) / len(cells)):.1f} |"
        for label in sorted(ONE, key=lambda one: -lowest_or_level[one])
    ]
    rules += ["", f"FMM tuned in every cell: the lowest in {tuned['lowest']}, level in {tuned['level']} more."]
    return {"cells": "\n".join(listed), "rules": "\n".join(rules)}


def plot(rows: list[dict[str, Any]]) -> bytes:
    """KL against budget: FMM's default, FMM tuned, and the lowest of the others in each cell, which is named; a PNG."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 5, figsize=(16, 6.2), squeeze=False)
    for axis, problem in zip(axes.flat, COLUMNS, strict=True):
        mine = [row for row in rows if row["problem"] == problem and math.isfinite(mean(row))]
        for label, style in ((OURS, "o-"), ("fmm, tuned", "s--")):
            own = [row for row in mine if row["label"] == label]
            axis.plot([r["budget"] for r in own], [max(mean(r), 1e-5) for r in own], style, label=label, markersize=4)
        front = []
        for budget in BUDGETS:
            others = [r for r in mine if r["budget"] == budget and r["fair"] and not r["label"].startswith("fmm")]
            front.append(min(others, key=mean))
        axis.plot(BUDGETS, [max(mean(r), 1e-5) for r in front], "^:", color="black", label="lowest of the others",
                  markersize=4)  # fmt: skip
        for row in front:
            name = row["setting"].partition(":")[0]
            axis.annotate(name, (row["budget"], max(mean(row), 1e-5)), fontsize=7, xytext=(2, -9),
                          textcoords="offset points")  # fmt: skip
        axis.set(xscale="log", yscale="log", title=problem)
        axis.set_xticks(BUDGETS, map(str, BUDGETS))
        axis.minorticks_off()
        axis.margins(x=0.12)
    for axis in axes[-1]:
        axis.set_xlabel("evaluations + gradients")
    for axis in axes[:, 0]:
        axis.set_ylabel("KL, nats")
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    return png(figure)


def main() -> None:
    """Measures, then writes docs/data/fmm-cells.json, the figure and the tables of the page."""
    parser = argparse.ArgumentParser(description="Which rule is lowest in which of the 40 cells.")
    parser.add_argument("--out", type=Path, default=Path("fmm-cells-out"), help="finished runs")
    parser.add_argument("--finished", action="store_true", help="make nothing, write what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = summarise(run(arguments.out, arguments.finished))
    about = {"paintback": __version__, "torch": torch.__version__, "seeds": SEEDS, "rivals": RIVALS}
    lines = ",\n".join(json.dumps(row, separators=(",", ":"), allow_nan=False) for row in rows)
    CELLS.write_text(f'{{"protocol": {json.dumps(about)},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    FIGURE.write_bytes(plot(rows))
    fill(PAGE, tables(rows))


if __name__ == "__main__":
    main()
