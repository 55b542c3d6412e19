"""The manifest of results: one JSON line a picture, on the disk before the picture counts as done.

A local `manifest.jsonl` is appended to and synchronised; a line cut by a kill is dropped when it is opened again.
Object stores cannot append: there every batch of lines is an object of its own in `manifest/`. The last line of a name
counts.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from paintback.batch import files
from paintback.batch.job import inputs

if TYPE_CHECKING:
    from paintback.batch.tasks import Task

__all__ = ["Ledger", "asked", "identity", "inputs_of", "results_in"]

NAME = "manifest.jsonl"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
NOT_ASKED = {"sha256", "versions", "device", "threads"}  # what a job is run with, not what it is


def asked(task: Task, suffix: str) -> dict[str, Any]:
    """What a task asks for, apart from what is in its files; entries at their defaults, so new ones, are left out."""
    assert task.request is not None
    settings = task.request.model_dump(mode="json", exclude=NOT_ASKED, exclude_defaults=True)
    return {"output": task.name + suffix, **settings}


def identity(wanted: dict[str, Any], sha256: dict[str, str | None]) -> str:
    """What makes a result the one that was asked for: paths and contents of the inputs, and the settings."""
    import hashlib

    return hashlib.sha256(json.dumps([wanted, sha256], sort_keys=True).encode()).hexdigest()


def inputs_of(task: Task) -> dict[str, str]:
    """A task's files by what they are."""
    assert task.request is not None
    return inputs(task.request)


def results_in(folder: Path) -> set[Path]:
    """The files that batches wrote into a folder of this machine, by its manifest."""
    manifest = folder / NAME
    data = manifest.read_bytes() if manifest.is_file() else b""
    return {folder / str(record["output"]) for record in _records(data) if "output" in record}


def _is_record(line: bytes) -> bool:
    """Whether a line may be this module's, or what a full disk or a kill left of it; rows of others are not touched."""
    try:
        row = json.loads(line)
    except ValueError:
        return True
    return isinstance(row, dict) and "status" in row


def _records(data: bytes) -> Iterator[dict[str, Any]]:
    """The records of a manifest; a line that a full disk or another program spoilt is as good as none."""
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("name"), str):
            yield record


class Ledger:
    """The results in one output folder or URL, made if missing; at most one process writes to a local one.

    Args:
        out: the folder or URL.
        look: only read what is there: nothing is made, kept from others or cleared away.

    Raises:
        ValueError: if another process writes to it, or it is no folder.
    """

    def __init__(self, out: str, *, look: bool = False) -> None:
        from paintback.images.encoding import check_folder

        self.out = out
        self.records: dict[str, dict[str, Any]] = {}
        self._parts = 0
        self._file: IO[bytes] | None = None
        if files.is_url(out):
            before = self._remote()
            for path in before:
                self._take(files.read(path))
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            latest = max((path.rpartition("/")[2].partition("-")[0] for path in before), default="")
            # objects are read in the order of their names, also where the clock was set back in between
            self._run = f"{stamp if stamp > latest else latest + '~'}-{secrets.token_hex(3)}"
            return
        folder = files.local(out)
        check_folder(folder)
        if look:
            data = (folder / NAME).read_bytes() if (folder / NAME).exists() else b""
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / NAME).open("a+b", buffering=0)
            try:
                _lock(self._file)
            except OSError:
                self._file.close()
                raise ValueError(f"Another batch writes to {out!r}; wait for it, or give another folder.") from None
            self._file.seek(0)
            data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if not all(_is_record(line) for line in data[:whole].splitlines() or [data]):
            self.close()
            raise ValueError(f"{str(folder / NAME)!r} is no manifest of results; give another folder for the results.")
        self._take(data[:whole])
        if self._file is None:
            return
        if whole < len(data):
            self._file.truncate(whole)
        for left in folder.rglob(".*.tmp"):  # what a kill left of `write_whole`
            if _TEMPORARY.fullmatch(left.name):
                left.unlink(missing_ok=True)

    def _remote(self) -> list[str]:
        try:
            return files.find(files.join(self.out, "manifest"), frozenset({".jsonl"})).wanted
        except (ValueError, FileNotFoundError):
            return []

    def _take(self, data: bytes) -> None:
        for record in _records(data):
            self.records[record["name"]] = record

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Adds records; on return they are on the disk."""
        if not records:
            return
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        whole = text.encode("utf-8", "backslashreplace")  # a name that is no UTF-8 becomes an escape of JSON
        if self._file is None:
            self._parts += 1
            files.write(whole, files.join(self.out, f"manifest/{self._run}-{self._parts:06}.jsonl"))
        else:
            end = self._file.seek(0, os.SEEK_END)
            try:
                left = memoryview(whole)
                while left:
                    left = left[self._file.write(left) or 0 :]
                os.fsync(self._file.fileno())
            except OSError:  # no room for all of it: nothing of it stays
                self._file.truncate(end)
                raise

    def is_done(self, task: Task, suffix: str) -> bool:
        """Whether a task's result is there as it was recorded, made from the same files with the same settings."""
        record = self.records.get(task.name)
        if record is None or record.get("status") != "done" or task.request is None:
            return False
        wanted = asked(task, suffix)
        if record.get("output") != wanted["output"]:
            return False
        known = record.get("inputs", {})
        sha256: dict[str, str | None] = {}
        for name, path in inputs_of(task).items():
            before = known.get(name, {})
            stamp = files.fingerprint(path)
            unchanged = stamp is not None and stamp == before.get("stamp") and path == before.get("path")
            sha256[name] = before.get("sha256") if unchanged else files.sha256(path)
        if identity(wanted, sha256) != record.get("identity"):
            return False
        return files.sha256(files.join(self.out, str(record["output"]))) == record.get("sha256")

    def close(self) -> None:
        """Lets others write."""
        if self._file is not None:
            self._file.close()


def _lock(file: IO[bytes]) -> None:
    """Takes the file for this process; the system lets go of it when the process ends, however it does."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps two batches apart
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
