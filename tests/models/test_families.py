"""Every method on every family of diffusers pipelines: the cells of the table in docs/models/families.md."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.models.diffusers import FAMILIES
from paintback.tasks.inpaint import Inpainter
from tests.models import tiny_pipelines as tiny

PAGE = Path(__file__).parents[2] / "docs" / "models" / "families.md"
SAME = {
    "ddim",
    "sd3_no_t5",
    "flux_schnell",
    "qwen_image_edit_plus",
    "wan22",
}  # the adapter of a neighbour, with tests of their own elsewhere
IMAGES = [name for name in tiny.NAMES if name not in {*tiny.VIDEO, *tiny.TRAINED, *SAME}]
VIDEO = [name for name in tiny.VIDEO if name not in SAME]
QUICK = {"ding"}  # in the default run
EACH = {"ding", "lanpaint", "flowdps", "dps", "fcs", "fmm", "gradpaint", "p2l"}  # with every family in `make slow`
KINDS = {"ddpm", "sd15", "sd3", "flux_dev"}  # of pipelines: with every method in `make slow`
ANY = [name for name in pb.methods.names() if name != "aid"]  # which needs a module trained beside the model


def cells(families: list[str], quick: set[str], each: set[str] = EACH) -> list[object]:
    """Every family with every method; those that are not `quick` are marked by how often they run."""

    def marks(family: str, method: str) -> list[pytest.MarkDecorator]:
        if method in quick:
            return []
        return [pytest.mark.slow if family in KINDS or method in each else pytest.mark.matrix]

    return [pytest.param(family, method, marks=marks(family, method)) for family in families for method in ANY]


assert {*IMAGES, *VIDEO} >= KINDS
assert {*ANY} >= EACH
STEPS = 2
LARGEST = 128  # side of the pictures; a family that is trained on larger ones is told to paint at that


@pytest.fixture(scope="module")
def inpainter():
    made = {}

    def get(name):
        if name not in made:
            made.clear()  # one at a time
            pipe = tiny.build(name)
            pipe.set_progress_bar_config(disable=True)
            made[name] = Inpainter.from_pipe(pipe)
            made[name].set_progress_bar_config(disable=True)
        return made[name]

    return get


def scene(model):
    side = min(LARGEST, model.training_size if model.size is None else model.size[0])
    rng = np.random.default_rng(0)
    coarse = rng.random((4, 4, 3)).astype(np.float32)
    picture = np.kron(coarse, np.ones((side // 4, side // 4, 1), np.float32))
    mask = np.zeros(picture.shape[:2], bool)
    mask[side // 4 : side // 2 + 3, side // 3 : side - side // 4] = True
    return picture, mask


@pytest.mark.filterwarnings("ignore:.*distilled")
@pytest.mark.parametrize(("family", "method"), cells(IMAGES, QUICK))
def test_cell(inpainter, family, method, monkeypatch):
    tiny.small_references(monkeypatch.setattr)
    own = inpainter(family)
    picture, mask = scene(own.model)
    words = {"prompt": "a red fox"} if family in tiny.TEXT_TO_IMAGE else {}
    if family in tiny.EDITING:
        words["reference_images"] = picture
    size = dict.fromkeys(("height", "width"), LARGEST) if own.model.training_size > LARGEST else {}
    fields = {"prompt_steps": 1} if method == "p2l" else {}
    chosen = pb.methods.get(method, **fields)
    out = own(
        picture,
        mask,
        method=chosen,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        **words,
        **size,
    )
    painted = out.images[0]
    assert painted.shape == picture.shape
    assert np.isfinite(painted).all()
    assert np.array_equal(painted[~mask], picture[~mask])
    assert painted[mask].std() > 1e-3
    assert (out.vjps > 0) == chosen.needs_vjp
    if method != "p2l":  # its cost depends on there being a prompt
        assert out.evaluations == chosen.evaluations(STEPS)
        assert out.vjps == chosen.vjps(STEPS)


@pytest.mark.filterwarnings("ignore:.*distilled")
@pytest.mark.parametrize(("family", "method"), cells(VIDEO, set(), {"ding", "lanpaint"}))
def test_video_cell(inpainter, family, method):
    own = inpainter(family)
    side = {"wan22_ti2v": 64, "ltx": 128}.get(family, 32)
    clip = np.random.default_rng(0).random((5, side, side, 3)).astype(np.float32)
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2 + 3, side // 3 : side - side // 4] = True
    chosen = pb.methods.get(method, **({"prompt_steps": 1} if method == "p2l" else {}))
    out = pb.inpaint_video(
        clip,
        mask,
        model=own,
        prompt="waves",
        method=chosen,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        progress_bar=False,
    )
    assert out.frames.shape == clip.shape
    assert np.array_equal(out.frames[:, ~mask], clip[:, ~mask])
    assert out.frames[:, mask].std() > 1e-3
    if method != "p2l":
        assert out.evaluations == chosen.evaluations(STEPS)
        assert out.vjps == chosen.vjps(STEPS)


@pytest.mark.filterwarnings("ignore:.*distilled")
@pytest.mark.parametrize(("family", "method"), cells(["stable_audio"], QUICK) + cells(["ace_step"], set()))
def test_sound_cell(inpainter, family, method):
    own = inpainter(family)
    sound = np.random.default_rng(0).normal(0, 0.3, (1200, 2)).astype(np.float32)  # one second and a half
    hole = np.zeros(1200, bool)
    hole[333:640] = True
    chosen = pb.methods.get(method, **({"prompt_steps": 1} if method == "p2l" else {}))
    out = pb.inpaint_audio(
        sound,
        hole,
        model=own,
        prompt="a bell",
        sampling_rate=800,
        method=chosen,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(0),
        progress_bar=False,
    )
    assert out.audio.shape == sound.shape
    assert np.isfinite(out.audio).all()
    assert np.array_equal(out.audio[~hole], sound[~hole])
    assert out.audio[hole].std() > 1e-3
    if method != "p2l":
        assert out.evaluations == chosen.evaluations(STEPS)
        assert out.vjps == chosen.vjps(STEPS)


def test_the_page_has_every_family_and_method():
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\].*", page, re.M)
    assert rows == pb.methods.names()
    spec = importlib.util.spec_from_file_location("docs_generate", PAGE.parents[1] / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert set(generate.COLUMNS.values()) == {*IMAGES, *VIDEO, *tiny.SOUND}


def test_every_adapter_is_among_the_families_tested():
    classes = {type(tiny.build(name)).__name__ for name in tiny.NAMES + tiny.SOUND}
    assert classes == set(FAMILIES) - {"Flux2Pipeline", "FluxControlPipeline"}  # see test_references and test_shown
