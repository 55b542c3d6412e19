"""The loop that all methods share: cost, shapes, the observation, callbacks, randomness, errors."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from paintback.denoiser import Denoiser, NetworkDenoiser, Prediction
from paintback.methods import get, names, types
from paintback.methods.base import Method, Run, State, ancestral_std, ddim, option
from paintback.observation import AveragePool, Observation
from paintback.priors import GaussianMixture, ding_toy, gaussian_2d, gaussian_kl
from paintback.schedules import EDM, VP, Flow, Time, coordinates_of, karras

KNOWN = torch.tensor([True, False, False, True])
Y = torch.tensor([0.4, math.nan, math.nan, -0.7], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prior() -> GaussianMixture:
    place = torch.arange(4, dtype=torch.float64)
    covariance = 0.7 ** (place - place[:, None]).abs()
    return GaussianMixture(torch.tensor([[0.0] * 4, [1.0] * 4]).double(), torch.stack((covariance, 0.2 * covariance)))


def denoiser(schedule: object = None) -> Denoiser:
    return prior().denoiser(schedule or Flow())  # type: ignore[arg-type]


class Counted(Denoiser):
    """Counts rows itself, so that the reported cost is held against the calls that were made."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule)
        self.inner, self.shape, self.rows, self.times = inner, inner.shape, 0, []  # type: ignore[var-annotated]

    def predict(self, x: Tensor, time: Time) -> Prediction:
        self.rows += len(x)
        self.times.append(time.t)
        return self.inner.predict(x, time)


@dataclass(frozen=True)
class Plain(Method):
    """DDIM with the fields of every kind; one evaluation and, if asked, one gradient a step."""

    name: ClassVar[str] = "plain-test-method"
    eta: float = option(0.0, "part of the ancestral noise", low=0.0, high=1.0)
    inner: int = option(1, "evaluations a step", low=1)
    gradient: bool = option(False, "take a gradient")
    kind: str = option("a", "a choice", choices=("a", "b"))

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        if self.gradient:
            prediction, vjp = run.linearise(x_t, t)
            run.memory.setdefault("gradients", []).append(vjp(torch.ones_like(x_t)))
        for _ in range(self.inner - self.gradient):
            prediction = run.denoise(x_t, t)
        noise = run.noise() if self.eta else None
        return ddim(prediction, s, self.eta * ancestral_std(t, s), noise)


# -------------------------------------------------------------------------------------------------------- cost


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize(("delayed", "cost"), [(False, lambda n: 2 * (n - 1) + 1), (True, lambda n: n)])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_cost_of_ding_is_documented(steps: int, delayed: bool, cost: object, num_samples: int) -> None:
    method, counted = get("ding", delayed=delayed), Counted(denoiser())
    result = method.sample(counted, Observation(Y, KNOWN), steps, seeded(), num_samples)
    assert result.evaluations == cost(steps) == method.evaluations(steps) == counted.rows / num_samples  # type: ignore[operator]
    assert result.vjps == 0 == method.vjps(steps)
    assert result.network_rows == result.evaluations
    assert isinstance(result.evaluations, int)
    assert 0.0 not in counted.times  # the model is never asked at sigma = 0


def test_cost_of_gradients_and_inner_evaluations() -> None:
    result = Plain(inner=3, gradient=True).sample(denoiser(), Observation(Y, KNOWN), 5, seeded(), 2)
    assert (result.evaluations, result.vjps) == (3 * 4 + 1, 4)


def test_network_rows_under_guidance() -> None:
    def network(x: Tensor, clock: Tensor, condition: Tensor) -> Tensor:
        return 0.1 * x + condition

    model = NetworkDenoiser(
        network, Flow(), "flow", condition=torch.ones(1, 4), unconditional=torch.zeros(1, 4), guidance_scale=3.0
    )
    result = Plain().sample(model, Observation(torch.zeros(4), KNOWN), 6, seeded(), 2)
    assert (result.evaluations, result.network_rows) == (6, 12)


