"""What a run may never do: write over what it reads, paint a mask, lose a result to a full disk or to a clock."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paintback.batch import Request, Task, files, read_tasks, run
from paintback.batch.ledger import Ledger


def moved(job, **changes):
    return Request.from_settings({**job.to_settings(), **changes})


@pytest.mark.parametrize("way", ["the folder", "a link to it", "a linked picture", "a linked result", "a hard link"])
def test_no_result_is_one_of_the_inputs(jobs, tmp_path, way):
    three, out = jobs(3), tmp_path / "in"
    photos = [Path(job.photo) for job in three]
    if way == "a link to it":
        out = tmp_path / "elsewhere"
        out.symlink_to(tmp_path / "in")
    elif way == "a linked picture":
        (tmp_path / "store").mkdir()
        shutil.move(photos[1], tmp_path / "store/x.png")
        photos[1].symlink_to(tmp_path / "store/x.png")
    elif way == "a linked result":
        out = tmp_path / "out"
        out.mkdir()
        (out / "scan001.png").symlink_to(photos[1])
    elif way == "a hard link":
        out = tmp_path / "out"
        out.mkdir()
        (out / "scan001.png").hardlink_to(photos[1])
    before = [path.read_bytes() for path in photos]
    with pytest.raises(ValueError, match=r"would be written over .*which this batch reads; give another folder"):
        run(three, out)
    assert [path.read_bytes() for path in photos] == before
    assert len(run(three, tmp_path / "in", suffix=".webp").done) == 3  # other names do not meet


def test_no_result_is_a_mask(jobs, mask, tmp_path):
    (job,) = jobs(1)
    with pytest.raises(ValueError, match=r"mask\.png"):
        run([Task("mask", job)], tmp_path)
    assert mask.read_bytes()


def test_a_mask_of_another_row_is_not_painted(jobs, mask, tmp_path):
    first, second = jobs(2)
    (tmp_path / "link.png").symlink_to(mask)
    report = run([first, Task("m", moved(second, photo=str(tmp_path / "link.png")))], tmp_path / "out")
    assert [record["name"] for record in report.done] == ["scan000"]
    assert "is a mask of this batch" in report.failed[0]["error"]


def test_what_a_broken_row_names_is_not_written_over(jobs, mask, tmp_path):
    first, second = jobs(2)
    lost = Path(second.photo)
    rows = f"photo,mask,name\n{first.photo},{mask},in/{lost.stem}\n{lost},,"
    (tmp_path / "rows.csv").write_text(rows)
    tasks, _ = read_tasks(str(tmp_path / "rows.csv"), None, {"model": first.model})
    assert [task.request is None for task in tasks] == [False, True]
    with pytest.raises(ValueError, match=f"would be written over .*{lost.name}"):
        run(tasks, tmp_path)


FILES = ["a.png", "b.png", "box/a.png", "masks/a.png", "masks/m.png", "link/a.png"]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(FILES),
            st.sampled_from([*FILES, "alpha", "", "gone.png"]),
            st.sampled_from(["", "a", "b", "box/a", "masks/m", "x", "../a", "a.png"]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([".", "box", "masks", "out", "link", "box/../masks"]),
)
def test_no_manifest_whatever_makes_a_batch_write_over_what_it_reads(tmp_path_factory, rows, out):
    """Any rows, any names, any folder: what is named as a photo or as a mask holds afterwards what it held."""
    root = tmp_path_factory.mktemp("any")
    for folder in ("box", "masks"):
        (root / folder).mkdir()
    (root / "link").symlink_to(root / "box")
    for name in FILES[:-1]:
        (root / name).write_bytes(b"given " + name.encode())
    lines = [f"{photo},{mask},{name}" for photo, mask, name in rows]
    (root / "rows.csv").write_text("photo,mask,name\n" + "\n".join(lines) + "\n")

    def paint(engine, request, chunks, options, *rest):
        for chunk in chunks:
            for task in chunk.tasks:
                files.write(b"painted", files.join(options.out, task.name + options.suffix))
            yield []

    tasks, _ = read_tasks(str(root / "rows.csv"), None, {"model": "photo", "method": "ddnm"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["paintback.batch.run"], "_paint", paint)
        with contextlib.suppress(ValueError):
            run(tasks, root / out)
    named = {name for photo, mask, _ in rows for name in (photo, mask)} & set(FILES)
    for name in named:
        assert (root / name).read_bytes() == b"given " + name.replace("link/", "box/").encode(), (rows, out)


def test_a_name_too_long_is_said_before_the_painting(jobs, tmp_path):
    first, second = jobs(2)
    report = run([Task("写" * 79, first), Task("写" * 84, second)], tmp_path / "out", suffix=".webp")
    assert [record["name"] for record in report.done] == ["写" * 79]
    assert "257 bytes" in report.failed[0]["error"]


def test_a_manifest_of_others_is_not_touched(jobs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for text in ('{"photo": "a.png"}\n{"photo": "b.png"}', '{"photo": "a.png"}'):
        (out / "manifest.jsonl").write_text(text)
        with pytest.raises(ValueError, match="is no manifest of results"):
            run(jobs(1), out)
        assert (out / "manifest.jsonl").read_text() == text


@pytest.mark.parametrize("writes", [3, 4, 7, 8])
def test_a_full_disk_ends_the_run_and_the_next_one_does_the_rest(jobs, tmp_path, monkeypatch, writes):
    given, out, sync, count = jobs(8), tmp_path / "out", os.fsync, 0

    def full(descriptor):
        nonlocal count
        count += 1
        if count > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(given, out, batch=2)
    monkeypatch.setattr(os, "fsync", sync)
    kept = [json.loads(line)["name"] for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert all((out / f"{name}.png").exists() for name in kept)
    report = run(given, out, batch=2)
    assert (sorted(report.skipped), len(report.done), report.failed) == (sorted(kept), 8 - len(kept), [])
    names = [json.loads(line)["name"] for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert sorted(names) == [f"scan{k:03}" for k in range(8)]
    assert not list(out.glob(".*.tmp"))


def test_a_clock_that_jumps_a_month(jobs, tmp_path, monkeypatch):
    """In an object store the order of the manifest's parts is their names', which hold the time."""
    import fsspec

    memory, given, now = fsspec.filesystem("memory"), jobs(2), time.gmtime
    out = f"memory://clock{tmp_path.name}/out"
    for days in (0, -31, 31, -62):
        monkeypatch.setattr(time, "gmtime", lambda days=days: now(time.time() + days * 86400))
        ledger = Ledger(out)
        ledger.append([{"name": "a", "status": "done", "days": days}])
        ledger.close()
    assert Ledger(out).records["a"]["days"] == -62
    assert len(memory.ls(out.removeprefix("memory:/") + "/manifest")) == 4
    local = tmp_path / "out"
    assert len(run(given, local).done) == 2
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert len(run(given, local).skipped) == 2
