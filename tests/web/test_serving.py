"""`paintback serve` as a process: killed, flooded and fuzzed. Slow."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.web.sites import Site, photograph, png

pytestmark = pytest.mark.slow

JOBS = 50


def client(url: str) -> Site:
    return Site(httpx.Client(base_url=url, timeout=120), None)  # type: ignore[arg-type]


def finished(site: Site) -> list[dict]:
    return [job for job in site.http.get("/api/jobs").json() if job["state"] == "done"]


def test_fifty_jobs_survive_two_sudden_deaths(serve, tmp_path: Path) -> None:
    server = serve()
    site = client(server.url)
    given = site.pictures()
    asked = {}
    for k in range(JOBS):
        job = site.ask(**given, method="ddnm", steps=6, samples=1 + k % 2, seed=1000 + 2 * (k % (JOBS // 2)))
        asked[job["id"]] = job["request"]
    seen: dict[str, dict] = {}
    for least in (5, 20):
        while len(finished(site)) < least:
            time.sleep(0.3)
        while not any(job["state"] == "running" for job in site.http.get("/api/jobs").json()):
            time.sleep(0.03)
        seen |= {job["id"]: job for job in finished(site)}
        server.kill()
        server = serve()
        site = client(server.url)
    end = time.monotonic() + 400
    while time.monotonic() < end:
        jobs = site.http.get("/api/jobs").json()
        if all(job["state"] not in ("waiting", "running") for job in jobs):
            break
        time.sleep(0.5)
    assert [job["error"] for job in jobs if job["state"] != "done"] == []
    assert {job["id"] for job in jobs} == set(asked) and all(job["state"] == "done" for job in jobs)
    pictures = [output["picture"] for job in jobs for output in job["outputs"]]
    assert len(pictures) == len(set(pictures)) == sum(request["samples"] for request in asked.values())
    by_seed: dict[int, bytes] = {}
    for job in jobs:
        request = asked[job["id"]]
        assert [one["seed"] for one in job["outputs"]] == [request["seed"] + n for n in range(request["samples"])]
        if job["id"] in seen:  # what was finished before a death is what it was
            assert seen[job["id"]]["outputs"] == job["outputs"]
        for output in job["outputs"]:
            data = site.http.get(f"/api/pictures/{output['picture']}").content
            pixels = np.asarray(Image.open(io.BytesIO(data))).tobytes()
            assert by_seed.setdefault(output["seed"], pixels) == pixels  # before a death or after it, the same bits
    with sqlite3.connect(tmp_path / "served" / "jobs.sqlite") as database:
        ((again,),) = database.execute("SELECT count(*) FROM jobs WHERE attempts > 1").fetchall()
        ((rows,),) = database.execute("SELECT count(*) FROM pictures").fetchall()
    assert 1 <= again <= 2  # the jobs that were half done ran again, and no others
    assert rows == len(list((tmp_path / "served" / "pictures").iterdir())) == 2 + len(pictures) + JOBS // 2


@pytest.mark.parametrize("slack", [15, pytest.param(1, marks=pytest.mark.timing)], ids=["busy", "idle"])
def test_bad_uploads_are_refused_while_a_job_goes_on(serve, slack: int) -> None:
    """The machine may be busy with other things too; how quick the answers are on an idle one has a run of its own."""
    site = client(serve().url)
    job = site.ask(**site.pictures(), method="ddnm", steps=1000)["id"]

    def step() -> int:
        return (site.http.get(f"/api/jobs/{job}").json()["progress"] or {}).get("step", 0)

    while not step():
        time.sleep(0.05)
    buffer = io.BytesIO()
    Image.new("RGB", (10_000, 10_000), "grey").save(buffer, "PNG")
    whole = png(photograph(256))
    for data, status, words in (
        (buffer.getvalue(), 413, "100000000 pixels, expected at most 24000000"),
        (whole[: len(whole) // 2], 415, "truncated"),
    ):
        before, began = step(), time.monotonic()
        answer = site.send(data, "large.png")
        seconds = time.monotonic() - began
        assert answer.status_code == status and words in answer.json()["detail"]
        assert answer.json()["detail"].startswith("'large.png'") and seconds < 2 * slack
        print(f"{len(data)} bytes refused in {seconds:.2f} s: {answer.json()['detail']}")
        while step() <= before:  # the job goes on
            time.sleep(0.05)
    waits = []
    for _ in range(20):
        began = time.monotonic()
        site.http.get("/api/options")
        waits.append(time.monotonic() - began)
    print(f"/api/options while a job runs: median {sorted(waits)[10] * 1e3:.0f} ms, worst {max(waits) * 1e3:.0f} ms")
    assert max(waits) < slack
    site.http.post(f"/api/jobs/{job}/stop")
    assert site.wait(job)["state"] == "stopped"


@pytest.mark.timeout(1200)
def test_schemathesis_finds_nothing(serve, tmp_path: Path) -> None:
    url = serve("--max-upload", "1", "--max-megapixels", "1").url
    picture = client(url).pictures()["photo"]
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(f'[parameters]\n"path.picture" = "{picture}"\n')
    there = ["--phases", "fuzzing", "--include-path-regex", "/api/pictures/"]
    for name, first, more in (
        ("as it is", [], []),
        ("with a picture that is there", ["--config-file", str(settings)], there),
    ):
        command = [sys.executable, "-m", "schemathesis.cli", *first, "run", f"{url}api/openapi.json", *more]
        command += ["--max-examples", "15", "--request-timeout", "120", "--generation-deterministic", "--no-color"]
        run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=550)
        assert run.returncode == 0, f"schemathesis, {name}:\n{run.stdout[-6000:]}\n{run.stderr[-2000:]}"
        print(f"schemathesis, {name}: {run.stdout.strip().splitlines()[-1].strip('= ')}")
