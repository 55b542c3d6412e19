"""`run`: many jobs in, a folder of results and a manifest out; what is done is skipped, what failed is done again."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from os import PathLike
from typing import Any, Literal

from paintback.batch import files
from paintback.batch.ledger import Ledger, inputs_of
from paintback.batch.names import too_long
from paintback.batch.pairs import same
from paintback.batch.tasks import Task, name_jobs
from paintback.batch.worker import Chunk, Options, Record, failed
from paintback.painting.request import Request

__all__ = ["Engine", "Progress", "Report", "foresee", "run"]

Engine = Literal["local", "ray"]
IN_MANIFEST = frozenset({"job", "inputs", "identity", "worker"})  # left there: there may be a million records
CHECKS = 8  # threads that compare what is there with what is recorded


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        total: pictures of the batch.
        skipped: done before.
        done: painted now.
        failed: now.
        seconds: since the run began.
    """

    total: int
    skipped: int
    done: int
    failed: int
    seconds: float

    @property
    def left(self) -> float | None:
        """Seconds left, or None before the first picture."""
        now = self.done + self.failed
        return None if not now else self.seconds / now * (self.total - self.skipped - now)


@dataclass
class Report:
    """What a run did.

    Attributes:
        total: pictures of the batch.
        skipped: names that were done before.
        done: records of what was painted now, without the entries `IN_MANIFEST`, which its file holds.
        failed: records of what could not be done, with the error, likewise.
        seconds: of the run.
        stopped: whether it was interrupted; what is missing is done by the next run.
        out: the folder or URL.
    """

    total: int
    out: str
    skipped: list[str] = field(default_factory=list)
    done: list[Record] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False

    @property
    def missing(self) -> int:
        """Pictures that the run did not come to."""
        return self.total - len(self.skipped) - len(self.done) - len(self.failed)


