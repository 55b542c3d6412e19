"""Jobs and pictures on the disk: an SQLite database in WAL mode, and files of pictures under random names.

Every change is one transaction, so that a server killed at any moment starts again where it was: a job that was running
waits again, and the samples it had finished are kept. A picture's file is complete before its row is written; files
without a row are swept up at the start. Equal uploads share a file.

How old something is, is told by a clock of the store's own (see `_Clock`), so that a wrong date removes nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

__all__ = ["FINISHED", "NoRoomError", "QueueFullError", "State", "Store", "new_id", "writing"]

State = Literal["waiting", "running", "done", "failed", "stopped"]
FINISHED = frozenset({"done", "failed", "stopped"})
ATTEMPTS = 5  # a job that was running at so many deaths of the server is taken to be their cause
HOUR = 3600.0
DAY = 24 * HOUR
FULL = {errno.ENOSPC, errno.EDQUOT}
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
SCHEMA = """
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), at REAL NOT NULL, wall REAL NOT NULL);
CREATE TABLE IF NOT EXISTS speeds (model TEXT PRIMARY KEY, seconds REAL NOT NULL);
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


LATER = (("pictures", "file", "TEXT"), ("pictures", "sha256", "TEXT"), ("pictures", "aged", "REAL"),
         ("jobs", "aged", "REAL"))  # fmt: skip


class QueueFullError(RuntimeError):
    """The queue takes no more; the message says whose limit it is."""


class NoRoomError(RuntimeError):
    """The folder is full or cannot be written to; nothing was changed."""


@contextmanager
def writing() -> Iterator[None]:
    """Around whatever writes to the folder.

    Raises:
        NoRoomError: where the disk is full or read-only.
    """
    full = "The server's disk is full; make room on it and try again."
    closed = "The server's folder cannot be written to; look at its permissions and try again."
    try:
        yield
    except OSError as error:
        if error.errno in FULL | CLOSED:
            raise NoRoomError(full if error.errno in FULL else closed) from error
        raise
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise NoRoomError(full) from error
        if any(word in str(error) for word in ("readonly", "unable to open", "disk I/O")):
            raise NoRoomError(closed) from error
        raise


class _Clock:
    """Seconds of the store's own, which never go back and never jump.

    They pass as the server runs. The time between two runs counts by the computer's clock, but as a day at most, and
    things of the last hour of a run are of the last hour for an hour of the next one: a clock that is wrong by a month
    makes nothing a month older.

    Args:
        at: of the last run's end.
        wall: what the computer's clock showed then.
        wall_now: what it shows.
        monotonic: seconds since whenever.
    """

    def __init__(self, at: float, wall: float, wall_now: float, monotonic: Callable[[], float]) -> None:
        self._ended, self._monotonic, self._start = at, monotonic, monotonic()
        self._begun = at + min(max(wall_now - wall, 0.0), DAY)

    def now(self) -> float:
        """The present time."""
        return self._begun + self._monotonic() - self._start

    def an_hour_ago(self) -> float:
        """What is older than this is older than an hour, however long the server was off."""
        up = self._monotonic() - self._start
        return self.now() - HOUR if up > HOUR else self._ended - (HOUR - up)


def new_id() -> str:
    """32 hexadecimal digits that nobody guesses."""
    return secrets.token_hex(16)


