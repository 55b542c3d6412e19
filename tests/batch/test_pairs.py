"""Pictures and masks found by their names, in one folder or two, whatever the names hold."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from PIL import Image

from paintback.batch import Request, Task, read_tasks
from paintback.batch.names import distinct, too_long
from paintback.batch.pairs import named_after
from paintback.batch.tasks import name_jobs

BASE = {"model": "photo", "method": "ding", "steps": 4}


@pytest.fixture
def make(tmp_path):
    """Makes small pictures by their names."""

    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
        return tmp_path

    return write


def pairs(tasks, root):
    return {
        task.name: None if task.request is None else task.request.mask.removeprefix(str(root) + "/")
        for task in tasks
        if task.request is None or task.request.mask
    }


@pytest.mark.parametrize("masks", ["in", None])
@pytest.mark.parametrize("ending", ["_mask001", "_mask", "-mask2", ".mask", "_MASK"])
def test_masks_beside_their_pictures_are_no_pictures(make, masks, ending):
    root = make("in/image1.jpg", f"in/image1{ending}.png", "in/deep/image2.png", f"in/deep/image2{ending}.png")
    tasks, remarks = read_tasks(str(root / "in"), masks and str(root / masks), BASE)
    assert pairs(tasks, root) == {"image1": f"in/image1{ending}.png", "deep/image2": f"in/deep/image2{ending}.png"}
    assert remarks == []


def test_a_picture_beside_is_never_its_own_mask(make):
    root = make("in/a.png", "in/b.png", "in/b_mask.png", "in/gone_mask.png", "in/two.png", "in/two_mask1.png",
                "in/two_mask2.png")  # fmt: skip
    tasks, remarks = read_tasks(str(root / "in"), str(root / "in"), BASE)
    errors = {task.name: task.error for task in tasks}
    assert set(errors) == {"a", "b", "two"}
    assert errors["b"] is None
    assert "'a.png' has no mask in" in errors["a"]
    assert "has 2 masks" in errors["two"]
    assert remarks == ["masks without a picture: gone_mask.png."]
    assert "'a.png' has no mask beside it; name one a_mask.png" in read_tasks(str(root / "in"), None, BASE)[0][0].error


def test_a_picture_that_is_named_like_a_mask(make):
    root = make("in/death_mask.png", "in/death_mask_mask.png", "other/death_mask.png", "masks/death_mask.png")
    assert pairs(read_tasks(str(root / "in"), None, BASE)[0], root) == {"death_mask": "in/death_mask_mask.png"}
    found = read_tasks(str(root / "other"), str(root / "masks"), BASE)[0]
    assert pairs(found, root) == {"death_mask": "masks/death_mask.png"}


def test_one_mask_in_the_folder_of_the_pictures(make):
    root = make("in/a.png", "in/dust.png")
    (root / "link.png").symlink_to(root / "in/dust.png")
    for mask in ("in/dust.png", "link.png"):
        assert [task.name for task in read_tasks(str(root / "in"), str(root / mask), BASE)[0]] == ["a"]


def test_brackets_are_no_glob_where_there_is_such_a_file(make):
    root = make("scans [2024]/a.png", "scans 2/b.png", "dust [v2].png")
    tasks, _ = read_tasks(str(root / "scans [2024]"), str(root / "dust [v2].png"), BASE)
    assert pairs(tasks, root) == {"a": "dust [v2].png"}
    assert [task.name for task in read_tasks(str(root / "scans [12]/*.png"), "alpha", BASE)[0]] == ["scans 2/b"]


def test_accents_written_apart_pair_with_composed_ones(make):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    root = make(f"in/{composed}.png", f"in/{apart}2.png", f"masks/{apart}.png", f"masks/{composed}2.png")
    assert pairs(read_tasks(str(root / "in"), str(root / "masks"), BASE)[0], root) == {
        composed: f"masks/{apart}.png",
        f"{apart}2": f"masks/{composed}2.png",
    }


def test_every_kind_of_picture_is_a_task_and_the_rest_is_named(make):
    root = make("in/win.jfif", "in/new.avif", "in/phone.HEIC", "in/notes.psd", "in/.thumbs/a.png", "masks/win.png",
                "masks/new.png", "masks/phone.png", "masks/gone.png")  # fmt: skip
    tasks, remarks = read_tasks(str(root / "in"), str(root / "masks"), BASE)
    assert set(pairs(tasks, root)) == {"win", "new", "phone"}
    assert remarks == [
        "no pictures by their names, and left out: notes.psd.",
        "masks without a picture: gone.png.",
    ]


def test_results_of_an_earlier_run_beside_their_pictures_are_no_pictures(make):
    root = make("in/a.jpg", "in/a_old.png", "in/a.png", "in/m.png")
    (root / "in/manifest.jsonl").write_text('{"name": "a", "status": "done", "output": "a.png"}\n')
    tasks, _ = read_tasks(str(root / "in"), str(root / "in/m.png"), BASE, without=[str(root / "in")])
    assert {task.name for task in tasks} == {"a", "a_old"}


def test_names_stay_what_they_are():
    long = "写" * 80
    photos = ["co:lon.png", "a::b.png", "ab::c.png", f"{long}.png", "back\\slash.png", "new\nline.png", "../up.png"]
    names = [name for name, problem in distinct([{"photo": f"in/{one}"} for one in photos], "in") if problem is None]
    assert [task.error for task in name_jobs([Task(name, Request(photo="a.png", mask="m.png")) for name in names])] == [
        None
    ] * 7
    assert names == ["co:lon", "a::b", "ab::c", long, "back_slash", "new_line", "up"]
    assert too_long(long + ".png") is None
    assert too_long("deep/" + "写" * 84 + ".png") is not None and "256 bytes" in str(too_long("写" * 84 + ".png"))


def test_random_names_never_meet_nor_leave_the_folder(make):
    """Random pictures of awkward names: as many results as pictures, all inside, no two equal on any file system."""
    rng = np.random.default_rng(0)
    letters = ["a", "A", "é", "é", "É", ".", ":", "\\", " ", "_mask", "-", "写", "\n", "::", "x" * 90]
    for _ in range(200):
        photos = {"".join(rng.choice(letters, rng.integers(1, 5))) + str(rng.choice([".png", ".jpg"])) for _ in "12345"}
        photos = [f"in/{one}" for one in sorted(photos)]
        names = [name for name, _ in distinct([{"photo": one} for one in photos], "in")]
        forms = {unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold()) for name in names}
        assert len(forms) == len(photos)
        assert all(part and part[0] != "." for name in names for part in name.split("/"))


def test_a_long_name_of_a_mask_is_named_after_its_picture():
    assert named_after("deep/x_mask001") == "deep/x"
    assert named_after("deep_mask/x") is None


ENDINGS = ["_mask", "-mask", ".mask", "_MASK", " mask", "_mask001", "-mask2", "_masks"]
STEMS = ["a", "b", "x1", "café", "写真", "co:lon", "a::b", "scan [2]", "two words", "n" * 120, "été", "dot.ted", "mask"]


@pytest.mark.parametrize("seed", range(40))
def test_in_any_layout_each_picture_has_its_mask_and_no_mask_is_painted(make, seed):
    """Random folders of pictures and masks, in one place or two, deep or not, accents in either form."""
    rng = np.random.default_rng(seed)
    apart, deep = bool(rng.integers(2)), bool(rng.integers(2))
    endings, wanted = ENDINGS if not apart else [*ENDINGS, ""], {}
    for stem in rng.choice(STEMS, rng.integers(1, 9), replace=False):
        folder = str(rng.choice(["", "one/", "two [x]/deep/"])) if deep else ""
        forms = [str(rng.choice(["NFC", "NFD"])) for _ in "pm"]
        photo, mask = (unicodedata.normalize(form, str(stem)) for form in forms)
        photo += str(rng.choice([".png", ".jpg", ".JPG", ".jfif", ".webp", ".tif", ".avif", ".heic"]))
        where = "masks/" if apart else "in/"
        wanted["in/" + folder + photo] = where + folder + mask + str(rng.choice(endings)) + ".png"
    alone = "in/alone.png"
    root = make(*wanted, *wanted.values(), *([alone] if rng.integers(2) else []))
    masks = str(root / "masks") if apart else None if rng.integers(2) else str(root / "in")
    tasks, remarks = read_tasks(str(root / "in"), masks, BASE)
    painted = {
        task.request.photo.removeprefix(f"{root}/"): task.request.mask.removeprefix(f"{root}/")
        for task in tasks
        if task.request is not None
    }
    assert painted == wanted
    assert [task.name for task in tasks if task.request is None] == (["alone"] if (root / alone).exists() else [])
    assert not set(painted) & set(painted.values())
    assert not any("mask" in remark for remark in remarks)
    assert not any(task.name.startswith("row-") for task in tasks)
