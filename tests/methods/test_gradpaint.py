"""GradPaint: the losses and their gradient, the move, the switches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paintback.denoiser import Denoiser
from paintback.methods.base import Run
from paintback.methods.gradpaint import GradPaint, alignment
from paintback.observation import Observation
from paintback.priors import GaussianMixture, gaussian_2d
from paintback.priors.divergence import gaussian_kl
from paintback.schedules import EDM, VP, Flow, Schedule, make_grid

SIDE = 4
MASK = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
MASK[:, 1:3, 2:] = False


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prior() -> GaussianMixture:
    """Three smooth components over 4 x 4 pictures: a denoiser that is not linear."""
    place = torch.cartesian_prod(*[torch.arange(SIDE, dtype=torch.float64)] * 2)
    covariance = (-torch.cdist(place, place) / 2).exp()
    return GaussianMixture(normal(3, SIDE**2, seed=8), covariance.repeat(3, 1, 1) * 0.3, torch.tensor([1.0, 2.0, 1.0]))


def open_run(denoiser: Denoiser, observation: Observation, count: int = 3, n: int = 10) -> Run:
    return Run(denoiser, observation, make_grid(denoiser.schedule, n), torch.Generator().manual_seed(0), count)


def pictures(schedule: Schedule | None = None, sigma: float = 0.0) -> Run:
    denoiser = prior().denoiser(schedule or VP(), (1, SIDE, SIDE)).in_coordinates("vp")
    return open_run(denoiser, Observation(normal(1, SIDE, SIDE, seed=4), MASK, sigma))


@pytest.mark.parametrize("seam", ["composite", "raw"])
@pytest.mark.parametrize("schedule", [VP(), Flow(), EDM()], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_equals_finite_differences(seam: str, schedule: Schedule, checkpointing: bool) -> None:
    method = GradPaint(seam=seam, lambda_al=2.0, checkpointing=checkpointing)  # type: ignore[arg-type]
    run = pictures(schedule)
    for t in run.times[1:10:3]:
        x = normal(*run.shape, seed=1)
        _, gradient = method.gradient(run, x, t)
        for seed in (2, 3):
            direction, h = normal(*run.shape, seed=seed), 1e-5
            ends = [method.loss(run, run.denoiser(x + sign * h * direction, t).x0) for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / (2 * h)
            found = (gradient * direction).flatten(1).sum(1)
            assert torch.allclose(found, slope, rtol=1e-5, atol=1e-7)


def test_alignment_by_hand() -> None:
    """A 2 x 2 hole at the right border of 4 x 4: two seams on the left, two above, two below."""
    y, x0 = torch.full((1, 1, 4, 4), 3.0), torch.full((1, 1, 4, 4), 5.0)
    known = MASK[None]
    assert alignment(x0, y, known, composite=True).item() == 4.0
    assert alignment(x0, y, known, composite=False).item() == 0.0  # the prediction itself is smooth
    x0 = x0.clone()
    x0[0, 0, 1, 3] = 9.0  # meets the mask above, and two hidden ones
    assert alignment(x0, y, known, composite=True).item() == pytest.approx((5 * 4 + 36) / 6)
    assert alignment(x0, y, known, composite=False).item() == pytest.approx(16 / 6)
    two = alignment(torch.cat((x0, x0), 1), torch.cat((y, y), 1), known.expand(1, 2, 4, 4), composite=True)
    assert two.item() == pytest.approx((5 * 4 + 36) / 6)  # a mean over channels
    assert alignment(x0, y, torch.ones_like(known), composite=True).item() == 0.0  # no seam


def test_alignment_is_for_pictures() -> None:
    """A vector's loss is the masked mean square, and so is that without lambda."""
    run = pictures()
    x0 = normal(*run.shape, seed=1)
    square = ((x0 - run.y) ** 2 * run.known).flatten(1).sum(1) / 12
    assert torch.allclose(GradPaint(lambda_al=0.0).loss(run, x0), square)
    assert (GradPaint().loss(run, x0) > square).all()
    flat = open_run(prior().denoiser(VP()), Observation(normal(16, seed=4), MASK.flatten()))
    assert torch.allclose(GradPaint().loss(flat, x0.flatten(1)), square)


@pytest.mark.parametrize("norm", ["l2", "inf"])
def test_move(norm: str) -> None:
    """Against the gradient, of the size rho sigma_t per entry, every sample for itself; it lowers the loss."""
    run = pictures()
    method = GradPaint(norm=norm, recompute=False, rho=0.01)  # type: ignore[arg-type]
    x, t = normal(*run.shape, seed=1), run.times[2]
    at_t, move = method.look(run, x, t)
    assert move is not None
    _, gradient = method.gradient(run, x, t)
    size = move.square().mean((1, 2, 3)).sqrt() if norm == "l2" else move.abs().amax((1, 2, 3))
    assert torch.allclose(size, torch.full((3,), 0.01 * t.sigma).double())
    cosine = torch.nn.functional.cosine_similarity(move.flatten(1), gradient.flatten(1))
    assert torch.allclose(cosine, -torch.ones(3).double())
    assert (method.loss(run, run.denoiser(x + move, t).x0) < method.loss(run, at_t.x0)).all()


