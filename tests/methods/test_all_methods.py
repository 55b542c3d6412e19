"""What every method promises, tested for all of them at once; a new method is in here by its name alone.

Closed-form priors of 2 to 16 entries. AID, which needs a trained module, runs with one in closed form.
"""

from __future__ import annotations

import math
import random
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paintback import methods
from paintback.denoiser import Denoiser, NetworkDenoiser, Prediction
from paintback.methods.base import Method, Result
from paintback.observation import AveragePool, Observation
from paintback.priors import GaussianMixture, gaussian_kl
from paintback.schedules import EDM, VP, Flow, Rescaled, Schedule, Time, log_snr

NAMES = methods.names()
every = pytest.mark.parametrize("name", NAMES)
SHAPES = [(16,), (1, 4, 4), (1, 2, 2, 4)]  # vector, picture, video
COUNTS = (1, 2, 3, 7, 26)


def guide(x: Tensor, x0: Tensor, y: Tensor, known: Tensor, sigma: float) -> Tensor:
    """A module for AID: half of the way to y, and the unknown part after the known part's mean."""
    gap = torch.where(known, y - x0, 0.0)
    pull = gap.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
    return torch.where(known, gap / 2, 0.3 / (1 + sigma**2) * pull.reshape(-1, *[1] * (x.ndim - 1)))


NEEDS: dict[str, dict[str, Any]] = {"aid": {"guidance": guide}}


def make(name: str, **fields: Any) -> Method:
    return methods.get(name, **{**NEEDS.get(name, {}), **fields})


@cache
def prior(entries: int = 16) -> GaussianMixture:
    """Two components, so that nothing is linear; float64."""
    place = torch.arange(entries, dtype=torch.float64)
    covariance = 0.8 ** (place - place[:, None]).abs()
    means = torch.stack((0.3 * torch.cos(place), 1 - 0.5 * torch.sin(place)))
    return GaussianMixture(means, torch.stack((covariance, 0.3 * covariance)), [0.7, 0.3])


def known_mask(shape: tuple[int, ...] = (16,)) -> Tensor:
    return (torch.arange(16) % 4 < 2).reshape(shape)


def truth(batch: int | None = None) -> Tensor:
    drawn = prior().sample(batch or 1, torch.Generator().manual_seed(7))
    return drawn if batch else drawn[0]


def observed(shape: tuple[int, ...] = (16,), sigma: float = 0.0, dtype: torch.dtype = torch.float64) -> Observation:
    return Observation(truth().to(dtype).reshape(shape), known_mask(shape), sigma)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(
    method: Method,
    observation: Observation | None = None,
    steps: int = 6,
    *,
    shape: tuple[int, ...] = (16,),
    schedule: Schedule | None = None,
    seed: int = 0,
    num_samples: int | None = 3,
    **more: Any,
) -> Result:
    denoiser = prior().denoiser(schedule or VP(), shape)
    observation = observation or observed(shape)
    generator = more.pop("generator", None) or seeded(seed)
    return method.sample(denoiser, observation, steps, generator, num_samples, **more)


# ------------------------------------------------------------------------------------------ what is known, what is not


@every
@pytest.mark.parametrize("schedule", [VP(), Flow(), EDM()], ids=lambda s: type(s).__name__)
def test_known_entries_are_y_itself(name: str, schedule: Schedule) -> None:
    result = sample(make(name), schedule=schedule)
    known = known_mask()
    assert torch.equal(result.x[:, known], truth()[known].expand(3, -1))
    assert bool(result.x.isfinite().all())
    assert not torch.equal(result.x[0, ~known], result.x[1, ~known])  # the unknown ones are sampled


@every
def test_nothing_changes_when_all_is_known(name: str) -> None:
    y = truth().reshape(1, 4, 4)
    for known in (torch.ones(1, 4, 4, dtype=torch.bool), None):
        assert torch.equal(sample(make(name), Observation(y, known), shape=(1, 4, 4)).x, y.expand(3, 1, 4, 4))


