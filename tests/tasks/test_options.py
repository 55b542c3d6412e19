"""Python's keywords are the request's: in `Options`, in the signatures, in what is refused, and for a type checker."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.images.errors import Remark
from paintback.painting.request import LayersRequest, Request, SuperresRequest, options
from paintback.tasks import options as tasks_options
from paintback.tasks.options import CALL, Options, from_python, keywords, signature
from tests.tasks.test_inpaint import tiny_model

MASK = np.zeros((24, 24), bool)
MASK[6:12, 6:12] = True
IMAGE = np.random.default_rng(0).random((24, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def inpainter() -> pb.Inpainter:
    made = pb.Inpainter(tiny_model())
    made.set_progress_bar_config(disable=True)
    return made


def test_the_keywords_are_the_requests() -> None:
    typed = set(get_type_hints(Options))
    assert typed == {*keywords(), *CALL} - {"prompt"}
    assert set(Options.__doc__.split("Attributes:")[1].split()) >= {f"{name}:" for name in typed}
    defaults = {one.python: one.default for one in options(Request)} | CALL
    for call, first in (
        (pb.Inpainter.__call__, ["self", "image", "mask_image"]),
        (pb.inpaint, ["image", "mask_image"]),
    ):
        made = inspect.signature(call).parameters
        assert list(made)[: len(first)] == first
        assert set(made) >= typed | {"prompt", "output_type"}
        assert {name: made[name].default for name in typed} == {name: defaults[name] for name in typed}


def test_a_new_entry_is_a_keyword(monkeypatch) -> None:
    from typing import Annotated

    from pydantic import Field

    from paintback.painting.request import Ask

    class Warmer(Request):
        warmth: Annotated[float, Field(ge=0, le=1, description="How warm the colours are."), Ask()] = 0.5

    monkeypatch.setattr(tasks_options, "Request", Warmer)
    assert from_python({"warmth": 1}, Warmer).warmth == 1
    assert signature("image").parameters["warmth"].default == 0.5
    with pytest.raises(ValueError, match="warmth must be at most 1; got 2"):
        from_python({"warmth": 2}, Warmer)


@pytest.mark.parametrize("kind", ["StableDiffusion", "StableDiffusionXL", "Flux", "StableDiffusion3", "QwenImage"])
def test_every_keyword_of_diffusers_is_taken_or_names_what_takes_its_place(kind: str) -> None:
    import diffusers

    theirs = set(inspect.signature(getattr(diffusers, f"{kind}InpaintPipeline").__call__).parameters)
    ours = set(inspect.signature(pb.Inpainter.__call__).parameters)
    for keyword in theirs - ours - {"kwargs"}:
        with pytest.raises(ValueError, match=f"There is no keyword '{keyword}' here: .*\\.$"):
            from_python({keyword: 1}, Request)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"guidence_scale": 3}, "no keyword 'guidence_scale'; did you mean 'guidance_scale'?"),
        ({"steps": 3}, "no keyword 'steps'; did you mean 'num_inference_steps'?"),
        ({"callback": print}, "no keyword 'callback' here: callback_on_step_end is called after every step."),
        ({"latents": 0}, "no keyword 'latents' here: the noise is drawn by generator."),
        ({"negative_prompt_2": ""}, "takes no negative_prompt_2; leave that out."),
        ({"control_image": IMAGE}, "takes no control_image; leave that out."),
        ({"control_mask": 1}, "no keyword 'control_mask' here: any method paints in the hole of mask_image"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number"),
        ({"mask_blur": float("nan")}, "mask_blur must be a finite number"),
        ({"quality": "better"}, "quality must be one of fast, good, best"),
        ({"average": 0}, "average must be at least 1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1; got 2.5"),
        ({"generator": True}, "generator"),
        ({"request": Request(), "strength": 0.5}, "not both"),
        ({"request": Request(), "negative_prompt": ["a fox"]}, "not both"),
        ({"request": Request(), "prompt": ["a fox"]}, "not both"),
        ({"request": Request(), "prompt": 3}, "not both"),
        ({"method": "ding", "fields": {"magic": 1}}, "magic"),
        ({"callback_on_step_end": 3}, "called after every step; got 3"),
        ({"latent_mask": "any"}, "takes no latent_mask"),
    ],
)
def test_what_does_not_fit_is_one_sentence(inpainter, change, says) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is looked at below
        inpainter(IMAGE, MASK, **change)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_keywords_a_request_and_its_settings_paint_the_same(inpainter) -> None:
    asked = {"method": "ding", "mask_blur": 1.0, "padding_mask_crop": 4, "strength": 0.5, "mask_grow": 1.0}
    one = inpainter(IMAGE, MASK, num_inference_steps=np.int64(4), generator=3, output_type="np", **asked)
    request = Request(method="ding", blur=1.0, padding=4, strength=0.5, grow=1.0, steps=4, seed=3)
    other = inpainter(IMAGE, MASK, request=request, output_type="np")
    assert (one.images == other.images).all() and one.seeds == other.seeds == [3]
    assert one.settings == json.loads(json.dumps(one.settings)) == other.settings
    kept = {name: value for name, value in one.settings.items() if name not in ("model", "policy")}
    again = inpainter(IMAGE, MASK, output_type="np", generator=3, **kept)
    assert (again.images == one.images).all() and again.settings == one.settings


def test_a_method_of_ones_own_needs_no_name(inpainter) -> None:
    kind = type(pb.methods.get("ddnm"))

    @dataclasses.dataclass(frozen=True)
    class Mine(kind):
        name = "mine"

    out = inpainter(IMAGE, MASK, method=Mine(), num_inference_steps=2, quality="fast")
    assert (out.settings["method"], out.evaluations) == ("mine", 2)


def test_a_seed_counts_up(inpainter) -> None:
    call = {"method": "ding", "num_inference_steps": 2, "output_type": "np"}
    both = inpainter(IMAGE, MASK, num_images_per_prompt=2, generator=7, **call)
    assert both.seeds == [7, 8]
    assert abs(both.images[1] - inpainter(IMAGE, MASK, generator=8, **call).images[0]).max() < 1e-5


def test_inpaint_keeps_its_model_and_gives_back_what_it_was_given(monkeypatch) -> None:
    from paintback.tasks import oneshot

    loaded: list[str] = []

    def load(name, **more) -> pb.Inpainter:
        if name == "nobody":
            raise ValueError("There is no model 'nobody'.")
        loaded.append(name)
        return pb.Inpainter(tiny_model())

    monkeypatch.setattr(oneshot.Inpainter, "from_pretrained", load)
    monkeypatch.setattr(oneshot, "_kept", {})
    call = {"method": "ding", "num_inference_steps": 2, "generator": 0}
    array = pb.inpaint(IMAGE, MASK, **call).images
    tensor = pb.inpaint(torch.from_numpy(IMAGE).permute(2, 0, 1), MASK, **call).images
    assert loaded == ["photo"]
    assert isinstance(array, np.ndarray) and (tensor[0].permute(1, 2, 0).numpy() == array[0]).all()
    (picture,) = pb.inpaint(IMAGE, MASK, model="other", output_type="pil", **call).images
    assert picture.size == (24, 24) and loaded == ["photo", "other"] and len(oneshot._kept) == 1
    with pytest.raises(ValueError, match="no model 'nobody'"):
        pb.inpaint(IMAGE, MASK, model="nobody")
    wide = pb.inpaint(IMAGE, model="other", outpaint=(4, 0, 0, 0), **call).images
    assert wide.shape == (1, 24, 28, 3) and (wide[0, :, 4:] == IMAGE).all()
    assert loaded == ["photo", "other"]  # a wrong name costs no model


USER = """
import numpy as np
import PIL.Image
from numpy.typing import NDArray

