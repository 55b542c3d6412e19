"""Wan 2.1 and 2.2 (two transformers; a time for every token): the real pipeline at tiny random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

import paintback as pb
from paintback.methods.replacement import Replacement
from paintback.models.diffusers import from_pipe
from paintback.models.diffusers.wan import Wan
from paintback.models.latent import fill_hole, known_cells, observe
from paintback.observation import Observation
from tests.models import tiny_pipelines as tiny

STEPS = 4
TOLD = {"prompt": "a red fox", "negative_prompt": "rain", "guidance_scale": 4.0}


@pytest.fixture(scope="module")
def pipes():
    made = {}

    def get(name):
        if name not in made:
            made[name] = tiny.build(name)
            made[name].set_progress_bar_config(disable=True)
        return made[name]

    return get


@pytest.fixture
def calls(pipes, monkeypatch):
    """Gives a list that every call of a transformer is written to: which one, its times' dtype, shape and value."""

    def listen(name):
        seen, pipe = [], pipes(name)
        for number, network in enumerate((pipe.transformer, pipe.transformer_2)):
            if network is not None:

                def forward(*args, _own=network.forward, _number=number, **keywords):
                    t = keywords["timestep"]
                    seen.append((_number, t.dtype, tuple(t.shape), float(t.flatten()[0])))
                    return _own(*args, **keywords)

                monkeypatch.setattr(network, "forward", forward)
        return seen

    return listen


def with_scheduler(pipe, kind, monkeypatch):
    config = pipe.scheduler.config
    if kind == "euler":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    else:  # of first order and without its corrector, UniPC is Euler
        scheduler = UniPCMultistepScheduler.from_config(config, solver_order=1, disable_corrector=list(range(STEPS)))
    monkeypatch.setattr(pipe, "scheduler", scheduler)


@pytest.mark.parametrize("kind", ["euler", "unipc"])
@pytest.mark.parametrize("name", ["wan", "wan22", "wan22_ti2v"])
def test_with_nothing_known_euler_is_the_pipelines_own_call(name, kind, pipes, calls, monkeypatch):
    pipe = pipes(name)
    with_scheduler(pipe, kind, monkeypatch)
    seen = calls(name)
    model = from_pipe(pipe)
    more = {"guidance_scale_2": 3.0} if name == "wan22" else {}
    shape = model.codec.shape((5, 64, 96))
    start = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    theirs = pipe(
        **TOLD,
        **more,
        height=64,
        width=96,
        num_frames=5,
        num_inference_steps=STEPS,
        latents=start,
        output_type="latent",
    ).frames
    asked = seen.copy()
    seen.clear()

    class FromStart(Replacement):
        def start(self, run):
            return start.clone()

    denoiser = model.denoiser(**TOLD, **more, size=(5, 64, 96))
    nothing = Observation(torch.zeros(1, *shape), torch.zeros(1, *shape, dtype=torch.bool))
    ours = FromStart().sample(denoiser, nothing, num_inference_steps=STEPS)
    assert (ours.x - theirs).abs().max() < 1e-5
    assert seen == asked
    assert len({number for number, *_ in seen}) == (2 if name == "wan22" else 1)
    assert (ours.evaluations, ours.network_rows) == (STEPS, 2 * STEPS)


def test_timesteps_are_whole_as_unipc_has_them(pipes, calls):
    seen = calls("wan")
    denoiser = from_pipe(pipes("wan")).denoiser("fox", guidance_scale=1.0, size=(5, 32, 32))
    times = denoiser.grid(3)[:-1]
    for t in times:
        denoiser(torch.zeros(1, *denoiser.shape), t)
    scheduler = UniPCMultistepScheduler.from_config(pipes("wan").scheduler.config)
    scheduler.set_timesteps(3)
    assert [value for *_, value in seen] == scheduler.timesteps.tolist()
    assert {dtype for _, dtype, *_ in seen} == {torch.int64}


