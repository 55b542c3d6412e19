"""The node pack for ComfyUI: the contract of a sampler, held against a stand-in, and against a real ComfyUI.

    COMFYUI_PATH=.../ComfyUI PYTHON_OF_COMFYUI -m pytest tests/integrations/test_comfyui.py

runs the same tests with the `comfy` of that folder, and some more over HTTP with a server of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import paintback as pb
from tests.integrations import realcomfy, standin, workflows

ROOT = Path(__file__).resolve().parents[2]
PACK = ROOT / "integrations" / "comfyui"
REAL = "COMFYUI_PATH" in os.environ
KINDS = ("eps", "v", "edm", "flow")
STEPS = 3 if REAL else 6  # a real network takes its time
room = realcomfy if REAL else standin


@pytest.fixture(scope="module", autouse=True)
def pack() -> ModuleType:
    """The pack as ComfyUI imports it: a module of a folder."""
    if not REAL:
        warnings.warn("COMFYUI_PATH names no ComfyUI: these tests hold a stand-in alone.", stacklevel=1)
    room.install()
    spec = importlib.util.spec_from_file_location(
        "paintback_nodes", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["paintback_nodes"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def guiders():
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = room.guider(kind)
        return made[kind]

    return get


def levels(kind: str, steps: int = STEPS) -> torch.Tensor:
    """Noise levels of a whole run, as a scheduler gives them."""
    if kind == "flow":
        return torch.linspace(1, 0, steps + 1)
    high = 120.0 if kind == "edm" else 14.6147
    return torch.cat((torch.logspace(np.log10(high), np.log10(0.03), steps), torch.zeros(1)))


def given(batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise, latents, and a mask of pixels, soft once it is brought to their size."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 4, 16, 16, generator=generator)
    latent = torch.randn(batch, 4, 16, 16, generator=generator) * 3
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 37:90, 30:81] = 1
    return noise, latent, mask


def run(guider, sampler, kind, *, batch=1, sigmas=None, noise=None, callback=None, seed=3):
    own, latent, mask = given(batch)
    with torch.inference_mode():
        return guider.sample(
            own.clone() if noise is None else noise, latent.clone(), sampler,
            levels(kind) if sigmas is None else sigmas, denoise_mask=mask, callback=callback,
            disable_pbar=True, seed=seed,
        )  # fmt: skip


def sampler_of(pack, name, policy="all", **fields):
    return pack.nodes.PaintbackSampler(pb.methods.get(name, **fields), policy)


def cells(policy="all"):
    """Which cells a mask of `given` leaves known, worked out from the pixels that interpolation reads."""
    noise, _, mask = given()
    soft = torch.nn.functional.interpolate(mask, size=noise.shape[2:], mode="bilinear")[0, 0]
    return {"all": soft < 1e-3, "majority": soft < 0.5, "any": soft < 1 - 1e-3}[policy]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ding", "lanpaint", "fcs", "ddnm", "fmm", "replacement", "dps", "gradpaint"])
def test_the_known_part_is_exact(pack, guiders, name, kind):
    made = run(guiders(kind), sampler_of(pack, name), kind)
    _, latent, _ = given()
    known = cells()
    assert 0 < int(known.sum()) < known.numel()
    # ComfyUI multiplies latents by the format's factor and divides again: a rounding, not ours
    assert torch.allclose(made[0][:, known], latent[0][:, known], rtol=1e-6, atol=1e-6)
    assert bool(made.isfinite().all()) and not torch.allclose(made[0][:, ~known], latent[0][:, ~known])
    assert torch.equal(made, run(guiders(kind), sampler_of(pack, name), kind))


@pytest.mark.parametrize("policy", ["all", "majority", "any"])
def test_the_policy_says_what_a_soft_edge_is(pack, guiders, policy):
    made = run(guiders("eps"), sampler_of(pack, "ddnm", policy), "eps")
    same = torch.isclose(made[0], given()[1][0], rtol=1e-6, atol=1e-6).all(0)
    assert torch.equal(same, cells(policy))


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_is_the_first_draw_and_a_sample_does_not_depend_on_its_batch(pack, guiders, kind):
    guider, seen = guiders(kind), []
    sampler = sampler_of(pack, "replacement")
    call = type(guider).__call__

    def look(self, x, sigma, **more):
        seen.append((x.clone(), float(sigma[0])))
        return call(self, x, sigma, **more)

    own = type("Own", (type(guider),), {"__call__": look})
    before = guider.__class__
    guider.__class__ = own
    try:
        two = run(guider, sampler, kind, batch=2)
    finally:
        guider.__class__ = before
    first, level = seen[0]
    sigma = float(levels(kind)[0])
    assert level == pytest.approx(sigma, rel=1e-4)
    noise = given(2)[0]
    hidden = ~cells()  # the method noises the known part itself
    assert torch.allclose(first[..., hidden], (noise * sigma)[..., hidden], rtol=1e-4, atol=1e-4 * sigma)
    assert len(seen) == STEPS and [round(one[1], 3) for one in seen] == [
        pytest.approx(round(float(one), 3), rel=1e-2) for one in levels(kind)[:-1]
    ]
    own_noise, latent, mask = given(2)
    with torch.inference_mode():
        alone = guider.sample(
            own_noise[:1].clone(), latent[:1].clone(), sampler, levels(kind), denoise_mask=mask, disable_pbar=True,
            seed=3,
        )  # fmt: skip
    assert torch.allclose(alone[0], two[0], rtol=1e-4, atol=1e-4)


def test_the_callback_sees_every_step_and_the_end(pack, guiders):
    seen = []
    made = run(
        guiders("eps"),
        sampler_of(pack, "ding"),
        "eps",
        callback=lambda *told: seen.append((told[0], told[3], told[1], told[2])),
    )
    assert [one[:2] for one in seen] == [(k, STEPS) for k in range(STEPS)]
    assert all(one[2].shape == made.shape for one in seen)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_cut_begins_at_the_picture_and_may_stop_above_zero(pack, guiders, kind):
    """denoise < 1 begins around the latents; a run in two halves goes through the same levels."""
    guider, sampler, sigmas = guiders(kind), sampler_of(pack, "ddnm"), levels(kind, 8)
    noise, latent, _ = given()
    late = run(guider, sampler, kind, sigmas=sigmas[-2:])
    hidden = ~cells()
    whole = run(guider, sampler, kind, sigmas=sigmas)
    near, far = ((one[0] - latent[0])[:, hidden].abs().mean() for one in (late, whole))
    assert near < far  # little noise on the picture itself keeps more of it
    half = run(guider, sampler, kind, sigmas=sigmas[:5])
    assert bool(half.isfinite().all())
    assert not torch.allclose(half[0][:, cells()], latent[0][:, cells()], atol=1e-3)  # there is noise on it still
    with torch.inference_mode():
        again = guider.sample(
            torch.zeros_like(noise), half, sampler, sigmas[4:], denoise_mask=given()[2], disable_pbar=True, seed=3
        )  # fmt: skip
    assert bool(again.isfinite().all())
    if kind != "flow":
        assert float(half.std()) > 0.5 * float(sigmas[4])


@pytest.mark.skipif(REAL, reason="the tiny network is one of pictures")
@pytest.mark.parametrize("name", ["ding", "lanpaint", "fcs", "dps"])
def test_clips(pack, guiders, name):
    """Latents with a time axis, masked frame by frame."""
    generator = torch.Generator().manual_seed(0)
    noise, latent = torch.randn(2, 1, 4, 3, 8, 8, generator=generator)
    mask = torch.zeros(9, 64, 64)
    mask[5:, 8:24, 8:40] = 1
    masked, cells = pack.nodes.LatentMask().put({"samples": latent}, mask)
    with torch.inference_mode():
        made = guiders("flow").sample(
            noise, latent, sampler_of(pack, name), levels("flow"), denoise_mask=masked["noise_mask"], seed=1
        )
    known = cells == 0
    assert cells.sum((1, 2)).tolist() == [0, 0, 8]
    assert torch.allclose(made[0][:, known], latent[0][:, known], rtol=1e-6, atol=1e-6)
    assert bool(made.isfinite().all()) and not torch.allclose(made[0][:, ~known], latent[0][:, ~known], atol=1e-2)


@pytest.mark.skipif(REAL, reason="the stand-in alone has a model of sounds")
@pytest.mark.parametrize("name", ["ding", "ddnm"])
def test_sounds_are_samples_of_their_own(pack, guiders, name):
    """Latents (B, C, L): what comes of one does not depend on the other."""
    generator, seen = torch.Generator().manual_seed(0), []
    noise, latent = torch.randn(2, 2, 4, 32, generator=generator)
    guider = guiders("flow")

    class Own(type(guider)):
        def __call__(self, x, sigma, **more):
            seen.append(tuple(x.shape))
            return 0.5 * x

    class Sound:
        model_sampling = guider.inner_model.model_sampling

        class latent_format:  # noqa: N801
            latent_dimensions = 1

    own, sampler = Own(guider.inner_model), sampler_of(pack, name)
    own.inner_model = Sound
    mask = torch.ones(2, 4, 32)
    mask[..., 10:] = 0
    extra = {"model_options": {}, "seed": 3}
    both = sampler.sample(own, levels("flow"), extra, None, noise, latent, mask)
    assert set(seen) == {(2, 4, 32)}
    assert torch.equal(both[..., 10:], latent[..., 10:])
    alone = sampler.sample(own, levels("flow"), extra, None, noise[:1], latent[:1], mask[:1])
    assert torch.allclose(alone[0], both[0], atol=1e-5)


def test_an_interruption_is_noticed_within_a_step(pack, guiders):
    import comfy.model_management as management

    looks = []
    guider, call = guiders("eps"), type(guiders("eps")).__call__

    def look(self, x, sigma, **more):
        looks.append(1)
        if len(looks) == 3:
            management.interrupt_current_processing(True)
        return call(self, x, sigma, **more)

    before = guider.__class__
    guider.__class__ = type("Own", (before,), {"__call__": look})
    try:
        with pytest.raises(management.InterruptProcessingException):
            run(guider, sampler_of(pack, "lanpaint"), "eps")
    finally:
        guider.__class__ = before
        management.interrupt_current_processing(False)
    assert len(looks) == 3


def test_lanpaint_mixes_the_two_predictions_itself(pack, guiders):
    guider = guiders("eps")
    plain = run(guider, sampler_of(pack, "lanpaint"), "eps")
    same = run(guider, sampler_of(pack, "lanpaint", cfg_big=2.0), "eps")  # the guider's own scale
    other = run(guider, sampler_of(pack, "lanpaint", cfg_big=-0.5), "eps")
    assert torch.allclose(plain, same, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(plain, other, rtol=1e-2, atol=1e-2)


def test_what_cannot_be_sampled_is_said(pack):
    import comfy.model_sampling
    from paintback_nodes.sampler import Refused, check_latents, schedule_of

    class Inner:
        class latent_format:  # noqa: N801
            latent_dimensions = 3

    class Guider:
        inner_model = Inner

    with pytest.raises(Refused, match="packed of video and audio"):
        check_latents(Guider, torch.zeros(1, 1, 500))
    check_latents(Guider, torch.zeros(1, 4, 2, 8, 8))
    if not REAL:
        with pytest.raises(Refused, match="no noise to sample from"):
            schedule_of(comfy.model_sampling.IMG_TO_IMG("eps"), 1.0)


# ------------------------------------------------------------------------------------------------------------ nodes


def test_inputs_come_from_the_fields(pack):
    nodes = pack.NODE_CLASS_MAPPINGS
    assert len(nodes) == 12 and set(pack.NODE_DISPLAY_NAME_MAPPINGS) == set(nodes)
    for name, title in pack.nodes.OWN_NODES.items():
        kind, told = pb.methods.types()[name], nodes[f"Paintback{title}"].INPUT_TYPES()
        assert told["required"] == {}  # nothing that an older graph could lack
        fields = pack.nodes.fields_of(kind)
        assert list(told["optional"]) == ["policy", *fields]
        defaults = {one: told["optional"][one][1]["default"] for one in fields}
        assert nodes[f"Paintback{title}"]().make(**defaults)[0].method == pb.methods.get(name)
        for one, field in fields.items():
            kind_of, more = told["optional"][one]
            assert more["tooltip"].startswith(field.metadata["help"])
            if kind_of in ("INT", "FLOAT"):
                assert more["min"] <= more["default"] <= more["max"]
            if field.metadata["low"] is not None and field.default is not None:
                assert more["min"] == field.metadata["low"]
    made = nodes["PaintbackLanPaint"]().make(policy="any", inner_steps=2, cfg_big=-1.0, friction=7.0, gone=3)[0]
    assert made.policy == "any" and made.method == pb.methods.get("lanpaint", inner_steps=2, friction=7.0)
    assert nodes["PaintbackLanPaint"]().make(cfg_big=-0.5)[0].method.cfg_big == -0.5
    every = nodes["PaintbackSampler"]().make("lanpaint", "all", "inner_steps=2,\nfriction = 7")[0]
    assert every.method == pb.methods.get("lanpaint", inner_steps=2, friction=7.0)
    assert set(nodes["PaintbackSampler"].INPUT_TYPES()["required"]["method"][0]) == {*pb.methods.names()} - {"aid"}


def test_retired_names_stay_good(pack, monkeypatch):
    node = pack.NODE_CLASS_MAPPINGS["PaintbackSampler"]
    monkeypatch.setitem(pack.nodes.RETIRED, "old-ding", "ding")
    assert node.VALIDATE_INPUTS(method="old-ding") is True
    assert node().make("old-ding", gone=1)[0].method == pb.methods.get("ding")
    assert "There is no method 'dng'" in node.VALIDATE_INPUTS(method="dng")


def test_masks(pack):
    nodes = pack.nodes
    mask = torch.zeros(1, 64, 64)
    mask[0, 20, 5:60] = 1  # a scratch of one pixel, which interpolation to 8 x 8 may lose
    latents = {"samples": torch.zeros(1, 4, 8, 8)}
    made, shown = nodes.LatentMask().put(latents, mask)
    assert shown[0, 2].tolist() == [1.0] * 8 and shown.sum() == 8 and made["noise_mask"].shape == (1, 1, 8, 8)
    assert nodes.LatentMask().put(latents, mask, "majority")[1].sum() == 0
    assert nodes.LatentMask().put(latents, mask, "all", 5)[1].sum() == 24
    clip = {"samples": torch.zeros(1, 4, 3, 8, 8)}
    over = torch.zeros(9, 64, 64)
    over[5, :8, :8] = 1
    made, shown = nodes.LatentMask().put(clip, over)
    assert made["noise_mask"].shape == (1, 1, 3, 8, 8) and shown.sum((1, 2)).tolist() == [0, 0, 1]
    assert nodes.LatentMask().put(clip, mask)[1].shape == (3, 8, 8)
    with pytest.raises(ValueError, match="A mask of 4 frames"):
        nodes.LatentMask().put(clip, over[:4])
    (grown,) = nodes.GrowMask().make(mask, 2, 4)
    assert grown.shape == (4, 64, 64) and grown[0].sum() > 4 * 55
    with pytest.raises(ValueError, match="cannot be made one of 4"):
        nodes.GrowMask().make(over, 0, 4)


@pytest.mark.parametrize("side", [0, 48])
def test_crop_and_stitch_leave_the_rest(pack, side):
    nodes = pack.nodes
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 90, 120, 3, generator=generator)
    mask = torch.zeros(1, 90, 120)
    mask[0, 30:50, 60:75] = 1
    crop, inside, stitch = nodes.Crop().cut(image, mask, 20, 16, side)
    assert all(one % 16 == 0 for one in crop.shape[1:3]) and inside.shape[1:] == crop.shape[1:3]
    assert max(crop.shape[1:3]) == (side or max(crop.shape[1:3]))
    box = stitch["box"]
    hidden = mask[0, box.top : box.bottom, box.left : box.right] > 0
    if not side:  # what is hidden is not in the crop
        original = image[0, box.top : box.bottom, box.left : box.right]
        assert torch.equal(crop[0][~hidden], original[~hidden])
        other = image.clone()
        other[mask > 0] = 0
        assert torch.equal(nodes.Crop().cut(other, mask, 20, 16, 0)[0], crop)
    painted = torch.rand(2, *crop.shape[1:], generator=generator)
    (whole,) = nodes.Stitch().put(stitch, painted)
    assert whole.shape == (2, 90, 120, 3)
    outside = mask[0] == 0
    assert torch.equal(whole[0][outside], image[0][outside]) and torch.equal(whole[1][outside], image[0][outside])
    if not side:
        assert torch.equal(whole[1][~outside], painted[1][hidden])
    assert not torch.equal(whole[0], whole[1])


def test_grid(pack):
    (made,) = pack.nodes.Grid().make(torch.zeros(2, 10, 8, 3), 4, image_3=torch.full((1, 6, 5, 3), 0.5))
    assert made.shape == (1, 10, 8 + 4 + 8 + 4 + 5, 3)
    assert (
        made[0, 5, 24].tolist() == [0.5] * 3
        and made[0, 0, 24].tolist() == [1.0] * 3
        and made[0, 3, 9].tolist() == [1.0] * 3
    )


def test_the_eraser_is_the_inpainter(pack):
    image = torch.rand(1, 40, 48, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 40, 48)
    mask[0, 10:18, 12:20] = 1
    with torch.inference_mode():
        (made,) = pack.nodes.Eraser().paint(image, mask, "photo", "fast", 5, method="ddnm", steps=3, gone=1)
    same = pb.inpaint(
        image[0].numpy(),
        mask[0].numpy() > 0,
        model="photo",
        method="ddnm",
        num_inference_steps=3,
        generator=5,
        output_type="np",
        quality="fast",
    )
    assert np.array_equal(made[0].numpy(), same.images[0])
    assert torch.equal(made[0][mask[0] == 0], image[0][mask[0] == 0])


def test_the_eraser_takes_values_beyond_the_ends(pack):
    """Other nodes leave some; what is not painted comes out as it was given."""
    image = torch.rand(1, 32, 40, 3, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1
    mask = torch.zeros(1, 32, 40)
    mask[0, 10:18, 12:20] = 1
    (made,) = pack.nodes.Eraser().paint(image, mask, "photo", "fast", 5, method="ddnm", steps=1)
    assert torch.equal(made[0][mask[0] == 0], image[0][mask[0] == 0])
    inside = made[0][mask[0] > 0]
    assert float(inside.min()) >= 0 and float(inside.max()) <= 1


def test_what_the_registry_reads():
    import re

    text = (PACK / "pyproject.toml").read_text()
    for wanted in (
        'name = "paintback"',
        'version = "',
        "PublisherId",
        "DisplayName",
        "Repository",
        "license",
        "paintback>=",
    ):
        assert wanted in text
    version = re.search(r'version = "(.*)"', text)
    assert version is not None and version[1] == pb.__version__


# ----------------------------------------------------------------------------------------------------- over HTTP


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not REAL:
        pytest.skip("COMFYUI_PATH names no ComfyUI, so that no graph is posted to one")
    folder = tmp_path_factory.mktemp("comfyui")
    packs = {"paintback": PACK, "tiny": Path(__file__).parent / "tiny_nodes"}
    with realcomfy.server(folder, packs) as made:
        from PIL import Image

        for name in ("object.jpg", "object-mask.png", "scratches.jpg", "scratches-mask.png"):
            with Image.open(ROOT / "paintback" / "examples" / name) as picture:
                picture.resize((192, 128)).save(folder / "input" / Path(name).with_suffix(".png").name)
        yield made


def graph(kind: str, sampler: dict, steps: int = 3) -> dict:
    """A graph that repaints the hole of a picture with the tiny model, as the API takes it."""
    return {
        "1": {"class_type": "TinyModel", "inputs": {"kind": kind}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "object.png"}},
        "3": {"class_type": "LoadImageMask", "inputs": {"image": "object-mask.png", "channel": "red"}},
        "4": {"class_type": "TinyEncode", "inputs": {"image": ["2", 0]}},
        "5": {"class_type": "PaintbackLatentMask", "inputs": {"samples": ["4", 0], "mask": ["3", 0]}},
        "6": sampler,
        "7": {"class_type": "BasicScheduler", "inputs": {
            "model": ["1", 0], "scheduler": "normal", "steps": steps, "denoise": 1.0}},
        "8": {"class_type": "SamplerCustom", "inputs": {
            "model": ["1", 0], "add_noise": True, "noise_seed": 1, "cfg": 2.0, "positive": ["1", 1],
            "negative": ["1", 2], "sampler": ["6", 0], "sigmas": ["7", 0], "latent_image": ["5", 0]}},
        "9": {"class_type": "TinyCheck", "inputs": {"before": ["5", 0], "after": ["8", 0]}},
        "10": {"class_type": "TinyDecode", "inputs": {"samples": ["8", 0]}},
        "11": {"class_type": "PreviewImage", "inputs": {"images": ["10", 0]}},
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_on_every_kind_over_http(server, kind):
    rows = {}
    for name in [one for one in pb.methods.names() if one != "aid"]:
        inputs = {"method": name, "policy": "all", "fields": ""}
        out = server.run(graph(kind, {"class_type": "PaintbackSampler", "inputs": inputs}))
        far, moved, finite = out["9"]["text"]
        rows[name] = (far, moved, finite)
    if "COMFYUI_TABLE" in os.environ:
        path = Path(os.environ["COMFYUI_TABLE"])
        table = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(table | {kind: rows}))
    wrong = {name: row for name, row in rows.items() if row[0] > 1e-4 or not row[2] or row[1] == 0}
    assert not wrong


def test_the_other_nodes_over_http(server):
    out = server.run(graph("flow", {"class_type": "PaintbackDING", "inputs": {"sigma_y": 0.02, "retired": 3}}))
    assert out["9"]["text"][0] < 1e-4
    eraser = {"quality": "fast", "method": "ddnm", "steps": 2, "seed": 1}
    out = server.run({
        "1": {"class_type": "LoadImage", "inputs": {"image": "scratches.png"}},
        "2": {"class_type": "LoadImageMask", "inputs": {"image": "scratches-mask.png", "channel": "red"}},
        "3": {"class_type": "PaintbackGrowMask", "inputs": {"mask": ["2", 0], "grow": 1}},
        "4": {"class_type": "PaintbackCrop", "inputs": {"image": ["1", 0], "mask": ["3", 0], "context": 16}},
        "5": {"class_type": "PaintbackEraser", "inputs": {"image": ["4", 0], "mask": ["4", 1], **eraser}},
        "6": {"class_type": "PaintbackStitch", "inputs": {"stitch": ["4", 2], "image": ["5", 0]}},
        "7": {"class_type": "PaintbackGrid", "inputs": {"image_1": ["1", 0], "image_2": ["6", 0]}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}},
    })  # fmt: skip
    assert len(out["8"]["images"]) == 1


def test_the_workflows_are_as_they_are_made(pack):
    for name, made in workflows.made(pack).items():
        path = PACK / "workflows" / f"{name}.json"
        assert json.loads(path.read_text()) == made, "run `python -m tests.integrations.workflows`"


def test_the_workflows_name_what_there_is(server, pack):
    """Every node, socket and number of widgets is what this ComfyUI has."""
    known = server.get("/object_info")
    for name, made in workflows.made(pack).items():
        for node in made["nodes"]:
            assert node["type"] in known, (name, node["type"])
            told = known[node["type"]]
            names = {**told["input"].get("required", {}), **told["input"].get("optional", {})}
            assert {one["name"] for one in node["inputs"]} <= set(names), (name, node["type"])
            assert len(node["outputs"]) <= len(told["output"]), (name, node["type"])
            assert [one["type"] for one in node["outputs"]] == told["output"][: len(node["outputs"])]
