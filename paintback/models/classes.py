"""Class labels, which the research models take in place of a text: "class 207", "207" or 207."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ClassCondition", "class_condition", "class_label"]


class ClassCondition(NamedTuple):
    """What `NetworkDenoiser` is given for a class.

    Attributes:
        condition: (1, classes) one-hot row, or None for a model without classes.
        unconditional: (1, classes) zeros where guidance needs them, or None.
        guidance_scale: 1 without guidance.
    """

    condition: Tensor | None
    unconditional: Tensor | None
    guidance_scale: float


def class_label(prompt: str | int, classes: int, model: str) -> int:
    """The number of a class.

    >>> class_label("class 207", 1000, "adm")
    207

    Args:
        prompt: "class 207", "207" or 207.
        classes: how many there are.
        model: its name, for messages.

    Raises:
        ValueError: if it is no such number.
    """
    found = re.fullmatch(r"\s*(?:class\s*)?(\d+)\s*", str(prompt), re.IGNORECASE)
    if found is None:
        raise ValueError(
            f'The model {model!r} reads no text but the number of a class, such as prompt="class 207"; got {prompt!r}.'
        )
    label = int(found[1])
    if label >= classes:
        raise ValueError(f"The model {model!r} knows the classes 0 to {classes - 1}; got {label}.")
    return label


def class_condition(
    model: str,
    classes: int,
    prompt: str | int | None,
    negative_prompt: str | None,
    guidance_scale: float | None,
    *,
    droppable: bool = False,
) -> ClassCondition:
    """The condition of a model with or without classes, after what a user asked for.

    Args:
        model: its name, for messages.
        classes: how many it knows; 0 for none.
        prompt: see `class_label`.
        negative_prompt: must be empty; no such model takes one.
        guidance_scale: of classifier-free guidance; None or 1 for none.
        droppable: whether the model was trained with labels left out, so that guidance can be done.

    Raises:
        ValueError: for a prompt or a guidance that the model cannot follow, or a class that is missing.
    """
    if negative_prompt:
        raise ValueError(f"The model {model!r} takes no negative_prompt; leave it out.")
    scale = 1.0 if guidance_scale is None else float(guidance_scale)
    if not classes:
        if prompt not in (None, ""):
            raise ValueError(f"The model {model!r} takes no prompt, as it knows no classes; leave it out.")
        if scale != 1:
            raise ValueError(f"The model {model!r} has no guidance, as it knows no classes; leave guidance_scale out.")
        return ClassCondition(None, None, 1.0)
    if scale != 1 and not droppable:
        raise ValueError(
            f"The model {model!r} was never trained without a class, so it has no classifier-free guidance; "
            "leave guidance_scale out."
        )
    nothing = torch.zeros(1, classes)
    if prompt in (None, ""):
        if droppable:
            return ClassCondition(nothing, None, 1.0)
        raise ValueError(
            f'The model {model!r} paints one of {classes} classes; say which one, such as prompt="class 207".'
        )
    assert prompt is not None
    one = nothing.clone()
    one[0, class_label(prompt, classes, model)] = 1
    return ClassCondition(one, nothing if scale != 1 else None, scale)
