"""LanPaint: the exact sub-step, one iteration against its equations, cost, invariance, and measured divergences."""

import copy
import dataclasses
import itertools
import math
import pickle
import random
from unittest import mock

import pytest
import torch

import paintback as pb
from paintback.denoiser import Denoiser, Prediction
from paintback.methods.base import Run
from paintback.methods.lanpaint import LanPaint, _damped, _overdamped
from paintback.priors import gaussian_2d, gaussian_kl
from paintback.randomness import Generators
from paintback.schedules import EDM, VP, Flow, log_snr, make_grid

PROBLEM = gaussian_2d()
SCHEDULES = {"vp": VP(), "flow": Flow(), "edm": EDM()}


def sample(method, n=20, seed=0, count=8, schedule=None, observation=PROBLEM.observation, grid=None, callback=None):
    denoiser = PROBLEM.prior.denoiser(schedule or VP())
    return method.sample(denoiser, observation, n, torch.Generator().manual_seed(seed), count, grid, callback)


def law(method, n, **more):
    """The law of the samples, without sampling error, as a Gaussian of both entries.

    For a Gaussian prior a sample is affine in its normal draws: the row without noise is the mean, and a row with a
    single 1 among its draws is a column of the covariance's root.
    """
    drawn = 0

    def nothing(self, like):
        nonlocal drawn
        drawn += 1
        return torch.zeros_like(like)

    with mock.patch.object(Generators, "normal", nothing):
        sample(method, n, count=1, **more)
    count, drawn = 1 + 2 * drawn, 0

    def one_each(self, like):
        nonlocal drawn
        draw = torch.zeros_like(like)
        draw[1 + 2 * drawn, 0] = draw[2 + 2 * drawn, 1] = 1
        drawn += 1
        return draw

    with mock.patch.object(Generators, "normal", one_each):
        x = sample(method, n, count=count, **more).x
    return pb.priors.GaussianMixture(x[:1], ((x[1:] - x[0]).T @ (x[1:] - x[0]))[None])


def closed_kl(p, q):
    """KL(p || q) of Gaussians."""
    factor, shift = q.covariance().inverse(), p.mean() - q.mean()
    ratio = factor @ p.covariance()
    return float(ratio.trace() - len(shift) - ratio.logdet() + shift @ factor @ shift) / 2


def divergence(n, **fields):
    """KL of the hidden entry's law from the posterior."""
    return closed_kl(law(LanPaint(**fields), n).marginal([0]), PROBLEM.posterior)


def test_the_exact_divergence_is_that_of_samples():
    samples = sample(LanPaint(), 20, count=20_000).x[:, :1]
    assert gaussian_kl(samples, PROBLEM.posterior) == pytest.approx(divergence(20), abs=0.003)


# ------------------------------------------------------------------------------------------------ the exact sub-step


@pytest.mark.parametrize("friction", [0.5, 1.5, 2 - 1e-9, 2.0, 2 + 1e-9, 2.5, 15.0])
@pytest.mark.parametrize("damping", [1.0, 9.0])
@pytest.mark.parametrize("duration", [1e-7, 1e-5, 1e-3, 0.075, 0.15, 2.0, 100.0])
def test_damped_is_the_matrix_exponential(friction, damping, duration):
    g = friction**2 * damping
    m = torch.tensor([[0.0, math.sqrt(g)], [-damping * math.sqrt(g), -g]], dtype=torch.float64)
    *e, l_zz, l_vz, l_vv = _damped(damping, duration, friction)
    torch.testing.assert_close(
        torch.tensor(e, dtype=torch.float64).reshape(2, 2), torch.matrix_exp(m * duration), atol=1e-11, rtol=1e-8
    )
    # the covariance of the noise by Van Loan's block exponential, which never subtracts; halved time, then doubled
    halvings = max(0, math.ceil(math.log2(max(g * duration, 1e-300))))
    small = duration / 2**halvings
    block = torch.zeros(4, 4, dtype=torch.float64)
    block[:2, :2], block[2:, 2:], block[1, 3] = -m, m.T, 2 * g
    power = torch.matrix_exp(block * small)
    flow, covariance = power[2:, 2:].T, power[2:, 2:].T @ power[:2, 2:]
    for _ in range(halvings):
        covariance, flow = covariance + flow @ covariance @ flow.T, flow @ flow
    factor = torch.tensor([[l_zz, 0.0], [l_vz, l_vv]], dtype=torch.float64)
    scale = covariance.diagonal().sqrt()
    got = factor @ factor.T / scale / scale[:, None]
    torch.testing.assert_close(got, covariance / scale / scale[:, None], atol=2e-5, rtol=0)


