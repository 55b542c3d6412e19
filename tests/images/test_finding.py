"""Finding the hole: damage of known place is found, and little else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from paintback.images import Picture, PictureError, grow, lines, read_mask
from paintback.images.finding import colour, dust, find, object_at, object_in, refine, same_as, scratches, text

pytest.importorskip("skimage")
pytest.importorskip("cv2")
few = settings(max_examples=5, derandomize=True, deadline=None)


def plain(shape=(200, 260), seed=0):
    """A gradient with grain, (H, W, 3) uint8: what an old print's sky is like."""
    grain = np.random.default_rng(seed).normal(0, 3, shape)
    grey = 90 + 80 * np.arange(shape[1])[None] / shape[1] + grain
    return np.repeat(grey[..., None], 3, -1).clip(0, 255).astype(np.uint8)


def score(mask, truth):
    """Precision within three pixels, and recall."""
    near = ndimage.distance_transform_edt(~truth) <= 3
    return (mask & near).sum() / max(1, mask.sum()), (mask & truth).sum() / truth.sum()


@few
@given(st.integers(0, 99), st.sampled_from([0, 255]))
def test_dust_is_found_wherever_it_lies(seed, level):
    rng = np.random.default_rng(seed)
    photo, truth = plain(seed=seed), np.zeros((200, 260), bool)
    y, x = np.indices(truth.shape)
    for corner in np.argwhere(np.ones((3, 4))) * 60 + 15:  # they stand apart
        place = corner + rng.uniform(0, 40, 2)
        truth |= np.hypot(y - place[0], x - place[1]) <= rng.uniform(1, 2.5)
    photo[truth] = level
    precision, recall = score(dust(Picture(photo)), truth)
    assert precision >= 0.95
    assert recall >= 0.95
    assert not dust(Picture(plain(seed=seed))).any()


@few
@given(st.integers(0, 99), st.sampled_from([20, 240]), st.sampled_from([1.0, 2.0, 3.0]))
def test_scratches_are_found_wherever_they_lie(seed, level, width):
    photo = plain(seed=seed)
    drawn = lines((200, 260), np.random.default_rng(seed), width, 2)
    labels, count = ndimage.label(drawn, np.ones((3, 3)))
    long = [k for k in range(1, count + 1) if (labels == k).sum() >= 60 * width]  # the rest lies outside the picture
    truth = np.isin(labels, long)
    photo[truth] = level
    if not long:
        return
    precision, recall = score(scratches(Picture(photo)), truth)
    assert precision >= 0.95
    assert recall >= 0.9
    assert not scratches(Picture(plain(seed=seed))).any()


@pytest.mark.parametrize("ink", [(255, 140, 0), (255, 255, 255), (0, 0, 0)])
def test_print_is_found(ink):
    page = Image.new("L", (260, 200))
    ImageDraw.Draw(page).text((30, 80), "12.31.99 23:58", fill=255, font=ImageFont.load_default(22))
    share = np.asarray(page)[..., None] / 255
    photo = (plain() * (1 - share) + np.array(ink) * share).astype(np.uint8)
    precision, recall = score(text(Picture(photo)), share[..., 0] > 0.25)
    assert precision >= 0.95
    assert recall >= 0.95
    assert not text(Picture(plain())).any()


def test_colours_and_what_is_connected():
    photo = plain()
    photo[20:40, 30:60] = photo[100:120, 30:60] = (220, 10, 10)
    both = np.zeros((200, 260), bool)
    both[20:40, 30:60] = both[100:120, 30:60] = True
    for name in ("#dc0a0a", "#d11"):
        mask = colour(Picture(photo), name)
        assert mask[both].all()
        assert (mask & ~ndimage.binary_dilation(both, iterations=2)).sum() == 0
    one = same_as(Picture(photo), 40, 30)
    assert one[25:35, 35:55].all()
    assert not one[90:].any()
    for wrong in ("redd", "", "#12"):
        with pytest.raises(PictureError, match="no colour"):
            colour(Picture(photo), wrong)
    with pytest.raises(PictureError, match="no pixel 260,0"):
        same_as(Picture(photo), 260, 0)