def test_vjp_is_the_gradient_of_x0() -> None:
    """Against the Jacobian of the exact denoiser, at x of the first step."""
    seen: dict[str, Tensor] = {}

    class Probe(Plain):
        def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
            prediction, vjp = run.linearise(x_t, t)
            assert not prediction.x0.requires_grad
            assert not prediction.x1.requires_grad
            seen.update(x=x_t, v=prediction.x0.sin(), vjp=vjp(prediction.x0.sin()), t=torch.tensor(t.t))
            return ddim(prediction, s)

    Probe().sample(denoiser(), Observation(Y, KNOWN), 2, seeded(), grid=[0.6, 0.3, 0.0])
    exact = torch.autograd.functional.jacobian(lambda x: denoiser()(x[None], 0.6).x0[0], seen["x"][0])
    torch.testing.assert_close(seen["vjp"][0], exact.T @ seen["v"][0])


# ------------------------------------------------------------------------------------------------ observations


def test_known_entries_are_y_itself() -> None:
    result = get("ding").sample(denoiser(), Observation(Y, KNOWN), 4, seeded(), 5)
    assert torch.equal(result.x[:, KNOWN], Y[KNOWN].expand(5, 2))
    assert result.x[:, ~KNOWN].std(0).min() > 0.01
    assert result.residual.shape == (5,)
    assert (result.residual > 0).all()  # measured before the paste
    assert result.x.dtype == torch.float64


def test_noisy_observations_are_not_pasted() -> None:
    result = get("ding").sample(denoiser(), Observation(Y, KNOWN, sigma=0.1), 4, seeded(), 5)
    error = (result.x - Y)[:, KNOWN].abs()
    assert (error > 0).all()
    torch.testing.assert_close(result.residual, error.amax(1))


def test_hidden_entries_are_ignored_even_if_nan() -> None:
    first = get("ding").sample(denoiser(), Observation(Y, KNOWN), 4, seeded(), 3)
    other = torch.where(KNOWN, Y, 1e9)
    second = get("ding").sample(denoiser(), Observation(other, KNOWN), 4, seeded(), 3)
    assert first.x.isfinite().all()
    assert torch.equal(first.x, second.x)


def test_nothing_hidden_and_nothing_known() -> None:
    y = torch.nan_to_num(Y)
    for observation in (Observation(y), Observation(y, torch.ones(4, dtype=torch.bool))):
        assert torch.equal(get("ding").sample(denoiser(), observation, 3, seeded()).x, y[None])
    free = get("ding").sample(denoiser(), Observation(Y, torch.zeros(4, dtype=torch.bool)), 3, seeded(), 4)
    assert free.residual.tolist() == [0.0] * 4
    assert free.x.isfinite().all()


@pytest.mark.parametrize("num_samples", [None, 1, 3])
def test_batch_without_a_batch_axis(num_samples: int | None) -> None:
    result = get("ding").sample(denoiser(), Observation(Y, KNOWN), 3, seeded(), num_samples)
    assert result.x.shape == (num_samples or 1, 4)


@pytest.mark.parametrize("num_samples", [None, 1, 3])
@pytest.mark.parametrize("per_row", [False, True])
def test_batch_of_observations(num_samples: int | None, per_row: bool) -> None:
    """Samples of one row lie next to each other, each with its row's y and known."""
    repeats = num_samples or 1
    y = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], dtype=torch.float64)
    known = torch.stack((KNOWN, ~KNOWN)) if per_row else KNOWN
    result = get("ding").sample(denoiser(), Observation(y, known), 3, seeded(), num_samples)
    assert result.x.shape == (2 * repeats, 4)
    for k in range(2 * repeats):
        row = k // repeats
        where = known[row] if per_row else known
        assert torch.equal(result.x[k, where], y[row, where])
        assert (result.x[k, ~where] != y[row, ~where]).all()


def test_pictures() -> None:
    model = prior().denoiser(Flow(), shape=(1, 2, 2))
    flat = get("ding").sample(denoiser(), Observation(Y, KNOWN), 3, seeded(), 2)
    observation = Observation(Y.reshape(1, 2, 2), KNOWN.reshape(1, 2, 2))
    picture = get("ding").sample(model, observation, 3, seeded(), 2)
    assert picture.x.shape == (2, 1, 2, 2)
    assert torch.equal(picture.x.reshape(2, 4), flat.x)


