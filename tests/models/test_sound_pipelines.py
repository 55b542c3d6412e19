"""Stable Audio and ACE-Step: ours are their pipelines' own loops, and cells of sounds are known as they should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paintback as pb
from paintback.methods.base import Method
from paintback.methods.ding import Ding
from paintback.models.diffusers import from_pipe
from paintback.models.diffusers.sound import OobleckCodec
from paintback.models.latent import known_cells
from tests.models import tiny_pipelines as tiny

STEPS = 4
COUNT = 1200  # samples: one and a half seconds, and half a cell too many
CELLS = 38


@pytest.fixture(scope="module")
def stable():
    return tiny.build("stable_audio")


@pytest.fixture(scope="module")
def ace():
    return tiny.build("ace_step")


def far(a, b):
    return float((a - b).abs().max() / b.abs().max())


class Ancestral(Method):
    """The first-order steps of Stable Audio's scheduler, with its Brownian noise of a seed."""

    name = "ancestral"

    def start(self, run):
        return NOISE(run.denoiser.shape) * np.hypot(run.times[0].sigma, 1.0)

    def step(self, run, x_t, t, s):
        if t == run.times[0]:
            from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler  # needs torchsde

            config = run.denoiser.model.pipe.scheduler.config
            run.memory["tree"] = BrownianTreeNoiseSampler(x_t[:, :, 0], config.sigma_min, config.sigma_max, seed=5)
        noise = run.memory["tree"](torch.tensor(t.sigma).float(), torch.tensor(s.sigma).float())[:, :, None]
        share = (s.sigma / t.sigma) ** 2
        return share * x_t + (1 - share) * run.denoise(x_t, t).x0 + s.sigma * (1 - share) ** 0.5 * noise


class Euler(Ding):
    def start(self, run):
        return NOISE(run.denoiser.shape)


def NOISE(shape):  # noqa: N802 - the one noise of this file
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(3))


def ours(pipe, method, **told):
    model = from_pipe(pipe)
    denoiser = model.denoiser(size=(1, COUNT), **told)
    nothing = pb.Observation(torch.zeros(denoiser.shape), torch.zeros(denoiser.shape, dtype=torch.bool))
    return model, method.sample(denoiser, nothing, STEPS, num_samples=2, grid=denoiser.grid(STEPS)).x


@pytest.mark.filterwarnings("ignore:Should have t")  # of torchsde, by a rounding of the levels
@pytest.mark.parametrize("told", [
    {"prompt": "a bell", "negative_prompt": "rain"},
    {"prompt": "a bell", "guidance_scale": 3.0},
    pytest.param({"prompt": "a bell", "guidance_scale": 1.0}, marks=pytest.mark.slow),
], ids=["negative", "guided", "plain"])  # fmt: skip
def test_with_nothing_known_it_is_stable_audio(stable, told):
    model, x = ours(stable, Ancestral(coordinates="edm"), **told)
    noise = NOISE(model.codec.shape((1, COUNT)))[:, :, 0]
    call = {**told, "num_inference_steps": STEPS, "num_waveforms_per_prompt": 2, "audio_end_in_s": COUNT / 800}
    seed = torch.Generator().manual_seed(5)
    latents = stable(**call, latents=noise.clone(), generator=seed, output_type="latent").audios
    assert far(x[:, :, 0], latents) < 2e-5
    sounds = stable.vae.decode(latents).sample
    assert far(model.codec.decode(x)[:, :, 0], sounds) < 1e-4
    assert model.timestep(1.0) == pytest.approx(float(stable.scheduler.timesteps[0]), abs=1e-6)


