"""The unconditional solvers: exactness on a point, order of convergence, the noisy end, agreement of coordinates."""

import math

import pytest
import torch

import paintback as pb
from paintback.methods.base import Time
from paintback.methods.solvers import SOLVERS, further_looks
from paintback.schedules import EDM, VP, Flow, log_snr, make_grid

PRIOR = pb.priors.GaussianMixture([[0.5, -0.3]], [[[1.0, 0.8], [0.8, 1.0]]])


class Loop:
    """As much of a `Run` as a solver sees, and the loop over a grid."""

    def __init__(self, denoiser, times, seed=0):
        self.denoiser, self.times, self.memory, self.looks = denoiser, times, {}, []
        self.generator = torch.Generator().manual_seed(seed)

    def evaluate(self, x, t):
        return x, self.denoise(x, t)

    def denoise(self, x, t):
        self.looks.append(t)
        return self.denoiser(x, t)

    def noise(self):
        return torch.randn(self.shape, generator=self.generator).double()

    def __call__(self, solver, x):
        self.shape = x.shape
        for t, s in zip(self.times[:-2], self.times[1:-1], strict=True):
            x = SOLVERS[solver](self, self.evaluate, x, t, s)
        return x


def exact_flow(x, t, s):
    """The probability-flow ODE of a Gaussian, solved: x - alpha m scales with the standard deviation of every axis."""
    values, vectors = torch.linalg.eigh(PRIOR.covariances[0].double())
    mean = PRIOR.means[0].double()
    scale = ((s.alpha**2 * values + s.sigma**2) / (t.alpha**2 * values + t.sigma**2)).sqrt()
    return s.alpha * mean + ((x - t.alpha * mean) @ vectors * scale) @ vectors.T


def error(solver, n, schedule, sigma_max=10.0):
    times = make_grid(schedule, n, log_snr(sigma_min=0.1, sigma_max=sigma_max))
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * times[0].sigma
    got = Loop(PRIOR.denoiser(schedule), times)(solver, x)
    return (got - exact_flow(x, times[0], times[-2])).abs().max().item()


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow()], ids=["vp", "edm", "flow"])
def test_order_of_convergence(solver, order, schedule):
    # N counts intervals and the last one is not walked, so n - 1 steps
    measured = math.log2(error(solver, 41, schedule) / error(solver, 81, schedule))
    assert order - 0.25 < measured < order + 0.5


def test_second_order_beats_euler_at_few_steps():
    euler = error("euler", 12, VP())
    assert error("heun", 12, VP()) < euler / 4
    assert error("dpmpp_2m", 12, VP()) < euler / 4


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_one_step_from_pure_noise(solver):
    """At alpha_t = 0 the noise is the state and the picture the prior's mean."""
    times = make_grid(Flow(), 2)
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loop = Loop(PRIOR.denoiser(Flow()), times)
    got = loop(solver, x)
    noise = x if solver != "ancestral" else Loop(None, times)
    if solver == "ancestral":  # the ancestral step from alpha = 0 forgets the state
        noise.shape = x.shape
        noise = noise.noise()
    torch.testing.assert_close(got, 0.5 * PRIOR.means[0].double() + 0.5 * noise)
    assert loop.looks == [times[0]]


@pytest.mark.parametrize("solver", list(SOLVERS))
@pytest.mark.parametrize("schedule", [VP(), Flow(), EDM()], ids=["vp", "flow", "edm"])
def test_finite_on_default_grids(solver, schedule):
    times = make_grid(schedule, 8)
    x = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * times[0].sigma
    assert Loop(PRIOR.denoiser(schedule), times)(solver, x).isfinite().all()


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_coordinates_do_not_matter(solver):
    schedules = [VP(), EDM(), Flow()]
    ends = []
    for schedule in schedules:
        times = make_grid(schedule, 10, log_snr(sigma_min=0.1, sigma_max=50.0))
        x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * times[0].sigma
        x = Loop(PRIOR.denoiser(schedule), times)(solver, x)
        ends.append(x / times[-2].alpha)
    torch.testing.assert_close(ends[0], ends[1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ends[0], ends[2], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_step_starts_from_the_moved_state(solver):
    t, s = Time(0.6, 0.8, 0.6), Time(0.3, 0.96, 0.28)
    denoiser = PRIOR.denoiser(VP())
    x = torch.zeros(3, 2, dtype=torch.float64)
    plain, moved = Loop(denoiser, []), Loop(denoiser, [])
    plain.shape = moved.shape = x.shape

    def move(x, time):
        x = x + 1 if time is t else x
        return x, denoiser(x, time)

    want = SOLVERS[solver](plain, plain.evaluate, x + 1, t, s)
    torch.testing.assert_close(SOLVERS[solver](moved, move, x, t, s), want)


def test_euler_is_ddim():
    t, s = Time(0.6, 0.8, 0.6), Time(0.3, 0.96, 0.28)
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at_t = PRIOR.denoiser(VP())(x, t)
    loop = Loop(PRIOR.denoiser(VP()), [])
    torch.testing.assert_close(SOLVERS["euler"](loop, loop.evaluate, x, t, s), 0.96 * at_t.x0 + 0.28 * at_t.x1)


def test_multistep_forgets_a_history_that_is_no_earlier():
    """A method that jumps back up must not extrapolate from a cleaner time."""
    t, s = Time(0.6, 0.8, 0.6), Time(0.3, 0.96, 0.28)
    loop = Loop(PRIOR.denoiser(VP()), [])
    x = torch.ones(3, 2, dtype=torch.float64)
    first = SOLVERS["dpmpp_2m"](loop, loop.evaluate, x, t, s)
    torch.testing.assert_close(SOLVERS["dpmpp_2m"](loop, loop.evaluate, x, t, s), first)


def test_number_of_looks():
    for schedule in (VP(), Flow()):
        times = make_grid(schedule, 6)
        for solver in SOLVERS:
            loop = Loop(PRIOR.denoiser(schedule), times)
            loop(solver, torch.zeros(1, 2, dtype=torch.float64))
            assert len(loop.looks) == len(times) - 2 + further_looks(solver, times)
