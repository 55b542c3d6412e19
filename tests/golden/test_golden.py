"""Paintback on recorded noise against what the authors' and peers' code made of it: 53 cases, told in README.md.

A case that names a variant (see `variants.py`) is run twice: with the variant the numbers must be equal, and without it
they must differ, since a difference that is gone must leave README.md as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paintback import methods
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
    net: Net
    draws_left: int


def run(case: Case, method: Method, monkeypatch: pytest.MonkeyPatch) -> Ours:
    """Runs a method on the case's draws; where the case has none, every draw is 0."""
    left, states, net = list(case.tape), [], Net(case.schedule)

    def normal(self: Generators, like: Tensor) -> Tensor:
        if not case.tape:
            return torch.zeros_like(like)
        draw = left.pop(0)
        assert draw.shape == like.shape
        return draw.to(like)

    monkeypatch.setattr(Generators, "normal", normal)
    times = case.given["grid"][:, 0]
    result = method.sample(
        net,
        Observation(case.given["y"], case.known, case.sigma),
        num_inference_steps=len(times) - 1,
        grid=times,
        generator=torch.Generator(),
        callback=lambda step, t, x, x0: states.append(x.clone()),
        initial=case.given.get("initial"),
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
        return looks(case, ours.net) == given["looks"].tolist()
    states = ours.net.inputs if case.meta["compare"] == "inputs" else ours.states
    assert 0 < len(given["states"]) <= len(states)
    compared = hole if case.meta["region"] == "hole" else everywhere
    apart = [largest(a, b, compared) for a, b in zip(states, given["states"], strict=False)]
    final = given.get("final_before_pull", given.get("final"))
    if final is not None:  # known entries are pasted where y is exact
        apart.append(largest(ours.result.x, final, everywhere if case.sigma else hole))
    return max(apart) <= case.meta["tolerance"]


def test_all_cases_are_here():
    assert len(CASES) == 53
    assert {Case.read(path).meta["note_class"] for path in CASES} - {"", None} == set(VARIANTS)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_equal_to_the_recorded_run(path: Path, monkeypatch: pytest.MonkeyPatch):
    case = Case.read(path)
    laws = case.method()._in_own_coordinates(Net(case.schedule)).schedule
    here = [laws.at(float(t)) for t in case.given["grid"][:, 0]]
    alphas_and_sigmas = torch.tensor([[time.t, time.alpha, time.sigma] for time in here], dtype=torch.float64)
    assert (alphas_and_sigmas - case.given["grid"]).abs().max() < 1e-12
    variant = case.meta["note_class"]
    for kind in filter(None, ("plain", variant)):
        ours = run(case, case.method("" if kind == "plain" else kind), monkeypatch)
        assert ours.result.evaluations == case.meta["evaluations_paintback"]
        assert ours.draws_left == 0
        assert is_equal(case, ours) == (kind != "plain" or not variant)


def test_a_thousandth_of_a_field_is_noticed(monkeypatch: pytest.MonkeyPatch):
    """The comparison can fail: DING's softness is changed by one part in a thousand, and then two draws swapped."""
    case = Case.read(Path(__file__).with_name("cases") / "ding-square.npz")
    assert not is_equal(case, run(case, methods.get("ding", eta="square", sigma_y=0.01001), monkeypatch))
    case.tape[1], case.tape[2] = case.tape[2], case.tape[1]
    assert not is_equal(case, run(case, case.method(), monkeypatch))
