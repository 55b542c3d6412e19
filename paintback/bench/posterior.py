"""Every method against exact posteriors: divergence, observed-entry error and cost, cell by cell.

A cell is one method on one problem with one number of steps and one seed. Finished cells are kept in a JSONL file, so
that an interrupted run goes on where it stopped, and a run with more steps or seeds adds to it. A cell is told apart by
everything that its numbers depend on but the code itself: delete the file after changing a method.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from paintback.bench.cases import CASES, Case, case
from paintback.bench.guidance import with_guidance
from paintback.methods.base import Method, Run, Time
from paintback.schedules import EDM, VP, Flow, Grid, Schedule
from paintback.schedules import GRIDS as NAMED

__all__ = ["FLOW", "Cell", "Score", "Store", "Summary", "cells", "run", "run_cell", "summarise"]

ScheduleName = Literal["paper", "vp", "flow", "edm"]
GridName = Literal["uniform", "linspace", "karras", "log_snr", "quadratic", "noisy_end"]
SCHEDULES: dict[str, Callable[[], Schedule]] = {"vp": VP, "flow": Flow, "edm": EDM}
GRIDS: dict[str, Grid | None] = {
    "uniform": None,  # the method's own, which is uniform in t for all but fmm
    "linspace": lambda schedule, n: torch.cat((torch.linspace(1, 1e-3, n).double(), torch.zeros(1).double())),
    **{name: NAMED[name] for name in ("karras", "log_snr", "quadratic", "noisy_end")},
}
# Methods whose authors sample flow models; the rest are DDPM's.
FLOW = frozenset({"ding", "flair", "flowchef", "flowdps", "flower", "pnpflow", "rebridge", "restoraflow"})


@dataclass(frozen=True)
class Cell:
    """One run to make.

    Attributes:
        label: what the method is called in tables.
        method: the method.
        problem: a name of `CASES`.
        steps: grid intervals.
        seed: of the noise.
        particles: samples.
        schedule: of the model: "vp" (linear betas), "flow" or "edm".
        grid: "uniform" in t (fmm keeps its own); "linspace" from 1 to 0.001 (Euler's timesteps 999 to 0 in diffusers),
            "karras", "log_snr", "quadratic" and "noisy_end" are those of `schedules.GRIDS`.
    """

    label: str
    method: Method
    problem: str
    steps: int
    seed: int
    particles: int
    schedule: str
    grid: str

    def key(self) -> dict[str, Any]:
        """What tells this cell from all others, as plain JSON values."""
        return {
            "label": self.label,
            "method": self.method.name,
            "fields": asdict(self.method),
            "problem": self.problem,
            "steps": self.steps,
            "seed": self.seed,
            "particles": self.particles,
            "schedule": self.schedule,
            "grid": self.grid,
        }


@dataclass(frozen=True)
class Score:
    """What a cell gave.

    Attributes:
        kl: from the exact posterior, nats; None where samples were not finite or had no variance.
        w2: Wasserstein-2 distance of Gaussian fits; None likewise.
        observed: root mean square of x - y on known entries, before the final paste.
        evaluations: per sample.
        vjps: per sample.
        seconds: of the run, all particles.
        note: why a number is missing.
    """

    kl: float | None
    w2: float | None
    observed: float | None
    evaluations: float
    vjps: float
    seconds: float
    note: str = ""


def cells(
    methods: dict[str, Method],
    problems: Sequence[str],
    steps: Sequence[int],
    seeds: int,
    particles: int,
    schedule: ScheduleName = "paper",
    grid: GridName = "uniform",
) -> list[Cell]:
    """The cells of a table.

    Args:
        methods: by label.
        problems: names of `CASES`.
        steps: grid intervals.
        seeds: how many; 0, 1, ...
        particles: samples of a cell; a problem may cap them.
        schedule: of the model; "paper" for a flow model where the method's authors have one, else VP.
        grid: of the times.

    Raises:
        ValueError: for an unknown problem.
    """
    made = []
    for problem in problems:
        if problem not in CASES:
            raise ValueError(f"Unknown problem {problem!r}; valid are {', '.join(CASES)}.")
        count = min(particles, case(problem).particles or particles)
        for label, method in methods.items():
            name = schedule if schedule != "paper" else "flow" if method.name in FLOW else "vp"
            made += [Cell(label, method, problem, n, seed, count, name, grid) for n in steps for seed in range(seeds)]
    return made


def before_paste(method: Method, kept: list[Tensor]) -> Method:
    """The same method; `kept` gets its last picture as it was before y was pasted in."""
    probe = copy.copy(method)

    def finish(run: Run, x_t: Tensor, t: Time) -> Tensor:
        kept.append(method.finish(run, x_t, t))
        return kept[-1]

    object.__setattr__(probe, "finish", finish)
    return probe


def run_cell(cell: Cell) -> Score:
    """Runs one cell.

    Raises:
        ValueError: where the method does not run on this problem.
    """
    at: Case = case(cell.problem)
    denoiser = at.prior.denoiser(SCHEDULES[cell.schedule](), at.shape)
    kept: list[Tensor] = []
    began = time.perf_counter()
    result = before_paste(with_guidance(cell.method, at), kept).sample(
        denoiser,
        at.observation,
        cell.steps,
        torch.Generator().manual_seed(cell.seed),
        num_samples=cell.particles,
        grid=GRIDS[cell.grid],
    )
    seconds = time.perf_counter() - began
    cost = float(result.evaluations), float(result.vjps), seconds
    alive = float(result.x.flatten(1).isfinite().all(1).double().mean())
    if alive < 1:
        return Score(None, None, None, *cost, note=f"{100 * (1 - alive):.1f} % of the samples are not finite")
    assert at.observation.known is not None
    gap = (kept[-1] - at.observation.y)[:, at.observation.known].double()
    kl = at.kl(result.x)
    note = "" if math.isfinite(kl) else "no variance in some direction"
    return Score(kl if math.isfinite(kl) else None, at.w2(result.x), float(gap.square().mean().sqrt()), *cost, note)


class Store:
    """Finished cells, one JSON object a line.

    Args:
        path: the file, made where it is missing; a last line that was cut off is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scores: dict[str, Score] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
                self._scores[_text(entry["cell"])] = Score(**entry["score"])
            except (ValueError, KeyError, TypeError):
                if number < len(lines) - 1:
                    raise ValueError(f"{path}, line {number + 1}, is no finished cell; delete it.") from None
                path.write_text("".join(f"{kept}\n" for kept in lines[:-1]), encoding="utf-8")

    def get(self, cell: Cell) -> Score | None:
        """The score of a finished cell."""
        return self._scores.get(_text(cell.key()))

    def add(self, cell: Cell, score: Score) -> None:
        """Keeps a score, at once."""
        self._scores[_text(cell.key())] = score
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"cell": cell.key(), "score": asdict(score)}, allow_nan=False) + "\n")


