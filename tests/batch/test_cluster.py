"""The Ray engine on a real cluster on this machine: the same bits as here, and nothing lost when workers die."""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from paintback.batch import Request, run
from paintback.batch.cluster import connect, run_items
from paintback.batch.worker import Painter

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("scan*.png")}


def lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs, whatever the machine has."""
    import ray  # takes seconds, and the default run only collects this module

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def meeting(folder, workers):
    """A painter that begins once so many workers have a chunk each: Ray gives a worker at most two chunks ahead.

    Left to chance, one worker may have painted everything before another one is up.
    """
    folder.mkdir()

    class Meeting(Painter):
        def run(self, chunk):
            (folder / str(os.getpid())).touch()
            until = time.monotonic() + 180
            while len(os.listdir(folder)) < workers:
                if time.monotonic() > until:
                    raise TimeoutError(f"{workers} workers did not come together")
                time.sleep(0.02)
            return super().run(chunk)

    return Meeting


def test_same_bits_as_here_whatever_the_workers(cluster, jobs, tmp_path, monkeypatch):
    given = jobs(21)
    run(given, tmp_path / "here", batch=4)
    for workers in (1, 2):
        out = tmp_path / f"ray-{workers}"
        monkeypatch.setattr("paintback.batch.cluster.Painter", meeting(tmp_path / f"met-{workers}", workers))
        report = run(given, out, batch=4, engine="ray", workers=workers)
        assert (len(report.done), report.failed) == (21, [])
        assert hashes(out) == hashes(tmp_path / "here")
        assert {(record["batch"], record["threads"]) for record in report.done} == {(4, 1), (1, 1)}
        assert len({record["worker"] for record in lines(out)}) == workers
        assert len(run(given, out, batch=4, engine="ray", workers=workers).skipped) == 21


def test_a_killed_worker_loses_nothing(cluster, jobs, tmp_path):
    """200 pictures; a worker is killed at 5 random moments."""
    given, out = jobs(200), tmp_path / "out"
    run(given, tmp_path / "here")
    moments, killed = random.Random(0), []
    at = sorted(moments.sample(range(8, 180), 5))

    def kill(now):
        if len(killed) < 5 and now.done >= at[len(killed)]:
            pids = [int(record["worker"].rpartition("/")[2]) for record in lines(out)]
            pid = next((pid for pid in reversed(pids) if pid not in killed), None)
            if pid is not None:
                time.sleep(moments.random() * 0.05)
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    report = run(given, out, engine="ray", workers=2, progress=kill)
    assert len(killed) == 5
    assert (len(report.done), report.failed, report.missing) == (200, [], 0)
    names = [record["name"] for record in lines(out)]
    assert len(names) == len(set(names)) == 200
    assert hashes(out) == hashes(tmp_path / "here")
    assert not [path for path in out.iterdir() if path.suffix == ".png" and not path.stat().st_size]


def test_ctrl_c_finishes_what_the_workers_have_in_hand(cluster, jobs, tmp_path):
    given, out, pressed = jobs(120, steps=40), tmp_path / "out", []

    def interrupt(now):
        if now.done and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    report = run(given, out, batch=4, engine="ray", workers=2, progress=interrupt)
    assert report.stopped
    assert 0 < len(report.done) < 120
    assert len(hashes(out)) == len(report.done)
    rest = run(given, out, batch=4)
    assert (len(rest.skipped), len(rest.done)) == (len(report.done), report.missing)


class Square:
    """Stands for a benchmark's cell."""

    def __call__(self, item):
        return str(int(item) ** 2)


def test_items_of_any_kind(cluster):
    answers = run_items(Square, [str(k) for k in range(30)], workers=2)
    assert sorted(map(int, answers)) == [k * k for k in range(30)]


