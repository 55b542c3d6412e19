"""The table of families and features in docs/models/families.md is what runs; see features.py."""

from __future__ import annotations

import json

import pytest

from tests.models import features
from tests.models import tiny_pipelines as tiny


@pytest.mark.slow
@pytest.mark.parametrize("name", features.NAMES)
def test_every_cell_is_what_the_page_says(name, monkeypatch):
    tiny.small_references(monkeypatch.setattr)
    recorded = json.loads(features.DATA.read_text(encoding="utf-8"))[name]
    assert list(recorded) == list(features.FEATURES)
    pipe = tiny.build(name)
    assert {feature: features.cell(pipe, feature) for feature in features.FEATURES} == recorded
    assert recorded["a prompt"] == recorded["gradients"] == "yes"
