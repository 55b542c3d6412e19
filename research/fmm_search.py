"""The search behind docs/results/fmm.md: every method tuned alike on closed-form problems, at equal cost.

    python -m research.fmm_search                  makes what is missing, writes the data and the page's tables
    python -m research.fmm_search --only fmm,ding  only these methods; writes no table
    python -m research.fmm_search --finished       makes nothing, writes what is there

A cost is a number of evaluations, a gradient (VJP) counted as one more. At each budget and on each problem every method
has the same number of trials (Optuna's TPE, seed 0, the defaults first): at most three of its fields, and the grid of
times. The number of steps is the largest that the budget allows. A setting that
does not fit the budget, or came before, is no trial. Tuned on one instance of a problem, reported on
another: other y, other mixture weights, other picture, other seeds, more particles. C2 is reported with C's settings.

Finished studies are kept, one JSON object a line, in the folder `--out`; an interrupted search goes on where it
stopped. Delete the folder after changing a method. About 15 minutes of one core. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import optuna  # noqa: TID253 - a script of its own, which needs it at once
import torch

from paintback import __version__, methods
from paintback.bench.cases import NOISE, Case, case
from paintback.bench.guidance import with_guidance
from paintback.bench.posterior import FLOW, before_paste
from paintback.images import read_picture
from paintback.methods.base import Method
from paintback.observation import Observation
from paintback.priors import Problem, correlated16, ding_toy, gaussian_2d, grid25, picture_gaussian, spiral500
from paintback.schedules import VP, Flow, Grid, log_snr

DOCS = Path(__file__).resolve().parents[1] / "docs"
DATA = DOCS / "data" / "fmm-search.json"
PAGE = DOCS / "results" / "fmm.md"
PROBLEMS = ("A", "B", "C", "D", "E", "F", "A-noisy", "E-noisy", "F-noisy")
FIRST_C = "C first"  # on one instance with 500 particles; see the page for why it was made again
BUDGETS = (10, 25, 50, 100)
ORDER = (*(name for name in PROBLEMS if name != "D"), "D", FIRST_C)  # the slowest last
TRIALS, DRAWS = 10, 40  # settings measured; drawn, those that do not fit the budget or came before included
TUNE_SEED, REPORT_SEEDS = 1000, (0, 1)
TUNE_PARTICLES, REPORT_PARTICLES = 500, 4000
# both again where they differ: a histogram of 500 samples has a floor of 0.06; 500 components take their time
OTHER_PARTICLES = {"C": (1000, 4000), "D": (200, 1000)}
OFF_Y = 0.05  # root mean square of x - y on known entries beyond which a low KL of the others is no merit
GRIDS: dict[str, Grid | None] = {
    "own": None,
    "log_snr": log_snr(sigma_min=0.02),
    "short": log_snr(sigma_min=0.02, sigma_max=15.0),  # starts where the noise is 15 times the picture
    "shorter": log_snr(sigma_min=0.06, sigma_max=6.0),
}

Range = Sequence[Any] | tuple[str, float, float]  # values to choose from, or ("log" or "linear", from, to)
FIELDS: dict[str, dict[str, Range]] = {
    "aid": {"known": ["guided", "replaced"], "solver": ["euler", "dpmpp_2m"]},
    "blended": {},
    "copaint": {"iterations": [1, 2, 3], "step_size": ("log", 0.005, 0.5), "regularisation": ("log", 1e-3, 1.0)},
    "daps": {"ode_steps": [1, 2, 3, 5], "step_size": ("log", 1e-5, 1e-2), "langevin_steps": [10, 30, 100]},
    "ddnm": {"eta": ("linear", 0.0, 1.0), "travel_repeats": [1, 2, 3, 5], "travel_length": [1, 2]},
    "ddrm": {"eta": ("linear", 0.0, 1.0), "eta_b": ("linear", 0.0, 1.0)},
    "diffpir": {"sigma_y": ("log", 1e-3, 0.1), "weight": ("log", 0.1, 10.0), "zeta": ("linear", 0.0, 1.0)},
    "ding": {"sigma_y": ("log", 1e-3, 0.1), "eta": ["square", "sqrt", "ddpm"], "delayed": [False, True]},
    "dps": {"zeta": ("log", 0.03, 3.0), "normalise": [False, True]},
    "fcs": {
        "inner_steps": [1, 2, 3, 5], "step_size": ("log", 0.03, 1.0), "last_step_size": ("log", 0.01, 0.3),
    },
    "flair": {"weight": ("linear", 0.1, 1.5), "adjust": [True, False]},
    "flowchef": {"gradient_steps": [1, 3, 10], "step_size": ("linear", 0.2, 1.0), "loss": ["square", "norm"]},
    "flowdps": {"gradient_steps": [1, 3, 10], "step_size": ("linear", 0.2, 1.0), "loss": ["square", "norm"]},
    "flower": {"uncertainty": [False, True]},
    "fmm": {"iterations": [1, 2, 3], "cycles": [0, 1, 3], "particles": [1, 2, 4]},
    "gradpaint": {"rho": ("log", 0.005, 0.5), "fraction": ("linear", 0.0, 1.0), "eta": ("linear", 0.0, 1.0)},
    "lanpaint": {"inner_steps": [1, 2, 3, 5, 10], "step_size": ("log", 0.03, 1.0), "guidance": ("log", 1.0, 16.0)},
    "ldps": {"zeta": ("log", 0.03, 3.0), "normalise": [False, True]},
    "mcg": {"alpha": ("log", 0.01, 1.0)},
    "mcgdiff": {"particles": [1, 2, 4, 8], "eta": ("linear", 0.1, 1.0)},
    "mmps": {"iterations": [1, 2, 3, 4], "eta": ("linear", 0.0, 1.0), "sigma_y": ("log", 1e-3, 0.1)},
    "mpgd": {"step_size": ("log", 0.05, 1.0), "eta": ("linear", 0.0, 1.0), "loss": ["square", "norm"]},
    "p2l": {"zeta": ("log", 0.03, 3.0), "period": [0, 1, 2, 4], "softness": ("log", 0.1, 3.0)},
    "pigdm": {"form": ["paper", "posterior"], "eta": ("linear", 0.0, 1.0)},
    "pnpdm": {"inner_steps": [1, 2, 5, 10], "first": ("log", 1.0, 30.0), "last": ("log", 0.03, 1.0)},
    "pnpflow": {"samples": [1, 2, 5], "step_size": ("log", 0.1, 1.5), "decay": ("linear", 0.0, 1.0)},
    "psld": {"omega": ("log", 0.03, 3.0), "gamma": ("log", 0.01, 1.0)},
    "rebridge": {"prior": ("log", 0.1, 10.0), "kappa": ("log", 0.3, 100.0)},
    "reddiff": {"weight": ("log", 0.03, 1.0), "lr": ("log", 0.02, 0.5), "beta1": ("linear", 0.0, 0.95)},
    "repaint": {"repeats": [1, 2, 3, 5, 10], "jump_length": [0, 1, 2]},
    "replacement": {"solver": ["euler", "heun", "dpmpp_2m", "ancestral"], "path": ["fresh", "coherent", "fixed"]},
    "restoraflow": {"corrections": [0, 1, 2, 4]},
    "resample": {"every": [0, 1, 2, 5], "gamma": ("log", 4.0, 400.0), "soft": ("linear", 0.0, 1.0)},
    "tfg": {"inner_steps": [1, 2, 3, 5, 10], "step_size": ("log", 0.03, 0.8), "solver": ["euler", "dpmpp_2m"]},
}  # fmt: skip
FIXED: dict[str, dict[str, Any]] = {"fmm": {"damping": 0.0}}  # the denoisers are exact


@cache
def tuning_cases(name: str) -> list[Case]:
    """Other instances of a problem of `paintback.bench.cases`, to tune on; three of C, whose weights matter."""
    letter, _, noisy = name.partition("-")
    like = case("C" if name == FIRST_C else name)
    make: dict[str, list[Callable[[], Problem]]] = {
        "A": [lambda: gaussian_2d(-1.4)],
        "B": [lambda: ding_toy(-0.9)],
        "C": [lambda: grid25(2, -0.3), lambda: grid25(3, 0.3), lambda: grid25(4, 0.8)],
        FIRST_C: [lambda: grid25(2, -0.3)],
        "D": [lambda: spiral500(-0.9)],
        "E": [lambda: correlated16(1)],
        "F": [_other_picture],
    }
    cases = []
    for problem in (function() for function in make[letter]):
        given = problem.observation
        sigma = NOISE if noisy else given.sigma
        posterior = problem.prior.posterior(Observation(given.y, given.known, sigma))
        observation = Observation(given.y.float(), given.known, sigma)
        cases.append(dataclasses.replace(like, prior=problem.prior, observation=observation, posterior=posterior))
    return cases


def _other_picture() -> Problem:
    pixels = read_picture(DOCS.parent / "paintback" / "examples" / "scratches.jpg").to_unit()
    return picture_gaussian(torch.from_numpy(pixels).permute(2, 0, 1).double() * 2 - 1)


def steps_of(method: Method, budget: int) -> int:
    """The most grid intervals that a budget allows; 0 where one costs too much."""
    fitting = [n for n in range(1, budget + 1) if method.evaluations(n) + method.vjps(n) <= budget]
    return max(fitting, default=0)


def measure(
    name: str, fields: dict[str, Any], grid: str, at: Case, budget: int, seed: int, count: int
) -> dict[str, Any]:
    """One run: its KL (None where there is none), its error on known entries, its cost."""
    row: dict[str, Any] = {"fields": fields, "grid": grid, "steps": 0, "kl": None, "observed": None, "cost": 0}
    try:
        method = methods.get(name, **{**FIXED.get(name, {}), **fields})
        row["steps"] = steps_of(method, budget)
        if not row["steps"]:
            return {**row, "note": "one step costs more than the budget"}
        method = with_guidance(method, at)
        denoiser = at.prior.denoiser((Flow if name in FLOW else VP)(), at.shape)
        kept: list[torch.Tensor] = []
        result = before_paste(method, kept).sample(
            denoiser, at.observation, row["steps"], torch.Generator().manual_seed(seed), count, GRIDS[grid]
        )
    except ValueError as error:
        return {**row, "note": " ".join(str(error).split())}
    row["cost"] = result.evaluations + result.vjps
    if row["cost"] > budget:
        raise RuntimeError(f"{name} {fields} on {at.name} cost {row['cost']} at a budget of {budget}.")
    if not bool(result.x.isfinite().all()):
        return {**row, "note": "samples are not finite"}
    kl = at.kl(result.x)
    known = at.observation.known
    gap = (kept[-1] - at.observation.y)[:, known].double()
    row["observed"] = _short(float(gap.square().mean().sqrt()))
    return {**row, "kl": _short(kl)} if math.isfinite(kl) else {**row, "note": "no variance in some direction"}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def over(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One setting over instances: the mean KL, None where one has none, and the rest of the first."""
    missing = [row for row in rows if row["kl"] is None]
    return missing[0] if missing else {**rows[0], "kl": _short(sum(row["kl"] for row in rows) / len(rows))}


