"""`seeds` makes each picture again by itself, or says that no seed does; whole numbers may stand for generators."""

from __future__ import annotations

import random
import re

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from pydantic import ValidationError

import paintback as pb
from paintback.painting.request import LARGEST_SEED, Request
from paintback.painting.session import seeded
from paintback.randomness import fresh_seed, one_or_each
from tests.tasks.test_inpaint import tiny_model

CALL = {"method": "ding", "num_inference_steps": 3, "output_type": "np"}
IMAGE = np.random.default_rng(0).random((32, 40, 3)).astype(np.float32)
MASK = np.zeros((32, 40), bool)
MASK[8:20, 10:26] = True


@pytest.fixture(scope="module")
def inpainter() -> pb.Inpainter:
    made = pb.Inpainter(tiny_model())
    made.set_progress_bar_config(disable=True)
    return made


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def used(seed):
    generator = torch.Generator().manual_seed(seed)
    torch.rand(1, generator=generator)
    return generator


@pytest.mark.parametrize(
    ("given", "count", "seeds"),
    [
        (lambda: torch.Generator().manual_seed(5), 1, [5]),
        (lambda: torch.Generator().manual_seed(5), 3, [None, None, None]),
        (lambda: used(5), 1, [None]),
        (lambda: generators(5, 6), 2, [5, 6]),
        (lambda: [used(5), *generators(6)], 2, [None, 6]),
        (lambda: generators(5) * 2, 2, [None, None]),
        (lambda: 42, 3, [42, 43, 44]),
        (lambda: np.int64(42), 1, [42]),
        (lambda: [3, 9], 2, [3, 9]),
        (lambda: (3, torch.Generator().manual_seed(9)), 2, [3, 9]),
        (lambda: np.array([3, 9]), 2, [3, 9]),
        (lambda: torch.tensor(42), 2, [42, 43]),
    ],
)
def test_seeds_are_those_that_make_each_picture_alone(inpainter, given, count, seeds):
    out = inpainter(IMAGE, MASK, num_images_per_prompt=count, generator=given(), **CALL)
    assert out.seeds == seeds
    for seed, image in zip(out.seeds, out.images, strict=True):
        if seed is not None:
            alone = inpainter(IMAGE, MASK, generator=generators(seed), **CALL).images[0]
            assert abs(alone - image).max() < 1e-5  # kernels differ by batch size


def test_random_seeds_of_a_list_are_each_their_own():
    for _ in range(5):
        first, told, third = seeded([-1, 7, -1], 3)
        assert told.initial_seed() == 7 and first.initial_seed() != third.initial_seed()
        assert all(0 <= one.initial_seed() < 2**53 for one in (first, third))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (-2, "between 0 and 9223372036854775807, or -1 for a random one; got -2"),
        ([3, -7], "got -7"),
        (2**63 - 1, "got 9223372036854775808"),  # the second sample's
        (2**70, "or -1 for a random one"),
        (True, "generator must be a torch.Generator, a list of them, or a seed; got True"),
        (1.5, "or a seed; got 1.5"),
        (float("nan"), "or a seed; got nan"),
        ([1, "2"], "or a seed; got "),
        ("5", "or a seed; got '5'"),
    ],
)
def test_what_is_no_seed_is_said(inpainter, given, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        inpainter(IMAGE, MASK, generator=given, num_images_per_prompt=2, **CALL)


@pytest.mark.parametrize("draw", range(60))
def test_any_seed_comes_back_as_it_was_given_or_is_refused(draw):
    """Whatever whole number, of whatever type: Python refuses what the request refuses, and reports what it took."""
    pick = random.Random(draw)
    seed = pick.choice([pick.randrange(-10, 10), pick.randrange(-(2**70), 2**70), LARGEST_SEED - pick.randrange(2)])
    count = pick.choice([1, 2, 3])
    given = pick.choice([int, np.int64, np.uint64])(seed) if 0 <= seed <= LARGEST_SEED else seed
    try:
        Request(photo="a.png", seed=seed)
        fits = seed + count - 1 <= LARGEST_SEED
    except ValidationError:
        fits = False
    if not fits:
        with pytest.raises(ValueError, match="Seeds must be between 0 and"):
            seeded(given, count)
        return
    seeds = one_or_each(seeded(given, count), count)[1]
    assert seeds == [seeds[0] + k for k in range(count)]
    assert seed == -1 or seeds[0] == seed


@pytest.mark.parametrize("given", [None, -1])
def test_random_seeds_are_told(inpainter, given):
    first, second = (inpainter(IMAGE, MASK, generator=given, num_images_per_prompt=2, **CALL) for _ in "ab")
    assert first.seeds[1] == first.seeds[0] + 1 and first.seeds != second.seeds
    again = inpainter(IMAGE, MASK, generator=first.seeds, num_images_per_prompt=2, **CALL)
    assert (again.images == first.images).all()


def test_a_generator_that_is_used_twice_tells_its_seed_once(inpainter):
    generator = torch.Generator().manual_seed(5)
    assert inpainter(IMAGE, MASK, generator=generator, **CALL).seeds == [5]
    assert inpainter(IMAGE, MASK, generator=generator, **CALL).seeds == [None]


def test_two_pictures_with_one_generator_have_no_seeds(inpainter):
    generator = torch.Generator().manual_seed(5)
    assert inpainter([IMAGE, IMAGE], MASK, generator=generator, **CALL).seeds == [None, None]
    assert one_or_each(None, 2)[1][1] is not None


@hypothesis.settings(max_examples=12, derandomize=True, deadline=None)
@hypothesis.given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 4)), min_size=1, max_size=4))
def test_any_generators_whatever_tell_seeds_that_hold(inpainter, drawn):
    """Fresh ones, used ones, whole numbers, the same one twice: a seed that is told makes its picture again, alone."""
    made = []
    for seed, number, kind in drawn:
        if number:
            made.append(seed)
        elif kind == 0 and any(isinstance(one, torch.Generator) for one in made):
            made.append(next(one for one in made if isinstance(one, torch.Generator)))
        else:
            made.append(used(seed) if kind == 1 else torch.Generator().manual_seed(seed))
    unsure = [isinstance(one, torch.Generator) and (sum(one is other for other in made) > 1) for one in made]
    fresh = [not isinstance(one, torch.Generator) or fresh_seed(one) is not None for one in made]
    out = inpainter(IMAGE, MASK, num_images_per_prompt=len(made), generator=made, **CALL)
    assert [seed is None for seed in out.seeds] == [a or not b for a, b in zip(unsure, fresh, strict=True)]
    for seed, image in zip(out.seeds, out.images, strict=True):
        if seed is not None:
            alone = inpainter(IMAGE, MASK, generator=generators(seed), **CALL).images[0]
            assert abs(alone - image).max() < 1e-5
