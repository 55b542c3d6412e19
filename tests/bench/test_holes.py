"""The holes of `paintback bench holes`: how much they hide, where, and what an unknown one is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paintback import methods
from paintback.bench.holes import KINDS, SIZED, compare_holes, crops, mask_set, steps_within


@pytest.mark.parametrize("size", [8, 16, 24])
@pytest.mark.parametrize("kind", SIZED)
def test_a_size_says_how_much_is_hidden(kind: str, size: int) -> None:
    (mask,) = mask_set((96, 64), 3, [kind], [size]).values()
    assert mask.shape == (96, 64)
    if kind in ("box", "scattered"):
        assert mask.sum() == size**2
    elif kind == "strip":
        assert mask[:, -max(1, round(size**2 / 96)) :].all() and not mask[:, :48].any()
    else:  # the last scratch, the letters' pixels at the same distance from the middle
        assert size**2 <= mask.sum() <= size**2 + 140


def test_sets_have_names_and_seeds() -> None:
    made = mask_set((64, 64), 0, ["box", "scattered"], [8, 16])
    assert list(made) == ["box 8", "box 16", "scattered 8", "scattered 16"]
    again, other = (mask_set((64, 64), seed, ["box", "scattered"], [8, 16]) for seed in (0, 1))
    assert all(np.array_equal(made[name], again[name]) for name in made)
    assert not np.array_equal(made["scattered 8"], other["scattered 8"])
    usual = mask_set((128, 128), 0)
    assert list(usual) == ["scratches", "text", "box"] and usual["box"].sum() == 32**2
    more = mask_set((128, 128), 0, KINDS)
    assert all(np.array_equal(mask, more[kind]) for kind, mask in usual.items())
    assert more["strip"].sum() == more["scattered"].sum() == 128 * 64
    assert more["quarter"].sum() == 64 * 64 and more["outpaint"].sum() == 128**2 - 104**2
    assert (more["ellipse"].any(1).sum(), more["wide-ellipse"].any(1).sum()) == (64, 118)
    assert 60 * 4 < more["dust"].sum() < 60 * 55
    assert more["half"][64:].all() and not more["half"][:64].any()
    assert more["sky"][10:31].all() and more["sky"].sum() == 21 * 128
    assert (more["object"].any(1).sum(), more["object"].any(0).sum()) == (47, 23)


def test_an_object_stands_where_the_texture_is_alike_on_all_sides() -> None:
    picture = np.full((128, 128, 3), 120, np.uint8)
    picture[30:120, 60:126] = np.random.default_rng(0).integers(0, 256, (90, 66, 3))
    (mask,) = mask_set((128, 128), 0, ["object"], picture=picture).values()
    assert mask[30:120, 60:126].sum() == mask.sum() > 800


def test_qualities_are_measured_by_the_models_own_samplers(tmp_path: Path) -> None:
    from paintback.tasks.inpaint import Inpainter
    from tests.tasks.test_inpaint import tiny_model

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    scores = compare_holes(
        tmp_path,
        Inpainter(tiny_model()),
        {},
        lpips=None,
        num_inference_steps=3,
        samples=2,
        crop=32,
        kinds=["object"],
        qualities=["fast", "best"],
        classical=False,
    )
    assert [score.filler for score in scores] == [
        "fast, one sample",
        "fast, mean of 2",
        "best, one sample",
        "best, mean of 1",
    ]
    assert scores[2].evaluations > 8 * scores[0].evaluations > 0


def test_whole_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (70, 40), (1, 2, 3)).save(tmp_path / "a.png")
    assert [(name, pixels.shape) for name, pixels in crops(tmp_path, 0, None)] == [("a.png", (40, 70, 3))]
    assert [pixels.shape for _, pixels in crops(tmp_path, 32, None)] == [(32, 32, 3)]


def test_text_ends_where_the_crop_does() -> None:
    (mask,) = mask_set((64, 64), 0, ["text"], [40]).values()
    assert 0 < mask.sum() < 40**2


@pytest.mark.parametrize(("kinds", "sizes"), [(["star"], []), (["box"], [0]), (["box"], [64]), (["dust"], [8])])
def test_what_does_not_fit(kinds: list[str], sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"valid are scratches, text|between 1 and the crop's 63|take no size"):
        mask_set((64, 64), 0, kinds, sizes)


def test_steps_for_a_budget() -> None:
    assert steps_within(methods.get("ddnm"), 50) == 50
    gradpaint = methods.get("gradpaint")
    steps = steps_within(gradpaint, 50)
    assert gradpaint.evaluations(steps) <= 50 < gradpaint.evaluations(steps + 1)
    with pytest.raises(ValueError, match="allow more"):
        steps_within(methods.get("fcs"), 5)
