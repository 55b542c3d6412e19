"""Layer inference: two closed-form textures are told apart, and what holds for any model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import paintback as pb
from paintback.denoiser import Denoiser
from paintback.models.base import Model
from paintback.models.embedded import EmbeddedModel
from paintback.models.unet import UNet, UNetConfig
from paintback.observation import Observation
from paintback.priors import GaussianMixture
from paintback.schedules import VP
from paintback.tasks.layer_inference import LayerInference, Recorded

SIDE = 16
ROWS, COLUMNS = torch.meshgrid(torch.arange(SIDE).double(), torch.arange(SIDE).double(), indexing="ij")
LEFT = COLUMNS < SIDE // 2


def stripes(axis: Tensor) -> Tensor:
    """Covariance of pictures of waves along an axis."""
    covariance = 0.01 * torch.eye(SIDE**2, dtype=torch.float64)
    for period in (4.0, 5.0, 6.5):
        for wave in (torch.cos, torch.sin):
            values = wave(2 * torch.pi * axis / period).flatten()
            covariance += 0.03 * torch.outer(values, values)
    return covariance


def prior(*covariances: Tensor) -> GaussianMixture:
    return GaussianMixture(torch.zeros(len(covariances), SIDE**2, dtype=torch.float64), torch.stack(covariances))


PRIORS = {
    None: prior(stripes(ROWS), stripes(COLUMNS)),
    "rows": prior(stripes(ROWS)),
    "columns": prior(stripes(COLUMNS)),
}


@dataclass(frozen=True)
class Textures(Model):
    """A text-to-image model whose prompts are the two textures."""

    def denoiser(self, prompt=None, negative_prompt=None, guidance_scale=None) -> Denoiser:
        return PRIORS[prompt].denoiser(VP(), shape=(1, SIDE, SIDE))


TEXTURES = Textures("textures", 1, 1, (SIDE, SIDE), SIDE, None, torch.device("cpu"), torch.float64)


def two_textures() -> Tensor:
    """(1, H, W) in [-1, 1]: one texture on the left, the other on the right."""
    one, other = (
        PRIORS[name].sample(1, torch.Generator().manual_seed(k)).reshape(SIDE, SIDE)
        for k, name in enumerate(("rows", "columns"))
    )
    return torch.where(LEFT, one, other)[None].clamp(-1, 1)


def correlation(mask: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((mask.flatten().double(), LEFT.flatten().double())))[0, 1])


def test_the_mask_of_two_textures_is_found() -> None:
    """One mixture for both layers: only the picture and the random first mask tell them apart."""
    denoiser, starts, ends = TEXTURES.denoiser(), [], []
    for seed in range(8):
        method = Recorded()
        result = method.sample(
            denoiser, Observation(two_textures()), 20, torch.Generator().manual_seed(seed), num_samples=2
        )
        assert result.evaluations == method.evaluations(20) == 11 * (20 * 4 + 1) and result.vjps == 0
        starts.append(abs(correlation(method.masks[0])))
        ends.append(abs(correlation(method.masks[-1])))
        assert len(method.masks) == 21
    assert np.mean(ends) > np.mean(starts) + 0.2
    assert sum(end > start for start, end in zip(starts, ends, strict=True)) >= 6


def test_prompts_name_the_layers() -> None:
    picture = (two_textures()[0] / 2 + 0.5).float().numpy()
    for seed in range(3):
        out = pb.layers(
            picture,
            ("rows", "columns"),
            model=TEXTURES,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
            progress_bar=False,
        )
        assert correlation(torch.from_numpy(out.mask)) > 0.5
        assert out.mask.shape == (SIDE, SIDE) and out.mask.dtype == np.float32
        assert out.mask.min() >= 0 and out.mask.max() <= 1
        assert out.layers[0].shape == out.composite.shape == (SIDE, SIDE, 3)
        share = out.mask[..., None]
        mixed = share * out.layers[0] + (1 - share) * out.layers[1]
        assert np.abs(mixed - picture[..., None]).max() < 2e-3
        assert np.abs(out.composite - picture[..., None]).max() < 2e-3
        assert out.residual < 1e-3 < out.sampled_residual < 0.2
        assert out.settings["prompts"] == ["rows", "columns"]


def tiny_model(channels: int = 3, size: int | None = None) -> EmbeddedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(UNetConfig(channels=channels, widths=(8, 8, 8), blocks=1))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    size_pair = None if size is None else (size, size)
    network = network.eval().requires_grad_(False)
    return EmbeddedModel("tiny", channels, 8, size_pair, 16, network, torch.device("cpu"), torch.float32)


def given_picture(height: int, width: int, bands: int = 3) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, bands), np.uint8)
    return Image.fromarray(pixels.squeeze(-1) if bands == 1 else pixels)


def quick(image=None, prompts=(None, None), **options):
    call = {"model": tiny_model(), "num_inference_steps": 2, "inner_steps": 1, "progress_bar": False, **options}
    return pb.layers(given_picture(9, 13) if image is None else image, prompts, **call)


@pytest.mark.parametrize(("height", "width", "bands"), [(1, 1, 3), (9, 13, 3), (16, 8, 1), (5, 20, 4)])
def test_sizes_types_and_seeds(height: int, width: int, bands: int) -> None:
    image = given_picture(height, width, bands)
    out = quick(image, generator=torch.Generator().manual_seed(3))
    for page in (*out.layers, out.composite):
        assert page.size == image.size and page.mode == ("L" if bands == 1 else "RGB")
    assert out.mask.shape == (height, width)
    assert np.abs(np.asarray(out.composite).astype(int) - np.asarray(image.convert(out.composite.mode))).max() <= 1
    assert out.evaluations == LayerInference(inner_steps=1).evaluations(2) == 3 * (2 * 4 + 1)
    again = quick(image, generator=torch.Generator().manual_seed(out.seed))
    assert (again.mask == out.mask).all() and out.seed == 3
    other = quick(image)
    repeated = quick(image, generator=torch.Generator().manual_seed(other.seed))
    assert (repeated.mask == other.mask).all()


def test_the_run_can_be_stopped_and_touches_no_global_state() -> None:
    before, seen = torch.random.get_rng_state(), []
    out = quick(num_inference_steps=9, callback=lambda *a: seen.append(a[2].shape) or len(seen) == 2)
    assert out.stopped and seen == [(2, 3, 16, 16)] * 2
    assert torch.equal(before, torch.random.get_rng_state())
    fixed = tiny_model(channels=1, size=32)
    assert quick(given_picture(28, 20, 1), model=fixed, output_type="picture").layers[0].pixels.shape == (28, 20, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ("a cat", None)}, "prompt"),
        ({"prompts": "a cat"}, "two"),
        ({"prompts": ("a", "b", "c")}, "two"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"samples": 1}, "samples"),
        ({"ema": 1.5}, "ema"),
        ({"floor": 0.0}, "floor"),
        ({"edge": 0.5}, "edge"),
        ({"generator": [torch.Generator()]}, "one generator"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"image": "nowhere.png"}, "nowhere.png"),
        ({"model": tiny_model(channels=1, size=8), "image": given_picture(9, 9, 1)}, "8 x 8"),
        ({"model": tiny_model(channels=1)}, "grey"),
    ],
)
def test_bad_input_is_one_clear_sentence(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        quick(**change)
    assert "\n" not in str(caught.value)
