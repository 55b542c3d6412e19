"""Newer methods that take no gradient: steps by hand, exact limits, and the draws that they are made of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from paintback import methods
from paintback.denoiser import Denoiser, Prediction
from paintback.methods.base import Run
from paintback.methods.linear import conditioned, misfit, ridge
from paintback.observation import AveragePool, Observation
from paintback.priors import GaussianMixture, correlated16, ding_toy, gaussian_2d, gaussian_kl, grid25
from paintback.schedules import VP, Flow, Time, log_snr

T, S, END = Time(0.6, 0.4, 0.6), Time(0.3, 0.7, 0.3), Time(0.0, 1.0, 0.0)


class Half(Denoiser):
    """x0 = x / 2."""

    def predict(self, x: Tensor, time: Time) -> Prediction:
        return Prediction(x / 2, (x - time.alpha * x / 2) / time.sigma, rows=len(x))


def opened(sigma: float = 0.0) -> tuple[Run, Tensor]:
    """A run of two samples with entries (known, unknown), y = 1, and a state in flow coordinates."""
    run = Run(
        Half(Flow()),
        Observation(torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[True, False]]), sigma),
        [T, S, END],
        torch.Generator().manual_seed(5),
    )
    return run, torch.tensor([[0.4, -1.2], [2.0, 0.6]])


def draws(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, 2, generator=generator) for _ in range(count)]


def known(left: Tensor | float, right: Tensor) -> Tensor:
    """Left on the known entries, right on the others."""
    return torch.stack((torch.as_tensor(left).expand_as(right)[:, 0], right[:, 1]), 1)


# ------------------------------------------------------------------------------------------------- one step by hand


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("fields", [{}, {"rho": 0.5, "prior": 2.0, "kappa": 7.0}])
def test_rebridge_step_is_the_minimiser(sigma: float, fields: dict[str, float]) -> None:
    """The pair of the formulas has no gradient in the paper's objective, and the state moves along it."""
    run, x = opened(sigma)
    method = methods.get("rebridge", **fields)
    found = method.step(run, x, T, S)
    x0, x1 = x / 2, (x - 0.2 * x) / 0.6
    b = torch.where(run.known, torch.tensor(1.0), x0).double() if sigma == 0 else x0.double().clone()
    a = x1.double().clone()
    b.requires_grad_(sigma > 0), a.requires_grad_()
    free = [v for v in (a, b) if v.requires_grad]
    for _ in range(60):  # Newton on a quadratic, entry by entry: a few rounds of both are enough
        for v in free:
            loss = ((0.5 / sigma**2 * (run.known * (b - 1)) ** 2).sum() if sigma else torch.zeros(())) + 0.5 * (
                method.rho * (b - x0) ** 2 + method.prior * (a - x1) ** 2 + method.kappa * (x - 0.4 * b - 0.6 * a) ** 2
            ).sum()
            gradient = torch.autograd.grad(loss, v, create_graph=True)[0]
            curvature = torch.autograd.grad(gradient.sum(), v)[0]
            v.data -= (gradient / curvature).detach()
    expected = x + 0.3 * (b - a).detach()
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_rebridge_keeps_one_noise_as_kappa_grows() -> None:
    """From the state alpha y + sigma n it goes to alpha_s y + sigma_s n: replacement with one fixed noise."""
    run, x = opened()
    n = (x - 0.4) / 0.6
    found = methods.get("rebridge", kappa=1e7).step(run, x, T, S)
    torch.testing.assert_close(found[:, 0], (0.7 + 0.3 * n)[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:, 1], (0.7 * x / 2 + 0.3 * (x - 0.2 * x) / 0.6)[:, 1])


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_flower_step(sigma: float) -> None:
    run, x = opened(sigma)
    (eps,) = draws(1)
    nu2 = 0.36 / (0.16 + 0.36)
    mean = (sigma**2 * x / 2 + nu2) / (nu2 + sigma**2)
    expected = 0.7 * known(mean, x / 2) + 0.3 * eps
    torch.testing.assert_close(methods.get("flower").step(run, x, T, S), expected)
    run, x = opened(sigma)
    torch.testing.assert_close(methods.get("flower").finish(run, x, T), known(mean, x / 2))


