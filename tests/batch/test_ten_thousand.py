"""A manifest of 10,000 rows through the command: memory, and what five kills -9 leave; prints the figures in docs."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROWS, KILLS = 10_000, 5
STATUS = Path("/proc/self/status")
pytestmark = [
    pytest.mark.timing,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not STATUS.exists(), reason="reads a process's memory from /proc"),
]


def memory(process: subprocess.Popen[bytes]) -> float:
    """MB that a process holds."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def hashes(out: Path) -> dict[str, str]:
    """Of the pixels: a PNG holds the time that it took as well."""
    return {path.name: hashlib.sha256(Image.open(path).tobytes()).hexdigest() for path in out.glob("*.png")}


def done(out: Path) -> int:
    """Pictures that are recorded."""
    manifest = out / "manifest.jsonl"
    return manifest.read_bytes().count(b"\n") if manifest.exists() else 0


def starter(folder: Path, photos: list[Path], mask: Path, model: str, count: int) -> Callable[[Path], Any]:
    """Writes a manifest of that many rows; what comes starts a run of it into a folder."""
    with (folder / "rows.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["photo", "mask", "name", "seed"])
        rows.writerows([photos[k % len(photos)], mask, f"row{k:05}", k] for k in range(count))
    command = [sys.executable, "-m", "paintback", "batch", "rows.csv", "--model", model]
    command += ["--method", "replacement", "--steps", "1", "--threads", "1"]
    return lambda out: subprocess.Popen(
        [*command, "-o", str(out)], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_nothing_is_lost_or_doubled_and_memory_is_flat(scans: Any, mask: Path, tiny_model: str, tmp_path: Path) -> None:
    start = starter(tmp_path, scans(200), mask, tiny_model, ROWS)
    straight, held = tmp_path / "straight", []
    began, process = time.monotonic(), start(straight)
    while process.poll() is None:
        time.sleep(0.5)
        if (count := done(straight)) and process.poll() is None:
            held.append((count, memory(process)))
    assert process.returncode == 0
    first = next(held_ for held_ in held if held_[0] >= ROWS // 100)
    print(f"{ROWS} rows in {time.monotonic() - began:.0f} s; {first[1]:.0f} MB at {first[0]}, {held[-1][1]:.0f} MB at "
          f"{held[-1][0]}, at most {max(one for _, one in held):.0f} MB")  # fmt: skip
    assert max(one for count, one in held if count >= first[0]) - first[1] < 48

    out, moments, killed = tmp_path / "out", random.Random(0), []
    for _ in range(KILLS):
        wanted = done(out) + moments.randrange(200, ROWS // 6)
        process = start(out)
        while done(out) < wanted:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(moments.random() * 0.2)
        process.kill()
        process.wait()
        killed.append((done(out), len(list(out.glob(".*")))))
    print("killed at", ", ".join(f"{count} pictures (unfinished files: {left})" for count, left in killed))
    assert start(out).wait() == 0
    names = [json.loads(line)["name"] for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(names) == len(set(names)) == ROWS
    assert not list(out.glob(".*"))
    assert hashes(out) == hashes(straight) and len(os.listdir(out)) == ROWS + 1


def test_a_disk_that_fills_up_and_one_that_is_read_only(
    scans: Any, mask: Path, tiny_model: str, tmp_path: Path
) -> None:
    start, disk = starter(tmp_path, scans(200), mask, tiny_model, 1000), tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"This user may mount nothing: {mounted.stderr!r}")
    try:
        out = disk / "out"
        assert start(out).wait() == 1
        first = done(out)
        assert 0 < first < 1000 and len(list(out.glob("*.png"))) >= first and not list(out.glob(".*"))
        assert start(out).wait() == 1
        print(f"a disk of 3 MB: {first} pictures recorded, then {done(out)}")
        assert done(out) >= first and not list(out.glob(".*"))
        subprocess.run(["mount", "-o", "remount,size=30m", str(disk)], check=True)
        assert start(out).wait() == 0
        names = [json.loads(line)["name"] for line in (out / "manifest.jsonl").read_text().splitlines()]
        assert len(names) == len(set(names)) == len(list(out.glob("*.png"))) == 1000
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert start(disk / "another").wait() == 2
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
