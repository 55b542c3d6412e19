"""Pictures beside the prompt: a ControlNet beside any method, and IP-Adapters, with the real classes at tiny size."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import paintback as pb
from paintback.methods.ding import Ding
from paintback.models.diffusers import from_pipe
from paintback.models.diffusers.comparing import first_order
from paintback.models.diffusers.shown import cut
from tests.models import tiny_pipelines as tiny

SIZE = (64, 96)
slow = pytest.mark.slow
STEPS = 4  # DDIMScheduler steps by T / N, rounded down
TOLD = {"prompt": "a red fox", "negative_prompt": "rain on a tin roof"}
GUIDED = {
    "sd15": {"guidance_scale": 4.0},
    "sdxl": {"guidance_scale": 4.0},
    "sd3": {"guidance_scale": 4.0},
    "flux_dev": {"guidance_scale": 3.0, "true_cfg_scale": 2.0},
    "qwen_image": {"true_cfg_scale": 3.0},
    "z_image": {"guidance_scale": 2.5},
    "chroma": {"guidance_scale": 3.0},
    "sana": {"guidance_scale": 3.0},
    "flux_control": {"guidance_scale": 3.0},
}
CONTROLLED = ("sd15", "sdxl", "sd3", "flux_dev", "qwen_image", "z_image")
THEIRS = {"sana": {"use_resolution_binning": False}}


@functools.cache
def base(name):
    pipe = tiny.build(name)
    pipe.short = name
    if hasattr(pipe, "unet"):
        pipe.scheduler = DDIMScheduler.from_config(
            pipe.scheduler.config, set_alpha_to_one=True, clip_sample=False, timestep_spacing="trailing"
        )
    return pipe


def with_controlnet(name, count=1, **settings):
    pipe = tiny.with_controlnet(base(name), count, **settings)
    pipe.short = name
    return pipe


@pytest.fixture(scope="module", params=CONTROLLED)
def controlled(request):
    return with_controlnet(request.param)


@pytest.fixture(scope="module", params=["sd15", pytest.param("sdxl", marks=slow), "sd3", "flux_dev", "chroma"])
def adapted(request):
    return tiny.with_ip_adapter(base.__wrapped__(request.param))


@pytest.fixture(autouse=True)
def means(monkeypatch):
    """Some of the pipelines draw from the encoder's Gaussian, and without the generator."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


def picture(seed=0, size=SIZE):
    return np.random.default_rng(seed).random((*size, 3)).astype(np.float32)


def pil(seed=0):
    from PIL import Image

    return Image.fromarray((picture(seed) * 255).astype(np.uint8))


def both(pipe, **more):
    """Our latents with nothing known, and the pipeline's own from the same noise."""
    model = from_pipe(pipe)
    told = {name: word for name, word in {**TOLD, **GUIDED[pipe.short], **more}.items() if word is not None}
    denoiser = model.denoiser(**told, size=SIZE)
    nothing = pb.Observation(torch.zeros(denoiser.shape), torch.zeros(denoiser.shape, dtype=torch.bool))
    times = denoiser.grid(STEPS)
    noise = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(3))

    class Start(Ding):
        def start(self, run):
            return noise.clone()

    ours = Start(eta="zero", delayed=True, coordinates=None).sample(denoiser, nothing, STEPS, num_samples=2, grid=times)
    if hasattr(pipe, "unet") and "control_image" in told:
        told["image"] = told.pop("control_image")
    if "ip_adapter_image" in told and pipe.short != "sd3":
        told["ip_adapter_image"] = [told["ip_adapter_image"]]
    theirs = pipe(
        **told, **THEIRS.get(pipe.short, {}), height=SIZE[0], width=SIZE[1], num_inference_steps=STEPS,
        num_images_per_prompt=2, latents=model.as_latents(noise), output_type="latent",
    ).images  # fmt: skip
    return model.as_latents(ours.x), theirs


def far(a, b):
    return float((a - b).abs().max() / b.abs().max())


def test_with_nothing_known_it_is_the_controlnet_pipeline(controlled):
    model = from_pipe(controlled)
    part = {"control_guidance_start": 0.2, "control_guidance_end": 0.8}  # 2 of 4 steps
    part = {} if controlled.short == "z_image" else part  # whose pipeline has none
    ours, theirs = both(controlled, control_image=pil(), controlnet_conditioning_scale=0.7)
    assert far(ours, theirs) < 1e-5
    if part:
        other, theirs = both(controlled, control_image=pil(), controlnet_conditioning_scale=0.7, **part)
        assert far(other, theirs) < 1e-5
        assert far(other, ours) > 0.01
    told = {**TOLD, **GUIDED[controlled.short], "size": SIZE}
    denoiser, other = model.denoiser(**told), model.denoiser(**told, control_image=pil())
    x = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(0))
    assert far(denoiser(x, 0.5).x0, other(x, 0.5).x0) > 0.05  # without a picture it is not asked


