"""What a batch is made of: from a folder, a glob or a manifest, with masks, to a list of named jobs.

A row that cannot be a job becomes a task with an error, so that it is reported with the rest.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from paintback.batch import files
from paintback.batch.job import ALPHA, Job

__all__ = ["COLUMNS", "MANIFESTS", "PICTURES", "Task", "name_jobs", "read_tasks", "seed_of"]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
MANIFESTS = frozenset({".csv", ".jsonl", ".ndjson", ".parquet"})
ALIASES = {"image": "photo", "mask_image": "mask"}
MASK_ENDINGS = ("", "_mask", "-mask")
COLUMNS = (
    "name", "photo", "mask", "prompt", "negative_prompt", "seed", "method", "fields", "steps", "guidance", "grow",
    "blur", "outpaint", "height", "width",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One row of a batch.

    Attributes:
        name: of the result inside the output folder, without its suffix; forward slashes.
        job: what is to be painted, or None where the row is broken.
        error: what is wrong with the row.
    """

    name: str
    job: Job | None
    error: str | None = None


def seed_of(seed: int, name: str) -> int:
    """The seed of one picture: from the batch's and the picture's name, so that others coming or going change nothing.

    >>> seed_of(0, "scans/a") == seed_of(0, "scans/a") != seed_of(0, "scans/b")
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")


def read_tasks(
    source: str, masks: str | None, base: dict[str, Any], *, seed: int = 0, without: Sequence[str] = ()
) -> tuple[list[Task], list[str]]:
    """The tasks of a folder, a glob or a manifest.

    Args:
        source: a folder with all below it, a glob, or a manifest (.csv, .jsonl, .parquet) with the columns `COLUMNS`,
            paths in it being relative to its own folder; each may be a URL.
        masks: a folder or glob of masks that pair by stem, one mask for all, "alpha", or None where the manifest names
            them.
        base: the job's entries that all rows share, as JSON values; a row's own come first. A row with a method of
            its own takes that method's default fields.
        seed: of the batch; see `seed_of`.
        without: local folders below the source that are not looked into, such as the output.

    Returns:
        The tasks, names all different, and the manifest's columns that mean nothing here.

    Raises:
        ValueError: where nothing can be read at all.
    """
    is_glob = any(character in source for character in "*?[")
    suffix = PurePosixPath(source).suffix.lower()
    if suffix in MANIFESTS and not is_glob and not (not files.is_url(source) and files.local(source).is_dir()):
        rows, unknown = _read_manifest(source, suffix)
        root = str(PurePosixPath(source).parent) if not files.is_url(source) else source.rpartition("/")[0]
    else:
        root, found = files.find(source, PICTURES)
        closed = [
            Path(folder).resolve()
            for folder in (*without, *([masks] if masks is not None and _is_folder(masks) else []))
        ]
        if not files.is_url(source):
            above = Path(root).resolve()
            closed = [folder for folder in closed if folder != above]
            found = [one for one in found if not any(folder in Path(one).resolve().parents for folder in closed)]
        if masks is not None:
            found = [one for one in found if one != masks]
        rows, unknown = [{"photo": one} for one in found], []
    book = _Masks(masks)
    drafts = [_draft(row, root, book, base) for row in rows]
    names = _names(drafts, root)
    tasks = []
    for (data, error), (name, clash) in zip(drafts, names, strict=True):
        error = error or clash
        if error is None:
            try:
                job = Job.from_json({"seed": seed_of(seed, name), **data})
                tasks.append(Task(name, job))
                continue
            except ValueError as problem:
                error = str(problem)
        tasks.append(Task(name, None, error))
    return tasks, unknown


def name_jobs(jobs: Sequence[Job | Task]) -> list[Task]:
    """Tasks of jobs made in Python, named by their pictures."""
    given = [one if isinstance(one, Task) else Task("", one) for one in jobs]
    drafts = [
        ({"name": one.name} if one.name else {"photo": one.job.photo if one.job else "row"}, None) for one in given
    ]
    named = _names(drafts, "")
    return [
        Task(name, one.job if clash is None else None, one.error or clash)
        for one, (name, clash) in zip(given, named, strict=True)
    ]


def _is_folder(path: str | None) -> bool:
    return path is not None and not files.is_url(path) and files.local(path).is_dir()


def _read_manifest(source: str, suffix: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows with the columns that are known, "broken" holding what is wrong with a row, and the unknown columns."""
    data = files.read(source)
    rows: list[dict[str, Any]] = []
    try:
        if suffix == ".parquet":
            rows = _parquet(data)
        elif suffix == ".csv":
            for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")):
                extra = row.pop(None, None)
                broken = {} if extra is None else {"broken": f"has {len(extra)} cells too many"}
                rows.append({**{key: _cell(key, value) for key, value in row.items() if value}, **broken})
        else:
            for line in data.decode("utf-8-sig").splitlines():
                if line.strip():
                    rows.append(_line(line))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{source!r} is no {suffix} file that can be read ({error}).") from None
    if not rows:
        raise ValueError(f"{source!r} holds no rows; give one with the columns photo and mask.")
    known = {*COLUMNS, *ALIASES, "broken"}
    unknown = sorted({str(key) for row in rows for key in row} - known)
    if not any({"photo", "image", "broken"} & set(row) for row in rows):
        raise ValueError(f"{source!r} has no column photo; its columns: {', '.join(unknown) or 'none'}.")
    kept = [{ALIASES.get(key, key): value for key, value in row.items() if key in known} for row in rows]
    for number, row in enumerate(kept, 1):
        row["row"] = number
    return kept, unknown


