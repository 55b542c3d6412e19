"""Stable Diffusion, SDXL, LDM, DDPM and DDIM pipelines: the real classes at tiny random weights."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

import paintback as pb
from paintback.models.diffusers import from_pipe
from paintback.models.latent import LatentModel, fill_hole
from paintback.tasks.inpaint import Inpainter
from tests.models import tiny_pipelines as tiny

TEXT = ("sd15", "sd21", "sdxl")
TOLD = (*TEXT, "pixart_sigma")
LATENT = (*TEXT, "ldm")
ALL = (*LATENT, "ddpm", "ddim")


@pytest.fixture(scope="module")
def pipes():
    made = {}

    def get(name):
        if name not in made:
            made[name] = tiny.build(name)
            made[name].set_progress_bar_config(disable=True)
        return made[name]

    return get


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    picture = rng.random((64, 80, 3)).astype(np.float32)
    mask = np.zeros((64, 80), bool)
    mask[20:44, 30:60] = True
    return picture, mask


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def paint(inpainter, photo, **keywords):
    inpainter.set_progress_bar_config(disable=True)
    settings = {"method": "ding", "num_inference_steps": 3, "generator": seeded(0), "output_type": "np"}
    return inpainter(*photo, **{**settings, **keywords})


def latents_of(name, pipe, steps=5):
    """Our DDIM from a fixed start, and the start."""
    model = from_pipe(pipe)
    words = {"prompt": "a red fox", "negative_prompt": "rain", "guidance_scale": 4.0} if name in TOLD else {}
    size = {"size": (64, 96)} if isinstance(model, LatentModel) and name in TOLD else {}
    denoiser = model.denoiser(**words, **size)
    noise = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(3))
    times = denoiser.grid(steps)
    first = denoiser.schedule.at(float(times[0]))
    ding = pb.methods.get("ding", eta="zero", delayed=True, coordinates=None)

    class Start(type(ding)):
        def start(self, run):
            return noise.clone()

    nothing = pb.Observation(torch.zeros_like(noise), torch.zeros(denoiser.shape, dtype=torch.bool))
    result = Start(eta="zero", delayed=True, coordinates=None).sample(denoiser, nothing, steps, grid=times)
    return result, noise, first, words


def with_ddim(pipe, **config):
    """The pipeline with a DDIM scheduler whose last step goes to the clean picture, as ours does."""
    other = copy.copy(pipe)
    other.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, set_alpha_to_one=True, clip_sample=False, thresholding=False, **config
    )
    return other


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])  # DDIMScheduler steps by T / N, which linspace does not
def test_with_nothing_known_ding_is_the_ddim_pipeline(pipes, name, spacing):
    pipe = with_ddim(pipes(name), timestep_spacing=spacing)
    ours, noise, _, words = latents_of(name, pipe)
    more = {"use_resolution_binning": False} if name == "pixart_sigma" else {}
    theirs = pipe(
        **words, **more, height=64, width=96, num_inference_steps=5, latents=noise.clone(), output_type="latent"
    ).images
    scale = theirs.abs().max()
    assert float((ours.x - theirs).abs().max() / scale) < 1e-5


def test_with_nothing_known_ding_is_the_ldm_and_ddim_pipeline(pipes):
    pipe = with_ddim(pipes("ldm"))
    ours, _, _, _ = latents_of("ldm", pipe)
    picture = (from_pipe(pipe).codec.decode(ours.x) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).detach().numpy()
    generator = torch.Generator().manual_seed(3)  # LDMPipeline takes no latents: it draws the same ones
    theirs = pipe(batch_size=1, generator=generator, num_inference_steps=5, output_type="np").images
    assert np.abs(picture - theirs).max() < 1e-5
    pipe = with_ddim(pipes("ddim"))
    ours, _, _, _ = latents_of("ddim", pipe)
    picture = (ours.x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    generator = torch.Generator().manual_seed(3)
    theirs = pipe(batch_size=1, generator=generator, num_inference_steps=5, eta=0.0, output_type="np").images
    assert np.abs(picture - theirs).max() < 1e-5


def test_sdxl_equals_its_own_euler_pipeline_in_its_own_coordinates(pipes):
    """Euler on the variance-exploding ODE is DDIM in VP coordinates; the start is scaled as `prepare_latents` does."""
    pipe = copy.copy(pipes("sdxl"))
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipes("sdxl").scheduler.config)
    ours, noise, first, words = latents_of("sdxl", pipe)
    pipe.scheduler.set_timesteps(5)
    start = noise * np.hypot(1, first.ratio) / pipe.scheduler.init_noise_sigma
    theirs = pipe(**words, height=64, width=96, num_inference_steps=5, latents=start, output_type="latent").images
    assert float((ours.x - theirs).abs().max() / theirs.abs().max()) < 1e-4


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_grids_are_the_schedulers(pipes, spacing):
    for kind in (DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler):
        pipe = copy.copy(pipes("sd15"))
        pipe.scheduler = kind.from_config(pipe.scheduler.config, timestep_spacing=spacing)
        pipe.scheduler.set_timesteps(7)
        denoiser = from_pipe(pipe).denoiser("a fox")
        times = denoiser.grid(7)
        timesteps = pipe.scheduler.timesteps.double()
        assert torch.allclose(times[:-1] * 1000 - 1, timesteps, atol=0.01 if "sigmas" in vars(pipe.scheduler) else 1e-6)
        abar = pipe.scheduler.alphas_cumprod.double()[timesteps.round().long()]
        alpha, _ = denoiser.schedule(times[:-1])
        if (timesteps == timesteps.round()).all():
            assert torch.allclose(alpha**2, abar, atol=1e-4)


def test_pndm_repeats_no_time(pipes):
    denoiser = from_pipe(pipes("sd15")).denoiser("a fox")
    times = denoiser.grid(10)
    assert len(times) == 11
    assert (times.diff() < 0).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("method", ["ding", "lanpaint", "ldps"])
def test_paints_and_leaves_the_rest_and_the_pipe_alone(pipes, photo, name, method):
    pipe = pipes(name)
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    config, scheduler = json.dumps(dict(pipe.unet.config), default=str), copy.deepcopy(vars(pipe.scheduler))
    words = {"prompt": "a red fox"} if name in TEXT else {}
    out = paint(Inpainter.from_pipe(pipe), photo, method=method, **words)
    picture, mask = photo
    assert np.array_equal(out.images[0][~mask], picture[~mask])
    assert out.images[0].shape == picture.shape
    assert np.isfinite(out.images[0]).all()
    assert out.images[0][mask].std() > 0.01
    documented = pb.methods.get(method)
    assert out.evaluations == documented.evaluations(3)
    assert out.vjps == documented.vjps(3)
    assert all(torch.equal(value, before[key]) for key, value in pipe.unet.state_dict().items())
    assert json.dumps(dict(pipe.unet.config), default=str) == config
    for key, value in vars(pipe.scheduler).items():
        same = torch.equal(value, scheduler[key]) if torch.is_tensor(value) else value == scheduler[key]
        assert same if not isinstance(value, np.ndarray) else np.array_equal(value, scheduler[key])


@pytest.mark.parametrize("name", TEXT)
def test_the_prompts_matter_and_embeddings_stand_for_them(pipes, photo, name):
    inpainter = Inpainter.from_pipe(pipes(name))
    one = paint(inpainter, photo, prompt="a red fox").images[0]
    assert not np.array_equal(one, paint(inpainter, photo, prompt="the sea").images[0])
    assert not np.array_equal(one, paint(inpainter, photo, prompt="a red fox", negative_prompt="rain").images[0])
    assert not np.array_equal(one, paint(inpainter, photo, prompt="a red fox", guidance_scale=2).images[0])
    encoded = pipes(name).encode_prompt(
        **({"prompt": "a red fox", "device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True})
    )
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    given = dict(zip(names, encoded, strict=False))
    assert np.array_equal(one, paint(inpainter, photo, **given).images[0])


def test_guidance_counts_its_rows(pipes):
    model = from_pipe(pipes("sd15"))
    observation = pb.Observation(torch.zeros(4, 8, 8), torch.ones(4, 8, 8, dtype=torch.bool))
    ding = pb.methods.get("ding")
    for words, rows in (({"prompt": "fox"}, 10), ({"prompt": "fox", "guidance_scale": 1}, 5), ({}, 5)):
        result = ding.sample(model.denoiser(**words, size=(64, 64)), observation, 3)
        assert (result.evaluations, result.network_rows) == (5, rows)


@pytest.mark.parametrize("name", ["sd15", "sdxl", "ldm"])
def test_a_sample_does_not_depend_on_its_batch(pipes, photo, name):
    inpainter = Inpainter.from_pipe(pipes(name))
    words = {"prompt": "a red fox"} if name in TEXT else {}
    alone = paint(inpainter, photo, generator=seeded(5), **words).images[0]
    batch = paint(inpainter, photo, generator=seeded(4, 5, 6), num_images_per_prompt=3, **words).images
    assert np.abs(batch[1] - alone).max() < 1e-4
    assert np.abs(batch[0] - alone).max() > 1e-2
    inpainter.policy = pb.Policy(multiple=8, batch_pixels=1)  # one sample at a time
    split = paint(inpainter, photo, generator=seeded(4, 5, 6), num_images_per_prompt=3, **words).images
    assert np.abs(batch - split).max() < 1e-4


def test_lists_of_pictures_have_their_own_prompts(pipes, photo):
    inpainter = Inpainter.from_pipe(pipes("sd15"))
    picture, mask = photo
    both = paint(inpainter, ([picture, picture], mask), prompt=["a red fox", "the sea"], generator=seeded(0, 0)).images
    assert np.array_equal(both[0], paint(inpainter, photo, prompt="a red fox").images[0])
    assert np.array_equal(both[1], paint(inpainter, photo, prompt="the sea").images[0])
    with pytest.raises(ValueError, match="3 texts for prompt and 1 pictures"):
        paint(inpainter, photo, prompt=["a", "b", "c"])


def test_what_the_mask_hides_never_reaches_the_model(pipes, photo):
    picture, mask = photo
    other = picture.copy()
    other[mask] = 1 - other[mask]
    inpainter = Inpainter.from_pipe(pipes("sd15"))
    for keywords in ({}, {"padding_mask_crop": 4}, {"height": 96, "width": 64}):
        one = paint(inpainter, photo, prompt="fox", **keywords).images[0]
        assert np.array_equal(one[mask], paint(inpainter, (other, mask), prompt="fox", **keywords).images[0][mask])
    leaky = paint(inpainter, photo, prompt="fox", leaky_encoding=True).images[0]
    assert not np.array_equal(leaky, paint(inpainter, (other, mask), prompt="fox", leaky_encoding=True).images[0])


def test_latent_mask_policies_differ(pipes, photo):
    inpainter = Inpainter.from_pipe(pipes("sd15"))
    made = [
        paint(inpainter, photo, prompt="fox", latent_mask=policy).images[0] for policy in ("all", "majority", "any")
    ]
    assert not np.array_equal(made[0], made[1])
    assert not np.array_equal(made[1], made[2])
    with pytest.raises(ValueError, match="all, majority, any"):
        paint(inpainter, photo, latent_mask="some")


def test_sizes(pipes):
    """Near the training size (64) as it is, padded; a large picture by crops; a small one enlarged; as asked."""
    inpainter = Inpainter.from_pipe(pipes("sd15"))
    rng = np.random.default_rng(1)
    for shape, keywords, size in (
        ((61, 71), {}, (72, 64)),
        ((200, 180), {}, (64, 64)),
        ((20, 24), {}, (72, 56)),
        ((64, 64), {"height": 96, "width": 128}, (128, 96)),
        ((48, 96), {"height": 96}, (192, 96)),
        ((200, 180), {"padding_mask_crop": 2}, (64, 64)),
    ):
        picture, mask = rng.random((*shape, 3)).astype(np.float32), np.zeros(shape, bool)
        mask[5:15, 7:17] = True
        out = paint(inpainter, (picture, mask), prompt="fox", **keywords)
        assert out.scales[0].size == size, (shape, out.scales)
        assert np.array_equal(out.images[0][~mask], picture[~mask])
    with pytest.raises(ValueError, match="height must be a multiple of 8"):
        paint(inpainter, (picture, mask), height=70)


def test_strength_starts_from_the_picture(pipes, photo):
    inpainter = Inpainter.from_pipe(pipes("sd15"))
    picture, mask = photo
    smooth = np.broadcast_to(np.linspace(0, 1, 80, dtype=np.float32)[None, :, None], picture.shape).copy()
    call = {"prompt": "fox", "num_inference_steps": 10, "match_colour": False}
    weak = paint(inpainter, (smooth, mask), **call, strength=0.1)
    full = paint(inpainter, (smooth, mask), **call)
    assert weak.evaluations < full.evaluations
    codec = inpainter.model.codec
    own = codec.decode(codec.encode(torch.from_numpy(smooth).permute(2, 0, 1)[None] * 2 - 1))[0]
    own = (own.permute(1, 2, 0).detach().numpy() / 2 + 0.5).clip(0, 1)
    assert np.abs(weak.images[0] - own)[mask].mean() < 0.5 * np.abs(full.images[0] - own)[mask].mean()


def test_the_callback_can_stop(pipes, photo):
    inpainter = Inpainter.from_pipe(pipes("sd15"))

    def stop(self, step, t, kept):
        assert kept["latents"].shape == (1, 4, 8, 10)
        self.interrupt = step == 1

    out = paint(inpainter, photo, prompt="fox", num_inference_steps=8, callback_on_step_end=stop)
    assert out.stopped
    assert out.evaluations == 4


@pytest.mark.parametrize("name", ALL)
def test_a_folder_paints_what_its_pipe_paints(pipes, photo, name, tmp_path_factory):
    folder = tiny.folder(name, tmp_path_factory)
    words = {"prompt": "a red fox"} if name in TEXT else {}
    one = paint(Inpainter.from_pipe(pipes(name)), photo, **words).images[0]
    loaded = Inpainter.from_pretrained(folder)
    tiny.align(loaded.model.pipe)
    assert np.array_equal(one, paint(loaded, photo, **words).images[0])
    assert not any(parameter.requires_grad for parameter in loaded.model.network.parameters())


def test_half_precision_runs_in_float32_state(pipes, photo, tmp_path_factory):
    folder = tiny.folder("sd15", tmp_path_factory)
    full = paint(Inpainter.from_pretrained(folder), photo, prompt="fox").images[0]
    half = paint(Inpainter.from_pretrained(folder, torch_dtype=torch.bfloat16), photo, prompt="fox").images[0]
    assert 0 < np.abs(full - half).mean() < 0.05


def test_sdxl_s_autoencoder_is_upcast_for_the_while(pipes):
    model = from_pipe(pipes("sdxl"))
    vae = copy.deepcopy(model.codec.vae).half()
    codec = type(model.codec)(vae, model.codec.factor)
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        expected, got = model.codec.encode(picture), codec.encode(picture)
    assert torch.allclose(expected, got, atol=2e-2 * float(expected.abs().max()))
    assert vae.dtype == torch.float16


def test_what_a_model_does_not_take_is_said(pipes, photo):
    with pytest.raises(ValueError, match="takes no pooled_prompt_embeds"):
        paint(Inpainter.from_pipe(pipes("sd15")), photo, pooled_prompt_embeds=torch.zeros(1, 8))
    with pytest.raises(ValueError, match="takes no prompt"):
        paint(Inpainter.from_pipe(pipes("ldm")), photo, prompt="fox")
    with pytest.raises(ValueError, match="takes no prompt_embeds"):
        paint(Inpainter.from_pipe(pipes("ddpm")), photo, prompt_embeds=torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="no adapter for"):
        Inpainter.from_pipe(object())


def test_options_of_latent_models_are_refused_by_pixel_models(pipes, photo):
    for options in ({"latent_mask": "any"}, {"leaky_encoding": True}, {"height": 64}):
        with pytest.raises(ValueError, match=f"takes no {next(iter(options))}"):
            paint(Inpainter.from_pipe(pipes("ddpm")), photo, **options)


def test_offloading_hooks_get_the_modules_back_after_a_failure(photo, monkeypatch):
    pipe, calls = tiny.build("sd15"), []
    monkeypatch.setattr(pipe, "maybe_free_model_hooks", lambda: calls.append(1))

    def fail(self, step, t, kept):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        paint(Inpainter.from_pipe(pipe), photo, prompt="fox", callback_on_step_end=fail)
    assert calls == [1]


def test_a_folder_that_is_none_is_said(tmp_path):
    with pytest.raises(ValueError, match="No pipeline could be loaded"):
        Inpainter.from_pretrained("nobody/nothing")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="No pipeline could be loaded"):
        Inpainter.from_pretrained(tmp_path)


def test_a_single_file_that_is_not_there_is_said():
    with pytest.raises(ValueError, match="There is no file"):
        Inpainter.from_single_file("nowhere.safetensors")


def test_filling_uses_known_pixels_alone():
    values = torch.rand(2, 3, 33, 20)
    known = torch.rand(2, 1, 33, 20) > 0.3
    known[:, :, 8:25, 4:15] = False
    filled = fill_hole(values, known)
    assert torch.equal(filled, fill_hole(torch.where(known, values, torch.full_like(values, torch.nan)), known))
    assert torch.equal(filled[known.expand_as(filled)], values[known.expand_as(values)])
    low, high = values.amin((1, 2, 3)), values.amax((1, 2, 3))
    assert ((filled >= low[:, None, None, None] - 1e-6) & (filled <= high[:, None, None, None] + 1e-6)).all()
    flat = torch.full((1, 3, 40, 40), 0.37)
    assert torch.allclose(fill_hole(flat, known[:1, :, :1, :1].new_ones(1, 1, 40, 40).triu()), flat, atol=1e-6)


@pytest.mark.parametrize("options", [{"channels_last": True}, {"gradient_checkpointing": True}])
def test_options_of_the_network_change_no_result(photo, tmp_path_factory, options):
    folder = tiny.folder("sd15", tmp_path_factory)
    plain, other = Inpainter.from_pretrained(folder), Inpainter.from_pretrained(folder, **options)
    for method in ("ding", "dps"):
        one, two = (paint(own, photo, prompt="fox", method=method).images[0] for own in (plain, other))
        assert np.abs(one - two).max() < 1e-3
    if "gradient_checkpointing" in options:
        assert other.model.network.is_gradient_checkpointing
    else:
        assert other.model.network.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same(photo, tmp_path_factory):
    folder = tiny.folder("sd15", tmp_path_factory)
    plain, other = Inpainter.from_pretrained(folder), Inpainter.from_pretrained(folder, compile=True)
    one, two = (paint(own, photo, prompt="fox").images[0] for own in (plain, other))
    assert np.abs(one - two).max() < 1e-3
    assert other.model.network._compiled_call_impl is not None


def test_options_that_do_not_fit_are_said(photo, pipes):
    with pytest.raises(ValueError, match="no gradient checkpointing"):
        Inpainter.from_pretrained("fashion", gradient_checkpointing=True)
    inpainter = Inpainter.from_pipe(tiny.build("sd15"))
    inpainter.model.network.conv_in._hf_hook = type("Hook", (), {"offload": True})()
    with pytest.raises(ValueError, match="sequential offloading"):
        paint(inpainter, photo, prompt="fox", method="dps")
    assert paint(inpainter, photo, prompt="fox").evaluations == 5
