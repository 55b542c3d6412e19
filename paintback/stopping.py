"""Stopping within a step: whoever waits for a painting says when to stop, and every evaluation asks.

A callback is told of whole steps, and a step of some methods takes dozens of evaluations, each of which may take
seconds on a large picture.

    with stoppable(lambda: button.pressed):
        method.sample(...)      # ends with the last prediction; raises Stopped where there is none yet
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Stopped", "check", "kept", "stoppable"]

_asked: ContextVar[Callable[[], bool] | None] = ContextVar("asked", default=None)


class Stopped(Exception):  # noqa: N818 - it is no error
    """Somebody asked the painting to stop."""


@contextmanager
def stoppable(asked: Callable[[], bool]) -> Iterator[None]:
    """What is sampled within stops before its next evaluation or gradient once `asked` says so.

    Args:
        asked: called in the sampling thread, before each of them.
    """
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


@contextmanager
def kept(made: Sized) -> Iterator[None]:
    """What is done within ends where it is stopped, and goes on behind, once something is in `made`.

    Raises:
        Stopped: if it is stopped before.
    """
    try:
        yield
    except Stopped:
        if not len(made):
            raise


def check() -> None:
    """Called before every evaluation and every gradient.

    Raises:
        Stopped: if somebody asked for it.
    """
    asked = _asked.get()
    if asked is not None and asked():
        raise Stopped
