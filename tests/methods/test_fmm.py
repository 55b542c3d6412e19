"""Forward moment matching against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

import paintback as pb
from paintback.bench.cases import case
from paintback.methods.run import Run
from paintback.observation import AveragePool
from paintback.priors import GaussianMixture
from paintback.schedules import EDM, VP, Flow, make_grid


def conditional(prior, observation, x, ratio=1.0, schedule=None, **fields):
    """x0' at a noise level, and the run."""
    schedule = schedule or VP()
    t = schedule.at(float(schedule.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))))
    times = [t, *make_grid(schedule, 1)[1:]]
    run = Run(prior.denoiser(schedule, tuple(x.shape[1:])), observation, times, None, len(x))
    method = pb.methods.get("fmm", coordinates=None, hold=0.0, **{"damping": 0.0, **fields})
    return method.conditional(run, x, t), run, t


def exact(prior, observation, x, t):
    """E[x0 | x_t, y] of a single Gaussian: the posterior of y, conditioned on x_t too."""
    d = prior.dim
    known = observation.known.flatten()
    mean, covariance = prior.means[0], prior.covariances[0]
    rows = [torch.eye(d, dtype=torch.float64)[known], t.alpha * torch.eye(d, dtype=torch.float64)]
    a = torch.cat(rows)
    noise = torch.cat(
        (torch.full((int(known.sum()),), observation.sigma**2), torch.full((d,), t.sigma**2)),
    ).double()
    gain = covariance @ a.T @ torch.linalg.inv(a @ covariance @ a.T + noise.diag())
    data = torch.cat((observation.y.flatten()[known].expand(len(x), -1), x.flatten(1)), dim=1)
    return mean + (data - mean @ a.T) @ gain.T


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("ratio", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("schedule", [VP(), Flow(), EDM()], ids=["vp", "flow", "edm"])
def test_on_a_gaussian_it_is_the_conditional_mean(sigma, ratio, schedule):
    place = torch.arange(6, dtype=torch.float64)
    prior = GaussianMixture(place[None] / 6, (0.8 ** (place - place[:, None]).abs())[None])
    known = torch.tensor([True, False, False, True, False, True])
    observation = pb.Observation(torch.randn(6, generator=torch.Generator().manual_seed(0)).double(), known, sigma)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)).double()
    got, _, t = conditional(prior, observation, x, ratio, schedule, iterations=3)
    torch.testing.assert_close(got, exact(prior, observation, x, t), atol=1e-6, rtol=1e-5)
    rough, _, _ = conditional(prior, observation, x, ratio, schedule, iterations=1)
    assert (rough - got).abs().max() > 1e-3


@pytest.mark.parametrize("schedule", [VP(), Flow(), EDM()], ids=["vp", "flow", "edm"])
def test_damping_adds_to_the_covariance(schedule):
    """Solved to the end, x0 + V m (m V m + sigma_y^2)^-1 e with V = Cov[x0 | x_t] + c (sigma / alpha)^2."""
    place = torch.arange(6, dtype=torch.float64)
    prior = GaussianMixture(place[None] / 6, (0.8 ** (place - place[:, None]).abs())[None])
    known = torch.tensor([True, False, False, True, False, True])
    y, x = (torch.randn(n, 6, generator=torch.Generator().manual_seed(n)).double() for n in (1, 5))
    observation = pb.Observation(y[0], known, 0.3)
    got, run, t = conditional(prior, observation, x, 1.5, schedule, iterations=3, damping=0.4)
    x0 = run.denoise(x, t).x0
    precision = torch.linalg.inv(prior.covariances[0]) + torch.eye(6).double() * (t.alpha / t.sigma) ** 2
    v = torch.linalg.inv(precision) + 0.4 * t.ratio**2 * torch.eye(6).double()
    a = torch.eye(6, dtype=torch.float64)[known]
    gain = v @ a.T @ torch.linalg.inv(a @ v @ a.T + 0.09 * torch.eye(3).double())
    torch.testing.assert_close(got, x0 + (y[0] - x0)[:, known] @ gain.T, atol=1e-5, rtol=1e-4)
    far, _, _ = conditional(prior, pb.Observation(y[0], known), x, 1.5, schedule, iterations=1, damping=1e6)
    torch.testing.assert_close(far, torch.where(known, y[0], x0), atol=1e-4, rtol=0)


