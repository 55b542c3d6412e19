"""Super-resolution: sizes, colours and cost on a tiny random network, correctness on Gaussian pictures."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

import paintback as pb
from paintback.denoiser import Denoiser
from paintback.models.base import Model
from paintback.models.embedded import EmbeddedModel
from paintback.models.tiles import TiledDenoiser
from paintback.models.unet import UNet, UNetConfig
from paintback.observation import AveragePool, Bicubic, Observation
from paintback.priors import GaussianMixture
from paintback.schedules import VP
from paintback.tasks.superres import Downsampling


def tiny_model(channels: int = 3, size: int | None = None) -> EmbeddedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(UNetConfig(channels=channels, widths=(8, 8, 8), blocks=1))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return EmbeddedModel(
        name="tiny",
        channels=channels,
        multiple=8,
        size=None if size is None else (size, size),
        training_size=16,
        network=network.eval().requires_grad_(False),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


@dataclass(frozen=True)
class Closed(Model):
    """A closed-form prior of grey pictures as a model."""

    prior: GaussianMixture | None = None

    def denoiser(self, prompt=None, negative_prompt=None, guidance_scale=None) -> Denoiser:
        assert self.prior is not None and self.size is not None
        return self.prior.denoiser(VP(), shape=(1, *self.size))


def closed(side: int = 8, length: float = 2.0) -> Closed:
    """Smooth Gaussian pictures of standard deviation .2 about mid grey, so that no value is clipped."""
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side)).double()
    covariance = 0.04 * torch.exp(-(torch.cdist(place, place) ** 2) / (2 * length**2))
    covariance += 4e-4 * torch.eye(side**2)
    prior = GaussianMixture(torch.zeros(1, side**2, dtype=torch.float64), covariance[None])
    cpu = torch.device("cpu")
    return Closed("gauss", 1, 1, (side, side), side, None, cpu, torch.float64, prior)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def given_picture(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    bands = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)
    return Image.fromarray(pixels.squeeze(-1) if bands == 1 else pixels)


def quick(image, scale, **options):
    call = {"model": tiny_model(), "method": "ddnm", "num_inference_steps": 2, "progress_bar": False, **options}
    return pb.superres(image, scale, **call)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize(("height", "width", "scale"), [(1, 1, 2), (5, 7, 3), (13, 4, 5), (9, 6, 8)])
def test_sizes_and_modes(mode: str, height: int, width: int, scale: int) -> None:
    out = quick(given_picture(height, width, mode), scale, generator=seeded(0))
    (made,) = out.images
    assert (made.size, made.mode) == ((width * scale, height * scale), mode)
    assert len(out.residuals) == 1 and out.residuals[0] >= 0
    assert out.sampled_residuals[0] < 1e-5  # ddnm's samples agree by construction


def test_alpha_profile_and_depth_are_kept() -> None:
    before = pb.images.Picture(
        np.full((4, 6, 3), 30000, np.uint16), np.linspace(0, 65535, 24).reshape(4, 6).astype(np.uint16), b"profile"
    )
    (made,) = quick(before, 2, output_type="picture").images
    assert made.pixels.shape == (8, 12, 3) and made.pixels.dtype == np.uint16 and made.icc == b"profile"
    assert made.alpha.dtype == np.uint16
    assert np.corrcoef(made.alpha[::2, ::2].ravel(), before.alpha.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_downsampling_is_the_operator_in_a_window(kernel: str) -> None:
    operator = Downsampling(kernel, 3, (4, 5), (16, 24))
    x = torch.randn(2, 3, 16, 24, generator=seeded(0)[0], dtype=torch.float64)
    y = torch.randn(2, 3, 4, 5, generator=seeded(1)[0], dtype=torch.float64)
    plain = Bicubic(3, 12, 15) if kernel == "bicubic" else AveragePool(3)
    assert torch.allclose(operator(x), plain(x[..., :12, :15]))
    assert torch.allclose((operator(x) * y).sum(), (x * operator.transpose(y)).sum())
    assert torch.allclose(operator(operator.pseudo_inverse(y)), y)
    assert torch.allclose(operator.pseudo_inverse(y)[..., :12, :15], plain.pseudo_inverse(y))
    assert (operator.pseudo_inverse(y)[..., 12:, :] == 0).all()
    with pytest.raises(ValueError, match="24 x 16"):
        operator(x[..., :12, :15])


def test_bicubic_is_pillows() -> None:
    large = np.random.default_rng(0).random((32, 48)).astype(np.float32)
    small = np.asarray(Image.fromarray(large).resize((12, 8), Image.Resampling.BICUBIC))
    ours = Downsampling("bicubic", 4, (8, 12), (32, 48))(torch.from_numpy(large))
    assert np.abs(ours.numpy() - small).max() < 1e-5


def test_samples_of_mmps_have_the_exact_posterior_mean() -> None:
    model = closed()
    truth = model.prior.sample(1, seeded(3)[0]).reshape(8, 8)
    operator = Downsampling("bicubic", 2, (4, 4), (8, 8))
    y, sigma = operator(truth) + 0.04 * torch.randn(4, 4, generator=seeded(4)[0], dtype=torch.float64), 0.04
    exact = model.prior.posterior(Observation(y[None], sigma=sigma, operator=operator))
    out = pb.superres(
        (y / 2 + 0.5).float().numpy(),
        2,
        model=model,
        method=pb.methods.get("mmps", iterations=12),
        num_inference_steps=60,
        num_images_per_prompt=400,
        generator=seeded(5)[0],
        sigma=sigma / 2,
        output_type="np",
        progress_bar=False,
    )
    samples = torch.from_numpy(out.images[..., 0]).double().flatten(1) * 2 - 1
    error = samples.mean(0) - exact.mean()
    prior_error = exact.mean().norm()
    assert error.norm() < 0.1 * prior_error
    spread = exact.covariance().diagonal().mean().sqrt()
    # the last look is a mean and no sample: some of the spread is missing at any finite number of steps
    assert 0.5 * spread < samples.std(0).mean() < 1.1 * spread


def test_fcs_lowers_the_error_of_the_observation() -> None:
    model = closed(12, length=1.5)
    vectors, values = model.prior.vectors[0], model.prior.values[0]
    root = vectors * values.sqrt() @ vectors.T  # the same picture whatever eigenvectors this machine's LAPACK chooses
    truth = (root @ torch.randn(144, generator=seeded(1)[0], dtype=torch.float64)).reshape(12, 12)
    y = Downsampling("bicubic", 3, (4, 4), (12, 12))(truth)
    image = (y / 2 + 0.5).float().numpy()
    call = {"model": model, "num_images_per_prompt": 4, "output_type": "np", "progress_bar": False}
    blind = pb.superres(image, 3, method=pb.methods.get("fcs", inner_steps=0), generator=seeded(1, 2, 3, 4), **call)
    guided = pb.superres(image, 3, generator=seeded(1, 2, 3, 4), **call)
    # 0.15 to 0.26 over the pictures of eight seeds, 0.17 for this one
    assert np.mean(guided.sampled_residuals) < 0.35 * np.mean(blind.sampled_residuals)
    assert max(guided.sampled_residuals) < min(blind.sampled_residuals)
    assert max(guided.residuals) < 1e-6  # projected, in floats
    assert guided.evaluations == 20 * (1 + 2 * 10)
    free = pb.superres(image, 3, generator=seeded(1, 2, 3, 4), project=False, **call)
    assert free.residuals == pytest.approx(free.sampled_residuals, rel=1e-3)


def test_fcs_has_the_papers_fields_for_super_resolution() -> None:
    out = quick(given_picture(3, 3), 2, method="fcs")
    fields = out.settings["fields"]
    assert (fields["inner_steps"], fields["step_size"], fields["last_step_size"]) == (10, 0.1, 0.1)
    assert out.evaluations == 2 * 21 and out.vjps == 0
    own = quick(given_picture(3, 3), 2, method=pb.methods.get("fcs"))
    assert own.settings["fields"] == dataclasses.asdict(pb.methods.get("fcs"))
    assert quick(given_picture(3, 3), 2, num_inference_steps=None).settings["num_inference_steps"] == 20


def test_every_method_that_takes_an_operator_enlarges() -> None:
    taking = [name for name, kind in pb.methods.types().items() if kind.takes_operator]
    assert {"fcs", "ddnm", "dps", "mmps", "pigdm"} <= set(taking)
    for name in taking:
        out = quick(given_picture(3, 4), 2, method=name, generator=seeded(0))
        assert out.images[0].size == (8, 6) and np.isfinite(out.residuals[0])


def test_seeds_samples_and_lists() -> None:
    pictures = [given_picture(4, 5, seed=k) for k in range(2)]
    both = quick(pictures, 2, num_images_per_prompt=2, generator=seeded(7, 8, 9, 10))
    assert both.seeds == [7, 8, 9, 10] and len(both.images) == 4
    alone = quick(pictures[1], 2, generator=seeded(10))
    assert abs(np.asarray(both.images[3]).astype(int) - np.asarray(alone.images[0])).max() <= 1
    drawn = quick(pictures[0], 2)
    again = quick(pictures[0], 2, generator=seeded(*drawn.seeds))
    assert (np.asarray(drawn.images[0]) == np.asarray(again.images[0])).all()
    assert drawn.seconds > 0 and not drawn.stopped
    before = torch.random.get_rng_state()
    seen = []
    stopped = quick(pictures[0], 2, num_inference_steps=9, callback=lambda *a: seen.append(a[0]) or a[0] == 1)
    assert stopped.stopped and seen == [0, 1]
    assert torch.equal(before, torch.random.get_rng_state())


def test_tiles_of_a_pointwise_model_are_the_whole() -> None:
    class Pointwise(Denoiser):
        def predict(self, x, time):
            calls.append(tuple(x.shape[-2:]))
            return pb.Prediction(x.tanh(), (x - time.alpha * x.tanh()) / time.sigma, rows=len(x))

    calls: list[tuple[int, int]] = []
    whole = Pointwise(VP())
    for height, width in ((8, 8), (40, 72), (64, 16), (24, 200)):
        x = torch.randn(2, 1, height, width, generator=seeded(0)[0])
        calls.clear()
        got = TiledDenoiser(whole, tile=32, overlap=8)(x, 0.5)
        assert all(h <= 32 and w <= 32 for h, w in calls) and got.rows == 2 * len(calls)
        want = whole(x, 0.5)
        assert torch.allclose(got.x0, want.x0, atol=1e-6) and torch.allclose(got.x1, want.x1, atol=1e-5)
    with pytest.raises(ValueError, match="tile"):
        TiledDenoiser(whole, tile=30)


def test_tiles_of_a_network_leave_no_seam() -> None:
    small = given_picture(40, 24)
    out, whole = (quick(small, 2, tile=tile, generator=seeded(0), output_type="np") for tile in (48, None))
    assert out.images.shape == (1, 80, 48, 3)
    assert out.residuals[0] == pytest.approx(whole.residuals[0], rel=0.2)
    assert np.abs(out.images - whole.images).mean() < 0.1


def test_models_of_one_size_and_of_grey() -> None:
    model = tiny_model(channels=1, size=32)
    (made,) = quick(given_picture(9, 14, "L"), 2, model=model).images
    assert made.size == (28, 18) and made.mode == "L"
    with pytest.raises(ValueError, match="32 x 32"):
        quick(given_picture(9, 17, "L"), 2, model=model)
    with pytest.raises(ValueError, match="grey"):
        quick(given_picture(9, 14), 2, model=model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 1}, "scale"),
        ({"scale": 9}, "scale"),
        ({"scale": 2.5}, "scale"),
        ({"scale": "4"}, "scale"),
        ({"kernel": "nearest"}, "bicubic, area"),
        ({"method": "ding"}, "fcs"),
        ({"method": pb.methods.get("lanpaint")}, "lanpaint"),
        ({"method": "magic"}, "magic"),
        ({"sigma": -1.0}, "sigma"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"generator": seeded(1, 2)}, "generators"),
        ({"prompt": "a cat"}, "prompt"),
        ({"model": "nothing-like-it"}, "nothing-like-it"),
        ({"image": "nowhere.png"}, "nowhere.png"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"tile": 9}, "tile"),
    ],
)
def test_bad_input_is_one_clear_sentence(change: dict[str, object], message: str) -> None:
    call = {"image": given_picture(4, 4), "scale": 2, **change}
    with pytest.raises(ValueError, match=message) as caught:
        quick(**call)
    assert "\n" not in str(caught.value)


def test_the_package_offers_functions_and_not_their_modules() -> None:
    for name in ("superres", "layers"):
        module = importlib.import_module(f"paintback.tasks.{name}")
        assert callable(getattr(pb, name)) and getattr(pb, name) is getattr(module, name)
        assert name in dir(pb)


def test_projection_holds_where_colours_saturate() -> None:
    """Black and white stripes: a sample that is projected once and clipped no longer agrees."""
    stripes = np.kron(np.array([[0.0, 1.0, 0.0, 1.0]]), np.ones((4, 1)))
    out = quick(np.repeat(stripes[..., None], 3, axis=-1), 2, kernel="area", output_type="np", generator=seeded(0))
    assert out.residuals[0] < 2e-3
