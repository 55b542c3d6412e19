"""Jobs and pictures on the disk: an SQLite database in WAL mode, and one file per picture under a random name.

Every change is one transaction, so that a server killed at any moment starts again where it was: a job that was running
waits again, and the samples it had finished are kept. A picture's file is complete before its row is written; files
without a row are swept up at the start.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from paintback.images.encoding import write_whole

__all__ = ["FINISHED", "QueueFullError", "State", "Store", "new_id"]

State = Literal["waiting", "running", "done", "failed", "stopped"]
FINISHED = frozenset({"done", "failed", "stopped"})
ATTEMPTS = 5  # a job that was running at so many deaths of the server is taken to be their cause
SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    bytes INTEGER NOT NULL, media TEXT NOT NULL, about TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, client TEXT NOT NULL, state TEXT NOT NULL,
    request TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL, attempts INTEGER NOT NULL DEFAULT 0,
    stopping INTEGER NOT NULL DEFAULT 0, error TEXT, spread TEXT, spread_largest REAL);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
CREATE TABLE IF NOT EXISTS outputs (
    job TEXT NOT NULL, number INTEGER NOT NULL, picture TEXT NOT NULL, seed INTEGER NOT NULL, about TEXT NOT NULL,
    PRIMARY KEY (job, number));
"""


class QueueFullError(RuntimeError):
    """The queue takes no more; the message says whose limit it is."""


def new_id() -> str:
    """32 hexadecimal digits that nobody guesses."""
    return secrets.token_hex(16)