# -------------------------------------------------------------------------------------------------- randomness


def test_samples_do_not_depend_on_their_batch() -> None:
    observation = Observation(Y, KNOWN)
    seeds = [4, 8, 15]
    batch = get("ding").sample(denoiser(), observation, 5, [seeded(s) for s in seeds], 3)
    for k, seed in enumerate(seeds):
        alone = get("ding").sample(denoiser(), observation, 5, [seeded(seed)], 1)
        torch.testing.assert_close(batch.x[k], alone.x[0], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(batch.x[0], batch.x[1])
    with pytest.raises(ValueError, match="list of 2 generators for 3 samples"):
        get("ding").sample(denoiser(), observation, 5, [seeded(1), seeded(2)], 3)


def test_generator_decides_and_nothing_global_is_touched() -> None:
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run = lambda g: get("ding").sample(denoiser(), Observation(Y, KNOWN), 3, g, 2).x  # noqa: E731
    assert torch.equal(run(seeded(1)), run(seeded(1)))
    assert not torch.equal(run(seeded(1)), run(seeded(2)))
    assert not torch.equal(run(None), run(None))
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_float32_state_follows_float64() -> None:
    double = get("ding").sample(denoiser(), Observation(Y, KNOWN), 6, seeded(), 50)
    single = get("ding").sample(denoiser(), Observation(Y.float(), KNOWN), 6, seeded(), 50)
    assert single.x.dtype == torch.float32
    torch.testing.assert_close(single.x.double(), double.x, rtol=0, atol=1e-4)


# ---------------------------------------------------------------------------------------- callback, grid, start


def test_callback_sees_every_step() -> None:
    seen: list[tuple[int, float, Tensor, Tensor]] = []
    result = get("ding").sample(
        denoiser(), Observation(Y, KNOWN), 4, seeded(), 2, callback=lambda *args: seen.append(args)
    )
    assert [(k, t) for k, t, _, _ in seen] == [(0, 0.75), (1, 0.5), (2, 0.25), (3, 0.0)]
    assert all(x.shape == x0.shape == (2, 4) for _, _, x, x0 in seen)
    assert torch.equal(seen[-1][2][:, ~KNOWN], result.x[:, ~KNOWN])
    assert not result.stopped


def test_callback_stops() -> None:
    predicted: list[Tensor] = []

    def callback(k: int, t: float, x: Tensor, x0: Tensor) -> bool:
        predicted.append(x0)
        return k == 1

    result = get("ding").sample(denoiser(), Observation(Y, KNOWN), 6, seeded(), 2, callback=callback)
    assert result.stopped
    assert len(predicted) == 2
    assert result.evaluations == 4  # two steps of two
    assert torch.equal(result.x[:, ~KNOWN], predicted[-1][:, ~KNOWN])
    assert torch.equal(result.x[:, KNOWN], Y[KNOWN].expand(2, 2))
    last = get("ding").sample(denoiser(), Observation(Y, KNOWN), 2, seeded(), callback=lambda k, *_: k == 1)
    assert not last.stopped  # it had ended anyway


def test_grids() -> None:
    counted = Counted(denoiser())
    Plain().sample(counted, Observation(Y, KNOWN), 3, seeded(), grid=[0.9, 0.4, 0.1, 0.0])
    assert counted.times == [0.9, 0.4, 0.1]
    counted = Counted(denoiser())
    assert Plain().sample(counted, Observation(Y, KNOWN), 5, seeded(), grid=karras()).evaluations == 5
    assert counted.times == pytest.approx(karras()(Flow(), 5)[:-1].tolist())
    counted = Counted(denoiser())
    counted.grid = lambda n: torch.tensor([0.8, 0.3, 0.0])  # type: ignore[method-assign]
    Plain().sample(counted, Observation(Y, KNOWN), 5, seeded())
    assert counted.times == pytest.approx([0.8, 0.3])  # the model's own
    with pytest.raises(ValueError, match="fall strictly"):
        Plain().sample(denoiser(), Observation(Y, KNOWN), 2, seeded(), grid=[0.5, 0.6, 0.0])
    with pytest.raises(ValueError, match="whole number of at least 1; got 0"):
        Plain().sample(denoiser(), Observation(Y, KNOWN), 0, seeded())


def test_initial_picture() -> None:
    """The first state is alpha initial + sigma noise, for one picture and for one per sample."""
    first: list[Tensor] = []

    class Probe(Plain):
        def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
            first.append(x_t)
            return super().step(run, x_t, t, s)

    noise = torch.randn(2, 4, generator=seeded(3)).double()
    for initial in (torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.arange(8.0).reshape(2, 4)):
        first.clear()
        result = Probe().sample(
            denoiser(), Observation(Y, KNOWN), 2, seeded(3), 2, grid=[0.25, 0.1, 0.0], initial=initial
        )
        torch.testing.assert_close(first[0], 0.75 * initial.double().expand(2, 4) + 0.25 * noise)
        assert result.x.isfinite().all()
    # little noise: the sample stays near the picture
    near = Plain().sample(denoiser(), Observation(Y, KNOWN), 1, seeded(), 2, grid=[0.01, 0.0], initial=initial)
    assert (near.x - initial)[:, ~KNOWN].abs().max() < 0.2


# ------------------------------------------------------------------------------------------------- coordinates


def test_edm_models_run_in_vp_coordinates() -> None:
    seen: list[str | None] = []

    class Probe(Plain):
        def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
            seen.append(coordinates_of(run.denoiser.schedule))
            return super().step(run, x_t, t, s)

    class Keeps(Probe):
        edm_coordinates: ClassVar[str] = "edm"

    observation = Observation(Y, KNOWN)
    for method, schedule in (
        (Probe(), EDM()),
        (Keeps(), EDM()),
        (Probe(), VP()),
        (Probe(), Flow()),
        (Probe(coordinates="flow"), EDM()),
        (Probe(coordinates="vp"), Flow()),
    ):
        method.sample(denoiser(schedule), observation, 2, seeded())
    assert seen == ["vp", "edm", "vp", "flow", "flow", "vp"]


def test_ddim_is_the_same_in_all_coordinates() -> None:
    """A deterministic step does not know its units: one model run in each gives one result."""
    grid = karras(sigma_min=0.02, sigma_max=40.0)
    results = [
        Plain(coordinates=c).sample(denoiser(EDM()), Observation(Y, KNOWN), 12, seeded(), 4, grid).x
        for c in ("vp", "flow", "edm")
    ]
    for other in results[:2]:
        torch.testing.assert_close(other, results[2], rtol=0, atol=1e-9)


def test_ancestral_sampling_reaches_the_prior() -> None:
    """DDPM steps with the exact denoiser: moments of unconditional samples."""
    observation = Observation(torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.bool))
    x = Plain(eta=1.0).sample(denoiser(VP()), observation, 200, seeded(), 8000).x
    assert gaussian_kl(x, prior()) < 0.01