def test_no_cluster_is_one_sentence_with_the_whole_reason(monkeypatch):
    """Ray's reason has many lines, of which the first one says little."""
    import ray

    def refuse(**given):
        raise ConnectionError("Initialization failure from server:\nTraceback:\n  RuntimeError: see the head's log.\n")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ValueError, match="ray://somewhere:1 ") as caught:
        connect("ray://somewhere:1")
    assert "(Initialization failure from server: Traceback: RuntimeError: see the head's log)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_client_server_that_died_is_asked_for_again(monkeypatch):
    import ray

    addresses = []

    def refuse_twice(address, **given):
        addresses.append(address)
        if len(addresses) < 3:
            raise ConnectionAbortedError("Initialization failure from server")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse_twice)
    assert connect("ray://somewhere:1") is ray
    assert addresses == ["ray://somewhere:1"] * 3
    del addresses[:]
    monkeypatch.setattr(ray, "init", lambda address, **given: addresses.append(address) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        connect("ray://somewhere:1")
    assert len(addresses) == 1  # whatever else is wrong is not tried again


def start_head(command, env, log, port):
    """A head node that listens at the port; on a busy machine Ray's own deadlines may end it, and it is started again.

    Fails with what the last one printed.
    """
    until = time.monotonic() + 240
    while time.monotonic() < until:
        with log.open("wb") as to:
            head = subprocess.Popen(command, stdout=to, stderr=to, env=env)
        while head.poll() is None and time.monotonic() < until:
            with socket.socket() as attempt:
                attempt.settimeout(5)
                if not attempt.connect_ex(("127.0.0.1", port)):
                    return head
            time.sleep(0.2)
    head.terminate()
    head.wait(90)
    pytest.fail(f"no client server at port {port}: {log.read_text()[-2000:]}")


@pytest.mark.timeout(900)
def test_through_a_client_address(jobs, tmp_path):
    """ray://, from a process of its own, as the client takes the whole process.

    On a busy machine the head needs a minute until it listens, and the server that it forks for a client more than the
    30 seconds that Ray gives it by default, or it dies as it starts, by gRPC's threads: "Initialization failure".
    """
    port = 20000 + os.getpid() % 10000
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus", "2", "--port", str(port)]
    command += ["--ray-client-server-port", str(port + 1), "--include-dashboard", "false", "--block"]
    command += ["--temp-dir", str(tmp_path)] if len(str(tmp_path)) < 40 else []
    given = jobs(6)
    run(given, tmp_path / "here", batch=4)
    text = tmp_path / "jobs.json"
    text.write_text(json.dumps([job.to_settings() for job in given]))
    code = (
        "import json, sys; from paintback.batch import Request, run\n"
        f"jobs = [Request.from_settings(entry) for entry in json.load(open({str(text)!r}))]\n"
        f"report = run(jobs, {str(tmp_path / 'out')!r}, batch=4, engine='ray', address='ray://127.0.0.1:{port + 1}')\n"
        "print(len(report.done), report.failed)"
    )
    # Ray asks for a token: this cluster, which lives as long as the test, has one of its own
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    env |= {"RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "180", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    env["RAY_worker_niceness"] = "0"  # 15 by default: hardly any time beside other programs
    head = start_head(command, env, tmp_path / "head.log", port + 1)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=500, check=False, env=env
        )
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(90)
    assert (done.stdout.strip().splitlines() or [""])[-1] == "6 []", done.stderr[-2000:]
    assert hashes(tmp_path / "out") == hashes(tmp_path / "here")


@pytest.mark.timing
def test_two_workers_are_faster_than_one(cluster, tmp_path):
    """On the shipped model; both cores must be idle otherwise. Prints the numbers of the documentation."""
    rng = np.random.default_rng(0)
    hole = np.zeros((32, 32), np.uint8)
    hole[8:22, 8:24] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    given = []
    for k in range(160):
        path = tmp_path / f"scan{k:03}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
        entries = {"photo": str(path), "mask": str(tmp_path / "mask.png"), "model": "fashion", "seed": k, "threads": 1}
        given.append(Request.parse({**entries, "method": "ding", "steps": 12}))
    rates = {}
    for workers in (1, 2):
        out, times = tmp_path / f"out-{workers}", []
        run(
            given,
            out,
            engine="ray",
            workers=workers,
            progress=lambda now, times=times: times.append((now.seconds, now.done)),
        )
        # from where every worker has done a chunk: loading the model and starting is not what grows with the batch
        first = next(entry for entry in times if entry[1] >= 8 * workers)
        rates[workers] = (times[-1][1] - first[1]) / (times[-1][0] - first[0])
    assert hashes(tmp_path / "out-1") == hashes(tmp_path / "out-2")
    print(f"1 worker {rates[1]:.2f} pictures/s, 2 workers {rates[2]:.2f}: {rates[2] / rates[1]:.2f} x")
    assert rates[2] / rates[1] >= 1.6
