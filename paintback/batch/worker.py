"""One chunk of a batch, painted: the same code in this process and in every worker of a cluster.

Pictures whose crops have the same sizes, and that are told the same, share a network batch. How many do is settled by
the chunk as it was first cut: where some of them are done already, their rows are filled by copies, because on one
machine a picture's bits depend on the number of rows and on nothing else of its batch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintback.batch import files
from paintback.batch.job import bare, completed, load, of_seed, read, settled, shown, storable, weights_digest
from paintback.batch.ledger import asked, identity, inputs_of
from paintback.batch.tasks import Task
from paintback.painting.request import Request
from paintback.resources import free_bytes

if TYPE_CHECKING:
    from paintback.images import Picture
    from paintback.images.masks import Mask
    from paintback.models.base import Model

__all__ = ["Chunk", "Group", "Options", "Painter", "failed"]

Record = dict[str, Any]
FULL = (errno.ENOSPC, errno.EDQUOT)  # of errors that every later picture would meet too


@dataclass(frozen=True)
class Options:
    """What a run is given beside its jobs.

    Attributes:
        out: folder or URL of the results.
        suffix: of the results, with the dot.
        batch: most pictures of one network batch.
        memory: bytes that one network batch may take, by `bytes_per_cell`; None for 2 GiB on a CPU and four fifths of
            what is free on CUDA.
    """

    out: str
    suffix: str = ".png"
    batch: int = 8
    memory: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Tasks that one worker takes at a time.

    Attributes:
        tasks: done ones too, which settle the sizes of the network's batches.
        wanted: whether each is to be painted.
    """

    tasks: tuple[Task, ...]
    wanted: tuple[bool, ...]

    def to_text(self) -> str:
        """As JSON."""
        rows = [
            [task.name, task.request.to_settings() if task.request else None, task.error, wanted]
            for task, wanted in zip(self.tasks, self.wanted, strict=True)
        ]
        return json.dumps(rows)

    @classmethod
    def from_text(cls, text: str) -> Chunk:
        """What `to_text` wrote."""
        rows = json.loads(text)
        tasks = tuple(
            Task(name, None if job is None else Request.from_settings(job), error) for name, job, error, _ in rows
        )
        return cls(tasks, tuple(wanted for *_, wanted in rows))


@dataclass(frozen=True)
class _Read:
    """A task with its files read."""

    task: Task
    wanted: bool
    request: Request
    picture: Picture
    hole: Mask
    inputs: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Group:
    """What goes through the network together.

    Attributes:
        items: the pictures.
        rows: of the batch; at least as many.
    """

    items: tuple[_Read, ...]
    rows: int


@dataclass(frozen=True)
class _Painted:
    item: _Read
    request: Request
    picture: Picture
    facts: Record


def failed(task: Task, error: str) -> Record:
    """The record of a task that could not be done."""
    settings = None if task.request is None else task.request.to_settings()
    return {"name": task.name, "status": "failed", "error": error, "job": settings}


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text or 'no message'}"