class Store:
    """The data folder of one server.

    Args:
        folder: made if it is not there.

    Attributes:
        version: grows with every change of a job; who follows a job looks at it before asking again.

    Raises:
        ValueError: if another server uses the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "pictures"
        self.files.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
        self._guard = _lock(folder / "lock")
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / "jobs.sqlite", check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(SCHEMA)
        self.version = 0
        self._recover()

    def close(self) -> None:
        """Closes the database and lets the folder go."""
        with self._lock:
            self._db.close()
        os.close(self._guard)

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            self.version += 1

    def _all(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(row) for row in self._db.execute(query, values)]

    def _one(self, query: str, *values: Any) -> dict[str, Any] | None:
        rows = self._all(query, *values)
        return rows[0] if rows else None

    def _recover(self) -> None:
        """After a death: what ran waits again, and files that nobody knows go."""
        with self._change() as db:
            db.execute("UPDATE jobs SET state='stopped', finished=? WHERE state='running' AND stopping", (time.time(),))
            db.execute(
                "UPDATE jobs SET state='failed', finished=?, error=? WHERE state='running' AND attempts>=?",
                (time.time(), f"The server died {ATTEMPTS} times while this was painted; try a smaller one.", ATTEMPTS),
            )
            db.execute("UPDATE jobs SET state='waiting' WHERE state='running'")
            db.execute(
                "DELETE FROM pictures WHERE kind != 'upload' AND id NOT IN (SELECT picture FROM outputs) "
                "AND id NOT IN (SELECT spread FROM jobs WHERE spread IS NOT NULL)"
            )
        known = {row["id"] for row in self._all("SELECT id FROM pictures")}
        for path in self.files.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)

    # pictures

    def path(self, picture: str) -> Path:
        """Where a picture lies; the id comes from the database and never from a request."""
        return self.files / picture

    def picture(self, picture: str) -> dict[str, Any] | None:
        """A picture's row, or None."""
        row = self._one("SELECT * FROM pictures WHERE id=?", picture)
        return None if row is None else {**row, "about": json.loads(row["about"])}

    def add_picture(
        self,
        data: bytes | Path,
        *,
        kind: str,
        name: str,
        size: tuple[int, int],
        media: str,
        about: dict[str, Any] | None = None,
    ) -> str:
        """Keeps a picture.

        Args:
            data: the bytes of the file, or the path of a file in `files`, which is renamed.
            kind: upload, output or spread.
            name: for people.
            size: (width, height).
            media: its media type.
            about: whatever else is to be known of it.
        """
        new = new_id()
        path = self.path(new)
        if isinstance(data, Path):
            with data.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(data, path)
        else:
            write_whole(data, path)
        with self._change() as db:
            db.execute(
                "INSERT INTO pictures VALUES (?,?,?,?,?,?,?,?,?)",
                (new, kind, name, *size, path.stat().st_size, media, json.dumps(about or {}), time.time()),
            )
        return new

    # jobs

    def add_job(self, request: dict[str, Any], client: str, *, most: int, most_per_client: int) -> str:
        """Puts a job into the queue.

        Args:
            request: its JSON.
            client: who asks.
            most: jobs that may wait.
            most_per_client: of one client.

        Raises:
            QueueFullError: if there are as many already.
        """
        new = new_id()
        with self._change() as db:
            alive = "SELECT count(*) FROM jobs WHERE state IN ('waiting', 'running')"
            if db.execute(alive).fetchone()[0] >= most:
                raise QueueFullError(f"There are {most} jobs in the queue, which is all it holds; try again later.")
            if db.execute(f"{alive} AND client=?", (client,)).fetchone()[0] >= most_per_client:
                raise QueueFullError(
                    f"You have {most_per_client} jobs in the queue, which is all one client may have; wait."
                )
            db.execute(
                "INSERT INTO jobs (id, client, state, request, created) VALUES (?,?,'waiting',?,?)",
                (new, client, json.dumps(request), time.time()),
            )
        return new

    def claim(self) -> dict[str, Any] | None:
        """The oldest waiting job, which is running from now on; None where none waits."""
        if self._one("SELECT 1 FROM jobs WHERE state='waiting' LIMIT 1") is None:
            return None
        with self._change() as db:
            row = db.execute("SELECT id FROM jobs WHERE state='waiting' ORDER BY number LIMIT 1").fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET state='running', started=?, attempts=attempts+1 WHERE id=?", (time.time(), row["id"])
            )
        return self.job(row["id"])

    def release(self, job: str) -> None:
        """A running job waits again, and the attempt does not count."""
        with self._change() as db:
            db.execute("UPDATE jobs SET state='waiting', attempts=attempts-1 WHERE id=? AND state='running'", (job,))

    def finish(self, job: str, state: State, error: str | None = None, spread: tuple[str, float] | None = None) -> None:
        """A running job has ended."""
        with self._change() as db:
            db.execute(
                "UPDATE jobs SET state=?, finished=?, error=?, spread=?, spread_largest=? WHERE id=?",
                (state, time.time(), error, *(spread or (None, None)), job),
            )

    def add_output(self, job: str, number: int, picture: str, seed: int, about: dict[str, Any]) -> None:
        """A sample is there. A second one of the same number is refused by the database."""
        with self._change() as db:
            db.execute("INSERT INTO outputs VALUES (?,?,?,?,?)", (job, number, picture, seed, json.dumps(about)))

    def stop(self, job: str) -> State | None:
        """Asks a job to stop; one that waits has stopped. Returns its state, None where there is no such job."""
        with self._change() as db:
            db.execute("UPDATE jobs SET stopping=1 WHERE id=? AND state='running'", (job,))
            db.execute("UPDATE jobs SET state='stopped', finished=? WHERE id=? AND state='waiting'", (time.time(), job))
        row = self._one("SELECT state FROM jobs WHERE id=?", job)
        return None if row is None else row["state"]

    def stopping(self, job: str) -> bool:
        """Whether somebody asked a job to stop."""
        return self._one("SELECT 1 FROM jobs WHERE id=? AND stopping", job) is not None

    def job(self, job: str) -> dict[str, Any] | None:
        """A job with its outputs and its place in the queue, or None."""
        row = self._one("SELECT * FROM jobs WHERE id=?", job)
        return None if row is None else self._with_outputs(row)

    def jobs(self, most: int = 50) -> list[dict[str, Any]]:
        """The newest jobs, newest first."""
        return [self._with_outputs(row) for row in self._all("SELECT * FROM jobs ORDER BY number DESC LIMIT ?", most)]

    def _with_outputs(self, row: dict[str, Any]) -> dict[str, Any]:
        outputs = self._all("SELECT number, picture, seed, about FROM outputs WHERE job=? ORDER BY number", row["id"])
        ahead = 0
        if row["state"] == "waiting":
            query = "SELECT count(*) AS n FROM jobs WHERE state='running' OR (state='waiting' AND number<?)"
            ahead = self._all(query, row["number"])[0]["n"]
        return {
            **row,
            "request": json.loads(row["request"]),
            "ahead": ahead,
            "outputs": [{**output, **json.loads(output.pop("about"))} for output in outputs],
        }

    def remove_job(self, job: str) -> bool:
        """Removes a finished job and its results; False where it has not ended."""
        row = self.job(job)
        if row is None or row["state"] not in FINISHED:
            return False
        pictures = [output["picture"] for output in row["outputs"]] + [row["spread"]] * (row["spread"] is not None)
        with self._change() as db:
            db.execute("DELETE FROM outputs WHERE job=?", (job,))
            db.execute("DELETE FROM jobs WHERE id=?", (job,))
            db.executemany("DELETE FROM pictures WHERE id=?", [(picture,) for picture in pictures])
        for picture in pictures:
            self.path(picture).unlink(missing_ok=True)
        return True

    def purge(self, days: float, most_bytes: int) -> None:
        """Removes old finished jobs, the oldest ones beyond a size, and old uploads that no job needs."""
        before = time.time() - days * 86400
        finished = "SELECT id, finished FROM jobs WHERE state IN ('done', 'failed', 'stopped') ORDER BY number"
        for row in self._all(finished):
            stored = self._all("SELECT coalesce(sum(bytes), 0) AS n FROM pictures")[0]["n"]
            if row["finished"] >= before and stored <= most_bytes:
                break
            self.remove_job(row["id"])
        used = {value for row in self._all("SELECT request FROM jobs") for value in json.loads(row["request"]).values()
                if isinstance(value, str)}  # fmt: skip
        for row in self._all("SELECT id FROM pictures WHERE kind='upload' AND created<?", before):
            if row["id"] not in used:
                with self._change() as db:
                    db.execute("DELETE FROM pictures WHERE id=?", (row["id"],))
                self.path(row["id"]).unlink(missing_ok=True)

    def stored_bytes(self) -> int:
        """Bytes of all pictures."""
        return int(self._all("SELECT coalesce(sum(bytes), 0) AS n FROM pictures")[0]["n"])


def _lock(path: Path) -> int:
    """Holds a file as long as this process lives.

    Raises:
        ValueError: if another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ValueError(
            f"Another paintback serve uses {str(path.parent)!r}; stop it, or give another --data."
        ) from None
    return descriptor