def test_flower_draws_the_posterior_of_its_gaussian() -> None:
    """Known entries have the variance nu^2 sigma_y^2 / (nu^2 + sigma_y^2), hidden ones nu^2."""
    run = Run(
        Half(Flow()),
        Observation(torch.tensor([1.0, 0.0]), torch.tensor([True, False]), 0.5),
        [T, S, END],
        torch.Generator().manual_seed(0),
        20_000,
    )
    x = torch.tensor([[0.4, -1.2]]).expand(20_000, 2)
    drawn = methods.get("flower", uncertainty=True).picture(run, x, T)
    nu2 = 0.36 / 0.52
    mean = (0.25 * 0.2 + nu2) / (nu2 + 0.25)
    torch.testing.assert_close(drawn.mean(0), torch.tensor([mean, -0.6]), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.tensor([nu2 * 0.25 / (nu2 + 0.25), nu2]), atol=0.02, rtol=0)


def test_restoraflow_step() -> None:
    run, x = opened()
    method = methods.get("restoraflow")

    def flow(state: Tensor, t: Time, s: Time) -> Tensor:
        return s.alpha * state / 2 + s.sigma * (state - t.alpha * state / 2) / t.sigma

    # the first step has no correction and sets nothing
    first = method.step(run, x, T, S)
    torch.testing.assert_close(first, flow(x, T, S))
    assert run.cost[0] == 1
    run.times.insert(0, Time(1.0, 0.0, 1.0))
    first_known, again, second_known = draws(3)
    x_s = flow(known(0.4 + 0.6 * first_known, x), T, S)
    back = known(0.4 + 0.6 * second_known, 0.4 * x_s / 2 + 0.6 * again)
    torch.testing.assert_close(method.step(run, x, T, S), flow(back, T, S))
    assert run.cost[0] == 1 + 3


def test_pnpdm_turn_of_one_look() -> None:
    """The likelihood's draw at distance rho, then the model's picture; y is on the known entries in between."""
    run, x = opened()
    (eps,) = draws(1)
    rho = 0.6 / 0.4
    expected = known(1.0, x + rho * eps) * 0.4 / 2
    torch.testing.assert_close(methods.get("pnpdm", inner_steps=1).step(run, x, T, S), expected)


@pytest.mark.parametrize("walk", ["sde", "ode"])
def test_pnpdm_prior_draws_follow_the_law(walk: str) -> None:
    """For a Gaussian prior: x given z is that of a noisy observation; an ODE makes one picture of every z."""
    law = GaussianMixture([[0.5]], [[[1.0]]])
    nothing = Observation(torch.zeros(1), torch.zeros(1, dtype=torch.bool))
    run = Run(law.denoiser(VP()), nothing, [], torch.Generator().manual_seed(0), 8000)
    method = methods.get("pnpdm", inner_steps=60, walk=walk)
    t = run.denoiser.schedule.at(float(run.denoiser.schedule.time_of_ratio(torch.tensor(0.8))))
    x = torch.full((8000, 1), 2.0)
    drawn = method.step(run, x, t, END)
    # z = 2 + 0.8 n, x | z ~ N((z + 0.64 * 0.5) / 1.64, 0.64 / 1.64)
    mean, spread = (2 + 0.32) / 1.64, 0.64 / 1.64**2 + (0.64 / 1.64 if walk == "sde" else 0.0)
    if walk == "sde":
        assert float(drawn.mean()) == pytest.approx(mean, abs=0.03)
        assert float(drawn.var()) == pytest.approx(spread, rel=0.06)
    else:  # the ODE's map of z has the slope std(x) / std(x + 0.8 n)
        assert float(drawn.std()) == pytest.approx(0.8 / 1.64**0.5, rel=0.05)


def test_mcgdiff_weights_and_proposal() -> None:
    """One particle: the transition given the noised y. Two: the one whose transition expects y lives on."""
    problem = gaussian_2d()
    run = Run(problem.prior.denoiser(VP()), problem.observation, [], torch.Generator().manual_seed(0), 4000)
    laws = run.denoiser.schedule
    t, s = laws.at(0.5), laws.at(0.45)
    x = torch.tensor([[0.3, -0.2]]).double().expand(4000, 2)
    drawn = methods.get("mcgdiff", particles=1).step(run, x, t, s)
    at_t = problem.prior.denoiser(VP())(x[:1], 0.5)
    eta2 = s.sigma**2 * (1 - (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2)
    mu = s.alpha * at_t.x0 + math.sqrt(s.sigma**2 - eta2) * at_t.x1
    # product of N(mu, eta^2) and N(alpha_s y, sigma_s^2) on the known, second entry
    k = eta2 / (eta2 + s.sigma**2)
    mean = torch.stack((mu[0, 0], (1 - k) * mu[0, 1] + k * s.alpha * 1.0))
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.tensor([eta2, k * s.sigma**2]).double(), rtol=0.08, atol=0)


