"""Suites, their pictures and their masks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from paintback.bench.pictures.cases import data_sha256, make_cases
from paintback.bench.pictures.suite import Suite, load_suite, suite_names
from tests.bench.pictures.conftest import (
    pie_entry,
    suite_values,
    write_idx,
    write_idx_folder,
    write_pictures,
    write_pie,
)

HIDDEN = {"kind": "hidden", "top": 0.25, "left": 0.5, "bottom": 0.75, "right": 1}
FOLDER = {"kind": "folder", "needs": "pictures"}


def suite(**changes):
    return Suite.from_dict(suite_values(**changes), "small")


def folder_suite(masks=None, **changes):
    """Of coloured pictures of 32 x 32."""
    own = {"data": FOLDER, "model": "photo", "metrics": ["psnr"], "diversity": None, "gradient_pictures": None}
    return suite(**own | {"masks": masks or [{"name": "half", "kind": "half", "side": "right"}]} | changes)


# What is shipped ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_loads(name):
    loaded = load_suite(name)
    assert loaded.name == name
    assert Suite.from_dict(json.loads(json.dumps(loaded.to_dict())), name) == loaded
    assert loaded.source or loaded.model in ("fashion", "photo")
    # photos-test is tuned on another folder, which its pictures of validation are counted in
    assert loaded.tunes_on_reported == (name == "photos-test")


def test_the_command_lists_them(call):
    code, out, _ = call("bench", "suites", "--format", "json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == suite_names()
    for row in rows:
        loaded = load_suite(row["name"])
        assert (row["title"], row["size"], row["model"]) == (loaded.title, loaded.size, loaded.model)
        assert row["masks"] == [mask["name"] for mask in loaded.masks]
        assert row["data"] == loaded.data["needs"]
    code, out, _ = call("bench", "suites")
    assert code == 0
    for row in rows:
        assert f"{row['name']}: {row['title']}\n  size " in out
        assert all(part in out for part in (row["model"], ", ".join(row["masks"]), row["data"]))


# What is wrong -----------------------------------------------------------------------------------------------------


def mask(**changes):
    return {"masks": [{"name": "m", "kind": "box", "size": 14} | changes]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "has an entry 'colour'; valid are"),
        ({"title": None}, "lacks 'title'"),
        ({"name": "../x"}, "needs a name that a file can have"),
        ({"size": 0}, "has size 0; give a whole number of at least 1"),
        ({"size": "32"}, "has size '32'"),
        ({"seed": -1}, "has seed -1"),
        ({"gradient_pictures": 0}, "has gradient_pictures 0"),
        ({"fit": "pad"}, "has fit 'pad'; valid are crop and resize"),
        ({"pairing": "some"}, "has pairing 'some'"),
        ({"diversity": {"pictures": 1}}, "has diversity"),
        ({"diversity": 3}, "has an entry of the wrong type"),
        ({"diversity": {"pictures": 1, "samples": 0}}, "at least 1"),
        ({"data": {"kind": "tar", "needs": ""}}, "has data of kind 'tar'; valid are idx, folder, pie"),
        ({"data": "idx"}, "has data of kind 'idx'"),
        ({"data": {"kind": "idx", "needs": "x", "pictures": "p"}}, "has data without 'labels'"),
        ({"data": {"kind": "folder"}}, "has data without 'needs'"),
        ({"data": FOLDER | {"labels": "x"}}, "takes no 'labels'"),
        ({"data": FOLDER | {"first": 3, "stop": 3}}, "takes the pictures from 3 to 3"),
        ({"data": FOLDER | {"validation": [3]}}, r"has validation \[3\]"),
        ({"data": FOLDER | {"validation_pairing": "some"}}, "has validation_pairing 'some'"),
        ({"masks": []}, "names no masks"),
        ({"masks": ["box"]}, "has a mask of kind 'box'; valid"),
        (mask(kind="star"), "has a mask of kind 'star'; valid"),
        (mask(side="left"), "a mask of kind box takes no 'side'"),
        ({"masks": [{"kind": "box", "size": 14}]}, "a mask of kind box lacks 'name'"),
        ({"masks": [{"kind": "box", "name": "m"}]}, "a mask of kind box lacks 'size'"),
        (mask(size=33), "the mask 'm' cannot have size 33"),
        (mask(size=0.5), "the mask 'm' cannot have size 0.5"),
        ({"masks": [{"name": "m", "kind": "half", "side": "up"}]}, "cannot have side 'up'"),
        ({"masks": [{"name": "m", "kind": "free_form", "coverage": 1}]}, "cannot have coverage 1"),
        ({"masks": [{"name": "m", "kind": "lines", "width": 0, "count": 2}]}, "cannot have width 0"),
        ({"masks": [{"name": "m", **HIDDEN, "right": 1.5}]}, "cannot have right 1.5"),
        ({"masks": [{"name": "m", **HIDDEN, "left": 1}]}, "has no area"),
        ({"masks": [{"name": "m", "kind": "own"}]}, "brings no masks of its own"),
        ({"masks": 2 * suite_values()["masks"]}, "two masks of one name"),
        ({"metrics": ["psnr", "mse"]}, "asks for the metric 'mse'; valid are"),
        ({"data": FOLDER}, "asks for accuracy, and its data has no labels"),
        ({"metrics": ["clip"]}, "asks for clip and has no prompts"),
    ],
)
def test_wrong_entries_are_refused_in_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        suite(**changes)
    text = str(error.value)
    assert (
        text.startswith(f"The suite {changes.get('name', 'small')!r}")
        and text.endswith((".", ")"))
        and "\n" not in text
    )


def test_files_that_are_no_suites(tmp_path):
    with pytest.raises(ValueError, match="There is no suite 'fashion'; valid are aid-"):
        load_suite("fashion")
    for text, message in (("{", "is not JSON"), ("[]", "a suite is an object"), ("{}", "lacks 'title'")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_suite(str(tmp_path / "x.json"))


# Masks -------------------------------------------------------------------------------------------------------------


def holes(tmp_path, masks, **changes):
    """The hole of each mask on the first picture."""
    named = [{"name": f"m{k}", **entry} for k, entry in enumerate(masks)]
    cases, _ = make_cases(folder_suite(named, **changes), write_pictures(tmp_path / "pictures", 1))
    return [case.hole for case in cases]


def test_masks_are_what_they_say(tmp_path):
    hidden, outside, half, board = holes(
        tmp_path,
        [HIDDEN, HIDDEN | {"kind": "outside"}, {"kind": "half", "side": "top"}, {"kind": "checkerboard", "cell": 4}],
    )
    expected = np.zeros((32, 32), bool)
    expected[8:24, 16:] = True
    assert np.array_equal(hidden, expected)
    assert np.array_equal(outside, ~expected)
    assert half[:16].all() and not half[16:].any()
    assert board.sum() == 512 and not board[:4, :4].any() and board[:4, 4:8].all() and board[4:8, :4].all()


def test_random_masks_are_what_they_say(tmp_path):
    kinds = [
        {"kind": "box", "size": 10},
        {"kind": "free_form", "coverage": 0.3},
        {"kind": "lines", "width": 2, "count": 3},
        {"kind": "text", "size": 10},
    ]
    box, free, lines, text = holes(tmp_path, kinds)
    rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
    assert box.sum() == 100 and np.ptp(rows) == np.ptp(columns) == 9
    assert 0.3 <= free.mean() < 0.33
    assert all(0.02 < hole.mean() < 0.5 for hole in (lines, text))
    for again, before in zip(holes(tmp_path, kinds), (box, free, lines, text), strict=True):
        assert np.array_equal(again, before)
    assert not np.array_equal(holes(tmp_path, kinds, seed=1)[0], box)
    assert not np.array_equal(holes(tmp_path, list(reversed(kinds)))[-1], box)  # another place in the list


def test_pairing(tmp_path):
    masks = [{"name": side, "kind": "half", "side": side} for side in ("left", "right")]
    data = write_pictures(tmp_path, 3)
    cycle, _ = make_cases(folder_suite(masks, pairing="cycle"), data)
    assert [(case.picture, case.mask) for case in cycle] == [
        ("000.png", "left"),
        ("002.png", "left"),
        ("001.png", "right"),
    ]
    every, further = make_cases(folder_suite(masks, samples=2, diversity={"pictures": 1, "samples": 3}), data)
    assert len(every) == 3 * 2 * 2 and {case.sample for case in every} == {0, 1}
    assert [(case.picture, case.mask, case.sample) for case in further] == [
        ("000.png", "left", 2), ("000.png", "right", 2),
    ]  # fmt: skip
    assert len({case.seed for case in (*every, *further)}) == len(every) + len(further)
    few, _ = make_cases(folder_suite(masks), data, limit=2)
    assert {case.picture for case in few} == {"000.png", "001.png"}
    assert [case.seed for case in few] == [
        case.seed for case in every if case.sample == 0 and case.picture != "002.png"
    ]


# Pictures ----------------------------------------------------------------------------------------------------------


def test_validation_is_apart(idx, tmp_path):
    shown = suite()
    reported, _ = make_cases(shown, idx)
    tuned, more = make_cases(shown, idx, validation=True)
    assert {case.picture for case in reported} == {f"{k:05}" for k in range(4)}
    assert [(case.picture, case.mask) for case in tuned] == [("00008", "box"), ("00009", "half")]
    assert not more
    every = dataclasses.replace(shown, data=shown.data | {"validation_pairing": "all"})
    assert [(case.picture, case.mask) for case in make_cases(every, idx, validation=True)[0]] == [
        ("00008", "box"), ("00009", "box"), ("00008", "half"), ("00009", "half"),
    ]  # fmt: skip
    assert not {case.truth.tobytes() for case in tuned} & {case.truth.tobytes() for case in reported}
    assert not shown.tunes_on_reported
    assert dataclasses.replace(shown, data=shown.data | {"validation": [3, 5]}).tunes_on_reported
    data = {key: value for key, value in shown.data.items() if key != "validation"}
    with pytest.raises(ValueError, match="has no pictures to tune on"):
        make_cases(dataclasses.replace(shown, data=data), idx, validation=True)


def test_the_hash_tells_data_apart(idx, tmp_path):
    def told(changes, data=idx):
        first, further = make_cases(suite(**changes), data)
        return data_sha256([*first, *further])

    assert told({}) == told({}, write_idx_folder(tmp_path / "same"))
    others = [
        told({}, write_idx_folder(tmp_path / "other", seed=1)),
        told({"seed": 1}),
        told({"masks": list(reversed(suite_values()["masks"]))}),
        told({"data": suite_values()["data"] | {"stop": 3}}),
    ]
    assert len({told({}), *others}) == 5


def test_idx_pictures(idx, tmp_path):
    cases, _ = make_cases(suite(), idx)
    raw = np.frombuffer((idx / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)
    labels = (idx / "t10k-labels-idx1-ubyte").read_bytes()[8:]
    for case in cases:
        assert np.array_equal(case.truth, np.pad(raw[case.number], 2))
        assert case.label == labels[case.number]
    with pytest.raises(ValueError, match="pictures of 32 pixels; the suite's have 64"):
        make_cases(suite(size=64), idx)
    with pytest.raises(ValueError, match=r"neither t10k-images-idx3-ubyte nor .*\.gz in"):
        make_cases(suite(), tmp_path)
    with pytest.raises(ValueError, match="There is no folder"):
        make_cases(suite(), tmp_path / "none")
    with pytest.raises(ValueError, match="holds no picture of the suite 'small'; it needs"):
        make_cases(suite(data=suite_values()["data"] | {"first": 50, "stop": 60}), idx)
    short = write_idx_folder(tmp_path / "short")
    write_idx(short / "t10k-labels-idx1-ubyte", np.zeros(3))
    with pytest.raises(ValueError, match=r"12 pictures and .* 3 labels"):
        make_cases(suite(), short)


def test_folder_pictures(tmp_path):
    data = write_pictures(tmp_path / "p", 1, (40, 64))
    with Image.open(data / "000.png") as file:
        truth = np.asarray(file)
    Image.fromarray(truth[..., 0]).save(data / "001.png")
    Image.fromarray(np.dstack((truth, truth[..., :1]))).save(data / "002.png")
    cut, grey, clear = make_cases(folder_suite(), data)[0]
    assert np.array_equal(cut.truth, truth[4:36, 16:48])
    assert np.array_equal(grey.truth, np.repeat(truth[4:36, 16:48, :1], 3, axis=2))
    assert np.array_equal(clear.truth, cut.truth)
    resized = make_cases(folder_suite(fit="resize"), data, limit=1)[0][0].truth
    square = Image.fromarray(np.ascontiguousarray(truth[:, 12:52]))
    assert np.array_equal(resized, np.asarray(square.resize((32, 32), Image.Resampling.LANCZOS)))
    with pytest.raises(ValueError, match=r"000\.png is smaller than the suite's 48 x 48"):
        make_cases(folder_suite(size=48), data)


def test_captions(tmp_path):
    data = write_pictures(tmp_path / "p", 2)
    told = folder_suite(data=FOLDER | {"captions": "captions.json"}, prompt="none of them")
    with pytest.raises(ValueError, match=r"There is no .*captions\.json; the suite"):
        make_cases(told, data)
    for text, message in (
        ("{}", r"no caption for 000\.png"),
        ('{"000.png": "a fox"}', r"no caption for 001\.png"),
        ("[]", "is not a JSON object"),
        ("{", "is not a JSON object"),
    ):
        (data / "captions.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            make_cases(told, data)
    (data / "captions.json").write_text('{"000.png": "a fox", "001.png": 7}')
    assert [case.prompt for case in make_cases(told, data)[0]] == ["a fox", "7"]
    assert [case.prompt for case in make_cases(folder_suite(prompt="all"), data)[0]] == ["all", "all"]
    assert [case.prompt for case in make_cases(folder_suite(), data)[0]] == [None, None]


# PIE-Bench ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pie(tmp_path):
    return lambda entries: write_pie(tmp_path / "pie", entries)


PIE = {"masks": [{"name": "own", "kind": "own"}], "data": {"kind": "pie", "needs": "PIE"}}


def test_pie_bench(pie):
    runs = [512 * 100 + 30, 5, 512 * 300, 512 * 2]
    data = pie({"b": pie_entry("b", runs), "a": pie_entry("a", [0, 512 * 512]), "c": pie_entry("c", [])})
    both, _ = make_cases(folder_suite(size=512, fit="resize", **PIE), data)
    assert [(case.picture, case.number, case.prompt) for case in both] == [("b", 0, "a red fox"), ("c", 1, "a red fox")]
    border = np.zeros((512, 512), bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    expected = border.copy()
    expected[100, 30:35] = expected[300:302] = True
    assert np.array_equal(both[0].hole, expected)
    assert np.array_equal(both[1].hole, border)
    (small,) = make_cases(folder_suite(size=128, fit="resize", **PIE), data, limit=1)[0]
    assert small.truth.shape == (128, 128, 3) and small.hole.shape == (128, 128)
    picked = PIE["data"] | {"first": 1}
    assert [
        case.picture for case in make_cases(folder_suite(size=128, fit="resize", **PIE | {"data": picked}), data)[0]
    ] == ["c"]


def test_what_is_no_pie_bench(pie, tmp_path):
    shown = folder_suite(size=128, fit="resize", **PIE)
    Image.new("RGB", (512, 512)).save(tmp_path / "outside.png")
    for path in ("../../outside.png", str(tmp_path / "outside.png")):
        data = pie({"a": pie_entry("a", []) | {"image_path": path}})
        with pytest.raises(ValueError, match="names a picture outside its folder"):
            make_cases(shown, data)
    for wrong in (pie_entry("a", [1, 2, 3]), pie_entry("a", None), {"mask": []}, "text"):
        with pytest.raises(ValueError, match=r"entry 'a' without image_path, editing_prompt or a mask of runs"):
            make_cases(shown, pie({"a": wrong}))
    (data / "mapping_file.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a JSON object"):
        make_cases(shown, data)
    (data / "mapping_file.json").unlink()
    with pytest.raises(ValueError, match=r"There is no .*mapping_file\.json; the suite 'small' needs PIE"):
        make_cases(shown, data)