# With nothing known, a run samples the model. These do not, however many steps they take, and say why:
NO_PRIOR_LIMIT = {
    "ddnm": "eta = 0.85 of sigma_s is fresh noise whatever the step, more than the ancestral step has",
    "ddrm": "the same eta",
    "diffpir": "zeta = 1: all of the noise is fresh at every step",
    "flair": "variational: an average of predictions",
    "flower": "all of the noise is fresh at every step",
    "flowdps": "part of the noise is renewed whatever the step",
    "gibbs": "a denoiser's mean is no draw, which it takes it for",
    "pnpdm": "its draws of the prior have five steps, however many there are of them",
    "pnpflow": "variational: an average of predictions",
    "restoraflow": "a step is made again from a predicted picture, which is a mean",
    "reddiff": "variational: Adam towards a mode",
    "resample": "the resampling draws every state towards its predicted picture",
}


@every
def test_nothing_known_is_the_prior(name: str) -> None:
    law = GaussianMixture([[0.5, -0.3]], [[[1.0, 0.8], [0.8, 1.0]]])
    nothing = Observation(torch.full((2,), math.nan), torch.zeros(2, dtype=torch.bool))
    few, many = (
        gaussian_kl(make(name).sample(law.denoiser(VP()), nothing, steps, seeded(), 1000).x, law) for steps in (20, 160)
    )
    if name in NO_PRIOR_LIMIT:
        assert many > 0.04
    else:
        assert many < 0.02
        assert many < few + 0.005


def test_declared_names_exist() -> None:
    declared = {
        *NO_PRIOR_LIMIT,
        *NEEDS,
        *COST,
        *OWN_TIMES,
        *FORGETS,
        *(name for pair in (*SAME_BY_DEFAULT, *NEAR_BY_DEFAULT) for name in pair),
    }
    assert declared <= set(NAMES)


@every
def test_hidden_values_reach_nothing(name: str) -> None:
    known = known_mask()
    clean = sample(make(name), Observation(torch.where(known, truth(), 0.0), known)).x
    hidden = Observation(torch.where(known, truth(), math.nan), known)
    assert torch.equal(sample(make(name), hidden).x, clean)
    # and no method looks there: values that slip past Observation change nothing either
    hidden.y = torch.where(known, truth(), 70.0)
    assert torch.equal(sample(make(name), hidden).x, clean)


@every
def test_the_observation_matters(name: str) -> None:
    known, other = known_mask(), truth() + 1.0
    here, there = (sample(make(name), Observation(y, known), 20).x[:, ~known] for y in (truth(), other))
    assert (here - there).abs().max() > 0.02


@every
def test_noisy_observations(name: str) -> None:
    for sigma in (1e-3, 0.1, 3.0):
        x = sample(make(name), observed(sigma=sigma), 8).x
        assert bool(x.isfinite().all())
        assert x.abs().max() < 20


# Methods that end further from a noisy y than its noise, and why.
LOOSE = {
    "aid": "the module of these tests goes half of the way",
    "dps": "a pull of fixed length",
    "flowdps": "the picture is left to the model as the noise falls",
    "ldps": "a pull of fixed length",
    "p2l": "a pull of fixed length",
    "psld": "a pull of fixed length",
    "rebridge": "only the direction of a step is corrected, and a misfit stays in the state",
}


@every
def test_noisy_observations_are_not_lost(name: str) -> None:
    law = GaussianMixture([[0.5, -0.3]], [[[1.0, 0.8], [0.8, 1.0]]])
    y = Observation(torch.tensor([0.0, 1.0]), torch.tensor([False, True]), 0.1)
    x = make(name).sample(law.denoiser(VP()), y, 50, seeded(), 300).x
    gap = float((x[:, 1] - 1).square().mean().sqrt())  # 0.1 for the exact posterior
    assert (gap < 0.2) == (name not in LOOSE)


# -------------------------------------------------------------------------------------------------- batches and seeds


@every
def test_alone_and_in_a_batch_are_the_same(name: str) -> None:
    y, masks = truth(3), torch.stack([known_mask(), ~known_mask(), torch.arange(16) < 3])
    y = y * torch.tensor([[1.0], [30.0], [0.2]])  # a norm over the batch would be that of the largest
    together = sample(make(name), Observation(y, masks), num_samples=None, generator=[seeded(k) for k in range(3)])
    for k in range(3):
        alone = sample(make(name), Observation(y[k : k + 1], masks[k : k + 1]), num_samples=None, generator=[seeded(k)])
        torch.testing.assert_close(alone.x[0], together.x[k], atol=1e-5, rtol=1e-5)
        assert (alone.evaluations, alone.vjps) == (together.evaluations, together.vjps)


