"""EDM's networks and preconditionings against NVIDIA's Modulus."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from paintback.models import edm
from paintback.schedules import Time
from tests.models import research_reference as reference

CPU = torch.device("cpu")
EXPECTED = load_file(reference.PLACE)


def state(name, **more):
    network = edm.Edm(edm.make_config({**reference.EDM[name], **more}))  # not on meta: its filters are wanted
    found = reference.state_for(network)
    return {**found, "u": EXPECTED[f"edm/{name}/u"]} if "u" in found else found


def model(name, dtype=torch.float32, **more):
    return edm.make_model({**reference.EDM[name], **more}, state(name), name=name, device=CPU, dtype=dtype)


@pytest.mark.parametrize("name", reference.EDM)
def test_the_denoiser_equals_modulus(name):
    loaded = model(name)
    x, labels = reference.inputs(name, (3, 16, 16), loaded.classes)
    denoiser = loaded.denoiser(0 if loaded.classes else None)
    if labels is not None:
        denoiser = denoiser.with_condition(labels)
    worst = 0.0
    for sigma in reference.SIGMAS:
        seen = denoiser(x * sigma, Time(0.5, 1.0, sigma))
        expected = EXPECTED[f"edm/{name}/{sigma}"]
        error = float((reference.thin(seen.x0) - expected).abs().max() / expected.abs().max().clamp(min=1))
        worst = max(worst, error)
        torch.testing.assert_close(seen.x0 + sigma * seen.x1, x * sigma, atol=1e-5, rtol=1e-5)
    print(f"EDM {name}: largest error {worst:.1e}")
    assert worst < 1e-5


# In millions of weights, from the paper's table of architectures.
PUBLISHED = [
    (56, {"img_resolution": 32, "channel_mult": (2, 2, 2), "augment_dim": 9}),
    (62, {"img_resolution": 64, "augment_dim": 9}),
    (
        63,
        {
            "img_resolution": 64, "augment_dim": 9, "embedding_type": "fourier", "channel_mult_noise": 2,
            "encoder_type": "residual", "resample_filter": (1, 3, 3, 1),
        },
    ),
    (296, {"img_resolution": 64, "dhariwal": True, "label_dim": 1000}),
]  # fmt: skip


@pytest.mark.parametrize(("millions", "fields"), PUBLISHED)
def test_published_networks_have_their_number_of_weights(millions, fields):
    with torch.device("meta"):
        network = edm.Edm(edm.make_config(fields))
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


def test_attributes_of_the_model_and_its_time():
    loaded = model("ncsnpp")
    assert (loaded.size, loaded.training_size, loaded.channels, loaded.multiple) == ((16, 16), 16, 3, 2)
    x, _ = reference.inputs("ncsnpp", (3, 16, 16), 0)
    clean = loaded.denoiser()(x, 0.0)
    assert torch.equal(clean.x0, x)
    assert loaded.denoiser()(x, 1.0).x0.isfinite().all()


def test_guidance_is_there_only_where_labels_were_dropped_in_training():
    with pytest.raises(ValueError, match="never trained without a class"):
        model("adm").denoiser(2, guidance_scale=2.0)
    with pytest.raises(ValueError, match="say which one"):
        model("adm").denoiser()
    loaded = model("adm", label_dropout=0.1)
    x, _ = reference.inputs("adm", (3, 16, 16), 0)
    guided, plain, without = (
        loaded.denoiser(prompt, guidance_scale=scale)(x, 0.5) for prompt, scale in ((2, 3.0), (2, None), (None, None))
    )
    torch.testing.assert_close(guided.x0, without.x0 + 3 * (plain.x0 - without.x0), atol=1e-5, rtol=1e-5)
    assert guided.rows == 4


@pytest.mark.parametrize("name", ["ncsnpp", "adm"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(name, dtype):
    x, _ = reference.inputs(name, (3, 16, 16), 0)
    prompt = 1 if name == "adm" else None
    exact, rough = (model(name, kind).denoiser(prompt)(x, 0.5).x0 for kind in (torch.float32, dtype))
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().max() < (0.003 if dtype == torch.float16 else 0.03)


def test_wrong_configurations_are_one_sentence():
    for fields, text in (
        ({}, "lacks img_resolution"),
        ({"img_resolution": 16, "depth": 3}, "no depth"),
        ({"img_resolution": 16, "preconditioning": "v"}, "edm or vp or ve or iddpm is expected"),
    ):
        with pytest.raises(ValueError, match=text):
            edm.make_config(fields)
    lacking = state("ddpmpp")
    lacking.pop("model.map_layer0.bias")
    with pytest.raises(ValueError, match=r"lack model\.map_layer0\.bias"):
        edm.make_model(reference.EDM["ddpmpp"], lacking, name="x", device=CPU, dtype=torch.float32)
    with pytest.raises(ValueError, match="of another shape"):
        edm.make_model({**reference.EDM["ddpmpp"], "label_dim": 6}, state("ddpmpp"), name="x", device=CPU, dtype=None)
