"""How a study is run from the command line: wrong input is one sentence and exit code 2, as the command's is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

__all__ = ["run"]


def run(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a study and exits.

    Args:
        command: its options and what it does.
        arguments: in place of the command line's.
    """
    try:
        command.main(
            args=None if arguments is None else list(arguments),
            prog_name=f"python -m research.{(command.name or '').replace('-', '_')}",
        )
    except (ValueError, FileNotFoundError) as error:
        click.echo(f"research: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    sys.exit(0)
