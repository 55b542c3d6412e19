"""Crops, regions and resizing."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from paintback.images import (
    Box,
    PictureError,
    context_crop,
    hole_regions,
    lines,
    resize_unit,
)
from paintback.images.regions import narrow_labels, thickness

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


def test_resizing():
    array = np.random.default_rng(0).uniform(-1, 1, (8, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(resize_unit(array, (4, 6)), array.reshape(4, 2, 6, 2, 3).mean((1, 3)), atol=1e-6)
    np.testing.assert_array_equal(resize_unit(array, (8, 12), "lanczos"), array)
    for resample in ("area", "bilinear", "bicubic", "lanczos"):
        np.testing.assert_allclose(resize_unit(np.full((5, 7), 0.3), (11, 3), resample), 0.3, atol=1e-6)
    for wrong in ((array, (4, 6), "cubic"), (array, (0, 6), "area"), (array[0, 0], (4, 6), "area")):
        with pytest.raises(PictureError, match="expected"):
            resize_unit(*wrong)


@pytest.mark.parametrize("seed", range(6))
def test_narrow_parts_are_those_whose_own_largest_disk_is_small(seed) -> None:
    random = np.random.default_rng(seed)
    mask = np.zeros((140, 90), bool)
    for _ in range(12):
        row, column = random.integers(0, 140), random.integers(0, 90)
        mask[row : row + random.integers(1, 20), column : column + random.integers(1, 40)] = True
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    expected = [thickness(labels == part) <= 8 for part in range(1, count + 1)]
    assert any(expected) and not all(expected)
    for tile in (16, 64, 256):
        assert narrow_labels(labels, count, 8, tile).tolist() == expected
    regions = hole_regions(mask, context=8, minimum=16, maximum=64, narrow=8)
    kinds = [{expected[part - 1] for part in np.unique(labels[region.target])} for region in regions]
    assert all(len(kind) == 1 for kind in kinds) and sorted(kinds, key=max) == kinds  # never both, narrow ones last
    assert (sum(region.target.astype(int) for region in regions) == mask).all()


def test_a_hole_that_is_everything_is_not_narrow() -> None:
    assert not narrow_labels(np.ones((40, 40), np.int32), 1, 12).any()
    assert narrow_labels(np.zeros((40, 40), np.int32), 0, 12).shape == (0,)
