"""What all commands share: `--format`, data on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from paintback.painting.layout import Plan

__all__ = [
    "LINES_EVERY",
    "Count",
    "Format",
    "Silent",
    "duration",
    "emit",
    "format_option",
    "quiet_option",
    "remark",
    "table",
    "working",
]

LINES_EVERY = 10.0  # seconds between lines of progress where stderr is no terminal
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

    def __call__(self, *_: object) -> None:
        """As the callback of a task: one more step was done."""
        self.step()

    def step(self) -> None:
        """One more step was done."""

    def expect(self, steps: int) -> None:
        """The steps of this part, which cost the same each, once a task without a plan knows them."""

    def part(self, text: str, plan: Plan | None = None) -> None:
        """The next part of the work begins, with its plan where there is one."""


class Count(Silent):
    """How far the work is, over all its parts; a step counts by what it costs.

    Args:
        parts: of the work.
    """

    def __init__(self, parts: int) -> None:
        self.parts, self.number, self.text = parts, 0, ""
        self.steps, self.costs = 0, [0.0]
        self.began = time.monotonic()

    def step(self) -> None:
        self.steps += 1

    def part(self, text: str, plan: Plan | None = None) -> None:
        self.number, self.text, self.steps = self.number + 1, text, 0
        self.costs = [0.0] if plan is None else [0.0, *accumulate(_costs(plan))]

    def expect(self, steps: int) -> None:
        self.costs = [float(k) for k in range(steps + 1)]

    @property
    def fraction(self) -> float | None:
        """Of the work that is done, or None where there is no plan."""
        if len(self.costs) == 1:
            return None
        done = self.costs[min(self.steps, len(self.costs) - 1)] / self.costs[-1]
        return (self.number - 1 + done) / self.parts

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes at the speed so far, or None before there is one."""
        return None if not self.fraction else (time.monotonic() - self.began) * (1 / self.fraction - 1)

    def __str__(self) -> str:
        of = f" of {len(self.costs) - 1}" if len(self.costs) > 1 else ""
        words = [f"{self.text}: step {self.steps}{of}"]
        if self.fraction is not None:
            words.append(f"{self.fraction:.0%}")
        words.append(f"{duration(time.monotonic() - self.began)} so far")
        return ", ".join(words if self.left is None else [*words, f"{duration(self.left)} left"])


def _costs(plan: Plan) -> Iterator[float]:
    """What every step of a plan costs, in pixels that the network sees, gradients among them."""
    from paintback.painting.layout import BACKWARD

    for stage in plan.stages:
        for batch in stage.rows(plan.rows, plan.each):
            steps = stage.steps * stage.repeats
            each = (stage.evaluations + BACKWARD * stage.vjps) / max(1, steps)
            yield from [each * stage.cells * (batch.stop - batch.start)] * steps


class _Bar(Count):
    def __init__(self, bar: Progress, parts: int) -> None:
        super().__init__(parts)
        self.bar = bar
        self.task = bar.add_task("", total=None)

    def _show(self) -> None:
        self.bar.update(self.task, total=None if self.fraction is None else 1.0, completed=self.fraction or 0.0)
        self.bar.update(self.task, description=str(self))

    def step(self) -> None:
        super().step()
        self._show()

    def expect(self, steps: int) -> None:
        super().expect(steps)
        self._show()

    def part(self, text: str, plan: Plan | None = None) -> None:
        super().part(text, plan)
        self._show()


@contextmanager
def working(parts: int, *, quiet: bool) -> Iterator[Silent]:
    """A bar on stderr, gone when the work is done; where that is no terminal, a line every ten seconds.

    Args:
        parts: of the work, each announced by `part`.
        quiet: show nothing.
    """
    if quiet:
        yield Silent()
        return
    if not sys.stderr.isatty():
        count, ended = Count(parts), threading.Event()

        def tell() -> None:  # by the clock and not by the steps, one of which may take minutes
            while not ended.wait(LINES_EVERY):
                remark(f"{count}.")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield count
        finally:
            ended.set()
            teller.join()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, parts)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(5), duration(200), duration(200000)
    ('5 s', '3 min', '2.3 days')
    """
    for length, unit, form in ((86400, "days", ".1f"), (3600, "h", ".1f"), (60, "min", ".0f")):
        if seconds >= 2 * length:
            return f"{seconds / length:{form}} {unit}"
    return f"{seconds:.0f} s"
