"""The methods: one paper, one file. `names()` lists them, `get(name, **fields)` makes one."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
from functools import cache
from typing import Any

from paintback import plugins
from paintback.methods.base import Method, Result, Run, option

__all__ = ["Method", "Result", "Run", "check_type", "get", "names", "option", "shipped", "types"]


@cache
def shipped() -> dict[str, type[Method]]:
    """The methods of this package by name: every `Method` with a name that a module of this room defines."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Method) and "name" in vars(value):
                found[value.name] = value
    return dict(sorted(found.items()))


@cache
def types() -> dict[str, type[Method]]:
    """All methods by name: those of this package, of plug-ins, and those that were registered."""
    return dict(sorted((shipped() | plugins.added(plugins.METHODS, shipped(), check_type)).items()))


plugins.on_change(types.cache_clear)


def check_type(name: str, kind: object) -> None:
    """Refuses what is no method of that name; for plug-ins.

    Args:
        name: that it is to be asked for by.
        kind: a class that derives from `Method`.

    Raises:
        ValueError: in one sentence.
    """
    if not (isinstance(kind, type) and issubclass(kind, Method)) or vars(kind).get("name") != name:
        raise ValueError(
            f"The method {name!r} must be a class that derives from paintback.methods.Method and says name = {name!r}; "
            f"got {kind!r}."
        )


def names() -> list[str]:
    """The names of all methods, sorted."""
    return list(types())


def get(name: str, **fields: Any) -> Method:
    """Makes a method.

    Args:
        name: one of `names()`.
        fields: values for its fields; the rest keep their paper's defaults.

    Raises:
        ValueError: for an unknown name or field, or a value out of range; the message lists the valid ones.
    """
    if name not in types():
        near = difflib.get_close_matches(str(name), names(), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"Unknown method {name!r}{hint}; valid methods: {', '.join(names())}.")
    kind = types()[name]
    valid = [entry.name for entry in dataclasses.fields(kind)]
    unknown = [key for key in fields if key not in valid]
    if unknown:
        raise ValueError(f"{name} has no field {unknown[0]!r}; its fields: {', '.join(valid)}.")
    return kind(**fields)
