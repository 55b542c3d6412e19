"""`paintback bench images` and `bench tune` as functions: suite and data in, results in a folder out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from paintback.bench.pictures.cases import data_sha256, make_cases
from paintback.bench.pictures.cell import Cell
from paintback.bench.pictures.protocol import agree, make_protocol, model_sha256
from paintback.bench.pictures.runner import Finished, Progress, run_cells, run_order
from paintback.bench.pictures.scoring import Scorer, open_resources, score_parts
from paintback.bench.pictures.suite import Suite
from paintback.bench.pictures.tuning import OBJECTIVES, tune
from paintback.bench.pictures.worker import Order, open_model

__all__ = ["Setting", "run_benchmark", "run_tuning"]


@dataclass(frozen=True)
class Setting:
    """What a user says beside the suite.

    Attributes:
        data: folder of the suite's data.
        model: in place of the suite's, or None.
        limit: pictures, or None for all.
        lpips: weights file, or None.
        clip: folder or Hub id of a CLIP model, or None.
        fid: whether to load the standard network of FID.
        batch: samples painted at once; None for about 260,000 pixels, at most 25 samples.
        threads: CPU threads of a process.
        device: torch device, or None.
        dtype: of the network, or None.
        first: paint only so many of the pictures for now, of every mask, and no further samples; the next run goes on.
    """

    data: Path
    model: str | None = None
    limit: int | None = None
    lpips: Path | None = None
    clip: str | None = None
    fid: bool = False
    batch: int | None = None
    threads: int = 1
    device: str | None = None
    dtype: str | None = None
    first: int | None = None

    def batch_of(self, suite: Suite) -> int:
        """The batch."""
        return self.batch or max(1, min(25, 2**18 // suite.size**2))


def run_benchmark(
    suite: Suite,
    setting: Setting,
    cells: Sequence[Cell],
    out: Path,
    *,
    workers: int = 1,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    progress: Callable[[Progress], None] = lambda now: None,
) -> list[Finished]:
    """Paints and scores cells; what lies in `out` already is kept.

    Args:
        suite: what is measured.
        setting: of the user.
        cells: methods at budgets.
        out: folder of results.
        workers: processes, or Ray workers, at a time.
        engine: "ray" runs the cells on a cluster whose machines see `out` and the data under the same paths.
        address: of the cluster.
        progress: called whenever a part is painted (not through Ray).

    Returns:
        How each cell ended.

    Raises:
        ValueError: for data or weights that do not fit, an `out` made under another protocol, or no cells.
    """
    if not cells:
        raise ValueError("There is nothing to run: no method is within the budget; allow more.")
    first, further = make_cases(suite, setting.data, limit=setting.limit)
    resources = open_resources(suite, lpips=setting.lpips, clip=setting.clip, inception=setting.fid)
    model, batch = setting.model or suite.model, setting.batch_of(suite)
    agree(out, _protocol(suite, setting, [*first, *further], model, batch, resources.told))
    orders = [
        Order(
            suite.to_dict(), str(setting.data.resolve()), setting.limit, _absolute(model), cell.to_dict(),
            str(out.resolve()), batch, setting.threads, setting.device, setting.dtype,
            setting.first,
        )
        for cell in cells
    ]  # fmt: skip
    if engine == "ray":
        from paintback.batch.cluster import run_items

        answers = run_items(_Runner, [order.to_json() for order in orders], workers=workers, address=address)
        told = [json.loads(answer) for answer in answers]
        finished = [Finished(Cell(**one["cell"]), one["error"]) for one in told]
    else:
        finished = run_cells(orders, workers, progress)
    scorer = Scorer(suite, resources, [*first, *further])
    for one in finished:
        score_parts(one.cell.folder(out), scorer)
    return finished


def run_tuning(
    suite: Suite,
    setting: Setting,
    names: Sequence[str],
    path: Path,
    *,
    budget: int,
    trials: int,
    rounds: int = 1,
    progress: Callable[[str, int], None] = lambda name, trial: None,
) -> dict[str, Any]:
    """Searches the fields of methods on the suite's pictures of validation.

    Args:
        suite: what is measured.
        setting: of the user.
        names: of methods.
        path: of the record.
        budget: evaluations and gradients per sample.
        trials: of each method.
        rounds: each drops the worse half of the trials.
        progress: called before each trial.

    Returns:
        The record; see `tuning.tune`.

    Raises:
        ValueError: for data or weights that do not fit, or a record made under another protocol.
    """
    import torch

    torch.set_num_threads(setting.threads)
    suite = replace(suite, metrics=[metric for metric in suite.metrics if metric in OBJECTIVES])
    cases, _ = make_cases(suite, setting.data, limit=setting.limit, validation=True)
    resources = open_resources(suite, lpips=setting.lpips, clip=setting.clip, inception=False)
    model, batch = setting.model or suite.model, setting.batch_of(suite)
    protocol = _protocol(suite, setting, cases, model, batch, resources.told)
    inpainter = open_model(model, setting.device, setting.dtype)
    scorer = Scorer(suite, resources, cases)
    return tune(
        suite, inpainter, cases, scorer, names,
        budget=budget, trials=trials, batch=batch, path=path, protocol=protocol, rounds=rounds, progress=progress,
    )  # fmt: skip


class _Runner:
    """One worker of a cluster."""

    def __call__(self, item: Any) -> str:
        return run_order(str(item))


def _absolute(model: str) -> str:
    return str(Path(model).resolve()) if Path(model).exists() else model


def _protocol(
    suite: Suite, setting: Setting, cases: Sequence[Any], model: str, batch: int, told: dict[str, Any]
) -> dict[str, Any]:
    return make_protocol(
        suite,
        pictures=len({case.picture for case in cases}),
        data=data_sha256(cases),
        model=model,
        weights=model_sha256(model),
        metrics=told,
        batch=batch,
        threads=setting.threads,
        device=setting.device,
        dtype=setting.dtype,
    )
