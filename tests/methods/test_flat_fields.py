"""Flat areas with faint noise, on whatever `photo` is shipped: what is painted stays what is around it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import paintback as pb
from paintback import models
from paintback.denoiser import Denoiser
from paintback.methods import get
from research.flat_fields import RECOMMENDED, Field, Filled, Hole, Way, every_field, every_hole, fill

DOZEN = [
    *(Field.plain(level, 2.0) for level in (30.0, 100.0, 170.0, 205.0, 235.0, 250.0)),
    Field.plain(235.0, 0.0),
    Field.plain(128.0, 8.0),
    Field.plain((170, 60, 50), 2.0, "brick"),
    Field.plain((80, 120, 170), 1.0, "sky"),
    Field("paper in the light", ((200, 200, 195), (240, 240, 235)), 2.0),
    Field("evening", ((60, 70, 110), (190, 160, 130)), 1.0),
]


@cache
def photo() -> Denoiser:
    return models.load("photo").denoiser()


# These take longest.
MARKS = {
    label: [pytest.mark.slow]
    for label in ("fmm", "lanpaint", "ding", "ding, delayed", "ddnm", "good, thin", "fast, thin")
}


@pytest.mark.parametrize("label", [pytest.param(label, marks=MARKS.get(label, [])) for label in RECOMMENDED])
def test_a_dozen_fields_stay_flat(label: str) -> None:
    """No pixel farther from the noise-free field than 6 noise deviations and 12 levels."""
    filled = fill(label, RECOMMENDED[label], photo(), [Hole(one, 16) for one in DOZEN], side=48)
    assert [one for one in filled if one.over > 0] == []


@pytest.mark.parametrize("level", [30, 235])
def test_paper_stays_paper_in_a_picture(level: int) -> None:
    """As a picture goes through the whole package."""
    field = Field.plain(float(level), 2.0)
    picture = field.noisy(48, torch.Generator().manual_seed(0)).permute(1, 2, 0).to(torch.uint8).numpy()
    mask = np.zeros((48, 48), bool)
    mask[16:32, 16:32] = True
    out = pb.inpaint(picture, mask, quality="fast", generator=0, output_type="np").images[0]
    assert abs(255 * out[mask] - level).max() <= field.allowed


def test_a_field_does_not_depend_on_the_others() -> None:
    two = [Hole(Field.plain(235.0, 2.0), 6), Hole(Field.plain(30.0, 2.0), 8, seed=3)]
    together = fill("fmm", Way(get("fmm"), 3), photo(), two, side=16)
    alone = fill("fmm", Way(get("fmm"), 3), photo(), two[1:], side=16)
    assert isinstance(alone[0], Filled)
    assert abs(together[1].worst - alone[0].worst) <= 1
    assert together[0].over == together[0].worst - 24


def test_holes_by_turns_are_all_of_them() -> None:
    fields, sides = every_field(), (8, 16, 24)
    every = every_hole(fields, sides, 20, 12)
    assert len({(hole.field.name, hole.field.noise, hole.side) for hole in every}) == len(every) == 240
    assert {hole.seed for hole in every} == set(range(20))
    for seed in range(20):  # every seed has all sizes, and many a level and noise
        mine = [hole for hole in every if hole.seed == seed]
        assert {hole.side for hole in mine} == set(sides)
        assert len({hole.field.noise for hole in mine}) >= 3 and len({hole.field.name for hole in mine}) >= 8
    assert len(every_hole(fields, sides, 2)) == 2 * 240
