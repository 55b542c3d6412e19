"""The fields of a method: what the command line and the page need to offer them, and the check of their values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import Field, field
from typing import Any

__all__ = ["check", "option"]


def option(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: Sequence[str] = ()
) -> Any:
    """A field of a method, with what the command line and the page need to offer it.

    Args:
        default: the paper's value; its type is the field's.
        help: one line.
        low: smallest valid number.
        high: largest valid number.
        choices: valid strings.
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": tuple(choices)})


def check(name: str, entry: Field[Any], value: Any) -> None:
    """Refuses a field's value of the wrong type or out of its range.

    Args:
        name: of the method, for the message.
        entry: the field, made by `option`.
        value: to be checked.

    Raises:
        ValueError: in one sentence that says what is valid.
    """
    default, meta = entry.default, entry.metadata
    choices = meta.get("choices", ())
    if choices:
        if value not in choices and value != default and not (value is None and entry.name == "coordinates"):
            raise ValueError(f"{name}: {entry.name} must be one of {', '.join(choices)}; got {value!r}.")
        return
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{name}: {entry.name} must be true or false; got {value!r}.")
        return
    if not isinstance(default, int | float):
        return
    number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not number or (isinstance(default, int) and value != int(value)):
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ValueError(f"{name}: {entry.name} must be {kind}; got {value!r}.")
    low, high = meta.get("low"), meta.get("high")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = (
            f"between {low} and {high}"
            if None not in (low, high)
            else f"at least {low}"
            if high is None
            else f"at most {high}"
        )
        raise ValueError(f"{name}: {entry.name} must be {bounds}; got {value!r}.")