class Painter:
    """A loaded model, and the three stages of a chunk: read, paint, write.

    Args:
        request: names the model, the device, the dtype and the threads; all tasks have the same.
        options: of the run.

    Raises:
        ValueError: for a model or device that cannot be used.
    """

    def __init__(self, request: Request, options: Options) -> None:
        self.options, self.threads = options, request.threads
        self.inpainter = load(request)
        self.inpainter.set_progress_bar_config(disable=True)
        self.weights = weights_digest(request.model)
        self.cell = bytes_per_cell(self.inpainter.model)
        self.worker = f"{socket.gethostname()}/{os.getpid()}"

    def read(self, chunk: Chunk) -> tuple[list[Group], list[Record]]:
        """Reads a chunk's files and settles its batches.

        Returns:
            What is to be painted, and the records of what cannot be read.
        """
        groups: dict[str, list[_Read]] = {}
        records = []
        for task, wanted in zip(chunk.tasks, chunk.wanted, strict=True):
            try:
                if task.request is None:
                    raise ValueError(task.error or "There is no job.")
                item = self._read(task, task.request, wanted)
                sizes = self.inpainter.sizes(item.picture, item.hole, request=bare(item.request))
            except Exception as error:  # whatever is wrong with one picture, the others go on
                if wanted:
                    records.append(failed(task, _sentence(error)))
                continue
            alone = [] if sizes else [task.name]
            groups.setdefault(json.dumps([sizes, alone, _told(item.request)], sort_keys=True), []).append(item)
        cut = []
        for key, items in groups.items():
            rows = min(self.options.batch, self._rows_at_most(json.loads(key)[0]))
            for first in range(0, len(items), rows):
                together = items[first : first + rows]
                needed = tuple(item for item in together if item.wanted)
                if needed:
                    cut.append(Group(needed, len(together)))
        return cut, records

    def _read(self, task: Task, request: Request, wanted: bool) -> _Read:
        inputs: dict[str, dict[str, Any]] = {}
        for name, path in inputs_of(task).items():  # told before the file is read, so that a later change shows
            inputs[name] = {"path": path, "stamp": files.fingerprint(path)}
        picture, hole = read(request)
        for entry in inputs.values():
            entry["sha256"] = files.sha256(entry["path"]) if wanted else None
        request = settled(request, self.inpainter)
        return _Read(task, wanted, of_seed(request, int(request.seed or 0)), picture, hole, inputs)

    def _rows_at_most(self, sizes: Sequence[Sequence[Sequence[int]]]) -> int:
        cells = max((height * width for levels in sizes for height, width, *_ in levels), default=0)
        return max(1, self._memory() // (self.cell * cells)) if cells else 1

    def _memory(self) -> int:
        """Bytes that a batch may take."""
        if self.options.memory is not None:
            return self.options.memory
        free = free_bytes(self.inpainter.model.device)
        return 2**31 if free is None else free * 4 // 5

    def paint(self, group: Group) -> tuple[list[_Painted], list[Record]]:
        """Paints a group; where that fails, each of its pictures alone.

        Returns:
            The pictures, and the records of those that failed.
        """
        try:
            return self._paint(group), []
        except Exception as error:
            if len(group.items) == group.rows == 1:
                return [], [failed(group.items[0].task, _sentence(error))]
        painted, records = [], []
        for item in group.items:
            done, broken = self.paint(Group((item,), 1))
            painted += done
            records += broken
        return painted, records

    def _paint(self, group: Group) -> list[_Painted]:
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)  # of this thread of Python
        count = len(group.items)
        rows = [group.items[k % count] for k in range(group.rows)]
        began = time.perf_counter()
        output = self.inpainter(
            [item.picture for item in rows],
            [item.hole for item in rows],
            request=bare(shown(rows[0].request)),
            generator=[torch.Generator().manual_seed(int(item.request.seed or 0)) for item in rows],
            output_type="picture",
            batch_size=group.rows,
        )
        seconds = (time.perf_counter() - began) / count
        done = []
        for item, picture in zip(group.items, output.images, strict=False):
            sha256 = {name: entry["sha256"] for name, entry in item.inputs.items()}
            own = completed(item.request, self.inpainter, {**sha256, "weights": self.weights})
            facts = {
                "evaluations": _each(output.evaluations, group.rows),
                "vjps": _each(output.vjps, group.rows),
                "seconds": round(seconds, 4),
                "batch": group.rows,
                "threads": own.threads,
            }
            done.append(_Painted(item, own, picture, facts))
        return done

    def write(self, painted: Sequence[_Painted]) -> list[Record]:
        """Writes pictures, each whole or not at all.

        Returns:
            Their records.

        Raises:
            OSError: where there is no room left.
        """
        return [self._write(one) for one in painted]

    def _write(self, one: _Painted) -> Record:
        from paintback.images.encoding import encode

        task, picture = one.item.task, one.picture
        wanted = asked(task, self.options.suffix)
        try:
            settings = {**one.request.to_settings(), "batch": one.facts["batch"]}
            name = Path(wanted["output"])
            data = encode(storable(picture, name), name, settings)
            files.write(data, files.join(self.options.out, wanted["output"]))
        except Exception as error:
            if isinstance(cause := error.__cause__, OSError) and cause.errno in FULL:
                text = (
                    f"{os.strerror(cause.errno)}; what is done is in the manifest, and the same command does the rest"
                )
                raise OSError(cause.errno, text, self.options.out) from None  # nor would the next picture find room
            return failed(task, _sentence(error))
        return {
            "name": task.name,
            "status": "done",
            "error": None,
            "output": wanted["output"],
            "sha256": hashlib.sha256(data).hexdigest(),
            "identity": identity(wanted, {name: entry["sha256"] for name, entry in one.item.inputs.items()}),
            "inputs": one.item.inputs,
            "seed": one.request.seed,
            **one.facts,
            "worker": self.worker,
            "job": one.request.to_settings(),
        }

    def run(self, chunk: Chunk) -> Iterator[Record]:
        """All three stages of a chunk, one after another; its records."""
        groups, records = self.read(chunk)
        yield from records
        for group in groups:
            painted, records = self.paint(group)
            yield from records
            try:
                yield from self.write(painted)
            except OSError as error:  # the actor goes on: the run ends where the records are read
                yield from (failed(one.item.task, _sentence(error)) for one in painted)


def _told(request: Request) -> dict[str, Any]:
    """What pictures of one batch have in common: everything but their files and seeds."""
    return bare(request).with_(seed=0).to_settings()


def _each(total: float, rows: int) -> float:
    """A cost of one picture; a whole number where it is one."""
    return int(total // rows) if total % rows == 0 else total / rows


def bytes_per_cell(model: Model) -> int:
    """What one cell of one picture takes in the network, at most: the outputs of all its layers, none of them freed.

    An evaluation without gradients frees most of them on the way.
    """
    import torch

    if model.network is None:
        return 1
    from paintback.models.base import Told

    height, width = model.size or (4 * model.multiple, 4 * model.multiple)
    total = 0

    def add(module: Any, given: Any, out: Any) -> None:
        nonlocal total
        total += out.numel() * out.element_size() if torch.is_tensor(out) else 0

    hooks = [part.register_forward_hook(add) for part in model.network.modules() if not list(part.children())]
    try:
        denoiser = model.denoiser_at((height, width), Told())
        with torch.no_grad():
            denoiser(torch.zeros(1, *model.state_shape((height, width)), device=model.device), 0.5)
    except Exception:  # a model of classes or prompts cannot be tried without one
        return 4096
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, total // (height * width))
