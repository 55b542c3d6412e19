"""The exact denoiser, posterior and samples against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from paintback.observation import AveragePool, Bicubic, Observation
from paintback.priors import GaussianMixture
from paintback.schedules import EDM, VP, Flow, Rescaled

SCHEDULES = {
    "vp": VP(),
    "vp-cosine": VP("cosine"),
    "vp-zero-snr": VP(torch.cat((torch.linspace(1e-4, 0.02, 9), torch.ones(1)))),
    "edm": EDM(),
    "flow": Flow(),
    "flow-shift": Flow(3.0),
    "vp-as-flow": Rescaled(VP(), "flow"),
    "edm-as-vp": Rescaled(EDM(), "vp"),
    "flow-as-vp": Rescaled(Flow(), "vp"),
    "vp-as-edm": Rescaled(VP(), "edm"),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(components: int = 3, dim: int = 4, shared: bool = False, seed: int = 0) -> GaussianMixture:
    g = generator(seed)
    means = 1.5 * torch.randn(components, dim, generator=g, dtype=torch.float64)
    roots = torch.randn(1 if shared else components, dim, dim, generator=g, dtype=torch.float64) / dim**0.5
    covariances = (roots @ roots.mT + 0.05 * torch.eye(dim)).expand(components, dim, dim)
    return GaussianMixture(means, covariances, torch.rand(components, generator=g, dtype=torch.float64) + 0.2)


def log_density(prior: GaussianMixture, x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """ln p_t(x) written with torch.distributions, independent of the package's code."""
    noise = sigma**2 * torch.eye(prior.dim, dtype=torch.float64)
    parts = torch.distributions.MultivariateNormal(alpha * prior.means, alpha**2 * prior.covariances + noise)
    return (parts.log_prob(x[:, None]) + prior.weights.log()).logsumexp(1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_denoiser_is_tweedie(name: str, shared: bool) -> None:
    schedule, prior = SCHEDULES[name], mixture(shared=shared)
    denoiser = prior.denoiser(schedule)
    for t in (0.02, 0.3, 0.5, 0.83, 0.999):
        alpha, sigma = (float(c) for c in schedule(t))
        x0 = prior.sample(6, generator(1))
        x = alpha * x0 + sigma * torch.randn(6, 4, generator=generator(2), dtype=torch.float64)
        x.requires_grad_()
        score = torch.autograd.grad(log_density(prior, x, alpha, sigma).sum(), x)[0]
        prediction = denoiser(x.detach(), t)
        torch.testing.assert_close(prediction.x1, -sigma * score, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(
            alpha * prediction.x0, x.detach() + sigma**2 * score, rtol=1e-7, atol=1e-9 * (1 + sigma**2)
        )
        torch.testing.assert_close(alpha * prediction.x0 + sigma * prediction.x1, x.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("alpha_first", [False, True])
def test_denoiser_is_the_importance_weighted_mean(shared: bool, alpha_first: bool) -> None:
    """E[x0 | x_t] by weighting exact samples, which shares nothing with Tweedie's formula."""
    prior, schedule, t = mixture(dim=2, shared=shared), Flow(), 0.35 if alpha_first else 0.7
    alpha, sigma = (float(c) for c in schedule(t))
    x0 = prior.sample(400_000, generator(3))
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    weights = (-(x - alpha * x0).square().sum(1) / (2 * sigma**2)).softmax(0)
    assert 1 / weights.square().sum() > 10_000  # enough effective samples for the tolerance
    prediction = prior.denoiser(schedule)(x, t)
    torch.testing.assert_close(prediction.x0, (weights @ x0)[None], rtol=0, atol=0.02)
    torch.testing.assert_close(prediction.x1, (weights @ (x - alpha * x0))[None] / sigma, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["vp-zero-snr", "flow", "edm", "flow-as-vp"])
@pytest.mark.parametrize("shared", [False, True])
def test_ends_of_time(name: str, dtype: torch.dtype, shared: bool) -> None:
    prior, schedule = mixture(shared=shared), SCHEDULES[name]
    denoiser = prior.denoiser(schedule)
    x = 2 * torch.randn(5, 4, generator=generator(), dtype=dtype)
    clean = denoiser(x, 0.0)
    torch.testing.assert_close(clean.x0, x / schedule.at(0.0).alpha)
    assert torch.equal(clean.x1, torch.zeros_like(x))
    noise = denoiser(x, 1.0)
    assert noise.x0.dtype == noise.x1.dtype == dtype
    alpha, sigma = (float(c) for c in schedule(1.0))
    if alpha == 0:
        torch.testing.assert_close(noise.x0, prior.mean().to(x).expand(5, 4))
        torch.testing.assert_close(noise.x1, x / sigma)
    for t in (1e-12, 1e-6, 1 - 1e-9, 1.0):
        prediction = denoiser(x, t)
        assert prediction.x0.isfinite().all()
        assert prediction.x1.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_covariances(dtype: torch.dtype) -> None:
    """Mass on a line and on a point: x0 is the projection, at any noise however small."""
    prior = GaussianMixture([[0.0, 3.0], [50.0, 50.0]], [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    denoiser = prior.denoiser(Flow())
    for t in (1e-30, 1e-12, 1e-6, 1e-3):
        x = (1 - t) * torch.tensor([[0.7, 3.0], [50.0, 50.0]]) + t * torch.tensor([[0.0, 2.0], [-3.0, 1.0]])
        prediction = denoiser(x.to(dtype), t)
        expected = torch.tensor([[0.7, 3.0], [50.0, 50.0]], dtype=dtype)
        torch.testing.assert_close(prediction.x0, expected, rtol=1e-5, atol=1e-5)
        assert prediction.x1.isfinite().all()


def test_far_states_do_not_overflow() -> None:
    denoiser = mixture(dim=2).denoiser(Flow())
    prediction = denoiser(torch.tensor([[1e6, -1e6]], dtype=torch.float64), 0.01)
    assert prediction.x0.isfinite().all()
    assert prediction.x1.isfinite().all()


@pytest.mark.parametrize("shared", [False, True])
def test_float32_is_float64_rounded(shared: bool) -> None:
    prior = mixture(8, 3, shared=shared)
    x = prior.sample(200, generator(5))
    for schedule in (VP(), EDM(), Flow()):
        for t in (0.001, 0.01, 0.2, 0.6, 0.99):
            double, single = prior.denoiser(schedule)(x, t), prior.denoiser(schedule)(x.float(), t)
            assert single.x0.dtype == torch.float32
            torch.testing.assert_close(single.x0.double(), double.x0, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_gradients(shared: bool) -> None:
    prior = mixture(3, 3, shared=shared)
    denoiser = prior.denoiser(Flow())
    x = prior.sample(2, generator(1)).requires_grad_()
    for t in (0.2, 0.8):
        assert torch.autograd.gradcheck(lambda z, t=t: denoiser(z, t).x0, x)
        assert torch.autograd.gradcheck(lambda z, t=t: denoiser(z, t).x1, x)


def test_gradients_after_inference_mode() -> None:
    """What is cached in one call serves the next, whatever its mode."""
    denoiser, x = mixture(3, 3).denoiser(Flow()), torch.ones(2, 3, dtype=torch.float64)
    with torch.inference_mode():
        denoiser(x.clone(), 0.5)
    x.requires_grad_()
    assert torch.autograd.grad(denoiser(x, 0.5).x0.sum(), x)[0].abs().min() > 0


def test_second_order_tweedie() -> None:
    """The Jacobian of x0 is (alpha / sigma^2) Cov[x0 | x_t]; for one Gaussian that is known by Bayes' rule."""
    prior = mixture(1, 3)
    alpha, sigma = 0.6, 0.4
    jacobian = torch.autograd.functional.jacobian(
        lambda z: prior.denoiser(Flow())(z, 0.4).x0[0], torch.zeros(1, 3).double()
    )
    posterior = torch.linalg.inv(torch.linalg.inv(prior.covariances[0]) + alpha**2 / sigma**2 * torch.eye(3).double())
    torch.testing.assert_close(jacobian[:, 0], alpha / sigma**2 * posterior)


@pytest.mark.parametrize("shared", [False, True])
def test_blocks_of_rows_change_nothing(shared: bool) -> None:
    prior = mixture(400, 2, shared=shared)
    x = prior.sample(700, generator(4))
    denoiser = prior.denoiser(VP())
    whole = denoiser(x, 0.4)
    for rows in (slice(0, 3), slice(350, 351), slice(690, 700)):
        torch.testing.assert_close(denoiser(x[rows], 0.4).x0, whole.x0[rows], rtol=1e-12, atol=1e-12)
    assert denoiser(x[:0], 0.4).x0.shape == (0, 2)


def test_shapes() -> None:
    prior = mixture(2, 12)
    denoiser = prior.denoiser(VP(), shape=(3, 2, 2))
    assert denoiser.shape == (3, 2, 2)
    assert prior.denoiser(VP()).shape == (12,)
    x = torch.randn(5, 12, generator=generator(), dtype=torch.float64)
    picture = denoiser(x.reshape(5, 3, 2, 2), 0.5)
    assert picture.x0.shape == picture.x1.shape == (5, 3, 2, 2)
    assert torch.equal(picture.x0.reshape(5, 12), denoiser(x, 0.5).x0)
    with pytest.raises(ValueError, match="does not hold the 12 entries"):
        prior.denoiser(VP(), shape=(3, 2, 3))
    with pytest.raises(ValueError, match=r"x must have shape \(B, 3, 2, 2\); got \(5, 2, 6\)"):
        denoiser(x.reshape(5, 2, 6), 0.5)


# --------------------------------------------------------------------------------------------------- posterior


def test_noiseless_posterior_is_the_conditional_density() -> None:
    """p(unknown | known) on a grid, from the joint density of scipy."""
    prior = mixture(3, 3)
    y = torch.tensor([0.4, math.nan, -0.2], dtype=torch.float64)
    posterior = prior.posterior(Observation(y, torch.tensor([True, False, True])))
    assert posterior.dim == 1
    grid = np.linspace(-9, 9, 4001)
    points = np.stack((np.full_like(grid, 0.4), grid, np.full_like(grid, -0.2)), axis=1)
    joint = sum(
        float(w) * multivariate_normal(m.numpy(), c.numpy()).pdf(points)
        for w, m, c in zip(prior.weights, prior.means, prior.covariances, strict=True)
    )
    expected = joint / (joint.sum() * (grid[1] - grid[0]))
    found = posterior.log_prob(torch.from_numpy(grid)[:, None]).exp().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("joint", [False, True])
def test_noisy_posterior_by_importance_weights(joint: bool) -> None:
    prior, sigma = mixture(3, 3), 0.5
    y = torch.tensor([0.4, 0.0, -0.2], dtype=torch.float64)
    known = torch.tensor([True, False, True])
    posterior = prior.posterior(Observation(y, known, sigma), joint=joint)
    x = prior.sample(400_000, generator(7))
    weights = (-(x - y)[:, known].square().sum(1) / (2 * sigma**2)).softmax(0)
    kept = x if joint else x[:, ~known]
    mean = weights @ kept
    covariance = ((kept - mean).T * weights) @ (kept - mean)
    torch.testing.assert_close(posterior.mean(), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(posterior.covariance(), covariance, rtol=0, atol=0.02)


def test_noise_near_zero_approaches_the_noiseless_posterior() -> None:
    prior = mixture(3, 4)
    known = torch.tensor([True, False, False, True])
    y = torch.tensor([0.1, 0.0, 0.0, 0.3], dtype=torch.float64)
    exact, near = (prior.posterior(Observation(y, known, sigma)) for sigma in (0.0, 1e-5))
    torch.testing.assert_close(near.means, exact.means, rtol=0, atol=1e-6)
    torch.testing.assert_close(near.covariances, exact.covariances, rtol=0, atol=1e-6)
    torch.testing.assert_close(near.weights, exact.weights, rtol=0, atol=1e-6)


def test_joint_noiseless_posterior_holds_the_known_entries() -> None:
    known = torch.tensor([True, False, False, True])
    y = torch.tensor([0.1, 0.0, 0.0, 0.3], dtype=torch.float64)
    prior = mixture(3, 4)
    posterior = prior.posterior(Observation(y, known), joint=True)
    samples = posterior.sample(50, generator())
    torch.testing.assert_close(samples[:, known], y[known].expand(50, 2), rtol=0, atol=1e-6)
    assert (samples[:, ~known].std(0) > 0.1).all()


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("operator", [AveragePool(2), Bicubic(2, 4, 4)])
def test_operator_posterior(operator: AveragePool | Bicubic, sigma: float) -> None:
    """Against the information form of Bayes' rule (noisy), and A x = y exactly (noiseless)."""
    prior = mixture(2, 16, seed=3)
    columns = [operator(row.reshape(1, 1, 4, 4)).reshape(-1) for row in torch.eye(16).double()]
    matrix = torch.stack(columns, dim=1)
    y = operator(prior.sample(1, generator(1)).reshape(1, 1, 4, 4))[0]
    posterior = prior.posterior(Observation(y, sigma=sigma, operator=operator))
    assert posterior.dim == 16
    if sigma == 0:
        samples = posterior.sample(20, generator(2)).reshape(20, 1, 4, 4)
        torch.testing.assert_close(operator(samples), y.expand(20, 1, 2, 2), rtol=0, atol=1e-6)
        return
    evidence = []
    for k in range(2):
        precision = torch.linalg.inv(prior.covariances[k])
        covariance = torch.linalg.inv(precision + matrix.T @ matrix / sigma**2)
        mean = covariance @ (precision @ prior.means[k] + matrix.T @ y.reshape(-1) / sigma**2)
        torch.testing.assert_close(posterior.covariances[k], covariance, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(posterior.means[k], mean, rtol=1e-7, atol=1e-8)
        spread = matrix @ prior.covariances[k] @ matrix.T + sigma**2 * torch.eye(4)
        density = multivariate_normal((matrix @ prior.means[k]).numpy(), spread.numpy()).pdf(y.reshape(-1).numpy())
        evidence.append(float(prior.weights[k]) * float(density))
    expected = torch.tensor(evidence, dtype=torch.float64)
    torch.testing.assert_close(posterior.weights, expected / expected.sum())


def test_degenerate_components_and_impossible_observations() -> None:
    """A component that pins the known entry to y beats one that only allows it; none left is an error."""
    covariances = [[[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]]
    prior = GaussianMixture([[5.0, 2.0], [0.0, 2.0], [9.0, 1.0]], covariances)
    known = torch.tensor([False, True])
    pinned = prior.posterior(Observation(torch.tensor([0.0, 2.0]).double(), known))
    assert len(pinned) == 1
    assert float(pinned.mean()) == pytest.approx(5.0)
    free = prior.posterior(Observation(torch.tensor([0.0, 1.5]).double(), known))
    assert len(free) == 1
    assert float(free.mean()) == pytest.approx(0.0)
    only = GaussianMixture([[5.0, 2.0]], covariances[:1])
    with pytest.raises(ValueError, match="probability 0"):
        only.posterior(Observation(torch.tensor([0.0, 1.5]).double(), known))


def test_posterior_of_a_picture_flattens_in_order() -> None:
    prior = mixture(2, 4)
    known = torch.tensor([True, False, False, True])
    y = torch.tensor([0.1, 0.0, 0.0, 0.3], dtype=torch.float64)
    flat = prior.posterior(Observation(y, known))
    picture = prior.posterior(Observation(y.reshape(1, 2, 2), known.reshape(1, 2, 2)))
    assert torch.equal(flat.means, picture.means)
    assert torch.equal(flat.covariances, picture.covariances)
    nothing = prior.posterior(Observation(y, torch.zeros(4, dtype=torch.bool)))
    torch.testing.assert_close(nothing.means, prior.means)
    torch.testing.assert_close(nothing.weights, prior.weights)


def test_posterior_errors() -> None:
    prior = mixture(2, 4)
    with pytest.raises(ValueError, match="does not hold the 4 entries"):
        prior.posterior(Observation(torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="Every entry is known"):
        prior.posterior(Observation(torch.zeros(4)))
    with pytest.raises(ValueError, match="not 4 entries"):
        prior.posterior(Observation(torch.zeros(1, 2, 2), operator=AveragePool(2)))


# ------------------------------------------------------------------------------------- samples, density, moments


@pytest.mark.parametrize("shared", [False, True])
def test_samples_have_the_exact_moments(shared: bool) -> None:
    prior = mixture(4, 3, shared=shared)
    x = prior.sample(200_000, generator(8))
    torch.testing.assert_close(x.mean(0), prior.mean(), rtol=0, atol=0.015)
    torch.testing.assert_close(x.T.cov(), prior.covariance(), rtol=0, atol=0.05)
    # each component's share, by the density: E_p[q_k / p] = w_k
    single = GaussianMixture(prior.means[:1], prior.covariances[:1])
    share = (single.log_prob(x) - prior.log_prob(x)).exp().mean()
    assert float(share) == pytest.approx(1.0, abs=0.02)


def test_samples_follow_their_generator_only() -> None:
    prior = mixture()
    before = torch.random.get_rng_state()
    one, two, other = prior.sample(9, generator(1)), prior.sample(9, generator(1)), prior.sample(9, generator(2))
    prior.sample(3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    listed = prior.sample(3, [generator(5), generator(6), generator(7)])
    assert torch.equal(listed[1:2], prior.sample(1, [generator(6)]))


def test_log_prob_and_noised() -> None:
    prior = mixture(3, 4)
    x = prior.sample(7, generator(1))
    torch.testing.assert_close(prior.log_prob(x), log_density(prior, x, 1.0, 0.0))
    torch.testing.assert_close(prior.noised(0.3, 0.7).log_prob(x), log_density(prior, x, 0.3, 0.7))
    assert torch.equal(prior.log_prob(x.reshape(7, 2, 2)), prior.log_prob(x))
    with pytest.raises(ValueError, match=r"shape \(n, 4\); got \(7, 3\)"):
        prior.log_prob(x[:, :3])
    with pytest.raises(ValueError, match="no density"):
        GaussianMixture([[0.0, 0.0]], [[[1.0, 1.0], [1.0, 1.0]]]).log_prob(torch.zeros(1, 2))


def test_marginal() -> None:
    prior = mixture(3, 4)
    part = prior.marginal([2, 0])
    assert part.dim == 2
    torch.testing.assert_close(part.mean(), prior.mean()[[2, 0]])
    torch.testing.assert_close(part.covariance(), prior.covariance()[[2, 0]][:, [2, 0]])
    for wrong in ([], [4], [-5]):
        with pytest.raises(ValueError, match="entries 0 to 3"):
            prior.marginal(wrong)


def test_moments_of_a_known_mixture() -> None:
    prior = GaussianMixture([[-1.0], [3.0]], [[[0.25]], [[1.0]]], [1.0, 3.0])
    assert prior.weights.tolist() == [0.25, 0.75]
    assert float(prior.mean()) == pytest.approx(2.0)
    assert float(prior.covariance()) == pytest.approx(0.25 * 0.25 + 0.75 * 1 + 0.25 * 9 + 0.75 * 1)


def test_dtype_is_kept() -> None:
    single = GaussianMixture(torch.zeros(1, 2), torch.eye(2)[None])
    assert single.means.dtype == single.sample(2, generator()).dtype == torch.float32
    assert GaussianMixture([[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]]).means.dtype == torch.float64
    assert GaussianMixture(np.zeros((1, 2)), np.eye(2)[None]).means.dtype == torch.float64
    posterior = single.posterior(Observation(torch.zeros(2), torch.tensor([True, False])))
    assert posterior.means.dtype == torch.float32


@pytest.mark.parametrize(
    ("means", "covariances", "weights", "message"),
    [
        ([0.0, 0.0], [[[1.0]]], None, r"means must have shape \(K, d\); got \(2,\)"),
        ([[0.0, 0.0]], [[[1.0]]], None, r"covariances must have shape \(1, 2, 2\); got \(1, 1, 1\)"),
        ([[0.0]], [[[1.0]]], [0.5, 0.5], r"weights must have shape \(1,\); got \(2,\)"),
        ([[math.nan]], [[[1.0]]], None, "means holds values that are not finite"),
        ([[0.0]], [[[math.inf]]], None, "covariances holds values that are not finite"),
        ([[0.0], [1.0]], [[[1.0]], [[1.0]]], [1.0, 0.0], "weights must be positive; the smallest is 0"),
        ([[0.0, 0.0]], [[[1.0, 0.5], [0.4, 1.0]]], None, "covariances must be symmetric"),
        ([[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]], None, "positive semi-definite; one has the eigenvalue -1"),
    ],
)
def test_constructor_errors(means: list, covariances: list, weights: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(means, covariances, weights)