def _text(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def run(
    todo: Iterable[Cell], store: Store, progress: Callable[[Cell], None] | None = None
) -> Iterator[tuple[Cell, Score]]:
    """Runs the cells that the store lacks.

    A method that refuses a problem (AID on a mixture, for want of a module) has the note of its refusal and is tried
    again next time.

    Args:
        todo: the cells.
        store: of finished ones.
        progress: called before every cell.

    Yields:
        Every cell with its score.
    """
    for cell in todo:
        if progress is not None:
            progress(cell)
        score = store.get(cell)
        if score is None:
            try:
                score = run_cell(cell)
            except ValueError as error:
                yield cell, Score(None, None, None, 0, 0, 0, note=" ".join(str(error).split()))
                continue
            store.add(cell, score)
        yield cell, score


@dataclass(frozen=True)
class Summary:
    """One method on one problem with one number of steps, over seeds; spreads are standard deviations.

    Attributes:
        label: of the method.
        method: its name.
        problem: of `CASES`.
        steps: grid intervals.
        schedule: of the model.
        seeds: how many.
        kl: mean; None where any seed has none.
        kl_spread: of it.
        w2: mean.
        w2_spread: of it.
        observed: mean of the root mean squares.
        evaluations: per sample.
        vjps: per sample.
        seconds: mean.
        note: why a number is missing.
    """

    label: str
    method: str
    problem: str
    steps: int
    schedule: str
    seeds: int
    kl: float | None
    kl_spread: float | None
    w2: float | None
    w2_spread: float | None
    observed: float | None
    evaluations: float
    vjps: float
    seconds: float
    note: str

    @property
    def cost(self) -> float:
        """Evaluations, a gradient counted as two."""
        return self.evaluations + 2 * self.vjps


def summarise(results: Iterable[tuple[Cell, Score]]) -> list[Summary]:
    """Means and spreads over the seeds, in the order of the cells."""
    groups: dict[tuple[str, str, int, str], list[tuple[Cell, Score]]] = {}
    for cell, score in results:
        groups.setdefault((cell.problem, cell.label, cell.steps, cell.schedule), []).append((cell, score))
    rows = []
    for group in groups.values():
        cell, scores = group[0][0], [score for _, score in group]
        kl, w2, observed = (_moments([getattr(s, name) for s in scores]) for name in ("kl", "w2", "observed"))
        costs = ([getattr(s, name) for s in scores] for name in ("evaluations", "vjps", "seconds"))
        evaluations, vjps, seconds = (sum(values) / len(values) for values in costs)
        note = next((s.note for s in scores if s.note), "")
        where = (cell.label, cell.method.name, cell.problem, cell.steps, cell.schedule, len(scores))
        rows.append(Summary(*where, *kl, *w2, observed[0], evaluations, vjps, seconds, note))
    return rows


def _moments(values: list[float | None]) -> tuple[float | None, float | None]:
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None, None
    mean = sum(numbers) / len(numbers)
    if len(numbers) == 1:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in numbers) / (len(numbers) - 1))
