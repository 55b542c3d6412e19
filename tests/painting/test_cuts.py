"""Large holes: a painter that returns the true pixels of its canvas gives them back at the picture's resolution."""

from __future__ import annotations

import copy
import dataclasses
from importlib import resources

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

import paintback as pb
from paintback.bench.metrics.pixels import seam_step
from paintback.denoiser import Denoiser, Prediction
from paintback.images.regions import hole_regions
from paintback.models.base import Model
from paintback.models.latent import LatentCodec, LatentModel
from paintback.models.trained import Painting, TrainedModel
from paintback.painting.canvas import Canvas
from paintback.painting.colour import matched
from paintback.painting.cuts import band, crop_shape, tiles
from paintback.painting.frames import Frame
from paintback.schedules import VP
from paintback.tasks.inpaint import Inpainter

SIDE = 64  # of the latent painter's training: a 500 x 375 picture is to it what 4000 x 3000 is to SD 1.5
SHAPE = (375, 500)


def photo(height: int = SHAPE[0], width: int = SHAPE[1]) -> np.ndarray:
    """A picture with the detail of a photo's pixels: one of the examples, mirrored."""
    with resources.as_file(resources.files("paintback") / "examples" / "outpaint.jpg") as path:
        own = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    own = np.concatenate((own, own[:, ::-1]), 1)
    return np.concatenate((own, own[::-1]), 0)[:height, :width].copy()


class Cells(LatentCodec):
    """Cells of 8 pixels without loss; `gain` and `lift` are what it does to colours, as VAEs do."""

    def __init__(self, gain: float = 1.0, lift: float = 0.0) -> None:
        self.factor, self.channels, self.gain, self.lift = 8, 192, gain, lift

    def encode(self, picture):
        return F.pixel_unshuffle(picture, 8)

    def decode(self, x):
        return F.pixel_shuffle(x, 8) * self.gain + self.lift


class Truth(Denoiser):
    """Predicts the true pixels of whatever crop it is told that it looks at, at the size that it looks at."""

    def __init__(self, model, size) -> None:
        super().__init__(VP())
        self.model, self.size, self.codec, self.boxes = model, size, model.codec, None
        self.shape = tuple(model.state_shape(size))

    def placed(self, boxes, shapes, factor):
        other = copy.copy(self)
        other.boxes = boxes
        return other

    def predict(self, x, time):
        top, left, bottom, right = self.boxes[0]
        x0 = self.codec.encode(true_crop(self.model.truth, top, left, bottom, right, self.size)).to(x)
        x0 = x0.expand(len(x), -1, -1, -1)
        return Prediction(x0, (x - time.alpha * x0) / time.sigma, rows=len(x))


def true_crop(truth, top, left, bottom, right, size):
    box = pb.images.regions.Box(top, left, bottom, right)
    values = Canvas(truth, torch.zeros(truth.shape[1:], dtype=torch.bool)).original(box)[None]
    return Frame(box, size, scaled=box.height > size[0] or box.width > size[1]).enter(values)


@dataclasses.dataclass(frozen=True)
class LatentPainter(LatentModel):
    truth: torch.Tensor = dataclasses.field(kw_only=True)

    def denoiser_at(self, size, told):
        return Truth(self, size)


@dataclasses.dataclass(frozen=True)
class PixelPainter(Model):
    truth: torch.Tensor = dataclasses.field(kw_only=True)

    def denoiser_at(self, size, told):
        return Truth(self, size)


@dataclasses.dataclass(frozen=True)
class MaskPainter(TrainedModel):
    truth: torch.Tensor = dataclasses.field(kw_only=True)
    boxes: list = dataclasses.field(kw_only=True)
    steps: list = dataclasses.field(default_factory=list, kw_only=True)

    def fill(self, picture, hole, told, *, num_inference_steps, generator, num_samples=1, steps=None, step=None):
        box = self.boxes[-1]
        made = true_crop(self.truth, box.top, box.left, box.bottom, box.right, tuple(picture.shape[-2:]))
        self.steps.append(steps)
        for k in range(steps or num_inference_steps):
            step(k, 1 - (k + 1) / num_inference_steps, made)
        return Painting(made.expand(num_samples, -1, -1, -1), steps or num_inference_steps, num_samples)


def painter(kind: str, true: np.ndarray, monkeypatch=None, codec: LatentCodec | None = None) -> Inpainter:
    known = {"name": "perfect", "channels": 3, "multiple": 8, "network": None}
    known |= {"device": torch.device("cpu"), "dtype": torch.float32}
    known |= {"truth": torch.from_numpy(true).permute(2, 0, 1) * 2 - 1}
    if kind == "latents":
        made = LatentPainter(size=None, training_size=SIDE, codec=codec or Cells(), **known)
    elif kind == "pixels":
        made = PixelPainter(size=(256, 256), training_size=256, **known)
    else:
        boxes: list = []
        crop = Canvas.crop

        def noted(self, box, samples):
            boxes.append(box)
            return crop(self, box, samples)

        monkeypatch.setattr(Canvas, "crop", noted)
        made = MaskPainter(size=None, training_size=SIDE, boxes=boxes, **known)
    inpainter = Inpainter(made)
    inpainter.set_progress_bar_config(disable=True)
    return inpainter


