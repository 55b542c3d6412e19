"""`paintback mask`, and masks that are found in one command."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage")
pytest.importorskip("cv2")


@pytest.fixture
def scratched(tmp_path):
    photo = np.full((64, 96, 3), 110, np.uint8)
    photo[30:32, 5:90] = 250
    photo[10:14, 60:64] = (255, 0, 0)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_finds_and_writes(call, scratched, tmp_path):
    done = call("mask", scratched, "--scratches", "-o", tmp_path / "m.png", "--format", "json")
    assert done.code == 0, done.err
    mask = np.asarray(Image.open(tmp_path / "m.png")) > 0
    assert mask[30:32, 8:87].all()
    assert mask[:26].sum() == 0
    assert done.json == {
        "path": str(tmp_path / "m.png"), "found": ["scratches"], "pixels": int(mask.sum()),
        "share": round(float(mask.mean()), 6),
    }  # fmt: skip
    both = call("mask", scratched, "--scratches", "--colour", "#f00", "--grow", 2, "-o", tmp_path / "b.png")
    assert both.code == 0
    assert (np.asarray(Image.open(tmp_path / "b.png")) > 0)[10:14, 60:64].all()


def test_refuses_in_a_sentence(call, scratched, tmp_path):
    for arguments, said in (
        ([], "say what to find"),
        (["--text"], "no text was found"),
        (["--object", "1,2,3"], "4 whole numbers"),
        (["--colour", "redd"], "no colour"),
        (["--alpha"], "no alpha channel"),
        (["--dust", "--sensitivity", "0"], "above 0"),
        (["--colour", "#f00", "--sensitivity", "inf"], "--sensitivity inf cannot be"),
        (["--colour", "#f00", "--grow", "-300"], "with --grow -300 the mask is empty"),
        (["--colour", "#f00", "--grow", "300"], "with --grow 300 the mask is white everywhere"),
    ):
        done = call("mask", scratched, *arguments, "-o", tmp_path / "m.png")
        assert done.code == 2
        assert said in done.err
        assert done.err.count("\n") == 1
    assert call("mask", scratched, "--scratches", "-o", scratched).code == 2
    assert call("mask", scratched, "--scratches", "-o", tmp_path / "m.jpg").code == 2
    assert not (tmp_path / "m.png").exists()


def test_one_command(call, scratched, tiny_model, tmp_path):
    out = tmp_path / "o.png"
    done = call(
        "inpaint", scratched, "auto:scratches", "-o", out, "--model", tiny_model, "--method", "ddnm", "--steps", 2
    )
    assert done.code == 0, done.err
    before, after = np.asarray(Image.open(scratched)), np.asarray(Image.open(out))
    changed = (before != after).any(-1)
    assert changed[30:32, 8:87].mean() > 0.9
    assert not changed[:26].any()
    again = call("inpaint", "--again", out)
    assert again.code == 0, again.err
    assert "the same as" in again.out
    done = call("inpaint", scratched, "auto:rust", "-o", tmp_path / "p.png", "--model", tiny_model)
    assert done.code == 2
    assert "cannot be looked for, expected one of dust, scratches" in done.err
