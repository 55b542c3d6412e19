"""What the library says, in the words of the command line: its keywords are flags here."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["in_flags", "told"]

MOST = 20  # remarks of one call; a batch may have as many as it has pictures
TERMS = ("sigmas", "timesteps")
_CHOSEN = re.compile(r"\bmethod=(['\"]?)([a-z0-9_]+)\1")
_SET = re.compile(r"\b(blur|grow|mask_is|masks|sensitivity)=")
_BOTH = re.compile(r"\b[a-z_]+ \((--[a-z-]+)\)")


def in_flags(text: str) -> str:
    """A sentence with flags in place of Python's keywords.

    >>> in_flags("The model 'x' takes no guidance_scale; leave num_inference_steps at 1.")
    "The model 'x' takes no --guidance; leave --steps at 1."
    >>> in_flags("With grow=-300 the mask is empty.")
    'With --grow -300 the mask is empty.'
    """
    from paintback.painting import request

    text = _BOTH.sub(r"\1", _CHOSEN.sub(r"--method \2", text))
    text = _SET.sub(lambda found: f"--{found[1].replace('_', '-')} ", text)
    for kind in (request.Request, request.SuperresRequest, request.LayersRequest):
        for one in request.options(kind):
            for name in {one.name, one.python}:
                if ("_" in name or name in TERMS) and "cli" in one.where:  # others are words of every language
                    text = re.sub(rf"(?<![\w.-]){name}(?![\w-])", one.flag if one.group != "file" else "MASK", text)
    return text


@contextmanager
def told() -> Iterator[None]:
    """Says the library's warnings as remarks, one line each and each once; what other packages warn of is no news."""
    from paintback.cli.output import remark

    said: set[str] = set()

    def say(message: Warning | str, category: type[Warning], filename: str, *rest: object) -> None:
        text = in_flags(" ".join(str(message).split()))
        ours = category.__module__.startswith("paintback.") or "paintback" in filename.replace("\\", "/").split("/")
        if ours and issubclass(category, UserWarning) and text not in said and len(said) <= MOST:
            said.add(text)
            remark(text if len(said) <= MOST else "there are more remarks of such kinds.")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = say  # type: ignore[assignment] # of what it is told, it needs the first three
        yield
