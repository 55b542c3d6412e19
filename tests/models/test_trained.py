"""Inpainting pipelines of diffusers as `method="trained"`, with tiny random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from paintback import Inpainter, methods
from paintback.models.catalogue import recommended, takes_mask
from paintback.models.diffusers import trained
from paintback.models.trained import TrainedModel
from tests.models import tiny_pipelines as tiny

SIDE = 64
STRENGTH = tuple(name for name in tiny.TRAINED if name != "sd3_controlnet_inpaint")
PROMPT = "a red fox"


@pytest.fixture(scope="module", params=tiny.TRAINED)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def pipes():
    """Each pipeline, built once; nothing that is done here may change it."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = tiny.build(name)
            if name == "flux_fill":
                made[name].default_sample_size = SIDE // 8  # 128 otherwise, and in no config
        return made[name]

    return get


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).random((SIDE, SIDE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def hole():
    hole = np.zeros((SIDE, SIDE), bool)
    hole[16:40, 24:48] = True  # whole latent cells
    return hole


def inpainter(pipe):
    made = Inpainter.from_pipe(pipe)
    made.set_progress_bar_config(disable=True)
    return made


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def paint(pipe, picture, hole, seeds=(0,), **more):
    more = {"prompt": PROMPT, "num_inference_steps": 2, "generator": seeded(*seeds), "match_colour": False, **more}
    size = {"height": SIDE, "width": SIDE}
    return inpainter(pipe)(picture, hole, num_images_per_prompt=len(seeds), output_type="np", **size, **more)


def own_call(pipe, name, picture, hole, generator, **more):
    """The pipeline itself, given what the Inpainter should give it."""
    shown = torch.from_numpy(picture).permute(2, 0, 1)[None]
    mask = torch.from_numpy(hole)[None, None].float()
    given = {"image": shown, "mask_image": mask, "strength": more.pop("strength", 1.0)}  # SDXL's default is 0.9999
    if name == "sd3_controlnet_inpaint":
        given = {"control_image": shown * 2 - 1, "control_mask": mask}
    settings = {"prompt": PROMPT, "num_inference_steps": 2, "height": SIDE, "width": SIDE, "output_type": "np", **more}
    with trained._seeded(generator, torch.device("cpu")):  # SD 3 draws from the global generator
        return pipe(**given, generator=generator, **settings).images[0]


def filled(picture, hole):
    from paintback.models.latent import fill_hole

    shown = fill_hole(torch.from_numpy(picture).permute(2, 0, 1)[None] * 2 - 1, torch.from_numpy(~hole)[None, None])
    return ((shown[0] + 1) / 2).permute(1, 2, 0).numpy()


def test_is_the_pipeline_s_own_result_pasted(name, pipes, picture, hole):
    pipe = pipes(name)
    out = paint(pipe, picture, hole, seeds=(3,))
    wanted = own_call(pipe, name, filled(picture, hole), hole, *seeded(3))
    assert np.abs(out.images[0][hole] - wanted[hole]).max() < 1e-6
    assert wanted[hole].std() > 0.01
    assert np.array_equal(out.images[0][~hole], picture[~hole])
    assert (out.evaluations, out.vjps, out.seeds) == (2 if name != "sd15_inpaint" else 3, 0, [3])  # PNDM adds one
    assert out.settings["method"] == "trained"
    assert out.settings["fields"] == {}
    assert json.loads(json.dumps(out.settings)) == out.settings


def test_counts_rows_of_guidance_once_per_evaluation(name, pipes, picture, hole, monkeypatch):
    pipe, seen = pipes(name), []
    monkeypatch.setattr(
        trained.InpaintingPipeline,
        "fill",
        lambda *a, own=trained.InpaintingPipeline.fill, **k: seen.append(own(*a, **k)) or seen[-1],
    )
    calls = 3 if name == "sd15_inpaint" else 2
    paint(pipe, picture, hole)
    assert (seen[-1].evaluations, seen[-1].network_rows) == (calls, calls if name == "flux_fill" else 2 * calls)
    paint(pipe, picture, hole, prompt=None)  # without a text there is nothing to guide towards
    assert (seen[-1].evaluations, seen[-1].network_rows) == (calls, calls)
    out = paint(pipe, picture, hole, generator=seeded(0)[0], seeds=(0, 0))
    assert (seen[-1].evaluations, seen[-1].network_rows) == (calls, calls if name == "flux_fill" else 2 * calls)
    assert out.evaluations == calls


def test_a_sample_does_not_depend_on_its_batch(name, pipes, picture, hole):
    pipe = pipes(name)
    both = paint(pipe, picture, hole, seeds=(1, 2))
    alone = paint(pipe, picture, hole, seeds=(2,))
    assert both.seeds == [1, 2]
    assert both.evaluations == alone.evaluations
    assert np.abs(both.images[1] - alone.images[0]).max() < 1e-4
    assert np.abs(both.images[0] - both.images[1])[hole].max() > 0.01


def test_the_same_seed_gives_the_same_bits_whatever_torch_s_own_state(name, pipes, picture, hole):
    pipe = pipes(name)
    torch.manual_seed(0)
    first, state = paint(pipe, picture, hole), torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert np.array_equal(paint(pipe, picture, hole).images, first.images)


def test_hidden_pixels_do_not_matter(name, pipes, picture, hole):
    pipe = pipes(name)
    other = np.where(hole[..., None], 1 - picture, picture)
    assert np.array_equal(paint(pipe, picture, hole).images, paint(pipe, other, hole).images)


def test_hidden_pixels_do_not_matter_when_the_crop_is_scaled(name, pipes):
    """Scaling mixes neighbours, so it must come after the filling."""
    rng = np.random.default_rng(2)
    picture, hole = rng.random((100, 90, 3)).astype(np.float32), np.zeros((100, 90), bool)
    hole[31:52, 40:61] = True
    other = np.where(hole[..., None], 1 - picture, picture)
    settings = {"num_inference_steps": 1, "output_type": "np", "padding_mask_crop": 8}
    first, second = (
        inpainter(pipes(name))(one, hole, PROMPT, generator=seeded(0), **settings) for one in (picture, other)
    )
    assert first.scales[0].factor != 1
    assert np.array_equal(first.images, second.images)


def test_strength_starts_from_the_picture(name, pipes, picture, hole):
    pipe = pipes(name)
    if name not in STRENGTH:
        with pytest.raises(ValueError, match="takes no strength"):
            paint(pipe, picture, hole, strength=0.5)
        return
    settings = {"num_inference_steps": 4, "strength": 0.5}
    out = paint(pipe, picture, hole, **settings)
    assert out.evaluations == (2 if name != "sd15_inpaint" else 3)  # of 4, and of PNDM's 5
    wanted = own_call(pipe, name, picture, hole, *seeded(0), **settings)
    assert np.abs(out.images[0][hole] - wanted[hole]).max() < 1e-6
    # no less than a step, which is PNDM's last two
    assert paint(pipe, picture, hole, num_inference_steps=49, strength=0.001).evaluations == out.evaluations - 1


def test_leaves_the_pipeline_as_it_was(name, pipes, picture, hole):
    pipe = pipes(name)
    network = tiny.denoiser(pipe)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    parts, config = dict(pipe.components), dict(pipe.scheduler.config)
    pipe.set_progress_bar_config(desc="mine", disable=True)
    paint(pipe, picture, hole)
    with pytest.raises(RuntimeError, match="stop"):
        paint(pipe, picture, hole, callback_on_step_end=raising)
    assert pipe._progress_bar_config == {"desc": "mine", "disable": True}
    assert not network._forward_hooks
    assert all(pipe.components[key] is part for key, part in parts.items())
    assert dict(pipe.scheduler.config) == config
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def raising(*_):
    raise RuntimeError("stop")


def test_other_methods_are_refused(name, pipes, picture, hole):
    pipe = pipes(name)
    for method in ("ding", methods.get("lanpaint")):
        with pytest.raises(ValueError, match="runs only as method='trained'"):
            paint(pipe, picture, hole, method=method)
    with pytest.raises(ValueError, match="no leaky_encoding"):
        paint(pipe, picture, hole, leaky_encoding=True)
    with pytest.raises(ValueError, match="true_cfg_scale"):
        paint(pipe, picture, hole, true_cfg_scale=2.0)
    with pytest.raises(ValueError, match="takes the mask"):
        inpainter(pipe).model.denoiser()
    assert np.array_equal(
        paint(pipe, picture, hole, method="trained").images, paint(pipe, picture, hole, method=None).images
    )


def test_other_models_refuse_trained(picture, hole):
    assert "trained" not in methods.names()
    with pytest.raises(ValueError, match="load an inpainting pipeline"):
        Inpainter.from_pretrained("photo", device="cpu")(picture, hole, method="trained")


def test_reports_steps_and_can_be_interrupted(name, pipes, picture, hole):
    painter, seen = inpainter(pipes(name)), []

    def watch(own, index, t, tensors):
        seen.append((index, t, tensors["latents"].shape[0], tensors["x0"]))
        own.interrupt = index == 1

    settings = {"num_inference_steps": 5, "height": SIDE, "width": SIDE, "callback_on_step_end": watch}
    out = painter(picture, hole, PROMPT, generator=seeded(0), **settings)
    assert out.stopped
    assert out.evaluations == 2
    assert [one[0] for one in seen] == [0, 1]
    assert 1000 >= seen[0][1] >= seen[1][1] > 0
    assert seen[0][2:] == (1, None)
    seen.clear()
    assert not painter(picture, hole, PROMPT, generator=seeded(0), **settings | {"callback_on_step_end": None}).stopped


def test_the_callback_is_told_the_schedulers_timesteps(pipes, picture, hole):
    seen, pipe = [], pipes("flux_fill")
    paint(pipe, picture, hole, num_inference_steps=3, callback_on_step_end=lambda _, k, t, x: seen.append(t))
    assert seen == pipe.scheduler.timesteps.tolist()


def test_latents_that_the_callback_returns_are_gone_on_from(pipes, picture, hole):
    def wipe(own, index, t, state):
        return {"latents": torch.zeros_like(state["latents"])} if index == 1 else {}

    plain, wiped = (
        paint(pipes("flux_fill"), picture, hole, num_inference_steps=3, callback_on_step_end=one).images[0]
        for one in (None, wipe)
    )
    assert not np.array_equal(plain, wiped)


def test_a_hole_between_the_sampled_pixels_is_seen(pipes, picture):
    """Of the mask the U-Net gets one pixel in 8 x 8."""
    pipe = pipes("sd15_inpaint")
    scratch = np.zeros((SIDE, SIDE), bool)
    scratch[20:23, 3:60] = True
    masks = []
    handle = pipe.unet.register_forward_pre_hook(lambda module, given: masks.append(given[0][:, 4]))
    out = paint(pipe, picture, scratch)
    handle.remove()
    assert torch.equal(masks[0][0].nonzero(), torch.tensor([[2, k] for k in range(8)]))
    assert np.array_equal(out.images[0][~scratch], picture[~scratch])


@pytest.mark.parametrize("name", ["sd15_inpaint", "flux_fill"])
def test_any_size_several_pictures_and_embeddings(name, pipes):
    """A picture of another size than the model's is cropped and scaled; only its hole changes."""
    pipe, rng = pipes(name), np.random.default_rng(1)
    pictures = [rng.random(shape).astype(np.float32) for shape in ((50, 91, 3), (150, 60, 3))]
    holes = [np.zeros(one.shape[:2], bool) for one in pictures]
    holes[0][10:20, 30:50] = holes[1][5:12, 10:18] = holes[1][130:140, 20:30] = True
    said = tiny.call_arguments(name)["prompt"]
    if name == "sd15_inpaint":
        embeds = {"prompt_embeds": pipe.encode_prompt(said, torch.device("cpu"), 1, False)[0]}
    else:
        text, pooled, _ = pipe.encode_prompt(said)
        embeds = {"prompt_embeds": text, "pooled_prompt_embeds": pooled}
    settings = {"num_inference_steps": 2, "num_images_per_prompt": 2, "output_type": "np", "strength": 0.9}
    out = inpainter(pipe)(pictures, holes, said, generator=seeded(0, 1, 2, 3), **settings)
    assert len(out.images) == 4
    for k, image in enumerate(out.images):
        mine = holes[k // 2]
        assert np.array_equal(image[~mine], pictures[k // 2][~mine])
        assert (image[mine] != pictures[k // 2][mine]).any()
    same = inpainter(pipe)(pictures, holes, **embeds, generator=seeded(0, 1, 2, 3), **settings)
    assert all(np.abs(one - two).max() < 1e-5 for one, two in zip(out.images, same.images, strict=True))
    assert same.evaluations == out.evaluations == sum(scale.evaluations for scale in out.scales)


def test_negative_prompt(name, pipes, picture, hole):
    pipe = pipes(name)
    if name == "flux_fill":
        with pytest.raises(ValueError, match="takes no negative_prompt"):
            paint(pipe, picture, hole, negative_prompt="blurry")
        return
    out = paint(pipe, picture, hole, negative_prompt="blurry", guidance_scale=3)
    wanted = own_call(pipe, name, filled(picture, hole), hole, *seeded(0), negative_prompt="blurry", guidance_scale=3.0)
    assert np.abs(out.images[0][hole] - wanted[hole]).max() < 1e-6


def test_networks_without_the_mask_are_text_to_image_models():
    from diffusers import StableDiffusionInpaintPipeline

    pipe = tiny.build("sd15")
    parts = dict(pipe.components, requires_safety_checker=False)
    model = Inpainter.from_pipe(StableDiffusionInpaintPipeline(**parts)).model
    assert not isinstance(model, TrainedModel)
    with pytest.raises(ValueError, match="takes 9 channels, and 4 are expected"):
        Inpainter.from_pipe(type(pipe)(**dict(tiny.build("sd15_inpaint").components, requires_safety_checker=False)))


def test_loads_from_a_folder(name, pipes, picture, hole, tmp_path_factory):
    folder = tiny.folder(name, tmp_path_factory)
    painter = Inpainter.from_pretrained(folder, device="cpu")
    painter.set_progress_bar_config(disable=True)
    assert isinstance(painter.model, TrainedModel)
    tiny.align(painter.model.pipe)
    assert painter.model.sampler.num_inference_steps == (28 if name == "sd3_controlnet_inpaint" else 50)
    assert takes_mask(str(folder))
    assert recommended(str(folder)).method == "trained"
    size = {"height": SIDE, "width": SIDE, "match_colour": False}
    out = painter(picture, hole, PROMPT, num_inference_steps=2, generator=seeded(0), output_type="np", **size)
    assert np.abs(out.images - paint(pipes(name), picture, hole).images).max() < 1e-6


def test_command(tmp_path, tmp_path_factory, picture, hole, capsys):
    from paintback.cli.main import main
    from paintback.images import read_settings

    model = str(tiny.folder("sd15_inpaint", tmp_path_factory))
    Image.fromarray(np.uint8(picture * 255)).save(tmp_path / "photo.png")
    Image.fromarray(np.uint8(hole * 255)).save(tmp_path / "mask.png")

    def run(out, *more):
        arguments = ["inpaint", tmp_path / "photo.png", tmp_path / "mask.png", "-o", tmp_path / out, "--threads", "1"]
        with pytest.raises(SystemExit) as stop:
            main([str(one) for one in [*arguments, "--steps", "2", "--prompt", PROMPT, "--quiet", *more]])
        return stop.value.code, capsys.readouterr().err

    assert run("own.png", "--model", model) == (0, "")
    assert run("named.png", "--model", model, "--method", "trained") == (0, "")
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "named.png").read_bytes()
    settings = read_settings(tmp_path / "own.png")
    assert (settings["method"], settings["fields"], settings["steps"]) == ("trained", {}, 2)
    given, made = (np.asarray(Image.open(tmp_path / one)) for one in ("photo.png", "own.png"))
    assert np.array_equal(made[~hole], given[~hole])
    code, text = run("no.png", "--model", model, "--method", "ding")
    assert code == 2
    assert "runs only as --method trained" in text
    code, text = run("no.png", "--model", "photo", "--method", "trained")
    assert code == 2
    assert "load an inpainting pipeline" in text
    code, text = run("no.png", "--model", model, "--set", "eta=ddpm")
    assert code == 2
    assert "no fields" in text
