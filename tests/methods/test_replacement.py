"""Replacement: the law and coupling of the known part, its solvers, its known bias, noisy observations."""

import math

import pytest
import torch

import paintback as pb
from paintback.methods.known import missing_std, replace_known
from paintback.priors import gaussian_2d, gaussian_kl
from paintback.schedules import EDM, VP, Flow, log_snr, make_grid

PROBLEM = gaussian_2d()


def sample(method, schedule, n=20, seed=0, count=8, observation=PROBLEM.observation, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    return method.sample(PROBLEM.prior.denoiser(schedule), observation, n, generator, count, **kwargs)


class Known:
    """As much of a `Run` as `replace_known` sees: everything known to be 2."""

    def __init__(self, sigma=0.0, count=40_000):
        self.sigma, self.memory = sigma, {}
        self.y = torch.full((count, 1), 2.0, dtype=torch.float64)
        self.known = torch.ones_like(self.y, dtype=torch.bool)
        self.generator = torch.Generator().manual_seed(0)

    def noise(self):
        return torch.randn(self.y.shape, generator=self.generator).double()


@pytest.mark.parametrize("path", ["fresh", "coherent", "fixed"])
@pytest.mark.parametrize("sigma", [0.0, 0.2])
@pytest.mark.parametrize("schedule", [VP(), Flow()], ids=["vp", "flow"])
def test_law_of_the_known_part(path, sigma, schedule):
    run, before = Known(sigma), None
    for t in make_grid(schedule, 5)[:-1]:
        x = replace_known(run, torch.full_like(run.y, math.nan), t, path)
        std = missing_std(t, sigma)
        assert x.mean().item() == pytest.approx(2 * t.alpha, abs=4 * std / 200)
        assert x.std().item() == pytest.approx(std, rel=0.02)
        noise = (x - t.alpha * run.y) / std
        if before is not None:
            last, last_noise = before
            # the coupling of one forward path started at y's own level
            wanted = {
                "fresh": 0.0,
                "fixed": 1.0,
                "coherent": last.alpha * std / (t.alpha * missing_std(last, sigma)),
            }[path]
            assert (noise * last_noise).mean().item() == pytest.approx(wanted, abs=0.025)
        before = t, noise


def test_coherent_path_is_markov():
    """Three times: the correlation of the outer two is the product of the neighbours'."""
    run, noises = Known(), []
    for t in make_grid(VP(), 4)[1:-1]:
        noises.append((replace_known(run, run.y, t, "coherent") - t.alpha * run.y) / t.sigma)
    a, b, c = noises
    assert (a * c).mean().item() == pytest.approx((a * b).mean().item() * (b * c).mean().item(), abs=0.02)


def test_left_alone_below_the_noise_of_y():
    run = Known(sigma=0.5, count=4)
    t = make_grid(VP(), 20)[-2]
    assert t.ratio < 0.5
    x = torch.zeros_like(run.y)
    assert replace_known(run, x, t, "coherent") is x


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "ancestral"])
@pytest.mark.parametrize("path", ["fresh", "coherent", "fixed"])
def test_counts_and_known_entries(solver, path):
    method = pb.methods.get("replacement", solver=solver, path=path)
    for schedule in (VP(), Flow(), EDM()):
        result = sample(method, schedule, 6)
        assert result.evaluations == method.evaluations(6, make_grid(schedule, 6))
        assert result.x.isfinite().all()
        assert (result.x[:, 1] == 1).all()
    assert sample(method, VP(), 6).evaluations == method.evaluations(6) == (11 if solver == "heun" else 6)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "ancestral"])
def test_invariance_under_coordinates(solver):
    method = pb.methods.get("replacement", solver=solver, path="coherent")
    grid = log_snr(sigma_min=0.02, sigma_max=50.0)
    results = [
        method.sample(PROBLEM.prior.denoiser(s), PROBLEM.observation, 12, torch.Generator().manual_seed(0), 8, grid).x
        for s in (VP(), EDM(), Flow())
    ]
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(results[0], results[2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_measured_bias(seed):
    """The value of every public measurement of replacement on this problem: 0.52 to 0.56."""
    result = sample(pb.methods.get("replacement"), VP(), 20, seed, 20_000)
    assert 0.48 < gaussian_kl(result.x[:, :1], PROBLEM.posterior) < 0.6


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "ancestral"])
def test_unconditional_without_known_entries(solver):
    y, known = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.bool)
    result = sample(
        pb.methods.get("replacement", solver=solver), VP(), 100, 0, 20_000, pb.Observation(y, known), grid=log_snr()
    )
    assert gaussian_kl(result.x, PROBLEM.prior) < 0.01


def test_all_known_but_noisy_is_a_posterior_sample():
    """y is a state of the diffusion: with everything known, the rest of the run is exact sampling of the posterior."""
    prior = pb.priors.GaussianMixture([[0.5, -0.3]], [[[1.0, 0.8], [0.8, 1.0]]])
    observation = pb.Observation(torch.tensor([1.5, 1.0], dtype=torch.float64), torch.ones(2, dtype=torch.bool), 0.5)
    method = pb.methods.get("replacement", solver="ancestral", path="coherent")
    x = method.sample(
        prior.denoiser(VP()), observation, 300, torch.Generator().manual_seed(0), 20_000, log_snr(sigma_max=5.0)
    ).x
    covariance = prior.covariances[0].double()
    gain = covariance @ torch.linalg.inv(covariance + 0.25 * torch.eye(2))
    mean = prior.means[0] + gain @ (observation.y - prior.means[0])
    exact = pb.priors.GaussianMixture(mean[None], ((torch.eye(2) - gain) @ covariance)[None])
    assert gaussian_kl(x, exact) < 0.01


def test_reproducible_and_batch_invariant():
    method = pb.methods.get("replacement", path="coherent", solver="ancestral")
    a, b = (sample(method, VP(), seed=3).x for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, sample(method, VP(), seed=4).x)
    denoiser = PROBLEM.prior.denoiser(VP())

    def run(seeds):
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        return method.sample(denoiser, PROBLEM.observation, 10, generators, len(seeds)).x

    torch.testing.assert_close(run([5, 6, 7])[1:2], run([6]), atol=1e-5, rtol=0)
