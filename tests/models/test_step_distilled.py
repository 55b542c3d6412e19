"""Step-distilled models: how they are known, their steps, guidance, method and warnings."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest

from paintback.models.catalogue import Sampler, recommended
from paintback.models.diffusers import from_pipe
from paintback.models.distilled import is_step_distilled, steps_of
from paintback.tasks.inpaint import Inpainter
from tests.models import tiny_pipelines as tiny

KNOWN = {
    "Tongyi-MAI/Z-Image-Turbo": 8,
    "black-forest-labs/FLUX.1-schnell": 4,
    "black-forest-labs/FLUX.2-klein-4B": 4,
    "ByteDance/SDXL-Lightning": 4,
    "ByteDance/Hyper-SD": 4,
    "SimianLuo/LCM_Dreamshaper_v7": 8,
    "stabilityai/sdxl-turbo": 4,
    "stabilityai/stable-diffusion-3.5-large-turbo": 4,
    "lightx2v/Wan2.1-T2V-14B-StepDistill-CfgDistill": 4,
    "lightx2v/Qwen-Image-Lightning-8steps-V1.0": 8,
}
SIZE = {"height": 64, "width": 64}  # not enlarged to what the released weights learnt from
OTHERS = (
    "black-forest-labs/FLUX.1-dev",
    "black-forest-labs/FLUX.2-klein-base-4B",
    "stabilityai/stable-diffusion-3.5-medium",
    "Tongyi-MAI/Z-Image",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "somebody/hyperrealism",
    "/home/turbo/stable-diffusion",
)


@pytest.fixture(scope="module")
def pipes():
    made = {}
    return lambda name: made.setdefault(name, None) or made.update({name: tiny.build(name)}) or made[name]


def test_names() -> None:
    assert {name: steps_of(name) for name in KNOWN} == KNOWN
    assert all(map(is_step_distilled, KNOWN)) and not any(map(is_step_distilled, OTHERS))


@pytest.mark.parametrize(("name", "given", "off"), [("z_image", 5.0, 1.0), ("sd3", 7.0, 1.0), ("sd15", 7.5, 1.0)])
def test_guidance_is_off_unless_it_is_asked_for(pipes, name, given, off) -> None:
    pipe = pipes(name)
    plain, turbo = from_pipe(pipe, name="a/plain"), from_pipe(pipe, name="a/some-turbo")
    assert (plain.step_distilled, turbo.step_distilled) == (False, True)
    assert plain.denoiser("fox").guidance_scale == given + (name == "z_image")
    quiet = turbo.denoiser("fox")
    assert quiet.guidance_scale == off and quiet.unconditional is None and quiet.step_distilled
    assert turbo.denoiser("fox", guidance_scale=3.0).guidance_scale == 3.0 + (name == "z_image")


def test_z_image_turbo_has_eight_steps_and_the_walk(pipes) -> None:
    """It had guidance 5 and 25 steps."""
    model = from_pipe(pipes("z_image"), name="Tongyi-MAI/Z-Image-Turbo")
    inpainter = Inpainter(model)
    inpainter.set_progress_bar_config(disable=True)
    picture, hole = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32), np.zeros((64, 64), bool)
    hole[20:40, 20:40] = True
    for quality, evaluations in (("fast", 8), ("good", 30)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            out = inpainter(picture, hole, "fox", quality=quality, generator=0, output_type="np", **SIZE)
        assert (out.settings["method"], out.settings["num_inference_steps"]) == ("gibbs", 8)
        assert (
            out.evaluations == evaluations == inpainter.plan(picture, hole, "fox", quality=quality, **SIZE).evaluations
        )
    own = model.denoiser("fox").grid(8)
    assert inpainter.plan(picture, hole, "fox").stages[0].steps == len(own) - 1


def test_methods_that_take_a_mean_are_warned_about_once(pipes) -> None:
    inpainter = Inpainter.from_pipe(pipes("flux_schnell"), step_distilled=True)
    inpainter.set_progress_bar_config(disable=True)
    picture, hole = np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), bool)
    hole[20:40, 20:40] = True
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for method in ("gibbs", "repaint", "ding", "ding"):
            inpainter(picture, hole, "fox", method=method, num_inference_steps=1, **SIZE)
    assert sum("is step-distilled" in str(one.message) for one in seen) == 1
    assert not Inpainter.from_pipe(pipes("flux_schnell"), step_distilled=False).model.step_distilled


def test_the_scheduler_says_so(pipes) -> None:
    from diffusers import LCMScheduler

    pipe = copy.copy(pipes("sd15"))
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    model = from_pipe(pipe)
    assert model.step_distilled and model.sampler == Sampler("gibbs", {}, 4, fast={"repeats": 1, "aims": 0})
    assert len(model.denoiser("fox").grid(4)) == 5


def test_a_folder_is_known_before_it_is_loaded(tmp_path) -> None:
    folder = tmp_path / "sdxl-turbo"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    assert recommended(str(folder)).method == "gibbs" and recommended("stabilityai/sdxl-turbo").method == "gibbs"
    assert recommended("stabilityai/sdxl") == Sampler()


def test_it_is_said_when_a_pipeline_is_loaded(tmp_path_factory):
    from paintback.batch.job import load
    from paintback.painting.request import Request

    folder = str(tiny.folder("sd15", tmp_path_factory))
    for said, few in ((None, False), ("yes", True), ("no", False)):
        model = load(Request(model=folder, device="cpu", step_distilled=said)).model
        assert (model.step_distilled, model.sampler.method == "gibbs") == (few, few)
    with pytest.raises(ValueError, match="is no pipeline of diffusers and takes no step_distilled"):
        Inpainter.from_pretrained("fashion", step_distilled=True)


def test_a_row_and_a_job_of_the_server_say_it_too(pipes, tmp_path_factory):
    from paintback.batch.tasks import COLUMNS
    from paintback.web.config import Config, offers
    from paintback.web.schemas import JobRequest, options
    from paintback.web.worker import Worker

    assert "step_distilled" in COLUMNS
    assert JobRequest(photo="0" * 32, step_distilled="yes").step_distilled == "yes"
    config = Config(tmp_path_factory.mktemp("web"), offers({"mine": str(tiny.folder("sd15", tmp_path_factory))}))
    asked = options(config)
    assert "step_distilled" in {entry.name for entry in asked.entries}
    hidden = {model.name for model in asked.models if "step_distilled" in model.without}
    assert hidden == {model.name for model in asked.models} - {"mine"}  # the page asks it of pipelines alone
    worker = Worker(None, config, {}, lambda: None)
    plain = worker.load("mine")
    few = worker.load("mine", "yes")
    assert few.model.step_distilled and few.model.sampler.method == "gibbs" and few.model.pipe is plain.model.pipe
    assert worker.load("mine", "no") is plain and worker.load("mine") is plain
    assert few.told(step_distilled=False).model.sampler == Sampler()
    with pytest.raises(ValueError, match="is no pipeline of diffusers and takes no step_distilled"):
        Inpainter.from_pretrained("fashion").told(step_distilled=True)
