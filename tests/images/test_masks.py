"""Masks: reading, checking, shaping and making them up."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paintback.images import masks
from paintback.images.errors import PictureError
from paintback.images.picture import Picture

few = settings(max_examples=25, derandomize=True, deadline=None)
SHAPES = st.tuples(st.integers(1, 60), st.integers(1, 60))


def spots(shape, part=0.1, seed=0):
    return np.random.default_rng(seed).random(shape) < part


@pytest.mark.parametrize("kind", ["bool", "uint8", "flags", "uint16", "float", "rgb", "pil", "1", "file", "path16"])
def test_every_kind_of_mask_reads_alike(tmp_path, kind):
    mask = spots((7, 9), 0.4)
    grey = mask.astype(np.uint8) * 255
    Image.fromarray(grey).save(tmp_path / "m.png")
    Image.fromarray(mask.astype(np.uint16) * 65535).save(tmp_path / "m16.png")
    source = {
        "bool": mask,
        "uint8": grey,
        "flags": mask.astype(np.int64),
        "uint16": mask.astype(np.uint16) * 65535,
        "float": mask * 0.9,
        "rgb": np.repeat(grey[..., None], 3, -1),
        "pil": Image.fromarray(grey),
        "1": Image.fromarray(mask),
        "file": str(tmp_path / "m.png"),
        "path16": tmp_path / "m16.png",
    }[kind]
    np.testing.assert_array_equal(masks.read_mask(source, (7, 9)), mask)


def test_tensor_masks():
    mask = spots((7, 9), 0.4)
    tensor = torch.from_numpy(mask)
    for source in (tensor, tensor.float(), tensor[None], tensor[None, None].float(), tensor.to(torch.int64)):
        np.testing.assert_array_equal(masks.read_mask(source, (7, 9)), mask)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (np.zeros((4, 5), bool), "5 x 4 pixels and the picture is 9 x 7"),
        (np.full((7, 9), np.nan), "NaN"),
        (np.full((7, 9), 3, np.int64), "int64"),
        (np.zeros((2, 7, 9), bool), "one channel"),
        (np.zeros((0, 9), bool), "at least one pixel"),
        (3, "int"),
    ],
)
def test_wrong_masks(source, match):
    with pytest.raises(PictureError, match=match) as error:
        masks.read_mask(source, (7, 9))
    assert str(error.value).endswith(".")


def test_empty_and_full():
    masks.check_mask(np.array([[True, False]]))
    with pytest.raises(PictureError, match="nothing to repaint"):
        masks.check_mask(np.zeros((3, 3), bool))
    with pytest.raises(PictureError, match=r"nothing is known.*outpaint without a mask"):
        masks.check_mask(np.ones((3, 3), bool))
    with pytest.raises(PictureError, match=r"^with grow=9 the mask is white.*give another value\.$"):
        masks.check_mask(np.ones((3, 3), bool), "grow=9")


@few
@given(SHAPES, st.floats(0, 6), st.integers(0, 5))
def test_grow_is_a_euclidean_disk(shape, radius, seed):
    mask = spots(shape, 0.03, seed)
    grown = masks.grow(mask, radius)
    points = np.argwhere(mask)
    where = np.indices(shape).transpose(1, 2, 0)[:, :, None]
    near = (((where - points) ** 2).sum(-1) <= radius**2).any(-1) if len(points) else mask
    np.testing.assert_array_equal(grown, near)
    np.testing.assert_array_equal(masks.grow(~mask, -radius), ~grown)


@few
@given(SHAPES, st.floats(0, 8), st.integers(0, 5))
def test_blur_is_one_inside_and_ends(shape, pixels, seed):
    mask = spots(shape, 0.03, seed)
    weights = masks.blur(mask, pixels)
    assert weights.dtype == np.float32
    assert (weights[mask] == 1).all()
    np.testing.assert_array_equal(weights > 0, masks.grow(mask, pixels))
    assert (weights[~mask] < 1).all()


def test_blur_refuses_and_falls():
    with pytest.raises(PictureError, match="-1"):
        masks.blur(np.ones((2, 2), bool), -1)
    row = masks.blur(np.arange(10)[None] == 0, 4)[0]
    assert (np.diff(row[:6]) < 0).all()
    assert (row[5:] == 0).all()


def test_fill_and_invert():
    ring = np.zeros((7, 7), bool)
    ring[1:6, 1:6] = True
    ring[2:5, 2:5] = False
    assert masks.fill_holes(ring)[1:6, 1:6].all()
    np.testing.assert_array_equal(masks.invert(ring), ~ring)


@few
@given(SHAPES, st.floats(0.02, 0.9), st.integers(0, 9))
def test_free_form_covers_what_was_asked(shape, coverage, seed):
    mask = masks.free_form(shape, np.random.default_rng(seed), coverage)
    again = masks.free_form(shape, np.random.default_rng(seed), coverage)
    np.testing.assert_array_equal(mask, again)
    assert mask.shape == shape
    assert mask.sum() >= max(1, round(coverage * mask.size))


@pytest.mark.parametrize("coverage", [0.05, 0.25, 0.6])
@pytest.mark.parametrize("shape", [(256, 256), (301, 997)])
def test_free_form_does_not_overshoot(shape, coverage):
    for seed in range(3):
        mask = masks.free_form(shape, np.random.default_rng(seed), coverage)
        assert coverage - 0.001 <= mask.mean() <= coverage + 0.025


def test_boxes_halves_and_boards():
    assert masks.box((10, 20)).sum() == 50
    assert masks.box((10, 20))[3:8, 5:15].sum() >= 40
    for seed in range(5):
        assert masks.box((10, 20), np.random.default_rng(seed), (3, 4)).sum() == 12
    assert masks.box((1, 1), size=0.1).all()
    for side in ("left", "right", "top", "bottom"):
        assert masks.half((10, 20), side).mean() == 0.5
    assert masks.half((4, 4), "left")[:, :2].all()
    assert masks.half((4, 4), "right")[:, 2:].all()
    assert masks.half((4, 4), "top")[:2].all()
    assert masks.half((4, 4), "bottom")[2:].all()
    assert masks.half((4, 5), "right").sum() == 8
    np.testing.assert_array_equal(masks.checkerboard((2, 4), 1), [[0, 1, 0, 1], [1, 0, 1, 0]])
    assert masks.checkerboard((64, 64), 8).mean() == 0.5


def test_scratches_and_text():
    mask = masks.lines((200, 300), np.random.default_rng(0), width=2, count=10)
    assert 0.005 < mask.mean() < 0.2
    assert masks.lines((1, 1), np.random.default_rng(0)).shape == (1, 1)
    printed = masks.text((200, 300), "Hello", 24)
    assert 0.03 < printed.mean() < 0.4
    assert printed[:100].any()
    assert printed[100:, 150:].any()
    assert masks.text((1, 1)).shape == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: masks.free_form((4, 4), np.random.default_rng(0), 1.0),
        lambda: masks.box((4, 4), size=1.5),
        lambda: masks.box((4, 4), size=(5, 1)),
        lambda: masks.box((0, 4)),
        lambda: masks.half((4, 4), "middle"),
        lambda: masks.checkerboard((4, 4), 0),
        lambda: masks.outpaint((4, 4), -1, 0, 0, 0),
        lambda: masks.outpaint((4, 4)),
        lambda: masks.lines((4, 4), np.random.default_rng(0), count=0),
        lambda: masks.text((4, 4), " "),
    ],
)
def test_generators_refuse(wrong):
    with pytest.raises(PictureError, match="expected"):
        wrong()


@few
@given(SHAPES, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(1, 5), st.booleans())
def test_extending_keeps_the_picture(shape, left, top, right, bottom, alpha):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    picture = Picture(pixels, pixels[..., 0] if alpha else None, b"icc")
    larger, mask = masks.extend_picture(picture, left, top, right, bottom)
    assert larger.shape == mask.shape == (shape[0] + top + bottom, shape[1] + left + right)
    assert mask.sum() == mask.size - shape[0] * shape[1]
    np.testing.assert_array_equal(larger.pixels[~mask], pixels.reshape(-1, 3))
    assert (larger.pixels[mask] == 128).all()
    assert larger.icc == b"icc"
    if alpha:
        np.testing.assert_array_equal(larger.alpha[~mask], picture.alpha.ravel())
