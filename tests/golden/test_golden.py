"""Paintback on recorded noise against what the authors' and peers' code made of it: 59 cases, told in README.md.

A case that names a variant (see `variants.py`) is run twice: with the variant the numbers must be equal, and without it
they must differ, since a difference that is gone must leave README.md as well.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from paintback import methods
from tests.golden.runs import CASES, Case, is_equal, run
from tests.golden.variants import VARIANTS, Net


def test_all_cases_are_here():
    assert len(CASES) == 59
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


def test_the_page_of_differences_names_them_all():
    """Every method that was recorded and every variant, and as many runs as there are."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "methods" / "equal.md").read_text(encoding="utf-8")
    recorded = {Case.read(path).meta["method"] for path in CASES}
    assert f"{len(CASES)} runs of {len(recorded)} methods" in page
    compared, _, differences = page.partition("## What differs")
    assert set(re.findall(r"\[`(\w+)`\]", compared)) == recorded
    assert set(re.findall(r"\(`(\w+)`\)", differences)) == set(VARIANTS)
    counts = [int(row.split("|")[3]) for row in compared.splitlines() if row.startswith("| [`")]
    assert sum(counts) == len(CASES)
