"""The Inpainter on a tiny network with random weights: what it promises whatever the model knows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import paintback as pb
from paintback.images import read_picture
from paintback.images.regions import hole_regions
from paintback.models.catalogue import Sampler
from paintback.models.embedded import EmbeddedModel
from paintback.models.unet import UNet, UNetConfig
from paintback.painting.layout import Policy
from paintback.painting.pyramid import Level, plan_levels
from paintback.tasks.inpaint import Inpainter


def tiny_model(channels: int = 3, size: int | None = None) -> EmbeddedModel:
    torch.manual_seed(0)
    network = UNet(UNetConfig(channels=channels, widths=(8, 8, 8), blocks=1))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network = network.eval().requires_grad_(False)
    return EmbeddedModel(
        name="tiny",
        channels=channels,
        multiple=8,
        size=None if size is None else (size, size),
        training_size=16,
        network=network,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


@pytest.fixture(scope="module")
def inpainter() -> Inpainter:
    made = Inpainter(tiny_model(), policy=Policy(widest=8, context=8))
    made.set_progress_bar_config(disable=True)
    return made


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def picture(height: int, width: int, mode: str, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    bands = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = rng.integers(0, 256, (height, width, bands), np.uint8)
    return Image.fromarray(pixels.squeeze(-1) if bands == 1 else pixels, mode)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    mode=st.sampled_from(["L", "RGB", "RGBA"]),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.02, 0.3, 0.9]),
)
def test_outside_the_mask_every_pixel_is_identical(
    inpainter: Inpainter, height: int, width: int, mode: str, seed: int, share: float
) -> None:
    given_picture = picture(height, width, mode, seed)
    mask = np.random.default_rng(seed).random((height, width)) < share
    if mask.all() or not mask.any():
        with pytest.raises(ValueError, match="mask"):
            inpainter(given_picture, mask)
        return
    out = inpainter(given_picture, mask, num_inference_steps=2, generator=seeded(seed))
    (made,) = out.images
    assert (made.size, made.mode) == (given_picture.size, given_picture.mode)
    before, after = np.asarray(given_picture), np.asarray(made)
    assert (before[~mask] == after[~mask]).all()
    assert (before[mask] != after[mask]).any() or mask.sum() < 3


@pytest.mark.parametrize(("height", "width"), [(1001, 37), (3, 1203), (511, 767)])
def test_odd_sizes_of_four_digits(inpainter: Inpainter, height: int, width: int) -> None:
    given_picture = picture(height, width, "RGB")
    mask = np.zeros((height, width), bool)
    mask[height // 2 : height // 2 + 20, width // 2 : width // 2 + 9] = True
    mask[: max(1, height // 50), : max(1, width // 50)] = True
    out = inpainter(given_picture, mask, num_inference_steps=2, generator=seeded(1))
    assert (np.asarray(out.images[0])[~mask] == np.asarray(given_picture)[~mask]).all()


def test_the_hidden_pixels_never_reach_the_model(inpainter: Inpainter) -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:30, 12:28] = True
    one, other = np.asarray(picture(40, 40, "RGB", 1)).copy(), np.asarray(picture(40, 40, "RGB", 2))
    changed = np.where(mask[..., None], other, one)
    made = [inpainter(p, mask, num_inference_steps=3, generator=seeded(5)).images[0] for p in (one, changed)]
    assert (np.asarray(made[0]) == np.asarray(made[1])).all()


def test_a_wide_hole_goes_coarse_to_fine_and_the_cost_is_counted(inpainter: Inpainter) -> None:
    mask = np.zeros((96, 96), bool)
    mask[30:60, 30:60] = True
    out = inpainter(picture(96, 96, "RGB"), mask, num_inference_steps=6, generator=seeded(0), method="ding")
    assert [scale.factor for scale in out.scales] == [4, 2, 1]
    assert out.scales[0].evaluations == 11  # 2 (6 - 1) + 1
    assert all(scale.evaluations < 11 for scale in out.scales[1:])
    assert out.evaluations == sum(scale.evaluations for scale in out.scales)


def test_levels_are_nested_and_aligned() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        shape = (int(rng.integers(20, 300)), int(rng.integers(20, 300)))
        mask = np.zeros(shape, bool)
        top, left = int(rng.integers(shape[0] - 10)), int(rng.integers(shape[1] - 10))
        mask[top : top + int(rng.integers(1, 150)), left : left + int(rng.integers(1, 150))] = True
        if mask.all():
            continue
        (region,) = hole_regions(mask, context=8, minimum=16, multiple=8)
        levels = plan_levels(region, shape, Policy(widest=16, context=8))
        assert levels[-1].factor == 1
        for above, level in zip(levels, levels[1:], strict=False):
            assert above.factor == 2 * level.factor
            assert above.box.top <= level.box.top and above.box.bottom >= level.box.bottom
            assert above.box.left <= level.box.left and above.box.right >= level.box.right
        for level in levels:
            grid = 8 * level.factor
            sides = (level.box.top, level.box.left, level.box.bottom, level.box.right)
            assert all(side % grid == 0 for side in sides)
        rows, columns = np.nonzero(mask)
        last = levels[-1].box
        assert last.top <= rows.min() and rows.max() < last.bottom
        assert last.left <= columns.min() and columns.max() < last.right


def test_a_model_of_one_size_takes_a_scaled_crop() -> None:
    mask = np.zeros((100, 140), bool)
    mask[20:70, 30:80] = True
    (region,) = hole_regions(mask, context=8, minimum=16, multiple=8)
    (level,) = plan_levels(region, mask.shape, Policy(), size=(32, 32))
    assert level == Level(3, level.box)
    assert (level.box.height, level.box.width) == (96, 96)
    fixed = Inpainter(tiny_model(channels=1, size=32))
    fixed.set_progress_bar_config(disable=True)
    for shape in ((28, 28), (100, 140), (20, 200)):
        grey = picture(*shape, "L")
        hole = np.zeros(shape, bool)
        hole[5:15, 5:18] = True
        out = fixed(grey, hole, num_inference_steps=2, generator=seeded(0))
        assert (np.asarray(out.images[0])[~hole] == np.asarray(grey)[~hole]).all()
    with pytest.raises(ValueError, match="grey"):
        fixed(picture(40, 40, "RGB"), np.eye(40, dtype=bool))


def test_seeds_samples_and_lists(inpainter: Inpainter) -> None:
    mask = np.zeros((32, 48), bool)
    mask[8:20, 10:30] = True
    pictures = [picture(32, 48, "RGB", k) for k in range(2)]
    both = inpainter(
        pictures, [mask, mask], num_images_per_prompt=2, num_inference_steps=3, generator=seeded(7, 8, 9, 10)
    )
    assert both.seeds == [7, 8, 9, 10]
    alone = inpainter(pictures[1], mask, num_inference_steps=3, generator=seeded(10))
    difference = np.asarray(both.images[3]).astype(int) - np.asarray(alone.images[0]).astype(int)
    assert abs(difference).max() <= 1  # kernels differ by batch size
    again = inpainter(pictures[1], mask, num_inference_steps=3, generator=seeded(10))
    assert (np.asarray(again.images[0]) == np.asarray(alone.images[0])).all()
    drawn = inpainter(pictures[0], mask, num_inference_steps=2)
    repeated = inpainter(pictures[0], mask, num_inference_steps=2, generator=seeded(*drawn.seeds))
    assert (np.asarray(drawn.images[0]) == np.asarray(repeated.images[0])).all()


def test_output_types_and_settings(inpainter: Inpainter) -> None:
    mask = np.zeros((24, 24), bool)
    mask[4:9, 4:9] = True
    calls = {
        kind: inpainter(picture(24, 24, "RGB"), mask, num_inference_steps=2, generator=seeded(3), output_type=kind)
        for kind in ("pil", "np", "pt", "picture")
    }
    reference = np.asarray(calls["pil"].images[0])
    assert (np.rint(calls["np"].images[0] * 255) == reference).all()
    assert (torch.as_tensor(calls["pt"].images[0]).mul(255).round().permute(1, 2, 0).numpy() == reference).all()
    assert (calls["picture"].images[0].pixels == reference).all()
    assert calls["pil"].settings["fields"] == dataclasses.asdict(pb.methods.get("ding"))
    assert calls["pil"].evaluations == 3 and calls["pil"].vjps == 0 and calls["pil"].seconds > 0


def test_blur_blends_only_around_the_hole(inpainter: Inpainter) -> None:
    mask = np.zeros((64, 64), bool)
    mask[28:36, 28:36] = True
    before = picture(64, 64, "RGB")
    out = inpainter(before, mask, mask_blur=4, num_inference_steps=2, generator=seeded(0))
    changed = (np.asarray(before) != np.asarray(out.images[0])).any(-1)
    rows, columns = np.nonzero(changed & ~mask)
    assert len(rows) > 0  # the seam is blended
    assert rows.min() >= 28 - 5 and rows.max() <= 35 + 5 and columns.min() >= 28 - 5 and columns.max() <= 35 + 5


def test_strength_starts_from_the_picture(inpainter: Inpainter) -> None:
    mask = np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    before = np.full((32, 32, 3), 30, np.uint8)
    weak = inpainter(before, mask, strength=0.05, num_inference_steps=20, generator=seeded(0), method="blended")
    strong = inpainter(before, mask, num_inference_steps=20, generator=seeded(0), method="blended")
    assert weak.evaluations == 1
    assert strong.evaluations == sum(scale.evaluations for scale in strong.scales) >= 20
    error = [abs(np.asarray(o.images[0]).astype(int) - 30)[mask].mean() for o in (weak, strong)]
    assert error[0] < error[1]


def test_callback_sees_every_step_and_can_stop(inpainter: Inpainter) -> None:
    mask = np.zeros((32, 32), bool)
    mask[8:14, 8:14] = True
    seen = []

    def callback(pipe: Inpainter, step: int, t: float, tensors: dict[str, torch.Tensor]) -> None:
        seen.append((step, t, tensors["x0"].shape))
        pipe.interrupt = step == 1

    out = inpainter(picture(32, 32, "RGB"), mask, num_inference_steps=5, callback_on_step_end=callback)
    assert out.stopped and [step for step, _, _ in seen] == [0, 1]
    assert inpainter(picture(32, 32, "RGB"), mask, num_inference_steps=5).stopped is False


def test_the_global_random_state_is_left_alone(inpainter: Inpainter) -> None:
    mask = np.zeros((24, 24), bool)
    mask[4:9, 4:9] = True
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    inpainter(picture(24, 24, "RGB"), mask, num_inference_steps=2)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_image": np.zeros((10, 10), bool)}, "mask"),
        ({"mask_image": np.ones((20, 20), bool)}, "mask"),
        ({"mask_image": np.zeros((20, 20), bool)}, "mask"),
        ({"image": np.full((20, 20, 3), np.nan)}, "NaN"),
        ({"image": "nowhere.png"}, "nowhere.png"),
        ({"method": "dingg"}, "ding"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"strength": 0.0}, "strength"),
        ({"mask_blur": -1}, "mask_blur"),
        ({"prompt": "a cat"}, "prompt"),
        ({"guidance_scale": 7.5}, "guidance"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"generator": seeded(1, 2)}, "generators"),
    ],
)
def test_bad_input_is_one_clear_sentence(inpainter: Inpainter, change: dict[str, object], message: str) -> None:
    hole = np.zeros((20, 20), bool)
    hole[5:9, 5:9] = True
    call: dict[str, object] = {"image": np.zeros((20, 20, 3), np.uint8), "mask_image": hole, "num_inference_steps": 1}
    with pytest.raises(ValueError, match=message) as caught:
        inpainter(**{**call, **change})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_unknown_models_are_named() -> None:
    with pytest.raises(ValueError, match="nothing-like-it"):
        Inpainter.from_pretrained("nothing-like-it")


def test_a_thin_hole_is_painted_by_its_own_method_and_again() -> None:
    model = dataclasses.replace(tiny_model(), sampler=Sampler("ding", {"delayed": True}, 3, thin="lanpaint"))
    made = Inpainter(model, policy=Policy(widest=64, context=8))
    made.set_progress_bar_config(disable=True)
    image = np.full((64, 240, 3), 0.5, np.float32)
    thin, wide, both = (np.zeros((64, 240), bool) for _ in range(3))
    thin[8:10, 8:20], wide[20:50, 180:210] = True, True
    both |= thin | wide

    def run(mask: np.ndarray, **options: Any) -> Any:
        return made(image, mask, output_type="np", **{"generator": seeded(0), **options})

    ding = run(wide, method="ding", fields={"delayed": True}, num_inference_steps=3)
    lanpaint = run(thin, method="lanpaint", num_inference_steps=3)
    own, once = run(thin), run(thin, average=1)
    assert own.evaluations == made.plan(image, thin).evaluations == 4 * once.evaluations
    assert once.evaluations == lanpaint.evaluations
    assert not np.allclose(once.images[0], lanpaint.images[0], atol=1e-3)  # which starts from noise alone
    generator = torch.Generator().manual_seed(0)
    each = [run(thin, average=1, generator=[generator]).images[0] for _ in range(4)]  # one after the other
    assert np.allclose(np.mean(each, axis=0), own.images[0], atol=1e-5)
    assert np.array_equal(run(wide).images[0], ding.images[0])
    mixed = run(both)
    assert mixed.evaluations == own.evaluations + ding.evaluations == made.plan(image, both).evaluations
    settings = {name: mixed.settings[name] for name in ("method", "fields", "thin_method", "num_inference_steps")}
    assert settings["thin_method"] == "lanpaint"
    assert np.array_equal(run(both, **settings).images[0], mixed.images[0])
    assert (made.sizes(image, thin), made.sizes(image, wide)) != (made.sizes(image, wide), made.sizes(image, wide))
    beside = wide.copy()
    beside[12:14, 170:220] = True  # six pixels from the wide part, and still its own
    assert [stage.thin for stage in made.plan(image, beside).stages] == [False, True]
    assert made.plan(image, beside).evaluations == mixed.evaluations


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["L", "LA", "L+tRNS", "P", "P+tRNS", "RGB+tRNS", "RGBA", "I;16", "1"]),
    size=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    seed=st.integers(0, 999),
    given_as=st.sampled_from(["file", "PIL", "picture"]),
)
def test_any_kind_of_picture_is_painted(
    inpainter: Inpainter, tmp_path_factory: Any, kind: str, size: tuple[int, int], seed: int, given_as: str
) -> None:
    """Grey, grey with either transparency, palettes, 16 bits: read, painted where hidden, unchanged elsewhere."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, 4), np.uint8)
    path, options = tmp_path_factory.mktemp("kinds") / "given.png", {}
    if kind in ("L", "L+tRNS"):
        image, options = Image.fromarray(pixels[..., 0]), {"transparency": int(pixels[0, 0, 0])}
    elif kind == "LA":
        image = Image.fromarray(pixels[..., :2])
    elif kind.startswith("P"):
        image, options = Image.fromarray(pixels[..., :3]).quantize(16), {"transparency": 3}
    elif kind == "RGB+tRNS":
        image, options = Image.fromarray(pixels[..., :3]), {"transparency": tuple(map(int, pixels[0, 0, :3]))}
    elif kind == "RGBA":
        image = Image.fromarray(pixels)
    elif kind == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, size, np.uint16))
    else:
        image = Image.fromarray(pixels[..., 0] > 127)
    image.save(path, **(options if kind.endswith("tRNS") else {}))
    read = read_picture(path)
    hole = rng.random(size) < rng.uniform(0.1, 0.9)
    hole[0, 0], hole[-1, -1] = True, False
    source = {"file": str(path), "PIL": Image.open(path), "picture": read}[given_as]
    (out,) = inpainter(
        source, hole, method="ddnm", num_inference_steps=1, generator=seeded(0)[0], output_type="picture"
    ).images
    assert (out.grey, out.pixels.dtype, out.shape) == (read.grey, read.pixels.dtype, read.shape)
    np.testing.assert_array_equal(out.pixels[~hole], read.pixels[~hole])
    assert (out.alpha is None) == (read.alpha is None)
    assert (read.alpha is not None) == (kind in ("LA", "RGBA") or kind.endswith("tRNS"))
    if read.alpha is not None:
        np.testing.assert_array_equal(out.alpha[~hole], read.alpha[~hole])
