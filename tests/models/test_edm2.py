"""EDM2's network and blocks against denoising-diffusion-pytorch, its preconditioning, and its latents."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from paintback.models import checkpoints, edm2, edm2_vae, load
from paintback.models.edm import EdmModel
from paintback.schedules import Time
from paintback.tasks.inpaint import Inpainter
from tests.models import research_reference as reference

CPU = torch.device("cpu")
EXPECTED = load_file(reference.PLACE)
PIXELS = {**reference.EDM2, "img_channels": 3, "attn_resolutions": (4,), "channels_per_head": 16}
LATENTS = {**reference.EDM2, "img_resolution": 8, "channel_mult": (1, 2), "channels_per_head": 16}


def state(fields):
    with torch.device("meta"):
        network = edm2.Edm2(edm2.make_config(fields))
    return reference.state_for(network)


def frozen(module, prefix=""):
    module.load_state_dict(
        {k: reference.weights(f"{prefix}{k}", tuple(v.shape)) for k, v in module.state_dict().items()}
    )
    for layer in module.modules():
        if isinstance(layer, edm2._Conv):
            layer.freeze()
    return module.requires_grad_(False)


def difference(found, expected):
    return float((reference.thin(found) - expected).abs().max())


def test_the_network_equals_another_implementation():
    network = frozen(edm2.Edm2(edm2.make_config(reference.EDM2)))
    x, labels = reference.inputs("edm2", (4, 16, 16), 5)
    error = difference(network.unet(x, torch.tensor([-1.0, 0.7]), labels), EXPECTED["edm2/network"])
    print(f"EDM2 network: largest error {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize("name", reference.EDM2_BLOCKS)
def test_the_blocks_equal_another_implementation(name):
    fields = reference.EDM2_BLOCKS[name]
    config = edm2.make_config({**reference.EDM2, "channels_per_head": 32})
    block = frozen(edm2._Block(32, 64, 128, config, down=fields["encoder"], **fields), f"{name}.")
    x, _ = reference.inputs(name, (32, 8, 8), 0)
    found = block(x, reference.weights(f"embedding of {name}", (2, 128)) * 128**0.5)
    error = difference(found, EXPECTED[f"edm2/{name}"])
    print(f"EDM2 {name}: largest error {error:.1e}")
    assert error < 1e-5


def test_the_denoiser_is_edms_preconditioning_of_the_network():
    loaded = edm2.make_model(PIXELS, state(PIXELS), name="x", device=CPU, dtype=torch.float32)
    assert isinstance(loaded, EdmModel)
    assert (loaded.size, loaded.training_size, loaded.channels, loaded.multiple) == ((16, 16), 16, 3, 4)
    x, labels = reference.inputs("x", (3, 16, 16), 5)
    denoiser = loaded.denoiser("class 1").with_condition(labels)
    for sigma in reference.SIGMAS:
        total = math.hypot(sigma, 0.5)
        raw = loaded.network.unet(x * sigma / total, torch.full((2,), math.log(sigma) / 4), labels)
        expected = x * sigma * 0.25 / total**2 + raw * sigma * 0.5 / total
        torch.testing.assert_close(denoiser(x * sigma, Time(0.5, 1.0, sigma)).x0, expected, atol=1e-5, rtol=1e-5)


def test_magnitudes_are_preserved():
    generator = torch.Generator().manual_seed(0)
    config = edm2.make_config({"img_resolution": 16, "img_channels": 3, "model_channels": 64})
    block = edm2._Block(64, 64, 64, config, encoder=False, attention=True)
    for name, value in block.named_parameters():
        value.data = torch.zeros(()) if name == "emb_gain" else torch.randn(value.shape, generator=generator) * 3
    for layer in block.modules():
        if isinstance(layer, edm2._Conv):
            layer.freeze()
    x, embedding = torch.randn(4, 64, 16, 16, generator=generator), torch.randn(4, 64, generator=generator)
    with torch.no_grad():
        assert abs(block(x, embedding).std() - 1) < 0.2


# In millions of weights, from table 2 of the paper (latents of 512-pixel pictures).
@pytest.mark.parametrize(
    ("width", "millions"), [(128, 125), (192, 280), (256, 498), (320, 777), (384, 1119), (448, 1523)]
)
def test_published_networks_have_their_number_of_weights(width, millions):
    fields = {"img_resolution": 64, "img_channels": 4, "label_dim": 1000, "model_channels": width}
    with torch.device("meta"):
        network = edm2.Edm2(edm2.make_config(fields))
    assert abs(sum(p.numel() for p in network.parameters()) / 1e6 - millions) < 1


def save_tiny_vae(folder):
    """Writes a tiny VAE with Stable Diffusion's layout."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
        )
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """The folder of a tiny VAE."""
    return save_tiny_vae(tmp_path_factory.mktemp("models") / "vae")


