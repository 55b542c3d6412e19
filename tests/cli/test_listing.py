"""`methods`, `models`, `env`, and the fields that `--set` reads."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

import paintback
from paintback import methods
from paintback.cli import fields
from paintback.methods import Method, option


@dataclass(frozen=True)
class Toy(Method):
    name: ClassVar[str] = "toy"
    scale: float = option(1.0, "a scale", low=0.0)
    inner_steps: int = option(5, "a count", low=0, high=9)
    fast: bool = option(False, "a switch")
    mode: str = option("a", "a choice", choices=("a", "b"))


def test_set_reads_values_by_the_fields_types():
    got = fields.parse(Toy, ["scale=2", "inner_steps=3", "fast=yes", "mode=b", "coordinates=none"])
    assert got == {"scale": 2.0, "inner_steps": 3, "fast": True, "mode": "b", "coordinates": None}
    assert isinstance(got["scale"], float)
    assert Toy(**got).inner_steps == 3
    assert fields.parse(Toy, ["fast=yes", "fast=off"]) == {"fast": False}
    assert fields.parse(Toy, ["inner-steps = 4"]) == {"inner_steps": 4}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("scale", "name=value"),
        ("nonsense=1", "scale, inner_steps, fast, mode"),
        ("inner_steps=2.5", "whole number"),
        ("scale=much", "must be a number"),
        ("fast=maybe", "true or false"),
    ],
)
def test_set_refuses(pair, message):
    with pytest.raises(ValueError, match=message):
        fields.parse(Toy, [pair])


def test_every_method_is_described_in_json(call):
    done = call("methods", "--format", "json")
    assert done.code == 0
    assert [row["name"] for row in done.json] == methods.names()
    for row in done.json:
        assert row["title"]
        assert row["docs"]
        names = [field.name for field in dataclasses.fields(methods.types()[row["name"]])]
        assert [field["name"] for field in row["fields"]] == names
        assert all(field["help"] for field in row["fields"])


def test_every_methods_defaults_can_be_set_by_text():
    for kind in methods.types().values():
        for field in fields.describe(kind):
            text = str(field["default"]).lower() if field["type"] in ("bool", "any") else str(field["default"])
            text = "none" if field["default"] is None else text
            assert fields.parse(kind, [f"{field['name']}={text}"]) == {field["name"]: field["default"]}


def test_one_method_in_text(call):
    done = call("methods", "ding")
    assert "--set name=value" in done.out
    assert "sigma_y=0.01" in done.out
    assert "arXiv:2512.18365" in done.out


def test_models_and_env(call):
    models = call("models", "--format", "json")
    assert {row["name"] for row in models.json} >= {"photo"}
    assert all(row["size_bytes"] <= 20_000_000 for row in models.json)
    assert "photo" in call("models").out
    env = call("env", "--format", "json").json
    assert env["paintback"] == paintback.__version__
    assert env["devices"][0]["name"] == "cpu"
    assert json.dumps(env)
    assert "torch" in call("env").out
