"""Ideogram 4: the real pipeline at tiny random weights."""

from __future__ import annotations

import pytest
import torch

import paintback as pb
from paintback.methods.replacement import Replacement
from paintback.models.diffusers import from_pipe
from tests.models import tiny_pipelines as tiny

SIZE, STEPS = (64, 96), 3


@pytest.fixture(scope="module")
def pipe():
    return tiny.build("ideogram4")


@pytest.mark.parametrize(("scale", "rows"), [(7.0, 2), (1.0, 1)])
def test_with_nothing_known_euler_is_the_pipeline(pipe, scale, rows):
    model = from_pipe(pipe)
    words = {"guidance_scale": scale, "max_sequence_length": 128}
    denoiser = model.denoiser("a red fox", size=SIZE, **words)
    noise = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(3))

    class FromNoise(Replacement):
        def start(self, run):
            return noise.clone()

    nothing = pb.Observation(torch.zeros(denoiser.shape), torch.zeros(denoiser.shape, dtype=torch.bool))
    ours = FromNoise().sample(denoiser, nothing, STEPS, num_samples=2)

    def theirs(kind):
        return pipe(
            "a red fox",
            height=SIZE[0],
            width=SIZE[1],
            num_inference_steps=STEPS,
            num_images_per_prompt=2,
            guidance_schedule=None,
            latents=model.as_latents(noise),
            output_type=kind,
            **words,
        ).images

    expected = theirs("latent")
    assert float((model.as_latents(ours.x) - expected).abs().max() / expected.abs().max()) < 1e-5
    made = (model.codec.decode(ours.x) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(made, theirs("pt"), rtol=0, atol=1e-5)
    assert (ours.evaluations, ours.network_rows) == (STEPS, rows * STEPS)


def test_codec_goes_there_and_back_and_both_networks_are_the_models(pipe):
    model = from_pipe(pipe)
    x = torch.randn(1, 32, 8, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.codec.whole(model.codec.patches(x)), x)
    torch.testing.assert_close(model.codec.normalise(model.codec.denormalise(x)), x, rtol=0, atol=1e-5)
    assert model.networks() == [pipe.transformer, pipe.unconditional_transformer]
    with pytest.raises(ValueError, match="takes no negative_prompt"):
        model.denoiser("a", "b", size=SIZE)


@pytest.mark.slow
def test_the_check_gives_the_pipeline_one_scale_for_all_steps(pipe):
    report = pb.check(pipe, prompt="a fox", num_inference_steps=2, size=64, names=("ding",))
    assert report.passed, str(report)