def line(shape: tuple[int, int], *points: tuple[int, int], width: int) -> np.ndarray:
    drawn = Image.new("1", shape[::-1])
    ImageDraw.Draw(drawn).line(points, fill=1, width=width)
    return np.array(drawn)


def holes(shape: tuple[int, int], side: int) -> dict[str, np.ndarray]:
    height, width = shape
    rim = np.zeros(shape, bool)
    rim[side // 4 : -side // 4, side // 4 : -side // 4] = True
    wide, hand = np.zeros(shape, bool), np.zeros(shape, bool)
    wide[height // 16 : -height // 16, width // 8 : -width // 8] = True
    rows, columns = np.ogrid[:height, :width]
    hand |= (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (0.45 * height) ** 2
    specks = np.zeros(shape, bool)
    specks[np.random.default_rng(0).integers(0, height, 60), np.random.default_rng(1).integers(0, width, 60)] = True
    return {
        "scratch": line(shape, (5, 5), (width - 6, height - 6), width=3),
        "crossing scratches": line(shape, (5, 5), (width - 6, height - 6), width=2)
        | line(shape, (width - 5, 9), (30, height - 20), width=4),
        "frame": ~rim,
        "ring": (abs(np.hypot(rows - height / 2, columns - width / 2) - 0.4 * height) < 4),
        "specks": specks,
        "wide": wide,
        "round": hand,
    }


ROLES = {"wide": {"draft", "detail"}, "round": {"draft", "detail"}}


def decibels(made: np.ndarray, true: np.ndarray, hole: np.ndarray) -> float:
    return float(-10 * np.log10(max(1e-12, ((made - true)[hole] ** 2).mean())))


CALL = {"num_inference_steps": 4, "output_type": "np", "generator": 0}


@pytest.mark.parametrize("kind", ["latents", "pixels", "trained"])
@pytest.mark.parametrize("name", list(holes((64, 64), 64)))
def test_a_perfect_painter_is_perfect(kind, name, monkeypatch) -> None:
    shape = (600, 700) if kind == "pixels" else SHAPE
    true = photo(*shape)
    hole = holes(shape, 256 if kind == "pixels" else SIDE)[name]
    inpainter = painter(kind, true, monkeypatch)
    call = {**CALL, "method": "trained" if kind == "trained" else "ddnm"}
    plan = inpainter.plan(true, hole, **{k: v for k, v in call.items() if k != "output_type"})
    out = inpainter(true, hole, **call)
    (made,) = out.images
    assert np.array_equal(made[~hole], true[~hole])
    assert decibels(made, true, hole) > (45 if name in ROLES else 60)
    roles = {stage.role for stage in plan.stages}
    assert roles == ROLES.get(name, roles & {"whole", "along"})
    assert all(stage.factor == 1 for stage in plan.stages if stage.role != "draft")
    assert (plan.evaluations, plan.vjps) == (out.evaluations, out.vjps)
    assert [(s.factor, s.size[::-1]) for s in out.scales] == [(s.factor, s.size) for s in plan.stages]
    assert {row["role"] for row in plan.to_json()["stages"]} == roles


@pytest.mark.parametrize("kind", ["latents", "pixels", "trained"])
@pytest.mark.parametrize("add", [0.5, 1.2])  # of the training side, on every side; then on one alone
def test_outpainting_is_perfect(kind, add, monkeypatch) -> None:
    true = photo(600, 700) if kind == "pixels" else photo()
    pixels = int(add * (160 if kind == "pixels" else SIDE))
    inpainter = painter(kind, true, monkeypatch)
    call = {**CALL, "method": "trained" if kind == "trained" else "ddnm"}
    for sides in ((pixels,) * 4, (0, 0, pixels, 0)):
        left, top, right, bottom = sides
        inner = (slice(top, true.shape[0] - bottom), slice(left, true.shape[1] - right))
        (made,) = inpainter(true[inner], **call, outpaint=sides).images
        hole = np.ones(true.shape[:2], bool)
        hole[inner] = False
        assert np.array_equal(made[~hole], true[~hole])
        assert decibels(made, true, hole) > 45
        step, own = (
            float(seam_step(torch.from_numpy(one).permute(2, 0, 1)[None], torch.from_numpy(hole)[None, None])[0])
            for one in (made, true)
        )
        assert step == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize("name", ["frame", "wide"])
def test_every_pixel_has_one_owner_and_is_seen_with_what_is_around_it(name) -> None:
    hole = holes(SHAPE, SIDE)[name]
    (region,) = hole_regions(hole, context=8, minimum=SIDE, maximum=72)
    crop = (SIDE, SIDE)
    parts = tiles(region, SHAPE, crop, along=name == "frame")
    total = np.zeros(SHAPE, int)
    seen = np.zeros(SHAPE, bool)
    for part in parts:
        assert part.box.shape == crop
        total += part.target
        own = part.local_target
        rows, columns = np.nonzero(own)
        for places, first, last in ((rows, part.box.top, SHAPE[0]), (columns, part.box.left, SHAPE[1])):
            assert places.min() >= 8 or first == 0
            assert places.max() < SIDE - 8 or first + SIDE == last
        # each crop but the first sees what an earlier one has painted
        assert not seen.any() or seen[part.box.slices].any()
        seen |= part.target
    assert np.array_equal(total, hole)


def test_crops_of_a_low_picture_are_longer() -> None:
    model = painter("latents", photo()).model
    assert crop_shape(model, (500, 500)) == (64, 64)
    assert crop_shape(model, (30, 500)) == (30, 128)
    assert crop_shape(model, (500, 50)) == (72, 50)
    assert crop_shape(dataclasses.replace(model, largest_area=48 * 48), (500, 500)) == (48, 48)


def test_the_band_touches_only_what_was_painted() -> None:
    own, drawn = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    own[:, 32:48], drawn[:, 10:32] = True, True
    weight = band(own, drawn)
    assert (weight[own] == 1).all() and (weight[~own & ~drawn] == 0).all()
    row = weight[5, 10:32]
    assert (np.diff(row) >= 0).all() and row[0] == 0 and 0.7 < row[-1] < 1


@pytest.mark.parametrize("name", ["scratch", "frame", "wide"])
def test_colours_meet_their_surroundings(name) -> None:
    true = photo()
    hole = holes(SHAPE, SIDE)[name]
    inpainter = painter("latents", true, codec=Cells(0.9, 0.08))
    steps = {}
    for match in (False, True):
        (made,) = inpainter(true, hole, **CALL, method="ddnm", match_colour=match).images
        assert np.array_equal(made[~hole], true[~hole])
        steps[match] = float(
            seam_step(torch.from_numpy(made - true).permute(2, 0, 1)[None], torch.from_numpy(hole)[None, None])[0]
        )
    print(name, steps)
    assert steps[True] < 0.35 * steps[False]


def test_matching_adds_what_is_smooth_and_no_texture() -> None:
    values = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    known = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    known[..., 20:44, 20:44] = False
    shift = torch.tensor([0.1, -0.05, 0.0]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(matched(values - shift, values, known, 8), values, atol=1e-6, rtol=0)
    assert torch.equal(matched(values - shift, values, known, 1), values - shift)
    nothing = torch.zeros_like(known)
    assert torch.equal(matched(values - shift, values, nothing, 8), values - shift)


@pytest.mark.parametrize("name", ["frame", "wide"])
def test_a_sample_does_not_depend_on_its_batch_and_best_chooses_whole_answers(name) -> None:
    true, hole = photo(200, 240), holes((200, 240), SIDE)[name]
    inpainter = painter("latents", true)
    noisy = pb.methods.get("ding", sigma_y=0.2)
    call = {"method": noisy, "num_inference_steps": 3, "output_type": "np", "strength": 1.0}
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    both = inpainter(true, hole, **call, num_images_per_prompt=2, generator=seeds).images
    for seed, made in zip((3, 4), both, strict=True):
        alone = inpainter(true, hole, **call, generator=torch.Generator().manual_seed(seed)).images[0]
        assert abs(alone - made).max() < 1e-5
    best = inpainter(true, hole, **call, quality="best", generator=0)
    assert best.evaluations == 8 * inpainter.plan(true, hole, method=noisy, num_inference_steps=3).evaluations
    assert decibels(best.images[0], true, hole) > 45


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_run_that_is_stopped_shows_what_it_has(after) -> None:
    true, hole = photo(200, 240), holes((200, 240), SIDE)["wide"]
    inpainter = painter("latents", true)
    seen = []

    def stop(made, *_):
        seen.append(0)
        made.interrupt = len(seen) >= after

    out = inpainter(true, hole, **CALL, method="ddnm", callback_on_step_end=stop)
    assert out.stopped and after <= len(seen) <= after + 1  # a run is told at its next step
    assert decibels(out.images[0], true, hole) > 15  # the draft at least, everywhere
    assert np.array_equal(out.images[0][~hole], true[~hole])


def test_an_asked_size_is_painted_at_once() -> None:
    true, hole = photo(), holes(SHAPE, SIDE)["wide"]
    plan = painter("latents", true).plan(true, hole, method="ddnm", height=64, width=80)
    assert [(stage.role, stage.size) for stage in plan.stages] == [("whole", (64, 80))]


def test_strength_needs_no_draft() -> None:
    true, hole = photo(), holes(SHAPE, SIDE)["wide"]
    plan = painter("latents", true).plan(true, hole, method="ddnm", num_inference_steps=10, strength=0.5)
    assert {stage.role for stage in plan.stages} == {"along"} and {stage.steps for stage in plan.stages} == {5}
