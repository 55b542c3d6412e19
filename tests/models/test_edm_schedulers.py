"""EDM's schedulers, as of Playground v2.5, which is SDXL with one: ours are their pipeline's own call."""

from __future__ import annotations

import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler

import paintback as pb
from paintback.methods.ding import Ding
from paintback.models.diffusers import from_pipe
from tests.models import tiny_pipelines as tiny

SIZE = (64, 96)
STEPS = 4
TOLD = {"prompt": "a red fox", "negative_prompt": "rain", "guidance_scale": 3.0}
MEAN, STD = [-1.6574, 1.886, -1.383, 2.5155], [8.4927, 5.9022, 6.5498, 5.2299]  # as large as the released VAE's


@pytest.fixture(scope="module")
def pipe():
    own = tiny.build("sdxl")
    own.vae.register_to_config(latents_mean=MEAN, latents_std=STD, scaling_factor=0.5)
    return own


def both(pipe, **more):
    """Our latents and pictures with nothing known, and the pipeline's own from the same noise."""
    model = from_pipe(pipe)
    denoiser = model.denoiser(**TOLD, size=SIZE, **more)
    nothing = pb.Observation(torch.zeros(denoiser.shape), torch.zeros(denoiser.shape, dtype=torch.bool))
    noise = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(3))

    class Start(Ding):
        def start(self, run):
            return noise.clone()

    euler = Start(eta="zero", delayed=True, coordinates="vp")  # in which the pipeline's first state is the noise itself
    ours = euler.sample(denoiser, nothing, STEPS, num_samples=2, grid=denoiser.grid(STEPS))
    call = {**TOLD, **more, "height": SIZE[0], "width": SIZE[1], "num_inference_steps": STEPS}
    theirs = [
        pipe(**call, num_images_per_prompt=2, latents=noise.clone(), output_type=kind).images
        for kind in ("latent", "pt")
    ]
    return model, ours.x, theirs


def far(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize(("scheduler", "more"), [
    pytest.param(EDMEulerScheduler(sigma_data=0.5), {}, marks=pytest.mark.slow),
    (EDMEulerScheduler(prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"), {}),
    (EDMDPMSolverMultistepScheduler(sigma_data=0.5, solver_order=1), {"guidance_rescale": 0.7}),
])  # fmt: skip
def test_with_nothing_known_it_is_the_pipeline(pipe, scheduler, more):
    pipe.scheduler = scheduler
    model, ours, (latents, pictures) = both(pipe, **more)
    assert far(ours, latents) < 2e-5
    assert float(((model.codec.decode(ours) / 2 + 0.5).clamp(0, 1) - pictures).abs().max()) < 2e-4
    assert model.timestep(1.0) == pytest.approx(float(scheduler.timesteps[0]), abs=1e-6)


def test_the_codec_has_the_vaes_mean_and_deviation(pipe):
    codec = from_pipe(pipe).codec
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = (torch.tensor(one).reshape(1, 4, 1, 1) for one in (MEAN, STD))
    assert torch.allclose(codec.encode(picture), (pipe.vae.encode(picture).latent_dist.mode() - mean) * 0.5 / std)


@pytest.mark.parametrize("method", ["lanpaint", pytest.param("dps", marks=pytest.mark.slow)])
def test_methods_run_on_it(pipe, method):
    pipe.scheduler = EDMDPMSolverMultistepScheduler(sigma_data=0.5)
    own = pb.Inpainter.from_pipe(pipe)
    own.set_progress_bar_config(disable=True)
    image, mask = torch.rand(1, 3, 64, 64).numpy()[0].transpose(1, 2, 0), torch.zeros(64, 64, dtype=torch.bool)
    mask[20:40, 24:44] = True
    made = own(image, mask.numpy(), prompt="a fox", num_inference_steps=2, generator=0, output_type="np", method=method)
    assert (made.images[0][~mask.numpy()] == image[~mask.numpy()]).all()
    assert bool(torch.tensor(made.images[0]).isfinite().all())


def test_other_families_refuse_it():
    other = tiny.build("pixart_sigma")
    other.scheduler = EDMEulerScheduler()
    with pytest.raises(ValueError, match="EDMEulerScheduler has no betas"):
        from_pipe(other)
