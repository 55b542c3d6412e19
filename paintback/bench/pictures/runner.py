"""Runs cells, each in a fresh process, one after another or a few at a time; what is done is not done again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paintback.bench.pictures.cell import Cell, cost_within
from paintback.bench.pictures.worker import Order
from paintback.methods.base import Method
from paintback.models.catalogue import TRAINED

__all__ = ["Finished", "Progress", "cells_of", "read_cells", "run_cells", "run_order"]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        cell: that has just painted.
        painted: samples of it that are done.
        of: all of its samples.
    """

    cell: Cell
    painted: int
    of: int


@dataclass(frozen=True)
class Finished:
    """How a cell ended.

    Attributes:
        cell: of the benchmark.
        error: one sentence, or None.
    """

    cell: Cell
    error: str | None = None


def cells_of(
    labels: dict[str, Method | None], budget: int | None, seconds: float | None, fields: dict[str, dict[str, Any]]
) -> tuple[list[Cell], list[Finished]]:
    """The cells of a run.

    Args:
        labels: methods by label; None for a model that takes the mask itself.
        budget: evaluations and gradients per sample, or None.
        seconds: per sample, or None.
        fields: of every label's method, those that were set.

    Returns:
        The cells, and those that cannot be run within the budget.
    """
    cells, refused = [], []
    for label, method in labels.items():
        cell = Cell(label, TRAINED if method is None else method.name, fields.get(label, {}), budget, seconds)
        if budget is not None:
            try:
                steps = budget if method is None else cost_within(method, budget)
            except ValueError as error:
                refused.append(Finished(cell, str(error)))
                continue
            cell = replace(cell, steps=steps)
        cells.append(cell)
    return cells, refused


def run_cells(
    orders: Sequence[Order], workers: int = 1, progress: Callable[[Progress], None] = lambda now: None
) -> list[Finished]:
    """Runs orders, a process each.

    Args:
        orders: one for each cell.
        workers: processes at a time; above 1 their seconds are not those of an idle machine.
        progress: called whenever a part is done, from any thread.

    Returns:
        How each ended. A cell that fails does not stop the rest.

    Raises:
        KeyboardInterrupt: after the processes were ended; what they had written is kept.
    """
    processes: set[subprocess.Popen[str]] = set()
    stopping = threading.Event()

    def one(order: Order) -> Finished:
        cell = Cell(**order.cell)
        error: str | None = "It was not begun."
        for line in _lines(order, processes, stopping):
            if "error" in line:
                error = str(line["error"])
            elif "done" in line:
                error = None
            elif "painted" in line:
                progress(Progress(cell, line["painted"], line["of"]))
        return Finished(cell, error)

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(one, order) for order in orders]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stopping.set()
            for process in list(processes):
                process.kill()
            raise


def _lines(order: Order, processes: set[subprocess.Popen[str]], stopping: threading.Event) -> Iterator[dict[str, Any]]:
    """What a process says; the last is {"done": true} or {"error": ...}; nothing where the run is being stopped."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(order.threads)}
    command = [sys.executable, "-m", "paintback.bench.pictures.worker"]
    # warnings go to a file: a pipe that nobody reads would stop the process once it is full
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as warnings,
        subprocess.Popen(
            command, text=True, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=warnings
        ) as process,
    ):
        processes.add(process)
        try:
            if stopping.is_set():
                return
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(OSError):  # the process may be gone; what it said of that comes below
                process.stdin.write(order.to_json())
            with contextlib.suppress(OSError):
                process.stdin.close()
            said = False
            for text in process.stdout:
                with contextlib.suppress(ValueError):
                    line = json.loads(text)
                    if isinstance(line, dict):
                        said = said or "error" in line or "done" in line
                        yield line
            if not said:
                code = process.wait()
                warnings.seek(0)
                last = [text for text in warnings.read().splitlines() if text.strip()]
                yield {"error": f"The process ended with {code}: {last[-1] if last else 'it said nothing'}"}
        finally:
            process.kill()
            processes.discard(process)


def run_order(text: str) -> str:
    """Runs one order, for a worker of a cluster whose folders are shared.

    Args:
        text: an `Order` as JSON.

    Returns:
        A `Finished` as JSON: label and error.
    """
    began = time.perf_counter()
    order = Order(**json.loads(text))
    (finished,) = run_cells([order])
    return json.dumps({"cell": order.cell, "error": finished.error, "seconds": time.perf_counter() - began})


def read_cells(out: Path) -> list[tuple[Cell, Path]]:
    """The cells that lie in a folder of results, by label and budget."""
    found = []
    for path in sorted((out / "cells").glob("*/cell.json")):
        found.append((Cell(**json.loads(path.read_text(encoding="utf-8"))), path.parent))
    return sorted(found, key=lambda one: (one[0].label, one[0].budget or 0, one[0].seconds or 0))
