"""The server under pressure: full disks, endless bodies, half-open connections, names and ports that are wrong."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from paintback.resources import Unfit
from paintback.web.config import Config, Limits, Offer
from paintback.web.connections import limited, most_connections
from paintback.web.preview import Progress
from paintback.web.security import Guard
from paintback.web.store import NoRoomError, Store
from paintback.web.worker import Worker
from tests.web.sites import Site, png


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come true")


# a full disk


def test_a_full_disk_is_told_and_then_everything_goes_on(open_site, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:  # test_store fills an injected disk
        pytest.skip(f"This user may mount nothing: {mounted.stderr.strip()}")
    site = None
    try:
        site = open_site(data=folder / "data", limits=Limits(spare_bytes=0))
        given = site.pictures()
        plain = site.wait(site.ask(**given, method="ddnm", steps=3, samples=2, seed=5)["id"])
        running = site.ask(**given, method="ddnm", steps=80, samples=2, seed=5)["id"]
        waits = site.ask(**given, method="ddnm", steps=3, samples=2, seed=5)["id"]
        view = f"/api/jobs/{running}"
        until(lambda: (site.http.get(view).json()["progress"] or {}).get("step"))
        with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        answer = site.send(png(noise), "more.png")
        assert answer.status_code == 507 and answer.headers["content-type"] == "application/json"
        assert answer.json() == {"detail": "The server's disk is full; make room on it and try again."}
        for _ in range(300):  # a small row may still find a place in a file that is there
            answer = site.http.post("/api/jobs", json={**given, "method": "ddnm", "prompt": None})
            if answer.status_code != 201:
                break
        assert answer.status_code == 507 and answer.json()["detail"].startswith("The server's disk is full")
        extra = [job["id"] for job in site.http.get("/api/jobs").json() if job["state"] == "waiting"]
        said = until(lambda: (site.http.get(view).json()["progress"] or {}).get("note"))
        assert "disk is full" in said and "kept until then" in said
        assert site.http.get("/").status_code == 200 and site.http.get(f"/api/pictures/{given['photo']}").is_success

        (folder / "ballast").unlink()
        ended = site.wait(running)
        assert (ended["state"], ended["error"], len(ended["outputs"])) == ("done", None, 2)  # nothing was lost
        again = site.wait(waits)
        assert again["state"] == "done"
        bits = [[site.http.get(f"/api/pictures/{one['picture']}").content for one in job["outputs"]]
                for job in (plain, again)]  # fmt: skip
        assert [np.asarray(Image.open(io.BytesIO(one))).tobytes() for one in bits[0]] == [
            np.asarray(Image.open(io.BytesIO(one))).tobytes() for one in bits[1]
        ]
        assert site.send(png(noise), "more.png").status_code == 201
        for job in extra:
            site.http.post(f"/api/jobs/{job}/stop")

        # long before it is full, what is left is kept for results
        site = open_site(data=folder / "data", limits=Limits(spare_bytes=2**30))
        assert site.http.get(f"/api/jobs/{running}").json()["outputs"] == ended["outputs"]
        for answer in (site.send(png(noise), "more.png"), site.http.post("/api/jobs", json=given)):
            assert answer.status_code == 507 and "nearly full" in answer.json()["detail"]
    finally:
        if site is not None:
            site.http.__exit__(None, None, None)
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_stop_on_a_full_disk(open_site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that runs stops though that cannot be written down, and what was painted is let go."""
    site = open_site(limits=Limits(spare_bytes=0))
    given = site.pictures()
    job = site.ask(**given, method="ddnm", steps=1000)["id"]
    until(lambda: (site.http.get(f"/api/jobs/{job}").json()["progress"] or {}).get("step"))
    store = site.http.app.state.store
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")
    sync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    site.http.post(f"/api/jobs/{job}/stop")
    until(lambda: store.stopping(job) or site.http.get(f"/api/jobs/{job}").json()["state"] == "stopped")
    monkeypatch.setattr(os, "fsync", sync)
    store._db.execute("PRAGMA max_page_count=1000000")
    assert site.wait(job)["state"] == "stopped"
    assert site.wait(site.ask(**given, method="ddnm", steps=1)["id"])["state"] == "done"