@pytest.mark.parametrize(
    ("problem", "tuned", "bound"),
    [("A", {"particles": 64}, 0.01), ("noisy", {"particles": 64}, 0.01), ("C", {"particles": 64}, 0.05)],
)
def test_mcgdiff_is_exact_in_the_limit(problem: str, tuned: dict[str, Any], bound: float) -> None:
    """A few particles are far, many are near, on the problems of the bench; one is worse than a few."""
    at = {"A": gaussian_2d, "noisy": lambda: ding_toy(sigma=0.3), "C": grid25}[problem]()
    hidden = ~at.observation.known
    grid = log_snr(sigma_min=0.05)

    def gap(particles: int) -> float:
        result = methods.get("mcgdiff", particles=particles).sample(
            at.prior.denoiser(VP()), at.observation, 60, torch.Generator().manual_seed(0), 600, grid
        )
        x = result.x[:, hidden]
        if problem != "C":
            return gaussian_kl(x, at.posterior)
        moments = x.mean() - at.posterior.mean()[0], x.std() - at.posterior.covariance()[0, 0].sqrt()
        return float(moments[0].abs() + moments[1].abs()) / 4

    few, many = gap(1), gap(tuned["particles"])
    assert many < bound
    assert many < few / 3


@pytest.mark.parametrize(("name", "fields", "bound"), [
    ("flower", {}, 0.15), ("restoraflow", {}, 0.07), ("pnpdm", {"inner_steps": 10}, 0.03),
])  # fmt: skip
def test_problem_a(name: str, fields: dict[str, Any], bound: float) -> None:
    """KL at 50 intervals, as docs/data/posterior.json has it at the defaults."""
    problem = gaussian_2d()
    result = methods.get(name, **fields).sample(
        problem.prior.denoiser(Flow()), problem.observation, 50, torch.Generator().manual_seed(0), 2000
    )
    assert gaussian_kl(result.x[:, :1], problem.posterior) < bound


# ------------------------------------------------------------------------------------------------- what they share


@pytest.mark.parametrize("softness", [0.0, 0.3])
def test_ridge_is_the_nearest_compromise(softness: float) -> None:
    pool = AveragePool(2)
    a = pool(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).reshape(16, 4).T
    denoiser = correlated16().prior.denoiser(VP(), (1, 4, 4))
    y = torch.tensor([1.0, -1.0, 0.5, 0.0]).double().reshape(1, 2, 2)
    run = Run(denoiser, Observation(y, operator=pool), [], torch.Generator().manual_seed(0), 2)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gap = misfit(run, x)
    expected = gap.flatten(1) @ torch.linalg.inv(a @ a.T + softness * torch.eye(4).double()) @ a
    torch.testing.assert_close(ridge(run, gap, softness).flatten(1), expected)


@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_conditioned_draws_behind_an_operator(sigma: float) -> None:
    """Mean and covariance of N(m, std^2 I) given pooled values, from dense algebra."""
    pool, std = AveragePool(2), 0.7
    a = pool(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).reshape(16, 4).T
    denoiser = correlated16().prior.denoiser(VP(), (1, 4, 4))
    y = torch.tensor([1.0, -1.0, 0.5, 0.0]).double().reshape(1, 2, 2)
    run = Run(denoiser, Observation(y, sigma=sigma, operator=pool), [], torch.Generator().manual_seed(0), 20_000)
    mean = torch.linspace(-1, 1, 16).double()
    drawn = conditioned(run, mean.reshape(1, 1, 4, 4).expand(20_000, 1, 4, 4), std).flatten(1)
    gain = std**2 * a.T @ torch.linalg.inv(std**2 * a @ a.T + sigma**2 * torch.eye(4).double())
    torch.testing.assert_close(drawn.mean(0), mean + gain @ (y.flatten() - a @ mean), atol=0.03, rtol=0)
    covariance = std**2 * (torch.eye(16).double() - gain @ a)
    torch.testing.assert_close(drawn.T.cov(), covariance, atol=0.03, rtol=0)
