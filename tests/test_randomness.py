"""Every draw goes through the generators that were passed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from paintback.randomness import Generators, seed_from_system


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_list_of_generators_is_independent_of_the_batch(draw: str) -> None:
    seeds = [3, 1, 4, 5]
    batch = Generators([seeded(s) for s in seeds], 4)
    first, second = (getattr(batch, draw)(torch.empty(4, 2, 3)) for _ in range(2))
    for k, seed in enumerate(seeds):
        alone = Generators([seeded(seed)], 1)
        assert torch.equal(getattr(alone, draw)(torch.empty(1, 2, 3))[0], first[k])
        assert torch.equal(getattr(alone, draw)(torch.empty(1, 2, 3))[0], second[k])
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_one_generator_draws_the_batch_in_one_call(draw: str) -> None:
    found = getattr(Generators(seeded(7), 4), draw)(torch.empty(4, 2, 3))
    function = torch.randn if draw == "normal" else torch.rand
    assert torch.equal(found, function(4, 2, 3, generator=seeded(7)))


def test_noise_is_the_same_in_both_dtypes() -> None:
    for generators in (lambda: seeded(2), lambda: [seeded(2), seeded(3)]):
        single = Generators(generators(), 2).normal(torch.empty(2, 5))
        double = Generators(generators(), 2).normal(torch.empty(2, 5, dtype=torch.float64))
        assert single.dtype == torch.float32
        assert double.dtype == torch.float64
        assert torch.equal(single.double(), double)


def test_laws() -> None:
    draw = Generators(seeded(0), 20_000)
    assert kstest(draw.normal(torch.empty(20_000)).numpy(), "norm").pvalue > 1e-3
    uniform = draw.uniform(torch.empty(20_000)).numpy()
    assert kstest(uniform, "uniform").pvalue > 1e-3
    assert uniform.min() >= 0
    assert uniform.max() < 1


def test_nothing_global_is_touched() -> None:
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for generator in (None, seeded(1), [seeded(1), seeded(2)]):
        draw = Generators(generator, 2)
        draw.normal(torch.empty(2, 3))
        draw.uniform(torch.empty(2, 3))
    seed_from_system()
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_global_seed_has_no_influence() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one = Generators(None, 2).normal(torch.empty(2, 8))
        torch.manual_seed(0)
        two = Generators(None, 2).normal(torch.empty(2, 8))
    assert not torch.equal(one, two)


def test_seeds_are_exact_in_json() -> None:
    seeds = {seed_from_system() for _ in range(200)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert max(seeds) > 2**50  # all bits are used


def test_list_of_another_length() -> None:
    with pytest.raises(ValueError, match="list of 2 generators for 3 samples; give one generator or one per sample"):
        Generators([seeded(0), seeded(1)], 3)
