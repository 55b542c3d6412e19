"""`paintback bench images` from the command line to the numbers."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student

from paintback.bench.pictures import runner, worker
from paintback.bench.pictures.cases import make_cases
from paintback.bench.pictures.cell import Cell, read_rows
from paintback.bench.pictures.runner import read_cells
from paintback.bench.pictures.suite import load_suite
from paintback.bench.pictures.summary import ALL, read_results
from paintback.bench.pictures.worker import Order
from tests.bench.pictures.conftest import BUDGET, METHODS, said_here, write_idx_folder, write_pictures, write_suite
from tests.models import tiny_pipelines as tiny

MEASURED = {"seconds", "peak_memory_bytes"}


def command(suite, data, out, *more, names=METHODS):
    return ("bench", "images", suite, "--data", data, "--methods", names, "--quiet", "-o", out, *more)


def results(out):
    """The rows of results.parquet without what is measured anew in every run."""
    rows = read_rows(out / "results.parquet")
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def state(out):
    """When every file of a run was written, and what is in it, but for the summaries."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and path.parent != out]
    return {
        path.name + str(path.parent): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in paths
    }


def painted(out):
    """The pictures by label, name, mask and sample."""
    found = {}
    for cell, folder in read_cells(out):
        for path in sorted(folder.glob("part-*.parquet")):
            for row in read_rows(path):
                pixels = np.asarray(Image.open(io.BytesIO(row["png"])))
                found[cell.label, row["picture"], row["mask"], row["sample"]] = pixels
    return found


# One finished run --------------------------------------------------------------------------------------------------


def test_known_pixels_are_the_pictures_own(done, idx):
    suite, out = done
    first, further = make_cases(load_suite(str(suite)), idx)
    cases = {(case.picture, case.mask, case.sample): case for case in (*first, *further)}
    made = painted(out)
    # 4 pictures x 2 masks and one more sample of a picture's; the method with gradients paints 2 pictures
    counts = {label: sum(key[0] == label for key in made) for label in ("ddnm", "ding", "dps")}
    assert counts == {"ddnm": 10, "ding": 10, "dps": 6}
    for (_, *key), pixels in made.items():
        case = cases[tuple(key)]
        assert pixels.shape == case.truth.shape
        assert np.array_equal(pixels[~case.hole], case.truth[~case.hole])
        assert not np.array_equal(pixels[case.hole], case.truth[case.hole])
    assert len({pixels.tobytes() for pixels in made.values()}) == len(made)


def test_the_numbers_are_those_of_the_pictures(done, idx):
    """PSNR, its mean, interval and the spread of samples by hand."""
    suite, out = done
    first, _ = make_cases(load_suite(str(suite)), idx)
    cases = {(case.picture, case.mask): case for case in first}
    made = painted(out)
    psnr = {}
    for (label, name, mask, sample), pixels in made.items():
        case = cases[name, mask]
        error = ((pixels[case.hole] / 255.0 - case.truth[case.hole] / 255.0) ** 2).mean()
        psnr[label, name, mask, sample] = -10 * math.log10(error)
    rows = read_rows(out / "results.parquet")
    assert {(row["label"], row["picture"], row["mask"], row["sample"]): row["psnr"] for row in rows} == pytest.approx(
        psnr, abs=1e-4
    )
    summary = json.loads((out / "summary.json").read_text())["rows"]
    assert {(row["label"], row["mask"], row["common"]) for row in summary} == {
        (label, mask, common)
        for label in ("ddnm", "ding", "dps")
        for mask in ("box", "half", ALL)
        for common in (False, True)
    }
    for row in summary:
        masks = ["box", "half"] if row["mask"] == ALL else [row["mask"]]
        names = sorted({name for label, name, _, _ in made if label == row["label"]})
        names = names[:2] if row["common"] else names  # what dps painted too
        by_picture = [np.mean([psnr[row["label"], name, mask, 0] for mask in masks]) for name in names]
        assert (row["pictures"], row["budget"]) == (len(names), BUDGET)
        assert row["means"]["psnr"] == pytest.approx(np.mean(by_picture), abs=1e-4)
        half = student.ppf(0.975, len(names) - 1) * np.std(by_picture, ddof=1) / len(names) ** 0.5
        assert row["intervals"]["psnr"] == pytest.approx(half, abs=1e-4)
        spread = []
        for mask in masks:
            hole = cases["00000", mask].hole
            pair = [made[row["label"], "00000", mask, sample][hole].astype(float) for sample in (0, 1)]
            spread.append(math.sqrt(((pair[0] - pair[1]) ** 2 / 2).mean()))
        assert row["diversity"] == pytest.approx(np.mean(spread))


