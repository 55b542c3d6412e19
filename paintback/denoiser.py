"""Denoisers: what every model looks like to every method, whatever it predicts inside.

A denoiser takes x_t = alpha_t x0 + sigma_t x1 and t, and returns the expected picture x0 and noise x1, which are tied
by alpha_t x0 + sigma_t x1 = x_t.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from paintback.schedules import Coordinates, Rescaled, Schedule, Time, coordinates_of, own_times
from paintback.stopping import check

__all__ = [
    "Codec",
    "Denoiser",
    "Mix",
    "NetworkDenoiser",
    "Parametrisation",
    "Prediction",
    "RescaledDenoiser",
    "condition_rows",
    "linear_mix",
    "network_dtype",
    "not_finite",
    "predict",
]

Parametrisation = Literal["eps", "v", "flow", "x0"]
PARAMETRISATIONS = ("eps", "v", "flow", "x0")


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says of x_t.

    Attributes:
        x0: expected picture, of x_t's shape.
        x1: expected noise, of x_t's shape.
        conditional: the prediction under the prompt, where classifier-free guidance mixed two.
        unconditional: the one without.
        rows: rows that the network saw for this prediction.
        mix: how the model's family mixes the two; None for the straight line between them.
    """

    x0: Tensor
    x1: Tensor
    conditional: Prediction | None = None
    unconditional: Prediction | None = None
    rows: int = 0
    mix: Mix | None = None

    def guided(self, scale: float) -> Prediction:
        """The same pair mixed with another guidance scale; self where there is only one prediction.

        Args:
            scale: w in unconditional + w (conditional - unconditional); 1 is the conditional prediction.
        """
        if self.conditional is None or self.unconditional is None:
            return self
        mixed = (self.mix or linear_mix)(self.conditional, self.unconditional, scale)
        return Prediction(mixed.x0, mixed.x1, self.conditional, self.unconditional, mix=self.mix)

    def detach(self) -> Prediction:
        """The same numbers without the graph that made them, the pair's too."""
        upper, lower = (None if one is None else one.detach() for one in (self.conditional, self.unconditional))
        return Prediction(self.x0.detach(), self.x1.detach(), upper, lower, self.rows, self.mix)


Mix = Callable[[Prediction, Prediction, float], Prediction]
"""(conditional, unconditional, scale) -> the guided prediction."""


def linear_mix(conditional: Prediction, unconditional: Prediction, scale: float) -> Prediction:
    """Classifier-free guidance: unconditional + scale (conditional - unconditional)."""
    return Prediction(
        torch.lerp(unconditional.x0, conditional.x0, scale), torch.lerp(unconditional.x1, conditional.x1, scale)
    )


def predict(parametrisation: Parametrisation, output: Tensor, x: Tensor, time: Time, rows: int = 0) -> Prediction:
    """Turns a network's output into a `Prediction`.

    Args:
        parametrisation: "eps": the noise; "v": alpha x1 - sigma x0 (VP only, Salimans and Ho 2022,
            arXiv:2202.00512); "flow": the velocity x1 - x0; "x0": the picture (EDM's D).
        output: of the network, of x's shape.
        x: the state x_t.
        time: t.
        rows: rows that the network saw.

    Returns:
        The prediction, finite at both ends of time: at sigma = 0 the picture is the state and the noise, of which
        nothing is known, 0; at alpha = 0 the noise of an eps network is its output and the picture, of which
        nothing is known, 0.

    Raises:
        ValueError: for an unknown parametrisation.
    """
    alpha, sigma = time.alpha, time.sigma
    if parametrisation == "flow":
        total = alpha + sigma
        return Prediction((x - sigma * output) / total, (x + alpha * output) / total, rows=rows)
    if parametrisation == "v":
        total = alpha**2 + sigma**2
        return Prediction((alpha * x - sigma * output) / total, (alpha * output + sigma * x) / total, rows=rows)
    if parametrisation == "eps":
        if alpha == 0:
            return Prediction(torch.zeros_like(x), output, rows=rows)
        return Prediction((x - sigma * output) / alpha, output, rows=rows)
    if parametrisation == "x0":
        if sigma == 0:
            return Prediction(x / alpha, torch.zeros_like(x), rows=rows)
        return Prediction(output, (x - alpha * output) / sigma, rows=rows)
    raise ValueError(f"Unknown parametrisation {parametrisation!r}; valid are 'eps', 'v', 'flow' and 'x0'.")