def run(
    jobs: Sequence[Request | Task],
    out: str | PathLike[str],
    *,
    engine: Engine = "local",
    suffix: str = ".png",
    batch: int = 8,
    memory: int | None = None,
    address: str | None = None,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Paints many jobs.

    Args:
        jobs: requests, which are named by their pictures, or tasks, such as `tasks.read_tasks` makes.
        out: folder or URL of the results, made if missing; it holds the pictures and `manifest.jsonl`.
        engine: "local", in this process, or "ray", on a cluster.
        suffix: of the results: .png, .jpg, .webp or .tif.
        batch: most pictures of one network batch.
        memory: bytes that one network batch may take; None for 2 GiB, and four fifths of what is free on CUDA.
        address: of the Ray cluster; None for the one that Ray finds, or a new one on this machine.
        workers: of Ray; None for one a GPU or, without any, one a CPU.
        progress: told after every batch.

    Returns:
        What was done, skipped and failed. A failed picture raises nothing.

    Raises:
        ValueError: for a model, device, folder or engine that cannot be used.
    """
    began = time.perf_counter()
    if engine not in ("local", "ray"):
        raise ValueError(f"There is no engine {engine!r}; give local or ray.")
    if batch < 1 or (memory is not None and memory < 1) or (workers is not None and workers < 1):
        raise ValueError(f"batch, memory and workers must be at least 1; got {batch}, {memory}, {workers}.")
    tasks, options = _settled(jobs, Options(os.fspath(out), suffix, batch, memory), engine)
    report = Report(len(tasks), options.out)
    ledger = Ledger(options.out)

    def tell() -> None:
        if progress is not None:
            counts = (len(report.skipped), len(report.done), len(report.failed))
            progress(Progress(report.total, *counts, time.perf_counter() - began))

    def take(records: Sequence[Record]) -> None:
        ledger.append(records)
        for record in records:
            short = {key: value for key, value in record.items() if key not in IN_MANIFEST}
            (report.done if record["status"] == "done" else report.failed).append(short)
        if records:
            tell()

    try:
        with _interruptible() as stopped:
            done = _done(tasks, ledger, suffix)
            ledger.records.clear()  # what was done before is not needed again, and there may be a million of it
            report.skipped = [task.name for task, is_done in zip(tasks, done, strict=True) if is_done]
            tell()
            take([failed(task, task.error or "There is no job.") for task in tasks if task.request is None])
            for request, chunks in _cut(tasks, done, batch):
                if stopped():
                    break
                for records in _paint(engine, request, chunks, options, stopped, address, workers):
                    take(records)
            report.stopped = stopped()
    finally:
        ledger.close()
    report.seconds = time.perf_counter() - began
    return report


def foresee(
    jobs: Sequence[Request | Task], out: str | PathLike[str], *, engine: Engine = "local", suffix: str = ".png"
) -> tuple[list[Task], list[bool]]:
    """The tasks of a run and which of them are done already; nothing is written.

    Args:
        jobs: as for `run`, likewise the rest.
        out: folder or URL of the results, which need not be there.
        engine: "local" or "ray".
        suffix: of the results.

    Raises:
        ValueError: as `run` would, for what can be told before it paints.
    """
    tasks, options = _settled(jobs, Options(os.fspath(out), suffix), engine)
    return tasks, _done(tasks, Ledger(options.out, look=True), suffix)


def _settled(jobs: Sequence[Request | Task], options: Options, engine: Engine) -> tuple[list[Task], Options]:
    """The tasks of a run, checked, and where it writes.

    Raises:
        ValueError: for results that cannot be written, or would be written over what the run reads.
    """
    from pathlib import Path

    from paintback.images.formats import format_of

    format_of(Path("out" + options.suffix))
    if engine == "ray":
        if options.out.startswith("memory:"):
            raise ValueError(f"{options.out!r} is not seen by other processes; give a folder or another URL.")
        if not files.is_url(options.out):
            options = replace(options, out=str(files.local(options.out).absolute()))
    tasks = _with_threads(_checked(name_jobs(jobs), options.suffix), engine)
    _keep_apart(tasks, options)
    return tasks, options


def _done(tasks: Sequence[Task], ledger: Ledger, suffix: str) -> list[bool]:
    with ThreadPoolExecutor(CHECKS) as pool:
        return list(pool.map(lambda task: ledger.is_done(task, suffix), tasks))


def _checked(tasks: Sequence[Task], suffix: str) -> list[Task]:
    """The tasks, with an error where one would only show after the painting, or would paint another one's mask."""
    masks = {
        same(path) for task in tasks if task.request is not None and (path := inputs_of(task).get("mask")) is not None
    }
    checked = []
    for task in tasks:
        problem = task.error
        if task.request is not None:
            problem = too_long(task.name + suffix)
            if same(str(task.request.photo)) in masks:
                problem = (
                    f"{task.request.photo!r} is a mask of this batch, and would be painted as a picture; leave it out."
                )
        spared = task.spared if task.request is None else tuple(inputs_of(task).values())
        checked.append(task if problem is None else replace(task, request=None, error=problem, spared=spared))
    return checked


def _keep_apart(tasks: Sequence[Task], options: Options) -> None:
    """Refuses a run whose results would be written over its pictures or masks.

    Raises:
        ValueError: naming the first one.
    """
    given: set[str] = set()
    numbers: set[tuple[int, int]] = set()
    for path in {path for task in tasks for path in (inputs_of(task).values() if task.request else task.spared)}:
        given |= _ways_to(path)
        numbers |= files.number(path)
    meet = []
    for task in tasks:
        if task.request is not None:
            path = files.join(options.out, task.name + options.suffix)
            if given & _ways_to(path) or numbers & files.number(path):
                meet.append(path)
    if meet:
        others = f" and {len(meet) - 1} more" if len(meet) > 1 else ""
        raise ValueError(
            f"The results would be written over {meet[0]!r}{others}, which this batch reads; give another folder for "
            "the results."
        )


def _ways_to(path: str) -> set[str]:
    """A path as it is and with its links resolved, all of them and those of its folder alone."""
    if files.is_url(path):
        return {path}
    folder, name = os.path.split(files.local(path))
    return {os.path.realpath(files.local(path)), os.path.join(os.path.realpath(folder), name)}


def _paint(
    engine: Engine,
    request: Request,
    chunks: list[Chunk],
    options: Options,
    stopped: Callable[[], bool],
    address: str | None,
    workers: int | None,
) -> Iterator[list[Record]]:
    if engine == "ray":
        from paintback.batch.cluster import run_ray

        return run_ray(request, chunks, options, stopped, address=address, workers=workers)
    from paintback.batch.local import run_local

    return run_local(request, chunks, options, stopped)


def _with_threads(tasks: list[Task], engine: Engine) -> list[Task]:
    """Settles the number of threads where jobs leave it open: all of this process's, or one for a worker of Ray."""
    import torch

    threads = 1 if engine == "ray" else torch.get_num_threads()
    return [
        replace(task, request=task.request.with_(threads=threads))
        if task.request is not None and task.request.threads is None
        else task
        for task in tasks
    ]


def _place(task: Task) -> str:
    assert task.request is not None
    own = task.request
    return json.dumps([own.model, own.device, own.dtype, own.offload, own.step_distilled, own.threads])


def _cut(tasks: Sequence[Task], done: Sequence[bool], batch: int) -> Iterator[tuple[Request, list[Chunk]]]:
    """Chunks of `batch` tasks that need the same model, without those that are wholly done.

    Broken rows are left out first, so that the chunks are the same when the run is repeated.
    """
    pairs = [(task, is_done) for task, is_done in zip(tasks, done, strict=True) if task.request is not None]
    pairs.sort(key=lambda pair: _place(pair[0]))  # stable: in the given order where the model is one
    for _, group in groupby(pairs, key=lambda pair: _place(pair[0])):
        same = list(group)
        chunks = []
        for first in range(0, len(same), batch):
            part = same[first : first + batch]
            if not all(is_done for _, is_done in part):
                chunks.append(Chunk(tuple(task for task, _ in part), tuple(not is_done for _, is_done in part)))
        request = same[0][0].request
        assert request is not None
        if chunks:
            yield request, chunks


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag; the second one interrupts at once. Only the main thread gets signals."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return
    before: Any = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        flag.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield flag.is_set
    finally:
        signal.signal(signal.SIGINT, before)