# --------------------------------------------------------------------------------------------------- problems


def test_ding_on_the_measured_problems() -> None:
    """The peers' released code: B at 25 steps has mean 0.762 and std 0.619; A at 20 steps has KL 0.093."""
    b = ding_toy()
    x = get("ding").sample(b.prior.denoiser(Flow()), b.observation, 25, seeded(), 20_000).x[:, 1]
    assert float(x.mean()) == pytest.approx(0.762, abs=0.02)
    assert float(x.std()) == pytest.approx(0.619, abs=0.02)
    a = gaussian_2d()
    x = get("ding").sample(a.prior.denoiser(Flow()), a.observation, 20, seeded(), 20_000).x[:, :1]
    assert gaussian_kl(x, a.posterior) == pytest.approx(0.093, abs=0.012)


# ------------------------------------------------------------------------------------------------------ errors


def test_errors_of_observations() -> None:
    with pytest.raises(ValueError, match="takes masks only, no linear operator"):
        Plain().sample(prior().denoiser(Flow(), (1, 2, 2)), Observation(torch.zeros(1, 1, 1), operator=AveragePool(2)))
    with pytest.raises(ValueError, match=r"y of shape \(5,\) does not fit the model's pictures of shape \(4,\)"):
        Plain().sample(denoiser(), Observation(torch.zeros(5)))
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1; got 0"):
        Plain().sample(denoiser(), Observation(Y, KNOWN), 2, num_samples=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eta": -0.1}, "eta must be between 0.0 and 1.0; got -0.1"),
        ({"eta": 1.5}, "eta must be between 0.0 and 1.0"),
        ({"eta": math.nan}, "eta must be a number; got nan"),
        ({"eta": "1"}, "eta must be a number; got '1'"),
        ({"inner": 0}, "inner must be at least 1; got 0"),
        ({"inner": 1.5}, "inner must be a whole number; got 1.5"),
        ({"inner": True}, "inner must be a whole number; got True"),
        ({"gradient": 1}, "gradient must be true or false; got 1"),
        ({"kind": "c"}, "kind must be one of a, b; got 'c'"),
        ({"coordinates": "ve"}, "coordinates must be one of vp, flow, edm; got 've'"),
    ],
)
def test_errors_of_fields(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"plain-test-method: {message}"):
        Plain(**fields)