class Codec:
    """The map between pictures and the space that a denoiser works in; this one is the identity of pixel models.

    Attributes:
        factor: pixels per cell along a side.
    """

    factor: int = 1

    def encode(self, picture: Tensor) -> Tensor:
        """Picture, (B, C, H, W) in [-1, 1], to the denoiser's space."""
        return picture

    def decode(self, x: Tensor) -> Tensor:
        """Denoiser's space to picture; differentiable."""
        return x

    def share_known(self, known: Tensor) -> Tensor:
        """The known share of the pixels under every cell, (B, 1, h, w) of a (B, 1, H, W) bool; F before H in clips."""
        return known.float()

    def modules(self) -> list[torch.nn.Module]:
        """The torch modules that encoding and decoding run."""
        return []


class Denoiser:
    """A frozen model. A subclass defines `predict`.

    Attributes:
        schedule: its noise schedule.
        shape: shape of one picture in the denoiser's space, or None where any shape goes.
        codec: to and from pictures.
        condition: the prompt embedding, or None.
        step_distilled: whether its picture is the end of the ODE, in few steps, and no mean; methods with a grid of
            their own take the model's then.
    """

    shape: tuple[int, ...] | None = None
    condition: Tensor | None = None
    step_distilled: bool = False

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.codec = Codec()

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """The prediction for a batch x at one time."""
        raise NotImplementedError

    def __call__(self, x: Tensor, t: float | Tensor | Time) -> Prediction:
        """Evaluates the model.

        Args:
            x: (B, ...) states.
            t: one time in [0, 1], or (B,) times.

        Returns:
            x0 and x1 of x's shape.

        Raises:
            Stopped: see `stopping`.
        """
        check()
        if isinstance(t, Time):
            return self.predict(x, t)
        times = torch.as_tensor(t, dtype=torch.float64).reshape(-1)
        if len(times) == 1 or bool((times == times[0]).all()):
            return self.predict(x, self.schedule.at(float(times[0])))
        if len(times) != len(x):
            raise ValueError(f"Got {len(times)} times for a batch of {len(x)}; give one time or one per row.")
        if self.condition is not None and len(self.condition) > 1:
            # rows are grouped by time below, and would meet the conditions of others
            raise ValueError(f"Got {len(self.condition)} conditions and several times; give one of either.")
        x0, x1, rows = torch.empty_like(x), torch.empty_like(x), 0
        for value in times.unique().tolist():
            chosen = (times == value).to(x.device)
            part = self.predict(x[chosen], self.schedule.at(value))
            x0[chosen], x1[chosen], rows = part.x0, part.x1, rows + part.rows
        return Prediction(x0, x1, rows=rows)

    def grid(self, num_inference_steps: int) -> Tensor | None:
        """The family's own time grid of N + 1 times, or None for the uniform one."""
        return None

    def times_of(self, *, timesteps: Sequence[float] | None = None, sigmas: Sequence[float] | None = None) -> Tensor:
        """The grid of levels that are named as the model's family names them; one of the two.

        Args:
            timesteps: of DDPM, 0 to T - 1; of flow models 1000 sigma.
            sigmas: noise levels sigma / alpha; of flow models sigma itself.

        Returns:
            Times, float64, falling, the last one 0.

        Raises:
            ValueError: for levels that do not fall, or timesteps where there are none.
        """
        return own_times(self.schedule, timesteps, sigmas)

    def modules(self) -> list[torch.nn.Module]:
        """The torch modules that an evaluation runs; gradients are taken with their weights held still."""
        inner, network = getattr(self, "inner", None), getattr(self, "network", None)
        if isinstance(inner, Denoiser):
            return inner.modules()
        return [network] if isinstance(network, torch.nn.Module) else []

    def with_condition(self, condition: Tensor) -> Denoiser:
        """This denoiser under another prompt embedding, (1 or B, ...); the network is shared."""
        other = copy.copy(self)
        other.condition = condition
        return other

    def placed(
        self, boxes: Sequence[tuple[int, int, int, int]], shapes: Sequence[tuple[int, int]], factor: int
    ) -> Denoiser:
        """This denoiser told where in the picture its states lie, for a network that takes that as an input.

        A painter asks once for every scale and batch. The methods then show the denoiser a multiple of these rows, a
        row's multiples next to each other.

        Args:
            boxes: one (top, left, bottom, right) in pixels of the picture for each row of the batch; it may reach
                beyond the picture.
            shapes: (H, W) of each row's picture.
            factor: pixels of the picture per pixel of the state, along a side.

        Returns:
            Self, for a model that does not ask.
        """
        return self

    def along(self, times: Sequence[float]) -> Denoiser:
        """This denoiser told the times of a run, falling, the last one 0, for a model that changes on the way.

        A run asks once, before its first step.

        Returns:
            Self, for a model that does not ask.
        """
        inner = getattr(self, "inner", None)
        if not isinstance(inner, Denoiser) or (told := inner.along(times)) is inner:
            return self
        other = copy.copy(self)
        other.inner = told  # type: ignore[attr-defined]
        return other

    def given(self, values: Tensor, known: Tensor) -> Denoiser:
        """This denoiser told what is known of the pictures that its states are of, for a model that learns from them.

        A painter asks once for every scale and batch, as for `placed`.

        Args:
            values: (B, C, H, W), of each row's picture at this scale; 0 where unknown.
            known: (B, 1, H, W) bool.

        Returns:
            Self, for a model that does not ask.
        """
        return self

    def in_coordinates(self, coordinates: Coordinates) -> Denoiser:
        """This denoiser with its states in other coordinates; self where they are those already."""
        return self if coordinates_of(self.schedule) == coordinates else RescaledDenoiser(self, coordinates)


