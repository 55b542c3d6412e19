"""Options come from the request, and every one of them reaches the painting, of a picture, a batch and a plan."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import click
import numpy as np
import pytest
from PIL import Image

from paintback.cli.audio import audio
from paintback.cli.inpaint import inpaint
from paintback.cli.layers import layers
from paintback.cli.superres import superres
from paintback.images import read_settings
from paintback.painting.request import AudioRequest, LayersRequest, Request, SuperresRequest, options


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def quick(call, tiny_model):
    """`paintback COMMAND ARGUMENTS` with the tiny model and a few steps."""
    return lambda *arguments: call(
        *arguments, "--model", tiny_model, "--threads", 1, *([] if "--steps" in arguments else ["--steps", 4])
    )


@pytest.mark.parametrize(
    ("command", "kind"),
    [(inpaint, Request), (audio, AudioRequest), (superres, SuperresRequest), (layers, LayersRequest)],
)
def test_the_help_has_every_entry_with_its_sentence(command, kind):
    with click.Context(command, terminal_width=500, max_content_width=500) as context:
        text = command.get_help(context)
    for one in options(kind):
        offered = "cli" in one.where and (one.group != "file" or one.name == "hole")  # which may be repeated
        assert (one.flag in text.split()) == offered, one.name
        assert one.help in text or not offered


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--grow", "nan"], "'--grow': must be a finite number; got nan."),
        (["--blur", "-1"], "'--blur': must be at least 0; got -1.0."),
        (["--steps", "2.5"], "'--steps': must be a whole number; got '2.5'."),
        (["--steps", "0"], "'--steps': must be at least 1; got 0."),
        (["--strength", "0"], "'--strength': must be above 0"),
        (["--quality", "better"], "'--quality': must be one of fast, good, best; got 'better'."),
        (["--mask-is", "blue"], "'--mask-is': is none of those that there are"),
        (["--outpaint", "1,2"], "takes one number for all sides, or four, left,top,right,bottom"),
        (["--outpaint", "1,2,3,x"], "'--outpaint': must be a whole number; got 'x'."),
        (["--dtype", "int8"], "'--dtype': must be one of float32"),
        (["--seed", "-2"], "'--seed': must be at least -1; got -2."),
        (["--guidance", "inf"], "'--guidance': must be a finite number"),
    ],
)
def test_a_value_that_does_not_fit_is_said_by_its_flag(call, arguments, says):
    for command in (["inpaint", "a.png", "b.png", "-o", "c.png"], ["batch", "in", "-o", "out"]):
        done = call(*command, *arguments)
        assert done.code == 2
        assert says in done.err
        assert done.err.count("\n") == 1


def test_all_sides_at_once(quick, photo, tmp_path):
    assert quick("inpaint", photo, "-o", tmp_path / "a.png", "--outpaint", 3).code == 0
    assert quick("inpaint", photo, "-o", tmp_path / "b.png", "--outpaint", "3,3,3,3").code == 0
    assert pixels(tmp_path / "a.png").shape == (36, 47, 3)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "evaluations"),
    [
        (["--method", "replacement", "--strength", "0.5"], 2),
        (["--method", "replacement", "--average", "3"], 12),
        (["--method", "replacement", "--quality", "best"], 32),
        (["--method", "replacement", "--quality", "best", "--average", "1"], 4),
        (["--method", "replacement", "--padding", "2"], 4),
    ],
)
def test_what_is_asked_reaches_a_picture_a_batch_and_the_plan(quick, photo, mask, tmp_path, arguments, evaluations):
    out = tmp_path / "out.png"
    done = quick("inpaint", photo, mask, "-o", out, "--seed", 5, "--format", "json", *arguments)
    assert done.code == 0, done.err
    assert done.json["outputs"][0]["evaluations"] == evaluations
    plan = quick("inpaint", photo, mask, "--dry-run", "--format", "json", *arguments).json
    assert plan["evaluations"] == evaluations
    (tmp_path / "rows.jsonl").write_text(json.dumps({"photo": "photo.png", "mask": "mask.png", "seed": 5, "name": "b"}))
    many = quick("batch", tmp_path / "rows.jsonl", "-o", tmp_path / "many", *arguments)
    assert many.code == 0, many.err
    assert (pixels(tmp_path / "many/b.png") == pixels(out)).all()
    record = json.loads((tmp_path / "many/manifest.jsonl").read_text())
    assert record["evaluations"] == evaluations
    recorded = read_settings(tmp_path / "many/b.png")
    assert {name: value for name, value in recorded.items() if name != "batch"} == record["job"]
    own = {"photo": str(photo), "mask": str(mask)}
    assert {**record["job"], **own} == {**read_settings(out), **own}
    foreseen = quick(
        "batch", tmp_path / "rows.jsonl", "-o", tmp_path / "new", "--dry-run", "--format", "json", *arguments
    )
    assert foreseen.json["evaluations"] == evaluations


def test_columns_of_a_manifest_are_the_options_of_a_row(quick, photo, mask, tmp_path):
    columns = "photo,mask,name,strength,average,quality,mask_is,padding,leaky_encoding,fields,outpaint\n"
    rows = 'photo.png,mask.png,a,0.5,2,fast,white,3,false,"{""sigma_y"": 0.1}","0,0,2,0"\n'
    (tmp_path / "rows.csv").write_text(columns + rows)
    done = quick("batch", tmp_path / "rows.csv", "-o", tmp_path / "out", "--method", "ding")
    assert done.code == 0, done.out
    told = read_settings(tmp_path / "out/a.png")
    wanted = {
        "strength": 0.5,
        "average": 2,
        "quality": "fast",
        "mask_is": "white",
        "padding": 3,
        "outpaint": [0, 0, 2, 0],
    }
    assert {name: told[name] for name in wanted} == wanted
    assert told["fields"]["sigma_y"] == 0.1
    assert "columns that mean nothing" not in done.err


def test_the_kind_of_a_mask_is_settled_by_its_option(quick, photo, mask, tmp_path):
    inverted = tmp_path / "black.png"
    Image.fromarray(255 - pixels(mask)).save(inverted)
    assert quick("inpaint", photo, mask, "-o", tmp_path / "a.png").code == 0
    assert quick("inpaint", photo, inverted, "-o", tmp_path / "b.png", "--mask-is", "black").code == 0
    assert (pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")).all()
    assert read_settings(tmp_path / "b.png")["mask_is"] == "black"


def test_samples_of_best_are_remade_alone(quick, call, photo, mask, tmp_path):
    """Best averages draws for a single answer and not for several, of which each is still remade by itself."""
    done = quick("inpaint", photo, mask, "-o", tmp_path / "out.png", "--samples", 2, "--quality", "best")
    assert done.code == 0, done.err
    assert call("inpaint", "--again", tmp_path / "out-2.png", "--format", "json").json["identical"] is True


def test_a_random_seed_is_recorded(quick, call, photo, mask, tmp_path):
    seeds = set()
    for _ in range(3):
        done = quick("inpaint", photo, mask, "-o", tmp_path / "out.png", "--seed", -1, "--format", "json")
        seeds.add(done.json["outputs"][0]["seed"])
        assert read_settings(tmp_path / "out.png")["seed"] == done.json["outputs"][0]["seed"] >= 0
    assert len(seeds) == 3
    assert call("inpaint", "--again", tmp_path / "out.png", "--format", "json").json["identical"] is True
    done = quick("batch", photo, "--masks", mask, "-o", tmp_path / "out", "--seed", -1)
    assert "is no folder" in done.err
    (tmp_path / "in").mkdir()
    photo.rename(tmp_path / "in/photo.png")
    done = quick("batch", tmp_path / "in", "--masks", mask, "-o", tmp_path / "out", "--seed", -1)
    seed = done.err.partition("--seed ")[2].split()[0]
    again = quick("batch", tmp_path / "in", "--masks", mask, "-o", tmp_path / "out", "--seed", seed, "--format", "json")
    assert (again.json["skipped"], again.json["done"]) == (1, 0)


def test_a_dry_run_writes_nothing(quick, photo, mask, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = quick("inpaint", photo, mask, "--dry-run", "--samples", 2)
    assert done.code == 0, done.err
    assert "2 samples, each: ding, 4 steps, 7 evaluations, 0 gradients; about" in done.out
    many = quick("batch", tmp_path, "--masks", mask, "-o", tmp_path / "out", "--dry-run")
    assert "1 pictures, 0 that cannot be, 7 evaluations; about" in many.out, many.err
    assert sorted(tmp_path.iterdir()) == before


def test_grey_with_alpha_is_painted_and_stays_what_it_is(quick, photo, mask, tmp_path):
    grey = np.dstack([pixels(photo)[..., 0], np.full((30, 41), 255, np.uint8)])
    (tmp_path / "in").mkdir()
    Image.fromarray(grey, "LA").save(tmp_path / "in/grey.png")
    assert quick("inpaint", tmp_path / "in/grey.png", mask, "-o", tmp_path / "a.png").code == 0
    assert quick("batch", tmp_path / "in", "--masks", mask, "-o", tmp_path / "out").code == 0
    hole = pixels(mask) > 0
    for path in (tmp_path / "a.png", tmp_path / "out/grey.png"):
        assert Image.open(path).mode == "LA"
        assert (pixels(path)[~hole] == grey[~hole]).all()


def test_what_is_wrong_with_a_pipe_is_said_of_stdin(call, mask, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello")))
    done = call("inpaint", "-", mask, "-o", tmp_path / "x.png")
    assert done.code == 2
    assert done.err.startswith("paintback: stdin is not a picture")


@pytest.mark.parametrize("piped", ["photo", "mask"])
def test_pipes(photo, mask, tiny_model, tmp_path, piped, call):
    common = ["--model", str(tiny_model), "--steps", "2", "--threads", "1"]
    command = [sys.executable, "-m", "paintback", "inpaint"]
    names = ["-" if piped == "photo" else str(photo), "-" if piped == "mask" else str(mask)]
    given = (photo if piped == "photo" else mask).read_bytes()
    done = subprocess.run([*command, *names, "-o", "-", *common], input=given, capture_output=True, check=True)
    (tmp_path / "piped.png").write_bytes(done.stdout)
    assert call("inpaint", photo, mask, "-o", tmp_path / "plain.png", *common).code == 0
    assert (pixels(tmp_path / "piped.png") == pixels(tmp_path / "plain.png")).all()
    settings = read_settings(tmp_path / "piped.png")
    assert settings[piped] == "-"
    assert settings["sha256"][piped] == read_settings(tmp_path / "plain.png")["sha256"][piped]


def test_a_pipe_holds_one_picture(call, photo, mask, tiny_model):
    done = call("inpaint", photo, mask, "-o", "-", "--samples", 2, "--model", tiny_model, "--steps", 2)
    assert (done.code, "stdout holds one picture" in done.err) == (2, True)


def test_two_pipes_are_one_too_many(call):
    done = call("inpaint", "-", "-", "-o", "out.png")
    assert (done.code, "not both" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "offered"), [("inpaint --quality ", {"fast", "good", "best"}), ("inpaint --model pho", {"photo"})]
)
def test_the_shell_completes_choices(words, offered):
    from click.shell_completion import ShellComplete

    from paintback.cli.main import paintback

    *before, incomplete = words.split(" ")
    found = ShellComplete(paintback, {}, "paintback", "_PAINTBACK_COMPLETE").get_completions(before, incomplete)
    assert {item.value for item in found} == offered
