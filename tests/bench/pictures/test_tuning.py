"""`paintback bench tune`: trials, the record, and what is taken from it."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from paintback import methods
from paintback.bench.pictures import benchmark, tuning
from paintback.bench.pictures.cell import Cell, cost_within
from paintback.cli import fields as reader
from tests.bench.pictures.conftest import write_idx_folder, write_suite

TUNED = ("ding", "dps", "ldps")


def command(suite, data, out, *more, names="ding,dps,ldps"):
    return ("bench", "tune", suite, "--data", data, "--methods", names, "--budget", 6, "--trials", 3, "-o", out, *more)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, idx):
    """A suite's file and the record of a search; not to be changed."""
    from tests.bench.pictures.conftest import run_command

    folder = tmp_path_factory.mktemp("tuning")
    suite, path = write_suite(folder), folder / "record.json"
    assert run_command(*command(suite, idx, path)) == 0
    return suite, path


def test_the_first_trial_has_the_defaults(tuned):
    record = json.loads(tuned[1].read_text())
    assert set(record["methods"]) == set(TUNED)
    assert record["protocol"]["objective"] == "psnr"
    assert (record["protocol"]["budget"], record["protocol"]["trials"], record["protocol"]["pictures"]) == (6, 3, 2)
    for name, entry in record["methods"].items():
        own = methods.get(name)
        assert len(entry["trials"]) == 3
        assert entry["trials"][0]["fields"] == {key: getattr(own, key) for key in tuning.space_of(name)}
        assert "times" in entry["trials"][0]["fields"]
        assert len({json.dumps(trial["fields"]) for trial in entry["trials"]}) == 3
        assert entry["best"] == max(entry["trials"], key=lambda trial: trial["value"])


def test_every_trial_is_within_the_budget(tuned):
    for name, entry in json.loads(tuned[1].read_text())["methods"].items():
        for trial in entry["trials"]:
            method = methods.get(name, **trial["fields"])
            assert trial["steps"] == cost_within(method, 6)
            assert trial["evaluations"] == method.evaluations(trial["steps"])
            assert trial["vjps"] == method.vjps(trial["steps"])
            assert trial["evaluations"] + trial["vjps"] <= 6
            assert (trial["vjps"] > 0) == method.needs_vjp


def test_the_record_is_taken_up_again(tuned, idx, call, tmp_path):
    suite, path = tuned
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    code, out, err = call(*command(suite, idx, path))
    assert code == 0, err
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time)
    assert out.splitlines()[0].startswith("| method |") and len(out.splitlines()) == 2 + len(TUNED)
    # as after an interruption: what is there stays, the rest comes out as in an unbroken search
    record = json.loads(before)
    first = {name: record["methods"][name] for name in TUNED[:1]}
    again = tmp_path / "again.json"
    again.write_text(json.dumps({**record, "methods": first}))
    code, out, _ = call(*command(suite, idx, again, "--format", "json"))
    assert code == 0
    assert json.loads(out) == json.loads(again.read_text())

    def told(records):
        trials = {name: entry["trials"] for name, entry in records["methods"].items()}
        return {
            name: [{k: v for k, v in one.items() if k != "seconds"} for one in some] for name, some in trials.items()
        }

    assert told(json.loads(again.read_text())) == told(record)
    assert json.loads(again.read_text())["methods"][TUNED[0]] == record["methods"][TUNED[0]]


def test_another_protocol_is_refused(tuned, idx, call, tmp_path):
    suite, path = tuned
    before = path.read_bytes()
    for data, more, entry in (
        (idx, ("--budget", 7), "budget (6 there, 7 now)"),
        (idx, ("--trials", 4), "trials (3 there, 4 now)"),
        (write_idx_folder(tmp_path / "other", seed=5), (), "data_sha256"),
    ):
        code, _, err = call(*command(suite, data, path, *more))
        assert code == 2
        assert f"was made under another protocol, which differs in {entry}" in err
        assert err.count("\n") == 1
    assert path.read_bytes() == before
    for text in ("{", "[]", '{"methods": {}}'):
        (tmp_path / "wrong.json").write_text(text)
        code, _, err = call(*command(suite, idx, tmp_path / "wrong.json"))
        assert code == 2 and "is not a record of `paintback bench tune`" in err


