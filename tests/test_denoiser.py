"""Denoisers: the parametrisations, guidance, coordinates, times per row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from paintback.denoiser import Codec, Denoiser, NetworkDenoiser, Prediction, RescaledDenoiser, predict
from paintback.priors import GaussianMixture
from paintback.schedules import EDM, VP, Flow, Schedule, Time

PRIOR = GaussianMixture(
    [[-1.0, 0.5, 0.0], [2.0, 0.0, 1.0]],
    [[[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 0.2]], [[0.1, 0.0, 0.0], [0.0, 0.4, 0.0], [0.0, 0.0, 0.9]]],
    [0.4, 0.6],
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Network:
    """The exact prior as a network of any parametrisation; keeps what it was called with."""

    def __init__(self, schedule: Schedule, parametrisation: str) -> None:
        self.schedule, self.parametrisation = schedule, parametrisation
        self.calls: list[tuple[Tensor, ...]] = []

    def __call__(self, x: Tensor, clock: Tensor, *condition: Tensor) -> Tensor:
        self.calls.append((x, clock, *condition))
        time = self.schedule.at(float(clock[0]))
        exact = PRIOR.denoiser(self.schedule)(x, time)
        x0, x1 = exact.x0, exact.x1
        if condition:  # a shift of the noise that depends on the row's condition
            x1 = x1 + condition[0].to(x)
            x0 = (x - time.sigma * x1) / time.alpha
        return {"eps": x1, "x0": x0, "flow": x1 - x0, "v": time.alpha * x1 - time.sigma * x0}[self.parametrisation]


def network(schedule: Schedule, parametrisation: str, **options: object) -> NetworkDenoiser:
    return NetworkDenoiser(
        Network(schedule, parametrisation),
        schedule,
        parametrisation,  # type: ignore[arg-type]
        clock=lambda time: time.t,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow(3.0)])
@pytest.mark.parametrize("parametrisation", ["eps", "v", "flow", "x0"])
def test_parametrisations_agree(schedule: Schedule, parametrisation: str) -> None:
    x = normal(5, 3)
    for t in (0.25, 0.5, 0.875):  # exact in the clock's float32
        exact = PRIOR.denoiser(schedule)(x, t)
        found = network(schedule, parametrisation)(x, t)
        torch.testing.assert_close(found.x0, exact.x0, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.x1, exact.x1, rtol=1e-9, atol=1e-9)
        assert found.rows == 5


@pytest.mark.parametrize("parametrisation", ["eps", "v", "flow", "x0"])
def test_ends_of_time_are_finite(parametrisation: str) -> None:
    x, output = normal(2, 3), normal(2, 3, seed=1)
    clean = predict(parametrisation, output, x, Time(0.0, 1.0, 0.0))  # type: ignore[arg-type]
    torch.testing.assert_close(clean.x0, x)
    assert clean.x1.isfinite().all()
    noisy = predict(parametrisation, output, x, Time(1.0, 0.0, 1.0))  # type: ignore[arg-type]
    assert noisy.x0.isfinite().all()
    torch.testing.assert_close(noisy.x1, output if parametrisation == "eps" else x)
    expected = {"eps": torch.zeros_like(x), "v": -output, "flow": x - output, "x0": output}[parametrisation]
    torch.testing.assert_close(noisy.x0, expected)


def test_unknown_parametrisation() -> None:
    with pytest.raises(ValueError, match="Unknown parametrisation 'score'; valid are 'eps', 'v', 'flow' and 'x0'"):
        predict("score", normal(1, 2), normal(1, 2), Time(0.5, 0.5, 0.5))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- guidance

CONDITION, EMPTY = torch.tensor([[0.3, -0.2, 0.5]]), torch.tensor([[-0.1, 0.1, 0.0]])


@pytest.mark.parametrize("parametrisation", ["eps", "v", "flow", "x0"])
def test_guidance_is_one_doubled_batch(parametrisation: str) -> None:
    schedule, x, w = VP(), normal(4, 3), 3.5
    guided = network(schedule, parametrisation, condition=CONDITION, unconditional=EMPTY, guidance_scale=w)
    found = guided(x, 0.5)
    assert len(guided.network.calls) == 1
    state, clock, condition = guided.network.calls[0]
    assert len(state) == len(clock) == len(condition) == 8
    assert found.rows == 8
    under = network(schedule, parametrisation, condition=CONDITION)(x, 0.5)
    without = network(schedule, parametrisation, condition=EMPTY)(x, 0.5)
    torch.testing.assert_close(found.x0, without.x0 + w * (under.x0 - without.x0))
    torch.testing.assert_close(found.x1, without.x1 + w * (under.x1 - without.x1))
    assert found.conditional is not None
    assert found.unconditional is not None
    torch.testing.assert_close(found.conditional.x0, under.x0)
    torch.testing.assert_close(found.unconditional.x1, without.x1)
    assert not torch.allclose(under.x0, without.x0)


def test_guided_mixes_the_same_pair_again() -> None:
    x = normal(4, 3)
    options = {"condition": CONDITION, "unconditional": EMPTY}
    denoiser = network(VP(), "eps", guidance_scale=2.0, **options)
    pair = denoiser(x, 0.5)
    again = pair.guided(7.0)
    torch.testing.assert_close(again.x0, network(VP(), "eps", guidance_scale=7.0, **options)(x, 0.5).x0)
    assert again.rows == 0
    assert len(denoiser.network.calls) == 1
    torch.testing.assert_close(pair.guided(1.0).x1, pair.conditional.x1)  # type: ignore[union-attr]
    torch.testing.assert_close(again.guided(2.0).x0, pair.x0)
    single = Prediction(x, x)
    assert single.guided(5.0) is single


def test_guidance_scale_one_runs_half_the_rows() -> None:
    denoiser = network(VP(), "eps", condition=CONDITION, unconditional=EMPTY, guidance_scale=1.0)
    assert denoiser(normal(4, 3), 0.5).rows == 4
    assert len(denoiser.network.calls[0][0]) == 4


def test_conditions_per_sample() -> None:
    """Several samples of one prompt lie next to each other."""
    two = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    x = normal(4, 3)
    found = network(VP(), "eps", condition=two)(x, 0.5)
    for k in range(4):
        alone = network(VP(), "eps", condition=two[k // 2 : k // 2 + 1])(x[k : k + 1], 0.5)
        torch.testing.assert_close(found.x1[k : k + 1], alone.x1)
    with pytest.raises(ValueError, match="Got 2 conditions for 3 samples"):
        network(VP(), "eps", condition=two)(x[:3], 0.5)
    with pytest.raises(ValueError, match="needs the unconditional embedding too"):
        network(VP(), "eps", condition=two, guidance_scale=2.0)


# ------------------------------------------------------------------------------------------- clock and dtype


def test_default_clock_is_ddpms_timestep() -> None:
    seen: list[Tensor] = []

    def net(x: Tensor, clock: Tensor) -> Tensor:
        seen.append(clock)
        return torch.zeros_like(x)

    NetworkDenoiser(net, VP(), "eps")(normal(3, 2), 1.0)
    NetworkDenoiser(net, VP(num_train_timesteps=500), "eps")(normal(3, 2), 0.01)
    assert seen[0].tolist() == [999.0] * 3
    assert seen[1].tolist() == [4.0] * 3


def test_network_runs_in_its_own_dtype() -> None:
    seen: list[torch.dtype] = []

    def net(x: Tensor, clock: Tensor, condition: Tensor) -> Tensor:
        seen.extend((x.dtype, condition.dtype))
        return x * 0.5

    denoiser = NetworkDenoiser(net, Flow(), "flow", condition=torch.ones(1, 2), dtype=torch.bfloat16)
    assert denoiser(normal(3, 2), 0.5).x0.dtype == torch.float64
    assert seen == [torch.bfloat16] * 2


# ---------------------------------------------------------------------------------------------- times per row


def test_times_per_row() -> None:
    denoiser = network(Flow(), "flow")
    x, times = normal(5, 3), torch.tensor([0.25, 0.75, 0.25, 0.5, 0.75])
    found = denoiser(x, times)
    assert sorted(len(call[0]) for call in denoiser.network.calls) == [1, 2, 2]
    assert found.rows == 5
    for k in range(5):
        alone = PRIOR.denoiser(Flow())(x[k : k + 1], float(times[k]))
        torch.testing.assert_close(found.x0[k : k + 1], alone.x0)
        torch.testing.assert_close(found.x1[k : k + 1], alone.x1)


def test_one_time_in_any_form() -> None:
    x, denoiser = normal(4, 3), PRIOR.denoiser(Flow())
    expected = denoiser(x, 0.5).x0
    for t in (torch.tensor(0.5), torch.tensor([0.5]), torch.full((4,), 0.5), Flow().at(0.5)):
        assert torch.equal(denoiser(x, t).x0, expected)


def test_times_per_row_are_differentiable() -> None:
    x = normal(3, 3).requires_grad_()
    denoiser = PRIOR.denoiser(Flow())
    assert torch.autograd.gradcheck(lambda z: denoiser(z, torch.tensor([0.2, 0.8, 0.2])).x0, x)


def test_errors_of_times_per_row() -> None:
    with pytest.raises(ValueError, match="Got 2 times for a batch of 3"):
        PRIOR.denoiser(Flow())(normal(3, 3), torch.tensor([0.2, 0.4]))
    denoiser = network(VP(), "eps", condition=torch.randn(2, 3, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="2 conditions and several times"):
        denoiser(normal(4, 3), torch.tensor([0.25, 0.5, 0.25, 0.5]))


# ------------------------------------------------------------------------------------------------- coordinates


@pytest.mark.parametrize(
    ("inner", "coordinates"),
    [(EDM(), "vp"), (EDM(), "flow"), (VP(), "flow"), (VP(), "edm"), (Flow(3.0), "vp")],
)
def test_rescaled_denoiser(inner: Schedule, coordinates: str) -> None:
    """x0 and x1 are what the model says of its own state; only the state is in other units."""
    denoiser = PRIOR.denoiser(inner)
    rescaled = denoiser.in_coordinates(coordinates)  # type: ignore[arg-type]
    assert isinstance(rescaled, RescaledDenoiser)
    assert rescaled.shape == (3,)
    x = PRIOR.sample(6, torch.Generator().manual_seed(1))
    for t in (0.0, 0.01, 0.4, 0.9, 1.0 if inner.at(1.0).alpha else 0.99):
        new, own = rescaled.schedule.at(t), inner.at(t)
        noise = normal(6, 3, seed=2)
        found = rescaled(new.alpha * x + new.sigma * noise, t)
        expected = denoiser(own.alpha * x + own.sigma * noise, t)
        torch.testing.assert_close(found.x0, expected.x0, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.x1, expected.x1, rtol=1e-9, atol=1e-9)
        direct = PRIOR.denoiser(rescaled.schedule)(new.alpha * x + new.sigma * noise, t)
        torch.testing.assert_close(found.x0, direct.x0, rtol=1e-9, atol=1e-9)


def test_flow_in_vp_coordinates_at_pure_noise() -> None:
    found = PRIOR.denoiser(Flow()).in_coordinates("vp")(normal(4, 3), 1.0)
    torch.testing.assert_close(found.x0, PRIOR.mean().expand(4, 3))


def test_in_coordinates_does_not_stack() -> None:
    denoiser = PRIOR.denoiser(EDM())
    assert denoiser.in_coordinates("edm") is denoiser
    twice = denoiser.in_coordinates("vp").in_coordinates("flow")
    assert isinstance(twice, RescaledDenoiser)
    assert twice.inner is denoiser
    vp = denoiser.in_coordinates("vp")
    assert vp.in_coordinates("vp") is vp


def test_rescaled_denoiser_keeps_what_belongs_to_the_model() -> None:
    class Own(Denoiser):
        def grid(self, num_inference_steps: int) -> Tensor:
            return torch.tensor([1.0, 0.3, 0.0])

    own = Own(EDM())
    own.condition, own.shape = torch.ones(1, 2), (1, 2, 2)
    rescaled = own.in_coordinates("vp")
    assert rescaled.condition is own.condition
    assert rescaled.codec is own.codec
    assert rescaled.shape == (1, 2, 2)
    assert rescaled.grid(7).tolist() == own.grid(7).tolist()  # type: ignore[union-attr]
    assert PRIOR.denoiser(VP()).grid(7) is None
    with pytest.raises(NotImplementedError):
        own(torch.zeros(1, 1, 2, 2), 0.5)


def test_codec_of_pixel_models_is_the_identity() -> None:
    x = normal(1, 3)
    assert Codec().encode(x) is x
    assert Codec().decode(x) is x


# ----------------------------------------------------------------------------------------------- what networks return


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda x, clock: (x, None), "returned a tuple of 2, and a tensor"),
        (lambda x, clock: {"sample": x}, "returned a dict of 1, and a tensor"),
        (lambda x, clock: torch.cat((x, x), 1), r"shape \(1, 6, 4, 4\).*keeps the 3 channels"),
        (lambda x, clock: x[:, :1], r"shape \(1, 1, 4, 4\) for states of shape \(1, 3, 4, 4\)"),
        (lambda x, clock: x[0], r"shape \(3, 4, 4\)"),
        (lambda x, clock: x[..., :2], r"shape \(1, 3, 4, 2\)"),
    ],
)
def test_an_output_that_is_not_the_input_is_refused(network: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NetworkDenoiser(network, VP(), "eps", shape=(3, 4, 4))
    later = NetworkDenoiser(network, VP(), "eps")  # of any size: at its first look
    with pytest.raises(ValueError, match=said):
        later(torch.zeros(1, 3, 4, 4), 0.5)


def test_a_shape_tries_the_network_once() -> None:
    calls = []

    def network(x: torch.Tensor, clock: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        calls.append((x.shape, x.dtype, condition.shape))
        return x

    made = NetworkDenoiser(network, VP(), "v", condition=torch.zeros(2, 5), dtype=torch.bfloat16, shape=(3, 4, 4))
    assert calls == [((1, 3, 4, 4), torch.bfloat16, (1, 5))]
    assert made.shape == (3, 4, 4)


def test_construction_checks() -> None:
    with pytest.raises(ValueError, match="Unknown parametrisation 'epsilon'; valid are 'eps', 'v', 'flow' and 'x0'"):
        NetworkDenoiser(lambda x, clock: x, VP(), "epsilon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"callable as network\(x, clock\); got int"):
        NetworkDenoiser(3, VP(), "eps")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="guidance_scale must be a finite number of at most a million; got nan"):
        NetworkDenoiser(lambda x, clock: x, VP(), "eps", guidance_scale=math.nan)