def study(name: str, problem: str, budget: int) -> list[dict[str, Any]]:
    """The trials of one method on one problem at one budget, in order.

    A setting that was drawn before or that does not fit the budget is no trial; TPE is told of it all the same.
    """
    count = OTHER_PARTICLES.get(problem, (TUNE_PARTICLES,))[0]
    defaults = {entry.name: entry.default for entry in dataclasses.fields(methods.types()[name])}
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=4)
    search = optuna.create_study(direction="minimize", sampler=sampler)
    first = {key: defaults[key] for key in FIELDS[name] if defaults[key] is not None}
    search.enqueue_trial({**first, "grid": "own"})
    done: dict[str, dict[str, Any]] = {}
    for _ in range(DRAWS):
        trial = search.ask()
        fields: dict[str, Any] = {}
        for key, wanted in FIELDS[name].items():
            if isinstance(wanted, tuple):
                fields[key] = _short(trial.suggest_float(key, wanted[1], wanted[2], log=wanted[0] == "log"))
            else:
                fields[key] = trial.suggest_categorical(key, list(wanted))
        grid = trial.suggest_categorical("grid", list(GRIDS))
        text = json.dumps([fields, "log_snr" if name == "fmm" and grid == "own" else grid])
        if text not in done:
            done[text] = over(
                [measure(name, fields, grid, at, budget, TUNE_SEED, count) for at in tuning_cases(problem)]
            )
        value = done[text]["kl"]
        # worse than any KL of finite samples, so that TPE learns what does not run
        search.tell(trial, 1e4 if value is None else value)
        if sum(row["steps"] > 0 for row in done.values()) == TRIALS:
            break
    return [row for row in done.values() if row["steps"]]


