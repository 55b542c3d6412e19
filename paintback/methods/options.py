"""The fields of a method: what the command line and the page need to offer them, and the one check of their values."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import Field, field
from typing import Any

__all__ = ["check", "option"]


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    kind: type | None = None,
) -> Any:
    """A field of a method, with what the command line and the page need to offer it.

    Args:
        default: the paper's value; its type is the field's.
        help: one line.
        low: smallest valid number.
        high: largest valid number.
        choices: valid strings.
        kind: bool, int or float, where the default is None and does not tell.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": tuple(choices), "kind": kind}
    return field(default=default, metadata=metadata)


def check(name: str, entry: Field[Any], value: Any) -> Any:
    """A field's value as a plain Python one: whole floats are integers, numpy's and torch's scalars are numbers.

    Args:
        name: of the method, for the message.
        entry: the field, made by `option`.
        value: to be checked.

    Returns:
        The value; of the default's type where that is bool, int or float.

    Raises:
        ValueError: for a value of another kind, out of its range, NaN or infinite; one sentence says what is valid.
    """
    default, meta = entry.default, entry.metadata
    choices = meta.get("choices", ())
    if choices:
        if value not in choices and value != default and not (value is None and entry.name == "coordinates"):
            raise ValueError(f"{name}: {entry.name} must be one of {', '.join(choices)}; got {value!r}.")
        return value
    kind = meta.get("kind") or type(default)
    if kind not in (bool, int, float) or (value is None and default is None):
        return value
    plain = _scalar(value)
    if kind is bool:
        if not isinstance(plain, bool):
            raise ValueError(f"{name}: {entry.name} must be true or false; got {value!r}.")
        return plain
    number = type(plain) is not bool and isinstance(plain, numbers.Real) and math.isfinite(plain)
    if not number or (kind is int and plain != int(plain)):
        wanted = ("a whole number" if kind is int else "a number") + (" or none" if default is None else "")
        raise ValueError(f"{name}: {entry.name} must be {wanted}; got {value!r}.")
    plain = kind(plain)
    low, high = meta.get("low"), meta.get("high")
    if (low is not None and plain < low) or (high is not None and plain > high):
        bounds = (
            f"between {low} and {high}"
            if None not in (low, high)
            else f"at least {low}"
            if high is None
            else f"at most {high}"
        )
        raise ValueError(f"{name}: {entry.name} must be {bounds}; got {value!r}.")
    return plain


def _scalar(value: Any) -> Any:
    """A numpy or torch value of one entry as what Python has for it; anything else as it is."""
    single = hasattr(value, "item") and getattr(value, "ndim", None) == 0
    return value.item() if single else value