import paintback as pb

inpainter: pb.Inpainter = pb.Inpainter.from_pretrained("photo")
out = inpainter(image="a.png", mask_image="b.png", method="ding", strength=0.5, generator=3)
first: PIL.Image.Image = out.images[0]
arrays: NDArray[np.float32] | list[NDArray[np.float32]] = inpainter("a.png", "b.png", output_type="np").images
plan: int = inpainter.plan("a.png", "b.png").steps
request: pb.Request = pb.Request(photo="a.png", mask="b.png", quality="best")
policy: pb.Policy = pb.Policy(context=8)
used = [pb.Denoiser, pb.NetworkDenoiser, pb.Observation, pb.Prediction, pb.inpaint, pb.inpaint_audio, pb.inpaint_video,
        pb.layers, pb.superres, pb.batch, pb.check, pb.denoiser, pb.images, pb.methods, pb.models, pb.observation,
        pb.priors, pb.randomness, pb.register, pb.schedules, pb.training, pb.__version__]
enlarged: list[float] = pb.superres("a.png", 2).residuals
"""


@pytest.mark.slow
def test_a_type_checker_sees_every_public_name(tmp_path) -> None:
    pytest.importorskip("mypy")
    missing = {name for name in pb.__all__ if f"pb.{name}" not in USER}
    assert missing == set()
    file = tmp_path / "user.py"
    file.write_text(USER)
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import paintback as pb\npb.inpaint('a', 'b', promt='x')\npb.Nothing\n")
    root = Path(pb.__file__).parent.parent
    check = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(root / "pyproject.toml")]
    call = {"cwd": root, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([*check, str(file)], **call)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([*check, str(wrong)], **call)
    assert '"promt"' in done.stdout and '"Nothing"' in done.stdout


def test_every_public_name_is_there_and_importing_is_light() -> None:
    assert all(getattr(pb, name) is not None for name in pb.__all__)
    code = "import sys, paintback; paintback.Request; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("width", "warned"), [(30, 0), (90, 0), (150, 1)])
def test_a_hole_wider_than_the_model_knows_is_said_once(width: int, warned: int) -> None:
    inpainter = pb.Inpainter(dataclasses.replace(tiny_model(), training_size=64))
    inpainter.set_progress_bar_config(disable=True)
    mask = np.zeros((240, 240), bool)
    mask[20 : 20 + width, 20 : 20 + width] = True
    image = np.full((240, 240, 3), 0.5, np.float32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            inpainter(image, mask, method="replacement", num_inference_steps=1)
    texts = [str(one.message) for one in said if issubclass(one.category, Remark)]
    assert len(texts) == warned
    assert all(f"about {width} pixels wide" in text and "hide less at a time" in text for text in texts)


def test_the_other_tasks_take_what_their_requests_have() -> None:
    from paintback.tasks.layer_inference import LayerInference
    from paintback.tasks.layers import FIELDS, LayersOptions
    from paintback.tasks.superres import SuperresOptions
    from paintback.tasks.video import ClipOptions

    assert set(get_type_hints(SuperresOptions)) == {*keywords(SuperresRequest), "generator"} - {"scale", "prompt"}
    assert set(get_type_hints(LayersOptions)) - set(FIELDS) == {"num_inference_steps", "guidance_scale", "generator"}
    assert {*keywords(LayersRequest)} == {"num_inference_steps", "guidance_scale", "fields", "prompt_1", "prompt_2"}
    assert set(FIELDS) <= set(LayerInference.__dataclass_fields__)
    assert set(get_type_hints(ClipOptions)) == {*keywords(clips=True), *CALL} - {"prompt"}
    for call in (pb.superres, pb.layers, pb.inpaint_video):
        taken = inspect.signature(call).parameters
        assert len(taken) < 12 and "options" in taken
    with pytest.raises(ValueError, match=r"no keyword 'kernle'; did you mean 'kernel'\?"):
        pb.superres(IMAGE, 2, kernle="area")
    with pytest.raises(ValueError, match="no keyword 'grian'"):
        pb.layers(IMAGE, grian=3)