def test_get_lists_what_is_valid() -> None:
    with pytest.raises(ValueError, match=r"Unknown method 'dingg' \(did you mean 'ding'\?\); valid methods: .*ding"):
        get("dingg")
    with pytest.raises(
        ValueError, match="ding has no field 'sigma'; its fields: coordinates, times, sigma_y, eta, delayed"
    ):
        get("ding", sigma=0.1)
    assert get("ding", delayed=True).delayed is True  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ shared steps


def test_ancestral_std_is_ddpms_posterior() -> None:
    """beta_tilde of DDPM, equation 7, between neighbouring levels."""
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for k in (10, 500, 999):
        variance = (1 - abar[k - 1]) / (1 - abar[k]) * (1 - abar[k] / abar[k - 1])
        t, s = VP().at((k + 1) / 1000), VP().at(k / 1000)
        assert ancestral_std(t, s) == pytest.approx(math.sqrt(variance), rel=1e-6)
    assert ancestral_std(Flow().at(1.0), Flow().at(0.5)) == 0.5


def test_ddim_step() -> None:
    prediction, s = Prediction(torch.tensor([[2.0]]), torch.tensor([[-1.0]])), Time(0.3, 0.8, 0.6)
    assert float(ddim(prediction, s)) == pytest.approx(0.8 * 2 - 0.6)
    noise = torch.tensor([[3.0]])
    assert float(ddim(prediction, s, 0.36, noise)) == pytest.approx(1.6 - 0.48 + 0.36 * 3)
    assert float(ddim(prediction, s, 0.6, noise)) == pytest.approx(1.6 + 1.8)


# ------------------------------------------------------------------------------------------------- fields and states


@pytest.mark.parametrize("value", [5, 5.0, np.int64(5), np.float32(5), torch.tensor(5), np.array(5.0)])
def test_whole_numbers_of_any_kind_are_integers(value: object) -> None:
    made = get("lanpaint", inner_steps=value)
    assert made == get("lanpaint", inner_steps=5)
    assert type(made.inner_steps) is int  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [1, np.float64(1), np.int8(1), torch.tensor(1.0)])
def test_numbers_of_any_kind_are_floats(value: object) -> None:
    for made in (get("lanpaint", guidance=value), get("lanpaint", cfg_big=value)):
        number = getattr(made, "guidance" if made.cfg_big is None else "cfg_big")  # type: ignore[attr-defined]
        assert number == 1.0 and type(number) is float


