"""How a request is made of annotated fields: checked strictly, read and written, and offered as data to front ends.

`request` holds the requests themselves. No torch is imported here, so that `--help` stays quick.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

__all__ = ["EVERYWHERE", "NUMBER", "Ask", "Asked", "Option", "options", "sentence"]

NUMBER = r"[0-9]{1,40}(\.[0-9]{0,40})?([eE](\+?[0-9]{1,2}|-[0-9]{1,3}))?"  # of a list; always finite

Group = Literal["file", "everyday", "advanced", "machine", "record"]
Where = Literal["python", "cli", "manifest", "http"]
Kind = Literal["text", "int", "float", "flag", "choice", "sides", "fields", "files"]
EVERYWHERE: frozenset[Where] = frozenset({"python", "cli", "manifest", "http"})
A = TypeVar("A", bound="Asked")


@dataclass(frozen=True)
class Ask:
    """Where and how an entry of a request is asked for.

    Attributes:
        group: "file" (what is read), "everyday", "advanced", "machine" (where it runs), or "record" (filled by a run).
        flag: of the command line; None for the name with dashes.
        metavar: of the command line.
        python: the keyword in Python, where diffusers has a name for it.
        where: the entry points that take it.
        clips: whether it is of clips alone.
    """

    group: Group = "everyday"
    flag: str | None = None
    metavar: str | None = None
    python: str | None = None
    where: frozenset[Where] = EVERYWHERE
    clips: bool = False


@dataclass(frozen=True)
class Option:
    """An entry of a request as data, for whoever offers it.

    Attributes:
        name: in the request, manifests, HTTP and settings.
        kind: of its values; "sides" are four whole numbers, "fields" names with values, "files" any number of paths.
        default: where it is left out.
        nullable: whether None may be given.
        low: smallest number.
        above: smallest number, itself not allowed.
        high: largest number.
        choices: of a "choice".
        pattern: that a text matches, or None.
        help: one sentence.
        flag: of the command line.
        metavar: of the command line, or None.
        group: see `Ask`.
        python: keyword in Python.
        where: entry points that take it.
        clips: whether it is of clips alone.
    """

    name: str
    kind: Kind
    default: Any
    nullable: bool
    low: float | None
    above: float | None
    high: float | None
    choices: tuple[str, ...]
    pattern: str | None
    help: str
    flag: str
    metavar: str | None
    group: Group
    python: str
    where: frozenset[Where]
    clips: bool


class Asked(BaseModel):
    """What all requests have in common: how they are checked, read and written. Immutable; numbers are taken strictly.

    Whole floats become whole numbers where these are wanted, scalars of NumPy and torch and paths are taken, NaN is
    refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=False)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        kinds = _kinds_of(cls)
        plain = {name: _plain_value(value, kinds.get(name, ())) for name, value in data.items()}
        return {name: None if name == "seed" and value == -1 else value for name, value in plain.items()}

    @classmethod
    def parse(cls: type[A], data: str | bytes | Mapping[str, Any]) -> A:
        """Reads a request from JSON text or from its parsed contents.

        Raises:
            ValueError: for what does not fit, in one sentence.
        """
        if not isinstance(data, Mapping):
            try:
                data = json.loads(data)
            except ValueError as error:
                raise ValueError(f'The job is not JSON ({error}); give an object such as {{"photo": ...}}.') from None
        if not isinstance(data, Mapping):
            raise ValueError(f"The job is a JSON {type(data).__name__}; give an object with photo and mask.")
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise ValueError(sentence(error, cls)) from None

    def to_settings(self) -> dict[str, Any]:
        """All entries as plain JSON values, as a PNG carries them; what lives in Python alone is left out."""
        return self.model_dump(mode="json")

    @classmethod
    def from_settings(cls: type[A], settings: Mapping[str, Any]) -> A:
        """Reads what `to_settings` wrote, in this version or an earlier one; unknown entries are left alone.

        Raises:
            ValueError: if what is there does not fit, or names no photo.
        """
        if not settings.get("photo"):
            raise ValueError("The PNG's settings are incomplete; give one that `paintback inpaint` wrote.")
        return cls.parse({name: value for name, value in settings.items() if name in cls.model_fields})

    def with_(self: A, **changes: Any) -> A:
        """The request with some entries changed, checked like a new one.

        Raises:
            ValueError: for a value that does not fit, in one sentence.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).parse({**given, **changes})

    def to_python(self) -> dict[str, Any]:
        """The entries that Python's keywords have, by these."""
        return {one.python: getattr(self, one.name) for one in options(type(self)) if "python" in one.where}


def options(kind: type[Asked]) -> list[Option]:
    """The entries of a request as data, in the order in which they are offered."""
    return [_option(name, entry) for name, entry in kind.model_fields.items()]


