"""Blended diffusion: one step against its equation, cost, bias, noisy observations, reproducibility."""

import pytest
import torch

import paintback as pb
from paintback.methods.known import missing_std
from paintback.priors import gaussian_2d, gaussian_kl
from paintback.schedules import EDM, VP, Flow, make_grid

PROBLEM = gaussian_2d()
METHOD = pb.methods.get("blended")


def sample(schedule, n=20, seed=0, count=8, observation=PROBLEM.observation, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    return METHOD.sample(PROBLEM.prior.denoiser(schedule), observation, n, generator, count, **kwargs)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 3.0])
def test_equation(sigma):
    """Two intervals, written out: DDIM on everything, the known part blended at s, the picture predicted there."""
    schedule, denoiser = VP(), PROBLEM.prior.denoiser(VP())
    t, s, _ = make_grid(schedule, 2)
    observation = pb.Observation(PROBLEM.observation.y, PROBLEM.observation.known, sigma)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 2, generator=generator).double() * t.sigma
    at_t = denoiser(x, t)
    x = s.alpha * at_t.x0 + s.sigma * at_t.x1
    if missing_std(s, sigma):
        x[:, 1] = s.alpha * 1.0 + missing_std(s, sigma) * torch.randn(8, 2, generator=generator).double()[:, 1]
    want = denoiser(x, s).x0
    if sigma == 0:
        want[:, 1] = 1.0
    torch.testing.assert_close(sample(schedule, 2, observation=observation).x, want)


@pytest.mark.parametrize("schedule", [VP(), Flow(), EDM()], ids=["vp", "flow", "edm"])
def test_cost_and_known_entries(schedule):
    result = sample(schedule, 7)
    assert result.evaluations == METHOD.evaluations(7) == 7
    assert result.vjps == 0
    assert result.x.isfinite().all()
    assert (result.x[:, 1] == 1).all()


def test_differs_from_replacement_by_its_first_look_only():
    """Replacing before every look is blending after every step, but for the first look."""
    grid = torch.cat((torch.linspace(1, 0.05, 20, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
    blended = sample(VP(), 20, 0, 20_000, grid=grid).x[:, :1]
    other = pb.methods.get("replacement").sample(
        PROBLEM.prior.denoiser(VP()), PROBLEM.observation, 20, torch.Generator().manual_seed(1), 20_000, grid
    )
    # at the first time alpha is 0.006: the two laws are the same to Monte-Carlo error
    assert blended.mean().item() == pytest.approx(other.x[:, 0].mean().item(), abs=0.03)
    assert blended.std().item() == pytest.approx(other.x[:, 0].std().item(), abs=0.02)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_measured_bias(seed):
    """On the flow grid with 20 steps the authors' form has 0.62; it never learns that the parts disagree."""
    assert 0.5 < gaussian_kl(sample(Flow(), 20, seed, 20_000).x[:, :1], PROBLEM.posterior) < 0.7


def test_reproducible_and_batch_invariant():
    assert torch.equal(sample(VP()).x, sample(VP()).x)

    def run(seeds):
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        return METHOD.sample(PROBLEM.prior.denoiser(VP()), PROBLEM.observation, 10, generators, len(seeds)).x

    torch.testing.assert_close(run([5, 6, 7])[1:2], run([6]), atol=1e-5, rtol=0)
