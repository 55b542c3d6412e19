"""The dial: what it fills in, and what it leaves alone."""

from __future__ import annotations

import dataclasses

import pytest

from paintback import methods
from paintback.models.catalogue import TRAINED, Sampler
from paintback.painting.quality import DRAWS, EVALUATIONS, THIN_DRAWS, draws, named, resolve, thin_draws
from paintback.painting.request import Request

OWN = Sampler("fmm", {"iterations": 1}, 16)


def test_good_is_the_recommended_sampler_with_all_of_its_fields():
    made = resolve(Request(), OWN)
    assert (made.method, made.steps, draws(made)) == ("fmm", 16, 1)
    assert methods.get("fmm", **made.fields) == methods.get("fmm", iterations=1)
    assert set(made.fields) == {entry.name for entry in dataclasses.fields(methods.get("fmm"))}
    assert resolve(made, Sampler("ddnm", {}, 99)) == made  # what a PNG carries means what it meant


@pytest.mark.parametrize("name", ["fmm", "ding", "ddnm", "replacement", "mmps"])
def test_fast_is_at_most_ten_evaluations(name):
    made = resolve(Request(quality="fast"), Sampler(name, {}, 25))
    method = methods.get(name, **made.fields)
    assert method.evaluations(made.steps) <= EVALUATIONS < method.evaluations(made.steps + 1)


def test_best_draws_more_and_samples_by_hand_beat_it():
    best = Request(quality="best")
    assert resolve(best, OWN).steps == 16
    assert draws(resolve(best, OWN)) == DRAWS
    assert draws(best.with_(samples=3)) == 1
    assert draws(best.with_(average=2)) == 2
    assert draws(Request(average=4)) == 4


def test_good_averages_in_thin_holes_and_average_by_hand_beats_it():
    assert thin_draws(Request()) == thin_draws(Request(samples=2)) == THIN_DRAWS > 1
    for request in (Request(quality="fast"), Request(quality="best"), Request(average=1)):
        assert thin_draws(request) == 1


@pytest.mark.parametrize("quality", ["fast", "good", "best"])
def test_an_explicit_method_and_steps_beat_it(quality):
    made = resolve(Request(quality=quality, method="ding", steps=30), OWN)
    assert (made.method, made.steps) == ("ding", 30)
    assert methods.get("ding", **made.fields) == methods.get("ding")
    assert resolve(Request(quality=quality, method="fmm"), OWN).fields["iterations"] == methods.get("fmm").iterations


def test_a_trained_model_keeps_its_own_steps_and_has_no_fields():
    made = resolve(Request(), Sampler(TRAINED))
    assert (made.method, made.steps, made.fields) == (TRAINED, None, {})
    assert resolve(Request(quality="fast"), Sampler(TRAINED)).steps == EVALUATIONS
    with pytest.raises(ValueError, match="no fields"):
        resolve(Request(fields={"eta": 1}), Sampler(TRAINED))


def test_thin_holes_have_a_method_of_their_own() -> None:
    own = Sampler("ding", {"delayed": True}, 9, thin="ddnm:eta=1.0")
    made = resolve(Request(), own)
    assert (made.method, made.thin_method) == ("ding", "ddnm:eta=1.0")
    assert resolve(made, Sampler()) == made
    assert resolve(Request(method="fmm"), own).thin_method is None
    assert resolve(Request(thin_method="mmps"), own).thin_method == "mmps"
    assert named("ding:delayed=true:eta=sqrt") == methods.get("ding", delayed=True, eta="sqrt")
    for text, match in (("nope", "nope"), ("ddnm:eta", "NAME:FIELD=VALUE"), ("ddnm:et=1", "et")):
        with pytest.raises(ValueError, match=match):
            resolve(Request(thin_method=text), own)
