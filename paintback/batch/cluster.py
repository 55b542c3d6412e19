"""The Ray engine: Ray Data feeds actors, each of which loads the model once.

A worker that dies is started again by Ray and its chunk is painted again; a picture's bits do not depend on who paints
it. The workers write the pictures, so that `out` must be a folder that all of them see, or a URL; only the process that
started the run writes the manifest.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from paintback.batch.worker import Chunk, Options, Painter, Record
from paintback.painting.request import Request

__all__ = ["Handler", "run_items", "run_ray"]

BLOCKS = 10_000  # more blocks than this slow Ray Data's scheduler
ATTEMPTS = 3  # connections through ray://, where the server that Ray forks for each client may die as it starts


class Handler(Protocol):
    """What a worker does with an item, once it is made."""

    def __call__(self, item: str) -> str:
        """The answer to an item."""


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError(
            "The engine ray needs Ray; pip install 'paintback[cluster]', or take the engine local."
        ) from None
    return ray


def connect(address: str | None) -> Any:
    """Ray, connected: to an address, else as Ray itself finds a cluster, else to one started on this machine.

    Args:
        address: "auto", "host:port" or "ray://host:port"; None leaves it to Ray and RAY_ADDRESS.

    Raises:
        ValueError: if Ray is not installed, or no cluster answers at the address; with all that Ray says of it.
    """
    ray = _import_ray()
    if not ray.is_initialized():
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its remarks on restarts are not for this terminal
        settings = {"log_to_driver": False, "logging_level": "error"}
        try:
            try:
                _init(ray, address, settings)
            except ConnectionError:
                if address is not None or os.environ.get("RAY_ADDRESS"):
                    raise
                ray.init(address="local", **settings)  # what Ray found is a cluster that is gone
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split()).rstrip(".") or "no answer"  # of many lines, the last one often tells
            place = address or "the default address"
            raise ValueError(f"No Ray cluster can be used at {place} ({reason}); check that it is up there.") from None
    return ray


def _init(ray: Any, address: str | None, settings: dict[str, Any]) -> None:
    """`ray.init`, again where the cluster was reached and its server for this client died as it started.

    On a busy machine gRPC's threads may crash it between fork and exec; the next one is another process.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init(address=address, **settings)
            return
        except ConnectionAbortedError:
            if attempt == ATTEMPTS:
                raise


class _Stop:
    """A flag that all workers see."""

    def __init__(self) -> None:
        self.value = False

    def set(self) -> None:
        """Raises it."""
        self.value = True

    def get(self) -> bool:
        """Whether it is raised."""
        return self.value


class _Worker:
    """What Ray Data makes once in every actor: the handler, and its answers to rows of items."""

    def __init__(self, make: Callable[[], Handler], stop: Any, threads: int | None) -> None:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        self.handler, self.stop = make(), stop

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        if ray.get(self.stop.get.remote()):
            return {"answer": ""}
        return {"answer": self.handler(str(row["item"]))}


def _stream(
    make: Callable[[], Handler], items: Sequence[str], workers: int | None, threads: int | None, stop: Any
) -> Iterator[str]:
    """The answers, by Ray Data in this process."""
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    total = ray.cluster_resources()
    gpus, cpus = int(total.get("GPU", 0)), max(1, threads or 1)
    if workers is None:
        workers = gpus or max(1, int(total.get("CPU", 1)) // cpus)
    per_actor: dict[str, Any] = {"num_cpus": cpus * _share(total, workers, cpus)}
    if gpus:
        per_actor["num_gpus"] = min(1.0, gpus / workers)
    rows = (
        ray.data.from_items([{"item": item} for item in items], override_num_blocks=min(len(items), BLOCKS))
        .map(
            _Worker,
            fn_constructor_args=(make, stop, threads),
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            **per_actor,  # Ray Data restarts actors and retries their tasks without end by itself
        )
        .iter_rows()
    )
    for row in rows:
        if row["answer"]:
            yield str(row["answer"])


class _Feed:
    """`_stream` on the cluster, for a client elsewhere."""

    def __init__(self, *arguments: Any) -> None:
        self.answers = _stream(*arguments)

    def next(self) -> str | None:
        """The next answer, or None at the end."""
        return next(self.answers, None)


def _fetched(ray: Any, feed: Any) -> Iterator[str]:
    while (answer := ray.get(feed.next.remote())) is not None:
        yield answer


def run_items(
    make: Callable[[], Handler],
    items: Sequence[str],
    *,
    address: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """Answers items on a Ray cluster, by handlers that are made once in each worker. Benchmarks can use it too.

    Args:
        make: makes the handler; what it closes over is sent to the workers.
        items: texts, such as JSON.
        address: of the cluster; see `connect`.
        workers: actors; None for one a GPU, or where there is none, for as many as the CPUs hold.
        threads: CPUs of an actor, and torch threads; None for 1.
        stopped: asked after every answer; once it is true, workers finish what they have in hand and take no more.

    Returns:
        Answers as they come, in any order; an item whose worker died is answered by another one.

    Raises:
        ValueError: if Ray is not there.
    """
    ray = connect(address)
    stop = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Stop).remote()
    if ray.util.client.ray.is_connected():
        # Ray Data does not run in a client's process: it runs on the cluster, and the answers are fetched from there
        feed = ray.remote(num_cpus=0)(_Feed).remote(make, list(items), workers, threads, stop)
        answers = _fetched(ray, feed)
    else:
        answers = _stream(make, items, workers, threads, stop)
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.1):
            if stopped():
                stop.set.remote()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield from answers
    finally:
        watching.set()
        watcher.join()
        with contextlib.suppress(Exception):
            ray.kill(stop)


def _share(total: dict[str, float], workers: int, cpus: int) -> float:
    """Lets the actors take all CPUs and still leave Ray Data's own small tasks a little."""
    free = total.get("CPU", 1.0) - 0.1 - workers * cpus
    return 1.0 if free >= 0 else max(0.05, (total.get("CPU", 1.0) - 0.1) / (workers * cpus))


def run_ray(
    request: Request,
    chunks: Sequence[Chunk],
    options: Options,
    stopped: Callable[[], bool],
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Iterator[list[Record]]:
    """Paints chunks on a Ray cluster; arguments as for `local.run_local` and `run_items`."""
    here = os.getcwd()

    def make() -> Handler:
        if os.path.isdir(here):  # relative paths of jobs mean the same in a worker
            os.chdir(here)
        painter = Painter(request, options)
        return lambda text: json.dumps(list(painter.run(Chunk.from_text(text))))

    items = [chunk.to_text() for chunk in chunks]
    for answer in run_items(make, items, address=address, workers=workers, threads=request.threads, stopped=stopped):
        yield json.loads(answer)