def test_recompute_or_shift() -> None:
    run = pictures()
    x, (t, s) = normal(*run.shape, seed=1), run.times[2:4]
    plain = GradPaint(recompute=False, replace=False, eta=0.0)
    at_t, move = plain.look(run, x, t)
    assert move is not None
    # DDPM's step from the moved state with the old noise prediction
    x0 = (x + move - t.sigma * at_t.x1) / t.alpha
    assert torch.allclose(plain.step(run, x, t, s), s.alpha * x0 + s.sigma * at_t.x1)
    again = run.denoise(x + move, t)
    expected = s.alpha * again.x0 + s.sigma * again.x1
    assert torch.allclose(GradPaint(replace=False, eta=0.0).step(run, x, t, s), expected)


@pytest.mark.parametrize("recompute", [False, True])
def test_alpha_zero(recompute: bool) -> None:
    run = pictures(Flow())
    assert run.times[0].alpha == 0
    x_s = GradPaint(recompute=recompute).step(run, normal(*run.shape), run.times[0], run.times[1])
    assert x_s.isfinite().all()
    assert x_s.abs().max() < 10


@pytest.mark.parametrize(
    ("fraction", "n", "guided"), [(0.45, 20, 9), (0.45, 21, 10), (0.0, 5, 0), (1.0, 5, 5), (0.45, 1, 1)]
)
def test_guided_steps(fraction: float, n: int, guided: int) -> None:
    problem = gaussian_2d()
    for recompute in (True, False):
        method = GradPaint(fraction=fraction, recompute=recompute)
        assert method.guided_steps(n) == guided
        result = method.sample(problem.prior.denoiser(VP()), problem.observation, n, num_samples=3)
        assert (result.evaluations, result.vjps) == (n + guided * recompute, guided)


def test_replacement_and_noise() -> None:
    run = pictures()
    x, (t, s) = normal(*run.shape, seed=1), run.times[2:4]
    kept = GradPaint(rho=0.0, eta=0.0).step(run, x, t, s)
    free = GradPaint(rho=0.0, eta=0.0, replace=False).step(pictures(), x, t, s)
    assert torch.equal(kept[~run.known], free[~run.known])
    noise = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(kept[run.known], (s.alpha * run.y + s.sigma * noise)[run.known])


def test_noisy_observation_is_not_followed_below_its_noise() -> None:
    run = pictures(sigma=0.5)
    near = run.y + 0.2 * torch.randn(run.shape, generator=torch.Generator().manual_seed(1)).double()
    assert (GradPaint().trust(run, near) == 0).all()
    far = run.y + 1.0
    assert torch.allclose(GradPaint().trust(run, far), torch.full((3, 1, 1, 1), 0.75).double())
    assert (GradPaint().trust(pictures(), far) == 1).all()


def test_guidance_brings_the_mean_nearer() -> None:
    """Four pictures, a hundred samples each, against the posterior mean; the baseline is replacement alone."""
    truth = prior().sample(4, torch.Generator().manual_seed(2)).reshape(4, 1, SIDE, SIDE)
    exact = torch.stack([prior().posterior(Observation(one, MASK), joint=True).mean() for one in truth])

    def bias(method: GradPaint) -> float:
        denoiser = prior().denoiser(VP(), (1, SIDE, SIDE))
        result = method.sample(denoiser, Observation(truth, MASK), 30, torch.Generator().manual_seed(0), 100)
        means = result.x.reshape(4, 100, -1).mean(1)
        return float((means - exact).square().mean())

    baseline = bias(GradPaint(fraction=0.0))
    assert bias(GradPaint(fraction=1.0, lambda_al=0.0)) < 0.7 * baseline
    assert bias(GradPaint()) < 1.05 * baseline


def test_problem_a_against_replacement() -> None:
    """Better than its baseline at every number of steps, and still far from the posterior."""
    problem = gaussian_2d()
    observation = Observation(problem.observation.y.float(), problem.observation.known)
    found = [
        gaussian_kl(
            method.sample(problem.prior.denoiser(VP()), observation, n, torch.Generator().manual_seed(0), 3000).x[
                :, :1
            ],
            problem.posterior,
        )
        for n in (20, 50)
        for method in (GradPaint(fraction=0.0), GradPaint(), GradPaint(fraction=1.0))
    ]
    assert found[0] > found[1] > found[2] > 0.1
    assert found[3] > found[4] > found[5] > 0.02
    assert found[4] < 0.3


def test_checkpointing_gives_the_same_samples() -> None:
    observation = Observation(normal(1, SIDE, SIDE, seed=4), MASK)
    denoiser = prior().denoiser(VP(), (1, SIDE, SIDE))
    results = [
        GradPaint(checkpointing=checkpointing).sample(denoiser, observation, 10, torch.Generator().manual_seed(0), 5)
        for checkpointing in (False, True)
    ]
    assert torch.allclose(results[0].x, results[1].x)
    assert (results[0].evaluations, results[0].vjps) == (results[1].evaluations, results[1].vjps) == (15, 5)
