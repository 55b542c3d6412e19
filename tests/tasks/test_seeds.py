"""`seeds` makes each picture again by itself, or says that no seed does; whole numbers may stand for generators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.randomness import one_or_each
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
    ],
)
def test_seeds_are_those_that_make_each_picture_alone(inpainter, given, count, seeds):
    out = inpainter(IMAGE, MASK, num_images_per_prompt=count, generator=given(), **CALL)
    assert out.seeds == seeds
    for seed, image in zip(out.seeds, out.images, strict=True):
        if seed is not None:
            alone = inpainter(IMAGE, MASK, generator=generators(seed), **CALL).images[0]
            assert abs(alone - image).max() < 1e-5  # kernels differ by batch size


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
