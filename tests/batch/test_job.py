"""The job file: its schema, and one sentence for whatever does not fit it."""

from __future__ import annotations

import json

import pytest

from paintback.batch import Job

WHOLE = {"photo": "a.png", "mask": "b.png"}


def test_a_job_survives_json_and_gets_the_recommended_sampler():
    job = Job.from_json(json.dumps({**WHOLE, "method": "ding", "steps": 7, "outpaint": [1, 2, 3, 4], "blur": 1.5}))
    assert Job.from_json(json.dumps(job.to_settings())) == job == Job.from_settings(job.to_settings())
    assert job.outpaint == (1, 2, 3, 4)
    own = Job.from_json({**WHOLE, "model": "photo"})
    assert (own.method, own.fields, own.steps) == ("fmm", {}, 16)


def test_the_schema_is_json_and_says_the_same_as_the_validation():
    import jsonschema

    schema = json.loads(json.dumps(Job.schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert set(schema["properties"]) == set(Job.__dataclass_fields__)
    assert validator.is_valid(Job.from_json(WHOLE).to_settings())
    for bad, _ in BAD:
        if isinstance(bad, dict) and "fields" not in bad and bad.get("mask", 1):
            assert not validator.is_valid({**WHOLE, **bad}), bad


BAD = [
    ({"steps": 0}, "steps must be at least 1; got 0."),
    ({"steps": 2.5}, "steps must be a whole number or nothing; got 2.5."),
    ({"steps": True}, "steps must be a whole number or nothing"),
    ({"seed": -1}, "seed must be at least 0"),
    ({"seed": 2**63}, "seed must be at most"),
    ({"photo": ""}, "photo is empty"),
    ({"photo": 3}, "photo must be a text; got 3."),
    ({"blur": -1}, "blur must be at least 0"),
    ({"dtype": "float8"}, "dtype must be one of float32"),
    ({"outpaint": [1, 2]}, "outpaint takes 4 values; got 2."),
    ({"outpaint": [1, 2, 3, -4]}, "outpaint must be at least 0"),
    ({"promt": "a cat"}, "no 'promt'"),
    ({"method": "magic"}, "magic"),
    ({"fields": {"magic": 1}, "method": "ding"}, "magic"),
    ({"mask": None}, "neither a mask nor outpaint"),
]


@pytest.mark.parametrize(("bad", "says"), BAD, ids=[str(bad) for bad, _ in BAD])
def test_what_does_not_fit_is_one_sentence(bad, says):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is looked at below
        Job.from_json({**WHOLE, **bad})
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("text", "says"), [("{", "not JSON"), ("[1]", "JSON list"), ("{}", "names no photo")])
def test_what_is_no_job_at_all(text, says):
    with pytest.raises(ValueError, match=says):
        Job.from_json(text)
