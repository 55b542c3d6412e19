"""The command's entry point: its groups, imported only when called, and what every failure looks like.

Exit codes: 0 done, 2 wrong input, 1 a failure, 130 Ctrl-C. A failure is one sentence on stderr; PAINTBACK_DEBUG=1 shows
the traceback instead.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from paintback import __version__
from paintback.cli.words import in_flags, told

__all__ = ["main", "paintback"]

INTERRUPTED = 130


class _LazyGroup(click.Group):
    """A group whose commands live in modules of their own: name -> (module, attribute, one line of help)."""

    lazy: dict[str, tuple[str, str, str]]

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.commands = dict.fromkeys(self.lazy, click.Command(None))  # their names: click says which one was meant

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        module, attribute, _ = self.lazy[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self.lazy.items()])


class _Main(_LazyGroup):
    lazy = {  # noqa: RUF012 - the class is the registry
        "inpaint": ("paintback.cli.inpaint", "inpaint", "Paint back the masked part of a picture."),
        "batch": ("paintback.cli.batch", "batch", "Paint back many pictures, here or on a cluster."),
        "mask": ("paintback.cli.mask", "mask", "Find dust, scratches, print, a colour or an object."),
        "audio": ("paintback.cli.audio", "audio", "Paint back missing seconds of a sound."),
        "superres": ("paintback.cli.superres", "superres", "Enlarge a picture 2 to 8 times."),
        "layers": ("paintback.cli.layers", "layers", "Take a picture apart into two layers and a mask."),
        "serve": ("paintback.cli.serve", "serve", "Serve the page for the browser, and the HTTP API."),
        "demo": ("paintback.cli.demo", "demo", "Paint back the example pictures."),
        "methods": ("paintback.cli.listing", "methods", "List the methods and their fields."),
        "models": ("paintback.cli.listing", "models", "List the models that are shipped."),
        "env": ("paintback.cli.listing", "env", "Show versions, devices and threads."),
        "check": ("paintback.cli.check", "check", "Check a model on this machine: is it right, what does it cost?"),
        "convert": ("paintback.cli.convert", "convert", "Convert a research checkpoint to safetensors."),
        "train": ("paintback.cli.train", "train", "Train a model of your own."),
        "bench": ("paintback.cli.bench", "bench", "Measure the methods."),
    }


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="paintback %(version)s")
def paintback() -> None:
    """Paint back the missing part of a picture with a pretrained diffusion model.

    \b
    paintback inpaint photo.jpg mask.png -o restored.png
    """  # noqa: D301 - a real backspace: click keeps what follows as it is


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command and exits.

    Args:
        arguments: in place of the command line's.
    """
    warnings.showwarning = _show_warning
    try:
        with told():
            code = paintback.main(
                args=None if arguments is None else list(arguments), prog_name="paintback", standalone_mode=False
            )
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted.")
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        hint = getattr(error, "ctx", None)
        _say(error.format_message() + (f" See `{hint.command_path} --help`." if hint is not None else ""))
        sys.exit(error.exit_code if isinstance(error, click.UsageError) else 2)
    except Exception as error:
        if os.environ.get("PAINTBACK_DEBUG", "") not in ("", "0"):
            raise
        text, code = explain(error)
        _say(text)
        sys.exit(code)
    sys.exit(code if isinstance(code, int) else 0)


def explain(error: Exception) -> tuple[str, int]:
    """One sentence about a failure, and the exit code.

    Args:
        error: what came up.

    Returns:
        The sentence, and 2 where the input is at fault, 1 where something else is.
    """
    text = in_flags(" ".join(str(error).split()))
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
        wrong = error.errno in (
            errno.ENOENT,
            errno.EACCES,
            errno.EISDIR,
            errno.ENOTDIR,
            errno.EPERM,
            errno.EROFS,
            errno.EEXIST,
        )
        return text, 2 if wrong else 1
    if isinstance(error, ValueError | FileNotFoundError):
        return text or f"{type(error).__name__}.", 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        if text.startswith("The memory of"):
            return text, 1
        return "out of memory; make the picture or the hole smaller, or choose another --device.", 1
    name = type(error).__name__
    return f"{name}: {text or 'no message'} (PAINTBACK_DEBUG=1 shows where).", 1


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """What the library remarks, as one line without its place in the code; other kinds are not meant for people."""
    if issubclass(category, UserWarning):
        _say(" ".join(str(message).split()))


def _say(text: str) -> None:
    click.echo(f"paintback: {text}", err=True)