@pytest.mark.parametrize("turbo", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_with_nothing_known_it_is_ace_step(ace, turbo):
    told = {"lyrics": "[verse] la", "bpm": 90, "vocal_language": "de"}
    pipe = ace
    if turbo:
        pipe = type(ace)(**ace.components)
        pipe.is_turbo = True
        pipe.set_progress_bar_config(disable=True)
    model, x = ours(pipe, Euler(eta="zero", delayed=True, coordinates="flow"), prompt="a bell", **told)
    assert (model.step_distilled, model.sampler.method) == (turbo, "gibbs" if turbo else "ding")
    noise = NOISE(model.codec.shape((1, COUNT)))[:, :, 0].transpose(1, 2)
    call = {"num_inference_steps": STEPS, "audio_duration": COUNT / 800, "latents": noise, **told}
    latents = pipe(["a bell"] * 2, **{**call, "lyrics": [told["lyrics"]] * 2}, output_type="latent").audios
    assert x.shape[-1] == CELLS
    assert far(x[:, :, 0].transpose(1, 2), latents) < 1e-4  # its momentum adds up what rounding there is


def test_the_momentum_is_of_a_run_and_of_its_samples(ace):
    denoiser = from_pipe(ace).denoiser("a bell", size=(1, COUNT))
    x = NOISE(denoiser.shape)
    alone = denoiser(x, 0.5).x0
    assert torch.equal(denoiser(x, 0.5).x0, alone)  # no run, no momentum
    run = denoiser.along([1.0, 0.5, 0.0])
    run(x, 1.0)
    first = run(x, 0.5).x0
    assert far(first, alone) > 1e-3
    assert torch.equal(run(x, 0.5).x0, first)  # a second look at a level starts from the level above
    assert torch.allclose(run(x[:1], 0.5).x0, denoiser(x[:1], 0.5).x0)  # of other samples nothing is taken
    assert torch.equal(denoiser.along([1.0, 0.5, 0.0])(x, 0.5).x0, alone)


def test_what_the_networks_do_not_take_is_refused(stable, ace):
    own = from_pipe(stable)
    assert (own.rate, own.sound_channels, own.longest) == (800, 2, 2048)
    with pytest.raises(ValueError, match="takes no lyrics"):
        own.denoiser("a bell", lyrics="la")
    with pytest.raises(ValueError, match="takes no negative_prompt"):
        from_pipe(ace).denoiser("a bell", "rain")
    with pytest.raises(ValueError, match="paints sounds, not pictures"):
        pb.Inpainter.from_pipe(stable)(np.zeros((64, 64, 3), np.float32), np.eye(64, dtype=bool))
    with pytest.raises(ValueError, match="check compares pictures"):
        pb.check(stable)
    with pytest.raises(ValueError, match="paints sounds, not pictures"):
        pb.superres(np.zeros((16, 16, 3), np.float32), 2, model=own, method="ddnm", progress_bar=False)
    with pytest.raises(ValueError, match="paints sounds, not pictures"):
        pb.inpaint_video(np.zeros((5, 64, 64, 3), np.float32), np.eye(64, dtype=bool), model=stable)
    turbo = type(ace)(**ace.components)
    turbo.is_turbo = True
    with pytest.raises(ValueError, match="takes no guidance_scale; it is in Turbo's weights"):
        from_pipe(turbo).denoiser("a bell", guidance_scale=3.0)
    other = type(stable)(**{**stable.components, "scheduler": ace.scheduler})
    with pytest.raises(ValueError, match="CosineDPMSolverMultistepScheduler"):
        from_pipe(other)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400), st.lists(st.tuples(st.integers(0, 399), st.integers(1, 60)), max_size=4))
def test_a_cell_is_known_only_where_all_its_samples_are(count, holes):
    codec = OobleckCodec.__new__(OobleckCodec)
    codec.factor, codec.channels, codec.cells = 32, 8, None
    known = np.ones(count, bool)
    for start, length in holes:
        known[start : start + length] = False
    padded = np.zeros(codec.samples(count), bool)
    padded[:count] = known
    found = known_cells(codec, torch.from_numpy(padded)[None, None, None], "all")
    assert found.shape == (1, 1, *codec.shape((1, count))[1:])
    assert np.array_equal(found[0, 0, 0].numpy(), padded.reshape(-1, 32).all(1))
