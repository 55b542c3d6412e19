"""What a budget pays for, and who paints how much of a suite."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from paintback import methods
from paintback.bench.cases import case
from paintback.bench.guidance import with_guidance
from paintback.bench.pictures.cases import make_cases
from paintback.bench.pictures.cell import Cell, cost_within, parts_of, read_rows, write_rows
from paintback.bench.pictures.runner import cells_of
from paintback.bench.pictures.suite import Suite
from paintback.bench.pictures.worker import open_model, paint_cases, wanted
from paintback.models.catalogue import TRAINED
from paintback.painting import pyramid
from paintback.schedules import VP
from tests.bench.pictures.conftest import suite_values


@dataclass(frozen=True)
class Made:
    """A method's documented cost."""

    name: str = "made"
    each: int = 2
    gradients: int = 1

    def evaluations(self, steps):
        return self.each * steps - 1

    def vjps(self, steps):
        return self.gradients * steps


@pytest.mark.parametrize(
    ("made", "budget", "steps"),
    [
        (Made(), 50, 17),  # 2 N - 1 + N <= 50
        (Made(), 5, 2),
        (Made(gradients=0), 50, 25),
        (Made(each=1, gradients=1), 50, 25),
        (Made(each=1, gradients=0), 50, 50),  # more steps than the budget are never tried
    ],
)
def test_gradients_are_paid_for(made, budget, steps):
    assert cost_within(made, budget) == steps


def test_a_budget_below_one_step_is_refused():
    with pytest.raises(ValueError, match="One step of made costs 8 evaluations, more than the budget of 7"):
        cost_within(Made(each=5, gradients=4), 7)
    made = {"a": Made(each=5, gradients=4), "b": Made()}
    cells, refused = cells_of(made, 7, None, {"a": {}, "b": {"x": 1}})
    assert [(cell.label, cell.steps, cell.fields) for cell in cells] == [("b", 2, {"x": 1})]
    assert [(one.cell.label, one.cell.steps) for one in refused] == [("a", None)]
    assert "more than the budget of 7" in refused[0].error
    (free,), _ = cells_of({TRAINED: None}, 7, None, {})
    assert (free.method, free.steps) == (TRAINED, 7)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_keeps_to_its_budget(name):
    """What a run costs, counted, against what was planned; one step more would cost too much."""
    at, budget = case("A"), 50
    method = with_guidance(methods.get(name), at)
    steps = cost_within(method, budget)
    denoiser = at.prior.denoiser(VP(), shape=at.shape)
    generator = torch.Generator().manual_seed(0)
    spent = method.sample(denoiser, at.observation, num_inference_steps=steps, generator=generator)
    assert 0.6 * budget <= spent.evaluations + spent.vjps <= budget
    assert method.evaluations(steps + 1) + method.vjps(steps + 1) > budget


def test_gradient_methods_paint_fewer(idx):
    shown = Suite.from_dict(suite_values(), "small")
    first, further = make_cases(shown, idx)
    for name, kind in methods.types().items():
        mine = {one.number for one in wanted(shown, Cell(name, name), first)}
        assert mine == ({0, 1} if kind.needs_vjp else {0, 1, 2, 3})
    assert {one.number for one in wanted(shown, Cell(TRAINED, TRAINED), first)} == {0, 1, 2, 3}
    by_fields = Cell("fcs:difference=transpose", "fcs", {"difference": "transpose"})  # gradients by one of its fields
    assert {one.number for one in wanted(shown, by_fields, first)} == {0, 1}
    assert len(wanted(shown, Cell("dps", "dps"), further)) == 2
    every = Suite.from_dict(suite_values(gradient_pictures=None), "small")
    assert wanted(every, Cell("dps", "dps"), first) == first


def test_parts_hold_one_mask_and_a_batch(idx):
    first, _ = make_cases(Suite.from_dict(suite_values(), "small"), idx)
    parts = parts_of(first, 3)
    assert [len(part) for part in parts] == [3, 1, 3, 1]
    assert all(len({one.mask for one in part}) == 1 for part in parts)
    assert [one for part in parts for one in part] == first


def test_cells_lie_apart(tmp_path):
    cells = [
        Cell("ding", "ding", {}, 50),
        Cell("ding", "ding", {}, 20),
        Cell("ding", "ding", {}, None, 50.0),
        Cell("ding:eta=sqrt", "ding", {"eta": "sqrt"}, 50),
        Cell("ding:ETA=sqrt", "ding", {"eta": "sqrt"}, 50),
    ]
    assert len({cell.folder(tmp_path) for cell in cells}) == len(cells)
    # results of before are found again: this name may never change
    assert cells[0].folder(tmp_path) == tmp_path / "cells" / "ding-50-d45eb5f7"
    assert Cell(**cells[3].to_dict()) == cells[3]
    rows = [{"a": 1, "png": b"x"}, {"a": 2, "png": b"y"}]
    write_rows(rows, tmp_path / "new" / "rows.parquet")
    assert read_rows(tmp_path / "new" / "rows.parquet") == rows
    assert read_rows(tmp_path / "new" / "rows.parquet", ["a"]) == [{"a": 1}, {"a": 2}]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["rows.parquet"]


def test_a_models_own_method_spends_its_whole_budget_from_noise_on_the_network(idx, monkeypatch):
    """As every other does: `photo` by itself starts it from a smooth fill, in half of the steps, and adds patches."""
    monkeypatch.setattr(pyramid, "with_own_patches", None)  # whoever calls it fails
    inpainter = open_model("photo", None, None)
    own = inpainter.model.sampler
    shown = Suite.from_dict(suite_values(), "small")
    cell = Cell(own.method, own.method, dict(own.fields), 4, None, 4)
    (row,) = paint_cases(inpainter, shown, cell, make_cases(shown, idx)[0][:1], 1, 4)
    assert row["evaluations"] == methods.get(own.method, **own.fields).evaluations(4)