def _parquet(data: bytes) -> list[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError("Parquet needs pyarrow; pip install 'paintback[cluster]', or give .csv or .jsonl.") from None
    try:
        rows = parquet.read_table(io.BytesIO(data)).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"The manifest is no Parquet file that can be read ({error}).") from None
    return [
        {
            key: _cell(key, value) if isinstance(value, str) and key in ("fields", "outpaint") else value
            for key, value in row.items()
            if value is not None and not (isinstance(value, float) and math.isnan(value))
        }
        for row in rows
    ]


def _line(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        return {"broken": f"is not JSON ({error})"}
    if not isinstance(row, dict):
        return {"broken": f"is a JSON {type(row).__name__}, no object"}
    return {key: value for key, value in row.items() if value is not None}


def _cell(key: str, text: str) -> Any:
    """A CSV cell as the JSON value that its column takes; as it is where it is none."""
    kinds = {entry.name: entry.metadata["schema"]["type"] for entry in fields(Job)}.get(ALIASES.get(key, key), "string")
    try:
        if key == "outpaint":
            return [int(part) for part in text.strip("[]").split(",")]
        if key == "fields":
            return json.loads(text)
        if "integer" in kinds:
            return int(text)
        if "number" in kinds:
            return float(text)
    except ValueError:
        pass
    return text


class _Masks:
    """Finds the mask of a picture."""

    def __init__(self, masks: str | None) -> None:
        self.one: str | None = None
        self.by_stem: dict[str, list[str]] | None = None
        self.given = masks
        if masks is None:
            return
        if masks == ALPHA or (not _is_folder(masks) and PurePosixPath(masks).suffix.lower() in PICTURES):
            if any(character in masks for character in "*?["):
                pass
            else:
                self.one = masks
                return
        root, found = files.find(masks, PICTURES)
        self.by_stem = {}
        for path in found:
            whole = _stem(_relative(path, root))
            for key in {whole, "*/" + PurePosixPath(whole).name}:
                self.by_stem.setdefault(key, []).append(path)

    def of(self, relative: str) -> str | None:
        """The mask of a picture by its path in its folder.

        Raises:
            ValueError: if there is none, or more than one.
        """
        if self.one is not None or self.by_stem is None:
            return self.one
        stem = _stem(relative)
        for key in (stem, "*/" + PurePosixPath(stem).name):
            found = [path for ending in MASK_ENDINGS for path in self.by_stem.get(key + ending, [])]
            if len(found) == 1:
                return found[0]
            if found:
                raise ValueError(f"{relative!r} has {len(found)} masks ({', '.join(found)}); leave one.")
        raise ValueError(f"{relative!r} has no mask in {self.given!r}; name one {PurePosixPath(stem).name}.png.")


def _draft(row: dict[str, Any], root: str, book: _Masks, base: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A job's entries, with its name where the row gives one, and what is wrong."""
    number, given = row.pop("row", None), dict(row)
    label = "" if number is None else f"Row {number}: "
    own = {key: value for key, value in given.items() if key not in ("broken", "name")}
    data = {**base, **own}
    if "method" in own and own["method"] != base.get("method") and "fields" not in own:
        data["fields"] = {}
    if "name" in given:
        data["name"] = given["name"]
    if "broken" in given:
        return {**data, "row": number}, f"{label}it {given['broken']}."
    photo = data.get("photo")
    if not isinstance(photo, str) or not photo.strip():
        return {**data, "row": number}, f"{label}it names no photo."
    if number is not None:
        for key in ("photo", "mask"):
            path = data.get(key)
            if isinstance(path, str) and path != ALPHA and not files.is_url(path) and not Path(path).is_absolute():
                data[key] = files.join(root, path) if files.is_url(root) else str(Path(root) / path)
    if data.get("mask") is None:
        try:
            data["mask"] = book.of(_relative(data["photo"], root))
        except ValueError as error:
            return data, f"{label}{error}"
    return data, None


def _relative(path: str, root: str) -> str:
    """A path as seen from a folder, or its last part where it is not inside."""
    try:
        return str(PurePosixPath(path).relative_to(PurePosixPath(root)))
    except ValueError:
        return PurePosixPath(path).name


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _names(drafts: Sequence[tuple[dict[str, Any], str | None]], root: str) -> list[tuple[str, str | None]]:
    """A name for every draft, all different even where letters' case does not count, and what is wrong with it."""
    given: list[tuple[str, bool, str | None]] = []
    for number, (data, _) in enumerate(drafts, 1):
        name, photo = data.pop("name", None), data.get("photo")
        data.pop("row", None)
        if name is not None:
            problem = _name_problem(name)
            given.append((f"row-{number}" if problem else str(name), True, problem))
            continue
        relative = _relative(photo, root) if isinstance(photo, str) and photo.strip() else ""
        if not relative or _name_problem(relative) is not None:
            relative = f"row-{number}"
        given.append((relative, False, None))
    stems = Counter(name.casefold() if fixed else _stem(name).casefold() for name, fixed, _ in given)
    taken: set[str] = set()
    out: list[tuple[str, str | None]] = []
    for number, (name, fixed, problem) in enumerate(given, 1):
        if fixed:
            if name.casefold() in taken:
                problem, name = problem or f"The name {name!r} was given before; give another.", f"row-{number}"
        elif stems[_stem(name).casefold()] == 1:
            name = _stem(name)
        candidate, k = name, 1
        while candidate.casefold() in taken:
            k += 1
            candidate = f"{name}-{k}"
        taken.add(candidate.casefold())
        out.append((candidate, problem))
    return out


def _name_problem(name: Any) -> str | None:
    """Why a name cannot be one of a file inside the output folder."""
    if not isinstance(name, str) or not name.strip():
        return f"The name must be a text; got {name!r}."
    parts = name.split("/")
    if "\\" in name or ":" in name or any(ord(character) < 32 for character in name):
        return f"The name {name!r} holds a character that file names do not take; choose another."
    if any(part in ("", ".", "..") or part.startswith(".") or len(part.encode()) > 200 for part in parts):
        return f"The name {name!r} would not stay in the output folder as it is; give a relative path without '..'."
    return None