class Store:
    """The data folder of one server.

    Args:
        folder: made if it is not there.
        monotonic: seconds since whenever, for tests.
        wall: seconds since 1970, likewise.

    Attributes:
        version: grows with every change of a job; who follows a job looks at it before asking again.

    Raises:
        ValueError: if the folder is none, cannot be written to, is damaged, or another server uses it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.files = folder, folder / "pictures"
        self._wall = wall
        self._lock = threading.RLock()
        self._stops: set[str] = set()
        self.version = 0
        try:
            self.files.mkdir(parents=True, exist_ok=True)
            os.chmod(folder, 0o700)
            self._guard = _lock(folder / "lock")
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"--data {str(folder)!r} is or lies in a file; give a folder.") from None
        except OSError as error:
            raise ValueError(f"--data {str(folder)!r} cannot be written to ({error.strerror}); give another.") from None
        try:
            self._db = self._open()
            self._clock = self._read_clock(monotonic)
            self._recover()
        except BaseException as error:
            os.close(self._guard)
            if isinstance(error, sqlite3.DatabaseError | NoRoomError):
                raise ValueError(
                    f"{str(folder / 'jobs.sqlite')!r} cannot be used ({error}); mend or move it away, or give another "
                    "--data."
                ) from None
            raise

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.folder / "jobs.sqlite", check_same_thread=False, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(SCHEMA)
        for table, column, kind in LATER:  # of folders that an earlier version made
            if column not in {row["name"] for row in db.execute(f"PRAGMA table_info({table})")}:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        return db

    def _read_clock(self, monotonic: Callable[[], float]) -> _Clock:
        saved = self._one("SELECT at, wall FROM clock") or {"at": 0.0, "wall": self._wall()}
        ages = "SELECT max(aged) AS latest FROM (SELECT aged FROM pictures UNION ALL SELECT aged FROM jobs)"
        latest = max(saved["at"], self._all(ages)[0]["latest"] or 0.0)
        clock = _Clock(latest, saved["wall"], self._wall(), monotonic)
        with self._change() as db:
            for table in ("pictures", "jobs"):
                db.execute(f"UPDATE {table} SET aged=? WHERE aged IS NULL", (clock.now(),))
        return clock

    def close(self) -> None:
        """Closes the database and lets the folder go."""
        with suppress(NoRoomError):
            self._save_clock()
        with self._lock:
            self._db.close()
        os.close(self._guard)

    def _save_clock(self) -> None:
        with self._change() as db:
            db.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?)", (self._clock.now(), self._wall()))

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock, writing():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have rolled it back already
                    self._db.execute("ROLLBACK")
                raise
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
            now = self._wall(), self._clock.now()
            db.execute("UPDATE jobs SET state='stopped', finished=?, aged=? WHERE state='running' AND stopping", now)
            db.execute(
                "UPDATE jobs SET state='failed', finished=?, aged=?, error=? WHERE state='running' AND attempts>=?",
                (*now, f"The server died {ATTEMPTS} times while this was painted; try a smaller one.", ATTEMPTS),
            )
            db.execute("UPDATE jobs SET state='waiting' WHERE state='running'")
            db.execute(
                "DELETE FROM pictures WHERE kind != 'upload' AND id NOT IN (SELECT picture FROM outputs) "
                "AND id NOT IN (SELECT spread FROM jobs WHERE spread IS NOT NULL)"
            )
        known = {row["file"] for row in self._all("SELECT coalesce(file, id) AS file FROM pictures")}
        for path in self.files.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)

    # pictures

    def path(self, picture: str) -> Path:
        """Where a picture lies; the name comes from the database and never from a request."""
        row = self._one("SELECT file FROM pictures WHERE id=?", picture)
        return self.files / ((row and row["file"]) or picture)

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
        """Keeps a picture. An upload of bytes that are here already is stored once; under the same name it is the same.

        Args:
            data: the bytes of the file, or the path of a file in `files`, which is renamed.
            kind: upload, output or spread.
            name: for people.
            size: (width, height).
            media: its media type.
            about: whatever else is to be known of it.

        Raises:
            NoRoomError: where the disk is full or read-only.
        """
        new = new_id()
        path = self.files / new
        with writing():
            try:
                if isinstance(data, Path):
                    sha, length = _sha256(data), data.stat().st_size
                    with data.open("rb") as file:
                        os.fsync(file.fileno())
                else:
                    sha, length = hashlib.sha256(data).hexdigest(), len(data)
                    with path.open("xb") as file:  # what is half written has no row and goes
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                with self._change() as db:
                    twin = self._twin(sha, name) if kind == "upload" else None
                    if twin is not None and twin["name"] == name:
                        db.execute("UPDATE pictures SET aged=? WHERE id=?", (self._clock.now(), twin["id"]))
                        path.unlink(missing_ok=True)
                        return str(twin["id"])
                    if isinstance(data, Path) and twin is None:
                        os.replace(data, path)
                    row = {
                        "id": new, "kind": kind, "name": name, "width": size[0], "height": size[1], "bytes": length,
                        "media": media, "about": json.dumps(about or {}), "created": self._wall(), "sha256": sha,
                        "file": new if twin is None else twin["file"], "aged": self._clock.now(),
                    }  # fmt: skip
                    marks = ", ".join("?" * len(row))
                    db.execute(f"INSERT INTO pictures ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
            except BaseException:
                path.unlink(missing_ok=True)  # what has no row would take room until the next start
                raise
        if row["file"] != new:
            path.unlink(missing_ok=True)
        return new

    def _twin(self, sha: str, name: str) -> dict[str, Any] | None:
        """An upload of the same bytes, best of the same name."""
        columns = "id, name, coalesce(file, id) AS file"
        query = f"SELECT {columns} FROM pictures WHERE kind='upload' AND sha256=? ORDER BY name!=?"
        return next((row for row in self._all(query, sha, name) if (self.files / row["file"]).is_file()), None)

    def discard(self, picture: str) -> None:
        """Removes a picture that nothing came to need, where the disk lets that be written down."""
        with suppress(NoRoomError):  # the next start sweeps it up
            self._remove_pictures([picture])

    def _remove_pictures(self, pictures: Iterable[str]) -> None:
        """Removes rows, and the files that no other row needs."""
        with self._lock:  # nobody may come to share a file that is about to go
            gone = [(picture, self.path(picture)) for picture in pictures]
            with self._change() as db:
                db.executemany("DELETE FROM pictures WHERE id=?", [(picture,) for picture, _ in gone])
            for _, path in gone:
                if self._one("SELECT 1 FROM pictures WHERE coalesce(file, id)=?", path.name) is None:
                    path.unlink(missing_ok=True)

    def stored_bytes(self) -> int:
        """Bytes of all pictures."""
        query = "SELECT sum(bytes) AS n FROM (SELECT max(bytes) AS bytes FROM pictures GROUP BY coalesce(file, id))"
        return int(self._all(query)[0]["n"] or 0)

    def spare_bytes(self) -> int:
        """Bytes that are left on the disk."""
        return shutil.disk_usage(self.folder).free

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
            ValueError: if a picture is gone.
        """
        new, now = new_id(), self._clock.now()
        with self._change() as db:
            for picture in _pictures_of(request):
                if not db.execute("UPDATE pictures SET aged=? WHERE id=?", (now, picture)).rowcount:
                    raise ValueError("The picture is not here any more; send it again.")
            alive = "SELECT count(*) FROM jobs WHERE state IN ('waiting', 'running')"
            if db.execute(alive).fetchone()[0] >= most:
                raise QueueFullError(f"There are {most} jobs in the queue, which is all it holds; try again later.")
            if db.execute(f"{alive} AND client=?", (client,)).fetchone()[0] >= most_per_client:
                raise QueueFullError(
                    f"You have {most_per_client} jobs in the queue, which is all one client may have; wait."
                )
            db.execute(
                "INSERT INTO jobs (id, client, state, request, created, aged) VALUES (?,?,'waiting',?,?,?)",
                (new, client, json.dumps(request), self._wall(), now),
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
                "UPDATE jobs SET state='running', started=?, attempts=attempts+1 WHERE id=?", (self._wall(), row["id"])
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
                "UPDATE jobs SET state=?, finished=?, error=?, spread=?, spread_largest=?, aged=? WHERE id=?",
                (state, self._wall(), error, *(spread or (None, None)), self._clock.now(), job),
            )
        self._stops.discard(job)

    def speed(self, model: str, method: str | None = None) -> float | None:
        """Seconds that a model took for a unit of work when it last ran, with this method if it ever did, or None."""
        for name in (f"{model} {method}", model):
            row = self._one("SELECT seconds FROM speeds WHERE model=?", name)
            if row is not None:
                return float(row["seconds"])
        return None

    def learn(self, model: str, seconds: float, method: str | None = None) -> None:
        """Remembers what a unit of work took; a machine that was busy for a while is forgiven soon."""
        known = {name: self.speed(name) for name in (model, *(() if method is None else (f"{model} {method}",)))}
        with self._change() as db:
            for name, before in known.items():
                now = seconds if before is None else min(seconds, 1.25 * before)
                db.execute("INSERT OR REPLACE INTO speeds VALUES (?,?)", (name, now))

    def add_output(self, job: str, number: int, picture: str, seed: int, about: dict[str, Any]) -> None:
        """A sample is there. A second one of the same number is refused by the database."""
        with self._change() as db:
            db.execute("INSERT INTO outputs VALUES (?,?,?,?,?)", (job, number, picture, seed, json.dumps(about)))

    def stop(self, job: str) -> State | None:
        """Asks a job to stop; one that waits has stopped. Returns its state, None where there is no such job.

        A job that runs stops even where the disk is too full to write that down.
        """
        row = self._one("SELECT state FROM jobs WHERE id=?", job)
        if row is None:
            return None
        if row["state"] == "running":
            self._stops.add(job)
        try:
            with self._change() as db:
                values = (self._wall(), self._clock.now(), job)
                db.execute("UPDATE jobs SET stopping=1 WHERE id=? AND state='running'", (job,))
                db.execute("UPDATE jobs SET state='stopped', finished=?, aged=? WHERE id=? AND state='waiting'", values)
                if db.execute("SELECT 1 FROM jobs WHERE id=? AND stopping AND state='running'", (job,)).fetchone():
                    self._stops.add(job)  # it began between the two looks
        except NoRoomError:
            if job not in self._stops:
                raise
        row = self._one("SELECT state FROM jobs WHERE id=?", job)
        return None if row is None else row["state"]

    def stopping(self, job: str) -> bool:
        """Whether somebody asked a running job to stop."""
        return job in self._stops

    def job(self, job: str) -> dict[str, Any] | None:
        """A job with its outputs and its place in the queue, or None."""
        row = self._one("SELECT * FROM jobs WHERE id=?", job)
        return None if row is None else self._with_outputs(row)

    def jobs(self, most: int = 50, before: str | None = None) -> list[dict[str, Any]]:
        """The newest jobs, newest first; with `before`, those that were asked for before that one."""
        query = "SELECT * FROM jobs WHERE number < coalesce((SELECT number FROM jobs WHERE id=?), 1 << 62)"
        rows = self._all(f"{query} ORDER BY number DESC LIMIT ?", before, most)
        return [self._with_outputs(row) for row in rows]

    def alive(self) -> int:
        """How many jobs wait or run."""
        return int(self._all("SELECT count(*) AS n FROM jobs WHERE state IN ('waiting', 'running')")[0]["n"])

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
        """Removes a finished job and its results; False where it has not ended.

        A result that another job paints in is kept, as if it had been sent.
        """
        row = self.job(job)
        if row is None or row["state"] not in FINISHED:
            return False
        with self._lock:  # no job may come to use one of its results meanwhile
            with self._change() as db:
                db.execute("DELETE FROM outputs WHERE job=?", (job,))
                db.execute("DELETE FROM jobs WHERE id=?", (job,))
            uses = self._uses()
            pictures = [output["picture"] for output in row["outputs"]] + [row["spread"]] * (row["spread"] is not None)
            kept = [picture for picture in pictures if uses[picture]]
            if kept:
                with self._change() as db:
                    db.executemany("UPDATE pictures SET kind='upload' WHERE id=?", [(picture,) for picture in kept])
            self._remove_pictures([picture for picture in pictures if not uses[picture]])
        return True

    def _uses(self) -> Counter[str]:
        """How many jobs paint in a picture or take it as their mask."""
        return Counter(
            picture
            for row in self._all("SELECT request FROM jobs")
            for picture in _pictures_of(json.loads(row["request"]))
        )

    def purge(self, days: float, most_bytes: int) -> None:
        """Removes what is old, and the oldest beyond a size: first uploads that no job needs, then finished jobs.

        Nothing of the last hour goes.

        Args:
            days: after which things are old.
            most_bytes: of all pictures.
        """
        self._save_clock()
        old, recent = self._clock.now() - days * DAY, self._clock.an_hour_ago()

        def sweep() -> None:
            sent = "SELECT id, aged FROM pictures WHERE kind='upload' AND aged<? ORDER BY aged"
            with self._lock:  # no job may come to use one of them meanwhile
                uses = self._uses()
                for row in self._all(sent, recent):
                    if not uses[row["id"]] and (row["aged"] < old or self.stored_bytes() > most_bytes):
                        self._remove_pictures([row["id"]])

        sweep()
        finished = "SELECT id, aged FROM jobs WHERE state IN ('done', 'failed', 'stopped') AND aged<? ORDER BY number"
        for row in self._all(finished, recent):
            if row["aged"] < old or self.stored_bytes() > most_bytes:
                self.remove_job(row["id"])
                sweep()


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


def _pictures_of(request: dict[str, Any]) -> list[str]:
    named = (request["photo"], request.get("mask"), *(request.get("reference_images") or ()))
    return [picture for picture in named if picture not in (None, "alpha")]


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
