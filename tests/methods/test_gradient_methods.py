"""The methods that differentiate the model, or could: by hand, by closed form, and on problem A."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from paintback.denoiser import Codec, Denoiser, NetworkDenoiser, Prediction
from paintback.methods import get
from paintback.methods.base import Method, Run, Time, ancestral_std
from paintback.methods.copaint import CoPaint
from paintback.methods.dps import Dps
from paintback.methods.fcs import Fcs
from paintback.methods.gradpaint import GradPaint
from paintback.methods.ldps import Ldps
from paintback.methods.linear import (
    conjugate_gradient,
    damped,
    decoded,
    gmres,
    picture_observation,
    restarted_gradient,
)
from paintback.methods.mcg import Mcg
from paintback.methods.mmps import Mmps
from paintback.methods.p2l import P2l
from paintback.methods.pigdm import Pigdm
from paintback.methods.psld import Psld
from paintback.observation import AveragePool, Bicubic, Observation
from paintback.priors import GaussianMixture, correlated16, ding_toy, gaussian_2d, grid25
from paintback.priors.divergence import gaussian_kl
from paintback.schedules import EDM, VP, Flow, Schedule, make_grid

METHODS = [
    Mcg(),
    Dps(),
    Dps(zeta=0.01, normalise=True),
    Pigdm(),
    Pigdm(form="posterior", eta=0.0),
    Mmps(),
    Mmps(iterations=3, eta=1.0),
    Mmps(iterations=2, solver="gmres"),
    CoPaint(),
    CoPaint(repeats=3, iterations=1),
    CoPaint(iterations=0),
    Psld(),
    Ldps(),
    P2l(),
    GradPaint(),
    GradPaint(recompute=False, fraction=1.0, norm="inf"),
    Fcs(),
    Fcs(difference="central", inner_steps=2, restarts=2),
]
WITH_OPERATOR = [Dps(), Pigdm(), Pigdm(form="posterior"), Mmps(iterations=4), Psld(), Ldps(), P2l(), Fcs()]
SCHEDULES = [VP(), Flow(), EDM()]


def ids(value: object) -> str:
    if not isinstance(value, Method):
        return type(value).__name__
    changed = [f.name for f in dataclasses.fields(value) if getattr(value, f.name) != f.default]
    return "-".join([value.name, *changed])


def open_run(denoiser: Denoiser, observation: Observation, count: int = 3, n: int = 10) -> Run:
    return Run(denoiser, observation, make_grid(denoiser.schedule, n), torch.Generator().manual_seed(0), count)


def states(run: Run, seed: int = 1) -> Tensor:
    return torch.randn(run.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jacobian(prior: GaussianMixture, t: Time) -> Tensor:
    """J of a single Gaussian, from the covariance: alpha C (alpha^2 C + sigma^2)^-1."""
    c = prior.covariances[0]
    return t.alpha * c @ torch.linalg.inv(t.alpha**2 * c + t.sigma**2 * torch.eye(len(c), dtype=c.dtype))


def patches(side: int = 4) -> GaussianMixture:
    """A smooth Gaussian over side x side pictures."""
    place = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 2)
    covariance = (-torch.cdist(place, place) / 2).exp()
    return GaussianMixture(torch.zeros(1, side**2).double(), covariance[None])


# ------------------------------------------------------------------------------------------- by hand


def test_dps_step_by_hand() -> None:
    problem = gaussian_2d()
    run = open_run(problem.prior.denoiser(VP()), problem.observation)
    t, s = run.times[4:6]
    x = states(run)
    x0 = problem.prior.denoiser(VP())(x, t.t).x0
    x1 = (x - t.alpha * x0) / t.sigma
    eta = ancestral_std(t, s)
    eps = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    residual = torch.tensor([[0.0, 1.0]], dtype=torch.float64) * (1.0 - x0)
    pull = residual.sign() @ jacobian(problem.prior, t)  # of length 1: there is one known entry
    ancestral = s.alpha * x0 + math.sqrt(s.sigma**2 - eta**2) * x1 + eta * eps
    assert torch.allclose(Dps(zeta=0.7).step(run, x, t, s), ancestral + 0.7 * pull)
    run = open_run(problem.prior.denoiser(VP()), problem.observation)
    expected = ancestral + 2 * 0.7 * residual @ jacobian(problem.prior, t)
    free = Mcg(alpha=0.7).step(run, x, t, s)
    assert torch.allclose(free[:, 0], expected[:, 0])
    again = torch.Generator().manual_seed(0)
    torch.randn(3, 2, generator=again)
    noise = torch.randn(3, 2, generator=again).double()
    assert torch.allclose(free[:, 1], s.alpha * 1.0 + s.sigma * noise[:, 1])


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_pigdm_step_by_hand(sigma: float) -> None:
    prior = gaussian_2d().prior
    observation = Observation(torch.tensor([0.0, 1.0]).double(), torch.tensor([False, True]), sigma)
    run = open_run(prior.denoiser(VP()), observation)
    t, s = run.times[4:6]
    x = states(run)
    x0 = prior.denoiser(VP())(x, t.t).x0
    r2 = t.sigma**2  # alpha^2 + sigma^2 = 1
    residual = torch.tensor([[0.0, 1.0]], dtype=torch.float64) * (1.0 - x0)
    g = residual @ jacobian(prior, t) / (r2 + sigma**2)
    paper = s.alpha * x0 + s.sigma * (x - t.alpha * x0) / t.sigma + t.alpha * r2 * g
    assert torch.allclose(Pigdm(eta=0.0).step(run, x, t, s), paper)
    moved = x0 + t.sigma**2 / t.alpha * g
    posterior = s.alpha * moved + s.sigma * (x - t.alpha * moved) / t.sigma
    assert torch.allclose(Pigdm(form="posterior", eta=0.0).step(run, x, t, s), posterior)
    assert torch.allclose(Pigdm().finish(run, x, t), x0 + t.alpha * r2 * g)


def test_dps_normalise_is_the_pull_per_value() -> None:
    problem = correlated16()
    x = states(open_run(problem.prior.denoiser(VP()), problem.observation))
    moves = []
    for method in (Dps(zeta=0.0), Dps(zeta=0.5, normalise=True), Dps(zeta=0.5 * math.sqrt(8))):
        run = open_run(problem.prior.denoiser(VP()), problem.observation)
        moves.append(method.step(run, x, run.times[3], run.times[4]))
    assert torch.allclose(moves[1], moves[2])
    assert not torch.allclose(moves[0], moves[1])


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_zero_residual(method: Method) -> None:
    """A y that the prediction meets exactly: no division by zero, and no gradient where there is no residual."""
    prior = GaussianMixture(torch.zeros(1, 2).double(), torch.diag(torch.tensor([1.0, 0.0])).double()[None])
    observation = Observation(torch.zeros(2).double(), torch.tensor([False, True]))
    result = method.sample(prior.denoiser(VP()), observation, 4, torch.Generator().manual_seed(0), 5)
    assert result.x.isfinite().all()
    assert (result.x[:, 1] == 0).all()


# ----------------------------------------------------------------------------------------------- MMPS


def exact_conditional(prior: GaussianMixture, x: Tensor, t: Time, a: Tensor, y: Tensor, sigma: float) -> Tensor:
    """E[x0 | x_t, y] of a single Gaussian, from the joint observation [x_t; y]."""
    d = prior.dim
    both = torch.cat((t.alpha * torch.eye(d, dtype=torch.float64), a))
    noise = torch.cat((torch.full((d,), t.sigma**2), torch.full((len(a),), sigma**2))).double()
    c, m = prior.covariances[0], prior.means[0]
    gain = c @ both.T @ torch.linalg.inv(both @ c @ both.T + noise.diag())
    seen = torch.cat((x, y.expand(len(x), -1)), dim=1)
    return m + (seen - m @ both.T) @ gain.T


@pytest.mark.parametrize("solver", ["cg", "gmres"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=ids)
@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_mmps_is_the_exact_conditional_mean(solver: str, schedule: Schedule, sigma: float) -> None:
    problem = correlated16()
    observation = Observation(problem.observation.y, problem.observation.known, sigma)
    denoiser = problem.prior.denoiser(schedule).in_coordinates("vp")
    run = open_run(denoiser, observation)
    a = torch.eye(16, dtype=torch.float64)[observation.known]
    x, t = states(run), run.times[4]
    method = Mmps(solver=solver, iterations=12)
    expected = exact_conditional(problem.prior, x, t, a, observation.y[observation.known], sigma or 0.01)
    found = method.conditional(run, x, t)
    assert torch.allclose(found.x0, expected, atol=1e-6)
    assert torch.allclose(t.alpha * found.x0 + t.sigma * found.x1, x)
    assert run.cost[:2] == (1, 12)
    # one iteration is not there yet, four are nearer
    errors = [
        float((Mmps(solver=solver, iterations=k).conditional(run, x, t).x0 - expected).abs().max()) for k in (1, 4)
    ]
    assert errors[1] < errors[0]


def test_mmps_operator() -> None:
    prior, pool = patches(), AveragePool(2)
    a = pool(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).reshape(16, 4).T
    y = torch.tensor([1.0, -1.0, 0.5, 0.0]).double()
    run = open_run(prior.denoiser(VP(), (1, 4, 4)), Observation(y.reshape(1, 2, 2), sigma=0.1, operator=pool))
    x, t = states(run), run.times[5]
    found = Mmps(iterations=4).conditional(run, x, t).x0
    assert torch.allclose(found.flatten(1), exact_conditional(prior, x.flatten(1), t, a, y, 0.1), atol=1e-8)


@pytest.mark.parametrize("solver", [conjugate_gradient, gmres])
def test_solvers(solver: object) -> None:
    """Dense systems, one sample with a zero right side, one singular, one of tiny scale; the image is W u."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 5, 5, generator=generator, dtype=torch.float64)
    matrix = root @ root.mT + torch.eye(5, dtype=torch.float64)
    matrix[2] = torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0]))
    matrix[3] *= 1e-8
    b = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    b[1] = 0
    b[2] = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0])
    u, image = solver(lambda p: ((matrix @ p[..., None])[..., 0], 3 * p), b, 5)  # type: ignore[operator]
    assert u.isfinite().all()
    assert torch.allclose((matrix @ u[..., None])[..., 0], b, atol=1e-7)
    assert torch.allclose(image, 3 * u)