def test_what_is_wrong_is_said_before_anything_is_painted(idx, call, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "open_model", None)
    path = tmp_path / "record.json"
    for changes, names, message in (
        ({}, "dingo", "valid methods"),
        ({}, ",", "--methods names no method"),
        (
            {"data": {**json.loads(write_suite(tmp_path).read_text())["data"], "validation": [50, 60]}},
            "ding",
            "no picture",
        ),
    ):
        code, _, err = call(*command(write_suite(tmp_path, **changes), idx, path, names=names))
        assert code == 2 and message in err
    data = {
        key: value
        for key, value in json.loads(write_suite(tmp_path).read_text())["data"].items()
        if key != "validation"
    }
    code, _, err = call(*command(write_suite(tmp_path, data=data), idx, path))
    assert code == 2 and "has no pictures to tune on" in err
    assert not path.exists()


def test_pictures_that_are_reported_too_are_pointed_out(idx, call, tmp_path):
    data = json.loads(write_suite(tmp_path).read_text())["data"] | {"validation": [3, 5]}
    suite = write_suite(tmp_path, data=data, metrics=["ssim"])
    code, _, err = call(*command(suite, idx, tmp_path / "record.json"))
    assert code == 2
    assert "reports its pictures of validation too" in err.splitlines()[0]
    assert "measures neither lpips nor psnr; nothing to tune by" in err.splitlines()[1]


def test_best_fields_leave_out_defaults(tuned, tmp_path):
    record = tuning.read_tuning(tuned[1])
    own = methods.get("ding")
    best = {"fields": {"eta": own.eta, "delayed": True, "sigma_y": own.sigma_y}, "value": 1.0}
    made = {**record, "methods": {"ding": {"trials": [], "best": best}, "dps": {"trials": [], "best": None}}}
    assert tuning.best_fields(made, "ding") == {"delayed": True}
    for name in ("dps", "mcg"):
        with pytest.raises(ValueError, match=f"no result for {name}; tune it first"):
            tuning.best_fields(made, name)
    defaults = {"fields": {key: getattr(own, key) for key in tuning.SPACES["ding"]}}
    assert tuning.best_fields({"methods": {"ding": {"best": defaults}}}, "ding") == {}