def test_cost_is_counted_and_within_the_budget(done):
    _, out = done
    by_label = {row["label"]: row for row in results(out)}
    assert {label: (row["steps"], row["evaluations"], row["vjps"]) for label, row in by_label.items()} == {
        "ddnm": (6, 6, 0), "ding": (3, 5, 0), "dps": (3, 3, 3),
    }  # fmt: skip
    for row in read_rows(out / "results.parquet"):
        assert row["evaluations"] + row["vjps"] <= BUDGET
        assert row["seconds"] > 0
        assert row["accuracy"] in (0, 1) and -1 <= row["ssim"] <= 1


def test_saying_it_again_paints_nothing(done, idx, call, monkeypatch):
    suite, out = done
    before = state(out)
    told = []
    monkeypatch.setattr(runner, "_lines", lambda order, *more: told.append(said_here(order)) or told[-1])
    monkeypatch.setattr(worker, "open_model", None)
    code, _, err = call(*command(suite, idx, out, "--budget", BUDGET))
    assert code == 0, err
    assert [lines[-1] for lines in told] == [{"done": True}] * 3
    assert state(out) == before


def test_another_protocol_is_refused(done, idx, call, tmp_path):
    suite, out = done
    other = write_idx_folder(tmp_path / "other", seed=5)
    before = state(out)
    for data, more, entry in (
        (idx, ("--batch", 3), "batch (25 there, 3 now)"),
        (other, (), "data_sha256"),
        (idx, ("--limit", 3), "data_sha256"),
        (idx, ("--threads", 2), "threads (1 there, 2 now)"),
        (idx, ("--model", "photo"), 'model ("fashion" there, "photo" now)'),
    ):
        code, _, err = call(*command(suite, data, out, "--budget", BUDGET, *more))
        assert code == 2
        assert f"made under another protocol, which differs in {entry}" in err
        assert err.count("\n") == 1
    changed = write_suite(tmp_path, metrics=["psnr", "ssim"])
    code, _, err = call(*command(changed, idx, out, "--budget", BUDGET))
    assert code == 2 and "differs in metrics.accuracy" in err
    assert state(out) == before


# What is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--budget", 6, "--seconds", 1), "Give --budget or --seconds, not both."),
        (("--methods", "dingo"), "valid methods"),
        (("--methods", "ding:zeta=1"), "no field"),
        (("--methods", ","), "--methods names no method"),
        (("--methods", "trained:x=1"), "trained"),
        (("--methods", "fcs", "--budget", 1), "no method is within the budget"),
        (("--lpips", "SUITE"), "is not a readable safetensors file"),
        (("--tuned", "SUITE"), "is not a record of `paintback bench tune`"),
        (("--model", "none"), "There is no model 'none'"),
    ],
)
def test_wrong_input(more, message, idx, call, here, tmp_path):
    suite, out = write_suite(tmp_path, metrics=["psnr", "lpips"], gradient_pictures=None), tmp_path / "out"
    given = [suite if part == "SUITE" else part for part in more]
    code, printed, err = call(*command(suite, idx, out, *given))
    assert message in err
    if message.startswith("There is no model"):
        assert code == 1  # every method fails, as the model is opened by the processes that paint
    else:
        assert (code, printed) == (2, "")
        assert not out.exists()


def test_a_method_that_fails_is_reported_and_the_rest_done(idx, call, here, tmp_path):
    """The model takes no mask, so that `trained` fails; `fcs` costs more than the budget."""
    suite, out = write_suite(tmp_path, data=small_data(idx), diversity=None), tmp_path / "out"
    code, _, err = call(*command(suite, idx, out, "--budget", 1, names="trained,ddnm,fcs"))
    assert code == 1
    lines = err.splitlines()
    assert "fcs was left out: One step of fcs costs 11 evaluations, more than the budget of 1." in lines[0]
    assert "trained @ 1: method='trained' needs a checkpoint that takes the mask" in lines[1]
    assert lines[2].startswith("paintback: wrote ")
    assert "1 of 2 methods failed; say the same again" in lines[3]
    assert [row["label"] for row in json.loads((out / "summary.json").read_text())["rows"]] == ["ddnm"] * 3


