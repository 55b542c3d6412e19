"""One recorded search of the methods' fields and grids, as many trials for every method, on pictures of validation.

The sampler is Optuna's TPE with a fixed seed; the first trial is the method's defaults, so that the search never ends
worse than them on its own pictures. Every method chooses among the same grids, those of `schedules.GRIDS`.

In rounds: all trials are painted on the first of the pictures, the better half of them goes on to twice as many, and so
on, until the last round has all. The defaults go through every round. What was painted is not painted again, so that
three rounds cost half of what painting all would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paintback import methods
from paintback.bench.pictures.cases import Case
from paintback.bench.pictures.cell import Cell, cost_within
from paintback.bench.pictures.protocol import difference
from paintback.bench.pictures.scoring import Scorer
from paintback.bench.pictures.suite import Suite
from paintback.bench.pictures.worker import paint_cases
from paintback.images.encoding import write_whole
from paintback.schedules import GRIDS
from paintback.tasks.inpaint import Inpainter

__all__ = ["OBJECTIVES", "SPACES", "TIMES", "best_fields", "label_of", "read_tuning", "rounds_of", "space_of", "tune"]


@dataclass(frozen=True)
class Range:
    """Where a number is searched.

    Attributes:
        low: smallest.
        high: largest.
        log: on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = True


Space = dict[str, "Range | tuple[Any, ...]"]
TIMES = tuple(GRIDS)
DRAWS = 4  # of the sampler for every trial, at most: settings that came before are no trials
SPACES: dict[str, Space] = {
    "aid": {"solver": ("euler", "heun", "dpmpp_2m", "ancestral")},
    "copaint": {"iterations": (1, 2, 4), "step_size": Range(0.002, 0.2), "regularisation": Range(0.001, 0.1)},
    "daps": {"ode_steps": (1, 2, 5), "step_size": Range(1e-5, 3e-3), "sigma_y": Range(0.003, 0.1)},
    "ddnm": {"eta": Range(0.0, 1.0, False), "travel_repeats": (1, 2)},
    "ddrm": {"eta": Range(0.0, 1.0, False), "eta_b": Range(0.0, 1.0, False)},
    "diffpir": {"zeta": Range(0.0, 1.0, False), "weight": Range(0.1, 30.0), "sigma_y": Range(0.001, 0.1)},
    "ding": {"eta": ("square", "sqrt", "ddpm", "ddim"), "delayed": (False, True), "sigma_y": Range(0.001, 0.1)},
    "dps": {"zeta": Range(0.03, 10.0), "normalise": (False, True)},
    "fcs": {"inner_steps": (1, 2, 3, 5), "step_size": Range(0.1, 2.0), "last_step_size": Range(0.02, 1.0)},
    "flair": {"weight": Range(0.05, 2.0), "adjust": (True, False)},
    "flowchef": {"gradient_steps": (1, 3, 10), "step_size": Range(0.1, 2.0)},
    "flowdps": {"gradient_steps": (1, 3, 10), "step_size": Range(0.1, 2.0)},
    "flower": {"uncertainty": (False, True)},
    "fmm": {"iterations": (1, 2), "eta": Range(0.0, 1.4, False), "damping": (None, 0.0, 0.03, 0.1, 0.3)},
    "gradpaint": {"rho": Range(0.01, 0.5), "fraction": Range(0.2, 1.0, False), "eta": Range(0.0, 1.0, False)},
    "lanpaint": {"inner_steps": (1, 2, 3, 5, 10), "step_size": Range(0.03, 0.6), "guidance": Range(1.0, 16.0)},
    "ldps": {"zeta": Range(0.03, 10.0), "normalise": (False, True)},
    "mcg": {"alpha": Range(0.01, 3.0)},
    "mcgdiff": {"particles": (1, 2, 4, 8), "eta": Range(0.1, 1.0, False)},
    "mmps": {"iterations": (1, 2, 3), "eta": Range(0.0, 1.0, False), "sigma_y": Range(0.001, 0.1)},
    "mpgd": {"step_size": Range(0.05, 2.0), "eta": Range(0.0, 1.0, False)},
    "p2l": {"zeta": Range(0.03, 10.0), "period": (0, 4), "softness": Range(0.1, 10.0)},
    "pigdm": {"form": ("paper", "posterior"), "eta": Range(0.0, 1.0, False)},
    "pnpdm": {"inner_steps": (1, 2, 5, 10), "first": Range(1.0, 30.0), "last": Range(0.03, 1.0)},
    "pnpflow": {"samples": (1, 2, 5), "step_size": Range(0.1, 2.0), "decay": Range(0.1, 2.0)},
    "psld": {"omega": Range(0.01, 3.0), "gamma": Range(0.01, 1.0)},
    "rebridge": {"prior": Range(0.1, 10.0), "kappa": Range(0.3, 100.0)},
    "reddiff": {"weight": Range(0.02, 3.0), "lr": Range(0.01, 1.0)},
    "repaint": {"repeats": (2, 5, 10)},
    "replacement": {"solver": ("euler", "ancestral", "dpmpp_2m"), "path": ("fresh", "coherent", "fixed")},
    "restoraflow": {"corrections": (0, 1, 2, 4)},
    "resample": {"every": (0, 2, 5), "gamma": Range(4.0, 400.0)},
    "tfg": {"inner_steps": (1, 2, 5, 10), "step_size": Range(0.03, 0.6)},
}
OBJECTIVES = ("lpips", "psnr")  # the first that the suite measures; LPIPS is minimised, PSNR maximised


