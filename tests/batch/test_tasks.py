"""From folders, globs and manifests to named jobs."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict

import pytest
from PIL import Image

import paintback as pb
from paintback.batch import Request, Task, read_tasks
from paintback.batch.tasks import name_jobs, seed_of

BASE = {"model": "photo", "method": "ding", "fields": {"sigma_y": 0.05}, "steps": 4}


@pytest.fixture
def tree(tmp_path):
    """A folder of pictures with sub-folders, equal stems and equal names, and masks."""
    for name in (
        "in/a.png",
        "in/a.jpg",
        "in/b.png",
        "in/deep/b.png",
        "in/deep/c.PNG",
        "in/.hidden.png",
        "in/notes.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, "PNG")
    for name in ("a.png", "b.png", "deep/b.png", "c_mask.png"):
        path = tmp_path / "masks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    return tmp_path


def by_name(tasks):
    return {task.name: task for task in tasks}


def test_a_folder_with_paired_masks(tree):
    tasks, _ = read_tasks(str(tree / "in"), str(tree / "masks"), BASE)
    found = by_name(tasks)
    assert set(found) == {"a.png", "a.jpg", "b", "deep/b", "deep/c"}  # equal stems keep their suffix
    assert found["a.jpg"].request.mask == found["a.png"].request.mask == str(tree / "masks/a.png")
    assert found["deep/b"].request.mask == str(tree / "masks/deep/b.png")
    assert found["deep/c"].request.mask == str(tree / "masks/c_mask.png")
    assert found["b"].request.seed == seed_of(0, "b") != found["deep/b"].request.seed
    assert found["b"].request.fields == {**asdict(pb.methods.get("ding")), "sigma_y": 0.05}
    assert by_name(read_tasks(str(tree / "in"), str(tree / "masks"), BASE, seed=1)[0])["b"].request.seed == seed_of(
        1, "b"
    )


def test_results_and_masks_below_the_folder_are_no_inputs(tree):
    shutil.move(tree / "masks", tree / "in/masks")
    shutil.copytree(tree / "in/deep", tree / "in/out")
    tasks, _ = read_tasks(str(tree / "in"), str(tree / "in/masks"), BASE, without=[str(tree / "in/out")])
    assert set(by_name(tasks)) == {"a.png", "a.jpg", "b", "deep/b", "deep/c"}


def test_a_glob_one_mask_and_a_missing_mask(tree):
    tasks, _ = read_tasks(str(tree / "in/**/b.png"), str(tree / "masks/b.png"), BASE)
    assert set(by_name(tasks)) == {"b", "deep/b"}
    assert {task.request.mask for task in tasks} == {str(tree / "masks/b.png")}
    (tree / "masks/a.png").unlink()
    missing = by_name(read_tasks(str(tree / "in"), str(tree / "masks"), BASE)[0])["a.jpg"]
    assert missing.request is None
    assert "has no mask in" in missing.error
    with pytest.raises(ValueError, match="is no folder, glob or manifest"):
        read_tasks(str(tree / "nowhere"), None, BASE)
    with pytest.raises(ValueError, match="holds no pictures"):
        read_tasks(str(tree / "in/*.tif"), None, BASE)


def write_csv(path, rows):
    columns = sorted({key for row in rows for key in row})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path, rows):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([{**dict.fromkeys(rows[1]), **row} for row in rows]), path)


@pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet])
def test_manifests_have_settings_for_each_row(tree, write):
    path = tree / f"rows.{write.__name__.removeprefix('write_')}"
    rows = [
        {"image": "in/b.png"},
        {"image": "in/b.png", "mask": "masks/a.png", "seed": 7, "method": "ddnm", "prompt": "a cat", "camera": "old",
         "name": "deep/seven", "steps": 3, "guidance": 1.5},
        {"image": str(tree / "in/deep/b.png"), "mask": "alpha"},
    ]  # fmt: skip
    write(path, rows)
    tasks, remarks = read_tasks(str(path), str(tree / "masks/b.png"), BASE)
    assert remarks == ["columns that mean nothing here: camera."]
    assert [task.error for task in tasks] == [None, None, None]
    assert [task.name for task in tasks] == ["in/b", "deep/seven", "in/deep/b"]
    plain, own, alpha = (task.request for task in tasks)
    assert (plain.photo, plain.mask, plain.method, plain.steps) == (
        str(tree / "in/b.png"), str(tree / "masks/b.png"), "ding", 4,
    )  # fmt: skip
    assert (own.seed, own.method, own.prompt, own.steps, own.guidance) == (7, "ddnm", "a cat", 3, 1.5)
    assert own.fields == asdict(pb.methods.get("ddnm"))
    assert own.mask == str(tree / "masks/a.png")
    assert alpha.mask == "alpha"


def test_names_never_leave_the_output_and_never_meet(tree):
    bad = ["../a", "/etc/a", "a/../../b", "", "a//b", ".hidden", "a\\b", "a\nb", "a/.", "x" * 256, 3]
    rows = [{"photo": "in/b.png", "name": name} for name in bad]
    rows += [{"photo": "in/b.png", "name": name} for name in ("same", "SAME")]
    rows += [{"photo": "in/b.png"}, {"photo": "in/b.png"}, {"photo": "../b.png"}]
    write_jsonl(tree / "rows.jsonl", rows)
    tasks, _ = read_tasks(str(tree / "rows.jsonl"), "alpha", BASE)
    assert all(task.request is None and "name" in task.error for task in tasks[: len(bad)])
    assert len({task.name.casefold() for task in tasks}) == len(tasks)
    assert all(".." not in task.name.split("/") and not task.name.startswith("/") for task in tasks)
    assert tasks[len(bad)].request is not None
    assert "was given before" in tasks[len(bad) + 1].error
    assert tasks[-1].request.photo.endswith("../b.png")  # a local manifest may name any picture of its user
    assert tasks[-1].name.startswith("row-") or "/" not in tasks[-1].name


def test_jobs_of_python_are_named_by_their_pictures():
    jobs = [
        Request(photo=path, mask="m.png")
        for path in ("x/a.png", "y/a.png", "b.png", "/k/c.png", "/l/c.png", "/l/c.jpg")
    ]
    assert [task.name for task in name_jobs(jobs)] == ["x/a", "y/a", "b", "c.png", "c.png-2", "c.jpg"]
    own, twice = name_jobs([Task("own", jobs[0]), Task("own", jobs[1])])
    assert own == Task("own", jobs[0])
    assert twice.request is None


@pytest.mark.parametrize(("name", "text", "says"), [
    ("rows.csv", "", "holds no rows"),
    ("rows.csv", "path,mask\na,b\n", "has no column photo"),
    ("rows.csv", b"\xff\xfe\x00", "is no .csv file"),
    ("rows.parquet", "hello", "is no Parquet file|needs pyarrow"),
])  # fmt: skip
def test_manifests_that_cannot_be_used(tmp_path, name, text, says):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=says):
        read_tasks(str(tmp_path / name), "alpha", BASE)


def test_urls(tree):
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("in/a.png", "in/deep/b.png", "masks/a.png", "masks/deep/b.png"):
        memory.pipe_file(f"/tasks/{name}", b"x")
    tasks, _ = read_tasks("memory://tasks/in", "memory://tasks/masks", BASE)
    found = by_name(tasks)
    assert set(found) == {"a", "deep/b"}
    assert found["deep/b"].request.photo.startswith("memory://")
    memory.pipe_file("/tasks/rows.jsonl", b'{"photo": "in/a.png", "mask": "masks/a.png"}\n')
    (task,) = read_tasks("memory://tasks/rows.jsonl", None, BASE)[0]
    assert (task.name, task.request.photo) == ("in/a", "memory://tasks/in/a.png")
    with pytest.raises(ValueError, match="no files behind nowhere://"):
        read_tasks("nowhere://x/rows.jsonl", None, BASE)
