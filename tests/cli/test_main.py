"""The entry point: fast help, exit codes, one sentence on stderr."""

from __future__ import annotations

import subprocess
import sys
import time

import click
import pytest

from paintback.cli import main as entry


def ask_for_help():
    command = [sys.executable, "-m", "paintback", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_help_names_all_commands():
    text = ask_for_help()
    assert all(name in text for name in ("inpaint", "demo", "methods", "models", "env", "train"))


@pytest.mark.timing
def test_help_is_fast():
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        ask_for_help()
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["inpaint", "--help"], ["train", "prior", "--help"], ["models"], ["demo", "-h"]],
)
def test_nothing_heavy_is_imported_for_small_talk(arguments):
    heavy = {"torch", "scipy", "diffusers", "ray", "fastapi", "transformers"}
    if arguments != ["models"]:
        heavy |= {"numpy", "PIL", "rich"}
    code = (
        "import sys\nfrom paintback.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
        f"bad = {heavy!r} & set(sys.modules)\nassert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_import_of_the_package_is_light():
    code = "import sys, paintback\nassert not {'diffusers', 'ray', 'fastapi', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "nonsense"),
        (["inpant"], "Did you mean 'inpaint'?"),
        (["train", "pior"], "Did you mean 'prior'?"),
        (["inpaint"], "PHOTO"),
        (["inpaint", "a.png", "b.png"], "-o OUT"),
        (["inpaint", "a.png", "b.png", "-o", "c.png", "--steps", "0"], "--steps"),
        (["inpaint", "a.png", "-o", "c.png", "--outpaint", "1,2"], "left,top,right,bottom"),
        (["methods", "dings"], "ding"),
        (["demo", "-o", "x", "--only", "nothing"], "scratches"),
        (["train", "prior", "--out", "x"], "--data"),
    ],
)
def test_wrong_input_is_code_2_and_one_line(call, arguments, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("paintback: ")
    assert done.err.count("\n") == 1
    assert part in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (RuntimeError("a\nbug"), 1),
        (MemoryError(), 1),
        (OSError(28, "No space left on device", "out.png"), 1),
        (PermissionError(13, "Permission denied", "out.png"), 2),
        (ValueError("wrong"), 2),
    ],
)
def test_exit_codes(call, monkeypatch, error, code):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(entry.paintback, "invoke", fail)
    monkeypatch.delenv("PAINTBACK_DEBUG", raising=False)
    done = call("env")
    assert done.code == code
    assert done.err.strip().startswith("paintback: ")
    assert done.err.strip().count("\n") == 0


def test_debug_shows_the_traceback(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(entry.paintback, "invoke", fail)
    monkeypatch.setenv("PAINTBACK_DEBUG", "1")
    with pytest.raises(RuntimeError, match="a bug"):
        entry.main(["env"])
