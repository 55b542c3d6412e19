"""`paintback bench`: methods from texts, files, resuming, errors."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paintback import methods
from paintback.bench import posterior
from paintback.cli import bench
from paintback.cli.main import main


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


TINY = Path(__file__).parents[1] / "recorded" / "tiny.safetensors"
SMALL = ("--problems", "A,E", "--steps", "2,4", "--particles", "50", "--seeds", "2", "--quiet")


def test_methods_from_texts() -> None:
    method = bench.method_of("lanpaint:inner_steps=10:big=false")
    assert method == methods.get("lanpaint", inner_steps=10, big=False)
    assert list(bench.chosen("ding, dps:zeta=0.1")) == ["ding", "dps:zeta=0.1"]
    assert list(bench.chosen("all")) == methods.names()
    assert set(bench.chosen("variants")) > set(methods.names())
    with pytest.raises(ValueError, match="valid methods"):
        bench.method_of("dingo")
    with pytest.raises(ValueError, match="no field"):
        bench.method_of("ding:zeta=1")


def test_posterior_writes_its_files(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = call("bench", "posterior", "--methods", "ddnm,dps:zeta=0.1", *SMALL, "-o", tmp_path / "o")
    assert code == 0, err
    assert "### A: 2-D Gaussian" in out and "### E" in out
    folder = tmp_path / "o"
    assert out == (folder / "posterior.md").read_text() + "\n"
    data = json.loads((folder / "posterior.json").read_text())
    assert {"paintback", "torch", "particles", "seeds", "grid"} <= set(data["protocol"])
    assert {(r["label"], r["problem"], r["steps"]) for r in data["rows"]} == {
        (label, problem, n) for label in ("ddnm", "dps:zeta=0.1") for problem in "AE" for n in (2, 4)
    }
    with Image.open(folder / "posterior.png") as image:
        assert image.width > 300
    assert len((folder / "cells.jsonl").read_text().splitlines()) == 2 * 2 * 2 * 2
    # again, as JSON, and nothing is run
    monkeypatch.setattr(posterior, "run_cell", None)
    code, out, _ = call(
        "bench", "posterior", "--methods", "ddnm,dps:zeta=0.1", *SMALL, "-o", folder, "--format", "json"
    )
    assert code == 0
    assert json.loads(out) == data


def test_what_is_left_out_is_said(call: Any, tmp_path: Path) -> None:
    """AID has a module where the prior is a Gaussian."""
    arguments = ["--methods", "aid", "--problems", "A,C,C2,B", "--steps", "2,3", "--particles", "20", "--quiet"]
    code, out, err = call("bench", "posterior", *arguments, "-o", tmp_path)
    assert code == 0
    assert "### A" in out and "### B" in out and "### C" not in out
    assert "aid was left out of C, C2: aid needs a guidance module" in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--methods", "dingo"], "valid methods"),
        (["--methods", ","], "names no method"),
        (["--steps", "10,x"], "--steps takes whole numbers"),
        (["--problems", "A,Q"], "Unknown problem"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_posterior_refuses(call: Any, tmp_path: Path, arguments: list[str], part: str) -> None:
    code, out, err = call("bench", "posterior", *arguments, "-o", tmp_path / "o")
    assert (code, out) == (2, "")
    assert part in err
    assert not (tmp_path / "o").exists()


def test_a_missing_matplotlib_is_said_first(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = call("bench", "posterior", "-o", tmp_path / "o")
    assert code == 2
    assert "paintback[bench]" in err
    assert not (tmp_path / "o").exists()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom paintback.cli.main import main\n"
        "try: main(['bench', 'posterior', '--help'])\nexcept SystemExit as stop: assert not stop.code\n"
        "bad = {'torch', 'matplotlib', 'numpy', 'scipy'} & set(sys.modules)\nassert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_holes(call: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    Image.fromarray(rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)).save(tmp_path / "photos" / "a.png")
    common = ["--photos", tmp_path / "photos", "--model", TINY, "--crop", "40", "--no-classical"]
    common += ["--steps", "2", "--samples", "2"]
    arguments = [*common, "--method", "ddnm", "--method", "ddnm:eta=0.5", "--pictures", tmp_path / "made"]
    code, out, err = call("bench", "holes", *arguments, "--format", "json")
    assert code == 0, err
    rows = json.loads(out)
    assert {row["lpips"] for row in rows} == {None}
    assert {row["filler"] for row in rows} == {
        f"{label}, {kind}" for label in ("ddnm", "ddnm:eta=0.5") for kind in ("one sample", "mean of 2")
    }
    assert {path.name for path in (tmp_path / "made").iterdir()} == {f"a-{m}.png" for m in ("scratches", "text", "box")}
    code, out, _ = call("bench", "holes", *common, "--method", "ddnm", "--limit", "1")
    assert code == 0 and "| scratches | ddnm, one sample |" in out
    assert "| ddnm, mean of 2 |" in out and "| 2 | 0 |" in out
    (tmp_path / "none").mkdir()
    code, _, err = call("bench", "holes", "--photos", tmp_path / "none", "--no-classical")
    assert code == 2 and "holds no picture" in err


def test_holes_of_kinds_and_sizes_at_equal_evaluations(call: Any, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in "ab":
        noise = np.random.default_rng(ord(name)).integers(0, 256, (40, 44, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{name}.png")
    methods = ["--method", "ddnm", "--method", "gradpaint:fraction=1"]
    wanted = ["--kinds", "box,scattered", "--sizes", "4,7", "--evaluations", "4", "--samples", "2", "--crop", "40"]
    usual = ["bench", "holes", "--photos", tmp_path / "photos", "--model", TINY, "--no-classical"]
    code, out, err = call(*usual, *methods, *wanted, "--pictures", tmp_path / "made", "--format", "json")
    assert code == 0, err
    assert "a-box-4.png" in {path.name for path in (tmp_path / "made").iterdir()}
    rows = json.loads(out)
    assert {row["mask"] for row in rows} == {"box 4", "box 7", "scattered 4", "scattered 7"}
    assert {row["evaluations"] for row in rows} == {4}
    assert {row["gradients"] for row in rows if row["filler"].startswith("gradpaint")} == {2}
    for row in rows:
        assert len(row["psnrs"]) == row["photographs"] == 2 and row["lpipses"] == []
        assert row["psnr"] == pytest.approx(np.mean(row["psnrs"])) and row["spread"] > 0
    for more, part in (
        (["--kinds", "hexagon"], "valid are scratches"),
        (["--sizes", "40"], "between 1 and the crop's 39"),
        (["--method", "gradpaint:fraction=1", "--evaluations", "1"], "allow more"),
    ):
        code, _, err = call(*usual, "--crop", "40", *more)
        assert code == 2 and part in err


def test_holes_names_what_is_missing(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "cv2" else find(name, *a))
    code, _, err = call("bench", "holes", "--photos", tmp_path)
    assert code == 2 and "cv2" in err and "--no-classical" in err
