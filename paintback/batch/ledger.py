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
from collections.abc import Sequence
from typing import IO, Any

from paintback.batch import files
from paintback.batch.job import ALPHA
from paintback.batch.tasks import Task

__all__ = ["Ledger", "asked", "identity"]

NAME = "manifest.jsonl"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
NOT_ASKED = ("sha256", "versions", "device", "threads")  # what a job is run with, not what it is


def asked(task: Task, suffix: str) -> dict[str, Any]:
    """What a task asks for, apart from what is in its files."""
    assert task.job is not None
    settings = {key: value for key, value in task.job.to_settings().items() if key not in NOT_ASKED}
    return {"output": task.name + suffix, **settings}


def identity(wanted: dict[str, Any], sha256: dict[str, str | None]) -> str:
    """What makes a result the one that was asked for: paths and contents of the inputs, and the settings."""
    import hashlib

    return hashlib.sha256(json.dumps([wanted, sha256], sort_keys=True).encode()).hexdigest()


def inputs_of(task: Task) -> dict[str, str]:
    """A task's files by what they are."""
    assert task.job is not None
    given = {"photo": task.job.photo, "mask": task.job.mask}
    return {name: path for name, path in given.items() if path is not None and path != ALPHA}


class Ledger:
    """The results in one output folder or URL, made if missing; at most one process writes to a local one.

    Args:
        out: the folder or URL.

    Raises:
        ValueError: if another process writes to it.
    """

    def __init__(self, out: str) -> None:
        self.out = out
        self.records: dict[str, dict[str, Any]] = {}
        self._run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        self._parts = 0
        self._file: IO[bytes] | None = None
        if files.is_url(out):
            for path in self._remote():
                self._take(files.read(path))
            return
        folder = files.local(out)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{out!r} is a file; give a folder for the results.")
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / NAME).open("a+b")
        try:
            _lock(self._file)
        except OSError:
            self._file.close()
            raise ValueError(f"Another batch writes to {out!r}; wait for it, or give another folder.") from None
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        self._take(data[:whole])
        for left in folder.rglob(".*.tmp"):  # what a kill left of `write_whole`
            if _TEMPORARY.fullmatch(left.name):
                left.unlink(missing_ok=True)

    def _remote(self) -> list[str]:
        try:
            return files.find(files.join(self.out, "manifest"), frozenset({".jsonl"}))[1]
        except (ValueError, FileNotFoundError):
            return []

    def _take(self, data: bytes) -> None:
        for line in data.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a line that a full disk or another program spoilt is as good as none
            if isinstance(record, dict) and isinstance(record.get("name"), str):
                self.records[record["name"]] = record

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Adds records; on return they are on the disk."""
        if not records:
            return
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        if self._file is None:
            self._parts += 1
            files.write(data, files.join(self.out, f"manifest/{self._run}-{self._parts:06}.jsonl"))
        else:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        for record in records:
            self.records[record["name"]] = record

    def is_done(self, task: Task, suffix: str) -> bool:
        """Whether a task's result is there as it was recorded, made from the same files with the same settings."""
        record = self.records.get(task.name)
        if record is None or record.get("status") != "done" or task.job is None:
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
