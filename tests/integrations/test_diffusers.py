"""The custom pipelines and modular blocks of `integrations/diffusers/`: diffusers' call, an Inpainter's bits."""

from __future__ import annotations

import inspect
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers.modular_pipelines import ModularPipelineBlocks
from PIL import Image

from paintback.tasks.inpaint import Inpainter
from tests.models import tiny_pipelines as tiny

ROOT = Path(__file__).resolve().parents[2] / "integrations" / "diffusers"
FAMILIES = {
    "sd15": ("stable_diffusion", diffusers.StableDiffusionInpaintPipeline),
    "sdxl": ("stable_diffusion_xl", diffusers.StableDiffusionXLInpaintPipeline),
    "sd3": ("stable_diffusion_3", diffusers.StableDiffusion3InpaintPipeline),
    "flux_dev": ("flux", diffusers.FluxInpaintPipeline),
}
MODULAR = ("sdxl", "sd3", "flux_dev")


@pytest.fixture(scope="module")
def photo() -> dict[str, object]:
    rng = np.random.default_rng(0)
    hole = np.zeros((64, 80), np.uint8)
    hole[20:44, 30:60] = 255
    return {
        "image": Image.fromarray(rng.integers(0, 256, (64, 80, 3), np.uint8)),
        "mask_image": Image.fromarray(hole),
    }


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers copies the code of a custom folder into a cache, which is the test's own."""
    for room in (diffusers.utils.dynamic_modules_utils, diffusers.utils.constants):
        monkeypatch.setattr(room, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def load(name: str, tmp_path_factory: pytest.TempPathFactory):
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        tiny.folder(name, tmp_path_factory), custom_pipeline=str(ROOT / FAMILIES[name][0]), trust_remote_code=True
    )
    pipe.set_progress_bar_config(disable=True)
    return tiny.align(pipe)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_custom_pipeline_is_the_inpainter(name, photo, tmp_path_factory):
    pipe = load(name, tmp_path_factory)
    plain = Inpainter.from_pipe(tiny.align(tiny.load(tiny.folder(name, tmp_path_factory), name)))
    plain.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "guidance_scale": 4.0, "num_images_per_prompt": 2}
    call |= {"negative_prompt": "rain"} if name != "flux_dev" else {}
    made = pipe("a red fox", **photo, **call, generator=torch.Generator().manual_seed(3), output_type="np")
    same = plain(**photo, prompt="a red fox", **call, generator=torch.Generator().manual_seed(3), output_type="np")
    assert np.array_equal(made.images, same.images)
    # diffusers' own signature and output
    theirs = [one for one in inspect.signature(FAMILIES[name][1].__call__).parameters if one != "kwargs"]
    ours = inspect.signature(type(pipe).__call__).parameters
    assert list(ours)[: len(theirs)] == theirs and ours["strength"].default == 1 and "method" in ours
    assert (
        ours["num_inference_steps"].default
        == inspect.signature(FAMILIES[name][1].__call__).parameters["num_inference_steps"].default
    )
    assert type(made).__module__.startswith("diffusers.pipelines")


def test_what_diffusers_users_do(photo, tmp_path_factory):
    pipe = load("sd15", tmp_path_factory)
    seen = []

    def step(own, index, timestep, tensors):
        seen.append((own is pipe, index, timestep, tuple(tensors["latents"].shape)))
        own._interrupt = index == 1
        return tensors

    call = {"num_inference_steps": 4, "generator": torch.Generator().manual_seed(0)}
    images, flags = pipe("a fox", **photo, **call, callback_on_step_end=step, return_dict=False)
    assert [one[:2] for one in seen] == [(True, 0), (True, 1)] and seen[0][2] > seen[1][2] > 0
    assert seen[0][3][1] == 4 and flags is None
    assert np.array_equal(np.asarray(images[0])[:20], np.asarray(photo["image"])[:20])
    two = pipe(["a fox", "a cat"], **photo, num_inference_steps=2, output_type="pt", method="ddnm").images
    assert two.shape == (2, 3, 64, 80)
    batch = torch.stack([torch.from_numpy(np.asarray(photo["image"]) / 255).float().movedim(-1, 0)] * 2)
    assert (
        pipe(["a fox", "a cat"], batch, photo["mask_image"], num_inference_steps=2, output_type="pt").images.shape
        == two.shape
    )
    for wrong, sentence in (
        ({"latents": torch.zeros(1)}, "latents means nothing here: the noise is drawn by generator"),
        ({"eta": 0.5}, "eta means nothing here"),
        ({"output_type": "latent"}, "output_type must be pil, np, pt or picture"),
        ({"method": "dng"}, "did you mean 'ding'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            pipe("a fox", **photo, **wrong)
    with pytest.raises(TypeError, match="promt"):
        pipe(promt="a fox", **photo)


def test_the_safety_checker_is_asked(photo, tmp_path_factory, monkeypatch):
    pipe = load("sd15", tmp_path_factory)
    pipe.safety_checker = object()
    monkeypatch.setattr(
        type(pipe), "run_safety_checker", lambda self, image, device, dtype: (image, [True] * len(image)), raising=True
    )
    for kind in ("pil", "np", "pt"):
        made = pipe("a fox", **photo, num_inference_steps=2, output_type=kind)
        assert made.nsfw_content_detected == [True] and not np.asarray(made.images[0]).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULAR)
def test_a_modular_block_is_the_inpainter(name, photo, tmp_path_factory):
    folder = tiny.folder(name, tmp_path_factory)
    blocks = ModularPipelineBlocks.from_pretrained(str(ROOT / "modular" / FAMILIES[name][0]), trust_remote_code=True)
    pipe = blocks.init_pipeline(str(folder))
    pipe.load_components(dtype=torch.float32)
    tiny.align(pipe)
    plain = Inpainter.from_pipe(tiny.align(tiny.load(folder, name)))
    plain.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "method": "ding"}
    told = {"negative_prompt": "rain", "guidance_scale": 7.5} if name != "flux_dev" else {"guidance_scale": 4.0}
    asked = {one: value for one, value in told.items() if name == "flux_dev" or one != "guidance_scale"}
    made = pipe(
        prompt="a red fox", **asked, **photo, **call, generator=torch.Generator().manual_seed(3), output_type="np"
    )
    same = plain(
        **photo, prompt="a red fox", **told, **call, generator=torch.Generator().manual_seed(3), output_type="np"
    )
    assert np.array_equal(made.images, same.images)
    outside = np.asarray(photo["mask_image"]) == 0
    assert np.array_equal(np.rint(made.images[0][outside] * 255), np.asarray(photo["image"])[outside])
