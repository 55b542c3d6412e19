"""The model `self` against its definition, computed patch by patch in float64, and in its limits."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch

import paintback as pb
from paintback.denoiser import Denoiser, predict
from paintback.images import read_settings
from paintback.models.catalogue import Sampler, find
from paintback.models.own_picture import (
    SMOOTH,
    MixedDenoiser,
    OwnPictureDenoiser,
    Settings,
    load_own_picture,
    roughness,
    write_own_picture,
)
from paintback.priors import patches as room
from paintback.schedules import EDM, Flow

NARROW = Settings(sides=((0.0, 3),), most=1000, least=1, mirror=False, reach=None, band=1)


def picture(seed=0, size=8, channels=3):
    """A picture of noise and a hole of 3 x 2 in it."""
    values = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    known = torch.ones(1, 1, size, size, dtype=torch.bool)
    known[..., 3:6, 4:6] = False
    return torch.where(known, values * 2 - 1, 0.0), known


def state(seed=1, rows=1, size=8, channels=3):
    return torch.randn(rows, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(values, known, x, sigma, row, column, side, mirror, spread=None):
    """D(x)_i of one pixel, with loops."""
    reach, size = side // 2, values.shape[-1]
    logits, centres = [], []
    for r in range(reach, size - reach):
        for c in range(reach, size - reach):
            around = (slice(r - reach, r + reach + 1), slice(c - reach, c + reach + 1))
            if not known[(0, 0, *around)].all():
                continue
            for patch in [values[(0, slice(None), *around)]] + (
                [values[(0, slice(None), *around)].flip(-1)] if mirror else []
            ):
                far = 0.0
                for i in range(side):
                    for j in range(side):
                        y, z = row + i - reach, column + j - reach
                        if 0 <= y < size and 0 <= z < size:
                            far += float((x[:, y, z] - patch[:, i, j]).square().sum())
                away = 0.0 if spread is None else ((r - row) ** 2 + (c - column) ** 2) / (2 * spread**2)
                logits.append(-far / (2 * sigma**2) - away)
                centres.append(patch[:, reach, reach])
    return torch.tensor(logits, dtype=torch.float64).softmax(0) @ torch.stack(centres)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize(("sigma", "reach"), [(0.3, None), (2.0, None), (2.0, 3.0)])
def test_the_denoiser_is_its_definition(side, sigma, reach, mirror):
    values, known = picture()
    settings = Settings(
        sides=((0.0, side),), most=1000, least=1, mirror=mirror, reach=reach, band=8
    )  # all are asked, at the border too
    x = state()
    if side == 5:  # the middle hides every patch of 5; a hole in the corner leaves some
        known = torch.ones_like(known)
        known[..., :3, :2] = False
        values = torch.where(known, state(3), 0.0)
    denoiser = OwnPictureDenoiser(settings).given(values, known)
    made = denoiser(x, denoiser.schedule.time_of_ratio(torch.tensor(sigma)))
    at = float(denoiser.schedule.at(float(denoiser.schedule.time_of_ratio(torch.tensor(sigma)))).sigma)
    expected = torch.stack(
        [by_definition(values, known, x[0], at, r, c, side, mirror, reach) for r in range(8) for c in range(8)]
    )
    torch.testing.assert_close(made.x0[0], expected.T.reshape(3, 8, 8), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made.x1, (x - made.x0) / at)


def test_sigma_to_zero_is_the_nearest_patch_and_to_infinity_their_mean():
    values, known = picture()
    patches = room.known_patches(values[0], known[0, 0], 3, most=1000, mirror=False)
    queries = room.windows(state()[0], 3).flatten(0, 1).flatten(1)
    nearest = torch.cdist(queries, patches.values + patches.middle).argmin(1)
    torch.testing.assert_close(patches.expected(queries, 1e-3), patches.centres[nearest], rtol=0, atol=1e-12)
    mean = patches.centres.mean(0).expand(len(queries), -1)
    torch.testing.assert_close(patches.expected(queries, 1e6), mean, rtol=0, atol=1e-9)
    assert not torch.allclose(patches.expected(queries, 1.0), mean, atol=1e-3)


def test_float32_is_near_to_float64():
    values, known = picture(size=24)
    exact = OwnPictureDenoiser(NARROW).given(values, known)
    rounded = OwnPictureDenoiser(NARROW).given(values.float(), known)
    for t in (0.2, 0.5, 0.9):
        found = rounded(state(size=24).float(), t).x0
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact(state(size=24), t).x0, rtol=0, atol=1e-3)


def test_patches_are_known_in_whole_and_never_more_than_allowed():
    values, known = picture(size=16)
    marked = torch.where(known, values, 1e3)  # what is hidden must not show
    every = room.known_patches(marked[0], known[0, 0], 3, most=10**6, mirror=False)
    assert (every.values + every.middle).abs().max() < 2
    assert len(every.values) == 14 * 14 - 5 * 4  # windows of 3 that meet 3 x 2
    for most in (2, 7, 60):
        assert len(room.known_patches(marked[0], known[0, 0], 3, most=most, mirror=False).values) == most
        assert len(room.known_patches(marked[0], known[0, 0], 3, most=most).values) == most // 2 * 2


def test_of_too_many_patches_the_nearest_to_the_hole_are_taken():
    values, known = picture(size=16)
    few = room.known_patches(values[0], known[0, 0], 3, most=18, mirror=False)
    around = {tuple(values[0, :, r, c].tolist()) for r in range(1, 8) for c in range(2, 8)}
    assert {tuple(centre.tolist()) for centre in few.centres} <= around  # the ring of 2 cells has 22


def test_where_few_patches_of_a_size_are_known_smaller_ones_serve():
    values, known = picture(size=24)
    big, small = (Settings(sides=((0.0, side),), most=10**4, least=300, mirror=False) for side in (15, 9))
    made = [OwnPictureDenoiser(one).given(values, known)(state(size=24), 0.5).x0 for one in (big, small)]
    assert torch.equal(*made), "of 24 - 14 = 10 x 10 windows of 15 less than 300 are whole"
    far = Settings(sides=((0.0, 15),), most=10**4, least=2, mirror=False)
    assert not torch.equal(OwnPictureDenoiser(far).given(values, known)(state(size=24), 0.5).x0, made[0])


def test_mirror_images_are_patches_left_for_right():
    values, known = picture(size=9)
    plain = room.known_patches(values[0], known[0, 0], 3, most=10**6, mirror=False)
    both = room.known_patches(values[0], known[0, 0], 3, most=10**6, mirror=True)
    count = len(plain.values)
    assert len(both.values) == 2 * count
    whole = (both.values + both.middle).unflatten(1, (3, 3, 3))
    torch.testing.assert_close(whole[:count], (plain.values + plain.middle).unflatten(1, (3, 3, 3)))
    torch.testing.assert_close(whole[count:], whole[:count].flip(-1))
    torch.testing.assert_close(both.centres[count:], both.centres[:count])


def test_where_no_patch_of_a_size_is_known_smaller_ones_serve():
    values, known = picture()
    known[..., ::3, :] = known[..., ::3] = False  # 2 x 2 are left
    tall = OwnPictureDenoiser(Settings(sides=((0.0, 13),), band=0)).given(values, known)
    one = OwnPictureDenoiser(Settings(sides=((0.0, 1),), band=0)).given(values, known)
    assert torch.equal(tall(state(), 0.5).x0, one(state(), 0.5).x0)


def test_far_from_the_hole_the_answer_is_what_is_known():
    values, known = picture(size=16)
    made = OwnPictureDenoiser(NARROW).given(values, known)(state(size=16), 0.5).x0
    asked = torch.zeros(16, 16, dtype=torch.bool)
    asked[2:7, 3:7] = True  # the hole and a band of 1
    assert torch.equal(made[..., ~asked], values[..., ~asked])
    assert (made[..., asked] != values[..., asked]).all()


def test_distances_are_held_in_parts(monkeypatch):
    values, known = picture(size=20)
    sizes = []
    true = room.Patches.expected

    def spy(self, queries, *rest):
        sizes.append(len(queries) * len(self.values))
        return true(self, queries, *rest)

    monkeypatch.setattr(room.Patches, "expected", spy)
    whole = OwnPictureDenoiser(NARROW).given(values, known)(state(size=20), 0.5).x0
    most, sizes[:] = max(sizes), []
    bound = 1200
    parts = OwnPictureDenoiser(
        Settings(sides=NARROW.sides, most=1000, least=1, mirror=False, reach=None, band=1, entries=bound)
    )
    made = parts.given(values, known)(state(size=20), 0.5).x0
    assert most > bound >= max(sizes)
    torch.testing.assert_close(made, whole, rtol=0, atol=1e-12)


def test_each_row_learns_from_its_own_picture_and_equal_ones_share():
    (first, known), (second, _) = picture(0), picture(5)
    values, both = torch.cat((first, first, second)), known.expand(3, -1, -1, -1)
    denoiser = OwnPictureDenoiser(NARROW).given(values, both)
    assert len({id(one) for one in denoiser._pictures}) == 2
    x = state().expand(6, -1, -1, -1)  # two multiples of each row, next to each other
    made = denoiser(x, 0.5).x0
    assert torch.equal(made[0], made[3]) and torch.equal(made[4], made[5])
    alone = OwnPictureDenoiser(NARROW).given(second, known)(state(), 0.5).x0
    assert torch.equal(made[4], alone[0]) and not torch.equal(made[0], made[4])


def test_its_gradient_is_that_of_finite_differences():
    values, known = picture()
    denoiser = OwnPictureDenoiser(NARROW).given(values, known)
    x = state().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: denoiser(x, 0.6).x0, (x,))


def test_what_it_cannot_do_is_said():
    with pytest.raises(ValueError, match="use `inpaint`, or another model"):
        OwnPictureDenoiser(NARROW)(state(), 0.5)
    values, known = picture()
    with pytest.raises(ValueError, match="hide less"):
        OwnPictureDenoiser(NARROW).given(values, torch.zeros_like(known))
    for settings, why in (
        ({"sides": ((1.0, 5),)}, "fall to 0"),
        ({"sides": ((0.0, 5), (1.0, 9))}, "fall to 0"),
        ({"sides": ((0.0, 4),)}, "must be odd"),
        ({"most": 1, "least": 1}, "needs two patches"),
        ({"most": 100, "least": 101}, "`least`=101"),
    ):
        with pytest.raises(ValueError, match=why):
            Settings(**settings)
    model = pb.models.load("self")
    with pytest.raises(ValueError, match="takes no prompt"):
        model.denoiser("a fox")
    with pytest.raises(ValueError, match="no guidance"):
        model.denoiser(guidance_scale=3.0)
    with pytest.raises(ValueError, match="float32"):
        pb.models.load("self", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="use `inpaint`, or another model"):
        pb.superres(np.zeros((8, 8, 3), np.uint8), 2, model="self", num_inference_steps=2)


def test_it_is_a_file_of_settings_without_weights(tmp_path):
    card = find("self")
    assert (card.parameters, card.channels, card.vocabulary) == (0, 3, 0)
    assert card.size_bytes < 1000
    path = tmp_path / "mine.safetensors"
    settings, sampler = (
        Settings(sides=((0.5, 7), (0.0, 3)), most=100, least=9),
        Sampler("ddnm", {"eta": 0.5}, 8, {"widest": 8}),
    )
    write_own_picture(path, settings, sampler, channels=1)
    made = load_own_picture(path)
    assert (made.settings, made.sampler, made.channels) == (settings, sampler, 1)
    assert pb.Inpainter.from_pretrained(path).policy.widest == 8
    assert pb.Inpainter.from_pretrained("photo").policy == pb.Policy(multiple=8)


def striped(size=48):
    """A picture of diagonal stripes, and a mask."""
    rows, columns = np.mgrid[:size, :size]
    grey = (((rows + columns) // 4 % 2) * 120 + 60).astype(np.uint8)
    hole = np.zeros((size, size), bool)
    hole[18:30, 20:32] = True
    return np.stack((grey, grey // 2, 255 - grey), -1), hole


@pytest.mark.parametrize(
    ("method", "fields"),
    [("ddnm", {"eta": 0.5}), ("ding", {"delayed": True}), ("dps", {}), ("repaint", {}), ("lanpaint", {})],
)
def test_methods_run_on_it(method, fields):
    stripes, hole = striped()
    out = pb.Inpainter.from_pretrained("self")(
        stripes, hole, method=pb.methods.get(method, **fields), num_inference_steps=4, generator=3, output_type="np"
    )
    made = np.rint(out.images[0] * 255).astype(np.uint8)
    assert np.array_equal(made[~hole], stripes[~hole])
    assert np.isfinite(out.images[0]).all()
    assert len(np.unique(made[hole], axis=0)) > 1


def test_stripes_go_on_through_the_hole_and_a_seed_gives_the_same_again():
    stripes, hole = striped()
    inpainter = pb.Inpainter.from_pretrained("self")
    made = [
        np.rint(inpainter(stripes, hole, generator=seed, output_type="np").images[0] * 255).astype(np.uint8)
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0][~hole], stripes[~hole])
    far = np.abs(made[0][hole].astype(float) - stripes[hole]).mean()
    assert far < 10, "grey levels; a flat mean is 60 away"


def test_samples_and_a_dry_run():
    stripes, hole = striped()
    inpainter = pb.Inpainter.from_pretrained("self")
    options = {"generator": [4, 5], "num_images_per_prompt": 2, "num_inference_steps": 4}
    both = inpainter(stripes, hole, output_type="np", **options).images
    alone = inpainter(stripes, hole, output_type="np", generator=5, num_inference_steps=4).images
    np.testing.assert_allclose(both[1], alone[0], atol=1e-5)
    plan = inpainter.plan(stripes, hole, generator=0)
    assert plan.seconds(inpainter.speed(plan)) > 0


def test_the_command_line_paints_with_it(tmp_path):
    stripes, hole = striped()
    for name, array in (("photo", stripes), ("mask", (hole * 255).astype(np.uint8))):
        PIL.Image.fromarray(array).save(tmp_path / f"{name}.png")
    out = tmp_path / "out.png"
    command = [sys.executable, "-m", "paintback"]
    painting = ["inpaint", tmp_path / "photo.png", tmp_path / "mask.png", "--model", "self", "--steps", "6"]
    done = subprocess.run([*command, *map(str, painting), "-o", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.asarray(PIL.Image.open(out).convert("RGB"))[~hole], stripes[~hole])
    settings = read_settings(out)
    assert settings["model"] == "self"
    assert "weights" in settings["sha256"]
    listed = subprocess.run([*command, "models", "--format", "json"], capture_output=True, text=True)
    assert "self" in [card["name"] for card in json.loads(listed.stdout)]


class Constant(Denoiser):
    """A network that sees the same grey in every state."""

    def predict(self, x, time):
        return predict("x0", torch.full_like(x, 0.25), x, time, rows=len(x))


@pytest.mark.parametrize("schedule", [EDM(), Flow()])
def test_a_network_is_mixed_with_the_patches_at_low_noise_alone(schedule):
    values, known = picture(seed=3, size=12)
    own = OwnPictureDenoiser(NARROW)
    mixed = MixedDenoiser(Constant(schedule), own, below=1.0, share=0.3).given(values, known)
    x = state(seed=4, size=12)
    for ratio in (4.0, 1.1, 0.6, 0.05):
        time = schedule.at(float(schedule.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))))
        patches = own.given(values, known).at(x / time.alpha, time.ratio)
        share = 0.3 / (1 + (SMOOTH / roughness(values, known)) ** 2)
        expected = torch.full_like(x, 0.25) if time.ratio >= 1 else (1 - share) * 0.25 + share * patches
        result = mixed.predict(x, time)
        assert (time.ratio < 1) == (ratio < 1) and result.rows == 1
        assert torch.allclose(result.x0, expected, atol=1e-9)
        assert torch.allclose(time.alpha * result.x0 + time.sigma * result.x1, x, atol=1e-9)


def test_roughness_is_that_of_texture_and_not_of_gradients():
    known = torch.ones(3, 1, 40, 40, dtype=torch.bool)
    known[..., 15:25, 15:25] = False
    slope = torch.linspace(-0.9, 0.9, 40, dtype=torch.float64).expand(1, 3, 40, 40)
    noise = 0.1 * torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    half = torch.where(torch.arange(40) < 20, torch.zeros(()), noise)
    rough = roughness(torch.where(known, torch.cat((slope, noise, half)), 9.0), known)[..., 15:25, 15:25]
    assert rough.shape == (3, 1, 10, 10) and rough[0].max() < 1e-6
    assert torch.allclose(rough[1], torch.tensor(0.1 * (24 / 25) ** 0.5, dtype=torch.float64), rtol=0.25)
    assert rough[2, ..., 0].max() < 0.03 and rough[2, ..., -1].min() > 0.06  # it is where the texture is
    assert roughness(torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)).max() == 0


def test_where_nothing_is_known_the_network_is_alone():
    network = Constant(EDM())
    mixed = MixedDenoiser(network, OwnPictureDenoiser(Settings()), below=1.0)
    assert mixed.given(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)) is network


def test_only_a_wide_hole_from_a_fill_is_painted_with_patches():
    inpainter = pb.Inpainter.from_pretrained("photo")
    given, hole = striped()[0], np.zeros((48, 48), bool)
    hole[16:32, 16:32] = True

    def painted(below, **options):
        inpainter.policy = dataclasses.replace(inpainter.policy, own_below=below)
        return inpainter(given, hole, generator=0, output_type="np", **options).images

    assert not np.array_equal(painted(1.0), painted(0.0))
    for options in ({"quality": "fast"}, {"method": "ddnm", "num_inference_steps": 3}):
        assert np.array_equal(painted(1.0, **options), painted(0.0, **options))
    asked = [inpainter.plan(given, hole, quality=quality).stages[0].asked for quality in ("good", "fast")]  # below 0
    hole[...] = False
    hole[20:24, 4:44] = True
    assert np.array_equal(painted(1.0), painted(0.0))
    assert [*asked, inpainter.plan(given, hole).stages[0].asked] == [0, 0, 0]


def test_a_plan_counts_the_cells_that_ask_patches():
    inpainter = pb.Inpainter.from_pretrained("photo")
    given, hole = striped()[0], np.zeros((48, 48), bool)
    hole[16:32, 16:32] = True
    plan = inpainter.plan(given, hole, num_images_per_prompt=2)
    (stage,) = plan.stages
    count = 0

    def counted(self, x, sigma):
        nonlocal count
        count += len(x) * int(hole.sum())
        return own(self, x, sigma)

    own, OwnPictureDenoiser.at = OwnPictureDenoiser.at, counted
    try:
        inpainter(given, hole, num_images_per_prompt=2, generator=0)
    finally:
        OwnPictureDenoiser.at = own
    assert 0 < plan.rows * stage.asked == count
    speed = inpainter.speed(plan)
    assert speed.per_asked > 0 and plan.seconds(speed) > plan.seconds(dataclasses.replace(speed, per_asked=0.0)) > 0


def test_a_long_hole_has_patches_from_all_along_it():
    """Of one set for all of it the nearest patches are too many, and those at one end would paint the other."""
    rows = torch.linspace(-1, 1, 200)
    values = rows[:, None].expand(1, 3, 200, 40).clone()
    known = torch.ones(1, 1, 200, 40, dtype=torch.bool)
    known[..., 18:22] = False
    x = values + 0.1 * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    shown = torch.where(known, values, 0.0)
    far = {
        block: (OwnPictureDenoiser(Settings(most=400, least=100, block=block)).given(shown, known).at(x, 0.3) - values)
        .abs()
        .max()
        for block in (None, 72)
    }
    assert far[72] < 0.15 and far[None] > 0.5


def test_a_hole_without_near_patches_finds_those_farther_off():
    values, known = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 1, 200, 200)
    known = known.bool()
    known[..., :12, :] = True
    made = OwnPictureDenoiser(Settings(most=400, least=100, block=72)).given(values * known, known).at(values, 0.5)
    assert bool(((made >= 0) & (made <= 1)).all()) and made[..., 190:, :].std() > 0