def tune(
    suite: Suite,
    inpainter: Inpainter,
    cases: Sequence[Case],
    scorer: Scorer,
    names: Sequence[str],
    *,
    budget: int,
    trials: int,
    batch: int,
    path: Path,
    protocol: dict[str, Any],
    rounds: int = 1,
    progress: Callable[[str, int], None] = lambda name, trial: None,
) -> dict[str, Any]:
    """Searches the fields of methods; what is in the record already is not searched again.

    Args:
        suite: what is measured.
        inpainter: of the model.
        cases: to tune on.
        scorer: of those cases.
        names: of methods.
        budget: evaluations and gradients per sample.
        trials: of each method.
        batch: samples painted at once.
        path: of the record.
        protocol: kept in the record; another one's record is refused.
        rounds: above 1 the first has a part of the pictures, and each drops the worse half of the trials; at most so
            many that the first has a picture.
        progress: called before each trial.

    Returns:
        The record: protocol, objective, and for every method its trials and the best one. A trial has its fields,
        steps, cost, the number of holes that it was painted on, and their mean value.

    Raises:
        ValueError: if the record at `path` was made under another protocol.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    given = [one for one in OBJECTIVES if scorer.measures(one)]
    if not given:
        raise ValueError(f"The suite {suite.name!r} measures neither {' nor '.join(OBJECTIVES)}; nothing to tune by.")
    objective = given[0]
    sign = 1.0 if objective == "lpips" else -1.0
    stages = rounds_of(cases, rounds)
    kept = {**protocol, "budget": budget, "trials": trials, "objective": objective, "holes": [len(s) for s in stages]}
    record = read_tuning(path) if path.exists() else {"protocol": kept, "methods": {}}
    if found := difference(record["protocol"], json.loads(json.dumps(kept))):
        raise ValueError(f"{path} was made under another protocol, which differs in {found}; give another file.")
    for name in names:
        if name in record["methods"]:
            continue
        space = space_of(name)
        rows: list[dict[str, Any]] = []
        scores: list[list[float]] = []  # of every trial, hole by hole

        def paint(row: dict[str, Any], seen: list[float], stage: Sequence[Case], name: str = name) -> None:
            """Paints what a trial has not yet been painted on."""
            try:
                method = methods.get(name, **row["fields"])
                steps = cost_within(method, budget)
                cell = Cell(name, name, row["fields"], budget, None, steps)
                painted = paint_cases(inpainter, suite, cell, stage[len(seen) :], batch, steps)
            except (ValueError, RuntimeError) as error:  # of linear algebra that did not converge, for instance
                row["error"] = " ".join(str(error).split())
                return
            seen += [float(score[objective]) for score in scorer(painted)]
            row |= {
                "steps": steps,
                "holes": len(seen),
                "value": float(np.mean(seen)),
                "evaluations": painted[0]["evaluations"],
                "vjps": painted[0]["vjps"],
                "seconds": row.get("seconds", 0.0) + sum(one["seconds"] for one in painted),
            }

        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=suite.seed, n_startup_trials=5))
        study.enqueue_trial({key: getattr(methods.get(name), key) for key in space})
        for _ in range(DRAWS * trials):
            trial = study.ask()
            fields = {key: _suggest(trial, key, where) for key, where in space.items()}
            row = next((row for row in rows if row["fields"] == fields), None)
            if row is None:
                progress(name, len(rows))
                row = {"fields": fields}
                rows.append(row)
                scores.append([])
                paint(row, scores[-1], stages[0])
            if _told(row):
                study.tell(trial, sign * row["value"])
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            if len(rows) == trials:
                break
        alive = [k for k, row in enumerate(rows) if _told(row)]
        for stage in stages[1:]:
            alive.sort(key=lambda k, rows=rows: sign * rows[k]["value"])  # type: ignore[misc]
            alive = sorted({*alive[: (len(alive) + 1) // 2], *(k for k in alive if k == 0)})
            for number in alive:
                progress(name, number)
                paint(rows[number], scores[number], stage)
            alive = [k for k in alive if _told(rows[k])]
        best = min((rows[k] for k in alive), key=lambda row: sign * row["value"], default=None)
        record["methods"][name] = {"trials": rows, "best": best}
        write_whole(json.dumps(record, indent=1).encode(), path)
    return record


def space_of(name: str) -> Space:
    """What is searched of a method: its fields, and the grid that all methods have the same choice of."""
    return {**SPACES.get(name, {}), "times": TIMES}


def rounds_of(cases: Sequence[Case], rounds: int) -> list[list[Case]]:
    """The cases of every round: whole pictures with all their masks, half as many each round earlier; the last has all.

    Args:
        cases: of one or more pictures.
        rounds: at least 1; fewer are made where the first would have no picture.
    """
    pictures = list(dict.fromkeys(case.number for case in cases))
    ordered = sorted(cases, key=lambda case: pictures.index(case.number))
    stages = []
    for before in reversed(range(rounds)):
        first = set(pictures[: len(pictures) >> before])
        if first or before == 0:
            stages.append([case for case in ordered if case.number in first])
    return stages


def _told(row: dict[str, Any]) -> bool:
    """Whether a trial has gone well so far and has a number."""
    return "error" not in row and bool(np.isfinite(row.get("value", np.nan)))


def _suggest(trial: Any, name: str, where: Range | tuple[Any, ...]) -> Any:
    if isinstance(where, tuple):
        return trial.suggest_categorical(name, where)
    # three significant figures, so that a label says all of it
    return float(f"{trial.suggest_float(name, where.low, where.high, log=where.log):.3g}")


def read_tuning(path: Path) -> dict[str, Any]:
    """The record of a search.

    Raises:
        ValueError: if it is none.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a record of `paintback bench tune` ({error}).") from None
    if not isinstance(record, dict) or not {"protocol", "methods"} <= set(record):
        raise ValueError(f"{path} is not a record of `paintback bench tune`.")
    return record


def best_fields(record: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields that did best; those equal to the method's defaults are left out.

    Raises:
        ValueError: if the record has no such method, or none of its trials gave a number.
    """
    entry = record["methods"].get(name)
    if entry is None or entry["best"] is None:
        raise ValueError(f"The record of the search has no result for {name}; tune it first or leave it out.")
    own = methods.get(name)
    return {key: value for key, value in entry["best"]["fields"].items() if getattr(own, key) != value}


def label_of(name: str, fields: dict[str, Any]) -> str:
    """NAME[:field=value...], as the commands read it."""
    return ":".join([name, *(f"{key}={json.dumps(value).strip(chr(34))}" for key, value in fields.items())])