@every
def test_the_same_seed_gives_the_same(name: str) -> None:
    first, again, other = (sample(make(name), seed=seed).x for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


@every
def test_no_global_generator_is_touched(name: str) -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002 - the global ones are what is tested
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    first = sample(make(name)).x
    assert torch.equal(torch.get_rng_state(), before[0])
    state = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(state[1], before[1][1]) and state[2] == before[1][2]
    assert random.getstate() == before[2]
    torch.manual_seed(2), np.random.seed(2), random.seed(2)  # noqa: NPY002
    assert torch.equal(sample(make(name)).x, first)


# ------------------------------------------------------------------------------------------------------------ identity

# All defaults, on a pixel model: what is equal, and why. Every other pair differs.
SAME_BY_DEFAULT = {
    ("dps", "ldps"): "the decoder of a pixel model is the identity",
}
# All defaults, on a mask with an exact y: nearly the same.
NEAR_BY_DEFAULT = {
    ("diffpir", "flower"): "both renew all noise, and DiffPIR's proximal step is y but for a softness of 0.01",
}
# Settings at which one method is another.
SAME: list[tuple[str, dict[str, Any], str, dict[str, Any], str]] = [
    ("psld", {"gamma": 0.1}, "dps", {"zeta": 1.1}, "on a pixel model the gluing term is the residual"),
    ("psld", {"gamma": 0.0, "omega": 0.4}, "ldps", {"zeta": 0.4}, "nothing is glued"),
    ("p2l", {"period": 0}, "ldps", {}, "no prompt, no projection"),
    ("dps", {"zeta": 0.0}, "mpgd", {"step_size": 0.0}, "both are DDPM without guidance"),
    ("tfg", {"inner_steps": 0}, "lanpaint", {"inner_steps": 0}, "both are replacement without inner steps"),
    ("tfg", {"inner_steps": 0, "path": "fresh"}, "replacement", {}, "the same"),
    ("lanpaint", {"inner_steps": 0, "path": "fixed"}, "replacement", {"path": "fixed"}, "the same"),
    ("flowchef", {"gradient_steps": 0, "coordinates": "vp"}, "copaint", {"iterations": 0}, "both are DDIM"),
    ("flower", {}, "ddnm", {"eta": 1.0, "coordinates": "flow"}, "all noise is fresh, y is exact"),
]


@cache
def by_default(name: str) -> Tensor:
    return sample(make(name), steps=8, shape=(1, 4, 4), seed=11).x


@pytest.mark.parametrize("pair", list(combinations(NAMES, 2)), ids="-".join)
def test_no_method_is_an_alias(pair: tuple[str, str]) -> None:
    gap = (by_default(pair[0]) - by_default(pair[1])).abs().amax()
    if pair in SAME_BY_DEFAULT:
        assert gap < 1e-9
    elif pair in NEAR_BY_DEFAULT:
        assert 1e-9 < gap < 1e-3
    else:
        assert gap > 1e-3


@pytest.mark.parametrize("case", SAME, ids=lambda case: f"{case[0]}-{case[2]}")
def test_true_identities(case: tuple[str, dict[str, Any], str, dict[str, Any], str]) -> None:
    one, fields, other, other_fields, _ = case
    torch.testing.assert_close(sample(make(one, **fields)).x, sample(make(other, **other_fields)).x)


# --------------------------------------------------------------------------------------- coordinates, numbers, shapes

# Methods that look between the grid's times, which are other noise levels on another schedule, or at t itself.
OWN_TIMES: dict[str, dict[str, Any] | None] = {
    "daps": {"ode_steps": 1, "step_decay": 1.0},  # the inner ODE's times are uniform in t; so is the Langevin step
    "fcs": None,  # the noise of its step is that of 1/1000 of t
}


@every
@pytest.mark.parametrize("coordinates", ["vp", "flow"])
def test_schedules_agree_at_the_same_noise_levels(name: str, coordinates: str) -> None:
    grid = log_snr(sigma_min=0.05, sigma_max=40.0)

    def run(schedule: Schedule, **fields: Any) -> Tensor:
        method = make(name, coordinates=coordinates, **fields)
        return sample(method, schedule=schedule, grid=grid, initial=torch.zeros(16)).x

    # one schedule in all units: the same times
    own = run(VP())
    for unit in ("flow", "edm"):
        torch.testing.assert_close(run(Rescaled(VP(), unit)), own, atol=1e-6, rtol=1e-6)
    # schedules that reach the same levels at other times
    fields = OWN_TIMES.get(name, {})
    if fields is not None:
        own = run(VP(), **fields)
        for schedule in (Flow(), Flow(3.0), EDM()):
            torch.testing.assert_close(run(schedule, **fields), own, atol=1e-6, rtol=1e-6)


@every
def test_float32_is_close_to_float64(name: str) -> None:
    wide, narrow = (sample(make(name), observed(dtype=kind)).x for kind in (torch.float64, torch.float32))
    assert narrow.dtype == torch.float32 and wide.dtype == torch.float64
    # a finite difference of 0.005 loses three digits
    torch.testing.assert_close(narrow.double(), wide, atol=2e-2 if name == "fcs" else 1e-4, rtol=1e-4)


@every
def test_any_shape(name: str) -> None:
    # the alignment loss is for pictures alone
    method = make(name, **({"lambda_al": 0.0} if name == "gradpaint" else {}))
    results = [sample(method, observed(shape), shape=shape).x for shape in SHAPES]
    for shape, x in zip(SHAPES, results, strict=True):
        assert x.shape == (3, *shape)
        torch.testing.assert_close(x.reshape(3, 16), results[0], atol=1e-9, rtol=1e-9)
        y = truth(2).reshape(2, *shape)
        assert sample(method, Observation(y, known_mask(shape)), shape=shape, num_samples=2).x.shape == (4, *shape)


class Noise(torch.nn.Module):
    """The exact noise of the prior at the times of a schedule: an eps network, which knows no picture at alpha = 0."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.inner, self.schedule = prior().denoiser(schedule), schedule

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        return self.inner(x, float(clock[0])).x1


@every
def test_finite_at_alpha_zero(name: str) -> None:
    betas = torch.linspace(1e-4, 0.02, 1000).double()
    betas[-1] = 1.0  # zero terminal signal-to-noise ratio
    for schedule in (Flow(), VP(betas)):
        assert schedule.at(1.0).alpha == 0
        assert bool(sample(make(name), schedule=schedule).x.isfinite().all())
        network = NetworkDenoiser(Noise(schedule), schedule, "eps", clock=lambda time: time.t)
        y = observed(dtype=torch.float32)
        method = make(name, coordinates=None) if name != "aid" else make(name)
        assert bool(method.sample(network, Observation(y.y[None], y.known[None]), 6, seeded()).x.isfinite().all())


# ---------------------------------------------------------------------------------------------------------------- cost


def travelled(n: int, length: int, repeats: int) -> int:
    """RePaint's walk, counted by walking it."""
    steps = 0
    for arrival in range(1, n + 1):
        steps += 1
        if length <= arrival < n and (n - 1 - arrival) % length == 0:
            steps += (repeats - 1) * length
    return steps


# Evaluations and gradients of N intervals at the defaults, as the methods' pages have them; written here a second time.
COST: dict[str, tuple[Any, Any]] = {
    "copaint": (lambda n: 3 * n, lambda n: 2 * n),
    "daps": (lambda n: 5 * n, lambda n: 0),
    "ding": (lambda n: 2 * (n - 1) + 1, lambda n: 0),
    "dps": (lambda n: n, lambda n: n),
    "fcs": (lambda n: 11 * n, lambda n: 0),
    "fmm": (lambda n: 3 * n, lambda n: 0),
    "gradpaint": (lambda n: n + math.ceil(0.45 * n), lambda n: math.ceil(0.45 * n)),
    "gibbs": (lambda n: 2 * (1 + 2 * (n - 1)), lambda n: 0),
    "lanpaint": (lambda n: 6 * n, lambda n: 0),
    "ldps": (lambda n: n, lambda n: n),
    "mcg": (lambda n: n, lambda n: n),
    "mcgdiff": (lambda n: 8 * n, lambda n: 0),
    "mmps": (lambda n: n, lambda n: n),
    "p2l": (lambda n: n, lambda n: n),
    "pigdm": (lambda n: n, lambda n: n),
    "pnpdm": (lambda n: 5 * n, lambda n: 0),
    "pnpflow": (lambda n: 5 * n, lambda n: 0),
    "psld": (lambda n: n, lambda n: n),
    "restoraflow": (lambda n: 1 if n == 1 else 3 * n - 3, lambda n: 0),
    "repaint": (lambda n: travelled(n, max(1, round(n / 25)), 10), lambda n: 0),
    "tfg": (lambda n: 6 * n, lambda n: 0),
}
PLAIN = (lambda n: n, lambda n: 0)  # all others: one look a step


class _Tick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counter: Counted) -> Tensor:
        ctx.counter = counter
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.counter.gradients += len(gradient)
        return gradient, None


