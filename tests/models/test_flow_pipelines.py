"""Flow pipelines of pictures: the real classes at tiny random weights."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.images.regions import Box
from paintback.methods.replacement import Replacement
from paintback.models.diffusers import from_pipe
from paintback.models.diffusers.flow import clock
from paintback.painting.frames import choose_size
from paintback.tasks.inpaint import Inpainter
from tests.models import tiny_pipelines as tiny

MASKED = ("chroma", "aura_flow", "lumina2", "sana")  # told which words are padding
FAMILIES = (
    *(
        "sd3",
        "sd3_no_t5",
        "flux_dev",
        "flux_schnell",
        "flux_kontext",
        "flux2_klein",
        "qwen_image",
        "z_image",
        "hidream",
        "krea2",
    ),
    *MASKED,
)
SIZE = (64, 96)
STEPS = 3
HIDREAM_SIDE = (SIZE[0] * SIZE[1] + 1) ** 0.5 / 8  # whose area is that of SIZE, rounding included

OWN_SIZE = {"sana": {"use_resolution_binning": False}, "flux_kontext": {"max_area": SIZE[0] * SIZE[1]}}

# what a user says: the same words to the pipeline and to us
UNGUIDED = {
    "sd3": {"guidance_scale": 1.0},
    "sd3_no_t5": {"guidance_scale": 1.0},
    "flux_dev": {"guidance_scale": 2.0},
    "flux_schnell": {},
    "flux_kontext": {"guidance_scale": 2.0},
    "flux2_klein": {"guidance_scale": 1.0},
    "qwen_image": {},
    "z_image": {"guidance_scale": 0.0},
    "hidream": {"guidance_scale": 0.0},
    "krea2": {"guidance_scale": 0.0},
    **{name: {"guidance_scale": 1.0} for name in MASKED},
}
GUIDED = {
    "sd3": {"negative_prompt": "rain"},
    "sd3_no_t5": {"negative_prompt": "rain", "guidance_scale": 3.0},
    "flux_dev": {"negative_prompt": "rain", "true_cfg_scale": 3.0},
    "flux_schnell": {"negative_prompt": "rain", "true_cfg_scale": 2.0},
    "flux_kontext": {"negative_prompt": "rain", "true_cfg_scale": 3.0},
    "flux2_klein": {},
    "qwen_image": {"negative_prompt": "rain on a tin roof"},
    "z_image": {"negative_prompt": "rain on a tin roof", "guidance_scale": 2.5},
    "hidream": {"negative_prompt": "rain"},
    "krea2": {"negative_prompt": "rain"},
    **{name: {"negative_prompt": "rain"} for name in MASKED},
}


@pytest.fixture(scope="module")
def pipes():
    made = {}

    def get(name):
        if name not in made:
            made[name] = tiny.build(name)
            if name == "sana":  # of first order, its solver is Euler
                scheduler = made[name].scheduler
                made[name].scheduler = type(scheduler).from_config(scheduler.config, solver_order=1)
        return made[name]

    return get


@pytest.fixture(scope="module")
def photo():
    picture = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    mask = np.zeros((64, 64), bool)
    mask[20:44, 30:50] = True
    return picture, mask


def nothing_known(denoiser):
    return pb.Observation(torch.zeros(denoiser.shape), torch.zeros(denoiser.shape, dtype=torch.bool))


def latents_of(model, words, count=2):
    """A plain Euler run of ours, with nothing known, and the noise that it starts from."""
    denoiser = model.denoiser("a red fox", size=SIZE, **words)
    noise = torch.randn(count, *denoiser.shape, generator=torch.Generator().manual_seed(3))

    class FromNoise(Replacement):
        def start(self, run):
            return noise.clone()  # as the pipeline, also where its first level is below 1

    return FromNoise().sample(denoiser, nothing_known(denoiser), STEPS, num_samples=count), noise


def pack(name, pipe, x):
    """Our state as the pipeline takes and gives it."""
    if name.startswith("flux_") or name in ("qwen_image", "chroma", "krea2"):
        return pipe._pack_latents(x, *x.shape)
    return pipe._patchify_latents(x) if name == "flux2_klein" else x


def theirs(name, pipe, noise, words, **more):
    height, width = SIZE
    return pipe(
        prompt=words.get("prompt", "a red fox"),
        height=height,
        width=width,
        num_inference_steps=STEPS,
        num_images_per_prompt=len(noise),
        latents=pack(name, pipe, noise),
        **{"output_type": "latent", **more, **OWN_SIZE.get(name, {})},
        **words,
    ).images


def relative_error(name, pipe, words):
    model = from_pipe(pipe)
    result, noise = latents_of(model, words)
    expected = theirs(name, pipe, noise, words)
    ours = model.codec.denormalise(result.x) if name == "flux2_klein" else pack(name, pipe, result.x)
    assert ours.shape == expected.shape
    error = float((ours - expected).abs().max() / expected.abs().max())
    print(f"{name}: {error:.1e} of the largest latent")
    return error, result


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("guided", [False, True])
def test_with_nothing_known_euler_is_the_pipeline(pipes, name, guided):
    pipe = pipes(name)
    if name == "hidream":  # it paints at one area only
        pipe = copy.copy(pipe)
        pipe.default_sample_size = HIDREAM_SIDE
    error, result = relative_error(name, pipe, (GUIDED if guided else UNGUIDED)[name])
    assert error < 1e-5
    assert result.evaluations == STEPS
    assert result.network_rows == STEPS * (1 + guided)


def test_kontext_goes_by_a_picture_as_the_pipeline_does(pipes, monkeypatch):
    from diffusers.pipelines.flux import pipeline_flux_kontext
    from PIL import Image

    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", [(96, 64), (64, 64)])
    shown = Image.fromarray((np.random.default_rng(1).random((70, 80, 3)) * 255).astype(np.uint8))
    pipe = pipes("flux_kontext")
    model = from_pipe(pipe)
    result, noise = latents_of(model, {"reference_images": shown})
    expected = theirs("flux_kontext", pipe, noise, {"image": shown})
    assert float((pack("flux_kontext", pipe, result.x) - expected).abs().max() / expected.abs().max()) < 1e-5
    again, _ = latents_of(model, {"reference_images": [np.asarray(shown)]})
    assert torch.equal(again.x, result.x)
    assert float((latents_of(model, {})[0].x - result.x).abs().max()) > 0.05
    with pytest.raises(ValueError, match="is shown 1 reference picture at most; got 2"):
        model.denoiser("a", reference_images=[shown, shown])
    with pytest.raises(ValueError, match="takes no reference_images"):
        from_pipe(pipes("flux_dev")).denoiser("a", reference_images=shown)


def test_sd3_with_dynamic_shift_is_the_pipeline(pipes):
    pipe = copy.copy(pipes("sd3"))
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, use_dynamic_shifting=True)
    assert relative_error("sd3", pipe, UNGUIDED["sd3"])[0] < 1e-5
    static = from_pipe(pipes("sd3")).grid(STEPS, SIZE)
    assert float((from_pipe(pipe).grid(STEPS, SIZE) - static).abs().max()) > 0.01


def test_distilled_klein_is_the_pipeline(pipes):
    pipe = copy.copy(pipes("flux2_klein"))
    pipe._internal_dict = type(pipe.config)({**pipe.config, "is_distilled": True})
    assert relative_error("flux2_klein", pipe, {"guidance_scale": 1.0})[0] < 1e-5
    with pytest.raises(ValueError, match="takes no guidance_scale"):
        from_pipe(pipe).denoiser("a", guidance_scale=4.0)


@pytest.fixture(scope="module")
def flux2_dev(pipes):
    """Without a text encoder, whose processor needs torchvision: embeddings are given by hand."""
    from diffusers import Flux2Pipeline, Flux2Transformer2DModel

    klein = pipes("flux2_klein")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = Flux2Transformer2DModel(**{**klein.transformer.config, "guidance_embeds": True})
        tiny.randomize(transformer).eval().requires_grad_(False)
    pipe = Flux2Pipeline(
        scheduler=klein.scheduler, vae=klein.vae, text_encoder=None, tokenizer=None, transformer=transformer
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_flux2_dev_is_the_pipeline(flux2_dev):
    model = from_pipe(flux2_dev)
    embeds = torch.randn(1, 7, 96, generator=torch.Generator().manual_seed(0))
    denoiser = model.denoiser(prompt_embeds=embeds, guidance_scale=2.5, size=SIZE)
    noise = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(3))
    ours = pb.methods.get("replacement").sample(
        denoiser, nothing_known(denoiser), STEPS, torch.Generator().manual_seed(3)
    )
    expected = flux2_dev(
        prompt_embeds=embeds,
        guidance_scale=2.5,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=STEPS,
        latents=flux2_dev._patchify_latents(noise),
        output_type="latent",
    ).images
    packed = flux2_dev._pack_latents(flux2_dev._patchify_latents(ours.x))
    assert float((packed - expected).abs().max() / expected.abs().max()) < 1e-5
    assert model.distilled
    with pytest.raises(ValueError, match="takes no negative_prompt"):
        model.denoiser("a", "b")


@pytest.mark.parametrize("name", FAMILIES)
def test_decoding_is_the_pipelines(pipes, name):
    pipe = pipes(name)
    if name == "hidream":
        pipe = copy.copy(pipe)
        pipe.default_sample_size = HIDREAM_SIDE
    model = from_pipe(pipe)
    result, noise = latents_of(model, UNGUIDED[name], 1)
    expected = theirs(name, pipe, noise, UNGUIDED[name], output_type="pt")
    torch.testing.assert_close((model.codec.decode(result.x) / 2 + 0.5).clamp(0, 1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_encoding_takes_the_mode_with_the_pipelines_scaling(pipes, name, monkeypatch):
    from diffusers import FluxImg2ImgPipeline, QwenImageImg2ImgPipeline, StableDiffusion3InpaintPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    pipe = pipes(name)
    picture = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codec = from_pipe(pipe).codec
    state = torch.random.get_rng_state()
    ours = codec.encode(picture)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert ours.shape == (2, *codec.shape((32, 48)))
    assert 0.3 < float(ours.std()) < 3  # the scaling brings latents near unit size
    # the pipelines that encode draw from the Gaussian, except for Flux.2
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    if name == "flux2_klein":
        expected = pipe._unpatchify_latents(pipe._encode_vae_image(picture, None))
    elif name in ("qwen_image", "krea2"):
        own = SimpleNamespace(vae=pipe.vae)
        expected = QwenImageImg2ImgPipeline._encode_vae_image(own, picture[:, :, None], None)[:, :, 0]
    elif name in ("aura_flow", "sana"):
        found = pipe.vae.encode(picture)
        latents = found.latent if name == "sana" else found.latent_dist.mode()
        expected = latents * pipe.vae.config.scaling_factor
    else:
        cousin = StableDiffusion3InpaintPipeline if name.startswith("sd3") else FluxImg2ImgPipeline
        expected = cousin._encode_vae_image(SimpleNamespace(vae=pipe.vae), picture, None)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def look(model, words, **more):
    """One prediction, from a fixed state."""
    denoiser = model.denoiser(size=SIZE, **words, **more)
    x = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(5))
    return denoiser(x, 0.8)


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_and_negative_prompts_count(pipes, name):
    model = from_pipe(pipes(name))
    words = {**GUIDED[name], "prompt": "a red fox", "negative_prompt": "rain"}
    first = look(model, words).x0
    assert float((look(model, {**words, "prompt": "two blue boats"}).x0 - first).abs().mean()) > 1e-3
    assert float((look(model, {**words, "negative_prompt": "a desert"}).x0 - first).abs().mean()) > 1e-4
    again = look(model, words)
    assert torch.equal(again.x0, first)
    assert torch.equal(again.x0, again.guided(model.denoiser(size=SIZE, **words).guidance_scale).x0)


def by_hand(name, pipe):
    """The embeddings of "a red fox" and "rain", by the pipeline's own function and under its own names."""
    both = ("prompt_embeds", "negative_prompt_embeds")
    if name.startswith("sd3"):
        values = pipe.encode_prompt("a red fox", None, None, negative_prompt="rain")
        return dict(zip((*both, "pooled_prompt_embeds", "negative_pooled_prompt_embeds"), values, strict=True))
    if name.startswith("flux_"):
        made = {}
        for prefix, text in (("", "a red fox"), ("negative_", "rain")):
            embeds, pooled, _ = pipe.encode_prompt(text)
            made |= {f"{prefix}prompt_embeds": embeds, f"{prefix}pooled_prompt_embeds": pooled}
        return made
    if name in ("qwen_image", "flux2_klein"):
        return {key: pipe.encode_prompt(text)[0] for key, text in zip(both, ("a red fox", "rain"), strict=True)}
    if name == "krea2":
        made = zip(("", "negative_"), (pipe.encode_prompt(text) for text in ("a red fox", "rain")), strict=True)
        return {
            f"{one}prompt_embeds{part}": value
            for one, two in made
            for part, value in zip(("", "_mask"), two, strict=True)
        }
    if name in MASKED:
        own = inspect.signature(type(pipe).__call__).parameters
        told = {key: own[key].default for key in ("complex_human_instruction",) if key in own}
        values = list(pipe.encode_prompt("a red fox", negative_prompt="rain", **told))
        if name == "chroma":
            del values[4], values[1]  # where the words are
        keys = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
        return dict(zip(keys, values, strict=True))
    if name == "z_image":
        return dict(zip(both, pipe.encode_prompt("a red fox", negative_prompt="rain"), strict=True))
    t5, t5_without, llama, llama_without, pooled, pooled_without = pipe.encode_prompt(
        "a red fox", negative_prompt="rain"
    )
    return {
        "prompt_embeds_t5": t5,
        "negative_prompt_embeds_t5": t5_without,
        "prompt_embeds_llama3": llama,
        "negative_prompt_embeds_llama3": llama_without,
        "pooled_prompt_embeds": pooled,
        "negative_pooled_prompt_embeds": pooled_without,
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_by_hand_are_the_prompt(pipes, name):
    pipe = pipes(name)
    model = from_pipe(pipe)
    words = {key: value for key, value in GUIDED[name].items() if key != "negative_prompt"}
    with torch.no_grad():
        hand = by_hand(name, pipe)
    expected = look(model, {**words, "prompt": "a red fox", "negative_prompt": "rain"})
    assert torch.equal(look(model, words, **hand).x0, expected.x0)
    if name in ("z_image", "hidream"):
        return
    several = {key: value.repeat(2, *[1] * (value.ndim - 1)) for key, value in hand.items()}  # one for each sample
    torch.testing.assert_close(look(model, words, **several).x0, expected.x0, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_folder_is_the_pipeline(pipes, name, tmp_path_factory, photo):
    folder = tiny.folder(name, tmp_path_factory)
    loaded = Inpainter.from_pretrained(folder, device="cpu")
    own = Inpainter.from_pipe(pipes(name), step_distilled=loaded.model.step_distilled)  # the folder's name says so
    words = GUIDED[name] if name != "flux2_klein" else {}
    first, second = (paint(one, photo, num_inference_steps=2, **words) for one in (loaded, own))
    np.testing.assert_allclose(first.images, second.images, rtol=0, atol=1e-4)


def paint(inpainter, photo, **keywords):
    inpainter.set_progress_bar_config(disable=True)
    settings = {
        "prompt": "a red fox",
        "method": "ding",
        "num_inference_steps": STEPS,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "np",
        "height": 64,
        "width": 64,
    }
    return inpainter(*photo, **{**settings, **keywords})


def contents(pipe):
    """Everything in a pipeline that a run could change."""
    weights = {
        (part, key): value.clone()
        for part, module in pipe.components.items()
        if isinstance(module, torch.nn.Module)
        for key, value in module.state_dict().items()
    }
    gradients = [
        (value.requires_grad, value.grad)
        for module in pipe.components.values()
        if isinstance(module, torch.nn.Module)
        for value in module.parameters()
    ]
    settings = {part: dict(module.config) for part, module in pipe.components.items() if hasattr(module, "config_name")}
    scheduler = {
        key: value.tolist() if isinstance(value, torch.Tensor) else str(value) if isinstance(value, list) else value
        for key, value in vars(pipe.scheduler).items()
    }
    return weights, copy.deepcopy((gradients, settings, scheduler, dict(pipe.config)))


@pytest.mark.filterwarnings("ignore:Method lanpaint draws")
@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_are_painted_and_the_pipeline_stays_as_it_is(pipes, name, photo):
    pipe = pipes(name)
    inpainter = Inpainter.from_pipe(pipe)
    weights, rest = contents(pipe)
    picture, mask = photo
    for method in (pb.methods.get("ding"), pb.methods.get("lanpaint", inner_steps=1), pb.methods.get("ldps")):
        out = paint(inpainter, photo, method=method, **GUIDED[name])
        assert out.images.shape == (1, 64, 64, 3)
        assert np.array_equal(out.images[0][~mask], picture[~mask])
        assert np.isfinite(out.images).all()
        assert float(np.abs(out.images[0][mask] - picture[mask]).mean()) > 0.01
        assert out.evaluations == method.evaluations(STEPS)
        assert out.vjps == method.vjps(STEPS)
    later, others = contents(pipe)
    assert weights.keys() == later.keys()
    assert all(torch.equal(weights[key], later[key]) for key in weights)
    assert rest == others


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_runs_and_keeps_the_state_in_single(pipes, name):
    pipe = copy.deepcopy(pipes(name)).to(torch.bfloat16)
    tiny._finish(pipe, name)
    model = from_pipe(pipe)
    words = {"prompt": "a red fox", **UNGUIDED[name]}
    half, single = look(model, words).x0, look(from_pipe(pipes(name)), words).x0
    assert half.dtype == torch.float32
    assert float(torch.cosine_similarity(half.flatten(), single.flatten(), dim=0)) > 0.95
    assert model.codec.decode(half[:1]).isfinite().all()


# What is a family's own ---------------------------------------------------------------------------------------------


def test_qwens_mix_is_known_to_the_prediction(pipes):
    model = from_pipe(pipes("qwen_image"))
    words = {"prompt": "a red fox", "negative_prompt": "rain"}
    four, two = (look(model, words, true_cfg_scale=scale) for scale in (4.0, 2.0))
    torch.testing.assert_close(four.guided(2.0).x0, two.x0)
    torch.testing.assert_close(four.guided(1.0).x1, four.conditional.x1)
    velocity, own = four.x1 - four.x0, four.conditional.x1 - four.conditional.x0
    norms = (pipes("qwen_image")._pack_latents(v, *v.shape).norm(dim=-1) for v in (velocity, own))
    torch.testing.assert_close(*norms)
    straight = torch.lerp(four.unconditional.x0, four.conditional.x0, 4.0)
    assert float((four.x0 - straight).abs().max()) > 0.1


@pytest.mark.parametrize("name", ["flux_dev", "flux_schnell", "qwen_image"])
def test_true_guidance_needs_a_negative_prompt(pipes, name):
    model = from_pipe(pipes(name))
    with pytest.raises(ValueError, match="needs a negative_prompt for true_cfg_scale"):
        model.denoiser("a", true_cfg_scale=3.0)
    assert model.denoiser("a").unconditional is None
    assert model.denoiser("a", "", true_cfg_scale=3.0).unconditional is not None


def test_flux_says_that_a_negative_prompt_is_not_looked_at(pipes):
    with pytest.warns(UserWarning, match="does not look at a negative prompt"):
        from_pipe(pipes("flux_dev")).denoiser("a", "rain")


@pytest.mark.parametrize("name", ["flux_schnell", "qwen_image"])
def test_networks_without_a_guidance_scale_refuse_one(pipes, name):
    with pytest.raises(ValueError, match="takes no guidance_scale"):
        from_pipe(pipes(name)).denoiser("a", guidance_scale=4.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_wrong_embeddings_are_named(pipes, name):
    model = from_pipe(pipes(name))
    with pytest.raises(ValueError, match="takes no image_embeds"):
        model.denoiser(image_embeds=torch.zeros(1, 1, 1))
    if name in MASKED:
        with pytest.raises(ValueError, match="needs prompt_attention_mask too; give"):
            model.denoiser(prompt_embeds=torch.zeros(1, 4, 32))
    if name.startswith(("sd3", "flux_", "hidream")):
        with pytest.raises(ValueError, match="too; give"):
            model.denoiser(pooled_prompt_embeds=torch.zeros(1, 32))


def test_flux_dev_changes_with_the_embedded_guidance(pipes):
    model = from_pipe(pipes("flux_dev"))
    words = {"prompt": "a red fox"}
    default = look(model, words).x0
    assert torch.equal(default, look(model, words, guidance_scale=3.5).x0)
    assert float((default - look(model, words, guidance_scale=1.0).x0).abs().max()) > 1e-3


@pytest.mark.parametrize(("name", "distilled"), [("flux_dev", True), ("flux_schnell", False), ("sd3", False)])
def test_lanpaint_warns_once_on_distilled_guidance(pipes, name, distilled, photo):
    inpainter = Inpainter.from_pipe(pipes(name))
    lanpaint = pb.methods.get("lanpaint", inner_steps=0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for method in ("ding", lanpaint, lanpaint):
            paint(inpainter, photo, method=method, num_inference_steps=1)
    assert sum("draws by the model's score" in str(one.message) for one in seen) == distilled


def test_hidream_never_paints_more_than_its_tokens(pipes):
    model = from_pipe(pipes("hidream"))
    most = pipes("hidream").transformer.max_seq * 16**2
    assert model.largest_area == most
    for height, width in ((250, 262), (64, 64), (400, 600), (60, 1000)):
        big = dataclasses.replace(model, training_size=256)
        frame = choose_size(Box(0, 0, height, width), big)
        assert frame.size[0] * frame.size[1] <= most
    with pytest.raises(ValueError, match="takes at most"):
        choose_size(Box(0, 0, 64, 64), model, (512, 256))


@pytest.mark.parametrize("kind", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_the_clock_is_the_schedulers(pipes, kind):
    import diffusers

    pipe = copy.copy(pipes("hidream"))
    config = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    pipe.scheduler = pipe.scheduler if kind.startswith("FlowMatch") else diffusers.UniPCMultistepScheduler(**config)
    model = from_pipe(pipe)
    times = model.grid(5, SIZE)
    told = torch.stack([clock(pipe.scheduler, model.schedule.at(float(t))) for t in times[:-1]])
    expected = copy.deepcopy(pipe.scheduler)
    model.set_timesteps(expected, 5, SIZE)
    assert told.dtype == expected.timesteps.dtype
    torch.testing.assert_close(told, expected.timesteps, rtol=1e-6, atol=1e-4)


def test_a_scheduler_of_noise_is_refused(pipes):
    from diffusers import DDIMScheduler

    pipe = copy.copy(pipes("flux_dev"))
    pipe.scheduler = DDIMScheduler()
    with pytest.raises(ValueError, match="none of flow matching"):
        from_pipe(pipe)
