"""Crops, regions, padding, pooling and models of one size."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paintback.images import (
    Box,
    PictureError,
    average_pool,
    context_crop,
    fixed_size_plan,
    hole_regions,
    lines,
    pad_to_multiple,
    resize_unit,
    unpad,
)

few = settings(max_examples=30, derandomize=True, deadline=None)
SHAPES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@few
@given(SHAPES, st.floats(0, 2) | st.integers(0, 30), st.integers(0, 64), st.integers(1, 16), st.integers(0, 9))
def test_context_crop(shape, context, minimum, multiple, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.02
    mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
    crop = context_crop(mask, context, minimum, multiple)
    assert 0 <= crop.top < crop.bottom <= shape[0]
    assert 0 <= crop.left < crop.right <= shape[1]
    assert mask[crop.slices].sum() == mask.sum()
    for side, limit in zip(crop.shape, shape, strict=True):
        assert side >= min(minimum, limit)
        assert side % multiple == 0 or side == limit


def test_context_crop_by_hand():
    mask = np.zeros((100, 200), bool)
    mask[40:50, 60:80] = True
    assert context_crop(mask, 5) == Box(35, 55, 55, 85)
    assert context_crop(mask, 0.5) == Box(30, 50, 60, 90)
    assert context_crop(mask, 0, multiple=16) == Box(37, 54, 53, 86)
    assert context_crop(mask, 90) == Box(0, 0, 100, 200)
    with pytest.raises(PictureError, match="empty"):
        context_crop(np.zeros((3, 3), bool))
    with pytest.raises(PictureError, match="context"):
        context_crop(mask, -1)


@few
@given(SHAPES, st.sampled_from([0.001, 0.01, 0.1, 0.6]), st.integers(0, 9), st.integers(8, 80))
def test_regions_cover_each_pixel_once(shape, part, seed, maximum):
    mask = np.random.default_rng(seed).random(shape) < part
    regions = hole_regions(mask, context=4, minimum=8, maximum=maximum, multiple=4)
    times = np.zeros(shape, int)
    for region in regions:
        target = region.target
        assert target.any()
        times += target
        assert region.local_target.sum() == target.sum()
        assert region.box.height <= shape[0]
    np.testing.assert_array_equal(times, mask)


def test_near_holes_merge_and_far_ones_do_not():
    mask = np.zeros((1000, 1000), bool)
    mask[100:110, 100:110] = True
    mask[100:110, 130:140] = True
    mask[800:850, 800:850] = True
    regions = hole_regions(mask, context=32, minimum=64, maximum=256, multiple=8)
    assert len(regions) == 2
    assert regions[0].target.sum() == 200
    assert regions[1].target.sum() == 2500
    assert all(side <= 256 and side % 8 == 0 for region in regions for side in region.box.shape)


def test_a_large_part_stays_whole_and_small_ones_stay_small():
    mask = np.zeros((900, 900), bool)
    mask[50:850, 100:110] = True
    regions = hole_regions(mask, context=16, minimum=64, maximum=256, multiple=8)
    assert len(regions) == 1
    mask[400:405, 140:145] = True  # beside it, and not lost in it
    first, second = hole_regions(mask, context=16, minimum=64, maximum=256, multiple=8)
    assert first.target.sum() == 8000
    assert second.box.shape == (64, 64)
    assert len(hole_regions(np.arange(900)[:, None] % np.full(900, 3) == 0, maximum=300)) < 20  # long rows
    dense = np.random.default_rng(0).random((900, 900)) < 0.002
    regions = hole_regions(dense, context=16, minimum=64, maximum=256, multiple=8)
    assert max(max(region.box.shape) for region in regions) <= 256
    assert 16 <= len(regions) <= 120
    with pytest.raises(PictureError, match="maximum"):
        hole_regions(mask, minimum=256, maximum=128)
    assert hole_regions(np.zeros((5, 5), bool)) == []


@pytest.mark.parametrize("kind", ["dust", "scratches", "stripes"])
def test_large_masks_are_quick(kind):
    shape, rng = (3000, 4000), np.random.default_rng(0)
    if kind == "dust":
        mask = rng.random(shape) < 0.1
    elif kind == "scratches":
        mask = lines(shape, rng, 3, 200)
    else:
        mask = np.zeros(shape, bool)
        mask[::3, (np.arange(4000) % 60) < 50] = True
    start = time.process_time()
    regions = hole_regions(mask, context=32, minimum=256, maximum=1024, multiple=8)
    assert time.process_time() - start < 20  # about one second on a free machine
    assert regions
    assert sum(int(region.local_target.sum()) for region in regions) == mask.sum()


@few
@given(SHAPES, st.integers(1, 70), st.sampled_from(["reflect", "edge"]), st.booleans())
def test_padding(shape, multiple, mode, flags):
    rng = np.random.default_rng(0)
    array = rng.random((2, *shape)) < 0.5 if flags else rng.random((2, *shape))
    padded, pads = pad_to_multiple(array, multiple, mode)
    assert padded.shape[1] % multiple == padded.shape[2] % multiple == 0
    assert padded.shape[1] - shape[0] < multiple
    np.testing.assert_array_equal(unpad(padded, pads), array)
    if min(shape) > 1 or mode == "edge":
        np.testing.assert_array_equal(padded, np.pad(array, ((0, 0), (0, pads[2]), (0, pads[3])), mode))


def test_padding_of_tensors_and_errors():
    tensor = torch.rand(1, 3, 5, 1, generator=torch.Generator().manual_seed(0))
    padded, pads = pad_to_multiple(tensor, 8)
    assert padded.shape == (1, 3, 8, 8)
    assert torch.equal(unpad(padded, pads), tensor)
    for wrong in ((np.zeros((0, 3)), 4, "edge"), (np.zeros((3, 3)), 0, "edge"), (np.zeros((3, 3)), 4, "wrap")):
        with pytest.raises(PictureError, match="expected"):
            pad_to_multiple(*wrong)


@few
@given(SHAPES, st.integers(1, 9), st.sampled_from(["all", "majority", "any"]), st.integers(0, 5))
def test_pooling(shape, factor, policy, seed):
    rng = np.random.default_rng(seed)
    values, known = rng.normal(size=(3, *shape)), rng.random(shape) < 0.7
    values[:, ~known] = np.nan  # hidden pixels have no part
    means, cells = average_pool(values, known, factor, policy)
    assert np.isfinite(means).all()
    for row in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            under = np.s_[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            flags = known[under]
            wanted = {"all": flags.all(), "majority": flags.mean() > 0.5, "any": flags.any()}[policy]
            assert cells[row, column] == wanted
            if flags.any():
                np.testing.assert_allclose(
                    means[:, row, column], values[(slice(None), *under)][:, flags].mean(-1), atol=1e-12
                )
            else:
                assert (means[:, row, column] == 0).all()


def test_pooling_refuses():
    with pytest.raises(PictureError, match="expected"):
        average_pool(np.zeros((3, 4, 4)), np.ones((4, 5), bool), 2)
    with pytest.raises(PictureError, match="policy 'most'"):
        average_pool(np.zeros((3, 4, 4)), np.ones((4, 4), bool), 2, "most")


def test_resizing():
    array = np.random.default_rng(0).uniform(-1, 1, (8, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(resize_unit(array, (4, 6)), array.reshape(4, 2, 6, 2, 3).mean((1, 3)), atol=1e-6)
    np.testing.assert_array_equal(resize_unit(array, (8, 12), "lanczos"), array)
    for resample in ("area", "bilinear", "bicubic", "lanczos"):
        np.testing.assert_allclose(resize_unit(np.full((5, 7), 0.3), (11, 3), resample), 0.3, atol=1e-6)
    for wrong in ((array, (4, 6), "cubic"), (array, (0, 6), "area"), (array[0, 0], (4, 6), "area")):
        with pytest.raises(PictureError, match="expected"):
            resize_unit(*wrong)


@few
@given(SHAPES, st.integers(1, 40), st.integers(0, 9))
def test_hidden_pixels_never_reach_a_model_of_fixed_size(shape, size, seed):
    rng = np.random.default_rng(seed)
    unit = rng.uniform(-1, 1, (*shape, 3)).astype(np.float32)
    mask = rng.random(shape) < 0.1
    mask[0, 0] = True
    plan = fixed_size_plan(context_crop(mask, 2, 16), size)
    seen, hole = plan.to_model(unit, mask)
    assert seen.shape == (size, size, 3)
    assert hole.shape == (size, size)
    other = np.where(mask[..., None], rng.uniform(-1, 1, unit.shape), unit)
    np.testing.assert_array_equal(plan.to_model(other, mask)[0], seen)
    # A constant known picture is seen as that constant wherever a pixel counts as known.
    flat = np.where(mask[..., None], np.float32(9), np.full_like(unit, 0.25))
    flat_seen, flat_hole = plan.to_model(flat, mask)
    np.testing.assert_allclose(flat_seen[~flat_hole], 0.25, atol=1e-5)
    assert plan.from_model(seen).shape == (*plan.box.shape, 3)


def test_a_crop_of_the_models_size_passes_unchanged():
    unit = np.random.default_rng(0).uniform(-1, 1, (20, 30, 3)).astype(np.float32)
    mask = np.zeros((20, 30), bool)
    mask[5, 5] = True
    plan = fixed_size_plan(Box(2, 3, 18, 19), 16)
    seen, hole = plan.to_model(unit, mask)
    np.testing.assert_array_equal(np.argwhere(hole), [[3, 2]])
    np.testing.assert_array_equal(seen[~hole], unit[2:18, 3:19][~hole])
    np.testing.assert_array_equal(plan.from_model(unit[2:18, 3:19]), unit[2:18, 3:19])
    with pytest.raises(PictureError, match="expected"):
        fixed_size_plan(Box(0, 0, 0, 4), 16)