def test_damped_tends_to_overdamped():
    for damping, duration in itertools.product((1.0, 9.0), (0.075, 0.15)):
        first, second = _overdamped(damping, duration), _damped(damping, duration, 1e4)
        assert second[0] == pytest.approx(first[0], rel=1e-6)
        assert second[4] == pytest.approx(first[4], rel=1e-4)


def test_substeps_are_finite_at_extremes():
    for damping, duration in itertools.product((1.0, 1e12), (1e-12, 1e-3, 1.0, 1e4)):
        assert all(math.isfinite(v) for v in _overdamped(damping, duration))
        for friction in (0.1, 2.0, 15.0, 1e4):
            assert all(math.isfinite(v) for v in _damped(damping, duration, friction))


# ------------------------------------------------------------------------------------------- the inner loop, spelled


class Replay:
    """The noise of a run, drawn again."""

    def __init__(self, count, seed=0):
        self.generator, self.count = torch.Generator().manual_seed(seed), count

    def __call__(self):
        return torch.randn(self.count, 2, generator=self.generator).double()


def open_run(method, schedule, grid, count=32, sigma=0.0, seed=0):
    """A run, its first time, and a state."""
    denoiser = PROBLEM.prior.denoiser(schedule).in_coordinates("vp")
    observation = pb.Observation(PROBLEM.observation.y, PROBLEM.observation.known, sigma)
    times = make_grid(denoiser.schedule, len(grid) - 1, grid)
    run = Run(denoiser, observation, times, torch.Generator().manual_seed(seed), count)
    state = torch.randn(count, 2, generator=torch.Generator().manual_seed(99)).double()
    return run, times[0], state


def test_inner_loop_follows_the_equations():
    """Three iterations at one time, in the paper's own symbols: A, C, tau, the kick, the old C."""
    lam, eta, y = 8.0, 0.15, 1.0
    run, t, z = open_run(LanPaint(), VP(), [0.5, 0.2, 0.0])
    got = LanPaint().langevin(run, z, t, 3)
    noise, denoiser = Replay(32), PROBLEM.prior.denoiser(VP())
    variance = t.sigma**2
    known = torch.tensor([False, True])
    a = torch.tensor([1.0, 1 + lam], dtype=torch.float64) / variance
    tau = eta * variance

    def field(z):
        x0 = denoiser(z, t).x0
        target = torch.where(known, (1 + lam) * y - lam * x0, x0)
        return (t.alpha * target - z) / variance + a * z

    def advance(z, c, time):
        return c / a + (-a * time).exp() * (z - c / a) + ((1 - (-2 * a * time).exp()) / a).sqrt() * noise()

    c = field(z)
    z = advance(z, c, tau)
    for _ in range(2):
        z = advance(z, c, tau / 2)
        new = field(z)
        z = z + (new - c) * tau
        z = advance(z, c, tau / 2)
        c = new
    torch.testing.assert_close(got, z, atol=1e-10, rtol=1e-10)
    assert run.cost[0] == 3


def test_second_order_loop_follows_the_equations():
    """Momentum in the physical variable q, whose stationary law is N(0, Gamma)."""
    lam, eta, y, friction = 8.0, 0.15, 1.0, 3.0
    method = LanPaint(order=2, friction=friction)
    run, t, z = open_run(method, VP(), [0.5, 0.2, 0.0])
    got = method.langevin(run, z, t, 3)
    noise, denoiser = Replay(32), PROBLEM.prior.denoiser(VP())
    variance = t.sigma**2
    a = [1 / variance, (1 + lam) / variance]
    gamma = [friction**2 * v for v in a]
    tau = eta * variance

    def field(z):
        x0 = denoiser(z, t).x0
        target = torch.stack((x0[:, 0], (1 + lam) * y - lam * x0[:, 1]), 1)
        return (t.alpha * target - z) / variance + torch.tensor(a, dtype=torch.float64) * z

    def advance(z, q, c, time):
        first, second, out = noise(), noise(), []
        for i in range(2):
            m = torch.tensor([[0.0, 1.0], [-a[i] * gamma[i], -gamma[i]]], dtype=torch.float64)  # of (z, q)
            e = torch.matrix_exp(m * time)
            rest = torch.diag(torch.tensor([1 / a[i], gamma[i]], dtype=torch.float64))
            root = torch.linalg.cholesky(rest - e @ rest @ e.T)
            centre = torch.stack((c[:, i] / a[i], torch.zeros(32, dtype=torch.float64)))
            pair = torch.stack((z[:, i], q[:, i]))
            out.append(centre + e @ (pair - centre) + root @ torch.stack((first[:, i], second[:, i])))
        return torch.stack([o[0] for o in out], 1), torch.stack([o[1] for o in out], 1)

    root_gamma = torch.tensor(gamma, dtype=torch.float64).sqrt()
    q = root_gamma * noise()
    c = field(z)
    z, q = advance(z, q, c, tau)
    for _ in range(2):
        z, q = advance(z, q, c, tau / 2)
        new = field(z)
        q = q + root_gamma**2 * (new - c) * tau
        z, q = advance(z, q, c, tau / 2)
        c = new
    torch.testing.assert_close(got, z, atol=1e-8, rtol=1e-8)


