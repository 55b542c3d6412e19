"""`paintback batch` on the real engine, with a tiny untrained model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from paintback.images import read_settings


@pytest.fixture
def folder(photo, mask, tmp_path):
    """Three pictures with a mask each."""
    for name in ("a", "b", "deep/c"):
        for kind, source in (("in", photo), ("masks", mask)):
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path)
    return tmp_path


@pytest.fixture
def quick(call, tiny_model):
    """`paintback batch ARGUMENTS` with the tiny model and two steps."""

    def run(*arguments):
        return call("batch", *arguments, "--model", tiny_model, "--steps", 2, "--threads", 1, "--method", "replacement")

    return run


def test_a_folder_is_done_once(quick, folder):
    arguments = (folder / "in", "--masks", folder / "masks", "-o", folder / "out")
    done = quick(*arguments, "--format", "json")
    assert done.code == 0, done.err
    assert (done.json["done"], done.json["skipped"], done.json["failed"], done.json["missing"]) == (3, 0, [], 0)
    assert {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*.png")} == {
        "a.png", os.path.join("deep", "c.png"), "b.png",
    }  # fmt: skip
    seeds = {read_settings(path)["seed"] for path in (folder / "out").rglob("*.png")}
    assert len(seeds) == 3
    again = quick(*arguments)
    assert again.code == 0
    assert "0 done, 3 done before, 0 failed, 0 missing" in again.out
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    foreseen = quick(*arguments, "--dry-run", "--format", "json")
    assert (foreseen.json["done"], foreseen.json["evaluations"]) == (3, 0)
    (folder / "out" / "a.png").write_bytes(b"another")
    foreseen = quick(*arguments, "--dry-run")
    assert "1 pictures, 0 that cannot be, 2 done before," in foreseen.out and "b  done before\n" in foreseen.out
    assert {path for path in (folder / "out").rglob("*") if path.is_file()} == set(before)
    more = quick(*arguments, "--seed", 1, "--format", "json")
    assert more.json["done"] == 3


def test_a_bad_picture_is_named_and_the_code_is_1(quick, folder):
    (folder / "in" / "b.png").write_text("no picture")
    done = quick(folder / "in", "--masks", folder / "masks", "-o", folder / "out")
    assert done.code == 1
    assert "b: " in done.out and "is not a picture" in done.out
    assert "2 done, 0 done before, 1 failed, 0 missing" in done.out
    shutil.copy(folder / "in" / "a.png", folder / "in" / "b.png")
    again = quick(folder / "in", "--masks", folder / "masks", "-o", folder / "out", "--format", "json")
    assert (again.code, again.json["done"], again.json["skipped"]) == (0, 1, 2)


def test_a_manifest_and_another_format(quick, folder):
    (folder / "rows.csv").write_text("photo,mask,seed,camera\nin/a.png,masks/a.png,7,old\nin/b.png,,,\n")
    done = quick(folder / "rows.csv", "--masks", folder / "masks", "-o", folder / "out", "--suffix", ".webp")
    assert done.code == 0, done.err + done.out
    assert "columns that mean nothing here: camera." in done.err
    assert sorted(path.name for path in (folder / "out" / "in").iterdir()) == ["a.webp", "b.webp"]
    records = [json.loads(line) for line in (folder / "out" / "manifest.jsonl").read_text().splitlines()]
    assert records[0]["seed"] == 7


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--masks", "alpha"], "is no folder, glob or manifest"),
        (["IN", "--masks", "nowhere"], "--masks 'nowhere' is no folder, glob or picture"),
        (["IN", "--masks", "alpha", "--method", "magic"], "magic"),
        (["IN", "--masks", "alpha", "--set", "magic=1"], "magic"),
        (["IN", "--masks", "alpha", "--device", "abacus"], "There is no device 'abacus'"),
        (["IN", "--masks", "alpha", "--device", "cuda:99"], "There is no device 'cuda:99' here ("),
        (["IN", "--masks", "alpha", "--engine", "magic"], "'magic' is not one of"),
        (["s4://bucket/in", "--masks", "alpha"], "no files behind s4://"),
    ],
)
def test_wrong_input_is_one_sentence(call, folder, tiny_model, arguments, says):
    arguments = [str(folder / "in") if argument == "IN" else argument for argument in arguments]
    done = call("batch", *arguments, "-o", folder / "out", "--model", tiny_model)
    assert done.code == 2, done.err
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not list(folder.rglob("out/*.png"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_finishes_the_batch_in_hand(photo, mask, tiny_model, tmp_path):
    (tmp_path / "in").mkdir()
    for k in range(60):
        Image.fromarray(np.roll(np.asarray(Image.open(photo)), k, 0)).save(tmp_path / "in" / f"{k:02}.png")
    command = [sys.executable, "-m", "paintback", "batch", tmp_path / "in", "--masks", mask, "-o", tmp_path / "out"]
    command += ["--model", tiny_model, "--method", "replacement", "--steps", "40", "--threads", "1", "--batch", "2"]
    command += ["--format", "json"]
    running = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    manifest = tmp_path / "out" / "manifest.jsonl"
    until = time.monotonic() + 300
    while time.monotonic() < until and not (manifest.exists() and manifest.read_bytes().count(b"\n") >= 2):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    said = json.loads(out)
    assert said["stopped"] and said["done"] + said["missing"] == 60 and 2 <= said["done"] < 60
    assert len(list((tmp_path / "out").glob("*.png"))) == said["done"] == manifest.read_bytes().count(b"\n")
    assert b"the same command does the rest" in err


def test_the_originals_are_never_overwritten(quick, folder):
    before = (folder / "in" / "a.png").read_bytes()
    done = quick(folder / "in", "--masks", folder / "masks/a.png", "-o", folder / "in")
    assert done.code == 2
    assert "would be written over" in done.err and "and 2 more" in done.err
    assert (folder / "in" / "a.png").read_bytes() == before
    assert not (folder / "in" / "manifest.jsonl").exists()


@pytest.mark.parametrize(
    ("out", "says"),
    [("in", "would be written over"), ("masks/a.png", "is a file; give a folder"), ("new", ""), ("spoilt", "manifest")],
)
def test_a_dry_run_is_refused_as_the_run_is_and_writes_nothing(quick, folder, out, says):
    (folder / "spoilt").mkdir()
    (folder / "spoilt" / "manifest.jsonl").write_text('{"photo": "a.png"}\n')
    before = sorted(folder.rglob("*"))
    done = quick(folder / "in", "--masks", folder / "masks", "-o", folder / out, "--dry-run")
    assert done.code == (2 if says else 0), done.err
    assert says in done.err
    assert sorted(folder.rglob("*")) == before


def test_masks_beside_and_what_is_left_out(quick, folder):
    for path in (folder / "masks").rglob("*.png"):
        shutil.copy(path, folder / "in" / path.relative_to(folder / "masks").parent / f"{path.stem}_mask001.png")
    (folder / "in" / "notes.psd").write_text("x")
    done = quick(folder / "in", "-o", folder / "out", "--format", "json")
    assert (done.code, done.json["done"]) == (0, 3), done.err
    assert "left out: notes.psd." in done.err
    assert {path.stem for path in (folder / "out").rglob("*.png")} == {"a", "b", "c"}
