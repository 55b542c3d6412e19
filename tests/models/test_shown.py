"""Pictures beside the prompt: a ControlNet beside any method, and IP-Adapters, with the real classes at tiny size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import paintback as pb
from paintback.models.diffusers import from_pipe
from paintback.models.diffusers.shown import cut
from tests.models import tiny_pipelines as tiny

SIZE = (64, 96)
STEPS = 4  # DDIMScheduler steps by T / N, rounded down
TOLD = {"prompt": "a red fox", "negative_prompt": "rain", "guidance_scale": 4.0}


def base(name):
    pipe = tiny.build(name)
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, set_alpha_to_one=True, clip_sample=False, timestep_spacing="trailing"
    )
    return pipe


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def controlled(request):
    return tiny.with_controlnet(base(request.param))


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def adapted(request):
    return tiny.with_ip_adapter(base(request.param))


def picture(seed=0, size=SIZE):
    return np.random.default_rng(seed).random((*size, 3)).astype(np.float32)


def both(pipe, **more):
    """Our latents with nothing known, and the pipeline's own from the same noise."""
    model = from_pipe(pipe)
    denoiser = model.denoiser(**TOLD, size=SIZE, **more)
    ding = pb.methods.get("ding", eta="zero", delayed=True)
    nothing = pb.Observation(torch.zeros(denoiser.shape), torch.zeros(denoiser.shape, dtype=torch.bool))
    times = denoiser.grid(STEPS)
    noise = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(3))

    class Start(type(ding)):
        def start(self, run):
            return noise.clone()

    ours = Start(eta="zero", delayed=True).sample(denoiser, nothing, STEPS, num_samples=2, grid=times)
    own = {"image" if key == "control_image" else key: value for key, value in more.items()}
    if "image" in own:
        own["image"] = torch.from_numpy(own["image"]).permute(2, 0, 1)[None]
    if "ip_adapter_image" in own:
        own["ip_adapter_image"] = [own["ip_adapter_image"]]
    theirs = pipe(
        **TOLD, **own, height=SIZE[0], width=SIZE[1], num_inference_steps=STEPS, num_images_per_prompt=2,
        latents=noise.clone(), output_type="latent",
    ).images  # fmt: skip
    return ours.x, theirs


def far(a, b):
    return float((a - b).abs().max() / b.abs().max())


def test_with_nothing_known_it_is_the_controlnet_pipeline(controlled):
    ours, theirs = both(controlled, control_image=picture(), controlnet_conditioning_scale=0.7)
    assert far(ours, theirs) < 1e-5
    model = from_pipe(controlled)
    denoiser = model.denoiser(**TOLD, size=SIZE)
    other = model.denoiser(**TOLD, size=SIZE, control_image=picture())
    x = torch.zeros(1, *denoiser.shape)
    assert far(denoiser(x, 0.5).x0, other(x, 0.5).x0) > 0.05  # without a picture it is not asked


def test_with_nothing_known_it_is_the_pipeline_with_its_ip_adapter(adapted):
    from PIL import Image

    shown = Image.fromarray((picture(1, (40, 40)) * 255).astype(np.uint8))
    ours, theirs = both(adapted, ip_adapter_image=shown)
    assert far(ours, theirs) < 1e-5
    embeds = adapted.prepare_ip_adapter_image_embeds([shown], None, "cpu", 1, True)
    again, _ = both(adapted, ip_adapter_image_embeds=embeds)
    assert torch.equal(ours, again)
    another, _ = both(adapted, ip_adapter_image=Image.new("RGB", (40, 40), "red"))
    assert far(ours, another) > 0.01


def test_an_adapter_wants_its_picture_and_the_other_way_round(adapted):
    model = from_pipe(adapted)
    with pytest.raises(ValueError, match="give ip_adapter_image or ip_adapter_image_embeds, or call"):
        model.denoiser("a fox")
    with pytest.raises(ValueError, match="say the same in two ways"):
        model.denoiser("a fox", ip_adapter_image=picture(), ip_adapter_image_embeds=[torch.zeros(2, 1, 24)])
    plain = from_pipe(tiny.build("sd15"))
    with pytest.raises(ValueError, match=r"has no IP-Adapter; call pipe.load_ip_adapter"):
        plain.denoiser("a fox", ip_adapter_image=picture())
    with pytest.raises(ValueError, match="has no ControlNet"):
        plain.denoiser("a fox", control_image=picture())


@pytest.mark.parametrize("method", ["ding", "ldps"])
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