class Counted(Denoiser):
    """Counts rows of calls and of gradients itself."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule)
        self.inner, self.shape, self.rows, self.gradients = inner, inner.shape, 0, 0

    def predict(self, x: Tensor, time: Time) -> Prediction:
        self.rows += len(x)
        return self.inner.predict(_Tick.apply(x, self), time)


@every
def test_cost_is_the_documented_one(name: str) -> None:
    method = make(name)
    evaluations, vjps = COST.get(name, PLAIN)
    for n in COUNTS:
        for batch in (1, 3):
            counted = Counted(prior().denoiser(VP(), (1, 4, 4)))
            result = method.sample(counted, observed((1, 4, 4)), n, seeded(), batch)
            assert result.evaluations == evaluations(n) == method.evaluations(n) == counted.rows / batch
            assert result.vjps == vjps(n) == method.vjps(n) == counted.gradients / batch
            assert result.network_rows == result.evaluations
    assert method.needs_vjp == (vjps(7) > 0)


# ------------------------------------------------------------------------------------------ callback, start, operators


@every
def test_callback_sees_every_step_and_stops_the_run(name: str) -> None:
    seen: list[tuple[int, float]] = []

    def watch(step: int, t: float, x: Tensor, x0: Tensor) -> None:
        assert x.shape == x0.shape == (3, 16)
        seen.append((step, t))

    whole = sample(make(name), callback=watch)
    assert [step for step, _ in seen] == list(range(6))
    assert seen == sorted(seen, key=lambda pair: -pair[1]) and seen[-1][1] == 0
    assert torch.equal(whole.x, sample(make(name)).x)  # watching changes nothing
    assert not whole.stopped

    count = 0

    def stop(step: int, t: float, x: Tensor, x0: Tensor) -> bool:
        nonlocal count
        count += 1
        return step == 2

    cut = sample(make(name), callback=stop)
    assert cut.stopped and count == 3
    assert cut.evaluations < whole.evaluations
    assert bool(cut.x.isfinite().all())
    assert torch.equal(cut.x[:, known_mask()], truth()[known_mask()].expand(3, -1))


# RePaint's ten walks of a stretch are a Markov chain, which forgets where it began.
FORGETS: dict[str, dict[str, Any]] = {"gibbs": {"repeats": 1, "aims": 0}, "repaint": {"repeats": 1}}


@every
def test_initial_picture(name: str) -> None:
    method = make(name, **FORGETS.get(name, {}))
    late = [0.4, 0.3, 0.2, 0.1, 0.0]
    high, low = torch.full((16,), 2.0).double(), torch.full((16,), -2.0).double()
    runs = [sample(method, grid=late, initial=initial).x for initial in (high, low)]
    assert all(bool(x.isfinite().all()) for x in runs)
    unknown = ~known_mask()
    # it is refined, not ignored: a bright start gives a brighter picture
    assert (runs[0] - runs[1])[:, unknown].mean() > 0.1
    batched = sample(method, grid=late, initial=high.expand(3, 16)).x
    assert torch.equal(batched, runs[0])
    known = known_mask()
    assert torch.equal(runs[0][:, known], truth()[known].expand(3, -1))
    with pytest.raises(ValueError, match="initial of shape"):
        sample(method, initial=torch.zeros(5))


@every
def test_operators_are_taken_or_refused(name: str) -> None:
    method, pooled = make(name), Observation(torch.full((1, 2, 2), 0.4).double(), operator=AveragePool(2))
    if not method.takes_operator:
        with pytest.raises(ValueError, match="takes masks only"):
            sample(method, pooled, shape=(1, 4, 4))
        return
    result = sample(method, pooled, 10, shape=(1, 4, 4))
    assert result.x.shape == (3, 1, 4, 4)
    assert bool(result.x.isfinite().all())