def test_second_guidance_scale_is_of_the_second_transformer(pipes):
    model = from_pipe(pipes("wan22"))
    x = torch.randn(1, *model.codec.shape((1, 32, 32)), generator=torch.Generator().manual_seed(0))
    same, other = (
        model.denoiser("fox", guidance_scale=4.0, guidance_scale_2=two, size=(1, 32, 32)) for two in (4.0, 2.0)
    )
    assert torch.equal(same(x, 0.95).x0, other(x, 0.95).x0)
    assert not torch.equal(same(x, 0.5).x0, other(x, 0.5).x0)
    assert torch.allclose(same(x, 0.5).guided(2.0).x0, other(x, 0.5).x0, atol=1e-6)
    with pytest.raises(ValueError, match="one transformer"):
        from_pipe(pipes("wan")).denoiser("fox", guidance_scale_2=2.0)
    with pytest.raises(ValueError, match="takes no pooled_prompt_embeds"):
        model.denoiser("fox", pooled_prompt_embeds=x)


@pytest.mark.parametrize("name", ["wan", "wan22_ti2v"])
def test_codec_has_the_pipelines_space(name, pipes):
    pipe = pipes(name)
    model = from_pipe(pipe)
    assert isinstance(model, Wan)
    codec = model.codec
    clip = torch.rand(1, 3, 5, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = codec.encode(clip)
    assert tuple(z.shape[1:]) == codec.shape((5, 64, 64)) == (48 if name.endswith("ti2v") else 16, 2, *z.shape[3:])
    assert z.std() == pytest.approx(1, abs=0.5)
    # the pipeline's decoding, from its own code's words
    raw = pipe.vae.encode(clip).latent_dist.mode()
    mean, std = (
        torch.tensor(value).reshape(1, -1, 1, 1, 1)
        for value in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    assert torch.allclose(z * std + mean, raw, atol=1e-5)
    assert torch.allclose(codec.decode(z), pipe.vae.decode(raw)[0], atol=1e-5)
    one = codec.encode(clip[:, :, 0])
    assert torch.allclose(one, z[:, :, 0], atol=1e-5)  # causal: the first frame knows of no other
    assert codec.decode(one).shape == (1, 3, 64, 64)
    assert (model.multiple, model.training_frames) == ((32, 121) if name.endswith("ti2v") else (16, 81))


def test_cells_in_time(pipes):
    codec = from_pipe(pipes("wan")).codec
    known = torch.ones(1, 1, 9, 16, 16, dtype=torch.bool)
    known[:, :, 6, :8, :8] = False
    share = codec.share_known(known)
    assert share.shape == (1, 1, 3, 2, 2)
    assert share[0, 0, 1, 0, 0] == 1  # frames 1 to 4
    assert share[0, 0, 2, 0, 0] == 0.75  # frames 5 to 8
    assert (~known_cells(codec, known, "all")).nonzero().tolist() == [[0, 0, 2, 0, 0]]
    assert bool(known_cells(codec, known, "majority").all())
    assert codec.share_known(known[:, :, :1]).shape == (1, 1, 1, 2, 2)


def test_hidden_pixels_reach_nothing(pipes):
    codec = from_pipe(pipes("wan")).codec
    rng = torch.Generator().manual_seed(0)
    clip = torch.rand(1, 3, 5, 32, 32, generator=rng) * 2 - 1
    known = torch.ones(1, 1, 5, 32, 32, dtype=torch.bool)
    known[..., 8:20, 8:24] = False
    other = torch.where(known, clip, torch.rand(clip.shape, generator=rng))
    assert torch.equal(observe(codec, clip, known).y, observe(codec, other, known).y)
    filled = fill_hole(clip, known)
    assert torch.equal(filled[:, :, 3], fill_hole(clip[:, :, 3], known[:, :, 3]))


def test_a_picture_is_a_clip_of_one_frame(pipes):
    rng = np.random.default_rng(0)
    picture, mask = rng.random((32, 48, 3)).astype(np.float32), np.zeros((32, 48), bool)
    mask[8:24, 10:40] = True
    inpainter = pb.Inpainter.from_pipe(pipes("wan"))
    inpainter.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "height": 32, "width": 48, "output_type": "np"}
    out = inpainter(picture, mask, "fox", generator=[torch.Generator().manual_seed(0)], **settings)
    assert out.images.shape == (1, 32, 48, 3)
    assert np.array_equal(out.images[0][~mask], picture[~mask])
    assert not np.allclose(out.images[0][mask], picture[mask])
    assert out.evaluations == pb.methods.get("ding").evaluations(2)


def test_gradients_go_through_the_decoder(pipes):
    model = from_pipe(pipes("wan"))
    x = torch.zeros(1, *model.codec.shape((5, 16, 16)), requires_grad=True)
    model.codec.decode(x).sum().backward()
    assert x.grad is not None and bool(x.grad.abs().sum() > 0)