@pytest.mark.parametrize("name", names())
def test_every_number_of_every_method_is_checked(name: str) -> None:
    """NaN, infinity, a truth value, a word and a list are refused in one sentence that names the field."""
    for entry in dataclasses.fields(types()[name]):
        kind = entry.metadata.get("kind") or type(entry.default)
        if entry.metadata.get("choices") or kind not in (int, float):
            continue
        for value in (math.nan, math.inf, -math.inf, True, "1", [1], np.float64("nan"), np.array([1.0, 2.0])):
            with pytest.raises(ValueError, match=f"^{name}: {entry.name} must be a"):
                get(name, **{entry.name: value})
        if kind is int:
            with pytest.raises(ValueError, match=f"{entry.name} must be a whole number"):
                get(name, **{entry.name: 1.5})


@pytest.mark.parametrize("name", ["dps", "lanpaint", "fmm", "reddiff"])
def test_iterate_yields_what_the_callback_sees(name: str) -> None:
    seen: list[State] = []
    result = get(name).sample(
        denoiser(), Observation(Y, KNOWN), 5, seeded(), 3, callback=lambda *state: seen.append(State(*state))
    )
    states = list(get(name).iterate(denoiser(), Observation(Y, KNOWN), 5, seeded(), 3))
    assert [state[:2] for state in states] == [state[:2] for state in seen]
    assert all(torch.equal(a.x, b.x) and torch.equal(a.x0, b.x0) for a, b in zip(states, seen, strict=True))
    assert torch.equal(states[-1].x, result.x)
    assert not any(state.x.requires_grad for state in states)


def test_iterate_works_only_as_far_as_it_is_asked() -> None:
    counted = Counted(denoiser())
    states = get("ding").iterate(counted, Observation(Y, KNOWN), 5, seeded())
    assert counted.rows == 0
    next(states)
    next(states)
    assert counted.rows == 4
    with pytest.raises(ValueError, match="whole number"):  # before the first state is asked for
        get("ding").iterate(counted, Observation(Y, KNOWN), 0)


# ----------------------------------------------------------------------------------------------- inference mode, starts


@pytest.mark.parametrize("name", names())
def test_inference_mode_changes_nothing(name: str) -> None:
    if name == "aid":
        pytest.skip("needs a module; takes no gradients")
    model = denoiser(VP())
    outside = get(name).sample(model, Observation(Y, KNOWN), 6, seeded(), 3)
    with torch.inference_mode():
        made = Observation(Y.clone(), KNOWN.clone())
        inside = get(name).sample(model, made, 6, seeded(), 3)
        *_, walked = get(name).iterate(model, made, 6, seeded(), 3)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(outside.x, inside.x)
    assert torch.equal(outside.x, walked.x)
    assert (outside.vjps, outside.evaluations) == (inside.vjps, inside.evaluations)
    assert inside.x.add_(1).isfinite().all()  # a usual tensor


def test_a_gradient_that_cannot_pass_is_said() -> None:
    with torch.inference_mode():
        network = torch.nn.Linear(4, 4)
    frozen = NetworkDenoiser(lambda x, clock: network(x), VP(), "eps")
    y = torch.nan_to_num(Y).float()
    with pytest.raises(ValueError, match=r"weights or prompts were made inside torch.inference_mode\(\)"):
        get("dps").sample(frozen, Observation(y, KNOWN), 4, seeded())
    assert get("ddnm").sample(frozen, Observation(y, KNOWN), 4, seeded()).x.isfinite().all()
    cut = NetworkDenoiser(torch.no_grad()(lambda x, clock: 0.5 * x), VP(), "x0")
    with pytest.raises(ValueError, match="the model's prediction has none"):
        get("dps").sample(cut, Observation(y, KNOWN), 4, seeded())


def test_a_grid_that_starts_low_says_so() -> None:
    late = [0.4, 0.2, 0.0]
    with pytest.warns(UserWarning, match=r"starts at noise level 0\.667.*give initial="):
        get("ding").sample(denoiser(), Observation(Y, KNOWN), 2, seeded(), grid=late)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get("ding").sample(denoiser(), Observation(Y, KNOWN), 2, seeded(), grid=late, initial=torch.zeros(4))
        get("ding").sample(denoiser(), Observation(Y, KNOWN), 2, seeded())
        get("fmm").sample(denoiser(VP()), Observation(Y, KNOWN), 2, seeded())


