"""LTX-Video, HunyuanVideo and Kandinsky 5: the real pipelines at tiny random weights."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.methods.replacement import Replacement
from paintback.models.diffusers import from_pipe
from paintback.observation import Observation
from tests.models import tiny_pipelines as tiny

STEPS, SIZE = 3, (64, 96)
# what a user says: the same words to the pipeline and to us, and the network's rows of an evaluation
WORDS = [
    ("ltx", {"negative_prompt": "rain", "guidance_scale": 4.0}, 2),
    ("ltx", {"guidance_scale": 1.0, "frame_rate": 8}, 1),
    ("ltx", {"guidance_rescale": 0.5}, 2),
    ("hunyuan_video", {"guidance_scale": 2.0}, 1),
    ("hunyuan_video", {"negative_prompt": "rain", "true_cfg_scale": 3.0}, 2),
    ("kandinsky5", {}, 2),  # whose own negative prompt is not empty
    ("kandinsky5", {"negative_prompt": "rain", "guidance_scale": 3.0}, 2),
    ("kandinsky5_image", {"negative_prompt": "rain"}, 2),
    ("kandinsky5_image", {"guidance_scale": 1.0}, 1),
]


@pytest.fixture(scope="module")
def pipes():
    return functools.cache(tiny.build)


def both(pipe, size, words, **more):
    """Our latents and what the pipeline makes, from one noise."""
    model = from_pipe(pipe)
    denoiser = model.denoiser("a red fox", size=size, **words)
    noise = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(1))

    class FromNoise(Replacement):
        def start(self, run):
            return noise.clone()

    nothing = Observation(torch.zeros(denoiser.shape), torch.zeros(denoiser.shape, dtype=torch.bool))
    ours = FromNoise().sample(denoiser, nothing, STEPS)
    height, width = size[-2:]
    if hasattr(pipe, "resolutions"):  # of pictures
        pipe.resolutions = [(width, height)]
        frames = {}
    else:
        frames = {"num_frames": size[0] if len(size) == 3 else 1}
    theirs = pipe(
        "a red fox",
        height=height,
        width=width,
        **frames,
        num_inference_steps=STEPS,
        latents=model.as_latents(noise if noise.ndim == 5 else noise[:, :, None]),
        **{"output_type": "latent", **more},
        **words,
    )[0]
    return model, ours, theirs


@pytest.mark.parametrize(("name", "words", "rows"), WORDS)
def test_with_nothing_known_euler_is_the_pipelines_own_call(pipes, name, words, rows):
    size = SIZE if name.endswith("image") else (tiny.FRAMES.get(name, 5), *SIZE)
    model, ours, theirs = both(pipes(name), size, words)
    found = model.as_latents(ours.x)
    if name.startswith("kandinsky5"):
        found = found[..., : theirs.shape[-1]]  # without the picture to start from
    assert found.shape == theirs.shape
    assert float((found - theirs).abs().max() / theirs.abs().max()) < 2e-5
    assert (ours.evaluations, ours.network_rows) == (STEPS, rows * STEPS)


@pytest.mark.parametrize("name", ["ltx", "hunyuan_video", "kandinsky5", "kandinsky5_image"])
def test_a_picture_is_a_clip_of_one_frame(pipes, name):
    model, ours, theirs = both(pipes(name), SIZE, {}, output_type="pt")
    made = (model.codec.decode(ours.x) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(made, theirs if theirs.ndim == 4 else theirs[:, 0], rtol=0, atol=1e-5)


def test_ltxs_decoder_is_told_of_no_noise_where_it_asks(pipes):
    pipe = type(pipes("ltx"))(**pipes("ltx").components)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.vae = tiny._kl_ltx(timestep_conditioning=True).eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    model, ours, theirs = both(pipe, (9, 32, 32), {}, output_type="pt")
    made = (model.codec.decode(ours.x) / 2 + 0.5).clamp(0, 1).transpose(1, 2)
    torch.testing.assert_close(made, theirs, rtol=0, atol=1e-5)


def test_ltx_is_told_the_clips_own_rate(pipes, monkeypatch):
    from paintback.images.clips import read_clip

    seen, pipe = [], pipes("ltx")
    own = pipe.transformer.forward
    monkeypatch.setattr(
        pipe.transformer, "forward", lambda **words: seen.append(words["rope_interpolation_scale"]) or own(**words)
    )
    clip = read_clip(np.random.default_rng(0).random((9, 32, 32, 3)).astype(np.float32))
    hole = np.zeros((32, 32), bool)
    hole[8:20, 8:20] = True
    words = {"prompt": "waves", "num_inference_steps": 2, "output_type": "np", "progress_bar": False, "generator": 0}
    out = pb.inpaint_video(clip, hole, model=pipe, **words)
    assert seen[0] == (8 / float(clip.rate), 32, 32)
    assert np.array_equal(out.frames[:, ~hole], clip.frames[:, ~hole])


def test_ids_and_codecs_have_the_pipelines_space(pipes):
    clip = torch.rand(1, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ltx, hunyuan = (from_pipe(pipes(name)) for name in ("ltx", "hunyuan_video"))
    pipe = pipes("ltx")
    own = pipe._normalize_latents(pipe.vae.encode(clip).latent_dist.mode(), pipe.vae.latents_mean, pipe.vae.latents_std)
    torch.testing.assert_close(ltx.codec.encode(clip), own)
    vae = pipes("hunyuan_video").vae
    torch.testing.assert_close(
        hunyuan.codec.encode(clip), vae.encode(clip).latent_dist.mode() * vae.config.scaling_factor
    )
    assert (ltx.multiple, ltx.training_frames, ltx.codec.frames) == (32, 161, 8)
    assert (hunyuan.multiple, hunyuan.training_frames, hunyuan.codec.frames) == (16, 129, 4)
    assert hunyuan.distilled