@slow
def test_sanas_controlnet_is_the_pipelines():
    pipe = with_controlnet("sana")
    pipe.scheduler = first_order(pipe.scheduler)[0]
    ours, theirs = both(pipe, control_image=pil(), controlnet_conditioning_scale=0.7)
    assert far(ours, theirs) < 1e-5
    assert far(ours, both(pipe, control_image=pil(1), controlnet_conditioning_scale=0.7)[0]) > 0.01


def test_a_network_that_reads_the_picture_to_follow_is_the_pipelines():
    pipe = tiny.flux_control()
    pipe.short = "flux_control"
    ours, theirs = both(pipe, control_image=pil(), negative_prompt=None)
    assert far(ours, theirs) < 1e-5
    assert far(ours, both(pipe, control_image=pil(1), negative_prompt=None)[0]) > 0.01
    model = from_pipe(pipe)
    assert len(model.networks()) == 1
    with pytest.raises(ValueError, match="reads a picture that it follows; give control_image"):
        model.denoiser("a fox", size=SIZE)
    with pytest.raises(ValueError, match="takes no controlnet_conditioning_scale"):
        model.denoiser("a fox", size=SIZE, control_image=pil(), controlnet_conditioning_scale=0.5)


def test_chromas_adapter_is_refused_where_diffusers_leaves_it_out():
    pipe = tiny.with_ip_adapter(base.__wrapped__("chroma"))
    denoiser = from_pipe(pipe).denoiser("a fox", size=SIZE, ip_adapter_image=pil())
    x = torch.zeros(1, *denoiser.shape)
    denoiser(x, 0.5)
    pipe.transformer.enable_gradient_checkpointing()
    with pytest.raises(ValueError, match="leave gradient_checkpointing out"):
        denoiser(x, 0.5)
    with torch.no_grad():
        denoiser(x, 0.5)


def test_guess_mode_is_the_pipelines():
    pipe = with_controlnet("sdxl")
    ours, theirs = both(pipe, control_image=pil(), guess_mode=True)
    assert far(ours, theirs) < 1e-5
    assert far(ours, both(pipe, control_image=pil())[0]) > 0.05


@pytest.mark.parametrize("name", ["sd3", pytest.param("sdxl", marks=slow), pytest.param("flux_dev", marks=slow)])
def test_several_controlnets_are_the_pipelines(name):
    told = {
        "control_image": [pil(0), pil(1)],
        "controlnet_conditioning_scale": [0.5, 0.8],
        "control_guidance_start": [0.0, 0.2],
        "control_guidance_end": [0.5, 1.0],
    }
    ours, theirs = both(with_controlnet(name, 2), **told)
    assert far(ours, theirs) < 1e-5


@pytest.mark.parametrize(("name", "settings"), [
    ("flux_dev", {"num_mode": 3}),
    pytest.param("qwen_image", {}, marks=slow),
])  # fmt: skip
def test_one_controlnet_of_several_kinds_follows_several_pictures(name, settings):
    modes = {"control_mode": [0, 2]} if settings else {}
    modes |= {"control_guidance_end": [1.0, 1.0]}  # FLUX.1's pipeline drops the second picture where this is a number
    pipe = with_controlnet(name, several=True, **settings)
    ours, theirs = both(pipe, control_image=[pil(0), pil(1)], controlnet_conditioning_scale=[0.5, 0.8], **modes)
    assert far(ours, theirs) < 1e-5


@slow
@pytest.mark.parametrize(("name", "settings", "more"), [
    ("flux_dev", {"num_mode": 3}, {"control_mode": 1}),
    ("flux_dev", {"conditioning_embedding_channels": 16, "in_channels": 64, "patch_size": 2}, {}),
    ("flux_dev", {"guidance_embeds": False}, {}),
    ("sd3", {"force_zeros_for_pooled_projection": False}, {}),
    ("sd3", {"joint_attention_dim": None, "use_pos_embed": False}, {}),
    ("z_image", {"control_in_dim": 33, "add_control_noise_refiner": "control_noise_refiner"}, {}),
])  # fmt: skip
def test_the_kinds_of_controlnet_are_the_pipelines(name, settings, more):
    ours, theirs = both(with_controlnet(name, **settings), control_image=pil(), **more)
    assert far(ours, theirs) < 1e-5


def test_what_a_controlnet_does_not_take_is_said():
    model = from_pipe(with_controlnet("sd15"))
    for more, said in (
        ({"control_image": pil(), "control_mode": 1}, "have no control_mode; load the ControlNet of the kind"),
        ({"controlnet_conditioning_scale": 0.5}, "Got controlnet_conditioning_scale without control_image"),
        ({"control_image": pil(), "control_guidance_start": 0.8, "control_guidance_end": 0.2}, "shares of the steps"),
    ):
        with pytest.raises(ValueError, match=said):
            model.denoiser("a fox", **more)
    with pytest.raises(ValueError, match="have no guess_mode; lower controlnet_conditioning_scale"):
        from_pipe(with_controlnet("sd3")).denoiser("a fox", control_image=pil(), guess_mode=True)
    for name, settings in (
        ("sd3", {"extra_conditioning_channels": 1}),
        ("qwen_image", {"extra_condition_channels": 4}),
    ):
        with pytest.raises(ValueError, match="takes the mask"):
            from_pipe(with_controlnet(name, **settings)).denoiser("a fox", control_image=pil())


