"""The local engine: nothing lost, nothing done twice, whatever happens in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import paintback as pb
from paintback.batch import Request, Task, run
from paintback.batch.ledger import Ledger
from paintback.batch.tasks import read_tasks
from paintback.batch.worker import Options, Painter, bytes_per_cell
from paintback.images import read_picture, read_settings
from paintback.painting.layout import Policy


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.png")
        if not path.name.startswith(".")
    }


def lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_paints_records_and_skips(jobs, tmp_path):
    out, given = tmp_path / "out", jobs(5)
    told = []
    report = pb.batch.run(given, out, batch=2, progress=told.append)
    assert (report.total, len(report.done), report.failed, report.skipped, report.missing) == (5, 5, [], [], 0)
    assert told[-1].done == 5 and told[-1].left == 0
    records = {record["name"]: record for record in lines(out)}
    assert [records[f"scan{k:03}"]["batch"] for k in range(5)] == [2, 2, 2, 2, 1]
    for k, job in enumerate(given):
        record = records[f"scan{k:03}"]
        path = out / record["output"]
        assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (record["seed"], record["threads"], record["evaluations"], record["error"]) == (k, 1, 2, None)
        before, after = (np.asarray(Image.open(name)) for name in (job.photo, path))
        hole = np.asarray(Image.open(job.mask)) > 0
        assert (before[~hole] == after[~hole]).all() and (before[hole] != after[hole]).any()
        assert Request.from_settings(read_settings(path)) == Request.from_settings(record["job"])
    again = run(given, out, batch=2)
    assert (len(again.skipped), again.done, again.failed) == (5, [], [])
    assert len(lines(out)) == 5


def test_a_picture_does_not_depend_on_its_batch(jobs, tmp_path):
    """To rounding at another batch size; bit for bit at the same, whoever else is in it."""
    given = jobs(6, steps=3)
    together, alone, mixed = (tmp_path / name for name in ("together", "alone", "mixed"))
    run(given, together, batch=3)
    run(given, alone, batch=1)
    for name in hashes(together):
        one, two = (read_picture(folder / name).pixels.astype(int) for folder in (together, alone))
        assert abs(one - two).max() <= 1
    run([given[k] for k in (5, 0, 3, 2, 4, 1)], mixed, batch=3)
    assert hashes(mixed) == hashes(together)


def test_equal_plans_share_a_batch_and_masks_may_differ(scans, mask, tiny_model):
    """Inside the Inpainter: other places of the hole, other sizes in between, one evaluation for each picture."""
    paths = scans(4)
    holes = [np.zeros((24, 32), bool) for _ in paths]
    for k, hole in enumerate(holes[:3]):
        hole[2 + 3 * k : 8 + 3 * k, 4 + 5 * k : 12 + 5 * k] = True
    holes[3][2:22, 2:6] = True
    inpainter = pb.Inpainter.from_pretrained(tiny_model)
    inpainter.policy = Policy(context=4, widest=4, multiple=inpainter.model.multiple)
    seen = []
    inner = inpainter.model.network.forward
    inpainter.model.network.forward = lambda x, clock: (seen.append(len(x)), inner(x, clock))[1]
    pictures = [read_picture(path) for path in paths]

    def generators():
        return [torch.Generator().manual_seed(k) for k in range(4)]

    common = {"method": "replacement", "num_inference_steps": 3, "output_type": "np"}
    plans = [inpainter.sizes(picture, hole) for picture, hole in zip(pictures, holes, strict=True)]
    together = inpainter(pictures, holes, generator=generators(), batch_size=4, **common)
    batched = list(seen)
    seen.clear()
    single = inpainter(pictures, holes, generator=generators(), **common)
    assert np.abs(together.images - single.images).max() < 2e-5
    assert sum(batched) == sum(seen)
    assert max(batched) == max(plans.count(plan) for plan in plans) > 1
    assert together.evaluations == single.evaluations
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
        inpainter(pictures, holes, batch_size=0)


def test_ten_kinds_of_broken_rows_are_named_and_the_rest_is_done(scans, mask, tiny_model, tmp_path):
    good = scans(3)
    Image.new("L", (32, 24)).save(tmp_path / "empty.png")
    Image.new("L", (32, 24), 255).save(tmp_path / "full.png")
    Image.new("L", (9, 9), 255).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:900])
    rows = [{"photo": str(path)} for path in good]
    broken = [
        ({"photo": "gone.png"}, "does not exist"),
        ({"photo": "text.png"}, "is not a picture"),
        ({"photo": "cut.png"}, "damaged"),
        ({"photo": str(good[0]), "mask": "lost.png", "name": "r4"}, "does not exist"),
        ({"photo": str(good[0]), "mask": "small.png", "name": "r5"}, "expected the same size"),
        ({"photo": str(good[0]), "mask": "empty.png", "name": "r6"}, "nothing to repaint"),
        ({"photo": str(good[0]), "mask": "full.png", "name": "r7"}, "white everywhere"),
        ({"photo": str(good[0]), "method": "magic", "name": "r8"}, "magic"),
        ({"photo": str(good[0]), "seed": "many", "name": "r9"}, "seed must be a whole number"),
        ({"photo": str(good[0]), "steps": 0, "name": "r10"}, "steps must be at least 1"),
        ({"photo": str(good[0]), "name": "../r11"}, "output folder"),
        ({"photo": str(good[0]), "prompt": "a cat", "name": "r12"}, "takes no prompt"),
        ({"photo": str(good[0]), "mask": "alpha", "name": "r13"}, "no alpha channel"),
        ({"mask": "empty.png", "name": "r14"}, "names no photo"),
    ]
    text = [json.dumps(row) for row in (*rows, *(row for row, _ in broken))]
    text += ['{"photo": ']
    (tmp_path / "rows.jsonl").write_text("\n".join(text))
    base = {"model": tiny_model, "method": "replacement", "fields": {}, "steps": 2, "threads": 1}
    tasks, _ = pb.batch.read_tasks(str(tmp_path / "rows.jsonl"), str(mask), base)
    report = run(tasks, tmp_path / "out", batch=4)
    assert {record["name"] for record in report.done} == {"in/scan000", "in/scan001", "in/scan002"}
    errors = {record["name"]: record["error"] for record in report.failed}
    assert len(errors) == len(broken) + 1
    for (_, says), task in zip(broken, tasks[3:], strict=False):
        assert says in errors[task.name], task
    assert "is not JSON" in errors[tasks[-1].name]
    assert all("\n" not in error for error in errors.values())
    assert set(hashes(tmp_path / "out")) == {"in/scan000.png", "in/scan001.png", "in/scan002.png"}
    Image.open(mask).save(tmp_path / "empty.png")  # what failed is done again, what was done is not
    again = run(pb.batch.read_tasks(str(tmp_path / "rows.jsonl"), str(mask), base)[0], tmp_path / "out", batch=4)
    assert [record["name"] for record in again.done] == ["r6"]
    assert len(again.skipped) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no text")
def test_a_name_that_is_no_text(scans, mask, tiny_model, tmp_path):
    """A name in Latin-1, as an old disk has it, fails alone: it is named in the record, and the rest is painted."""
    paths = scans(2)
    folder = os.fsencode(paths[1].parent)
    for path in paths:
        shutil.copy(mask, path.with_name(f"{path.stem}_mask.png"))
    os.rename(paths[0], folder + b"/caf\xe9.png")
    os.rename(paths[0].with_name("scan000_mask.png"), folder + b"/caf\xe9_mask.png")
    base = {"model": tiny_model, "method": "replacement", "steps": 2, "threads": 1}
    tasks, _ = read_tasks(str(paths[0].parent), None, base)
    report = run(tasks, tmp_path / "out")
    assert ([record["name"] for record in report.done], len(report.failed)) == (["scan001"], 1)
    (failure,) = [record for record in lines(tmp_path / "out") if record["status"] == "failed"]
    assert failure["name"] == os.fsdecode(b"caf\xe9") and "rename the file" in failure["error"]


def test_what_was_changed_is_done_again(jobs, mask, tmp_path):
    out, given = tmp_path / "out", jobs(6)
    run(given, out, batch=4)
    before = hashes(out)
    (out / "scan000.png").unlink()
    (out / "scan001.png").write_bytes(b"spoilt")
    Image.fromarray(255 - np.asarray(Image.open(given[2].photo))).save(given[2].photo)
    touched = os.stat(given[3].photo)
    os.utime(given[3].photo, ns=(touched.st_atime_ns, touched.st_mtime_ns + 10**9))  # the same bytes, another time
    given[4] = Request.from_settings({**given[4].to_settings(), "seed": 99})
    report = run(given, out, batch=4)
    assert sorted(record["name"] for record in report.done) == ["scan000", "scan001", "scan002", "scan004"]
    after = hashes(out)
    assert {name for name in before if before[name] == after[name]} == {
        "scan000.png", "scan001.png", "scan003.png", "scan005.png",
    }  # fmt: skip


def test_a_cut_line_is_dropped_and_two_runs_do_not_meet(jobs, tmp_path):
    out, given = tmp_path / "out", jobs(3)
    run(given, out)
    manifest = out / "manifest.jsonl"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-20])
    report = run(given, out)
    assert [record["name"] for record in report.done] == ["scan002"]
    assert len(lines(out)) == 3
    ledger = Ledger(str(out))
    with pytest.raises(ValueError, match="Another batch writes to"):
        run(given, out)
    ledger.close()
    assert len(run(given, out).skipped) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes")
@pytest.mark.slow
def test_killed_at_random_moments(jobs, tmp_path):
    """200 pictures; the process is killed at 5 random moments. The slow twin of this test kills the command itself."""
    given, out, straight = jobs(200), tmp_path / "out", tmp_path / "straight"
    run(given, straight)
    done_before, moments, kills = set(), random.Random(3), 0
    while kills < 5:
        child = os.fork()
        if not child:
            try:
                run(given, out)
            finally:
                os._exit(0)
        seen = len(done_before)
        wanted = seen + moments.randrange(8, 36)
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            manifest = out / "manifest.jsonl"
            if manifest.exists() and manifest.read_bytes().count(b"\n") >= wanted:
                time.sleep(moments.random() * 0.05)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                kills += 1
                break
        else:
            pytest.fail("it ended before it was killed")
        whole = (out / "manifest.jsonl").read_bytes().rpartition(b"\n")[0].splitlines()
        done_before = {json.loads(line)["name"] for line in whole}
        for path in out.glob("scan*.png"):
            Image.open(path).load()  # none is half-written
    report = run(given, out)
    assert set(report.skipped) == done_before
    assert len(report.skipped) + len(report.done) == 200
    names = [record["name"] for record in lines(out)]
    assert len(names) == len(set(names)) == 200  # none twice
    assert hashes(out) == hashes(straight)
    assert not list(out.glob(".*"))  # nor what is left of a picture that was being written


def test_ctrl_c_finishes_what_is_in_hand(jobs, tmp_path):
    given, out = jobs(40), tmp_path / "out"
    before = signal.getsignal(signal.SIGINT)

    def interrupt(now):
        if now.done >= 8 and not report_was_stopped:
            report_was_stopped.append(True)
            signal.raise_signal(signal.SIGINT)

    report_was_stopped: list[bool] = []
    report = run(given, out, batch=4, progress=interrupt)
    assert report.stopped
    assert 8 <= len(report.done) < 40
    assert report.missing == 40 - len(report.done)
    assert set(hashes(out)) == {f"{record['name']}.png" for record in report.done}
    rest = run(given, out, batch=4)
    assert (len(rest.skipped), len(rest.done)) == (len(report.done), report.missing)
    assert signal.getsignal(signal.SIGINT) is before


def test_memory_urls(jobs, mask, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    given = jobs(3)
    moved = []
    for k, job in enumerate(given):
        memory.pipe_file(f"/run/in/{k}.png", Path(job.photo).read_bytes())
        settings = {**job.to_settings(), "photo": f"memory://run/in/{k}.png", "mask": "memory://run/mask.png"}
        moved.append(Request.from_settings(settings))
    memory.pipe_file("/run/mask.png", mask.read_bytes())
    memory.pipe_file("/run/in/2.png", b"spoilt")
    report = run(moved, "memory://run/out")
    assert len(report.done) == 2
    assert "memory://run/in/2.png" in report.failed[0]["error"]
    memory.pipe_file("/run/in/2.png", Path(given[2].photo).read_bytes())
    again = run(moved, "memory://run/out")
    assert (len(again.skipped), len(again.done)) == (2, 1)
    local = tmp_path / "local"
    run(given, local)
    data = memory.cat_file("/run/out/" + again.done[0]["output"])
    (tmp_path / "fetched.png").write_bytes(data)
    theirs, mine = read_picture(tmp_path / "fetched.png"), read_picture(local / "scan002.png")
    assert abs(theirs.pixels.astype(int) - mine.pixels.astype(int)).max() <= 1
    with pytest.raises(ValueError, match="not seen by other processes"):
        run(moved, "memory://run/out", engine="ray")


def test_memory_limits_the_batch(jobs, tmp_path):
    given = jobs(4)
    painter = Painter(given[0], Options("x"))
    cells = max(h * w for levels in painter.inpainter.sizes(given[0].photo, given[0].mask) for h, w, *_ in levels)
    assert painter.cell == bytes_per_cell(painter.inpainter.model) > 100
    report = run(given, tmp_path / "out", memory=painter.cell * cells * 2)
    assert {record["batch"] for record in report.done} == {2}


def test_wrong_calls(jobs, tmp_path):
    (job,) = jobs(1)
    for settings, says in (
        ({"engine": "magic"}, "no engine 'magic'"),
        ({"batch": 0}, "at least 1"),
        ({"suffix": ".xyz"}, "expected one of"),
    ):
        with pytest.raises(ValueError, match=says):
            run([job], tmp_path / "out", **settings)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        run([job], tmp_path / "file")
    with pytest.raises(ValueError, match="magic"):
        run([Task("a", Request.from_settings({**job.to_settings(), "model": "magic"}))], tmp_path / "out")