def _option(name: str, entry: Any) -> Option:
    ask = next((one for one in entry.metadata if isinstance(one, Ask)), Ask())
    parts = _kinds(entry.annotation)
    inner = next((part for part in parts if part is not NoneType), str)
    limits = {type(one): one for one in entry.metadata}
    return Option(
        name=name,
        kind=_kind(inner),
        default=entry.get_default(call_default_factory=True),
        nullable=NoneType in parts,
        low=getattr(limits.get(Ge), "ge", None),
        above=getattr(limits.get(Gt), "gt", None),
        high=getattr(limits.get(Le), "le", None),
        choices=tuple(get_args(inner)) if get_origin(inner) is Literal else (),
        pattern=next((one.pattern for one in entry.metadata if getattr(one, "pattern", None)), None),
        help=entry.description or "",
        flag=ask.flag or "--" + name.replace("_", "-"),
        metavar=ask.metavar,
        group=ask.group,
        python=ask.python or name,
        where=ask.where,
        clips=ask.clips,
    )


@cache
def _kinds_of(kind: type[Asked]) -> dict[str, tuple[Any, ...]]:
    """The types of every entry of a request."""
    return {name: _kinds(entry.annotation) for name, entry in kind.model_fields.items()}


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type that it is."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _kind(inner: Any) -> Kind:
    origin = get_origin(inner) or inner
    if origin is tuple and Ellipsis in get_args(inner):
        return "files"
    kinds: dict[Any, Kind] = {
        int: "int",
        float: "float",
        bool: "flag",
        tuple: "sides",
        dict: "fields",
        Literal: "choice",
    }
    return kinds.get(origin, "text")


def _plain_value(value: Any, kinds: tuple[Any, ...]) -> Any:
    """NumPy's and torch's scalars and paths as Python's own, whole floats where these are wanted, lists as tuples."""
    if isinstance(value, Path):
        return str(value)
    if type(value).__module__ in ("numpy", "torch") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and int in kinds and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, list | tuple) and any(get_origin(kind) is tuple for kind in kinds):
        return tuple(_plain_value(one, (int,)) for one in value)
    return value


EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "flag": "true or false",
    "sides": "a list",
    "fields": "an object",
    "files": "a list",
}


def sentence(error: ValidationError, kind: type[Asked], *, python: bool = False) -> str:
    """The first thing that is wrong with a request, in one sentence: what was given and what is taken.

    Args:
        error: what pydantic says.
        kind: the request's class.
        python: whether the entries are called by Python's keywords.
    """
    first = error.errors(include_url=False)[0]
    name, what, value = str(first["loc"][0]) if first["loc"] else "", first["type"], first["input"]
    given, limits = _shown(value), first.get("ctx", {})
    if what == "extra_forbidden":
        near = difflib.get_close_matches(name, kind.model_fields, 1)
        meant = f"; did you mean {near[0]!r}?" if near else f"; its entries: {', '.join(kind.model_fields)}."
        return f"A job has no {name!r}{meant}"
    if what == "missing" and len(first["loc"]) == 1:
        return f"The job names no {name}; give it."
    if not name or name not in kind.model_fields:
        return f"{first['msg'].removeprefix('Value error, ')}"
    option = _option(name, kind.model_fields[name])
    name = option.python if python else name
    for bound, words in (("ge", "at least"), ("gt", "above"), ("le", "at most")):
        if bound in limits:
            return f"{name} must be {words} {_number(limits[bound])}; got {given}."
    if what == "value_error":
        return first["msg"].removeprefix("Value error, ")
    if what == "finite_number":
        return f"{name} must be a finite number; got {given}."
    if what == "string_unicode":
        return f"{name} is not written in UTF-8: {given}{'; rename the file' if option.group == 'file' else ''}."
    if what == "literal_error":
        return f"{name} must be one of {', '.join(option.choices)}; got {given}."
    if what == "string_pattern_mismatch":
        pattern = option.pattern or ""
        if pattern.startswith(f"^{NUMBER}") or (NUMBER in pattern and value[:1].isdigit()):
            return f"{name} must list finite numbers with commas between; got {given}."
        return f"{name} is none of those that there are ({option.help.rstrip('.')}); got {given}."
    if what == "string_too_short":
        return f"{name} is empty; give a value or leave it out."
    if what == "string_too_long":
        return f"{name} takes at most {limits['max_length']} characters; got {len(str(value))}."
    if what == "too_long":
        return f"{name} takes at most {limits['max_length']}; got {len(value)}."
    if option.kind == "sides" and isinstance(value, list | tuple):
        return f"{name} takes 4 values; got {len(value)}."
    expected = EXPECTED.get(option.kind, "a text")
    if len(first["loc"]) > 1:
        expected = "a whole number" if option.kind == "sides" else "a text"
    return f"{name} must be {expected}{' or nothing' if option.nullable else ''}; got {given}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
