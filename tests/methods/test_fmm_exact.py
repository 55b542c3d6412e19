"""FMM's cycles and weighted paths: what they cost, and that they mend the weights of modes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import paintback as pb
from paintback.bench.cases import case
from paintback.methods.run import Run
from paintback.observation import AveragePool
from paintback.priors import GaussianMixture
from paintback.schedules import EDM, VP, Flow, make_grid


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def kl(problem, steps, samples=4000, seed=0, **fields):
    at = case(problem)
    method = pb.methods.get("fmm", damping=0.0, **fields)
    result = method.sample(at.prior.denoiser(VP(), at.shape), at.observation, steps, seeded(seed), num_samples=samples)
    return at.kl(result.x), result.evaluations


@pytest.mark.parametrize("schedule", [VP(), Flow(), EDM()], ids=["vp", "flow", "edm"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_without_cycles_and_particles_it_is_the_equation(schedule, eta):
    """Bit by bit: the equation at the head of the file, written a second time."""
    at = case("E")
    method = pb.methods.get("fmm", eta=eta)
    got = method.sample(at.prior.denoiser(schedule, at.shape), at.observation, 6, seeded(), num_samples=5).x
    denoiser = at.prior.denoiser(schedule, at.shape).in_coordinates("vp")
    times = make_grid(denoiser.schedule, 6, method.grid(denoiser, 6))
    run = Run(denoiser, at.observation, times, seeded(), 5)
    x = run.noise() * times[0].sigma
    before = None
    for t, s in pairwise(times[:-1]):
        mean = method.conditional(run, x, t)
        decay = t.alpha * s.sigma / (s.alpha * t.sigma)
        length = -math.log(decay)
        drift = mean if before is None else mean + (mean - before[0]) * length / (2 * before[1])
        before = (mean, length)
        noisy = decay ** (eta**2)
        x = s.sigma / t.sigma * noisy * x + s.alpha * (1 - decay * noisy) * drift
        x = x + s.sigma * math.sqrt(1 - noisy**2) * run.noise() if eta else x
    wanted = torch.where(run.known, run.y, method.conditional(run, x, times[-2]))
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize(
    "fields",
    [{"cycles": 2}, {"cycles": 3, "cycle_steps": 2, "iterations": 1}, {"particles": 3}, {"cycles": 1, "particles": 2}],
    ids=str,
)
def test_cost(steps, fields):
    at = case("A")
    method = pb.methods.get("fmm", **fields)
    result = method.sample(at.prior.denoiser(VP(), at.shape), at.observation, steps, seeded(), num_samples=2)
    each = (1 + method.iterations) * method.particles
    cycles = method.cycles * method.cycle_steps if steps > 1 else 0
    assert result.evaluations == method.evaluations(steps) == each * (steps + cycles)
    assert result.x.shape == (2, 2)


def test_cost_on_given_times():
    """Three cycles of three steps of three evaluations, where the times cross 0.2 above the last one."""
    at, schedule = case("A"), VP()
    method = pb.methods.get("fmm", cycles=3)
    for levels, cost in (([2.0, 0.5, 0.1], 36), ([2.0, 0.5, 0.3], 9), ([0.15, 0.1], 6)):
        grid = torch.cat((schedule.time_of_ratio(torch.tensor(levels)), torch.zeros(1).double()))
        result = method.sample(
            at.prior.denoiser(schedule, at.shape), at.observation, len(levels), seeded(), num_samples=2, grid=grid
        )
        assert result.evaluations == method.evaluations(len(levels), make_grid(schedule, len(levels), grid)) == cost


def test_times_of_a_cycle():
    at, schedule = case("A"), VP()
    denoiser = at.prior.denoiser(schedule, at.shape)
    end = schedule.at(float(schedule.time_of_ratio(torch.tensor(0.1))))
    method = pb.methods.get("fmm", cycles=1, cycle_from=0.8, cycle_steps=3)
    for first, top in ((5.0, 0.8), (0.4, 0.4)):  # never noisier than the run's first time
        start = schedule.at(float(schedule.time_of_ratio(torch.tensor(first))))
        path = method._cycles.way(Run(denoiser, at.observation, [start, end, schedule.at(0.0)], None, 1), end)
        assert path[0].ratio == pytest.approx(top, rel=1e-4)
        assert path[-1] == end
        logs = [math.log(a.ratio / b.ratio) for a, b in pairwise(path)]
        assert logs == pytest.approx([math.log(top / 0.1) / 3] * 3, rel=1e-3)


@pytest.mark.parametrize(("problem", "ratio"), [("C", 0.85), ("C2", 0.9)])
def test_cycles_mend_the_weights_of_modes_at_equal_cost(problem, ratio):
    plain, cost = kl(problem, 24, iterations=1, high=15.0)
    cycled, same = kl(problem, 15, iterations=1, high=15.0, cycles=3)
    assert cost == same == 48
    assert cycled < ratio * plain


@pytest.mark.parametrize(("problem", "limit"), [("C", 0.055), ("C2", 0.085)])
def test_particles_beat_the_frontier_at_a_hundred_evaluations(problem, limit):
    """Best of others at 100: 0.068 with gradients and 0.105 without on C, 0.142 on C2."""
    got, cost = kl(problem, 16, iterations=1, high=15.0, particles=3)
    assert cost == 96
    assert got < limit


def test_more_particles_and_steps_go_to_the_posterior():
    """Steps alone stay near 0.11; about 0.015 is what 2,000 exact samples have."""
    settings = ((16, 1), (16, 3), (24, 8))
    values = [kl("C", n, 2000, iterations=1, high=15.0, particles=k)[0] for n, k in settings]
    assert values[0] > 2 * values[1] > 3 * values[2]
    assert values[2] < 0.04
    assert kl("C", 60, 2000, iterations=1, high=15.0)[0] > 0.08


def test_particles_with_a_noisy_y():
    one, many = (kl("C-noisy", 24, iterations=1, high=15.0, particles=k, samples=1000)[0] for k in (1, 6))
    assert many < 0.5 * one


@pytest.mark.parametrize("fields", [{"cycles": 3}, {"particles": 4}, {"cycles": 2, "particles": 2}], ids=str)
def test_a_gaussian_stays_right(fields):
    assert kl("A", 16, iterations=1, high=15.0, **fields)[0] < 0.006


def test_weights_are_equal_where_nothing_is_known():
    prior = GaussianMixture([[0.5, -0.3]], [[[1.0, 0.8], [0.8, 1.0]]])
    nothing = pb.Observation(torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    denoiser, times = prior.denoiser(VP()), make_grid(VP(), 5)
    method = pb.methods.get("fmm", particles=3, cycles=1)
    run = Run(denoiser, nothing, times, seeded(), 4)
    x = method.start(run)
    for t, s in pairwise(times[:-1]):
        x = method.step(run, x, t, s)
    assert torch.equal(run.memory["log_weights"], torch.zeros(12).double())


def test_the_heaviest_path_is_taken():
    """One path is left at a far point, whose weight is 0; the sample is never there."""
    at = case("A")
    denoiser, times = at.prior.denoiser(VP(), at.shape), make_grid(VP(), 5, pb.schedules.log_snr())
    method = pb.methods.get("fmm", particles=2)
    run = Run(denoiser, at.observation, times, seeded(), 50)
    x = method.start(run)
    for t, s in pairwise(times[:-1]):
        x = method.step(run, x, t, s)
    rows = run.memory["particles"]
    rows[::2] = 40.0
    picked = method.finish(run, x, times[-2])
    assert picked.shape == (50, 2)
    assert picked[:, 0].abs().max() < 10


def test_a_sample_with_particles_does_not_depend_on_its_batch():
    at = case("E")
    denoiser, method = at.prior.denoiser(VP(), at.shape), pb.methods.get("fmm", particles=3, cycles=1)
    y = at.observation.y[None].repeat(3, 1).double() * torch.tensor([[1.0], [5.0], [0.2]])
    seen = []
    together = method.sample(
        denoiser,
        pb.Observation(y, at.observation.known),
        8,
        [seeded(k) for k in range(3)],
        callback=lambda step, t, x, x0: seen.append((x.shape, x0.shape)),
    ).x
    assert set(seen) == {((3, 16), (3, 16))}
    for k in range(3):
        alone = method.sample(denoiser, pb.Observation(y[k : k + 1], at.observation.known), 8, [seeded(k)]).x
        torch.testing.assert_close(alone[0], together[k], atol=1e-10, rtol=0)


def test_particles_take_operators():
    prior = GaussianMixture(torch.zeros(1, 16).double(), torch.eye(16).double()[None] + 0.5)
    y = torch.tensor([[[1.0, -1.0], [0.5, 2.0]]]).double()
    observation = pb.Observation(y, operator=AveragePool(2), sigma=0.05)
    method = pb.methods.get("fmm", particles=3, iterations=3)
    x = method.sample(prior.denoiser(VP(), (1, 4, 4)), observation, 30, seeded(), num_samples=400).x
    exact = prior.posterior(observation).mean().reshape(1, 4, 4)
    assert (x.mean(0) - exact).abs().max() < 0.2
    assert (AveragePool(2)(x) - y).square().mean().sqrt() == pytest.approx(0.05, rel=0.3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cycles": 1, "cycle_from": 0.1}, "cycle_from must be above cycle_to"),
        ({"cycles": 1, "low": 0.3}, "low must not be above cycle_to"),
        ({"particles": 2, "eta": 0.0}, "set eta above 0"),
        ({"particles": 2, "iterations": 0}, "iterations to at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        pb.methods.get("fmm", **fields)