def small_data(idx):
    return {**load_suite("fashion-32").data, "first": 0, "stop": 1, "validation": [8, 9]}


def order(tmp_path, idx, **changes):
    suite = load_suite(str(write_suite(tmp_path, data=small_data(idx))))
    cell = Cell("ddnm", "ddnm", {}, 2, None, 2)
    given = {
        "suite": suite.to_dict(), "data": str(idx), "limit": None, "model": "fashion", "cell": cell.to_dict(),
        "out": str(tmp_path / "out"), "batch": 4, "threads": 1, "device": None, "dtype": None,
    }  # fmt: skip
    return Order(**given | changes)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("import sys; sys.exit(3)", "The process ended with 3: it said nothing"),
        ("raise KeyError('x')", "The process ended with 1: KeyError: 'x'"),
        ("import os; os.kill(os.getpid(), 9)", "The process ended with -9: it said nothing"),
        ("import sys; sys.stderr.write('w' * 10**6); sys.stderr.flush(); print('{\"done\": true}')", None),
        ("print(1); print('x'); print('[\"done\"]'); print('{\"done\": true}')", None),
        ('print(\'{"error": "It is so."}\')', "It is so."),
    ],
)
def test_what_a_process_says(script, error, tmp_path, idx, monkeypatch):
    """Whatever it does, a run neither hangs nor ends by it."""
    (tmp_path / "python").write_text(f"#!{sys.executable}\n{script}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(runner.sys, "executable", str(tmp_path / "python"))
    (finished,) = runner.run_cells([order(tmp_path, idx)])
    assert finished.error == error


def test_a_process_of_its_own_paints_the_same(done, idx, tmp_path):
    """One method by `python -m`, as the command does it."""
    suite, whole = done
    cell = next(cell for cell, _ in read_cells(whole) if cell.label == "ddnm")
    told = []
    given = order(tmp_path, idx, suite=load_suite(str(suite)).to_dict(), cell=cell.to_dict(), batch=25)
    assert runner.run_cells([given], progress=told.append) == [runner.Finished(cell)]
    assert [(now.painted, now.of) for now in told] == [(4, 10), (8, 10), (9, 10), (10, 10)]
    here, there = painted(whole), painted(tmp_path / "out")
    assert len(there) == 10
    assert all(np.array_equal(here[key], there[key]) for key in there)


# Further ways to run -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_seconds_in_place_of_evaluations(idx, call, here, tmp_path):
    suite, out = write_suite(tmp_path, data=small_data(idx), diversity=None), tmp_path / "out"
    code, _, err = call(*command(suite, idx, out, "--seconds", 3, names="ddnm,ding"))
    assert code == 0, err
    cells = [cell for cell, _ in read_cells(out)]
    assert {(cell.label, cell.budget, cell.seconds) for cell in cells} == {("ddnm", None, 3), ("ding", None, 3)}
    steps = {cell.label: cell.steps for cell in cells}
    assert steps["ddnm"] > 4 and steps["ding"] >= 2
    for row in read_rows(out / "results.parquet"):
        assert row["budget"] is None and row["budget_seconds"] == 3 and row["steps"] == steps[row["label"]]
    before = state(out)
    assert call(*command(suite, idx, out, "--seconds", 3, names="ddnm,ding"))[0] == 0
    assert state(out) == before  # the steps that were measured are kept
    code, _, err = call(*command(suite, idx, out, "--seconds", 1e-6, names="ddnm"))
    assert code == 1 and "One step of ddnm takes longer than 1e-06 s; allow more." in err


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_where_it_was(done, idx, tmp_path, here, call):
    """The command and its processes are killed in the middle; the same again gives what an unbroken run does."""
    suite, whole = done
    out = tmp_path / "out"
    given = command(suite, idx, out, "--budget", BUDGET)
    process = subprocess.Popen(
        [sys.executable, "-m", "paintback", *map(str, given)], start_new_session=True, stderr=subprocess.DEVNULL
    )
    began = time.monotonic()
    while len(list(out.glob("cells/*/part-*.parquet"))) < 2 and time.monotonic() - began < 300:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    there = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/part-*.parquet")}
    assert 2 <= len(there) < len(list(whole.glob("cells/*/part-*.parquet")))
    assert not (out / "results.parquet").exists()
    code, _, err = call(*given)
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert results(out) == results(whole)


@pytest.mark.slow
def test_results_that_lie_there_are_told_with_a_failure(done, idx, tmp_path, here, call):
    """A further method that fails leaves the table of the others."""
    suite, whole = done
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    code, _, err = call(*command(suite, idx, out, "--budget", BUDGET, names="trained"))
    assert code == 1 and "1 of 1 methods failed" in err and "wrote" in err
    assert results(out) == results(whole)


@pytest.mark.slow
def test_a_half_painted_method_is_compared_on_what_it_painted(done, tmp_path):
    """Of a method that failed after its first mask the common rows are those of that mask."""
    from paintback.bench.pictures.summary import summarise

    _, out = done
    half = [(cell, [r for r in rows if cell.label != "ding" or r["mask"] == "box"]) for cell, rows in read_results(out)]
    rows = [row for row in summarise(half) if row.common]
    assert {(row.label, row.mask) for row in rows} == {
        (k, mask) for k in ("ddnm", "ding", "dps") for mask in ("box", ALL)
    }
    box, every = ({row.label: row.means for row in rows if row.mask == mask} for mask in ("box", ALL))
    assert box == every


@pytest.mark.slow
def test_means_are_over_the_suites_samples(idx, tmp_path, here, call):
    suite, out = write_suite(tmp_path, data=small_data(idx), samples=2, diversity=None), tmp_path / "out"
    assert call(*command(suite, idx, out, "--budget", 2, names="ddnm"))[0] == 0
    rows = read_rows(out / "results.parquet")
    assert sorted((row["mask"], row["sample"]) for row in rows) == [("box", 0), ("box", 1), ("half", 0), ("half", 1)]
    summary = json.loads((out / "summary.json").read_text())["rows"]
    box = next(row for row in summary if row["mask"] == "box")
    assert box["means"]["psnr"] == pytest.approx(np.mean([row["psnr"] for row in rows if row["mask"] == "box"]))


@pytest.mark.slow
def test_a_model_that_takes_the_mask(tmp_path, tmp_path_factory, here, call):
    model = tiny.folder("sd15_inpaint", tmp_path_factory)
    masks = [{"name": "half", "kind": "half", "side": "left"}]
    suite = write_suite(
        tmp_path, size=64, model=str(model), data={"kind": "folder", "needs": "pictures"}, metrics=["psnr"],
        diversity=None, gradient_pictures=None, prompt="a red fox", masks=masks,
    )  # fmt: skip
    data, out = write_pictures(tmp_path / "pictures", 2, (64, 64)), tmp_path / "out"
    code, _, err = call(*command(suite, data, out, "--budget", 3, names="trained,ding"))
    assert code == 1
    assert "ding @ 3: The model" in err and "runs only as method='trained'" in err
    rows = read_rows(out / "results.parquet")
    # PNDM, which the pipeline brings, evaluates once more than there are steps
    assert [(row["label"], row["steps"], row["evaluations"], row["vjps"]) for row in rows] == [("trained", 2, 3, 0)] * 2
    before = state(out)
    assert call(*command(suite, data, out, "--budget", 3, names="trained"))[0] == 0
    assert state(out) == before
    assert {pixels.shape for pixels in painted(out).values()} == {(64, 64, 3)}


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs, whatever the machine has."""
    import ray  # takes seconds, and the default run only collects this module

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="as tests/batch/test_cluster.py")
def test_two_workers_of_a_cluster_paint_the_same(cluster, done, idx, call, tmp_path):
    suite, whole = done
    out = tmp_path / "out"
    code, _, err = call(*command(suite, idx, out, "--budget", BUDGET, "--engine", "ray", "--workers", 2))
    assert code == 0, err
    assert results(out) == results(whole)
    here, there = painted(whole), painted(out)
    assert here.keys() == there.keys()
    assert all(np.array_equal(here[key], there[key]) for key in here)
