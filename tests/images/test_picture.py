"""Pictures in memory: what is accepted, what is refused, and pasting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paintback.images import Picture, PictureError, read_picture, to_numpy, to_pil

few = settings(max_examples=30, derandomize=True, deadline=None)
DTYPES = st.sampled_from(["uint8", "uint16", "float32"])


def random_picture(height, width, channels, dtype, alpha, seed=0):
    rng = np.random.default_rng(seed)
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    values = rng.uniform(0, white, (height, width, channels + alpha))
    values = values.astype(dtype) if white == 1 else np.rint(values).astype(dtype)
    return Picture(values[..., :channels].copy(), values[..., -1].copy() if alpha else None)


@few
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), DTYPES, st.booleans(), st.floats(0, 1))
def test_paste_touches_nothing_else(height, width, channels, dtype, alpha, part):
    picture = random_picture(height, width, channels, dtype, alpha)
    rng = np.random.default_rng(1)
    where = rng.random((height, width)) < part
    new = rng.uniform(-1.2, 1.2, (height, width, 3)).astype(np.float32)
    new[~where] = np.nan  # nobody looks there
    before = picture.pixels.copy()
    out = picture.with_pixels(new, where)
    assert out.pixels.dtype == picture.pixels.dtype
    np.testing.assert_array_equal(out.pixels[~where], before[~where])
    np.testing.assert_array_equal(picture.pixels, before)
    if channels == 3:
        expected = (np.clip(new[where].astype(float), -1, 1) + 1) / 2 * picture.white
        tolerance = 1e-6 if dtype == "float32" else 0.51
        np.testing.assert_allclose(out.pixels[where].astype(float), expected, atol=tolerance)
    if alpha:
        np.testing.assert_array_equal(out.alpha[~where], picture.alpha[~where])
        assert (out.alpha[where] == picture.white).all()


@few
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), DTYPES)
def test_own_pixels_come_back(height, width, channels, dtype):
    picture = random_picture(height, width, channels, dtype, False)
    out = picture.with_pixels(picture.to_unit(), np.ones((height, width), bool))
    if dtype == "float32":
        np.testing.assert_allclose(out.pixels, picture.pixels, atol=1e-6)
    else:
        np.testing.assert_array_equal(out.pixels, picture.pixels)


def test_seam_is_blended_and_nothing_further():
    picture = Picture(np.full((1, 4, 3), 100, np.uint8), np.zeros((1, 4), np.uint8))
    where = np.array([[True, False, False, False]])
    out = picture.with_pixels(np.ones((1, 4, 3)), where, np.array([[1, 0.5, 0.001, 0.0]]))
    np.testing.assert_array_equal(out.pixels[0, :, 0], [255, 178, 100, 100])
    np.testing.assert_array_equal(out.alpha[0], [255, 128, 0, 0])


def test_paste_refuses():
    picture = Picture(np.zeros((2, 3, 3), np.uint8))
    where = np.ones((2, 3), bool)
    for new, mask, weight in [
        (np.zeros((3, 2, 3)), where, None),
        (np.zeros((2, 3, 3)), where.T, None),
        (np.zeros((2, 3, 3)), where.astype(np.uint8), None),
        (np.zeros((2, 3, 3)), where, np.zeros((3, 2))),
        (np.full((2, 3, 3), np.nan), where, None),
    ]:
        with pytest.raises(PictureError, match="expected"):
            picture.with_pixels(new, mask, weight)


def test_unit_range_and_grey():
    picture = Picture(np.array([[[0], [255]]], np.uint8))
    np.testing.assert_allclose(picture.to_unit(), [[[-1] * 3, [1] * 3]], atol=1e-6)
    assert picture.size == (2, 1)
    assert picture.shape == (1, 2)
    assert picture.to_unit().dtype == np.float32


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", ">u2"])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays(dtype, channels):
    shape = (5, 6) if channels is None else (5, 6, channels)
    rng = np.random.default_rng(0)
    array = rng.random(shape).astype(dtype) if "float" in dtype else rng.integers(0, 255, shape).astype(dtype)
    picture = read_picture(array)
    assert picture.kind == "numpy"
    assert picture.pixels.dtype == {"float64": np.float32, ">u2": np.uint16}.get(dtype, np.dtype(dtype))
    expected = array if channels else array[..., None]
    np.testing.assert_array_equal(to_numpy(picture, as_given=True), expected.astype(picture.pixels.dtype))
    assert to_numpy(picture).shape == (5, 6, 3)
    array[:] = 0
    assert picture.pixels.any()  # a copy


def test_pil_images():
    rgb = Image.fromarray(random_picture(6, 7, 3, "uint8", False).pixels)
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "RGBX", "La", "RGBa"):
        im = rgb.convert("L").convert("LA").convert(mode) if mode == "La" else None
        im = im or (rgb.convert("RGBA").convert(mode) if mode in ("RGBa", "PA") else rgb.convert(mode))
        picture = read_picture(im)
        assert picture.kind == "pil"
        assert picture.shape == (6, 7)
        assert picture.pixels.dtype == np.uint8
        assert (picture.alpha is not None) == (mode in ("LA", "PA", "RGBA", "La", "RGBa")), mode
    np.testing.assert_array_equal(np.asarray(to_pil(read_picture(rgb))), np.asarray(rgb))
    deep = np.random.default_rng(0).integers(0, 65536, (4, 5), dtype=np.uint16)
    assert to_pil(read_picture(Image.fromarray(deep))).mode == "I;16"
    np.testing.assert_array_equal(read_picture(Image.fromarray(deep)).pixels[..., 0], deep)
    np.testing.assert_array_equal(read_picture(Image.fromarray(deep.astype(np.int32))).pixels[..., 0], deep)
    assert to_pil(read_picture(rgb.convert("LA"))).mode == "LA"
    assert to_pil(random_picture(3, 4, 3, "uint16", True)).mode == "RGBA"
    wide, above = Image.fromarray(np.full((2, 2), 70000, np.int32)), Image.fromarray(np.full((2, 2), 2, np.float32))
    for bad in (wide, above, Image.new("RGB", (0, 4)), Image.new("LAB", (2, 2))):
        with pytest.raises(PictureError):
            read_picture(bad)


def test_tensors():
    tensor = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for given_tensor in (tensor, tensor[0]):
        picture = read_picture(given_tensor)
        assert picture.kind == "torch"
        np.testing.assert_array_equal(picture.pixels, tensor[0].permute(1, 2, 0).numpy())
    assert read_picture(tensor.to(torch.bfloat16)).pixels.dtype == np.float32
    assert read_picture((tensor * 255).to(torch.uint8)).pixels.dtype == np.uint8
    for bad in (tensor.expand(2, 3, 4, 5), tensor[0, 0], tensor[0].permute(2, 1, 0), tensor * 2 - 1):
        with pytest.raises(PictureError, match="expected"):
            read_picture(bad)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((4, 5, 5)), "channels last"),
        (np.zeros((1, 4, 5, 3)), "channels last"),
        (np.zeros(4), "channels last"),
        (np.zeros((0, 5, 3)), "at least one pixel"),
        (np.zeros((4, 5, 3), np.int64), "int64"),
        (np.zeros((4, 5, 3), bool), "bool"),
        (np.full((4, 5, 3), np.nan), "NaN"),
        (np.full((4, 5, 3), np.inf), "infinite"),
        (np.full((4, 5, 3), 255.0), "255"),
        (np.full((4, 5, 3), -1.0), "-1"),
        ([[1, 2]], "list"),
        (None, "NoneType"),
    ],
)
def test_wrong_arrays(array, match):
    with pytest.raises(PictureError, match=match) as error:
        read_picture(array)
    assert str(error.value).endswith(".")
    assert "expected" in str(error.value)


def test_depths_round_trip():
    picture = random_picture(5, 5, 3, "uint8", True)
    np.testing.assert_array_equal(picture.to_uint16().to_uint8().pixels, picture.pixels)
    assert picture.to_uint16().alpha.dtype == np.uint16
    assert picture.to_uint8() is picture