def test_latents_are_normalised_as_edm2_has_it(vae):
    network = edm2_vae.load_vae(vae, device=CPU, dtype=torch.float32)
    config = edm2.make_config(LATENTS)
    codec = edm2_vae.Edm2Codec(network, config.latent_scale, config.latent_bias)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = network.encode(picture).latent_dist.mean
    mean = torch.tensor([5.81, 3.25, 0.12, -2.15])[:, None, None]
    std = torch.tensor([4.17, 4.62, 3.71, 3.28])[:, None, None]
    torch.testing.assert_close(codec.encode(picture), (z - mean) / std * 0.5, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codec.decode(codec.encode(picture)), network.decode(z).sample, atol=1e-4, rtol=1e-4)
    assert codec.shape((64, 64)) == (4, 8, 8)


def test_a_latent_model_paints_with_the_vae_beside_it(vae):
    found = checkpoints.Checkpoint("edm2", checkpoints._json(edm2.make_config(LATENTS)), state(LATENTS))
    path = vae.parent / "latent.safetensors"
    checkpoints.write_checkpoint(found, path)
    loaded = load(path)
    assert isinstance(loaded, edm2.Edm2LatentModel)
    assert (loaded.training_size, loaded.multiple) == (64, 16)
    assert loaded.denoiser(2, size=(64, 96)).shape == (4, 8, 12)
    with pytest.raises(ValueError, match="no prompt_embeds"):
        loaded.denoiser(2, prompt_embeds=torch.zeros(1))
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    hole = torch.zeros(64, 64)
    hole[16:48, 16:48] = 1
    out = Inpainter(loaded)(
        image=picture,
        mask_image=hole.numpy(),
        prompt="class 2",
        method="replacement",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    )
    assert out.images.shape == (1, 3, 64, 64)
    known = hole == 0
    torch.testing.assert_close(out.images[0][:, known], picture[:, known], atol=0.5 / 255 + 1e-6, rtol=0)


def test_a_latent_model_without_its_vae_says_what_to_do(tmp_path):
    found = checkpoints.Checkpoint("edm2", checkpoints._json(edm2.make_config(LATENTS)), state(LATENTS))
    checkpoints.write_checkpoint(found, tmp_path / "latent.safetensors")
    with pytest.raises(ValueError, match="put the folder of a diffusers AutoencoderKL"):
        load(tmp_path / "latent.safetensors")
    broken = tmp_path / "vae"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="does not hold an AutoencoderKL"):
        load(tmp_path / "latent.safetensors")
    save_file({}, broken / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="copy them again"):
        load(tmp_path / "latent.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(dtype):
    x, _ = reference.inputs("x", (3, 16, 16), 5)
    exact, rough = (
        edm2.make_model(PIXELS, state(PIXELS), name="x", device=CPU, dtype=kind).denoiser(1)(x, 0.5).x0
        for kind in (torch.float32, dtype)
    )
    assert (exact - rough).abs().max() < (0.005 if dtype == torch.float16 else 0.05)


def test_wrong_configurations_are_one_sentence():
    for fields, text in (
        ({"img_resolution": 16}, "lacks img_channels"),
        ({"img_resolution": 16, "img_channels": 5}, "3 channels"),
        ({"img_resolution": 16, "img_channels": 3, "depth": 3}, "no depth"),
    ):
        with pytest.raises(ValueError, match=text):
            edm2.make_config(fields)
