"""Click options made of a request: what can be asked, with its limits and help, is said in `painting.request` alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from paintback.painting.request import Asked, Option, options

__all__ = ["Command", "given", "request_options", "said"]

F = TypeVar("F", bound=Callable[..., Any])
A = TypeVar("A", bound=Asked)

SHOWN = {"int": "INTEGER", "float": "NUMBER", "sides": "L,T,R,B"}  # what a value looks like, in the help
SECTIONS = {"everyday": "Options", "advanced": "More options", "machine": "Where and how it runs"}


class Entry(click.ParamType[Any]):
    """A value of one entry of a request, held against what the request says of it.

    Args:
        option: the entry.
        kind: the request.
    """

    def __init__(self, option: Option, kind: type[Asked]) -> None:
        self.option, self.kind = option, kind
        self.name = option.metavar or "|".join(option.choices) or SHOWN.get(option.kind, "TEXT")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value, once the request takes it."""
        name = self.option.name
        try:
            plain = self._plain(value)
            self.kind.parse({name: plain})
        except ValueError as error:
            self.fail(str(error).removeprefix(f"{name} ").replace(" or nothing;", ";"), param, ctx)
        return plain

    def _plain(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if self.option.kind == "int":
            return _number(value, int)
        if self.option.kind == "float":
            return _number(value, float)
        if self.option.kind == "sides":
            sides = [_number(part, int) for part in value.split(",")]
            if len(sides) not in (1, 4):
                raise ValueError(f"takes one number for all sides, or four, left,top,right,bottom; got {value!r}.")
            return sides * 4 if len(sides) == 1 else sides
        return value

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What stands for a value in the help."""
        return f"[{self.name}]" if self.option.choices else self.name

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Words that the shell offers."""
        from click.shell_completion import CompletionItem

        words: Sequence[str] = self.option.choices
        if self.option.name == "model":
            from paintback.models.catalogue import catalogue, entries

            words = [*(card.name for card in catalogue()), *entries()]
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _number(text: str, kind: type[int] | type[float]) -> Any:
    """The number that a text is, or the text, which is then refused as such."""
    try:
        return kind(text)
    except ValueError:
        return text


class Command(click.Command):
    """A command whose help has the options of a request in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, what is asked for most first."""
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in SECTIONS.values()}
        for param in self.get_params(ctx):
            if isinstance(param, click.Argument):  # the head of the help has them
                continue
            record = param.get_help_record(ctx)
            if record is not None:
                rows[SECTIONS.get(getattr(param, "group", ""), "Options")].append(record)
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class _Option(click.Option):
    """An option that knows its group; its default is the request's, so that what is not given stays open."""

    group = "everyday"


def request_options(kind: type[Asked], *, wanted: Callable[[Option], bool] = lambda one: True) -> Callable[[F], F]:
    """A decorator that gives a command the options of a request; they come as keywords, None where not given.

    Args:
        kind: the request.
        wanted: which of the entries that the command line takes.
    """

    def decorate(command: F) -> F:
        for one in reversed(options(kind)):
            if "cli" in one.where and one.group != "file" and wanted(one):
                command = click.option(*_flags(one), **_settings(one, kind))(command)
                made: list[Any] = getattr(command, "params", None) or getattr(command, "__click_params__", [])
                made[-1].group = one.group
        return command

    return decorate


def _flags(one: Option) -> list[str]:
    flag = one.flag
    if one.kind == "flag" and one.default:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    return [flag, one.name]


def _settings(one: Option, kind: type[Asked]) -> dict[str, Any]:
    settings: dict[str, Any] = {"cls": _Option, "default": None, "help": one.help}
    if one.kind in ("fields", "files"):
        return {**settings, "multiple": True, "metavar": one.metavar, "help": f"{one.help} May be repeated."}
    if one.kind == "flag":
        return settings if one.default else {**settings, "is_flag": True}
    if one.default not in (None, (0, 0, 0, 0)):
        settings["help"] += f"  [default: {one.default:g}]" if one.kind == "float" else f"  [default: {one.default}]"
    return {**settings, "type": Entry(one, kind)}


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that the user gave, without the fields."""
    return {name: value for name, value in values.items() if value not in (None, ()) and name != "fields"}


def said(kind: type[A], values: Mapping[str, Any], **files: Any) -> A:
    """The request that options make, the method's fields left out.

    Args:
        kind: of request.
        values: what click gives a command that has `request_options`.
        files: entries that are arguments of the command.

    Raises:
        ValueError: for what does not fit.
    """
    return kind.parse({**files, **given(values)})