class RescaledDenoiser(Denoiser):
    """A denoiser whose states are divided by a number at every time; x0 and x1 stay what they are.

    Args:
        inner: the model.
        coordinates: the law of alpha and sigma wanted.
    """

    def __init__(self, inner: Denoiser, coordinates: Coordinates) -> None:
        while isinstance(inner, RescaledDenoiser):
            inner = inner.inner
        super().__init__(Rescaled(inner.schedule, coordinates))
        self.inner: Denoiser = inner
        self.shape, self.codec, self.condition = inner.shape, inner.codec, inner.condition
        self.step_distilled = inner.step_distilled

    def predict(self, x: Tensor, time: Time) -> Prediction:
        inner = self.inner.schedule.at(time.t)
        # the norm of the two laws of coordinates, exact at both ends
        norm = inner.sigma / time.sigma if time.sigma > time.alpha else inner.alpha / time.alpha
        return self.inner.predict(x * norm, inner)

    def grid(self, num_inference_steps: int) -> Tensor | None:
        return self.inner.grid(num_inference_steps)

    def times_of(self, *, timesteps: Sequence[float] | None = None, sigmas: Sequence[float] | None = None) -> Tensor:
        return self.inner.times_of(timesteps=timesteps, sigmas=sigmas)

    def with_condition(self, condition: Tensor) -> Denoiser:
        other = copy.copy(self)
        other.inner, other.condition = self.inner.with_condition(condition), condition
        return other


