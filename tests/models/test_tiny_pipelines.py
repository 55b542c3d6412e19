"""The tiny pipelines are what tests of adapters take them for: repeatable, lively in every input, and whole on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.models.tiny_pipelines import (
    FRAMES,
    LOADING,
    NAMES,
    PIXEL,
    TRAINED,
    UNCONDITIONAL,
    VIDEO,
    build,
    call_arguments,
    denoiser,
    folder,
    load,
    small_references,
)

CONDITIONS = (
    "encoder_hidden_states",
    "pooled_projections",
    "added_cond_kwargs",
    "encoder_hidden_states_t5",
    "encoder_hidden_states_llama3",
    "pooled_embeds",
)
MULTIPLES = {"ldm": 4, "sana": 2, "wan22_ti2v": 16, "ltx": 32}  # of the VAE; 8 where no other is said


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_references(monkeypatch.setattr)


class SeenError(Exception):
    """Ends a pipeline's call as soon as its denoiser has been called."""


def first_call(pipe: Any, arguments: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the pipeline gives its denoiser first."""
    seen: list[Any] = []

    def look(network: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.extend((positional, named))
        raise SeenError

    handle = denoiser(pipe).register_forward_pre_hook(look, with_kwargs=True)
    with pytest.raises(SeenError):
        pipe(**arguments)
    handle.remove()
    return seen[0], seen[1]


def answer(network: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        out = network(*positional, **{**named, "return_dict": False})[0]
    return torch.stack(list(out)) if isinstance(out, (list, tuple)) else out


def networks(pipe: Any) -> dict[str, nn.Module]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


def same_weights(left: Any, right: Any) -> bool:
    ours, theirs = networks(left), networks(right)
    return ours.keys() == theirs.keys() and all(
        mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)
        for mine, other in ((ours[name].state_dict(), theirs[name].state_dict()) for name in ours)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_build_repeats_and_leaves_the_random_state(name: str) -> None:
    before = torch.random.get_rng_state()
    first, second = build(name), build(name)
    assert torch.equal(before, torch.random.get_rng_state())
    assert same_weights(first, second)
    size = sum(weight.numel() for part in networks(first).values() for weight in part.parameters())
    assert 2.5e5 < size < 1.5e6
    for part in networks(first).values():
        assert not part.training
        assert all(weight.isfinite().all() and weight.any() for weight in part.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_gives_the_same_pipeline(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = folder(name, tmp_path_factory)
    built, loaded = build(name), load(path, name)
    assert folder(name, tmp_path_factory) == path
    assert type(loaded) is type(built)
    assert same_weights(built, loaded)
    pictures = []
    for pipe in (built, loaded):
        torch.manual_seed(0)  # the ControlNet's pipeline encodes the picture without the generator
        pictures.append(np.asarray(pipe(**call_arguments(name))[0]))
    assert np.isfinite(pictures[0]).all()
    np.testing.assert_allclose(pictures[0], pictures[1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_denoiser_depends_on_all_it_is_given(name: str) -> None:
    pipe = build(name)
    network = denoiser(pipe)
    positional, named = first_call(pipe, call_arguments(name))
    out = answer(network, positional, named)
    assert 0.5 < out.std() < 2

    def change(*changed: Any, **more: Any) -> float:
        return float((answer(network, (*changed, *positional[len(changed) :]), named | more) - out).norm() / out.norm())

    by_name = "hidden_states" in named
    clock = next((key for key in named if key.startswith("timestep") and named[key] is not None), "")
    latent = named["hidden_states"] if by_name else positional[0]
    time = named[clock] if clock else positional[1]
    fainter = [part / 2 for part in latent] if isinstance(latent, list) else latent / 2
    later = time / 2 if time.max() > 0 else time + 0.5  # Z-Image begins at 0
    assert (change(hidden_states=fainter) if by_name else change(fainter)) > 0.05
    assert (change(**{clock: later}) if clock else change(latent, later)) > 0.05

    if name in UNCONDITIONAL:
        return
    other_positional, other = first_call(pipe, call_arguments(name, prompt="blue seas"))  # as many bytes
    conditions = [key for key in CONDITIONS if named.get(key) is not None]
    if name == "pixart_sigma":
        conditions.remove("added_cond_kwargs")  # a size, which this network does not ask for
    least = 0.02 if name == "aura_flow" else 0.05  # most of its 256 words are padding, which is zero
    places = {"text_rope_pos": other["text_rope_pos"]} if "text_rope_pos" in named else {}  # as many as there are words
    for key in conditions:
        assert change(**{key: other[key]}, **(places if key == "encoder_hidden_states" else {})) > least, key
    if not conditions:
        assert name == "z_image"
        assert change(*positional[:2], other_positional[2]) > 0.05


@pytest.mark.parametrize("name", TRAINED)
def test_inpainting_networks_see_the_mask(name: str) -> None:
    pipe = build(name)
    key = "control_mask" if name == "sd3_controlnet_inpaint" else "mask_image"
    answers = []
    for mask in (call_arguments(name)[key], Image.new("L", (64, 64), 255)):
        torch.manual_seed(0)
        answers.append(answer(denoiser(pipe), *first_call(pipe, call_arguments(name, **{key: mask}))))
    assert (answers[0] - answers[1]).norm() / answers[0].norm() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in PIXEL])
def test_latents_and_pictures_have_a_trained_vaes_size(name: str) -> None:
    from diffusers import AutoencoderKLQwenImage

    pipe = build(name)
    vae = getattr(pipe, "vae", None) or pipe.vqvae
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((2, 3, 8, 8), generator=generator)
    picture = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").mul(0.5).clamp(-1, 1)
    if name in VIDEO:
        picture = picture[:, :, None].repeat(1, 1, FRAMES.get(name, 5), 1, 1)
    elif isinstance(vae, AutoencoderKLQwenImage):
        picture = picture[:, :, None]
    with torch.no_grad():
        encoded = vae.encode(picture)
        latent = next(getattr(encoded, key) for key in ("latents", "latent", "latent_dist") if hasattr(encoded, key))
        latent = latent if isinstance(latent, Tensor) else latent.mode()
        mean, std = _shift_and_scale(vae)
        noise = torch.randn(latent.shape, generator=generator)
        decoded = vae.decode(noise * std + mean).sample
    multiple = MULTIPLES.get(name, 8)
    assert latent.shape[-2:] == (64 // multiple, 64 // multiple)
    assert latent.shape[2:-2] == ((2,) if name in VIDEO else (1,) if picture.ndim == 5 else ())
    assert decoded.shape == picture.shape
    assert 0.5 < ((latent - mean) / std).std() < 1.5
    assert 0.25 < decoded.std() < 0.6
    assert (decoded.abs() >= 1).float().mean() < 0.11


def _shift_and_scale(vae: nn.Module) -> tuple[Tensor, Tensor]:
    config = vae.config
    if hasattr(vae, "bn"):  # FLUX.2 normalises after it has made patches; all of its channels are of one size here
        return torch.tensor(0.0), vae.bn.running_var.mean().sqrt()
    if getattr(config, "latents_std", None) is not None:
        return tuple(torch.tensor(values).reshape(-1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))
    if "latents_std" in dict(vae.named_buffers()):  # of LTX
        return tuple(values.reshape(-1, 1, 1, 1) for values in (vae.latents_mean, vae.latents_std))
    return torch.tensor(getattr(config, "shift_factor", None) or 0.0), torch.tensor(1 / config.scaling_factor)


def test_a_folder_without_t5_says_so_unless_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    from diffusers import DiffusionPipeline

    path: Path = folder("sd3_no_t5", tmp_path_factory)
    with pytest.raises(ValueError, match="expected"):
        DiffusionPipeline.from_pretrained(path)
    assert DiffusionPipeline.from_pretrained(path, **LOADING["sd3_no_t5"]).text_encoder_3 is None


@pytest.mark.parametrize("name", ["qwen_image", "qwen_image_edit", "qwen_image_edit_plus"])
def test_qwen_images_template_is_cut_at_the_prompt(name: str) -> None:
    pipe = build(name)
    head = pipe.prompt_template_encode.split("{}")[0].split("<|vision_start|>")[0]
    assert len(pipe.tokenizer(head).input_ids) == pipe.prompt_template_encode_start_idx