def test_long_step_is_forward_noising():
    """tau -> infinity: the unknown entries are N(sqrt(abar) x0, 1 - abar), whatever the state was."""
    method = LanPaint(inner_steps=1, step_size=1e6)
    run, t, z = open_run(method, VP(), [0.5, 0.2, 0.0])
    x0 = PROBLEM.prior.denoiser(VP())(z, t).x0
    want = t.alpha * x0 + t.sigma * Replay(32)()
    torch.testing.assert_close(method.langevin(run, z, t, 1)[:, 0], want[:, 0])


def test_guidance_scale_of_the_known_part():
    """x0_BIG is another mix of the same evaluation, on the known entries only."""

    class Guided(Denoiser):
        shape = (2,)

        def predict(self, x, time):
            under = Prediction(torch.full_like(x, 2.0), x)
            without = Prediction(torch.full_like(x, 1.0), x)
            return Prediction(torch.full_like(x, 3.0), x, under, without, rows=2 * len(x))

    def loop(cfg_big):
        method = LanPaint(inner_steps=1, cfg_big=cfg_big)
        run, t, z = open_run(method, VP(), [0.5, 0.2, 0.0])
        run.denoiser = Guided(VP())
        return method.langevin(run, z, t, 1), run, t

    plain, run, t = loop(None)
    same, *_ = loop(2.0)  # 1 + 2 (2 - 1) = 3
    prompt_first, *_ = loop(-0.5)  # 1 - 0.5 = 0.5
    torch.testing.assert_close(plain, same)
    assert run.cost == (1, 0, 2)
    torch.testing.assert_close(plain[:, 0], prompt_first[:, 0])
    pull = (1 - math.exp(-9 * 0.15)) / 9 * 8 * t.alpha * (3 - 0.5)
    torch.testing.assert_close(prompt_first[:, 1] - plain[:, 1], torch.full((32,), pull, dtype=torch.float64))


def test_the_solver_starts_from_the_updated_state():
    """After one step the state is the DDIM step from where the inner loop ended, not from where it began."""
    method, grid = LanPaint(inner_steps=2), torch.tensor([0.5, 0.2, 0.0], dtype=torch.float64)
    states = []
    sample(method, 2, 0, 32, grid=grid, callback=lambda step, t, x, x0: states.append(x))
    noise, denoiser = Replay(32), PROBLEM.prior.denoiser(VP())
    run, t, _ = open_run(method, VP(), grid)
    start = noise() * t.sigma
    start[:, 1] = (t.alpha + t.sigma * noise())[:, 1]
    run.generators.generator.set_state(noise.generator.get_state())
    moved = method.langevin(run, start, t, 2)
    s = run.times[1]
    at = denoiser(moved, t)
    torch.testing.assert_close(states[0], s.alpha * at.x0 + s.sigma * at.x1)
    wrong = s.alpha * at.x0 + s.sigma * (start - t.alpha * at.x0) / t.sigma  # the picture right, the state stale
    assert (states[0] - wrong).abs().mean() > 0.1


def test_all_entries_move_unless_frozen():
    run, t, z = open_run(LanPaint(), VP(), [0.5, 0.2, 0.0])
    assert ((LanPaint().langevin(run, z, t, 2) - z).abs() > 0).all()
    for fast in (True, False):
        got = LanPaint(big=False, fast_langevin=fast).langevin(run, z, t, 2)
        assert torch.equal(got[:, 1], z[:, 1])
        assert ((got - z).abs()[:, 0] > 0).all()