class NetworkDenoiser(Denoiser):
    """A torch network, any parametrisation, with or without classifier-free guidance.

    With guidance, the conditional and unconditional rows go through the network as one doubled batch.

    Args:
        network: (x, clock) -> output, or (x, clock, condition) -> output where a condition is given; clock is (B,).
        schedule: its noise schedule.
        parametrisation: what the output means.
        clock: the network's time argument as a function of `Time`; by default 999 t' with t' the discrete index of
            DDPM, t T - 1.
        condition: (1 or B, ...) prompt or class embedding.
        unconditional: the same for the empty prompt.
        guidance_scale: w in unconditional + w (conditional - unconditional).
        dtype: of the network; the state keeps its own.
        shape: of one picture, or None where any goes; with it, the network is tried once here, on one row.

    Raises:
        ValueError: for a parametrisation that there is none of, guidance with one embedding, and, here with a shape or
            else at the first look, an output that is no tensor of its input's shape.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: Schedule,
        parametrisation: Parametrisation,
        *,
        clock: Callable[[Time], float] | None = None,
        condition: Tensor | None = None,
        unconditional: Tensor | None = None,
        guidance_scale: float = 1.0,
        dtype: torch.dtype | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(schedule)
        if parametrisation not in PARAMETRISATIONS:
            raise ValueError(
                f"Unknown parametrisation {parametrisation!r}; valid are 'eps', 'v', 'flow' and 'x0' (what the network "
                "predicts: the noise, v, the velocity or the picture)."
            )
        if not callable(network):
            raise ValueError(f"network must be callable as network(x, clock); got {type(network).__name__}.")
        if not abs(guidance_scale) <= 1e6:
            raise ValueError(f"guidance_scale must be a finite number of at most a million; got {guidance_scale!r}.")
        if guidance_scale != 1 and condition is not None and unconditional is None:
            raise ValueError("A guidance_scale other than 1 needs the unconditional embedding too.")
        self.network, self.parametrisation, self.dtype = network, parametrisation, dtype
        self.clock = clock or (lambda time: time.t * getattr(schedule, "num_train_timesteps", 1000) - 1)
        self.condition, self.unconditional, self.guidance_scale = condition, unconditional, guidance_scale
        self.shape = None if shape is None else tuple(shape)
        if self.shape is not None:
            self._try(network, self.shape)

    def _try(self, network: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
        """One row of zeros through the network, for the shape of what comes out."""
        parameter = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
        like = torch.zeros(()) if parameter is None else parameter
        if self.condition is not None:
            like = self.condition
        with torch.no_grad():
            row = torch.zeros(1, *shape, device=like.device, dtype=self.dtype or like.dtype)
            condition = () if self.condition is None else (self.condition[:1],)
            self._run(row, self.schedule.at(0.5), *condition)

    def _run(self, x: Tensor, time: Time, *condition: Tensor) -> Tensor:
        dtype = self.dtype or x.dtype
        clock = torch.full((len(x),), self.clock(time), device=x.device, dtype=torch.float32)
        output = self.network(x.to(dtype), clock, *(c.to(dtype) for c in condition))
        if not torch.is_tensor(output):
            raise ValueError(
                f"The network returned {_described(output)}, and a tensor of its input's shape is expected; "
                "wrap it in a function that takes the tensor out."
            )
        if output.shape != x.shape:
            more = x.ndim > 1 and output.ndim == x.ndim and output.shape[1] > x.shape[1]
            raise ValueError(
                f"The network returned shape {tuple(output.shape)} for states of shape {tuple(x.shape)}, and the same "
                "shape is expected; "
                + (
                    f"wrap it in a function that keeps the {x.shape[1]} channels of the prediction."
                    if more
                    else "check that it was made for these pictures."
                )
            )
        return output.to(x.dtype)

    def predict(self, x: Tensor, time: Time) -> Prediction:
        rows = len(x)
        if self.condition is None:
            return predict(self.parametrisation, self._run(x, time), x, time, rows)
        condition = condition_rows(self.condition, rows)
        if self.unconditional is None or self.guidance_scale == 1:
            return predict(self.parametrisation, self._run(x, time, condition), x, time, rows)
        both = torch.cat((condition_rows(self.unconditional, rows), condition))
        without, under = self._run(torch.cat((x, x)), time, both).chunk(2)
        upper, lower = (predict(self.parametrisation, half, x, time) for half in (under, without))
        return replace(Prediction(upper.x0, upper.x1, upper, lower).guided(self.guidance_scale), rows=2 * rows)


def _described(output: object) -> str:
    """What a network returned in place of a tensor."""
    kind = type(output).__name__
    return f"a {kind} of {len(output)}" if isinstance(output, tuple | list | dict) else f"a {kind}"


def network_dtype(denoiser: Denoiser) -> torch.dtype | None:
    """The dtype that a network runs in, where the denoiser says so."""
    while isinstance(inner := getattr(denoiser, "inner", None), Denoiser):
        denoiser = inner
    for holder in (denoiser, getattr(denoiser, "model", None)):
        dtype = getattr(holder, "dtype", None)
        if isinstance(dtype, torch.dtype):
            return dtype
    network = getattr(denoiser, "network", None)
    parameter = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
    return None if parameter is None else parameter.dtype


def not_finite(what: str, dtype: torch.dtype | None) -> str:
    """One sentence on numbers that are not: what holds them, and the likely cause.

    Args:
        what: "The network's prediction", say.
        dtype: of what was run, or None.
    """
    if dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        return (
            f"{what} holds NaN or infinity, and half precision ({name}) is the likely cause; "
            "load the model with torch_dtype=torch.float32."
        )
    return (
        f"{what} holds NaN or infinity though what it was given is finite; half precision inside it or damaged weights "
        "are the likely causes, so run it in float32 and check the weights."
    )


def condition_rows(condition: Tensor, rows: int) -> Tensor:
    """A condition of one row or of one per sample, brought to `rows` rows, those of a sample next to each other.

    Raises:
        ValueError: for another number of rows.
    """
    if rows % len(condition):
        raise ValueError(f"Got {len(condition)} conditions for {rows} samples; give one or one per sample.")
    return condition.repeat_interleave(rows // len(condition), dim=0)
