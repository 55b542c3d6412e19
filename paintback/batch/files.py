"""Files here or behind a URL of fsspec: read, listed, and written whole or not at all."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = [
    "Found",
    "find",
    "fingerprint",
    "here",
    "is_glob",
    "is_url",
    "join",
    "local",
    "number",
    "read",
    "sha256",
    "write",
]

_URL = re.compile(r"^[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]+)*://", re.IGNORECASE)
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


def is_url(path: str) -> bool:
    """Whether a path is for fsspec, as `s3://bucket/name` is; `file://` names a local file, and so does a plain colon.

    >>> [is_url(path) for path in ("s3://b/a.png", "simplecache::s3://b/a.png", "file:///a.png", "co:lon.png", "a::b")]
    [True, True, False, False, False]
    """
    return bool(_URL.match(path)) and not path.startswith("file://")


def is_glob(pattern: str) -> bool:
    """Whether a pattern has wildcards; the name of something that is there is that thing, whatever is in its name."""
    if not any(character in pattern for character in "*?["):
        return False
    if not is_url(pattern):
        return not local(pattern).exists()
    system, name = _open(pattern)
    return not system.exists(name)


def local(path: str) -> Path:
    """The local path of a path that is no URL."""
    return Path(path.removeprefix("file://"))


def _open(path: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        ValueError: if nothing reads such URLs here.
    """
    scheme = path.partition(":")[0]
    try:
        import fsspec
    except ImportError:
        raise ValueError(f"{path!r} is a URL, which needs fsspec; pip install 'paintback[cluster]'.") from None
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(path)
    except ImportError as error:
        raise ValueError(f"{path!r} cannot be opened: {error}.") from None
    except ValueError:
        raise ValueError(f"There are no files behind {scheme}:// that can be read; got {path!r}.") from None
    return found


def join(folder: str, name: str) -> str:
    """A name with forward slashes inside a folder or URL."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(local(folder) / name)


def read(path: str) -> bytes:
    """The whole file.

    Raises:
        ValueError: if it is not there or cannot be read.
    """
    try:
        if not is_url(path):
            return local(path).read_bytes()
        system, name = _open(path)
        return bytes(system.cat_file(name))
    except FileNotFoundError:
        raise ValueError(f"{path!r} does not exist; check the path.") from None
    except OSError as error:
        raise ValueError(f"{path!r} cannot be read ({error.strerror or error}).") from None


def write(data: bytes, path: str) -> None:
    """Writes a file whole or not at all, its folder made first; an object of a store appears whole by itself."""
    from paintback.images.encoding import write_whole

    if not is_url(path):
        local(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(data, local(path))
        return
    system, name = _open(path)
    system.makedirs(str(PurePosixPath(name).parent), exist_ok=True)
    system.pipe_file(name, data)


def sha256(path: str) -> str | None:
    """SHA-256 of a file, or None if it cannot be read."""
    try:
        return hashlib.sha256(read(path)).hexdigest()
    except ValueError:
        return None


def number(path: str) -> set[tuple[int, int]]:
    """What names a file whatever its paths are, where it is one here: one entry, else none."""
    try:
        stat = None if is_url(path) else local(path).stat()
    except OSError:
        stat = None
    return set() if stat is None else {(stat.st_dev, stat.st_ino)}


def fingerprint(path: str) -> list[str] | None:
    """Size and time of a file, which change when it is written again; None where there is none or it cannot be told."""
    try:
        if not is_url(path):
            stat = local(path).stat()
            return [str(stat.st_size), str(stat.st_mtime_ns)]
        system, name = _open(path)
        info = system.info(name)
    except (OSError, ValueError):
        return None
    stamps = [str(info[key]) for key in _STAMPS if info.get(key) is not None]
    return [str(info.get("size")), *stamps] if stamps else None


@contextmanager
def here(path: str) -> Iterator[Path]:
    """A local path to read from; a URL is fetched into a file that is gone afterwards.

    Raises:
        ValueError: if it cannot be fetched; messages about the file name the URL.
    """
    if not is_url(path):
        yield local(path)
        return
    data = read(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / (PurePosixPath(path).name or "file")
        copy.write_bytes(data)
        try:
            yield copy
        except ValueError as error:
            raise type(error)(str(error).replace(str(copy), path)) from None


@dataclass(frozen=True)
class Found:
    """What a folder or a glob holds.

    Attributes:
        root: the folder that they have in common.
        wanted: paths of the files with the suffixes asked for, sorted.
        others: paths of the rest, sorted.
    """

    root: str
    wanted: list[str]
    others: list[str]


def find(pattern: str, suffixes: frozenset[str]) -> Found:
    """The files of a folder with all below it, or of a glob; hidden files and folders are left out.

    Args:
        pattern: a folder or a glob, here or as a URL.
        suffixes: of the files wanted, with the dot, in lower case.

    Raises:
        ValueError: if there is no such folder, or nothing in it.
    """
    wild = is_glob(pattern)
    if is_url(pattern):
        system, name = _open(pattern)
        root = _fixed(name) if wild else name
        names = system.glob(name) if wild else system.find(name)
        found = [str(system.unstrip_protocol(one)) for one in names]
        root = str(system.unstrip_protocol(root))
    elif wild:
        import glob

        root = _fixed(str(local(pattern)))
        found = [one for one in glob.glob(str(local(pattern)), recursive=True) if Path(one).is_file()]
    else:
        root = str(local(pattern))
        if not Path(root).is_dir():
            raise ValueError(f"{pattern!r} is no folder, glob or manifest (.csv, .jsonl, .parquet); give one of them.")
        found = [str(one) for one in Path(root).rglob("*") if one.is_file()]
    above = len(PurePosixPath(root).parts)
    seen = [one for one in sorted(found) if not any(part[0] == "." for part in PurePosixPath(one).parts[above:])]
    wanted = [one for one in seen if PurePosixPath(one).suffix.lower() in suffixes]
    if not wanted:
        raise ValueError(f"{pattern!r} holds no pictures ({', '.join(sorted(suffixes))}); give another folder or glob.")
    return Found(root, wanted, [one for one in seen if PurePosixPath(one).suffix.lower() not in suffixes])


def _fixed(pattern: str) -> str:
    """The folders of a glob above the first one with a wildcard."""
    parts = PurePosixPath(pattern).parts
    kept = []
    for part in parts[:-1]:
        if any(character in part for character in "*?["):
            break
        kept.append(part)
    return str(PurePosixPath(*kept)) if kept else "."
