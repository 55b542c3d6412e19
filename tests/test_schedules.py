"""Coefficients, maps between coordinates, and time grids, against formulas written here."""

from __future__ import annotations

import itertools
import math
import random
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paintback.schedules import (
    EDM,
    GRIDS,
    VP,
    Flow,
    Rescaled,
    Schedule,
    Time,
    coordinates_of,
    demand,
    from_scheduler,
    karras,
    log_snr,
    make_grid,
    power,
    uniform,
)

ZERO_SNR = np.append(np.linspace(1e-4, 0.02, 99), 1.0)
SCHEDULES: dict[str, Schedule] = {
    "linear": VP(),
    "scaled": VP("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "cosine": VP("cosine"),
    "zero-snr": VP(torch.from_numpy(ZERO_SNR)),
    "edm": EDM(),
    "flow": Flow(),
    "flow-3": Flow(3.0),
    "vp-as-flow": Rescaled(VP(), "flow"),
    "edm-as-vp": Rescaled(EDM(), "vp"),
    "flow-as-vp": Rescaled(Flow(3.0), "vp"),
    "vp-as-edm": Rescaled(VP(), "edm"),
}
every = pytest.mark.parametrize("name", SCHEDULES)


# ------------------------------------------------------------------------------------------------ coefficients


@every
def test_ends_and_monotony(name: str) -> None:
    schedule = SCHEDULES[name]
    alpha, sigma = schedule(0.0)
    assert alpha == 1
    assert sigma == 0
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    alpha, sigma = schedule(t)
    assert alpha.dtype == sigma.dtype == torch.float64
    assert alpha.shape == t.shape
    assert alpha.isfinite().all()
    assert sigma.isfinite().all()
    assert ((alpha >= 0) & (sigma >= 0)).all()
    ratio = sigma / alpha
    assert (ratio.diff() > 0).all()


@pytest.mark.parametrize(
    ("name", "alpha", "sigma"),
    [
        ("linear", 0.00635, 0.99998),
        ("zero-snr", 0.0, 1.0),
        ("edm", 1.0, 80.0),
        ("flow", 0.0, 1.0),
        ("flow-3", 0.0, 1.0),
        ("edm-as-vp", 1 / math.hypot(1, 80), 80 / math.hypot(1, 80)),
        ("vp-as-edm", 1.0, 157.4),
    ],
)
def test_noisy_end(name: str, alpha: float, sigma: float) -> None:
    time = SCHEDULES[name].at(1.0)
    assert time.alpha == pytest.approx(alpha, rel=1e-3)
    assert time.sigma == pytest.approx(sigma, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "betas"),
    [
        ("linear", np.linspace(1e-4, 0.02, 1000)),
        ("scaled", np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
        ("zero-snr", ZERO_SNR),
    ],
)
def test_vp_levels_are_products_of_one_minus_beta(name: str, betas: np.ndarray) -> None:
    """At t = (k + 1) / T the coefficients are those that DDPM and DDIM schedulers use at timestep k."""
    abar = np.cumprod(1 - betas)
    alpha, sigma = SCHEDULES[name](
        torch.arange(1, len(betas) + 1) / torch.tensor(float(len(betas)), dtype=torch.float64)
    )
    np.testing.assert_allclose(alpha.numpy(), np.sqrt(abar), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sigma.numpy(), np.sqrt(1 - abar), rtol=1e-9)


def test_cosine_levels() -> None:
    """Nichol and Dhariwal's f(k / T) / f(0), where the clip of the last betas does not bite."""
    k = np.arange(1, 990)
    f = lambda k: np.cos((k / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    alpha, _ = SCHEDULES["cosine"](torch.from_numpy(k / 1000))
    np.testing.assert_allclose(alpha.numpy() ** 2, f(k) / f(0), rtol=1e-9)


def test_vp_between_levels_and_in_a_last_segment_of_zero_snr() -> None:
    schedule = VP()
    low, mid, high = (schedule.at(t).alpha for t in (0.5, 0.5005, 0.501))
    assert mid == pytest.approx(math.sqrt(low * high), rel=1e-12)
    zero = SCHEDULES["zero-snr"]
    left = zero.at(0.99).alpha
    for part in (0.25, 0.5, 0.75):  # linear in alpha down to 0
        assert zero.at(0.99 + 0.01 * part).alpha == pytest.approx(left * (1 - part), rel=1e-9)


def test_flow_and_edm_formulas() -> None:
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    alpha, sigma = Flow(3.0)(t)
    torch.testing.assert_close(sigma, 3 * t / (1 + 2 * t))
    torch.testing.assert_close(alpha, 1 - sigma)
    _, sigma = EDM(0.002, 80.0, 7.0)(t)
    curve = (0.002 ** (1 / 7) + t * (80.0 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigma, (curve - 0.002) * 80 / 79.998)


@every
def test_vp_identity_and_laws_of_coordinates(name: str) -> None:
    schedule = SCHEDULES[name]
    alpha, sigma = schedule(torch.linspace(0, 1, 301))
    laws = {"vp": alpha.square() + sigma.square(), "flow": alpha + sigma, "edm": alpha}
    law = coordinates_of(schedule)
    assert law is not None
    torch.testing.assert_close(laws[law], torch.ones_like(alpha), rtol=1e-12, atol=1e-12)


# -------------------------------------------------------------------------------------------------------- maps


@every
@settings(max_examples=60, deadline=None)
@given(t=st.floats(0, 1))
def test_time_of_ratio_inverts(name: str, t: float) -> None:
    schedule = SCHEDULES[name]
    time = schedule.at(t)
    back = schedule.time_of_ratio(torch.tensor([time.ratio], dtype=torch.float64))
    # near t = 1 of an infinite end the ratio's last digit is worth more than t's, and near 0 alpha rounds to 1
    assert float(back) == pytest.approx(t, rel=1e-6, abs=1e-9)


@every
def test_time_of_ratio_clips(name: str) -> None:
    schedule = SCHEDULES[name]
    ends = schedule.time_of_ratio(torch.tensor([0.0, 1e12, math.inf], dtype=torch.float64))
    assert ends[0] == 0
    assert ends[2] == 1
    assert ends[1] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("source", ["linear", "edm", "flow-3"])
@pytest.mark.parametrize("target", ["linear", "edm", "flow", "edm-as-vp"])
def test_maps_between_families_round_trip(source: str, target: str) -> None:
    """The same noise level in another family and back."""
    a, b = SCHEDULES[source], SCHEDULES[target]
    for ratio in (0.02, 0.3, 1.0, 7.0, 70.0):
        t = a.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))
        other = b.time_of_ratio(torch.tensor(a.at(float(t)).ratio, dtype=torch.float64))
        assert b.at(float(other)).ratio == pytest.approx(ratio, rel=1e-9)
        back = a.time_of_ratio(torch.tensor(b.at(float(other)).ratio, dtype=torch.float64))
        assert float(back) == pytest.approx(float(t), rel=1e-9)


def test_rescaled_scale_is_exact() -> None:
    """The model's own state over the scale is the rescaled state, in float64 digits."""
    for inner, coordinates in ((EDM(), "vp"), (VP(), "flow"), (Flow(), "vp"), (VP(), "edm")):
        rescaled = Rescaled(inner, coordinates)  # type: ignore[arg-type]
        for t in (0.0, 0.123, 0.5, 0.987):
            own, new, scale = inner.at(t), rescaled.at(t), rescaled.scale(t)
            assert own.alpha / scale == pytest.approx(new.alpha, rel=1e-14)
            assert own.sigma / scale == pytest.approx(new.sigma, rel=1e-14, abs=1e-300)
    assert Rescaled(EDM(), "vp").scale(1.0) == pytest.approx(math.sqrt(1 + 80.0**2), rel=1e-12)
    assert Rescaled(VP(), "flow").at(0.4).ratio == pytest.approx(VP().at(0.4).ratio, rel=1e-12)


def test_time() -> None:
    assert Time(0.5, 0.8, 0.6).ratio == pytest.approx(0.75)
    assert Time(0.5, 0.8, 0.6).log_snr == pytest.approx(math.log(0.8 / 0.6))
    assert Time(1.0, 0.0, 1.0).ratio == math.inf
    assert Time(1.0, 0.0, 1.0).log_snr == -math.inf
    assert Time(0.0, 1.0, 0.0).ratio == 0
    assert Time(0.0, 1.0, 0.0).log_snr == math.inf


# ------------------------------------------------------------------------------------------------------- grids


@every
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_every_grid_is_a_grid(name: str, steps: int) -> None:
    for grid in (None, uniform, karras(), log_snr(), karras(sigma_max=30.0), log_snr(sigma_min=0.05)):
        times = make_grid(SCHEDULES[name], steps, grid)
        assert len(times) == steps + 1
        assert times[-1] == Time(0.0, 1.0, 0.0)
        assert all(t.t > s.t and t.ratio > s.ratio for t, s in itertools.pairwise(times))


def test_uniform() -> None:
    assert uniform(Flow(), 4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("name", ["linear", "edm", "flow-3"])
def test_karras_is_equation_5(name: str) -> None:
    times = make_grid(SCHEDULES[name], 7, karras(sigma_min=0.02, sigma_max=40.0, rho=5.0))
    expected = [(40**0.2 + i / 6 * (0.02**0.2 - 40**0.2)) ** 5 for i in range(7)]
    np.testing.assert_allclose([t.ratio for t in times[:-1]], expected, rtol=1e-8)
    assert len(make_grid(SCHEDULES[name], 7, karras(3))) == 4


def test_power_grids() -> None:
    """The quadratic grid is that of DDIM and DiffPIR: indices that fall as squares."""
    assert power()(Flow(), 4).tolist() == [1.0, 0.5625, 0.25, 0.0625, 0.0]
    assert torch.equal(power(1.0)(VP(), 9), uniform(VP(), 9))
    assert float(power(0.5)(Flow(), 4)[2]) > 0.5
    with pytest.raises(ValueError, match="must be positive"):
        power(0.0)


@pytest.mark.parametrize(("missing", "weak", "strength"), [(1.0, 0.0, 1.0), (0.3, 0.4, 2.5)])
def test_demand_has_equal_mass_between_times(missing: float, weak: float, strength: float) -> None:
    """By numerical integration of the density in a flow's time, which any schedule's noise levels give."""

    def density(u: torch.Tensor) -> torch.Tensor:
        prior = u**2 / (u**2 + (1 - u) ** 2)
        return 1 + strength * (missing * prior + weak * (1 - prior))

    made = demand(missing, weak, strength)
    for schedule in (Flow(), VP(), EDM(sigma_max=40.0)):
        times = [schedule.at(float(t)) for t in made(schedule, 6)]
        masses = []
        for before, after in itertools.pairwise(t.sigma / (t.alpha + t.sigma) for t in times):
            points = torch.linspace(after, before, 2001, dtype=torch.float64)
            masses.append(float(torch.trapezoid(density(points), points)))
        assert masses == pytest.approx([sum(masses) / 6] * 6, rel=1e-4)
    torch.testing.assert_close(demand(missing, weak, 0.0)(Flow(), 7), uniform(Flow(), 7), atol=1e-12, rtol=0)
    noisy, clean = (int((grid(Flow(), 20) > 0.5).sum()) for grid in (demand(1.0), demand(0.0, 1.0)))
    assert noisy > 10 > clean  # of 21 times
    with pytest.raises(ValueError, match="between 0 and 1"):
        demand(1.2)


@pytest.mark.parametrize("grid", GRIDS)
def test_named_grids_are_grids(grid: str) -> None:
    for schedule in SCHEDULES.values():
        assert len(make_grid(schedule, 5, GRIDS[grid])) == 6


@pytest.mark.parametrize("name", ["linear", "edm", "flow-3"])
def test_log_snr_is_even(name: str) -> None:
    times = make_grid(SCHEDULES[name], 6, log_snr(sigma_min=0.02, sigma_max=50.0))
    values = [t.log_snr for t in times[:-1]]
    np.testing.assert_allclose(values, np.linspace(-math.log(50), -math.log(0.02), 6), rtol=1e-8)


def test_from_scheduler_with_integer_timesteps() -> None:
    """DDIM's 'leading' timesteps: the run has the alpha products of those timesteps."""
    k = np.arange(0, 1000, 100)[::-1] + 1
    scheduler = SimpleNamespace(timesteps=torch.from_numpy(k.copy()), config=SimpleNamespace(num_train_timesteps=1000))
    schedule = SCHEDULES["scaled"]
    times = make_grid(schedule, 10, from_scheduler(scheduler, schedule))
    abar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[k]
    np.testing.assert_allclose([t.alpha for t in times[:-1]], np.sqrt(abar), rtol=1e-9)
    assert times[-1].t == 0


def test_from_scheduler_with_sigmas_of_euler() -> None:
    """Euler's sigmas are sigma / alpha, at integer timesteps of a 'linspace' grid, with a 0 at the end."""
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    sigmas = np.interp(np.linspace(999, 0, 12), np.arange(1000), np.sqrt(1 / abar - 1))
    scheduler = SimpleNamespace(
        timesteps=torch.linspace(999, 0, 12), sigmas=torch.tensor([*sigmas, 0.0], dtype=torch.float32)
    )
    for schedule in (VP(), Rescaled(VP(), "flow"), EDM(sigma_max=200.0)):
        times = make_grid(schedule, 12, from_scheduler(scheduler, schedule))
        np.testing.assert_allclose([t.ratio for t in times[:-1]], sigmas, rtol=1e-4)


@pytest.mark.parametrize("schedule", [Flow(3.0), Flow(), Rescaled(Flow(3.0), "vp")])
def test_from_scheduler_with_sigmas_of_flow(schedule: Schedule) -> None:
    """Flow schedulers' sigmas are sigma itself, shifted already; the same noise levels in any coordinates."""
    plain = np.linspace(1, 0.1, 10)
    sigmas = 3 * plain / (1 + 2 * plain)
    scheduler = SimpleNamespace(
        timesteps=torch.from_numpy(1000 * sigmas), sigmas=torch.tensor([*sigmas, 0.0], dtype=torch.float64)
    )
    times = make_grid(schedule, 10, from_scheduler(scheduler, schedule))
    ratios = [t.ratio for t in times[1:-1]]
    np.testing.assert_allclose(ratios, (sigmas / (1 - np.minimum(sigmas, 0.9999)))[1:], rtol=1e-9)
    assert times[0].t == 1
    assert times[0].ratio == math.inf
    if schedule is not None and getattr(schedule, "shift", 0) == 3.0:
        np.testing.assert_allclose([t.t for t in times[:-1]], plain, rtol=1e-9)


def test_from_scheduler_counts_a_repeated_level_once() -> None:
    """Heun's sigmas stand twice but for the first."""
    from diffusers import FlowMatchHeunDiscreteScheduler

    scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(6)
    times = make_grid(Flow(), 6, from_scheduler(scheduler, Flow()))
    levels = np.unique(scheduler.sigmas.numpy())[::-1]
    np.testing.assert_allclose([t.sigma for t in times], [*levels[levels > 0], 0.0], rtol=1e-6)
    assert len(times) == 7


# ------------------------------------------------------------------------------------- the levels that a model knows


def test_finest_level() -> None:
    assert VP().finest == Rescaled(VP(), "flow").finest == 0.001
    assert VP("linear", num_train_timesteps=250).finest == 1 / 250
    assert VP([0.0, 0.0, 0.01, 0.02]).finest == 0.75  # the first two levels have no noise
    assert VP([0.01, 0.0, 0.02]).finest == 1 / 3
    assert Flow().finest == EDM().finest == 0  # continua
    with pytest.raises(ValueError, match="betas are all 0"):
        VP([0.0, 0.0])


def random_grid(pick: random.Random) -> Any:
    steps = pick.choice([1, 2, 5, 13])
    low, high = 10 ** pick.uniform(-5, 0), pick.choice([None, 10 ** pick.uniform(0.5, 3)])
    times = sorted({10 ** pick.uniform(-6, 0) for _ in range(steps)}, reverse=True)
    return pick.choice([None, uniform, karras(sigma_min=low, sigma_max=high), log_snr(sigma_min=low), [*times, 0.0]])


@pytest.mark.parametrize("seed", range(40))
def test_no_grid_leaves_the_levels_of_the_model(seed: int) -> None:
    pick = random.Random(seed)
    betas = [0.0] * pick.randrange(4) + [10 ** pick.uniform(-5, -1) for _ in range(pick.choice([3, 40]))] + [0.95]
    for schedule in (VP("scaled_linear", beta_start=0.00085, beta_end=0.012), VP(), VP(betas)):
        for units in (schedule, Rescaled(schedule, "flow")):
            steps = pick.choice([1, 4, 30, 5000 if isinstance(units, VP) else 7])
            times = make_grid(units, steps, random_grid(pick))
            clocks = [t.t * schedule.num_train_timesteps - 1 for t in times[:-1]]
            assert min(clocks) >= -1e-9 and max(clocks) <= schedule.num_train_timesteps - 1
            assert all(t.sigma > 0 and t.t >= schedule.finest for t in times[:-1])
            assert all(t.t > s.t and t.ratio > s.ratio for t, s in itertools.pairwise(times))


def test_grids_of_a_noise_level_keep_their_length_above_the_finest_one() -> None:
    """FMM's own grid ends below SD 1.5's first level, Karras' below every VP model's; neither loses a step."""
    schedule = VP("scaled_linear", beta_start=0.00085, beta_end=0.012)
    for grid in (log_snr(sigma_min=0.02), karras()):
        times = make_grid(schedule, 12, grid)
        assert len(times) == 13
        assert times[-2].t == pytest.approx(0.001, abs=1e-12)
        assert 1000 * times[-2].t - 1 == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="noise levels of a grid must be positive and fall"):
        make_grid(schedule, 4, karras(sigma_max=0.01))
    # times of one's own that are not known to the model are one
    assert [t.t for t in make_grid(VP(), 4, [1.0, 0.5, 5e-4, 1e-4, 0.0])] == [1.0, 0.5, 0.001, 0.0]


# ------------------------------------------------------------------------------------------------------ errors


def test_grid_errors() -> None:
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"whole number of at least 1; got {wrong}"):
            make_grid(Flow(), wrong)  # type: ignore[arg-type]
    for grid in ([1.0, 0.5], [0.5, 0.5, 0.0], [0.2, 0.5, 0.0], [0.0], [1.5, 0.0], [math.nan, 0.0], torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="fall strictly from at most 1 to exactly 0"):
            make_grid(Flow(), 2, grid)


tried: list[int] = []
ODD = [math.nan, math.inf, -math.inf, 0, -1, 2.5, 1e-308, 1e-3, 1e30, 3.0, 7, True, np.float32(4), np.int64(3)]


@pytest.mark.parametrize("seed", range(60))
def test_any_numbers_make_a_schedule_and_a_grid_or_one_sentence(seed: int) -> None:
    """NaN, infinity, 0 and what else is a number: a grid that is one, or a ValueError that says what is taken."""
    pick = random.Random(seed)

    def number() -> Any:
        return pick.choice(ODD) if pick.random() < 0.3 else pick.choice([0.01, 0.5, 2, 7, 10 ** pick.uniform(-4, 4)])

    def schedule() -> Schedule:
        betas: Any = [number(), number(), 0.02]
        makers = [
            lambda: VP(betas),
            lambda: VP(beta_start=number(), beta_end=number(), num_train_timesteps=number()),
            lambda: EDM(number(), number(), number()),
            lambda: Flow(number()),
            VP,
            EDM,
        ]
        return pick.choice(makers)()

    made = 0
    for _ in range(30):
        said = None
        try:
            of = schedule()
            grids: list[Any] = [
                None,
                karras(number(), sigma_min=number(), rho=number()),
                karras(sigma_max=number()),
                log_snr(number(), sigma_min=number(), sigma_max=number()),
                [number(), number(), 0.0],
            ]
            times = make_grid(of, pick.choice([number(), 5]), pick.choice(grids))
        except ValueError as error:
            said = str(error)
        if said is not None:
            assert re.fullmatch(r"[^\n]*(must|needs|The betas are all 0)[^\n]*", said), said
            continue
        made += 1
        assert len(times) >= 2 and times[-1] == Time(0.0, 1.0, 0.0)
        assert all(t.t > s.t and t.ratio > s.ratio for t, s in itertools.pairwise(times))
        assert all(math.isfinite(t.alpha) and math.isfinite(t.sigma) and t.sigma > 0 for t in times[:-1])
    tried.append(made)


def test_many_of_those_numbers_made_a_grid() -> None:
    assert len(tried) < 60 or sum(tried) > 20


def test_other_errors() -> None:
    with pytest.raises(ValueError, match=r"Times must lie in \[0, 1\]; got 0.5 to 1.5"):
        VP()(torch.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match="Times must lie"):
        Flow()(math.nan)
    with pytest.raises(ValueError, match="Unknown betas 'quadratic'; valid are 'linear', 'scaled_linear', 'cosine'"):
        VP("quadratic")  # type: ignore[arg-type]
    for betas in ([0.1, 1.2], [-0.1], [], [[0.1]]):
        with pytest.raises(ValueError, match=r"betas must be a list of numbers in \[0, 1\]"):
            VP(betas)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="EDM needs 0 < sigma_min < sigma_max"):
        EDM(1.0, 0.5)
    with pytest.raises(ValueError, match="shift must be positive; got 0"):
        Flow(0)
    with pytest.raises(ValueError, match="Unknown coordinates 'ddpm'; valid are 'vp', 'flow' and 'edm'"):
        Rescaled(VP(), "ddpm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="start at a smaller t"):
        Rescaled(Flow(), "edm")(1.0)
    for empty in (SimpleNamespace(), SimpleNamespace(timesteps=torch.zeros(0))):
        with pytest.raises(ValueError, match="call its set_timesteps"):
            from_scheduler(empty, VP())
