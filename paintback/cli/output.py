"""What all commands share: `--format`, data on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Format", "Silent", "emit", "format_option", "quiet_option", "remark", "table", "working"]

Format = Literal["text", "json"]
F = TypeVar("F", bound=Callable[..., Any])

format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the output.",
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress bar.")


def emit(form: Format, data: Any, text: str) -> None:
    """Prints data as JSON, or the text that says the same."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False) if form == "json" else text)


def remark(text: str) -> None:
    """One line on stderr."""
    click.echo(f"paintback: {text}", err=True)


def table(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Columns of equal width, two spaces apart, the last one ragged.

    >>> print(table([("a", "one"), ("long", "two")]))
    a     one
    long  two
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(indent + line for line in lines)


class Silent:
    """What a bar is told; this one shows nothing."""

    def step(self) -> None:
        """One more step was done."""

    def part(self, text: str) -> None:
        """The next part of the work begins."""


class _Bar(Silent):
    def __init__(self, bar: Progress, total: int) -> None:
        self.bar, self.total, self.steps, self.parts = bar, total, 0, 0
        self.task = bar.add_task("", total=None if total == 1 else total, steps="")

    def step(self) -> None:
        self.steps += 1
        self.bar.update(self.task, steps=f"step {self.steps}")

    def part(self, text: str) -> None:
        self.steps = 0
        self.bar.update(self.task, description=text, steps="", completed=self.parts)
        self.parts += 1


@contextmanager
def working(total: int, *, quiet: bool) -> Iterator[Silent]:
    """A rich bar on stderr over `total` parts, gone when the work is done; nothing where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns: tuple[ProgressColumn, ...] = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[steps]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, total)