def test_plain_langevin_is_euler_maruyama():
    method = LanPaint(big=False, fast_langevin=False, inner_steps=1)
    run, t, z = open_run(method, VP(), [0.5, 0.2, 0.0])
    score = (t.alpha * PROBLEM.prior.denoiser(VP())(z, t).x0 - z) / t.sigma**2
    tau = 0.15 * t.sigma**2
    want = z + tau * score + math.sqrt(2 * tau) * Replay(32)()
    torch.testing.assert_close(method.langevin(run, z, t, 1)[:, 0], want[:, 0])


# ------------------------------------------------------------------------------------------------- fields and cost


def test_defaults_are_the_papers():
    method = pb.methods.get("lanpaint")
    assert (method.inner_steps, method.step_size, method.guidance, method.friction) == (5, 0.15, 8.0, 15.0)
    assert (method.order, method.early_stop, method.ramp, method.solver) == (1, 0, 0.0, "euler")
    assert method.coordinates == "vp"
    assert method.cfg_big is None
    assert method == pb.methods.get("lanpaint", preset="paper")


def test_preset_moves_what_was_not_given():
    fast = pb.methods.get("lanpaint", preset="fast")
    assert (fast.guidance, fast.step_size, fast.ramp, fast.early_stop) == (5.0, 0.2, 1.0, 1)
    given = pb.methods.get("lanpaint", preset="fast", guidance=6.0, early_stop=2)
    assert (given.guidance, given.step_size, given.early_stop) == (6.0, 0.2, 2)
    assert dataclasses.replace(given, inner_steps=3).guidance == 6.0
    assert fast == LanPaint(guidance=5.0, step_size=0.2, ramp=1.0, early_stop=1, preset="fast")


def test_a_given_field_beats_the_preset_though_it_is_the_papers():
    given = pb.methods.get("lanpaint", preset="fast", guidance=8.0, ramp=0.0)
    assert (given.guidance, given.ramp, given.step_size, given.early_stop) == (8.0, 0.0, 0.2, 1)
    assert given == LanPaint("vp", 5, 0.2, 8.0, ramp=0.0, early_stop=1, preset="fast")
    assert LanPaint("vp", 5, 0.15, preset="fast").step_size == 0.15
    for again in (copy.deepcopy(given), pickle.loads(pickle.dumps(given)), dataclasses.replace(given)):
        assert again == given


@pytest.mark.parametrize(
    "fields",
    [
        {"inner_steps": -1},
        {"order": 3},
        {"ramp": 1.5},
        {"solver": "ancestral"},
        {"path": "none"},
        {"cfg_big": "high"},
        {"cfg_big": math.nan},
        {"preset": "slow"},
        {"big": 1},
    ],
)
def test_wrong_fields(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        pb.methods.get("lanpaint", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"inner_steps": 0},
        {"inner_steps": 10},
        {"order": 2},
        {"early_stop": 2},
        {"early_stop": 99},
        {"ramp": 0.7},
        {"preset": "fast"},
        {"solver": "heun"},
        {"solver": "heun", "preset": "fast"},
        {"solver": "dpmpp_2m"},
        {"big": False},
        {"fast_langevin": False},
    ],
)
def test_counted_cost_is_the_documented_one(fields):
    method = LanPaint(**fields)
    for n in (1, 2, 8):
        assert sample(method, n).evaluations == method.evaluations(n)
        for schedule in (Flow(), EDM()):
            result = sample(method, n, schedule=schedule)
            times = make_grid(PROBLEM.prior.denoiser(schedule).in_coordinates("vp").schedule, n)
            assert result.evaluations == method.evaluations(n, times)
            assert result.vjps == 0


def test_cost_by_formula():
    assert LanPaint().evaluations(20) == 120
    assert LanPaint(inner_steps=10).evaluations(20) == 220
    assert LanPaint(early_stop=1).evaluations(20) == 115
    # the authors' package on its own grid, timesteps 999 ... 0
    for n, inner, cost in ((20, 5, 92), (20, 10, 162), (20, 20, 306), (50, 5, 231)):
        levels = (torch.linspace(999, 0, n, dtype=torch.float64) + 1) / 1000
        times = make_grid(VP(), n, torch.cat((levels, torch.zeros(1, dtype=torch.float64))))
        assert LanPaint(inner_steps=inner, preset="fast").evaluations(n, times) == cost


# ------------------------------------------------------------------------------------------- invariance, robustness


