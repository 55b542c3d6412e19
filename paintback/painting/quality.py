"""The one dial: what `quality` makes of a request, given what the model is sampled with best.

good   the sampler that the model's card recommends, as its page measured it, with its own method for thin holes, which
       are answered by the mean of four of its runs: there the posterior is nearly Gaussian and its mean better. Models
       with such a method start wide holes too from a smooth fill, noised more, and paint them with the picture's own
       patches beside their network (`models.own_picture.MixedDenoiser`).
fast   the same sampler with as many steps as ten evaluations allow, which models that learnt from crops start from a
       smooth fill; of a step-distilled model its own steps, one look at each.
best   the sampler of good, eight draws for each answer: their mean where the hole is thin, elsewhere the draw nearest
       to their mean.

Whatever the request says itself (`method`, `steps`, `samples`, `average`) is left as it is.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from paintback.models.catalogue import TRAINED, Sampler
from paintback.painting.request import Request

if TYPE_CHECKING:
    from paintback.methods.base import Method

__all__ = [
    "DRAWS",
    "EVALUATIONS",
    "THIN_DRAWS",
    "draws",
    "intervals",
    "named",
    "parsed",
    "resolve",
    "starts_filled",
    "thin_draws",
]

EVALUATIONS = 10  # of fast, at most, where the method's single step costs no more
DRAWS = 8  # of best
THIN_DRAWS = 4  # of good, in thin holes


def resolve(request: Request, sampler: Sampler) -> Request:
    """The request with its method, all of the method's fields and its steps filled in.

    A request that was resolved before comes back as it is, so that a PNG's settings mean what they meant.

    Args:
        request: with or without a method and steps.
        sampler: what the model is sampled with best: `Model.sampler`, or `models.catalogue.recommended` before the
            model is loaded.

    Raises:
        ValueError: if there is no such method or field.
    """
    name = request.method or sampler.method
    own = sampler if request.method is None else Sampler(name)
    if name == TRAINED:
        if request.fields:
            raise ValueError(f"The method {TRAINED!r} has no fields; leave them out.")
        steps = EVALUATIONS if request.steps is None and request.quality == "fast" else request.steps
        return request.with_(method=TRAINED, steps=steps)  # how many steps go with it only the loaded model says
    from paintback import methods

    quick = own.fast or {} if request.quality == "fast" else {}
    method = methods.get(name, **{**own.fields, **quick, **request.fields})
    thin = request.thin_method or own.thin
    if thin is not None:
        named(thin)
    return request.with_(
        method=name,
        fields=asdict(method),
        thin_method=thin,
        steps=intervals(request, method, own.num_inference_steps),
    )


def named(text: str) -> Method:
    """The method of a text NAME[:FIELD=VALUE...].

    Raises:
        ValueError: for an unknown name or field, or a value out of range.
    """
    from paintback import methods

    name, fields = parsed(text)
    return methods.get(name, **fields)


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the fields of a text NAME[:FIELD=VALUE...].

    Raises:
        ValueError: for another text.
    """
    name, *pairs = text.split(":")
    fields: dict[str, Any] = {}
    for pair in pairs:
        field, found, value = pair.partition("=")
        if not found:
            raise ValueError(f"A method's fields are written NAME:FIELD=VALUE; got {text!r}.")
        try:
            fields[field] = json.loads(value)
        except json.JSONDecodeError:
            fields[field] = value
    return name, fields


def intervals(request: Request, method: Method, own: int) -> int:
    """The steps of a request: what it says or lists the times of, else its own, or what fast has evaluations for."""
    if request.steps is not None:
        return request.steps
    if request.listed is not None:
        return request.listed
    if request.quality == "fast":
        while own > 1 and method.evaluations(own) > EVALUATIONS:
            own -= 1
    return own


def draws(request: Request) -> int:
    """How many draws are made for each answer: what the request says, or what its quality says for a single answer."""
    if request.average is not None:
        return request.average
    return DRAWS if request.quality == "best" and request.samples == 1 else 1


def starts_filled(request: Request, sampler: Sampler) -> bool:
    """Whether a model that learnt from crops starts wide holes from a smooth fill: by its own method alone.

    At good and best it does where it has a method for thin holes too, which start so. A method of the user's, or with
    fields of the user's, starts where it always does. A model of pictures of one size knows what is in them as a whole,
    which a smooth fill tells it wrong: half a garment was worse so by every method.

    Args:
        request: that was resolved.
        sampler: what the model is sampled with best.
    """
    from paintback import methods

    if request.method != sampler.method or request.method == TRAINED:
        return False
    quick = request.quality == "fast"
    own = methods.get(sampler.method, **{**sampler.fields, **(sampler.fast or {} if quick else {})})
    return request.fields == asdict(own) and (quick or sampler.thin is not None)


def thin_draws(request: Request) -> int:
    """How many runs make a draw in thin holes that have a method of their own."""
    return THIN_DRAWS if request.quality == "good" and request.average is None else 1
