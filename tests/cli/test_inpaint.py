"""`paintback inpaint` on the real Inpainter, with a tiny untrained model."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import paintback.tasks.superres as superres_task
from paintback.images import read_picture, read_settings
from paintback.tasks.inpaint import Inpainter


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def quick(call, tiny_model):
    """`paintback inpaint ARGUMENTS` with the tiny model and three steps."""

    def run(*arguments):
        return call("inpaint", *arguments, "--model", tiny_model, "--steps", 3, "--threads", 1)

    return run


def test_paints_the_hole_and_nothing_else(quick, photo, mask, tmp_path):
    out = tmp_path / "out.png"
    done = quick(photo, mask, "-o", out, "--format", "json", "--seed", 5, "--method", "replacement")
    assert done.code == 0, done.err
    (row,) = done.json["outputs"]
    assert (row["path"], row["seed"]) == (str(out), 5)
    assert row["evaluations"] >= 3
    assert row["seconds"] > 0
    hole = pixels(mask) > 0
    assert (pixels(out)[~hole] == pixels(photo)[~hole]).all()
    assert (pixels(out)[hole] != pixels(photo)[hole]).any()
    assert read_settings(out) == done.json["settings"]
    assert done.json["settings"]["method"] == "replacement"


def test_samples_are_numbered_and_each_can_be_remade_alone(quick, call, photo, mask, tmp_path):
    done = quick(photo, mask, "-o", tmp_path / "out.png", "--samples", 3, "--seed", 7, "--set", "sigma_y=0.05")
    assert done.code == 0, done.err
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out-1.png", "out-2.png", "out-3.png", "out-sheet.png"]
    assert not np.array_equal(pixels(tmp_path / "out-1.png"), pixels(tmp_path / "out-2.png"))
    alone = tmp_path / "alone.png"
    assert quick(photo, mask, "-o", alone, "--seed", 8, "--set", "sigma_y=0.05").code == 0
    assert alone.read_bytes() == (tmp_path / "out-2.png").read_bytes()
    again = call("inpaint", "--again", tmp_path / "out-3.png", "--format", "json")
    assert again.code == 0, again.err
    assert again.json["identical"] is True
    assert (tmp_path / "out-3-again.png").read_bytes() == (tmp_path / "out-3.png").read_bytes()
    assert read_settings(alone)["fields"]["sigma_y"] == 0.05


@pytest.mark.parametrize("command", ["inpaint", "superres"])
def test_a_sample_is_on_the_disk_before_the_next_one(call, tiny_model, photo, mask, tmp_path, monkeypatch, command):
    """What ends a run of hours takes none of the samples that are done."""
    if command == "inpaint":
        home, name, given = Inpainter, "__call__", (photo, mask)
    else:
        home, name, given = superres_task, "superres", (photo, "--method", "ddnm", "--kernel", "area")
    whole, runs = getattr(home, name), []

    def ended(*arguments, **options):
        runs.append(1)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(home, name, ended)
    options = ("--model", tiny_model, "--steps", 2, "--threads", 1, "--samples", 3)
    done = call(command, *given, "-o", tmp_path / "out.png", *options)
    assert done.code == 130, done.err
    assert [path.name for path in tmp_path.glob("out*")] == ["out-1.png"]
    assert read_settings(tmp_path / "out-1.png")["samples"] == 1


def test_again_finds_moved_files_and_refuses_others(quick, call, photo, mask, tmp_path):
    assert quick(photo, mask, "-o", tmp_path / "out.png").code == 0
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in (photo, mask, tmp_path / "out.png"):
        shutil.move(path, moved / path.name)
    assert call("inpaint", "--again", moved / "out.png", "--format", "json").json["identical"] is True
    Image.fromarray(255 - pixels(moved / "photo.png")).save(moved / "photo.png")
    refused = call("inpaint", "--again", moved / "out.png", "-o", moved / "no.png")
    assert refused.code == 2
    assert "is not the photo file" in refused.err
    (moved / "photo.png").unlink()
    assert "give the file's new path" in call("inpaint", "--again", moved / "out.png").err
    assert not (moved / "no.png").exists()


def test_again_takes_no_other_options_and_no_foreign_png(quick, call, photo, mask, tmp_path):
    assert quick(photo, mask, "-o", tmp_path / "out.png").code == 0
    done = call("inpaint", "--again", tmp_path / "out.png", "--steps", 9)
    assert done.code == 2
    assert "--steps" in done.err
    foreign = call("inpaint", "--again", photo)
    assert foreign.code == 2
    assert "no Paintback settings" in foreign.err


def test_outpaint_alpha_grow_and_blur(quick, photo, mask, tmp_path):
    out = tmp_path / "wide.png"
    assert quick(photo, "-o", out, "--outpaint", "3,0,5,2").code == 0
    assert pixels(out).shape == (32, 49, 3)
    assert (pixels(out)[:30, 3:44] == pixels(photo)).all()
    cut = tmp_path / "cut.png"
    Image.fromarray(np.dstack([pixels(photo), 255 - pixels(mask)])).save(cut)
    assert quick(cut, "alpha", "-o", tmp_path / "whole.png").code == 0
    whole = pixels(tmp_path / "whole.png")
    assert whole.shape == (30, 41, 4)
    assert (whole[..., 3] == 255).all()
    assert quick(photo, mask, "-o", tmp_path / "grown.png", "--grow", 2, "--blur", 1.5).code == 0
    changed = (pixels(tmp_path / "grown.png") != pixels(photo)).any(-1)
    assert changed[9, 15]
    assert not changed[:6].any()
    both = tmp_path / "both.png"
    assert quick(photo, mask, "-o", both, "--outpaint", "0,4,0,0").code == 0
    assert (pixels(both)[14:20, 12:20] != pixels(photo)[10:16, 12:20]).any()


def test_colour_profile_and_depth_survive(quick, photo, mask, tmp_path):
    profile = b"\0" * 128
    profiled = tmp_path / "profiled.png"
    Image.open(photo).save(profiled, icc_profile=profile)
    assert quick(profiled, mask, "-o", tmp_path / "out.png").code == 0
    assert Image.open(tmp_path / "out.png").info["icc_profile"] == profile
    grey = tmp_path / "grey16.png"
    Image.fromarray(np.arange(30 * 41, dtype=np.uint16).reshape(30, 41) * 50).save(grey)
    assert quick(grey, mask, "-o", tmp_path / "out16.png").code == 0
    before, after = read_picture(grey), read_picture(tmp_path / "out16.png")
    assert after.pixels.dtype == np.uint16
    assert (before.pixels[pixels(mask) == 0] == after.pixels[pixels(mask) == 0]).all()


def png_of(width, height):
    """The head of a PNG that promises a huge picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "case",
    ["missing", "not a picture", "truncated", "bomb", "mask size", "mask empty", "mask full", "mask missing", "method",
     "field", "value", "range", "model", "device", "folder", "suffix", "is a folder", "prompt", "no alpha"],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_leaves_nothing(quick, call, photo, mask, tmp_path, case):
    results = tmp_path / "results"
    results.mkdir()
    out, extra = results / "out.png", []
    if case == "missing":
        photo = tmp_path / "nowhere.png"
    elif case == "not a picture":
        photo.write_text("hello")
    elif case == "truncated":
        whole, photo = photo, tmp_path / "photo.jpg"
        Image.open(whole).save(photo)
        photo.write_bytes(photo.read_bytes()[:500])
    elif case == "bomb":
        photo.write_bytes(png_of(60_000, 60_000))
    elif case == "mask size":
        Image.open(mask).resize((20, 20)).save(mask)
    elif case == "mask empty":
        Image.new("L", (41, 30)).save(mask)
    elif case == "mask full":
        Image.new("L", (41, 30), 255).save(mask)
    elif case == "mask missing":
        mask = tmp_path / "nowhere.png"
    elif case == "method":
        extra = ["--method", "magic"]
    elif case == "field":
        extra = ["--set", "magic=1"]
    elif case == "value":
        extra = ["--set", "sigma_y=much"]
    elif case == "range":
        extra = ["--set", "sigma_y=-1"]
    elif case == "model":
        extra = ["--model", "magic"]
    elif case == "device":
        extra = ["--device", "abacus"]
    elif case == "folder":
        out = results / "missing" / "out.png"
    elif case == "suffix":
        out = results / "out.xyz"
    elif case == "is a folder":
        out = results
    elif case == "prompt":
        extra = ["--prompt", "a cat"]
    elif case == "no alpha":
        mask = "alpha"
    done = call("inpaint", photo, mask, "-o", out, *extra) if case == "model" else quick(photo, mask, "-o", out, *extra)
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.startswith("paintback: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert not list(results.iterdir())


def cpu_seconds(pid):
    """CPU time of a process, which does not pass while others have the processor; Linux tells it."""
    entries = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(entries[11]) + int(entries[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_nothing(photo, mask, tiny_model, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    command = [sys.executable, "-m", "paintback", "inpaint", photo, mask, "-o", results / "out.png"]
    running = subprocess.Popen(
        [*command, "--model", tiny_model, "--steps", "100000", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    libraries = Path(f"/proc/{running.pid}/maps")
    while "torch" not in libraries.read_text():  # until the command is at work, however busy the machine
        assert running.poll() is None
        time.sleep(0.1)
    began = cpu_seconds(running.pid)
    while cpu_seconds(running.pid) < began + 12:  # past all imports, on a slow machine too
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert out == b""
    assert err.splitlines()[-1] == b"paintback: interrupted."  # after lines of progress, where the machine is slow
    assert not list(results.iterdir())
