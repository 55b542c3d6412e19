"""What the results of a batch are called: like their pictures, all different, and never outside the output folder."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

__all__ = ["LONGEST", "composed", "distinct", "key", "relative", "stem", "too_long"]

LONGEST = 255  # bytes of one part of a path, on every common file system
_FOREIGN = set('<>:"|?*') if os.name == "nt" else set()  # what a file's name cannot hold here


def relative(path: str, root: str) -> str:
    """A path as seen from a folder, or its last part where it is not inside.

    >>> relative("scans/box/a.png", "scans"), relative("other/a.png", "scans"), relative("scans/../a.png", "scans")
    ('box/a.png', 'a.png', 'a.png')
    """
    try:
        inside = PurePosixPath(path).relative_to(PurePosixPath(root))
    except ValueError:
        return PurePosixPath(path).name
    return PurePosixPath(path).name if ".." in inside.parts else str(inside)


def stem(path: str) -> str:
    """A path without its suffix."""
    return str(PurePosixPath(path).with_suffix(""))


def composed(name: str) -> str:
    """A name with its accents composed, which macOS writes apart."""
    return unicodedata.normalize("NFC", name)


def key(name: str) -> str:
    """What is equal for names that some file system takes for one: neither case nor the writing of accents counts."""
    return composed(composed(name).casefold())


def too_long(path: str) -> str | None:
    """What is wrong with the length of a result's path, or None."""
    longest = max(PurePosixPath(path).parts, key=lambda part: len(os.fsencode(part)), default="")
    size = len(os.fsencode(longest))
    if size <= LONGEST:
        return None
    return (
        f"The result's name {longest[:20]!r}... takes {size} bytes and a file's name at most {LONGEST}; give it "
        "another one by the column name of a manifest."
    )


def distinct(drafts: Sequence[dict[str, Any]], root: str) -> list[tuple[str, str | None]]:
    """A name for every draft of a job, all different to any file system, and what is wrong with a name that was given.

    Args:
        drafts: entries of jobs, of which "name" counts, else "photo"; a name that cannot be used becomes row-1, ...
        root: the folder that the pictures have in common.
    """
    given: list[tuple[str, bool, str | None]] = []
    for number, data in enumerate(drafts, 1):
        name, photo = data.get("name"), data.get("photo")
        if name is not None:
            problem = _problem(name)
            given.append((f"row-{number}" if problem else str(name), True, problem))
        else:
            own = _usable(relative(photo, root)) if isinstance(photo, str) else ""
            given.append((own or f"row-{number}", False, None))
    stems = Counter(key(name if fixed else stem(name)) for name, fixed, _ in given)
    taken: set[str] = set()
    out: list[tuple[str, str | None]] = []
    for number, (name, fixed, problem) in enumerate(given, 1):
        if fixed:
            if key(name) in taken:
                problem, name = problem or f"The name {name!r} was given before; give another.", f"row-{number}"
        elif stems[key(stem(name))] == 1:
            name = stem(name)
        candidate, k = name, 1
        while key(candidate) in taken:
            k += 1
            candidate = f"{name}-{k}"
        taken.add(key(candidate))
        out.append((candidate, problem))
    return out


def _usable(path: str) -> str:
    """A picture's own path as the name of its result: only what cannot be one is changed; empty if nothing is left."""
    parts = (
        "".join("_" if ord(one) < 32 or one == "\\" or one in _FOREIGN else one for one in part).lstrip(". ").rstrip()
        for part in path.split("/")
    )
    return "/".join(part for part in parts if part)


def _problem(name: Any) -> str | None:
    """Why a name that was given cannot be one of a file inside the output folder."""
    if not isinstance(name, str) or not name.strip():
        return f"The name must be a text; got {name!r}."
    parts = name.split("/")
    if any(one == "\\" or ord(one) < 32 or one in _FOREIGN for one in name):
        return f"The name {name!r} holds a character that file names do not take; choose another."
    if any(part in ("", ".", "..") or part.startswith(".") for part in parts):
        return f"The name {name!r} would not stay in the output folder as it is; give a relative path without '..'."
    return too_long(name)
