"""`Inpainter.from_network`: grey, RGB and C channels, whole, in tiles, coarse to fine; every name; early mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import paintback as pb
from paintback.denoiser import NetworkDenoiser
from paintback.images.errors import PictureError
from paintback.models.network import NAMES, parametrisation_named
from paintback.models.tiles import TiledDenoiser
from paintback.schedules import Time

MEAN, STD = 0.25, 0.25  # of the pixels that the exact networks below know: independent, Gaussian
SCHEDULES = {"eps": pb.schedules.VP(), "v": pb.schedules.VP(), "flow": pb.schedules.Flow(), "x0": pb.schedules.EDM()}


class Exact(nn.Module):
    """The exact network of independent Gaussian pixels, in each parametrisation; it notes what it is shown."""

    def __init__(self, kind: str, channels: int, side: int | None = None) -> None:
        super().__init__()
        self.kind, self.channels, self.side = kind, channels, side
        self.mean = nn.Parameter(torch.full((1, channels, 1, 1), MEAN))
        self.seen: set[tuple[int, int]] = set()

    def time(self, clock: float) -> Time:
        """The time that a clock shows: DDPM's index, or sigma."""
        if self.kind == "flow":
            return Time(clock, 1 - clock, clock)
        return SCHEDULES[self.kind].at((clock + 1) / 1000)

    def forward(self, x: torch.Tensor, clock: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == self.channels
        assert clock.shape == (len(x),)
        if self.side is not None and x.shape[-2:] != (self.side, self.side):
            raise RuntimeError(f"only {self.side} x {self.side}")
        self.seen.add((x.shape[-2], x.shape[-1]))
        if self.kind == "x0":
            sigma = float(clock[0])
            return self.mean + STD**2 / (STD**2 + sigma**2) * (x - self.mean)
        time = self.time(float(clock[0]))
        alpha, sigma = time.alpha, time.sigma
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        x0 = self.mean + gain * (x - alpha * self.mean)
        x1 = (x - alpha * x0) / sigma
        return {"eps": x1, "v": alpha * x1 - sigma * x0, "flow": x1 - x0}[self.kind]


def given(channels: int, side: int = 48) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(channels)
    shape = (side, side) if channels == 1 else (side, side, channels)
    hole = np.zeros((side, side), bool)
    hole[8:40, 10:42] = True
    return rng.random(shape).astype(np.float32), hole


@pytest.mark.parametrize("kind", ["eps", "v", "flow", "x0"])
@pytest.mark.parametrize("layout", ["whole", "tiles", "coarse-to-fine"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_paints_the_hole_from_what_the_network_knows(channels: int, layout: str, kind: str) -> None:
    """Independent pixels: the hole gets the network's mean and deviation, the rest keeps its bits."""
    network = Exact(kind, channels)
    inpainter = pb.Inpainter.from_network(
        network, parametrisation=kind, schedule=SCHEDULES[kind], size=16, channels=channels, layout=layout
    )
    network.seen.clear()
    picture, hole = given(channels)
    out = inpainter(picture, hole, method="replacement", num_inference_steps=60, generator=1, output_type="np")
    made = out.images[0] if channels != 1 else out.images[0][..., 0]
    assert made.shape == picture.shape
    assert np.array_equal(made[~hole], picture[~hole])
    inside = made[hole] * 2 - 1
    if layout != "coarse-to-fine":  # whose means of cells have another deviation than the pixels
        assert inside.std() == pytest.approx(STD, rel=0.15)
    assert inside.mean() == pytest.approx(MEAN, abs=0.06)
    if layout == "tiles":
        assert network.seen == {(16, 16)}
    if layout == "whole":
        assert len(network.seen) == 1 and min(*network.seen.pop()) > 16
    assert len(out.scales) == (2 if layout == "coarse-to-fine" else 1)


@pytest.mark.parametrize("layout", ["whole", "tiles", "coarse-to-fine"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_network_of_one_size_sees_no_other(channels: int, layout: str) -> None:
    network = Exact("eps", channels, side=20)
    inpainter = pb.Inpainter.from_network(
        network,
        parametrisation="eps",
        schedule=pb.schedules.VP(),
        size=20,
        channels=channels,
        layout=layout,
        fixed=True,
    )
    picture, hole = given(channels)
    out = inpainter(picture, hole, num_inference_steps=3, generator=1, output_type="np")
    assert network.seen == {(20, 20)}
    made = out.images[0] if channels != 1 else out.images[0][..., 0]
    assert np.array_equal(made[~hole], picture[~hole])
    assert np.isfinite(made).all() and not np.array_equal(made, picture)


@pytest.mark.parametrize("name", [*NAMES, "velocity"])
def test_every_name_that_papers_use(name: str) -> None:
    """A name gives the same picture as the plain denoiser of its kind."""
    kind = {"velocity": "flow"}.get(name) or NAMES[name]
    network = Exact(kind, 3)
    inpainter = pb.Inpainter.from_network(network, parametrisation=name, schedule=SCHEDULES[kind], size=16)
    x, t = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), 0.4
    clock = (lambda time: time.t * 1000 - 1) if kind in ("eps", "v") else (lambda time: time.sigma)
    plain = NetworkDenoiser(network, SCHEDULES[kind], kind, clock=clock)(x, t)
    made = inpainter.model.denoiser()(x, t)
    assert torch.equal(made.x0, plain.x0) and torch.equal(made.x1, plain.x1)
    # and it is the exact denoiser that it says it is
    time = SCHEDULES[kind].at(t)
    gain = time.alpha * STD**2 / (time.alpha**2 * STD**2 + time.sigma**2)
    assert torch.allclose(made.x0, MEAN + gain * (x - time.alpha * MEAN), atol=2e-3)


def test_velocity_is_the_schedules() -> None:
    assert parametrisation_named("velocity", pb.schedules.Flow()) == "flow"
    assert parametrisation_named("Velocity", pb.schedules.VP()) == "v"
    with pytest.raises(ValueError, match="velocity on a schedule"):
        parametrisation_named("velocity", pb.schedules.EDM())


GOOD = {"parametrisation": "eps", "schedule": pb.schedules.VP(), "size": 16}


@pytest.mark.parametrize(
    ("network", "more", "sentence"),
    [
        (Exact("eps", 3), {"parametrisation": "score"}, "Unknown parametrisation 'score'; valid are eps, epsilon"),
        (Exact("eps", 3), {"parametrisation": "v", "schedule": pb.schedules.Flow()}, "variance-preserving"),
        (Exact("eps", 3), {"parametrisation": "flow", "schedule": pb.schedules.EDM()}, "this schedule is EDM"),
        (Exact("eps", 3), {"parametrisation": "edm"}, r"edm is D\(x, sigma\)"),
        (Exact("eps", 3), {"schedule": "vp"}, "schedule must be one of"),
        (Exact("eps", 3), {"layout": "tile"}, "layout must be one of whole, tiles, coarse-to-fine"),
        (Exact("eps", 3), {"size": 20}, "multiples of 8"),
        (Exact("eps", 3), {"size": (16, 24)}, "not square"),
        (Exact("eps", 3), {"size": 0}, "size must be"),
        (Exact("eps", 3), {"channels": 0}, "channels must be"),
        (Exact("eps", 4), {"channels": 3}, "check size, channels and multiple"),
        (nn.Conv2d(3, 3, 1), {}, "wrap it as network"),
        (lambda x, clock: x[:, :1], {}, "returned shape"),
        (lambda x, clock: torch.cat((x, x), 1), {}, "keeps the 3 channels"),
        (lambda x, clock: {"sample": x}, {}, "a dict of 1"),
        (lambda x, clock: x * math.nan, {}, "holds NaN"),
        (nn.Sequential(nn.Dropout(0.5)), {}, r"training mode and holds Dropout; call network.eval\(\)"),
        ("network.pt", {}, "must be callable"),
    ],
)  # fmt: skip
def test_mistakes_are_found_at_construction(network: object, more: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        pb.Inpainter.from_network(network, **{**GOOD, **more})


def test_what_bands_are_and_are_not() -> None:
    inpainter = pb.Inpainter.from_network(Exact("eps", 4), **GOOD, channels=4)
    picture, hole = given(4)
    tensor = torch.from_numpy(picture).movedim(-1, 0)
    call = {"num_inference_steps": 2, "generator": 0}
    made = inpainter(tensor, hole, output_type="pt", **call).images
    assert made.shape == (1, 4, 48, 48)
    assert np.array_equal(made[0].movedim(0, -1).numpy(), inpainter(picture, hole, output_type="np", **call).images[0])
    whole = (picture * 255).astype(np.uint8)
    (kept,) = inpainter(whole, hole, output_type="picture", **call).images
    assert kept.pixels.dtype == np.uint8 and kept.alpha is None and np.array_equal(kept.pixels[~hole], whole[~hole])
    with pytest.raises(PictureError, match="4 bands is no PIL image"):
        inpainter(picture, hole, **call)
    with pytest.raises(PictureError, match="the model paints 4 bands"):
        inpainter(picture[..., :3], hole, output_type="np", **call)
    with pytest.raises(PictureError, match="given as str, and the model paints 4 bands"):
        inpainter("photo.png", hole, output_type="np", **call)
    with pytest.raises(PictureError, match=r"expected \(4, H, W\)"):
        inpainter(tensor[:3], hole, output_type="np", **call)
    with pytest.raises(ValueError, match="takes no prompt"):
        inpainter(picture, hole, "a fox", output_type="np", **call)


def test_tiles_are_blended_and_bounded() -> None:
    inpainter = pb.Inpainter.from_network(Exact("eps", 3), **GOOD, layout="tiles")
    assert isinstance(inpainter.model.denoiser(), TiledDenoiser)