def best_of(problem: str, trials: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The trial with the lowest KL; of those that stay near y where there are such."""
    alive = [trial for trial in trials if trial["kl"] is not None]
    near = [trial for trial in alive if fair(problem, trial)]
    return min(near or alive, key=lambda trial: trial["kl"], default=None)


def fair(problem: str, row: dict[str, Any]) -> bool:
    """Whether a run stays near y; always where y is noisy."""
    return problem.endswith("-noisy") or row["observed"] <= OFF_Y


def report(name: str, problem: str, budget: int, best: dict[str, Any]) -> dict[str, Any]:
    """The best settings on the reported instance, over its seeds."""
    at = case(problem.partition(" ")[0])
    count = (
        OTHER_PARTICLES[problem][1]
        if problem in OTHER_PARTICLES
        else min(REPORT_PARTICLES, at.particles or REPORT_PARTICLES)
    )
    rows = [measure(name, best["fields"], best["grid"], at, budget, seed, count) for seed in REPORT_SEEDS]
    kls = [row["kl"] for row in rows]
    if None in kls:
        return {**rows[0], "kl": None}
    mean = sum(kls) / len(kls)
    spread = math.sqrt(sum((kl - mean) ** 2 for kl in kls) / (len(kls) - 1))
    return {**rows[0], "kl": _short(mean), "spread": _short(spread)}


def chosen(row: dict[str, Any] | None) -> Any:
    """What tells one setting from another."""
    return row and (row["fields"], row["grid"])


def run(names: list[str], problems: list[str], out: Path) -> list[dict[str, Any]]:
    """All studies, those that are there already included."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "studies.jsonl"
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was cut off
        found[entry["method"], entry["problem"], entry["budget"]] = entry
    for problem in problems:
        for name in names:
            for budget in BUDGETS:
                began = time.perf_counter()
                entry = found.get((name, problem, budget)) or {"trials": study(name, problem, budget)}
                best = best_of(problem, entry["trials"])
                reported = entry.get("reported", {}).get(problem)
                if "reported" in entry and chosen(best) == chosen(reported):
                    continue
                also = {"C": ("C2",), FIRST_C: ("C2 first",)}.get(problem, ())
                rows = {p: best and report(name, p, budget, best) for p in (problem, *also)}
                seconds = round(time.perf_counter() - began, 1)
                entry = {"method": name, "problem": problem, "budget": budget, **entry}
                entry |= {"reported": rows, "seconds": seconds}
                found[name, problem, budget] = entry
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry, allow_nan=False) + "\n")
                print(problem, name, budget, {p: r and r["kl"] for p, r in entry["reported"].items()}, flush=True)
    order = {
        key: k
        for k, key in enumerate((n, p, b) for p in (*PROBLEMS, FIRST_C) for n in methods.names() for b in BUDGETS)
    }
    return [found[key] for key in sorted(found, key=order.__getitem__)]


