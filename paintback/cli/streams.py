"""`-` in place of a file: a picture from stdin, and the result to stdout as a PNG."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from paintback.painting.request import Request

__all__ = ["Streams", "piped"]

PIPE = "-"


@dataclass(frozen=True)
class Streams:
    """The files of a call, some of which stand for pipes.

    Attributes:
        photo: path.
        mask: path, "alpha" or None.
        out: path.
        piped: entries of the request that came through stdin.
        to_stdout: whether the result goes there.
    """

    photo: str | None = None
    mask: str | None = None
    out: Path = Path(PIPE)
    piped: tuple[str, ...] = ()
    to_stdout: bool = False

    def named(self, request: Request) -> Request:
        """The request with what the user said in place of temporary names."""
        return request.with_(**dict.fromkeys(self.piped, PIPE)) if self.piped else request


@contextmanager
def piped(photo: str, mask: str | None, out: Path) -> Iterator[Streams]:
    """Files in place of pipes, for as long as the call takes; what was written goes to stdout at the end.

    Raises:
        click.UsageError: if both photo and mask were to come from stdin.
    """
    if PIPE not in (photo, mask, str(out)):
        yield Streams(photo, mask, out)
        return
    if photo == mask == PIPE:
        raise click.UsageError("one of PHOTO and MASK may be - for stdin, not both; give the other one's path.")
    with tempfile.TemporaryDirectory() as folder:
        entered, result = Path(folder) / "stdin", Path(folder) / "stdout.png"
        if PIPE in (photo, mask):
            with entered.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        to_stdout = str(out) == PIPE
        names = tuple(name for name, given in (("photo", photo), ("mask", mask)) if given == PIPE)
        streams = Streams(
            str(entered) if photo == PIPE else photo,
            str(entered) if mask == PIPE else mask,
            result if to_stdout else out,
            names,
            to_stdout,
        )
        try:
            yield streams
        except ValueError as error:
            raise ValueError(str(error).replace(repr(str(entered)), "stdin").replace(str(entered), "stdin")) from error
        if to_stdout and result.exists():
            sys.stdout.buffer.write(result.read_bytes())
            sys.stdout.buffer.flush()