def test_with_nothing_known_it_is_the_pipeline_with_its_ip_adapter(adapted):
    from PIL import Image

    shown = Image.fromarray((picture(1, (40, 40)) * 255).astype(np.uint8))
    ours, theirs = both(adapted, ip_adapter_image=shown)
    assert far(ours, theirs) < 1e-5
    with torch.no_grad():
        if adapted.short == "sd3":
            embeds = adapted.prepare_ip_adapter_image_embeds(shown)
        elif adapted.short in ("flux_dev", "chroma"):
            nothing, some = (adapted.prepare_ip_adapter_image_embeds(one, None, "cpu", 1) for one in (black(), shown))
            embeds = [torch.cat((nothing[0], some[0]))]
        else:
            embeds = adapted.prepare_ip_adapter_image_embeds([shown], None, "cpu", 1, True)
    model = from_pipe(adapted)
    told = {**TOLD, **GUIDED[adapted.short], "size": SIZE}
    x = torch.randn(1, *model.denoiser(**told, ip_adapter_image=shown).shape)
    one, again, another = (
        model.denoiser(**told, **more)(x, 0.5).x0
        for more in (
            {"ip_adapter_image": shown},
            {"ip_adapter_image_embeds": embeds},
            {"ip_adapter_image": Image.new("RGB", (40, 40), "red")},
        )
    )
    assert torch.equal(one, again)
    assert far(one, another) > 0.001
    if adapted.short == "flux_dev":  # without guidance, and with the embeddings of the picture alone
        told = {"prompt": "a red fox", "size": SIZE}
        alone = [model.denoiser(**told, ip_adapter_image_embeds=one)(x, 0.5).x0 for one in (embeds, [embeds[0][1:]])]
        assert torch.equal(*alone)


def black():
    from PIL import Image

    return Image.new("RGB", (64, 64))


def test_an_adapter_wants_its_picture_and_the_other_way_round(adapted):
    model = from_pipe(adapted)
    with pytest.raises(ValueError, match="give ip_adapter_image or ip_adapter_image_embeds, or call"):
        model.denoiser("a fox")
    with pytest.raises(ValueError, match="say the same in two ways"):
        model.denoiser("a fox", ip_adapter_image=picture(), ip_adapter_image_embeds=[torch.zeros(2, 1, 24)])
    plain = from_pipe(base(adapted.short))
    with pytest.raises(ValueError, match=r"has no IP-Adapter; call pipe.load_ip_adapter"):
        plain.denoiser("a fox", ip_adapter_image=picture())
    if "control_image" in plain.keywords:
        with pytest.raises(ValueError, match="has no ControlNet"):
            plain.denoiser("a fox", control_image=picture())


@pytest.mark.parametrize("method", ["ding", pytest.param("ldps", marks=slow)])
def test_pictures_are_painted_beside_a_controlnet(controlled, method):
    own = pb.Inpainter.from_pipe(controlled)
    own.set_progress_bar_config(disable=True)
    image, mask = picture(2, (64, 64)), np.zeros((64, 64), bool)
    mask[20:40, 24:44] = True
    settings = {"prompt": "a fox", "num_inference_steps": 2, "generator": 0, "output_type": "np"}
    settings |= {"height": 64, "width": 64, "method": method}
    made = [
        own(image, mask, **settings, control_image=shown).images[0]
        for shown in (None, picture(3, (64, 64)), picture(4, (64, 64)))
    ]
    assert all(np.array_equal(one[~mask], image[~mask]) for one in made)
    assert all(abs(a - b)[mask].max() > 1e-3 for a, b in zip(made, made[1:], strict=False))
    with pytest.raises(ValueError, match="has 1 ControlNets; got 2 control_image"):
        own(image, mask, **settings, control_image=[image, image])


def test_a_crop_sees_its_part_of_the_control_picture():
    whole = torch.arange(40 * 60, dtype=torch.float32).reshape(1, 1, 40, 60).repeat(1, 3, 1, 1) / 2400
    assert torch.equal(cut(whole, (8, 16, 24, 40), (40, 60), (16, 24)), whole[..., 8:24, 16:40])
    padded = cut(whole, (8, 16, 22, 37), (40, 60), (16, 24))
    assert torch.equal(padded[..., :14, :21], whole[..., 8:22, 16:37])
    beyond = cut(whole, (-4, 0, 12, 16), (40, 60), (16, 16))
    assert torch.equal(beyond[..., :4, :], whole[..., :1, :16].expand(-1, -1, 4, -1))
    assert cut(whole, (0, 0, 40, 60), (40, 60), (80, 120)).shape == (1, 3, 80, 120)
    assert cut(whole, (0, 0, 80, 120), (80, 120), (80, 120)).shape == (1, 3, 80, 120)
