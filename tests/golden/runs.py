"""A recorded case, and Paintback's run on the noise that was recorded with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paintback import methods
from paintback.denoiser import Denoiser
from paintback.methods.base import Method, Result
from paintback.observation import Observation
from paintback.randomness import Generators
from paintback.schedules import EDM, VP, Flow, Schedule
from tests.golden.variants import VARIANTS, Net

CASES = sorted(Path(__file__).with_name("cases").glob("*.npz"))
SCHEDULES = {"vp": VP, "flow": Flow, "edm": EDM}


@dataclass
class Case:
    """One recorded run; README.md says what the arrays mean."""

    meta: dict[str, Any]
    tape: list[Tensor]
    sigma: float
    given: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Case:
        with np.load(path) as stored:
            arrays = dict(stored)
        meta, tape, sigma = json.loads(str(arrays.pop("meta"))), arrays.pop("tape"), float(arrays.pop("sigma"))
        given = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return cls(meta, [torch.from_numpy(part) for part in tape], sigma, given)

    @property
    def schedule(self) -> Schedule:
        fields = dict(self.meta["schedule"])
        return SCHEDULES[fields.pop("kind")](**fields)

    @property
    def known(self) -> Tensor:
        return self.given["known"].expand_as(self.given["y"])

    def method(self, variant: str = "") -> Method:
        fields = self.meta["fields"]
        return VARIANTS[variant](**fields) if variant else methods.get(self.meta["method"], **fields)


@dataclass
class Ours:
    """What Paintback made of a case."""

    states: list[Tensor]
    result: Result
    denoiser: Any
    draws_left: int


def run(
    case: Case,
    method: Method,
    monkeypatch: pytest.MonkeyPatch,
    *,
    denoiser: Denoiser | None = None,
    observation: Observation | None = None,
    initial: Tensor | None = None,
    drawn: Callable[[Tensor], Tensor] = lambda draw: draw,
) -> Ours:
    """Runs a method on the case's draws; where the case has none, every draw is 0.

    Args:
        case: grid, observation and draws.
        method: that is run.
        monkeypatch: through which the draws come in.
        denoiser: in place of the recorded one.
        observation: in place of the case's.
        initial: likewise.
        drawn: what becomes of a draw.
    """
    left, states = list(case.tape), []
    net = Net(case.schedule) if denoiser is None else denoiser

    def normal(self: Generators, like: Tensor) -> Tensor:
        if not case.tape:
            return torch.zeros_like(like)
        draw = drawn(left.pop(0))
        assert draw.shape == like.shape
        return draw.to(like)

    monkeypatch.setattr(Generators, "normal", normal)
    times = case.given["grid"][:, 0]
    result = method.sample(
        net,
        Observation(case.given["y"], case.known, case.sigma) if observation is None else observation,
        num_inference_steps=len(times) - 1,
        grid=times,
        generator=torch.Generator(),
        callback=lambda step, t, x, x0: states.append(x.clone()),
        initial=case.given.get("initial") if initial is None else initial,
    )
    return Ours(states, result, net, len(left))


def largest(ours: Tensor, theirs: Tensor, where: Tensor) -> float:
    return float((ours - theirs)[where].abs().max())


def looks(case: Case, net: Net) -> list[int]:
    """The grid point of every evaluation, 0 the noisiest."""
    times = case.given["grid"][:, 0]
    return [int((times - t).abs().argmin()) for t in net.times]


def is_equal(case: Case, ours: Ours) -> bool:
    """Whether states and result are the recorded ones, within the case's tolerance."""
    given, everywhere, hole = case.given, torch.ones_like(case.known), ~case.known
    if "looks" in given:  # only the order of the grid points that the network is asked at
        return looks(case, ours.denoiser) == given["looks"].tolist()
    states = ours.denoiser.inputs if case.meta["compare"] == "inputs" else ours.states
    assert 0 < len(given["states"]) <= len(states)
    compared = hole if case.meta["region"] == "hole" else everywhere
    apart = [largest(a, b, compared) for a, b in zip(states, given["states"], strict=False)]
    final = given.get("final")
    if final is not None:  # known entries are pasted where y is exact
        apart.append(largest(ours.result.x, final, everywhere if case.sigma else hole))
    return max(apart) <= case.meta["tolerance"]