def test_gmres_solves_what_is_not_symmetric() -> None:
    generator = torch.Generator().manual_seed(0)
    skew = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64) + skew - skew.T
    b = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    u, _ = gmres(lambda p: (p @ matrix.T, p), b, 4)
    assert torch.allclose(u @ matrix.T, b)


# ----------------------------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_cost_is_as_documented(method: Method, n: int) -> None:
    problem = gaussian_2d()
    for schedule in (VP(), Flow()):
        result = method.sample(problem.prior.denoiser(schedule), problem.observation, n, num_samples=4)
        assert result.evaluations == method.evaluations(n)
        assert result.vjps == method.vjps(n)
        assert (result.vjps > 0) <= method.needs_vjp


@pytest.mark.parametrize("schedule", SCHEDULES, ids=ids)
@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_finite_and_known_exact(method: Method, schedule: Schedule) -> None:
    """A multimodal prior in float32, also in coordinates that are not the paper's."""
    problem = grid25()
    observation = Observation(problem.observation.y.float(), problem.observation.known)
    for coordinates in ("vp", "flow"):
        chosen = dataclasses.replace(method, coordinates=coordinates)
        for n in (1, 12):
            result = chosen.sample(
                problem.prior.denoiser(schedule), observation, n, torch.Generator().manual_seed(0), 50
            )
            assert result.x.dtype == torch.float32
            assert result.x.isfinite().all()
            assert result.residual.isfinite().all()
            assert (result.x[:, 1] == observation.y[1]).all()


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_batch_invariance(method: Method) -> None:
    """A sample alone, and in a batch with samples whose residuals are a hundred times larger."""
    problem = gaussian_2d()
    denoiser, known = problem.prior.denoiser(VP()), problem.observation.known
    y = torch.tensor([[0.0, 1.0], [0.0, -100.0], [0.0, 30.0]])

    def seeds(*values: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(value) for value in values]

    alone = method.sample(denoiser, Observation(y[:1], known), 6, seeds(7)).x
    together = method.sample(denoiser, Observation(y, known), 6, seeds(7, 8, 9)).x
    assert torch.allclose(alone[0], together[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_noisy_observation(method: Method) -> None:
    """sigma > 0: finite, and the known entry is not y."""
    problem = ding_toy(sigma=0.5)
    result = method.sample(problem.prior.denoiser(VP()), problem.observation, 12, torch.Generator().manual_seed(0), 200)
    assert result.x.isfinite().all()
    assert float((result.x[:, 0] - 1.2).abs().mean()) > 0.01


@pytest.mark.parametrize("schedule", SCHEDULES, ids=ids)
@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_initial(method: Method, schedule: Schedule) -> None:
    """A clean picture to start from at a late time is where the samples stay."""
    problem = gaussian_2d()
    denoiser = problem.prior.denoiser(schedule).in_coordinates("vp")
    late = float(denoiser.schedule.time_of_ratio(torch.tensor(0.05)))
    initial = torch.tensor([1.9, 1.0], dtype=torch.float64)
    method = dataclasses.replace(method, step_size=0.02, last_step_size=0.02) if method.name == "fcs" else method
    result = method.sample(
        denoiser, problem.observation, 2, torch.Generator().manual_seed(0), 40, [late, late / 2, 0.0], initial=initial
    )
    assert abs(float(result.x[:, 0].mean()) - 1.9) < 0.2


@pytest.mark.parametrize("method", WITH_OPERATOR, ids=ids)
@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_operator(method: Method, sigma: float) -> None:
    """The residual of super-resolution falls far below the unguided one, with every operator."""
    prior = patches(8)
    truth = prior.sample(1, torch.Generator().manual_seed(3)).reshape(1, 8, 8)
    for operator in (AveragePool(4), Bicubic(4, 8, 8)):
        observation = Observation(operator(truth[None])[0], sigma=sigma, operator=operator)
        result = method.sample(prior.denoiser(VP(), (1, 8, 8)), observation, 30, torch.Generator().manual_seed(0), 20)
        free = Dps(zeta=0.0).sample(
            prior.denoiser(VP(), (1, 8, 8)), observation, 30, torch.Generator().manual_seed(0), 20
        )
        assert result.x.isfinite().all()
        assert result.evaluations == method.evaluations(30)
        assert result.residual.mean() < 0.6 * free.residual.mean()


def test_pigdm_noisy_operator_by_dense_algebra() -> None:
    pool = AveragePool(2)
    observation = Observation(torch.ones(1, 2, 2).double(), sigma=0.3, operator=pool)
    run = open_run(patches().denoiser(VP(), (1, 4, 4)), observation)
    residual = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # A A^T = I / 4
    expected = pool.transpose(residual) / (0.5 / 4 + 0.09)
    assert torch.allclose(Pigdm().whiten(run, residual, 0.5), expected)


# ------------------------------------------------------------------------------------------- latents


class Enlarge(Codec):
    """Latents of 2 x 2 cells, pictures of 4 x 4 pixels, three times as bright."""

    def encode(self, picture: Tensor) -> Tensor:
        return F.avg_pool2d(picture, 2) / 3

    def decode(self, x: Tensor) -> Tensor:
        return 3 * x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def latent_run(known: Tensor) -> Run:
    denoiser = patches(2).denoiser(VP(), (1, 2, 2))
    denoiser.codec = Enlarge()
    return open_run(denoiser, Observation(torch.ones(1, 2, 2).double(), known))


def test_latent_methods_are_dps_on_pixels() -> None:
    problem = gaussian_2d()
    found = [
        method.sample(problem.prior.denoiser(VP()), problem.observation, 8, torch.Generator().manual_seed(0), 6).x
        for method in (Dps(zeta=0.3), Ldps(zeta=0.3), Psld(omega=0.2, gamma=0.1), P2l(zeta=0.3, period=0))
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[3])
    assert torch.allclose(found[0], found[2], atol=1e-12)


def test_picture_behind_a_latent_mask() -> None:
    known = torch.tensor([[[True, False], [True, True]]])
    run = latent_run(known)
    y, pixels = picture_observation(run)
    assert y.shape == pixels.shape == (3, 1, 4, 4)
    assert pixels[0, 0].tolist() == [[True, True, False, False]] * 2 + [[True] * 4] * 2
    assert (y[0][pixels[0]] == 3).all()
    picture, back = decoded(run, states(run))
    assert picture.shape == (3, 1, 4, 4)
    assert torch.equal(back(torch.ones_like(picture)), torch.full((3, 1, 2, 2), 12.0).double())


def test_latent_pulls_are_gradients() -> None:
    """LDPS' and PSLD's cotangents against finite differences of the norms."""
    run = latent_run(torch.tensor([[[True, False], [True, True]]]))
    y, pixels = picture_observation(run)
    x0 = states(run)

    def residual(x: Tensor) -> Tensor:
        return torch.where(pixels, y - run.codec.decode(x), 0.0).flatten(1).norm(dim=1)

    def glue(x: Tensor) -> Tensor:
        glued = torch.where(pixels, y, run.codec.decode(x))
        return (x - run.codec.encode(glued)).flatten(1).norm(dim=1)

    for value, pull in ((residual, Ldps().pull(run, x0)), (glue, Psld().glue(run, x0))):
        direction, h = states(run, 5), 1e-6
        slope = (value(x0 + h * direction) - value(x0 - h * direction)) / (2 * h)
        assert torch.allclose(-(pull * direction).flatten(1).sum(1), slope, atol=1e-7)


@pytest.mark.parametrize("method", [Ldps(), Psld(), P2l(period=1), Fcs(), GradPaint()], ids=ids)
def test_latent_run(method: Method) -> None:
    denoiser = patches(2).denoiser(Flow(), (1, 2, 2))
    denoiser.codec = Enlarge()
    observation = Observation(torch.ones(1, 2, 2).double(), torch.tensor([[[True, False], [True, True]]]))
    result = method.sample(denoiser, observation, 20, torch.Generator().manual_seed(0), 30)
    assert result.x.isfinite().all()
    assert (result.x[:, 0, 0, 0] == 1).all()
    assert float(result.x[:, 0, 0, 1].mean()) > 0.3  # 0 without the pull of its neighbours


def test_projection() -> None:
    """P2L's minimum has no gradient left, for a mask and for an operator."""
    run = latent_run(torch.tensor([[[True, False], [True, True]]]))
    picture = run.codec.decode(states(run))
    y, pixels = picture_observation(run)
    u = P2l(softness=0.5).project(run, picture)
    assert torch.allclose(torch.where(pixels, u - y, 0.0) + 0.5 * (u - picture), torch.zeros_like(u))
    pool = AveragePool(2)
    observation = Observation(torch.ones(1, 2, 2).double(), operator=pool)
    run = open_run(patches().denoiser(VP(), (1, 4, 4)), observation)
    picture = states(run)
    u = P2l(softness=0.5).project(run, picture)
    assert torch.allclose(pool.transpose(pool(u) - run.y) + 0.5 * (u - picture), torch.zeros_like(u), atol=1e-10)
    assert torch.allclose(pool(P2l(softness=0.0).project(run, picture)), run.y)


# --------------------------------------------------------------------------------------------- prompts


class Shifted(torch.nn.Module):
    """An x0 network of the prior N(prompt, I): the prompt is the mean."""

    def forward(self, x: Tensor, clock: Tensor, prompt: Tensor) -> Tensor:
        level = self.schedule.at(float(clock[0] + 1) / 1000)
        gain = level.alpha / (level.alpha**2 + level.sigma**2)
        return prompt + gain * (x - level.alpha * prompt)

    schedule = VP()


def prompted(prompt: Tensor, schedule: Schedule | None = None) -> NetworkDenoiser:
    return NetworkDenoiser(Shifted(), schedule or VP(), "x0", condition=prompt)


def test_p2l_tunes_the_prompt_of_every_sample() -> None:
    prompt = torch.zeros(1, 2, dtype=torch.float64)
    denoiser = prompted(prompt)
    y = torch.tensor([[2.0, 0.0], [-3.0, 0.0]], dtype=torch.float64)
    observation = Observation(y, torch.tensor([True, False]))
    method = P2l(prompt_rate=0.05, prompt_steps=4)
    run = Run(denoiser, observation, make_grid(VP(), 10), torch.Generator().manual_seed(0), None)
    x, t = torch.zeros(2, 2, dtype=torch.float64), run.times[2]
    method.tune_prompt(run, x, t)
    assert run.condition is not None
    assert run.condition.shape == (2, 2)
    assert torch.allclose(run.condition, torch.tensor([[0.2, 0.0], [-0.2, 0.0]]).double(), atol=1e-3)
    assert (prompt == 0).all()
    assert denoiser.condition is prompt
    assert run.denoiser(x, t).x0[0, 0] > denoiser(x, t).x0[0, 0]
    assert run.cost[:2] == (4, 4)
    result = method.sample(denoiser, observation, 10, torch.Generator().manual_seed(0))
    assert result.evaluations == method.evaluations(10, prompted=True) == 10 + 10 * 4
    assert result.vjps == method.vjps(10, prompted=True) == 10 * 5


@pytest.mark.parametrize("coordinates", ["vp", "edm"])
def test_gradient_with_respect_to_the_prompt(coordinates: str) -> None:
    denoiser = prompted(torch.zeros(1, 2, dtype=torch.float64)).in_coordinates(coordinates)  # type: ignore[arg-type]
    run = open_run(denoiser, Observation(torch.zeros(2).double()), n=4)
    t = denoiser.schedule.at(0.4)
    prompt = torch.ones(3, 2, dtype=torch.float64)
    prediction, vjp = run.linearise(states(run), t, condition=prompt)
    level = VP().at(0.4)
    assert torch.allclose(vjp(torch.ones(3, 2).double()), torch.full((3, 2), level.sigma**2).double())
    assert torch.allclose(prediction.x0, denoiser.with_condition(prompt)(states(run), t).x0)
    assert run.denoiser is denoiser
    assert (denoiser.condition == 0).all()
    assert run.cost[:2] == (1, 1)


def test_checkpointing_changes_nothing_but_memory() -> None:
    problem = grid25()
    found = []
    for checkpoint in (False, True):
        run = open_run(problem.prior.denoiser(Flow()).in_coordinates("vp"), problem.observation)
        prediction, vjp = run.linearise(states(run), run.times[3], checkpoint=checkpoint)
        found.append(torch.stack((prediction.x0, prediction.x1, vjp(states(run, 2)), vjp(states(run, 3)))))
        assert run.cost == (1, 2, 1)
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_noise_network_at_alpha_zero(method: Method) -> None:
    """An eps network knows no picture at alpha = 0: x0 does not depend on x there."""
    denoiser = NetworkDenoiser(lambda x, clock: 0.9 * x, Flow(), "eps")
    observation = Observation(torch.ones(4), torch.tensor([True, True, False, False]))
    result = method.sample(denoiser, observation, 5, torch.Generator().manual_seed(0), 3)
    assert result.x.isfinite().all()
    assert (result.evaluations, result.vjps) == (method.evaluations(5), method.vjps(5))


# -------------------------------------------------------------------------------------------- CoPaint


def test_copaint_lowers_its_loss() -> None:
    problem = grid25()
    run = open_run(problem.prior.denoiser(VP()), problem.observation, count=200)
    for t in run.times[:-1]:
        x = t.alpha * torch.randn(200, 2, generator=torch.Generator().manual_seed(2)).double() + t.sigma * states(run)
        before = (run.denoise(x, t).x0[:, 1] - 0.3).abs()
        for size in (0.3, 50.0):  # the second is far too large: kept only where it helps
            found = CoPaint(step_size=size, growth=1.0, iterations=6).optimise(run, x, t)
            after = (found.x0[:, 1] - 0.3).abs()
            assert (after <= before + 1e-12).all()
            if size < 1 and 0.1 < t.t < 1:
                assert after.mean() < before.mean()


# ---------------------------------------------------------------------------------------- problem A


@pytest.mark.parametrize(
    ("method", "n", "low", "high", "residual"),
    [
        # peers: DPS per sample .100 at zeta 1, .025 at .3 and 50 steps, .38 at .1; MMPS .0142 and .0025, .043 for eta 1
        (Dps(), 20, 0.06, 0.15, 0.7),
        (Dps(zeta=0.3), 50, 0.012, 0.045, 0.25),
        (Dps(zeta=0.1), 50, 0.3, 0.5, 0.9),
        (Ldps(zeta=0.3), 50, 0.012, 0.045, 0.25),
        (P2l(zeta=0.3), 50, 0.0, 0.06, 0.25),
        (Psld(omega=0.1, gamma=0.1, coordinates="flow"), 50, 0.03, 0.08, 0.16),  # peer .053, residual .118
        (Mmps(), 20, 0.008, 0.024, 0.005),
        (Mmps(), 50, 0.0, 0.006, 0.005),
        (Mmps(eta=1.0), 20, 0.03, 0.06, 0.005),
        (Pigdm(), 20, 0.03, 0.085, 0.03),  # peer .058
        (Pigdm(form="posterior", eta=0.0), 50, 0.0, 0.015, 0.01),
        (Mcg(), 50, 0.0, 0.025, 0.12),
        (CoPaint(), 20, 0.0, 0.12, 0.05),
        (GradPaint(rho=0.2, fraction=1.0), 50, 0.0, 0.2, 0.12),
    ],
    ids=ids,
)
def test_problem_a(method: Method, n: int, low: float, high: float, residual: float) -> None:
    problem = gaussian_2d()
    observation = Observation(problem.observation.y.float(), problem.observation.known)
    result = method.sample(problem.prior.denoiser(VP()), observation, n, torch.Generator().manual_seed(0), 4000)
    if method.name == "psld":
        result = method.sample(problem.prior.denoiser(Flow()), observation, n, torch.Generator().manual_seed(0), 4000)
    assert low <= gaussian_kl(result.x[:, :1], problem.posterior) <= high
    assert float(result.residual.square().mean().sqrt()) <= residual


def test_mmps_of_a_noisy_observation() -> None:
    problem = ding_toy(sigma=0.5)
    result = Mmps(eta=0.0).sample(
        problem.prior.denoiser(VP()), problem.observation, 60, torch.Generator().manual_seed(0), 4000
    )
    assert gaussian_kl(result.x[:, 1:], problem.posterior) < 0.005


@pytest.mark.parametrize("seed", range(10))
def test_no_solver_grows_whatever_the_matrix_is(seed: int) -> None:
    """Indefinite, singular, far from symmetric, or nothing at all: no residual rises, and no sample sees another."""
    pick = torch.Generator().manual_seed(seed)
    size = int(torch.randint(2, 12, (1,), generator=pick))
    matrix = torch.randn(4, size, size, generator=pick, dtype=torch.float64)
    matrix[0] = matrix[0] @ matrix[0].T  # positive
    matrix[1] = matrix[1] + matrix[1].T  # indefinite: curvature nearly vanishes somewhere
    matrix[2] = 1e-9 * (matrix[2] - matrix[2].T)  # no curvature at all
    matrix[3] = matrix[3] * (torch.rand((), generator=pick) < 0.8)
    b = torch.randn(4, size, generator=pick, dtype=torch.float64) * torch.tensor([[1.0], [1e-4], [1e3], [1.0]])

    for solve in (conjugate_gradient, restarted_gradient, gmres):
        last = b.norm(dim=1)
        for iterations in range(1, size + 3):
            u, image = solve(lambda p: ((matrix @ p[..., None])[..., 0], 2 * p), b, iterations)
            assert u.isfinite().all()
            torch.testing.assert_close(image, 2 * u)
            residual = (b - (matrix @ u[..., None])[..., 0]).norm(dim=1)
            assert (residual <= last * (1 + 1e-9) + 1e-12 * b.norm(dim=1)).all()
            last = residual
            for k in range(4):
                alone = matrix[k : k + 1]
                own, _ = solve(lambda p, alone=alone: ((alone @ p[..., None])[..., 0], p), b[k : k + 1], iterations)
                torch.testing.assert_close((alone @ own[..., None])[..., 0], (matrix @ u[..., None])[k : k + 1, :, 0])


@pytest.mark.parametrize("seed", range(10))
def test_damping_is_what_was_measured(seed: int) -> None:
    """0 for a covariance; else as much as it lacks, so that nothing grows; every sample for itself."""
    pick = torch.Generator().manual_seed(seed)
    size = int(torch.randint(2, 12, (1,), generator=pick))
    matrix = torch.randn(5, size, size, generator=pick, dtype=torch.float64)
    matrix[0] = matrix[0] @ matrix[0].T  # a covariance
    matrix[1] = matrix[1] + matrix[1].T  # no rotation, negative curvature
    matrix[2] = matrix[2] - matrix[2].T  # rotation and nothing else
    matrix[4] = 0
    b = torch.randn(5, size, generator=pick, dtype=torch.float64) * torch.tensor([[1.0], [1e-4], [1e3], [1.0], [1.0]])

    def solve(rows: slice, iterations: int) -> tuple[Tensor, Tensor]:
        own = matrix[rows]
        return damped(lambda p: ((own @ p[..., None])[..., 0],) * 2, lambda p: (p, p), b[rows], iterations)

    for iterations in range(1, size + 3):
        u, image = solve(slice(None), iterations)
        assert u.isfinite().all()
        added = image - (matrix @ u[..., None])[..., 0]  # d u: the map that was given is M itself
        d = (added * u).sum(1) / u.square().sum(1).clamp(min=1e-300)
        torch.testing.assert_close(added, d[:, None] * u, atol=1e-9, rtol=1e-9)
        assert ((b - image).norm(dim=1) <= b.norm(dim=1) * (1 + 1e-9)).all()
        largest = torch.linalg.matrix_norm(matrix, 2)
        assert (d >= -1e-9 * largest).all() and (d <= 2 * largest + 1e-9).all()
        assert abs(d[0]) <= 1e-9 * largest[0]
        for k in range(5):
            torch.testing.assert_close(solve(slice(k, k + 1), iterations)[1][0], image[k], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(image[0], b[0], atol=1e-5, rtol=1e-5)  # solved
    if size > 2:
        skew = torch.linalg.matrix_norm(matrix[2], 2)
        assert 0.1 * skew < d[2] <= skew * (1 + 1e-9)


class Rough(Denoiser):
    """A network whose Jacobian is no covariance: rotations and a random matrix beside a weak denoiser."""

    def __init__(self, seed: int) -> None:
        super().__init__(VP())
        self.matrix = torch.randn(24, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 24**0.5

    def predict(self, x: Tensor, time: Time) -> Prediction:
        scaled = x / (time.alpha**2 + time.sigma**2) ** 0.5
        x0 = torch.tanh(0.3 * time.alpha * scaled + 0.7 * scaled @ self.matrix)
        return Prediction(x0, (x - time.alpha * x0) / time.sigma)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "fields",
    [("mmps", {"iterations": k, "solver": solver}) for k in (1, 2, 4) for solver in ("cg", "gmres")]
    + [("fmm", {"iterations": k, "damping": damping}) for k in (1, 2, 4) for damping in (None, 0.0, 0.03)],
    ids=str,
)
def test_a_jacobian_that_is_no_covariance_does_no_harm(fields: tuple[str, dict[str, Any]], seed: int) -> None:
    """States of 9e4 were seen; pictures of a network that says -1 to 1 stay near that."""
    name, chosen = fields
    known = torch.rand(24, generator=torch.Generator().manual_seed(seed)) < 0.7
    observation = Observation(torch.full((24,), 0.8, dtype=torch.float64), known)
    sizes_seen: list[float] = []
    get(name, **chosen).sample(
        Rough(seed),
        observation,
        16,
        torch.Generator().manual_seed(seed),
        20,
        callback=lambda step, t, x, x0: sizes_seen.append(float(torch.maximum(x.abs(), x0.abs()).max())) and None,
    )
    assert max(sizes_seen) < 40