def test_one_step_is_exact_for_one_known_value():
    at = case("A")
    observation = pb.Observation(at.observation.y.double(), at.observation.known)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(2)).double()
    got, _, t = conditional(at.prior, observation, x, iterations=1)
    torch.testing.assert_close(got, exact(at.prior, observation, x, t), atol=1e-6, rtol=0)


def test_it_takes_operators():
    prior = GaussianMixture(torch.zeros(1, 16).double(), torch.eye(16).double()[None] + 0.5)
    operator = AveragePool(2)
    y = torch.tensor([[[1.0, -1.0], [0.5, 2.0]]]).double()
    observation = pb.Observation(y, operator=operator)
    x = torch.zeros(1, 1, 4, 4).double()
    got, _, _ = conditional(prior, observation, x, iterations=4)
    torch.testing.assert_close(operator(got)[0], y, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "evaluations", "limit"), [("A", 16, 0.01), ("A", 40, 0.002), ("E", 100, 0.03)])
def test_divergence_at_a_budget(name, evaluations, limit):
    """A: the ODE with one step of the solver; E has eight known values, and takes three."""
    at = case(name)
    iterations = 1 if name == "A" else 3
    method = pb.methods.get("fmm", iterations=iterations, eta=0.0, damping=0.0)
    steps = evaluations // (1 + iterations)
    result = method.sample(
        at.prior.denoiser(VP(), at.shape), at.observation, steps, torch.Generator().manual_seed(0), num_samples=4000
    )
    assert result.evaluations <= evaluations
    assert result.vjps == 0
    assert at.kl(result.x) < limit


def test_it_beats_lanpaint_and_ding_on_the_gaussian_at_forty_evaluations():
    at = case("A")
    denoiser = at.prior.denoiser(VP(), at.shape)
    kl = {}
    ours = {"iterations": 1, "eta": 0.0, "damping": 0.0}
    for name, fields, steps in (("fmm", ours, 20), ("ding", {}, 20), ("lanpaint", {}, 6)):
        method = pb.methods.get(name, **fields)
        result = method.sample(denoiser, at.observation, steps, torch.Generator().manual_seed(0), num_samples=4000)
        assert 36 <= result.evaluations <= 40
        kl[name] = at.kl(result.x)
    assert kl["fmm"] < 0.1 * min(kl["ding"], kl["lanpaint"])


def test_the_second_order_is_worth_it():
    at = case("A")
    denoiser = at.prior.denoiser(VP(), at.shape)
    kl = [
        at.kl(
            pb.methods.get("fmm", iterations=1, eta=0.0, damping=0.0, order=order)
            .sample(denoiser, at.observation, 12, torch.Generator().manual_seed(0), num_samples=4000)
            .x
        )
        for order in (1, 2)
    ]
    assert kl[1] < 0.3 * kl[0]


def test_its_times_are_even_in_the_logarithm_of_the_noise():
    denoiser = case("A").prior.denoiser(VP(), (2,))
    times = make_grid(VP(), 10, pb.methods.get("fmm", low=0.05).grid(denoiser, 10))
    assert times[-1].sigma == 0
    logs = [math.log(time.ratio) for time in times[:-1]]
    steps = [a - b for a, b in zip(logs, logs[1:], strict=False)]
    assert max(steps) - min(steps) < 1e-6
    assert times[-2].ratio == pytest.approx(0.05)


def test_below_hold_known_entries_are_y():
    at = case("E")
    x = torch.randn(3, *at.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    known = at.observation.known
    denoiser = at.prior.denoiser(VP(), at.shape)
    schedule = VP()
    t = schedule.at(float(schedule.time_of_ratio(torch.tensor(0.2, dtype=torch.float64))))
    run = Run(denoiser, at.observation, [t, *make_grid(schedule, 1)[1:]], None, 3)
    held = pb.methods.get("fmm").conditional(run, x, t)
    free = pb.methods.get("fmm", hold=0.0).conditional(run, x, t)
    assert torch.equal(held[:, known], at.observation.y[known].expand(3, -1))
    assert not torch.equal(free[:, known], held[:, known])
    assert torch.equal(free[:, ~known], held[:, ~known])