def test_tuned_fields_are_run(tuned, idx, call, tmp_path, here):
    """`bench images --tuned` runs the best fields of methods named without, under a label that says them."""
    suite, path = tuned
    record = tuning.read_tuning(path)
    record["methods"]["ding"]["best"]["fields"] |= {"delayed": True, "sigma_y": 0.02}
    (tmp_path / "record.json").write_text(json.dumps(record))
    names = "ding,ding:eta=sqrt"
    code, _, err = call(
        "bench", "images", suite, "--data", idx, "--limit", 1, "--methods", names, "--budget", 4, "--quiet",
        "--tuned", tmp_path / "record.json", "-o", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    best = tuning.best_fields(record, "ding")
    assert best["delayed"] is True
    assert {row["label"] for row in rows} == {tuning.label_of("ding", best), "ding:eta=sqrt"}
    assert next(row["fields"] for row in rows if row["label"] != "ding:eta=sqrt") == best


@pytest.mark.parametrize("name", methods.names())
def test_spaces_fit_the_methods(name):
    """Ends and defaults of every range are values that the method takes, and a label is read back as it was."""
    own, space = methods.get(name), tuning.space_of(name)
    assert set(space) <= {field.name for field in dataclasses.fields(own)}
    for key, where in space.items():
        values = list(where) if isinstance(where, tuple) else [where.low, where.high]
        for value in values:
            made = methods.get(name, **{key: value})
            assert made.evaluations(1) >= 1
            if value is None:  # a default, which labels leave out
                continue
            text = tuning.label_of(name, {key: value})
            assert reader.parse(type(made), text.split(":")[1:]) == {key: value}
        default = getattr(own, key)
        assert default in values if isinstance(where, tuple) else where.low <= default <= where.high


def test_rounds_have_whole_pictures_and_the_last_has_all():
    case = dataclasses.make_dataclass("Case", ["number", "mask"])
    cases = [case(number, mask) for mask in ("box", "half") for number in (7, 3, 9, 1, 2)]
    stages = tuning.rounds_of(cases, 3)
    assert [len(stage) for stage in stages] == [2, 4, 10]
    for small, large in itertools.pairwise(stages):
        assert large[: len(small)] == small  # what was painted is not painted again
    assert {one.number for one in stages[0]} == {7} and {one.mask for one in stages[0]} == {"box", "half"}
    assert [len(stage) for stage in tuning.rounds_of(cases, 9)] == [2, 4, 10]
    assert [len(stage) for stage in tuning.rounds_of(cases, 1)] == [10]


def test_each_round_drops_the_worse_half(idx, call, tmp_path):
    """Four holes: 8 trials on one of them, 4 (and the defaults) on 2, half of these (and the defaults) on all."""
    data = json.loads(write_suite(tmp_path).read_text())["data"] | {"validation": [8, 12]}
    suite, path = write_suite(tmp_path, data=data), tmp_path / "record.json"
    code, out, err = call(
        "bench", "tune", suite, "--data", idx, "--methods", "ddnm", "--budget", 3, "--trials", 8, "--rounds", 3,
        "-o", path,
    )  # fmt: skip
    assert code == 0, err
    assert "4 holes hardly tell settings apart" in err
    record = json.loads(path.read_text())
    assert record["protocol"]["holes"] == [1, 2, 4]
    trials = record["methods"]["ddnm"]["trials"]
    assert len(trials) == len({json.dumps(one["fields"]) for one in trials}) == 8
    counts = [one["holes"] for one in trials]
    assert counts[0] == 4  # the defaults go through every round
    assert counts.count(4) in (2, 3, 4) and counts.count(1) in (3, 4) and set(counts) <= {1, 2, 4}
    best = record["methods"]["ddnm"]["best"]
    last = [one for one in trials if one["holes"] == 4]
    assert best == max(last, key=lambda one: one["value"])
    assert "| ddnm |" in out and all(one["fields"]["times"] in tuning.TIMES for one in trials)


def test_a_failing_trial_does_not_end_the_search(idx, tmp_path, monkeypatch):
    """Each kind of failure is kept with its fields, and the best is among the others."""
    errors = iter((ValueError("It diverged."), RuntimeError("linalg:\n no convergence"), None))

    def paint(inpainter, suite, cell, cases, batch, steps):
        assert isinstance(cell, Cell) and steps == cell.steps
        if (error := next(errors)) is not None:
            raise error
        return [{"evaluations": 3, "vjps": 2, "seconds": 0.1}]

    class Measure:
        def measures(self, metric):
            return metric == "psnr"

        def __call__(self, painted):
            return [{"psnr": 20.0}]

    from paintback.bench.pictures.suite import load_suite

    monkeypatch.setattr(tuning, "paint_cases", paint)
    suite = load_suite(str(write_suite(tmp_path)))
    record = tuning.tune(
        suite,
        None,
        [dataclasses.make_dataclass("Case", ["number"])(0)],
        Measure(),
        ["dps"],
        budget=6,
        trials=3,
        batch=1,
        path=tmp_path / "r.json",
        protocol={},
    )
    entry = record["methods"]["dps"]
    assert [trial.get("error") for trial in entry["trials"]] == ["It diverged.", "linalg: no convergence", None]
    assert entry["best"] == entry["trials"][2]
