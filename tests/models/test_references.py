"""Pictures that a model is shown to go by: Qwen-Image-Edit's and those of FLUX.2, as their pipelines show them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from PIL import Image

import paintback as pb
from paintback.methods.replacement import Replacement
from paintback.models.diffusers import from_pipe
from tests.models import tiny_pipelines as tiny

SIZE, STEPS = (64, 96), 2
QWEN = {"negative_prompt": "rain", "true_cfg_scale": 3.0}


@pytest.fixture(scope="module")
def pipes():
    with pytest.MonkeyPatch.context() as patch:
        tiny.small_references(patch.setattr)
        yield functools.cache(tiny.build)


def picture(seed, size=(80, 70)):
    values = np.random.default_rng(seed).random((size[1], size[0], 3))
    return Image.fromarray((values * 255).astype(np.uint8))


def both(pipe, shown, words, take):
    """Our latents and the pipeline's, from one noise."""
    denoiser = from_pipe(pipe).denoiser("a red fox", size=SIZE, reference_images=shown, **words)
    noise = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(3))

    class FromNoise(Replacement):
        def start(self, run):
            return noise.clone()

    nothing = pb.Observation(torch.zeros(denoiser.shape), torch.zeros(denoiser.shape, dtype=torch.bool))
    ours = FromNoise().sample(denoiser, nothing, STEPS)
    theirs = pipe(
        prompt="a red fox",
        image=shown,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=STEPS,
        latents=take(noise),
        output_type="latent",
        **words,
    ).images
    return ours.x, theirs


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("name", "count"), [("qwen_image_edit", 1), ("qwen_image_edit_plus", 1), ("qwen_image_edit_plus", 2)]
)
@pytest.mark.parametrize("words", [{}, QWEN])
def test_qwen_image_edit_goes_by_pictures_as_its_pipeline_does(pipes, name, count, words):
    pipe = pipes(name)
    shown = [picture(k, size) for k, size in zip(range(count), ((80, 70), (60, 90)), strict=False)]
    given = shown if count > 1 else shown[0]
    ours, theirs = both(pipe, given, words, lambda noise: pipe._pack_latents(noise, *noise.shape))
    close(pipe._pack_latents(ours, *ours.shape), theirs)


@pytest.mark.parametrize("count", [1, 2])
def test_flux2_goes_by_pictures_as_its_pipeline_does(pipes, count, monkeypatch):
    pipe = pipes("flux2_klein")
    shown = [picture(1, (90, 70)), picture(2, (64, 100))][:count]
    ours, theirs = both(pipe, shown, {}, pipe._patchify_latents)
    close(from_pipe(pipe).codec.denormalise(ours), theirs)


def test_large_pictures_come_down_as_in_flux2s_pipeline(pipes, monkeypatch):
    pipe, seen = pipes("flux2_klein"), []
    monkeypatch.setattr(pipe, "_encode_vae_image", lambda image, generator: seen.append(tuple(image.shape)))
    from_pipe(pipe).encode_reference(picture(0, (1200, 1000)))
    assert seen == [(1, 3, 928, 1120)]  # of an area of 1024 x 1024, cut to whole tokens


@pytest.mark.parametrize("name", [*tiny.EDITING, "flux2_klein"])
def test_any_kind_of_picture_is_one_and_another_is_another(pipes, name):
    model, shown = from_pipe(pipes(name)), picture(0)

    def look(given):
        denoiser = model.denoiser("a red fox", size=SIZE, reference_images=given)
        return denoiser(torch.zeros(1, *denoiser.shape), 0.8).x0

    first = look(shown)
    tensor = torch.from_numpy(np.array(shown)).permute(2, 0, 1)[None] / 255
    assert torch.equal(first, look([np.asarray(shown)]))
    assert torch.equal(first, look(tensor))
    assert float((look(picture(5)) - first).abs().max()) > 1e-2


def test_without_a_picture_qwen_image_edit_says_what_it_learnt(pipes):
    model = from_pipe(pipes("qwen_image_edit"))
    with pytest.raises(ValueError, match="learnt to go by a picture; give reference_images"):
        model.denoiser("a red fox", size=SIZE)
    with pytest.warns(UserWarning, match="learnt to go by a picture; give reference_images"):
        from_pipe(pipes("qwen_image_edit_plus")).denoiser("a red fox", size=SIZE)
    with pytest.raises(ValueError, match="is shown 1 reference picture at most; got 2"):
        model.denoiser("a", size=SIZE, reference_images=[picture(0), picture(1)])


def test_a_pipeline_without_an_adapter_says_why():
    class LTX2Pipeline:
        pass

    with pytest.raises(ValueError, match="no adapter for LTX2Pipeline: it paints sound together with the picture"):
        from_pipe(LTX2Pipeline())
    union = type("StableDiffusionXLControlNetUnionPipeline", (), {})
    with pytest.raises(ValueError, match="its ControlNet is of several kinds; StableDiffusionXLControlNetPipeline"):
        from_pipe(union())


def test_the_check_shows_qwen_image_edit_a_picture(pipes):
    report = pb.check(pipes("qwen_image_edit"), prompt="a fox", num_inference_steps=2, size=64, names=("ding",))
    assert report.passed, str(report)
    assert "pictures differ by" in str(report)