@pytest.mark.parametrize("seed", range(10))
def test_the_worker_outlives_any_failures_and_full_disks(
    config: Config, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Jobs that fail, on a disk that is full whenever it likes: all of them end, and the queue goes on."""
    rng = random.Random(seed)
    monkeypatch.setattr("paintback.web.worker.FULL", 0.001)

    def at_times(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if rng.random() < 0.4:
                raise NoRoomError("The server's disk is full; make room on it and try again.")
            return work(*arguments, **named)

        return call

    class Painter(Worker):
        def _prepare(self) -> None:
            if rng.random() < 0.2:
                raise RuntimeError("what nobody thought of")

        def _warm(self) -> None:
            pass

        def _run_job(self, row: dict[str, Any]) -> Any:
            progress = self.progress[row["id"]] = Progress(1)
            if row["request"]["fails"]:
                raise rng.choice([ValueError("no"), RuntimeError("out of memory"), OSError(28, "No space left")])

            def keep() -> None:
                options = {"kind": "output", "name": "made", "size": (1, 1), "media": "image/png"}
                store.add_output(row["id"], 1, store.add_picture(b"r", **options), 0, {})

            self._when_there_is_room(keep, progress)
            return "done", None, None

    store = Store(config.data)
    photo = store.add_picture(b"p", kind="upload", name="a", size=(1, 1), media="image/png")
    request = {"photo": photo, "mask": None, "samples": 1}
    fails = {}
    for name in ("claim", "finish", "add_output"):
        monkeypatch.setattr(store, name, at_times(getattr(store, name)))
    worker = Painter(store, config, {}, lambda: None)
    worker.start()
    for _ in range(12):
        fail = rng.random() < 0.5
        fails[store.add_job({**request, "fails": fail}, "me", most=99, most_per_client=99)] = fail
        worker.wake()
    until(lambda: all(job["state"] in ("done", "failed") for job in store.jobs()))
    assert worker.is_alive()
    for job, fail in fails.items():
        ended = store.job(job)
        assert (ended["state"], len(ended["outputs"])) == (("failed", 0) if fail else ("done", 1))
        assert fail == bool(ended["error"])
    worker.close()
    assert not worker.is_alive()
    store.close()


def test_models_make_room_for_the_one_that_is_wanted(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two large ones fit alone, and beside the small one; what does not exist costs none of those that do."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    fails = iter([Unfit, torch.OutOfMemoryError, MemoryError])

    class Model:
        def __init__(self, source: str) -> None:
            self.source, self.me = source, self  # as hooks of pipelines, in a circle
            alive.add(self)

    def load(source: str, **_: Any) -> Model:
        if source == "nobody/none":
            raise ValueError("There is no such model.")
        if source != "photo" and any(one.source != "photo" for one in alive):
            raise next(fails)("CUDA out of memory.")
        return Model(source)

    monkeypatch.setattr("paintback.tasks.inpaint.Inpainter.from_pretrained", load)
    sources = {"photo": "photo", "here": str(tmp_path), "there": "nobody/there", "none": "nobody/none"}
    worker = Worker(None, replace(config, models={name: Offer(name, at, name) for name, at in sources.items()}), {},
                    lambda: None)  # fmt: skip
    for name, loaded in (
        ("photo", ["photo"]),
        ("here", ["photo", "here"]),
        ("there", ["there"]),
        ("photo", ["there", "photo"]),
        ("here", ["photo", "here"]),
        ("there", ["there"]),
        ("here", ["here"]),
        ("photo", ["here", "photo"]),
    ):
        assert worker.load(name).source == sources[name] and list(worker._loaded) == loaded
    with pytest.raises(ValueError, match="no such model"):
        worker.load("none")
    assert list(worker._loaded) == ["here", "photo"] and not list(fails)


# bodies


def test_a_job_is_at_most_a_mebibyte(site: Site) -> None:
    given = site.pictures()
    for prompt in ("x" * 2**20, "x" * (30 * 2**20)):
        began = time.monotonic()
        answer = site.http.post("/api/jobs", json={**given, "prompt": prompt})
        assert answer.status_code == 413 and "longer than 1048576 bytes" in answer.json()["detail"]
        assert time.monotonic() - began < 5

    def pieces() -> Iterator[bytes]:
        yield b'{"prompt": "'
        yield from (b"x" * 2**18 for _ in range(8))

    assert site.http.post("/api/jobs", content=pieces()).status_code == 413
    for body in (b"", b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000, b'{"a":' * 100_000):
        answer = site.http.post("/api/jobs", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422 and answer.json()["detail"].endswith("."), answer.text
        assert len(answer.json()["detail"]) < 300


def test_long_pictures_are_refused_before_they_are_decoded(open_site) -> None:
    site = open_site(limits=Limits())
    buffer = io.BytesIO()
    Image.new("L", (1, 24_000_000)).save(buffer, "PNG")
    began = time.monotonic()
    answer = site.send(buffer.getvalue(), "thread.png")
    assert time.monotonic() - began < 2
    assert answer.status_code == 413
    assert answer.json()["detail"] == "'thread.png' is 24000000 pixels long, expected at most 32767; cut it in parts."
    for size in ((1, 32_767), (32_767, 1)):
        assert site.send(png(np.zeros(size, np.uint8))).status_code == 201
    thin = site.send(png(np.zeros((8, 32_000), np.uint8))).json()["id"]
    answer = site.http.post("/api/jobs", json={"photo": thin, "outpaint": [800, 0, 0, 0]})
    assert answer.status_code == 409 and "32767 pixels long" in answer.json()["detail"]


# connections


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Answers /large with 64 MiB, everything else with what the body's length was."""
    size = 0
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    more = scope["method"] == "POST"
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await send({"type": "http.response.body", "body": f"{size:8}".encode()})


@pytest.fixture
def small() -> Iterator[tuple[str, int]]:
    """A server of at most 8 connections and little patience; its address."""
    from starlette.applications import Starlette

    app = Starlette()
    app.mount("/", nothing)
    app.add_middleware(Guard, hosts=frozenset({"127.0.0.1"}), token=None, patience=0.6)
    config = uvicorn.Config(
        app, port=0, http=limited(8, head=1.0, stuck=1.0), ws="none", log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[:2]
    server.should_exit = True
    thread.join(10)


def get(address: tuple[str, int], path: str = "/") -> int:
    return httpx.get(f"http://{address[0]}:{address[1]}{path}", timeout=10).status_code


def closed(sock: socket.socket, seconds: float) -> bool:
    """Whether the other side has closed by then."""
    sock.settimeout(seconds)
    try:
        while data := sock.recv(65536):
            assert data
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_whoever_waits_makes_room(small: tuple[str, int]) -> None:
    held = []
    for k in range(40):
        sock = socket.create_connection(small)
        sock.sendall((b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")[k % 3])
        held.append(sock)
        if k % 10 == 9:
            assert get(small) == 200
    assert sum(closed(sock, 0.01) for sock in held) >= 32
    for sock in held:
        sock.close()


def test_a_head_has_its_time(small: tuple[str, int]) -> None:
    began = time.monotonic()
    silent, half, kept = (socket.create_connection(small) for _ in range(3))
    half.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    kept.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert kept.recv(4096).startswith(b"HTTP/1.1 200")
    for _ in range(4):  # a byte now and then does not help
        time.sleep(0.3)
        with contextlib.suppress(OSError):
            half.sendall(b"X")
        with contextlib.suppress(OSError):
            kept.sendall(b"G")
    assert all(closed(sock, 3) for sock in (silent, half, kept))
    assert time.monotonic() - began < 6
    assert get(small) == 200


def test_a_connection_that_is_used_stays(small: tuple[str, int]) -> None:
    """Short requests one after another, for longer than a head may take."""
    connection = http.client.HTTPConnection(*small, timeout=5)
    connection.connect()
    connection.auto_open = False  # were it closed, the next request would fail
    for _ in range(12):
        time.sleep(0.25)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"       0")


def test_a_body_has_its_time(small: tuple[str, int]) -> None:
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
    silent, drip = (socket.create_connection(small) for _ in range(2))
    silent.sendall(head)
    drip.sendall(head)
    for _ in range(8):
        time.sleep(0.2)
        with contextlib.suppress(OSError):
            drip.sendall(b"x")
    for sock in (silent, drip):
        sock.settimeout(5)
        answer = sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408") and b"came too slowly" in answer
        assert closed(sock, 5)
    answer = httpx.post(f"http://{small[0]}:{small[1]}/", content=bytes(3_000_000), timeout=10)
    assert int(answer.text) == 3_000_000


def test_an_answer_that_nobody_takes_is_given_up(small: tuple[str, int]) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(small)
    sock.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    time.sleep(4)
    assert closed(sock, 3)
    assert len(httpx.get(f"http://{small[0]}:{small[1]}/large", timeout=30).content) == 64 * 2**20


def test_connections_leave_file_descriptors() -> None:
    assert 16 <= most_connections() <= 1000


def test_a_crowd_locks_nobody_out(serve) -> None:
    """256 file descriptors, 700 connections that come to nothing, aborted uploads: who has the token is served."""
    server = serve("--token", "sesame", descriptors=256)
    parts = urlsplit(server.url)
    address = parts.hostname, parts.port
    base, headers = f"http://127.0.0.1:{parts.port}", {"authorization": "Bearer sesame"}
    mine = httpx.Client(base_url=base, headers=headers, timeout=60)
    until(lambda: mine.get("/api/options").status_code == 200)
    held = []
    for k in range(700):
        sock = socket.create_connection(address)
        if k < 400:
            sock.sendall(b"GET /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        else:
            sock.sendall(b"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n")
        held.append(sock)
        if k % 100 == 99:
            began = time.monotonic()
            assert httpx.get(f"{base}/api/options", headers=headers, timeout=60).status_code == 200
            assert time.monotonic() - began < 20
    for sock in held:
        sock.close()
    head = b"POST /api/pictures?name=x HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer sesame\r\n"
    for _ in range(100):
        with socket.create_connection(address) as sock:
            sock.sendall(head + b"Content-Length: 1000000\r\n\r\n" + bytes(10_000))
    site = Site(mine, None)  # type: ignore[arg-type]
    given = site.pictures()
    assert site.wait(site.ask(**given, method="ddnm", steps=1)["id"])["state"] == "done"
    assert until(lambda: not list((server.log.parent / "served" / "pictures").glob("*.part")))
    lines = server.log.read_text().splitlines()
    assert len(lines) < 10 and not any("Traceback" in line or "ERROR" in line for line in lines), "\n".join(lines[:40])


# stopping and time


@pytest.mark.parametrize("method", ["lanpaint", "daps"])
def test_stop_comes_before_the_next_evaluation(site: Site, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of these take many evaluations; none begins once Stop was pressed."""
    from paintback.models.embedded import UNetDenoiser

    began: list[float] = []
    predict = UNetDenoiser.predict

    def slow(self: Any, x: Any, time_: Any) -> Any:
        began.append(time.monotonic())
        time.sleep(0.1)
        return predict(self, x, time_)

    given = site.pictures()
    assert site.wait(site.ask(**given, method="ddnm", steps=1)["id"])["state"] == "done"  # loaded, its speed measured
    monkeypatch.setattr(UNetDenoiser, "predict", slow)
    job = site.ask(**given, method=method, steps=50)["id"]
    until(lambda: len(began) > 2)
    site.http.post(f"/api/jobs/{job}/stop")
    pressed = time.monotonic()
    ended = site.wait(job, 10)
    assert ended["state"] == "stopped" and len(ended["outputs"]) == 1 and ended["outputs"][0]["stopped"]
    assert not [one for one in began if one > pressed + 0.05]
    assert ended["outputs"][0]["evaluations"] == len(began)


def test_a_job_that_cannot_end_in_time_is_refused_at_once(open_site) -> None:
    """The model's speed is known from the start, so such a job never begins."""
    site = open_site(limits=Limits(seconds=10))
    given = site.pictures()
    assert site.wait(site.ask(**given, method="ddnm", steps=1)["id"])["state"] == "done"  # the model is loaded
    with pytest.raises(AssertionError, match=r"It would take .* and a job may take 10 s here"):
        site.ask(**given, method="ddnm", steps=1000, samples=4)


# names, ports, folders


def test_hosts_are_whole_names(site: Site) -> None:
    for host in ("127.0.0.1:evil", "127.0.0.1:80:80", "127.0.0.1:", "127.0.0.1:99999", "localhost:80@evil.example",
                 "[::1", "[::1]evil", "127.0.0.1/", "127.0.0.1 "):  # fmt: skip
        assert site.http.get("/", headers={"host": host}).status_code == 421, host
    for host in ("127.0.0.1:1", "LOCALHOST:65535", "[::1]", "[::1]:8040"):
        assert site.http.get("/", headers={"host": host}).status_code == 200, host


def test_cookies_of_two_servers_do_not_meet(open_site) -> None:
    site = open_site(token="sesame")
    for port in (8040, 8041):
        headers = {"host": f"127.0.0.1:{port}"}
        answer = site.http.get("/?token=sesame", headers=headers, follow_redirects=False)
        assert answer.headers["set-cookie"].startswith(f"paintback-token-{port}=sesame;")
    site.http.cookies.clear()
    for name, status in (("paintback-token-8040", 200), ("paintback-token-8041", 401), ("paintback-token", 401)):
        headers = {"host": "127.0.0.1:8040", "cookie": f"{name}=sesame"}
        assert site.http.get("/", headers=headers).status_code == status


def test_serve_says_what_it_cannot_have(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        (tmp_path / "file").write_text("")
        data = str(tmp_path / "data")
        for arguments, words in (
            (
                ["--port", port, "--data", data],
                f"Port {port} of 127.0.0.1 is taken; stop what uses it",
            ),
            (["--port", "0", "--data", str(tmp_path / "file")], "is or lies in a file; give a folder."),
            (["--port", "0", "--data", data, "--host", "no.such.host.invalid"], "is no address; give one of this"),
            (["--port", "0", "--data", data, "--host", "192.0.2.1"], "cannot be had (Cannot assign requested address)"),
        ):
            command = [sys.executable, "-m", "paintback", "serve", *arguments]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert ended.returncode == 2, ended.stderr
            (line,) = [line for line in ended.stderr.splitlines() if "token" not in line]
            assert line.startswith("paintback: ") and words in line and ended.stdout == ""
