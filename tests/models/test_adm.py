"""ADM against azula's port of guided diffusion, and what is read off a checkpoint's shapes."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from paintback.models import adm
from paintback.schedules import VP
from tests.models import research_reference as reference

CPU = torch.device("cpu")
EXPECTED = load_file(reference.PLACE)


def model(name="plain", dtype=torch.float32, **more):
    fields = {**reference.ADM[name], **more}
    return adm.make_model(fields, state(fields), name=name, device=CPU, dtype=dtype)


def state(fields):
    with torch.device("meta"):
        network = adm.Adm(adm.make_config(fields))
    return reference.state_for(network)


@pytest.mark.parametrize("name", reference.ADM)
def test_the_network_and_its_x0_equal_azulas(name):
    loaded = model(name)
    x, labels = reference.inputs(name, (3, 16, 16), loaded.network.config.classes)
    denoiser = adm.AdmDenoiser(loaded.network, condition=labels)
    worst = {"raw": 0.0, "x0": 0.0}
    for step in reference.STEPS:
        raw = loaded.network(x, torch.full((2,), float(step)), labels)
        seen = denoiser(x, (step + 1) / 1000)
        for found, kind in ((raw, "raw"), (seen.x0, "x0")):
            expected = EXPECTED[f"adm/{name}/{step}/{kind}"]
            worst[kind] = max(worst[kind], float((reference.thin(found) - expected).abs().max()))
        time = denoiser.schedule.at((step + 1) / 1000)
        torch.testing.assert_close(time.alpha * seen.x0 + time.sigma * seen.x1, x, atol=1e-5, rtol=1e-5)
    print(f"ADM {name}: largest error {worst['raw']:.1e} (raw), {worst['x0']:.1e} (x0)")
    assert max(worst.values()) < 2e-5


@pytest.mark.parametrize("name", reference.ADM)
def test_the_configuration_is_read_off_the_weights(name):
    config = adm.make_config(reference.ADM[name])
    unseen = ("size", "heads", "head_channels", "new_attention_order", "betas", "steps")
    assert adm.infer_config(state(reference.ADM[name]), {key: getattr(config, key) for key in unseen}) == config


# In millions of weights, from table 4 of the paper for those with classes.
PUBLISHED = {
    64: (296, {"width": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (1, 2, 3), "classes": 1000}),
    128: (422, {"width": 256, "multipliers": (1, 1, 2, 3, 4), "blocks": 2, "attention": (2, 3, 4), "classes": 1000}),
    256: (554, {"width": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (3, 4, 5), "classes": 1000}),
    512: (
        559,
        {"width": 256, "multipliers": (0.5, 1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (4, 5, 6), "classes": 1000},
    ),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_checkpoints_are_known_by_their_shapes(size):
    millions, fields = PUBLISHED[size]
    with torch.device("meta"):
        network = adm.Adm(adm.make_config({"size": size, **fields}))
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions
    config = adm.infer_config(network.state_dict())
    assert (config.size, config.classes, config.out_channels) == (size, 1000, 6)
    assert (config.betas, config.new_attention_order) == (("cosine", True) if size == 64 else ("linear", False))
    assert [config.heads_of(c) for c in (512, 1024)] == ([4, 4] if size == 128 else [8, 16])


def test_the_ffhq_network_is_known_by_its_shapes():
    fields = {"size": 256, "width": 128, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 1, "attention": (4,)}
    with torch.device("meta"):
        network = adm.Adm(adm.make_config(fields))
    assert adm.infer_config(network.state_dict()) == adm.make_config(fields)


def test_what_is_no_adm_is_refused_in_one_sentence():
    good = state(reference.ADM["plain"])
    with pytest.raises(ValueError, match="none of the published ones; say its size"):
        adm.infer_config(good)
    with pytest.raises(ValueError, match="no weights of an ADM"):
        adm.infer_config({"weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="takes 6 channels"):
        adm.infer_config({**good, "input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)})
    with pytest.raises(ValueError, match="input_blocks"):
        adm.infer_config({key: value for key, value in good.items() if not key.startswith("input_blocks.1.")})
    with pytest.raises(ValueError, match="have no colour"):
        adm.infer_config(good, {"size": 16, "colour": 1})
    with pytest.raises(ValueError, match="lacks size"):
        adm.infer_config(good, {})
    with pytest.raises(ValueError, match="also hold extra"):
        adm.make_model(reference.ADM["plain"], {**good, "extra": good["out.2.bias"]}, name="x", device=CPU, dtype=None)


def test_classes_are_numbers_and_nothing_else():
    loaded = model("classes")
    for prompt in ("class 3", " 3 ", "Class 3", 3):
        assert loaded.denoiser(prompt).condition.argmax().item() == 3
    for prompt, text in ((None, "say which one"), ("a dog", "reads no text"), (5, "0 to 4"), ("class -1", "no text")):
        with pytest.raises(ValueError, match=text):
            loaded.denoiser(prompt)
    with pytest.raises(ValueError, match="negative_prompt"):
        loaded.denoiser(3, "class 2")
    with pytest.raises(ValueError, match="no classifier-free guidance"):
        loaded.denoiser(3, guidance_scale=4.0)
    with pytest.raises(ValueError, match="no prompt"):
        model().denoiser("class 3")


def test_schedules_and_the_attributes_of_the_model():
    loaded = model("plain")
    assert (loaded.size, loaded.training_size, loaded.channels, loaded.multiple) == ((16, 16), 16, 3, 2)
    denoiser = loaded.denoiser()
    assert isinstance(denoiser.schedule, VP)
    assert denoiser.shape == (3, 16, 16)
    assert math.isclose(denoiser.schedule.at(1.0).alpha, 0.00635, rel_tol=1e-2)
    # as many levels, the same integral of the betas
    stretched = model("plain", steps=4000).denoiser()
    assert math.isclose(stretched.schedule.at(1.0).alpha, denoiser.schedule.at(1.0).alpha, rel_tol=0.05)


@pytest.mark.parametrize("name", ["plain", "classes"])
def test_x0_stays_in_range_at_the_noisy_end(name):
    loaded = model(name)
    x, labels = reference.inputs(name, (3, 16, 16), loaded.network.config.classes)
    seen = adm.AdmDenoiser(loaded.network, condition=labels)(x, 1.0)
    assert seen.x0.abs().max() <= 1
    assert seen.x1.isfinite().all()
    assert adm.AdmDenoiser(loaded.network, condition=labels, clip=False)(x, 1.0).x0.abs().max() > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(dtype):
    x, labels = reference.inputs("classes", (3, 16, 16), 5)
    exact, rough = (
        adm.AdmDenoiser(model("classes", kind).network, dtype=kind, condition=labels)(x, 0.4).x0
        for kind in (torch.float32, dtype)
    )
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().max() < (0.002 if dtype == torch.float16 else 0.02)


def test_gradients_reach_the_state_and_the_class():
    loaded = model("classes")
    x, labels = reference.inputs("classes", (3, 16, 16), 5)
    x, labels = x.requires_grad_(), labels.requires_grad_()
    adm.AdmDenoiser(loaded.network, condition=labels, clip=False)(x, 0.5).x0.square().sum().backward()
    assert x.grad.abs().max() > 0
    assert labels.grad.abs().max() > 0