# ------------------------------------------------------------------------------------------------------- the page


def number(value: float | None) -> str:
    """Two digits."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.001 else f"{value:.1g}"


def tables(studies: list[dict[str, Any]]) -> dict[str, str]:
    """The tables of the page by name, of the problems on which all methods are done."""
    made = {(entry["problem"], entry["method"], entry["budget"]) for entry in studies}
    whole = [p for p in PROBLEMS if all((p, m, b) in made for m in methods.names() for b in BUDGETS)]
    columns = [column for p in whole for column in ((p, "C2") if p == "C" else (p,))]
    values: dict[tuple[str, str, int], dict[str, Any]] = {}
    for entry in studies:
        for problem, row in entry["reported"].items():
            if row is not None and row["kl"] is not None:
                values[problem, entry["method"], entry["budget"]] = row

    def winner(problem: str, budget: int, others: bool = False) -> str | None:
        rows = {m: row for (p, m, b), row in values.items() if (p, b) == (problem, budget) and fair(p, row)}
        rows = {m: row for m, row in rows.items() if not (others and m == "fmm")}
        return min(rows, key=lambda m: rows[m]["kl"], default=None)

    def shortly(columns: list[str]) -> str:
        lines = ["| budget | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for budget in BUDGETS:
            cells = []
            for problem in columns:
                own, rival = values.get((problem, "fmm", budget)), winner(problem, budget, others=True)
                mine = number(own["kl"] if own else None)
                there = number(values[problem, rival, budget]["kl"] if rival else None)
                if winner(problem, budget) is None:
                    cells.append("-")
                elif winner(problem, budget) == "fmm":
                    cells.append(f"**{mine}** / {there} {rival}")
                else:
                    cells.append(f"{mine} / **{there}** {rival}")
            lines.append(f"| {budget} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    full = []
    for budget in BUDGETS:
        full += [f"Budget {budget}:", "", "| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        best_of_all = {problem: winner(problem, budget) for problem in columns}
        for name in methods.names():
            cells = []
            for problem in columns:
                row = values.get((problem, name, budget))
                text = number(row["kl"] if row else None)
                if row and not fair(problem, row):
                    text += " †"
                cells.append(f"**{text}**" if best_of_all[problem] == name else text)
            full.append(f"| `{name}` | " + " | ".join(cells) + " |")
        full.append("")
    first = shortly([FIRST_C, "C2 first"])
    return {"short": shortly(columns), "first": first, "full": "\n".join(full).rstrip()}


def fill(page: Path, parts: dict[str, str]) -> None:
    """Writes the tables between `<!-- search: NAME -->` and `<!-- search end -->`."""
    text = page.read_text(encoding="utf-8")
    for name, body in parts.items():
        head, foot = f"<!-- search: {name} -->", "<!-- search end -->"
        before, found, rest = text.partition(head)
        _, ended, after = rest.partition(foot)
        if not (found and ended):
            raise ValueError(f"{page.name} has no part {head} ... {foot}.")
        text = f"{before}{head}\n\n{body}\n\n{foot}{after}"
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Searches, then writes docs/data/fmm-search.json and the tables of the page."""
    parser = argparse.ArgumentParser(description="The search behind docs/results/fmm.md.")
    parser.add_argument("--out", type=Path, default=Path("fmm-search-out"), help="finished studies")
    parser.add_argument("--only", default="", help="methods, separated by commas; no data or tables are written")
    parser.add_argument("--problems", default="", help="problems, separated by commas; no data or tables are written")
    parser.add_argument("--finished", action="store_true", help="make nothing, write what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = arguments.only.split(",") if arguments.only else methods.names()
    problems = arguments.problems.split(",") if arguments.problems else list(ORDER)
    studies = run([] if arguments.finished else names, problems, arguments.out)
    if arguments.only or arguments.problems:
        return
    protocol = {
        "paintback": __version__, "optuna": optuna.__version__, "torch": torch.__version__, "trials": TRIALS,
        "draws": DRAWS,
        "budgets": BUDGETS, "tune_seed": TUNE_SEED, "tune_particles": TUNE_PARTICLES,
        "other_particles": OTHER_PARTICLES,
        "report_seeds": REPORT_SEEDS, "report_particles": REPORT_PARTICLES, "fields": FIELDS, "fixed": FIXED,
        "off_y": OFF_Y,
    }  # fmt: skip
    kept = [{**entry, "trials": len(entry["trials"])} for entry in studies]  # each trial stays in the folder
    lines = ",\n".join(json.dumps(entry, separators=(",", ":"), allow_nan=False) for entry in kept)
    DATA.write_text(f'{{"protocol": {json.dumps(protocol)},\n"studies": [\n{lines}\n]}}\n', encoding="utf-8")
    fill(PAGE, tables(studies))


if __name__ == "__main__":
    main()
