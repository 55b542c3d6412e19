"""The request: strict, one sentence for whatever does not fit, read again as it was written, and offered as data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field

from paintback.painting.request import Ask, LayersRequest, Request, SuperresRequest, options

WHOLE = {"photo": "a.png", "mask": "b.png"}


@pytest.mark.parametrize("kind", [Request, SuperresRequest, LayersRequest])
def test_what_is_written_is_read_again(kind):
    request = kind.parse({"photo": "a.png", "seed": 2**62, "fields": {"eta": 0.1}, "guidance": 0.1})
    settings = json.loads(json.dumps(request.to_settings()))
    assert kind.from_settings(settings) == request
    assert kind.from_settings({**settings, "batch": 3}) == request  # entries of other versions are left alone
    assert kind.parse(json.dumps(settings)) == request
    assert "prompt_embeds" not in settings


def test_settings_of_earlier_versions_are_read():
    old = {
        "photo": "in.png", "mask": "alpha", "model": "photo", "method": "ding", "fields": {"eta": "square"},
        "steps": 25, "seed": 3, "prompt": None, "negative_prompt": None, "guidance": None, "grow": 0, "blur": 2.5,
        "outpaint": [0, 8, 0, 0], "height": None, "width": None, "device": "cpu", "dtype": None, "threads": 1,
        "sha256": {"photo": "00"}, "versions": {"paintback": "0.1.0"},
    }  # fmt: skip
    request = Request.from_settings(old)
    assert {name: request.to_settings()[name] for name in old} == old
    with pytest.raises(ValueError, match="incomplete"):
        Request.from_settings({**old, "photo": None})


def test_the_schema_is_json_and_says_the_same_as_the_validation():
    import jsonschema

    schema = json.loads(json.dumps(Request.model_json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(Request.parse(WHOLE).to_settings())
    assert not validator.is_valid({"mask": "b.png"})
    for bad, _ in BAD:
        if not any(isinstance(value, float) and value != value for value in bad.values()):  # JSON has no NaN
            assert not validator.is_valid({**WHOLE, **bad}), bad


BAD = [
    ({"steps": 0}, "steps must be at least 1; got 0."),
    ({"steps": 2.5}, "steps must be a whole number or nothing; got 2.5."),
    ({"steps": True}, "steps must be a whole number or nothing"),
    ({"steps": "3"}, "steps must be a whole number or nothing; got '3'."),
    ({"seed": -2}, "seed must be at least -1"),
    ({"seed": 2**63}, "seed must be at most"),
    ({"photo": ""}, "photo is empty"),
    ({"photo": 3}, "photo must be a text"),
    ({"blur": -1}, "blur must be at least 0; got -1."),
    ({"blur": float("nan")}, "blur must be a finite number; got nan."),
    ({"strength": 0}, "strength must be above 0; got 0."),
    ({"dtype": "float8"}, "dtype must be one of float32, bfloat16, float16; got 'float8'."),
    ({"quality": "better"}, "quality must be one of fast, good, best; got 'better'."),
    ({"mask_is": "blue"}, "colour=#RRGGBB"),
    ({"outpaint": [1, 2]}, "outpaint takes 4 values; got 2."),
    ({"outpaint": [1, 2, 3, -4]}, "outpaint must be at least 0; got -4."),
    ({"outpaint": [1, 2, 3, "4"]}, "outpaint must be a whole number; got '4'."),
    ({"promt": "a cat"}, "no 'promt'; did you mean 'prompt'?"),
    ({"magic": 1}, "no 'magic'; its entries: photo, mask"),
    ({"fields": 1}, "fields must be an object; got 1."),
    ({"leaky_encoding": 1}, "leaky_encoding must be true or false; got 1."),
]


@pytest.mark.parametrize(("bad", "says"), BAD, ids=[str(bad) for bad, _ in BAD])
def test_what_does_not_fit_is_one_sentence(bad, says):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is looked at below
        Request.parse({**WHOLE, **bad})
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError) as again:  # noqa: PT011
        Request.parse(WHOLE).with_(**bad)
    assert str(again.value) == str(raised.value)


@pytest.mark.parametrize(("text", "says"), [("{", "not JSON"), ("[1]", "JSON list")])
def test_what_is_no_request_at_all(text, says):
    with pytest.raises(ValueError, match=says):
        Request.parse(text)


def test_what_names_nothing_to_do_is_refused():
    for data, says in (({}, "names no photo"), ({"photo": "a.png"}, "neither a mask nor outpaint")):
        with pytest.raises(ValueError, match=says):
            Request.parse(data).check_files()
    Request.parse({"photo": "a.png", "outpaint": [0, 0, 0, 8]}).check_files()


def test_numbers_of_numpy_whole_floats_and_paths_are_taken():
    request = Request.parse(
        {
            "photo": Path("a.png"),
            "steps": np.int64(5),
            "blur": np.float32(2),
            "samples": 3.0,
            "outpaint": [1, 2.0, 3, 4],
        }
    )
    assert (request.photo, request.steps, request.blur, request.samples) == ("a.png", 5, 2.0, 3)
    assert type(request.steps) is type(request.samples) is type(request.outpaint[1]) is int
    assert Request.parse({"photo": "a", "seed": -1}).seed is None


def test_options_are_what_the_fields_say():
    by_name = {option.name: option for option in options(Request)}
    assert list(by_name) == list(Request.model_fields)
    steps, sides, quality = by_name["steps"], by_name["outpaint"], by_name["quality"]
    assert (steps.kind, steps.low, steps.nullable, steps.flag, steps.python) == (
        "int", 1, True, "--steps", "num_inference_steps",
    )  # fmt: skip
    assert (sides.kind, sides.metavar, sides.default) == ("sides", "L,T,R,B", (0, 0, 0, 0))
    assert (quality.kind, quality.choices, quality.nullable) == ("choice", ("fast", "good", "best"), False)
    assert by_name["strength"].above == 0
    assert by_name["leaky_encoding"].kind == "flag"
    assert all(option.help.endswith(".") for option in options(Request))
    assert not {"record"} & {option.group for option in options(Request) if "cli" in option.where}
    assert len({option.flag for option in options(Request)}) == len(by_name)


def test_a_new_entry_is_offered_by_its_one_line():
    class Warmer(Request):
        warmth: Annotated[float, Field(ge=0, le=1, description="How warm the colours are."), Ask()] = 0.5

    (option,) = [one for one in options(Warmer) if one.name == "warmth"]
    assert (option.flag, option.kind, option.low, option.high, option.default) == ("--warmth", "float", 0, 1, 0.5)
    assert option.where == {"python", "cli", "manifest", "http"}
    assert Warmer.model_json_schema()["properties"]["warmth"]["maximum"] == 1
    assert Warmer.parse({**WHOLE, "warmth": 1}).to_settings()["warmth"] == 1
    with pytest.raises(ValueError, match="warmth must be at most 1; got 2"):
        Warmer.parse({**WHOLE, "warmth": 2})


def test_no_torch_is_imported():
    code = "import sys, paintback.painting.request; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