@pytest.mark.parametrize("fields", [{}, {"order": 2}, {"preset": "fast"}, {"solver": "heun"}, {"solver": "dpmpp_2m"}])
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_model_family_does_not_matter(fields, sigma):
    observation = pb.Observation(PROBLEM.observation.y, PROBLEM.observation.known, sigma)
    grid = log_snr(sigma_min=0.02, sigma_max=50.0)
    vp, flow, edm = (sample(LanPaint(**fields), 10, 0, 16, s, observation, grid).x for s in (VP(), Flow(), EDM()))
    torch.testing.assert_close(vp, flow, atol=1e-4, rtol=0)
    torch.testing.assert_close(vp, edm, atol=1e-4, rtol=0)


@pytest.mark.parametrize("coordinates", ["flow", "edm"])
def test_coordinates_do_not_matter(coordinates):
    grid = log_snr(sigma_min=0.02, sigma_max=50.0)
    for fields in ({}, {"order": 2}, {"preset": "fast"}):
        vp, other = (sample(LanPaint(coordinates=c, **fields), 10, grid=grid).x for c in ("vp", coordinates))
        torch.testing.assert_close(vp, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fields", [{}, {"order": 2}, {"preset": "fast"}, {"solver": "heun"}, {"solver": "dpmpp_2m"}])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_finite_at_both_ends(fields, schedule, sigma):
    """From t = 1 (alpha = 0 for a flow) to sigma = 1e-6, in float32."""
    observation = pb.Observation(PROBLEM.observation.y.float(), PROBLEM.observation.known, sigma)
    levels = torch.tensor([1.0, 0.9, 0.5, 0.01, 1e-4, 1e-6, 0.0], dtype=torch.float64)
    result = sample(LanPaint(**fields), 6, 0, 64, schedule, observation, levels)
    assert result.x.dtype == torch.float32
    assert result.x.isfinite().all()
    assert result.x.abs().max() < 20
    if sigma == 0:
        assert (result.x[:, 1] == 1).all()
        # the state of the last look, whose noise is no less than the model's finest level
        assert result.residual.max() < 1e-2 + 3 * schedule.at(schedule.finest).sigma


def test_level_of_the_observations_noise_on_the_grid():
    """Where sigma / alpha is sigma_y itself, nothing is missing and nothing is too much."""
    observation = pb.Observation(PROBLEM.observation.y, PROBLEM.observation.known, 0.5)
    for offset in (-1e-12, 0.0, 1e-12):
        level = float(Flow().time_of_ratio(torch.tensor(0.5))) + offset
        for order in (1, 2):
            result = sample(LanPaint(order=order), 3, 0, 64, Flow(), observation, [0.9, level, 0.1, 0.0])
            assert result.x.isfinite().all()
            assert result.x.abs().max() < 10


def test_without_inner_steps_it_is_replacement():
    replacement = pb.methods.get("replacement", path="coherent", coordinates="vp")
    torch.testing.assert_close(sample(LanPaint(inner_steps=0)).x, sample(replacement).x, atol=0, rtol=0)


def test_known_entries_are_exact():
    assert (sample(LanPaint()).x[:, 1] == 1).all()


def test_reproducible_and_batch_invariant():
    for fields in ({}, {"order": 2}):
        method = LanPaint(**fields)
        assert torch.equal(sample(method, seed=3).x, sample(method, seed=3).x)
        assert not torch.equal(sample(method, seed=3).x, sample(method, seed=4).x)

        def run(seeds, method=method):
            generators = [torch.Generator().manual_seed(s) for s in seeds]
            denoiser = PROBLEM.prior.denoiser(VP())
            return method.sample(denoiser, PROBLEM.observation, 10, generators, len(seeds)).x

        torch.testing.assert_close(run([5, 6, 7])[1:2], run([6]), atol=1e-5, rtol=0)


def test_pictures_and_batches_of_observations():
    prior = pb.priors.GaussianMixture(torch.zeros(1, 12), torch.eye(12)[None])
    y = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    known = torch.tensor([[True, False], [False, True]]).expand(3, 2, 2)
    observation = pb.Observation(y, known)
    result = LanPaint(order=2).sample(
        prior.denoiser(VP(), (3, 2, 2)), observation, 4, torch.Generator().manual_seed(0), num_samples=2
    )
    assert result.x.shape == (6, 3, 2, 2)
    assert torch.equal(result.x[::2][:, known], y[:, known])


# ------------------------------------------------------------------------------------------------------ divergences


def test_divergence_on_the_gaussian():
    """20 steps, default VP grid: the paper's two settings, and nothing (replacement); falls with N."""
    by_count = [divergence(20, inner_steps=n) for n in (0, 2, 5, 10)]
    assert 0.48 < by_count[0] < 0.58
    assert by_count[2] <= 0.03
    assert by_count[3] <= 0.01
    assert all(a > b for a, b in itertools.pairwise(by_count))


def test_orders_agree():
    for inner, tolerance in ((5, 2e-4), (10, 1e-4)):
        first, second = (divergence(20, inner_steps=inner, order=order) for order in (1, 2))
        assert first == pytest.approx(second, abs=tolerance)


def test_low_friction_does_not_help():
    assert divergence(20, order=2, friction=1.5) > 1.5 * divergence(20, order=2)


def test_guidance_is_what_makes_it_fast():
    """lambda sweep at N = 10; references .078, .018, .0059 at 0, 2, 8."""
    none, some, paper = (divergence(20, inner_steps=10, guidance=g) for g in (0.0, 2.0, 8.0))
    assert 0.06 < none < 0.09
    assert 0.013 < some < 0.023
    assert paper <= 0.01


def test_ablation():
    """Without bidirectional guidance it is several times farther; references for plain Langevin .167, for FLD .152."""
    plain = divergence(20, big=False, fast_langevin=False)
    damped = divergence(20, big=False)
    assert 0.13 < plain < 0.19
    assert 0.13 < damped < 0.17
    assert divergence(20) < damped / 4


def test_fast_preset_stops_short():
    """The authors' package has .054 to .061 here."""
    assert 0.045 < divergence(20, preset="fast") < 0.07


@pytest.mark.parametrize("path", ["coherent", "fixed", "fresh"])
def test_path_matters_little(path):
    assert divergence(20, path=path) <= 0.03


def test_other_solvers():
    """Heun's second look is worth more than the inner iterations that it costs: 119 evaluations against 120."""
    assert divergence(20, solver="dpmpp_2m") <= 0.035
    assert divergence(20, solver="heun") <= 0.03
    assert LanPaint(inner_steps=10, solver="heun").evaluations(10) == 119
    assert divergence(10, inner_steps=10, solver="heun") < 0.016


def exact_joint(sigma):
    """The posterior of both entries of problem A under a noisy observation of the second."""
    mean, covariance = PROBLEM.prior.means[0].double(), PROBLEM.prior.covariances[0].double()
    gain = covariance[:, 1] / (covariance[1, 1] + sigma**2)
    return pb.priors.GaussianMixture(
        (mean + gain * (1 - mean[1]))[None], (covariance - gain[:, None] * covariance[1])[None]
    )


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_noisy_observation(sigma, order):
    """Both entries follow the exact posterior of a noisy y."""
    observation = pb.Observation(PROBLEM.observation.y, PROBLEM.observation.known, sigma)
    method = LanPaint(inner_steps=20, order=order)
    made = law(method, 50, observation=observation, grid=log_snr(sigma_min=0.02))
    assert closed_kl(made, exact_joint(sigma)) < 0.02
    assert closed_kl(made.marginal([0]), PROBLEM.prior.posterior(observation)) < 0.003


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_asymptotically_exact(order):
    """Reference values at 50 steps: .0059, .0012, .0006 for N = 5, 10, 20."""
    for inner, bound in ((5, 0.009), (10, 0.0022), (20, 0.0013)):
        assert divergence(50, inner_steps=inner, order=order) < bound


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_noisy_observation_in_the_limit(sigma):
    observation = pb.Observation(PROBLEM.observation.y, PROBLEM.observation.known, sigma)
    x = sample(LanPaint(inner_steps=20), 100, 0, 20_000, VP(), observation, log_snr()).x
    assert gaussian_kl(x, exact_joint(sigma)) < 0.003


@pytest.mark.parametrize("seed", range(12))
def test_euler_maruyama_stays_where_the_posterior_is(seed):
    """Noisy y, strong guidance, long steps: a step is never longer than the pull of its entries allows."""
    pick = random.Random(seed)
    fields = {"big": pick.random() < 0.5, "guidance": 10 ** pick.uniform(0, 3), "step_size": 10 ** pick.uniform(-2, 0)}
    sigma = pick.choice([0.0, 10 ** pick.uniform(-3, 1)])
    observation = pb.Observation(PROBLEM.observation.y, PROBLEM.observation.known, sigma)
    x = sample(LanPaint(fast_langevin=False, **fields), 12, seed, 64, VP(), observation).x
    assert x.abs().max() < 12 + 5 * sigma
