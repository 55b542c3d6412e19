"""Plug-ins: what installed packages and `paintback.register` add to the shipped methods and models.

A package says in its pyproject.toml what it brings, and nothing else is needed:

    [project.entry-points."paintback.methods"]
    mixed = "my_package:Mixed"              # a `Method`

    [project.entry-points."paintback.models"]
    mine = "my_package:load"                # a `ModelEntry`, or a function load(*, device, dtype) -> Model

Nothing is imported here before somebody asks for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

__all__ = ["METHODS", "MODELS", "Check", "add", "added", "forget", "on_change"]

Check = Callable[[str, Any], Any]

METHODS = "paintback.methods"
MODELS = "paintback.models"

_registered: dict[str, dict[str, Any]] = {METHODS: {}, MODELS: {}}
_installed: dict[str, dict[str, Any]] = {}
_changed: list[Callable[[], Any]] = []


def added(group: str, taken: Iterable[str], check: Check) -> dict[str, Any]:
    """What is registered and what installed packages bring, by name.

    A plug-in that cannot be imported, is not what it should be, or has the name of another one, is left out with a
    warning that says so.

    Args:
        group: `METHODS` or `MODELS`.
        taken: names of what is shipped.
        check: raises a ValueError for what is none of the group.
    """
    if group not in _installed:
        _installed[group] = _load(group, set(taken), check)
    return _installed[group] | _registered[group]


def add(group: str, name: str, value: Any, taken: Iterable[str], check: Check) -> None:
    """Registers one until the process ends.

    Args:
        group: `METHODS` or `MODELS`.
        name: that it is asked for by.
        value: what has that name; the same one may be registered again.
        taken: names of what is shipped.
        check: raises a ValueError for what is none of the group.

    Raises:
        ValueError: for a name that is taken, or what is none of the group.
    """
    check(name, value)
    known = added(group, taken, check)
    if name in set(taken) or (name in known and known[name] is not value):
        raise ValueError(f"There is {name!r} among {group} already; give yours another name.")
    _registered[group][name] = value
    for tell in _changed:
        tell()


def forget(group: str, name: str) -> None:
    """Takes back what was registered by a name; nothing where there is none."""
    _registered[group].pop(name, None)
    for tell in _changed:
        tell()


def on_change(tell: Callable[[], Any]) -> None:
    """Has a function called whenever something is registered or taken back: caches are emptied so."""
    _changed.append(tell)


def _load(group: str, taken: set[str], check: Check) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        if point.name in taken or point.name in found:
            warnings.warn(
                f"The plug-in {_called(point)} is left out: there is {point.name!r} among {group} already.",
                stacklevel=2,
            )
            continue
        try:
            value = point.load()
        except Exception as error:
            warnings.warn(
                f"The plug-in {_called(point)} is left out: it cannot be imported ({type(error).__name__}: {error}).",
                stacklevel=2,
            )
            continue
        try:
            check(point.name, value)
        except ValueError as error:
            warnings.warn(f"The plug-in {_called(point)} is left out: {error}", stacklevel=2)
            continue
        found[point.name] = value
    return found


def _called(point: EntryPoint) -> str:
    package = "" if point.dist is None else f" of {point.dist.name} {point.dist.version}"
    return f"{point.name!r}{package}"
