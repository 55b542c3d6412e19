"""No command writes over what it reads, nor finds out after the work that it cannot write."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from PIL import Image

import paintback.cli.output as output
from paintback.painting.layout import Plan, Stage


@pytest.fixture
def quick(call, tiny_model):
    """`paintback COMMAND ARGUMENTS` with the tiny model and two steps."""
    return lambda *arguments: call(*arguments, "--model", tiny_model, "--steps", 2, "--threads", 1)


@pytest.mark.parametrize("way", ["itself", "a link", "a hard link", "the mask", "a sample", "the sheet"])
def test_inpaint_refuses_to_write_over_its_input(quick, photo, mask, tmp_path, way):
    out, more = photo, ()
    if way == "a link":
        out = tmp_path / "link.png"
        out.symlink_to(photo)
    elif way == "a hard link":
        out = tmp_path / "hard.png"
        out.hardlink_to(photo)
    elif way == "the mask":
        out = mask
    elif way in ("a sample", "the sheet"):
        shutil.move(photo, tmp_path / ("x-2.png" if way == "a sample" else "x-sheet.png"))
        photo, out, more = tmp_path / ("x-2.png" if way == "a sample" else "x-sheet.png"), tmp_path / "x.png", (
            "--samples", 2,
        )  # fmt: skip
    before = photo.read_bytes(), mask.read_bytes()
    done = quick("inpaint", photo, mask, "-o", out, *more)
    assert done.code == 2
    assert "would be written over; give another name, or say --overwrite." in done.err
    assert (photo.read_bytes(), mask.read_bytes()) == before
    assert quick("inpaint", photo, mask, "-o", out, "--overwrite", *more).code == 0
    assert (photo.read_bytes(), mask.read_bytes()) != before or way in ("a link", "a hard link")


def test_again_refuses_to_write_over_the_png(quick, call, photo, mask, tmp_path):
    out = tmp_path / "out.png"
    assert quick("inpaint", photo, mask, "-o", out).code == 0
    assert "--overwrite" in call("inpaint", "--again", out, "-o", out).err
    assert call("inpaint", "--again", out, "-o", out, "--overwrite", "--format", "json").json["identical"] is True


def test_superres_and_layers_refuse_too(quick, photo, tmp_path):
    before = photo.read_bytes()
    assert "--overwrite" in quick("superres", photo, "-o", photo).err
    folder = tmp_path / "parts"
    folder.mkdir()
    shutil.move(photo, folder / "mask.png")
    small = ("--set", "samples=2", "--set", "inner_steps=1")
    assert "--overwrite" in quick("layers", folder / "mask.png", "-o", folder, *small).err
    assert (folder / "mask.png").read_bytes() == before
    assert quick("layers", folder / "mask.png", "-o", folder, "--overwrite", *small).code == 0
    assert Image.open(folder / "mask.png").mode == "L"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("写" * 84 + ".png", "has 256 bytes, expected at most 255"),
        ("nowhere/x.png", "does not exist; make it"),
        ("folder", "is a folder"),
        ("photo.png/x.png", "photo.png' is a file; give a folder"),
        ("photo.png/y/x.png", "photo.png' is a file; give a folder"),
        ("/", "'/' is a folder; give the name of a file in it."),
        ("x.pgm", "is PGM, which cannot hold colours; write .ppm"),
    ],
)
def test_a_name_that_cannot_be_written_is_said_before_the_work(call, photo, mask, tmp_path, name, says):
    (tmp_path / "folder").mkdir()
    done = call("inpaint", photo, mask, "-o", tmp_path / name, "--model", "no model is looked for before that")
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1


def test_a_long_name_is_written(quick, photo, mask, tmp_path):
    out = tmp_path / ("写" * 79 + ".png")
    assert len(os.fsencode(out.name)) == 241
    assert quick("inpaint", photo, mask, "-o", out).code == 0
    assert Image.open(out).size == (41, 30)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("inpaint", "photo.png", "mask.png", "-o", "."), "'.' is a folder; give the name of a file in it."),
        (("inpaint", "photo.png", "mask.png", "-o", ""), "'.' is a folder; give the name of a file in it."),
        (("inpaint", "--again", "."), "give a complete PNG file"),
        (("superres", "photo.png", "-o", "."), "'.' is a folder; give the name of a file in it."),
        (("layers", "photo.png", "-o", "mask.png"), "'mask.png' is a file; give a folder"),
        (("demo", "-o", "mask.png"), "'mask.png' is a file; give a folder"),
        (("demo", "-o", "mask.png/x"), "'mask.png' is a file; give a folder"),
    ],
)
def test_a_file_and_a_folder_are_told_apart(call, photo, mask, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert says in done.err
    assert sorted(tmp_path.iterdir()) == [mask, photo]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fdinfo"), reason="needs a folder that takes no files from anybody")
def test_a_folder_that_takes_no_files(call, photo, mask):
    done = call(
        "inpaint", photo, mask, "-o", "/proc/self/fdinfo/x.png", "--model", "no model is looked for before that"
    )
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "cannot be written" in done.err


def plan(*stages):
    """A plan of (steps, evaluations, side) that are painted one after another."""
    return Plan(
        tuple(
            Stage(0, None, None, (side, side), 1, 1, steps=steps, evaluations=evaluations)
            for steps, evaluations, side in stages
        )
    )


def test_piped_output_has_a_line_every_ten_seconds(monkeypatch, capsys):
    assert output.LINES_EVERY == 10
    monkeypatch.setattr(output, "LINES_EVERY", 0.02)
    with output.working(2, quiet=False) as progress:
        progress.part("ding, sample 2 of 2", plan((8, 16, 4)))
        progress.part("ding, sample 2 of 2", plan((8, 16, 4)))
        for _ in range(4):
            progress.step()
        until = time.monotonic() + 5
        said = ""
        while "step 4 of 8" not in said and time.monotonic() < until:
            said += capsys.readouterr().err
    assert "ding, sample 2 of 2: step 4 of 8, 75%, 0 s so far, 0 s left." in said
    with output.working(1, quiet=True) as progress:
        progress.part("ding")
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_time_left_follows_the_share_that_is_done(monkeypatch):
    now = 100.0
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    count = output.Count(2)
    count.part("one", plan((5, 5, 8), (5, 15, 8)))
    assert (count.fraction, count.left) == (0, None)
    for _ in range(5):
        count.step()
    now = 130.0
    assert (count.fraction, count.left) == (0.125, 210)  # a step of the second stage costs three times as much
    assert str(count) == "one: step 5 of 10, 12%, 30 s so far, 4 min left"
    count.part("two")
    count.step()
    assert (count.fraction, str(count)) == (None, "two: step 1, 30 s so far")


def test_a_task_without_a_plan_says_how_many_steps_there_are(monkeypatch):
    now = 100.0
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    count = output.Count(1)
    count.part("layers")
    assert str(count) == "layers: step 0, 0 s so far"
    count.expect(20)
    for _ in range(5):
        count(0, 0.5, None, None)
    now = 130.0
    assert str(count) == "layers: step 5 of 20, 25%, 30 s so far, 90 s left"
