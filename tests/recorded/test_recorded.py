"""Seeded runs through every entry point give what was recorded; `record.py` compares their bytes as well."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.recorded import runs
from tests.recorded.record import RECORDED, describe, difference, measure

ENTRIES = json.loads(RECORDED.read_text())


def test_every_run_is_recorded():
    assert list(ENTRIES) == list(runs.RUNS) and len(ENTRIES) > 60
    hashes = [entry["sha256"] for entry in ENTRIES.values()]
    assert len(set(hashes)) == len(hashes) - 1  # the card's own method is DING
    assert ENTRIES["the-card's-own-method"] == ENTRIES["tiny-ding"]


@pytest.mark.parametrize("name", ENTRIES)
def test_as_recorded(name):
    assert not difference(ENTRIES[name], measure(name))


@pytest.mark.parametrize(
    "changed",
    [
        {"generator": runs.generator(1)},
        {"num_inference_steps": 5},
        {"mask": np.roll(runs.hole(), 1, axis=0)},
        {"prompt": "red"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_result_is_noticed(changed):
    assert difference(ENTRIES["tiny-ding"], describe(runs.paint(runs.tiny(), **changed)))
