"""Masks of any kind: what is taken for the hole, and what is said of it."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paintback.images import masks
from paintback.images.errors import PictureError, Remark
from paintback.images.picture import Picture, read_picture

few = settings(max_examples=60, derandomize=True, deadline=None)
BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0)


def hole(shape=(40, 48)):
    out = np.zeros(shape, bool)
    out[8:23, 12:24] = True
    return out


def photo(shape=(40, 48), seed=0):
    """A picture with many colours, light and dark ones."""
    rng = np.random.default_rng(seed)
    base = np.add.outer(np.linspace(0, 150, shape[0]), np.linspace(0, 80, shape[1]))[..., None]
    return (base + rng.normal(10, 8, (*shape, 3))).clip(0, 255).astype(np.uint8)


def read(source, **options):
    """The mask, and what was said of it."""
    said = []
    return masks.read_mask(source, say=said.append, **options), said


def painted(inside, outside=BLACK, where=None):
    where = hole() if where is None else where
    return np.where(where[..., None], np.array(inside, np.uint8), np.array(outside, np.uint8))


def layered(colours, alpha):
    return np.concatenate([np.broadcast_to(np.array(colours, np.uint8), (*alpha.shape, 3)), alpha[..., None]], -1)


def test_white_on_black_is_read_in_silence():
    for source in (painted(WHITE), painted(WHITE)[..., 0], hole(), hole().astype(float), Image.fromarray(hole())):
        mask, said = read(source)
        np.testing.assert_array_equal(mask, hole())
        assert said == []


@pytest.mark.parametrize("inside", [RED, GREEN, (128, 0, 0), (1, 1, 1), (90, 90, 90), (0, 0, 139)])
def test_of_two_levels_the_lighter_one_is_the_hole(inside):
    mask, said = read(painted(inside))
    np.testing.assert_array_equal(mask, hole())
    (sentence,) = said
    assert "two levels, black and " in sentence and "lighter one" in sentence and "--mask-is" in sentence
    mask, _ = read(painted(WHITE, inside))
    np.testing.assert_array_equal(mask, hole())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("as_file", [False, True])
def test_labels_of_0_and_1(tmp_path, dtype, as_file):
    source = hole().astype(dtype)
    if as_file:
        Image.fromarray(source).save(tmp_path / "m.png")
        source = tmp_path / "m.png"
    mask, said = read(source)
    np.testing.assert_array_equal(mask, hole())
    assert said == [] or f"1 of {np.iinfo(dtype).max}" in said[0]
    assert bool(said) == as_file  # an array of 0 and 1 is a usual form, a file looks black


def test_palettes(tmp_path):
    indices = hole().astype(np.uint8)
    im = Image.new("P", (48, 40))
    im.putdata(indices.ravel().tolist())
    im.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)
    im.save(tmp_path / "voc.png")
    mask, said = read(tmp_path / "voc.png")
    np.testing.assert_array_equal(mask, hole())
    assert "#800000" in said[0]


def test_instances_are_all_taken_and_one_can_be_named():
    source = painted(RED)
    source[30:36, 30:40] = GREEN
    both = source.any(-1)
    mask, said = read(source)
    np.testing.assert_array_equal(mask, both)
    assert "3 levels (black, #00ff00, #ff0000)" in said[0]
    assert "instances" in said[0] and "colour=#rrggbb" in said[0]
    for name in ("colour=#ff0000", "colour=#f00", "color=red"):
        mask, said = read(source, mask_is=name)
        np.testing.assert_array_equal(mask, hole())
        assert said == []
    mask, said = read(both.astype(np.uint8) + hole())  # 0, 1 and 2
    np.testing.assert_array_equal(mask, both)
    assert "3 levels" in said[0]


def test_a_photograph_as_the_mask_is_warned_of(tmp_path):
    picture = photo()
    mask, said = read(picture)
    assert "as a photograph" in said[0] and "swapped" in said[0] and "--mask-is" in said[0]
    np.testing.assert_array_equal(mask, picture @ np.array([0.299, 0.587, 0.114]) > 127.5)
    with pytest.warns(Remark, match="photograph"):
        masks.read_mask(picture)
    # a night photograph: dark, with a lamp and its glow
    y, x = np.indices((60, 80))
    glow = 20 + 235 * np.exp(-((y - 30) ** 2 + (x - 40) ** 2) / 300)
    night = (glow + np.random.default_rng(0).normal(0, 3, glow.shape)).clip(0, 255).astype(np.uint8)
    assert "photograph" in read(night)[1][0]


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_compression_and_soft_borders_do_not_count(quality):
    buffer = io.BytesIO()
    Image.fromarray(painted(WHITE)).save(buffer, "JPEG", quality=quality)
    mask, said = read(Image.open(buffer))
    np.testing.assert_array_equal(mask, hole())
    assert said == []
    large = Image.fromarray(hole((160, 192)).astype(np.uint8) * 255)
    small = large.rotate(12, resample=Image.Resampling.BICUBIC)
    mask, said = read(small)
    np.testing.assert_array_equal(mask, np.asarray(small) > 127)
    assert said == []


def test_text_drawn_with_soft_edges_is_a_mask():
    from paintback.images.generators import text

    large = Image.fromarray(text((600, 900), "Hello", 90).astype(np.uint8) * 255)
    small = large.resize((300, 200), Image.Resampling.BOX)
    mask, said = read(small)
    np.testing.assert_array_equal(mask, np.asarray(small) > 127)
    assert said == []


def test_strokes_on_a_transparent_layer_are_the_hole():
    soft = np.where(hole(), 255, 0).astype(np.uint8)
    soft[7, 12:24] = 60
    for colour in (WHITE, RED, (0, 0, 255), (128, 128, 128)):
        mask, said = read(layered(colour, soft))
        np.testing.assert_array_equal(mask, hole())
        assert "strokes" in said[0] and "transparent layer" in said[0]


def test_a_dark_mask_with_a_transparent_part_has_its_hole_there():
    clear = np.where(hole(), 0, 255).astype(np.uint8)
    clear[7, 12:24] = 200  # a soft edge belongs to it
    wanted = clear < 255
    mask, said = read(layered(BLACK, clear))
    np.testing.assert_array_equal(mask, wanted)
    assert "dark with a transparent part; what is not opaque" in said[0]
    mask, said = read(np.concatenate([photo(), clear[..., None]], -1))
    np.testing.assert_array_equal(mask, wanted)
    assert "several colours" in said[0]
    mask, _ = read(layered(BLACK, clear), mask_is="black")
    np.testing.assert_array_equal(mask, clear > 127)


def test_black_and_white_strokes_on_a_layer_are_laid_over_black():
    source = layered(WHITE, np.where(hole(), 255, 0).astype(np.uint8))
    source[30:35, :20] = (0, 0, 0, 255)
    mask, said = read(source)
    np.testing.assert_array_equal(mask, hole())
    assert "black and white" in said[0]


def test_an_opaque_alpha_says_nothing():
    source = np.concatenate([painted(WHITE), np.full((40, 48, 1), 255, np.uint8)], -1)
    mask, said = read(source)
    np.testing.assert_array_equal(mask, hole())
    assert said == []


def test_mask_is_settles_everything():
    source = np.concatenate([photo(), np.where(hole(), 0, 255)[..., None].astype(np.uint8)], -1)
    luma = photo() @ np.array([0.299, 0.587, 0.114])
    expected = {
        "alpha": hole(),
        "white": (luma > 127.5) & ~hole(),
        "black": (luma <= 127.5) & ~hole(),
        "nonzero": photo().any(-1) & ~hole(),
    }
    for name, wanted in expected.items():
        mask, said = read(source, mask_is=name)
        np.testing.assert_array_equal(mask, wanted, err_msg=name)
        assert said == []
    np.testing.assert_array_equal(read(hole(), mask_is="black")[0], ~hole())
    np.testing.assert_array_equal(read(torch.from_numpy(hole()), mask_is="white")[0], hole())
    for wrong in ("whit", "colour=#12", "colour=", "#ff0000", ""):
        with pytest.raises(PictureError, match=r"mask_is is .*expected one of auto, alpha, white"):
            read(source, mask_is=wrong)
    with pytest.raises(PictureError, match="no transparency"):
        read(painted(WHITE), mask_is="alpha")


def test_the_word_alpha_leaves_nothing_see_through():
    y, x = np.indices((60, 60))
    distance = np.hypot(y - 30, x - 30)
    alpha = (255 * np.clip((distance - 14) / 6, 0, 1)).astype(np.uint8)  # a hole with a feathered edge
    picture = Picture(photo((60, 60)), alpha)
    mask = masks.read_mask("alpha", picture=picture)
    np.testing.assert_array_equal(mask, alpha < 255)
    out = picture.with_pixels(np.zeros((60, 60, 3), np.float32), mask)
    assert (out.alpha == 255).all()
    np.testing.assert_array_equal(out.pixels[~mask], picture.pixels[~mask])
    with pytest.raises(PictureError, match="no alpha channel"):
        masks.mask_from_alpha(Picture(photo()))
    with pytest.raises(PictureError, match="opaque everywhere"):
        masks.mask_from_alpha(Picture(photo((60, 60)), np.full((60, 60), 255, np.uint8)))
    with pytest.raises(PictureError, match="no pixel of the picture is quite opaque"):
        masks.mask_from_alpha(Picture(photo((60, 60)), np.full((60, 60), 254, np.uint8)))


@few
@given(st.integers(0, 999), st.booleans(), st.floats(0.2, 6), st.booleans())
def test_any_soft_edge_becomes_opaque_and_nothing_else_changes(seed, deep, softness, grey):
    """Whatever was not opaque is opaque afterwards, in 8 and 16 bits; every pixel that was is as it was."""
    rng = np.random.default_rng(seed)
    shape, top = tuple(rng.integers(6, 40, 2)), 65535 if deep else 255
    centre, radius = rng.uniform(0, 1, 2) * shape, rng.uniform(1, max(shape) / 2)
    y, x = np.indices(shape)
    alpha = np.clip((np.hypot(y - centre[0], x - centre[1]) - radius) / softness, 0, 1)
    dtype = np.uint16 if deep else np.uint8
    alpha = np.round(alpha * top).astype(dtype)
    if (alpha == top).all() or not (alpha == top).any():
        return
    pixels = rng.integers(0, top + 1, (*shape, 1 if grey else 3), dtype)
    picture = Picture(pixels, alpha)
    mask = masks.read_mask("alpha", picture=picture)
    np.testing.assert_array_equal(mask, alpha < top)
    out = picture.with_pixels(rng.random((*shape, 3)).astype(np.float32), mask)
    assert out.alpha is None or (out.alpha == top).all()
    np.testing.assert_array_equal(out.pixels[alpha == top], pixels[alpha == top])


def test_a_mask_on_its_side_is_told_of_orientation():
    with pytest.raises(PictureError, match=r"24 x 12 .* 12 x 24 .*EXIF orientation.*quarter") as error:
        masks.read_mask(np.eye(12, 24), (24, 12))
    assert str(error.value).endswith(".")
    with pytest.raises(PictureError) as error:
        masks.read_mask(np.eye(12, 25), (24, 12))
    assert "orientation" not in str(error.value)


def test_grey_with_transparency_is_a_picture_everywhere(tmp_path):
    grey = photo()[..., 0]
    Image.fromarray(np.stack([grey, np.where(hole(), 0, 255).astype(np.uint8)], -1), "LA").save(tmp_path / "la.png")
    key = grey.copy()
    key[key == 77] = 78
    key[hole()] = 77
    Image.fromarray(key).save(tmp_path / "key.png", transparency=77)
    for name in ("la.png", "key.png"):
        picture = read_picture(tmp_path / name)
        assert picture.grey
        np.testing.assert_array_equal(masks.read_mask("alpha", picture=picture), hole())
        np.testing.assert_array_equal(picture.invisible, hole())
        from paintback.images import to_numpy

        again = read_picture(to_numpy(picture, as_given=True))
        np.testing.assert_array_equal(again.alpha, picture.alpha)
        np.testing.assert_array_equal(again.pixels, picture.pixels)
    assert Picture(photo()).invisible is None
    assert Picture(photo(), np.full((40, 48), 1, np.uint8)).invisible is None


COLOURS = st.tuples(*[st.integers(0, 255)] * 3)


@few
@given(COLOURS, COLOURS, st.integers(0, 99), st.booleans(), st.floats(0.02, 0.98))
def test_any_two_colours_are_a_mask(one, two, seed, deep, share):
    """Whatever the two levels are: the hole is exactly one of them, the lighter, in 8 and 16 bits."""
    if one == two:
        return
    where = np.random.default_rng(seed).random((12, 15)) < share
    source = painted(one, two, where)
    luma = [np.dot(colour, (0.299, 0.587, 0.114)) for colour in (one, two)]
    mask, said = read(source.astype(np.uint16) * 257 if deep else source)
    if where.all() or not where.any():
        return
    if abs(luma[0] - luma[1]) > 1e-3:
        np.testing.assert_array_equal(mask, where if luma[0] > luma[1] else ~where)
    else:
        assert np.array_equal(mask, where) or np.array_equal(mask, ~where)
    plain = min(max(one), max(two)) <= 63 and max(min(one), min(two)) >= 192
    assert len(said) <= 1
    if not plain:
        assert len(said) == 1


@few
@given(st.integers(0, 99), st.integers(1, 6), st.sampled_from(["JPEG", "PNG"]))
def test_any_strokes_survive_softening_and_compression(seed, radius, form):
    from paintback.images.generators import free_form

    wanted = free_form((96, 128), np.random.default_rng(seed), 0.15)
    large = Image.fromarray(wanted.astype(np.uint8) * 255).resize((256, 192), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    large.resize((128, 96), Image.Resampling.BOX).save(buffer, form)
    mask, said = read(Image.open(buffer))
    assert (mask != wanted).mean() < 0.01
    assert said == []


@few
@given(st.integers(0, 999))
def test_any_photograph_is_warned_of(seed):
    assert len(read(photo((48, 64), seed))[1]) == 1
