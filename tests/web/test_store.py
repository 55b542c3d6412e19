"""The store: sudden deaths, full disks, wrong clocks, and what goes first when there is too much."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paintback.web.store import NoRoomError, Store, writing

MONTH = 31 * 86400.0


class Times:
    """The two clocks of a computer, which the test moves."""

    def __init__(self) -> None:
        self.up, self.wall = 1000.0, 1.8e9

    def pass_(self, seconds: float) -> None:
        self.up += seconds
        self.wall += seconds

    def open(self, folder: Path) -> Store:
        return Store(folder, monotonic=lambda: self.up, wall=lambda: self.wall)


@pytest.fixture
def times() -> Times:
    return Times()


def send(store: Store, data: bytes, name: str = "a") -> str:
    return store.add_picture(data, kind="upload", name=name, size=(1, 1), media="image/png")


def ask(store: Store, photo: str, mask: str | None = None) -> str:
    return store.add_job({"photo": photo, "mask": mask, "samples": 1}, "me", most=99, most_per_client=99)


def paint(store: Store, job: str, data: bytes) -> str:
    """Runs the job, which is the oldest that waits; the picture that came of it."""
    assert store.claim()["id"] == job
    made = store.add_picture(data, kind="output", name="made", size=(1, 1), media="image/png")
    store.add_output(job, 1, made, 0, {})
    store.finish(job, "done")
    return made


def kept(store: Store) -> list[bytes]:
    return sorted(path.read_bytes() for path in store.files.iterdir())


def test_after_a_sudden_death(tmp_path: Path, times: Times) -> None:
    store = times.open(tmp_path)
    picture = send(store, b"1")
    ran, stopping, waits = (ask(store, picture) for _ in range(3))
    assert store.claim()["id"] == ran
    store.add_output(ran, 1, store.add_picture(b"2", kind="output", name="b", size=(1, 1), media="image/png"), 0, {})
    lost = store.add_picture(b"3", kind="output", name="c", size=(1, 1), media="image/png")  # its row never came
    with pytest.raises(Exception, match="UNIQUE"):
        store.add_output(ran, 1, lost, 0, {})
    assert store.claim()["id"] == stopping
    assert store.stop(stopping) == "running" and store.stopping(stopping)
    (store.files / "half.part").write_bytes(b"4")
    store.close()
    store = times.open(tmp_path)
    assert [store.job(job)["state"] for job in (ran, stopping, waits)] == ["waiting", "stopped", "waiting"]
    assert store.picture(lost) is None and kept(store) == [b"1", b"2"]
    for _ in range(4):  # it is what kills the server
        assert store.claim()["id"] == ran
        store.close()
        store = times.open(tmp_path)
    assert store.job(ran)["state"] == "failed" and "died" in store.job(ran)["error"]
    times.pass_(3601)
    store.purge(days=0, most_bytes=10**9)
    assert store.job(ran) is None and store.job(waits)["state"] == "waiting"
    assert store.picture(picture) is not None  # the waiting job needs it
    store.stop(waits)
    times.pass_(3601)
    store.purge(days=0, most_bytes=10**9)
    assert store.jobs() == [] and list(store.files.iterdir()) == []
    store.close()


def test_equal_uploads_are_stored_once(tmp_path: Path, times: Times) -> None:
    store = times.open(tmp_path)
    first = send(store, b"x" * 1000)
    assert send(store, b"x" * 1000) == first  # what it is called is the same too
    part = store.files / "upload.part"
    part.write_bytes(b"x" * 1000)
    other = store.add_picture(part, kind="upload", name="b", size=(1, 1), media="image/png")
    assert other != first and store.picture(other)["name"] == "b"
    assert store.path(other) == store.path(first) and store.path(other).read_bytes() == b"x" * 1000
    part.unlink()  # as the server does with what it received
    assert store.stored_bytes() == 1000 and kept(store) == [b"x" * 1000]
    result = paint(store, ask(store, first), b"x" * 1000)  # a result is a file of its own, whatever is in it
    assert store.path(result) != store.path(first)
    store.close()
    store = times.open(tmp_path)
    times.pass_(7200)
    store.purge(days=30, most_bytes=0)
    assert kept(store) == []
    again = send(store, b"x" * 1000)
    assert store.path(again).read_bytes() == b"x" * 1000
    store.close()


def test_uploads_that_nobody_needs_go_before_results(tmp_path: Path, times: Times) -> None:
    store = times.open(tmp_path)
    photo = send(store, b"p" * 100)
    old = ask(store, photo)
    result = paint(store, old, b"r" * 100)
    for k in range(20):
        send(store, bytes([k]) * 100, f"mask-{k}")
    store.purge(days=30, most_bytes=500)
    assert len(kept(store)) == 22  # nothing of the last hour goes, however much it is
    times.pass_(3500)
    new = ask(store, photo)
    late = paint(store, new, b"s" * 100)
    store.purge(days=30, most_bytes=500)
    assert len(kept(store)) == 23
    times.pass_(200)
    store.purge(days=30, most_bytes=500)
    assert store.stored_bytes() == 500  # the oldest uploads went, and only as many as had to
    assert store.job(old)["state"] == store.job(new)["state"] == "done"
    assert {store.path(one).read_bytes()[:1] for one in (photo, result, late)} == {b"p", b"r", b"s"}
    store.purge(days=30, most_bytes=250)
    assert store.job(old) is None and store.job(new)["state"] == "done"  # then the oldest job of more than an hour
    assert kept(store) == [b"p" * 100, b"s" * 100]  # and nothing of the other one's
    store.purge(days=30, most_bytes=0)
    assert store.job(new)["state"] == "done" and len(kept(store)) == 2
    store.close()


def test_a_result_that_another_job_paints_in_stays(tmp_path: Path, times: Times) -> None:
    store = times.open(tmp_path)
    first = ask(store, send(store, b"p"))
    result = paint(store, first, b"r")
    second = ask(store, result)
    assert store.remove_job(first)
    assert store.path(result).read_bytes() == b"r" and store.picture(result)["kind"] == "upload"
    store.close()
    store = times.open(tmp_path)
    assert store.path(result).read_bytes() == b"r"
    store.stop(second)
    times.pass_(4000)
    store.purge(days=0, most_bytes=10**9)
    assert kept(store) == []
    with pytest.raises(ValueError, match="not here any more"):
        ask(store, result)
    store.close()


def test_a_result_stays_though_a_job_comes_to_it_as_its_own_is_removed(tmp_path: Path, times: Times) -> None:
    store = times.open(tmp_path)
    first = ask(store, send(store, b"p"))
    result = paint(store, first, b"r")
    asking = threading.Thread(target=lambda: came.append(outcome(lambda: ask(store, result))))
    came: list[str] = []
    uses = store._uses

    def look() -> Any:
        found = uses()
        asking.start()
        asking.join(0.2)  # it waits
        return found

    store._uses = look
    assert store.remove_job(first)
    asking.join()
    assert came == ["The picture is not here any more; send it again."] and store.picture(result) is None
    assert [job["request"]["photo"] for job in store.jobs()] == []
    store.close()


def outcome(work: Callable[[], str]) -> str:
    try:
        return work()
    except ValueError as error:
        return str(error)


def test_a_job_of_a_version_with_more_entries_is_shown(tmp_path: Path, times: Times) -> None:
    from paintback.web.schemas import job_view

    store = times.open(tmp_path)
    photo = send(store, b"p")
    new = store.add_job({"photo": photo, "warmth": 0.5}, "me", most=9, most_per_client=9)
    assert job_view(store.job(new)).request.photo == photo
    store.close()


@pytest.mark.parametrize("seed", range(15))
def test_any_purge_takes_uploads_first_and_nothing_of_the_last_hour(tmp_path: Path, times: Times, seed: int) -> None:
    """Random uploads, jobs, hours, restarts and wrong clocks between purges of random sizes."""
    rng = random.Random(seed)
    store = times.open(tmp_path)
    sent: dict[str, float] = {}  # when each picture was sent last, by the clock that does not jump
    jobs: dict[str, tuple[float, str, str]] = {}  # when each ended, its photo and its result
    purged = 0
    for _ in range(60):
        do = rng.choice(["send", "send", "send", "paint", "wait", "purge", "restart", "jump"])
        if do == "send":
            sent[send(store, bytes([rng.randrange(40)]) * rng.randrange(1, 99), f"{rng.randrange(3)}")] = times.up
        elif do == "paint" and (here := [one for one in sent if store.picture(one) is not None]):
            photo = rng.choice(here)
            job = ask(store, photo)
            made = paint(store, job, bytes(rng.randrange(1, 99)))
            jobs[job] = times.up, photo, made
        elif do == "wait":
            times.pass_(rng.choice([60, 1200, 3000, 4000]))
        elif do == "jump":
            times.wall += rng.choice([-MONTH, MONTH, 3600.0])
        elif do == "restart":
            store.close()
            store = times.open(tmp_path)
        elif do == "purge":
            before = {one for one in jobs if store.job(one) is not None}
            used = {jobs[one][1] for one in before}
            idle = {one for one in sent if store.picture(one) is not None and one not in used}
            most = rng.choice([0, 100, 400, 10**9])
            store.purge(days=3650, most_bytes=most)
            purged += 1
            gone = {one for one in before if store.job(one) is None}
            for one in gone | {one for one in idle if store.picture(one) is None}:
                assert times.up - (jobs[one][0] if one in jobs else sent[one]) >= 3600
            for job in before - gone:
                _, photo, made = jobs[job]
                assert store.path(photo).exists() and store.path(made).exists()
            if gone:  # only once no upload was left that nobody needs
                assert not [one for one in idle if store.picture(one) is not None and times.up - sent[one] > 3700]
            if most == 10**9:
                assert not gone
    assert purged
    store.close()


@pytest.mark.parametrize("jump", [MONTH, -MONTH, 20 * 365 * 86400.0])
def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, times: Times, jump: float) -> None:
    store = times.open(tmp_path)
    job = ask(store, send(store, b"p"))
    paint(store, job, b"r")
    times.pass_(300)
    store.purge(days=30, most_bytes=10**9)
    times.wall += jump  # while it runs
    store.purge(days=30, most_bytes=0)
    assert store.job(job) is not None and len(kept(store)) == 2
    store.close()
    times.wall += jump  # between two runs
    store = times.open(tmp_path)
    store.purge(days=30, most_bytes=0)  # what is of the last hour stays so, though the clock says a month
    assert store.job(job) is not None
    times.pass_(3601)
    store.purge(days=30, most_bytes=10**9)
    assert store.job(job) is not None  # a month off is a day at most
    for _ in range(30):
        store.close()
        times.wall += 86400
        store = times.open(tmp_path)
    times.pass_(3601)
    store.purge(days=30, most_bytes=10**9)
    assert store.job(job) is None and kept(store) == []  # a day off every day is a month
    store.close()


def test_a_folder_of_an_earlier_version(tmp_path: Path, times: Times) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0123").write_bytes(b"p")
    with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
        db.executescript(
            """
            CREATE TABLE pictures (
                id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, width INTEGER NOT NULL,
                height INTEGER NOT NULL, bytes INTEGER NOT NULL, media TEXT NOT NULL, about TEXT NOT NULL,
                created REAL NOT NULL);
            CREATE TABLE jobs (
                number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, client TEXT NOT NULL,
                state TEXT NOT NULL, request TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL,
                attempts INTEGER NOT NULL DEFAULT 0, stopping INTEGER NOT NULL DEFAULT 0, error TEXT, spread TEXT,
                spread_largest REAL);
            INSERT INTO pictures VALUES ('0123', 'upload', 'p.png', 1, 1, 1, 'image/png', '{}', 5);
            INSERT INTO jobs (id, client, state, request, created)
                VALUES ('4567', 'me', 'waiting', '{"photo": "0123", "mask": null, "samples": 1}', 5);
            """
        )
    db.close()
    store = times.open(tmp_path)
    store.purge(days=0, most_bytes=0)
    assert store.path("0123").read_bytes() == b"p" and store.claim()["id"] == "4567"
    store.finish("4567", "done")
    times.pass_(3601)
    store.purge(days=0, most_bytes=0)
    assert kept(store) == []
    store.close()


@pytest.fixture(params=["a real one", "an injected one"])
def disk(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A small disk, and how to fill it and make room: one that the system mounts, or errors where files are written."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "a real one":
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True
        )
        if mounted.returncode:
            pytest.skip(f"This user may mount nothing: {mounted.stderr.strip()}")

        class Disk:
            def fill(self, store: Store) -> None:
                with (folder / "ballast").open("wb", buffering=0) as file:
                    try:
                        while True:
                            file.write(bytes(4096))
                    except OSError:
                        assert shutil.disk_usage(folder).free == 0

            def free(self, store: Store) -> None:
                (folder / "ballast").unlink()

        disk = Disk()
    else:
        full = False
        fsync = os.fsync

        def sync(descriptor: int) -> None:
            if full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", sync)

        class Injected:
            def fill(self, store: Store) -> None:
                nonlocal full
                full = True
                store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                pages = store._db.execute("PRAGMA page_count").fetchone()[0]
                store._db.execute(f"PRAGMA max_page_count={pages}")

            def free(self, store: Store) -> None:
                nonlocal full
                full = False
                store._db.execute("PRAGMA max_page_count=1000000")

        disk = Injected()
    disk.folder = folder  # type: ignore[attr-defined]
    try:
        yield disk
    finally:
        if request.param == "a real one":
            subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_full_disk_changes_nothing_and_everything_goes_on(disk: Any, times: Times) -> None:
    store = times.open(disk.folder / "data")
    photo = send(store, os.urandom(5000))
    job = ask(store, photo)
    assert store.claim()["id"] == job
    disk.fill(store)
    before = store.jobs(), store.stored_bytes(), len(kept(store))
    with pytest.raises(NoRoomError, match=r"disk is full.*try again\.$"):
        send(store, os.urandom(100_000), "b")
    for _ in range(200):  # a small row may still find a place in a file that is there
        try:
            ask(store, photo)
        except NoRoomError:
            break
        before = store.jobs(), store.stored_bytes(), len(kept(store))
    else:
        raise AssertionError("it is not full")
    with pytest.raises(NoRoomError):
        store.finish(job, "failed", "x" * 200_000)
    assert store.stop(job) == "running" and store.stopping(job)  # though it cannot be written down
    assert (store.jobs(), store.stored_bytes(), len(kept(store))) == before or store.job(job)["stopping"]
    disk.free(store)
    store.finish(job, "done")
    assert store.job(job)["state"] == "done"
    more = send(store, os.urandom(100_000), "b")
    assert store.path(more).stat().st_size == 100_000
    waits = len([one for one in store.jobs(999) if one["state"] == "waiting"])
    store.close()
    store = times.open(disk.folder / "data")
    assert store.job(job)["state"] == "done" and len(kept(store)) == 2
    assert len([one for one in store.jobs(999) if one["state"] == "waiting"]) == waits
    store.close()


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, times: Times) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"This user may mount nothing: {mounted.stderr.strip()}")
    try:
        store = times.open(folder / "data")
        photo = send(store, b"p")
        job = ask(store, photo)
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        with pytest.raises(NoRoomError, match=r"cannot be written to.*try again\.$"), writing():
            (folder / "data" / "pictures" / "x").write_bytes(b"1")
        with pytest.raises(NoRoomError):
            send(store, b"q")
        store.close()
        with pytest.raises(ValueError, match=r"--data .* cannot be written to"):
            times.open(folder / "data")
        with pytest.raises(ValueError, match=r"--data .* cannot be written to"):
            times.open(folder / "another")
        subprocess.run(["umount", "-l", str(folder)], check=True)
        store = times.open(folder / "data")
        assert store.path(photo).read_bytes() == b"p" and store.job(job)["state"] == "waiting"
        store.close()
    finally:
        while subprocess.run(["umount", "-l", str(folder)], capture_output=True).returncode == 0:
            pass


def test_data_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "within"):
        with pytest.raises(ValueError, match=r"is or lies in a file; give a folder\.$"):
            Store(path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "jobs.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ValueError, match=r"jobs\.sqlite' cannot be used .*not a database.*give another --data\.$"):
        Store(tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken")
    Store(tmp_path / "broken").close()  # the lock was let go