@pytest.mark.parametrize("name", names())
def test_betas_that_begin_with_zeros(name: str) -> None:
    if name == "aid":
        pytest.skip("needs a module")
    betas = torch.linspace(0, 0.02, 1000, dtype=torch.float64)
    model = denoiser(VP(betas))
    for grid in (None, karras(), [1.0, 0.5, 0.001, 0.0005, 0.0]):
        assert get(name).sample(model, Observation(Y, KNOWN), 3, seeded(), grid=grid).x.isfinite().all()


# ------------------------------------------------------------------------------------------------- the answer so far


@pytest.mark.parametrize("name", [name for name in names() if name != "aid"])
@pytest.mark.parametrize("seed", range(3))
def test_the_answer_so_far_is_what_the_method_would_finish_with(name: str, seed: int) -> None:
    """After the step t -> s the answer is what `finish` makes of the state at t: no probe, no unguided prediction.

    Random masks, noises and steps; RePaint without its walks and Restora-Flow without its corrections, which their last
    steps have too.
    """
    pick = torch.Generator().manual_seed(seed)
    law = GaussianMixture(torch.zeros(1, 12), (0.9 ** (torch.arange(12.0) - torch.arange(12.0)[:, None]).abs())[None])
    known = torch.rand(12, generator=pick) < 0.5
    known[0], known[1] = True, False
    observation = Observation(law.sample(1, pick)[0], known)
    stop = int(torch.randint(0, 6, (1,), generator=pick))
    once = {"repaint": {"repeats": 1}, "restoraflow": {"corrections": 0}}
    method = get(name, **once.get(name, {}))
    for schedule in (VP(), Flow()):
        model = law.denoiser(schedule)
        cut = method.sample(
            model, observation, 8, seeded(seed), 4, callback=lambda step, t, x, x0, stop=stop: step == stop
        )
        assert cut.stopped
        run = method.open(model, observation, 8, seeded(seed), 4)
        with torch.no_grad():
            x = method.start(run)
            for t, s in itertools.pairwise(run.times[: stop + 1]):
                x = method.step(run, x, t, s)
            wanted = method.finish(run, x, run.times[stop])
        torch.testing.assert_close(cut.x[:, ~known], wanted[:, ~known], atol=1e-9, rtol=1e-9)


def test_an_interrupted_run_of_fmm_answers_by_its_own_estimate() -> None:
    """Stopped at 3 of 12, its answer is nearer to the truth than the model's own picture at the same states."""
    law = GaussianMixture(torch.zeros(1, 12), (0.9 ** (torch.arange(12.0) - torch.arange(12.0)[:, None]).abs())[None])
    known = torch.arange(12) % 3 != 1
    truth = law.sample(1, seeded(5))[0]
    pictures: list[Tensor] = []

    class Kept(Counted):
        def predict(self, x: Tensor, time: Time) -> Prediction:
            pictures.append(super().predict(x, time).x0)
            return super().predict(x, time)

    cut = get("fmm").sample(
        Kept(law.denoiser(VP())), Observation(truth, known), 12, seeded(), 200, callback=lambda step, *_: step == 3
    )
    mean = law.posterior(Observation(truth, known)).mean()

    def error(x: Tensor) -> float:
        return float((x[:, ~known] - mean).square().mean())

    assert error(cut.x) < 0.7 * min(error(x) for x in pictures[-3:])


# ------------------------------------------------------------------------------------------------ numbers that are not


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", ["ding", "dps", "fmm", "lanpaint"])
def test_nan_of_a_network_is_said(name: str, dtype: torch.dtype) -> None:
    def network(x: Tensor, clock: Tensor) -> Tensor:
        return x * math.nan if float(clock[0]) < 500 else 0.1 * x

    model = NetworkDenoiser(network, VP(), "eps", dtype=dtype)
    cause = r"half precision \(float16\) is the likely cause; load the model with torch_dtype=torch.float32"
    with pytest.raises(ValueError, match=cause if dtype == torch.float16 else "NaN or infinity though"):
        get(name, **({"coordinates": None})).sample(model, Observation(torch.nan_to_num(Y).float(), KNOWN), 6, seeded())
