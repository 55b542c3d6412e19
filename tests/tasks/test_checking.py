"""`pb.check`: it passes where a model is right, fails where it is not, and says what it found."""

from __future__ import annotations

import json

import numpy as np
import pytest

import paintback as pb
from paintback.models.diffusers.sd3 import StableDiffusion3
from tests.models import tiny_pipelines as tiny


@pytest.fixture(scope="module")
def pipe():
    return tiny.build("sd3")


def look(pipe, **more):
    return pb.check(pipe, num_inference_steps=2, size=64, names=("ding",), **more)


def test_a_pipeline_that_is_right_passes(pipe):
    report = look(pipe)
    assert report.passed, str(report)
    assert {one.name: one.passed for one in report.checks} == {
        "equals the pipeline": True,
        "evaluations counted": True,
        "known pixels exact": True,
        "methods run": True,
    }
    (ding,) = report.painted
    assert (ding.evaluations, ding.calls, ding.known_exact, ding.error) == (3, 3, True, None)
    assert ding.milliseconds > 0
    assert report.pipeline["milliseconds"] > 0
    assert report.about["class"] == "StableDiffusion3Pipeline"
    assert [np.asarray(picture.pixels).shape for picture in report.pictures] == [(64, 64, 3)] * 2
    assert json.loads(json.dumps(report.to_dict()))["passed"]
    assert "ok        equals the pipeline" in str(report)


def test_one_that_is_not_fails(pipe, monkeypatch):
    own = StableDiffusion3.run
    monkeypatch.setattr(StableDiffusion3, "run", lambda *given: 1.2 * own(*given))
    report = look(pipe)
    assert not report.passed
    assert "WRONG     equals the pipeline" in str(report)


def test_a_method_that_fails_is_said(pipe, monkeypatch):
    from paintback.methods.ding import Ding

    def fail(*given):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Ding, "step", fail)
    report = look(pipe)
    assert not report.passed
    assert "ding: RuntimeError: no such kernel" in str(report)


def test_models_without_a_pipeline_are_checked_by_their_methods():
    report = pb.check("photo", num_inference_steps=2, size=32, names=("ding",), device="cpu")
    assert report.passed
    assert next(one for one in report.checks if one.name == "equals the pipeline").passed is None
