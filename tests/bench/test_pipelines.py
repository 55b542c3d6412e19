"""`paintback bench pipelines`: the released sizes, a dry run, and the clock."""

from __future__ import annotations

import json

import pytest
import torch

from paintback.bench.pipelines import FAMILIES, PARTS, measure_pipelines, network_of, page


@pytest.mark.parametrize("name", list(FAMILIES))
def test_networks_have_the_released_numbers_of_parameters(name):
    family = FAMILIES[name]
    network = network_of(family, "meta", torch.bfloat16)
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(family.millions, rel=1e-3)


def test_when_the_time_is_over_what_was_not_reached_is_said(tmp_path):
    records = measure_pipelines(tmp_path / "out.jsonl", minutes=1e-9, dry=True, names=("sd15", "flux"))
    assert records[-1]["not_reached"][:2] == ["sd15 sync", "sd15 cost"]
    assert len(records[-1]["not_reached"]) == 2 * (len(PARTS) - 1) + 1
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == records
    assert "Not reached: sd15 sync" in page(records)


@pytest.mark.parametrize(("name", "part"), [("sd35m", "papers"), ("adm256", "memory")])
def test_a_dry_run_measures(name, part):
    records = measure_pipelines(dry=True, names=(name,), parts=(part,))
    assert not any("error" in record for record in records), records
    assert records[-1]["not_reached"] == []
    assert any(record.get("part") == part for record in records)


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="There is no family 'sd9'; there are sd15"):
        measure_pipelines(names=("sd9",), dry=True)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="need CUDA; give --dry"):
            measure_pipelines()