def test_an_object_in_a_box():
    photo = plain()
    y, x = np.indices((200, 260))
    truth = np.hypot((y - 100) / 40, (x - 130) / 30) <= 1
    photo[truth] = np.stack([200 - y[truth] // 2, 60 + x[truth] // 4, 0 * y[truth] + 40], -1)
    mask = object_in(Picture(photo), 90, 50, 80, 100)
    assert (mask & truth).sum() / truth.sum() > 0.97
    assert (mask & ~ndimage.binary_dilation(truth, iterations=5)).sum() == 0
    np.testing.assert_array_equal(mask, object_in(Picture(photo), 90, 50, 80, 100))  # no chance in it
    for box in ((0, 0, 260, 200), (200, 0, 100, 10), (0, 0, 0, 4)):
        with pytest.raises(PictureError, match="inside the picture"):
            object_in(Picture(photo), *box)


def test_words():
    photo = plain()
    photo[60:63, 20:200] = 250
    photo[150:154, 100:104] = 0
    picture = Picture(photo)
    found = find("dust+scratches", picture)
    np.testing.assert_array_equal(found, dust(picture) | scratches(picture))
    np.testing.assert_array_equal(read_mask("auto:scratches", picture=picture), scratches(picture))
    assert found[60:63, 24:196].all() and found[151:153, 101:103].all()
    assert find("colour=#000000", picture)[151, 101]
    with pytest.raises(PictureError, match="no text was found"):
        find("text", picture)
    for wrong in ("rust", "dust=3", "same-as=1", "object=1,2,3", "object=a,b,c,d", ""):
        with pytest.raises(PictureError):
            find(wrong, picture)
    with pytest.raises(PictureError, match="above 0"):
        find("dust", picture, 0)
    np.testing.assert_array_equal(find("dust", Picture(photo[..., :1])), dust(picture))  # grey alike


@pytest.mark.slow
def test_large_scans_are_scaled():
    """The same damage, three times as large, is found."""
    photo = plain((1200, 1900))
    photo[500:506, 200:1500] = 250
    y, x = np.indices((1200, 1900))
    spot = np.hypot(y - 900, x - 900) <= 5
    photo[spot] = 0
    picture = Picture(photo)
    assert scratches(picture)[501:505, 220:1480].all()
    assert dust(picture)[spot].mean() > 0.95


def ellipse(photo):
    """Paints an object, and says where."""
    y, x = np.indices(photo.shape[:2])
    truth = np.hypot((y - 100) / 40, (x - 130) / 30) <= 1
    photo[truth] = np.stack([200 - y[truth] // 2, 60 + x[truth] // 4, 0 * y[truth] + 40], -1)
    return truth


@few
@given(st.sampled_from([(130, 100), (120, 80), (145, 115), (130, 70)]))
def test_the_object_at_a_pixel(at):
    photo = plain()
    truth = ellipse(photo)
    mask = object_at(Picture(photo), *at)
    assert (mask & truth).sum() / truth.sum() > 0.8
    assert (mask & ~ndimage.binary_dilation(truth, iterations=5)).sum() == 0
    np.testing.assert_array_equal(mask, find(f"object-at={at[0]},{at[1]}", Picture(photo)))
    with pytest.raises(PictureError, match="no pixel 260,0"):
        object_at(Picture(photo), 260, 0)


@pytest.mark.parametrize("by", [-6, 6])
def test_the_edge_of_a_rough_mask_is_moved_to_the_object(by):
    photo = plain()
    truth = ellipse(photo)
    mask = refine(Picture(photo), grow(truth, by))
    assert (mask & truth).sum() / truth.sum() > 0.99
    assert (mask & ~ndimage.binary_dilation(truth, iterations=4)).sum() == 0
    assert not refine(Picture(photo), np.zeros_like(truth)).any()
