"""A method's fields on the command line: `--set name=value`, and the list of what there is to set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paintback.methods.base import Method

__all__ = ["describe", "parse"]

TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})


def parse(kind: type[Method], pairs: Sequence[str]) -> dict[str, Any]:
    """Reads `name=value` texts by the types of a method's fields.

    Args:
        kind: the method.
        pairs: the texts; the last of a name counts.

    Returns:
        Values by field name; `Method` itself checks their ranges.

    Raises:
        ValueError: for a text without "=", an unknown name, or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ValueError(f"--set takes name=value; got {pair!r}.")
        if name not in fields:
            raise ValueError(f"{kind.name} has no field {name!r}; its fields: {', '.join(fields)}.")
        values[name] = _value(kind.name, fields[name], text.strip())
    return values


def _value(method: str, field: dataclasses.Field[Any], text: str) -> Any:
    default, choices = field.default, field.metadata.get("choices", ())
    if choices:
        return None if default is None and text.lower() == "none" else text
    if isinstance(default, bool):
        if text.lower() in TRUE | FALSE:
            return text.lower() in TRUE
        raise ValueError(f"{method}: {field.name} must be true or false; got {text!r}.")
    if default is None and text.lower() == "none":
        return None
    number = int if isinstance(default, int) else float
    if isinstance(default, int | float):
        try:
            return number(text)
        except ValueError:
            expected = "a whole number" if number is int else "a number"
            raise ValueError(f"{method}: {field.name} must be {expected}; got {text!r}.") from None
    if isinstance(default, str):
        return text
    return _unknown(text)


def _unknown(text: str) -> Any:
    """A field whose default does not tell its type: a number where it looks like one, else the text."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def describe(kind: type[Method]) -> list[dict[str, Any]]:
    """A method's fields with name, type, default, range and help, as plain JSON values."""
    rows = []
    for field in dataclasses.fields(kind):
        meta = field.metadata
        choices = list(meta.get("choices", ()))
        rows.append(
            {
                "name": field.name,
                "type": "choice" if choices else "any" if field.default is None else type(field.default).__name__,
                "default": field.default,
                "low": meta.get("low"),
                "high": meta.get("high"),
                "choices": choices,
                "help": meta.get("help", ""),
            }
        )
    return rows
