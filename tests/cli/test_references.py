"""`--reference`: pictures to go by, on the command line and in manifests, as in Python; a PNG remembers them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import paintback as pb
from paintback.batch.tasks import read_tasks
from paintback.images import read_settings
from paintback.painting.request import Request
from tests.models import tiny_pipelines as tiny

SEED = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.folder("flux2_klein", tmp_path_factory)


@pytest.fixture
def shown(tmp_path):
    paths = [tmp_path / f"shown-{k}.png" for k in range(2)]
    for k, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(path)
    return paths


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_command_line_manifests_and_python_show_a_model_the_same(call, photo, mask, shown, folder, tmp_path):
    out, plain = tmp_path / "out.png", tmp_path / "plain.png"
    settings = ["--model", folder, "--prompt", "a fox", "--method", "replacement", "--steps", 2, "--seed", SEED]
    settings += ["--height", 32, "--width", 32, "--threads", 1]
    done = call("inpaint", photo, mask, "-o", out, *settings, "--reference", shown[0], "--reference", shown[1])
    assert done.code == 0, done.err
    call("inpaint", photo, mask, "-o", plain, *settings)
    assert (pixels(out) != pixels(plain)).any()
    kept = read_settings(out)
    assert kept["reference_images"] == [str(one) for one in shown]
    assert {"reference_1", "reference_2"} < kept["sha256"].keys()

    own = {"prompt": "a fox", "method": "replacement", "num_inference_steps": 2, "height": 32, "width": 32}
    inpainter = pb.Inpainter.from_pretrained(folder)
    made = inpainter(str(photo), str(mask), generator=SEED, reference_images=[Image.open(one) for one in shown], **own)
    assert (np.asarray(made.images[0]) == pixels(out)).all()
    assert made.settings["reference_images"] is None
    named = inpainter(str(photo), str(mask), generator=SEED, reference_images=shown, **own)
    assert named.settings["reference_images"] == [str(one) for one in shown]

    row = {"photo": photo.name, "mask": mask.name, "reference_images": [one.name for one in shown], "seed": SEED}
    more = {name: kept[name] for name in ("prompt", "method", "steps", "height", "width")}
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, **more, "name": "batched"}))
    done = call("batch", tmp_path / "rows.jsonl", "-o", tmp_path / "results", "--model", folder, "--threads", 1)
    assert done.code == 0, done.err
    assert (pixels(tmp_path / "results" / "batched.png") == pixels(out)).all()

    moved = tmp_path / "moved.png"
    shown[0].rename(moved)
    again = call("inpaint", "--again", out)
    assert again.code == 2 and str(shown[0]) in again.err
    again = call("inpaint", "--again", out, "--reference", moved, "--reference", shown[1], "--format", "json")
    assert again.code == 0 and again.json["identical"] is True
    again = call("inpaint", "--again", out, "--reference", shown[1], "--reference", moved)
    assert again.code == 2 and "is not the reference_1 file that" in again.err
    again = call("inpaint", "--again", out, "--reference", moved)
    assert again.code == 2 and "was made with 2 reference pictures; got 1 of --reference" in again.err


def test_a_picture_that_is_not_there_is_told_before_a_model_is_loaded(call, photo, mask, tmp_path):
    done = call("inpaint", photo, mask, "-o", tmp_path / "out.png", "--reference", tmp_path / "none.png")
    assert done.code == 2 and "none.png" in done.err
    done = call("inpaint", photo, mask, "-o", tmp_path / "out.png", "--reference", photo, "--steps", 1)
    assert done.code == 2 and "takes no --reference" in done.err
    done = call("inpaint", photo, mask, "-o", photo, "--reference", photo)
    assert done.code == 2 and "would be written over" in done.err


def test_rows_name_one_or_several_beside_their_manifest(tmp_path, photo, mask):
    cells = ["shown.png", '"[""a.png"", ""/b.png""]"', ""]
    rows = [f"{photo},{mask},{cell}" for cell in cells]
    (tmp_path / "rows.csv").write_text("\n".join(["photo,mask,reference_images", *rows]))
    tasks, remarks = read_tasks(str(tmp_path / "rows.csv"), None, {})
    assert remarks == []
    found = [task.request.reference_images for task in tasks]
    assert found == [(str(tmp_path / "shown.png"),), (str(tmp_path / "a.png"), "/b.png"), None]


def test_what_is_no_picture_is_refused():
    assert Request.parse({"reference_images": "a.png"}).reference_images == ("a.png",)
    assert Request.parse({"reference_images": []}).reference_images is None
    for wrong in (5, [None], [""], {"a": 1}):
        with pytest.raises(ValueError, match="reference_images must be pictures or their paths; got"):
            Request.parse({"reference_images": wrong})
    with pytest.raises(ValueError, match="reference_images takes at most 16; got 17"):
        Request.parse({"reference_images": ["a.png"] * 17})
    entry = Request.model_json_schema()["properties"]["reference_images"]
    assert entry["anyOf"][0]["items"] == {"type": "string", "minLength": 1}
