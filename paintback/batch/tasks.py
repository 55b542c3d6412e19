"""What a batch is made of: from a folder, a glob or a manifest, with masks, to a list of named jobs.

A row that cannot be a job becomes a task with an error, so that it is reported with the rest.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from paintback.batch import files
from paintback.batch.job import is_mask_word
from paintback.batch.ledger import results_in
from paintback.batch.names import distinct, relative
from paintback.batch.pairs import Masks, pictures
from paintback.painting.request import Request, options

if TYPE_CHECKING:
    from paintback.models.catalogue import Sampler

__all__ = ["COLUMNS", "MANIFESTS", "Task", "name_jobs", "read_tasks", "seed_of"]

SHOWN = 5  # names in a remark
MANIFESTS = frozenset({".csv", ".jsonl", ".ndjson", ".parquet"})
ALIASES = {"image": "photo", "mask_image": "mask"}
KINDS = {one.name: one.kind for one in options(Request)}
COLUMNS = ("name", *(one.name for one in options(Request) if "manifest" in one.where))


@dataclass(frozen=True)
class Task:
    """One row of a batch.

    Attributes:
        name: of the result inside the output folder, without its suffix; forward slashes.
        request: what is to be painted, or None where the row is broken.
        error: what is wrong with the row.
        spared: files that a broken row names, which no result may be written over either.
    """

    name: str
    request: Request | None
    error: str | None = None
    spared: tuple[str, ...] = ()


def seed_of(seed: int, name: str) -> int:
    """The seed of one picture: from the batch's and the picture's name, so that others coming or going change nothing.

    >>> seed_of(0, "scans/a") == seed_of(0, "scans/a") != seed_of(0, "scans/b")
    True
    """
    text = f"{seed}/{name}".encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big")


def read_tasks(
    source: str, masks: str | None, base: dict[str, Any], *, seed: int = 0, without: Sequence[str] = ()
) -> tuple[list[Task], list[str]]:
    """The tasks of a folder, a glob or a manifest.

    Args:
        source: a folder with all below it, a glob, or a manifest (.csv, .jsonl, .parquet) with the columns `COLUMNS`,
            paths in it being relative to its own folder; each may be a URL.
        masks: a folder or glob of masks that pair by stem, one mask for all, "alpha", or None where the manifest names
            them or the masks lie beside the pictures as `x_mask.png`.
        base: the request's entries that all rows share, as JSON values; a row's own come first. A row with a method of
            its own takes that method's default fields.
        seed: of the batch; see `seed_of`.
        without: local folders below the source that are not looked into, such as the output.

    Returns:
        The tasks, names all different, and a sentence each on what was left out: the manifest's columns that mean
        nothing here, files that are no pictures, masks without a picture.

    Raises:
        ValueError: where nothing can be read at all.
    """
    suffix = PurePosixPath(source).suffix.lower()
    remarks: list[str] = []
    found: files.Found | None = None
    if suffix in MANIFESTS and not files.is_glob(source) and not _is_folder(source):
        rows, unknown = _read_manifest(source, suffix)
        if unknown:
            remarks.append(f"columns that mean nothing here: {', '.join(unknown)}.")
        root = str(PurePosixPath(source).parent) if not files.is_url(source) else source.rpartition("/")[0]
        book = Masks(masks)
    else:
        found = _without(files.find(source, pictures()), [*without, *([masks] if masks and _is_folder(masks) else [])])
        book, root = Masks(masks, found), found.root
        rows = [{"photo": one} for one in book.take(found.wanted)]
        if not rows:
            raise ValueError(f"{source!r} holds masks and no pictures; give the folder of the pictures.")
        if found.others:
            remarks.append(f"no pictures by their names, and left out: {_some(found.others, root)}.")
    drafts = [_draft(row, root, book, base) for row in rows]
    names = distinct([data for data, _ in drafts], root)
    samplers: dict[str, Sampler] = {}
    tasks = []
    for (data, error), (name, clash) in zip(drafts, names, strict=True):
        error = error or clash
        if error is None:
            try:
                given = {key: value for key, value in data.items() if key != "name"}
                tasks.append(Task(name, _request({"seed": seed_of(seed, name), **given}, samplers)))
                continue
            except ValueError as problem:
                error = str(problem)
        spared = [data.get(key) for key in ("photo", "mask")] + _listed(data.get("reference_images"))
        tasks.append(Task(name, None, error, tuple(one for one in spared if isinstance(one, str) and one.strip())))
    if lonely := book.unused():
        remarks.append(f"masks without a picture: {_some(lonely, book.root)}.")
    return tasks, remarks


def _request(data: dict[str, Any], samplers: dict[str, Sampler]) -> Request:
    """The request of a row, with the method, the fields and the steps that the model's card recommends.

    Args:
        data: entries.
        samplers: recommended by the models that were met so far.

    Raises:
        ValueError: for what does not fit, or a method or field that there is not.
    """
    from paintback.models.catalogue import recommended
    from paintback.painting.quality import resolve

    request = Request.parse(data)
    request.check_files()
    key = f"{request.model} {request.step_distilled}"
    if key not in samplers:
        samplers[key] = recommended(request.model, request.step_distilled)
    return resolve(request, samplers[key])


def name_jobs(jobs: Sequence[Request | Task]) -> list[Task]:
    """Tasks of requests made in Python, named by their pictures."""
    given = [one if isinstance(one, Task) else Task("", one) for one in jobs]
    drafts = [
        {"name": one.name} if one.name else {"photo": one.request.photo if one.request else "row"} for one in given
    ]
    return [
        Task(name, one.request if clash is None else None, one.error or clash, one.spared)
        for one, (name, clash) in zip(given, distinct(drafts, ""), strict=True)
    ]


def _some(paths: Sequence[str], root: str) -> str:
    """The first few of some paths, and how many more there are."""
    more = len(paths) - SHOWN
    return ", ".join(relative(path, root) for path in paths[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _without(found: files.Found, closed: Sequence[str]) -> files.Found:
    """What was found, but for folders that are not looked into, and for what earlier runs wrote into the others."""
    if files.is_url(found.root):
        return found
    above = Path(found.root).resolve()
    folders = {Path(folder).resolve() for folder in closed}
    results = {path for folder in folders for path in results_in(folder)}

    def is_open(path: str) -> bool:
        resolved = Path(path).resolve()
        return resolved not in results and not any(
            folder in resolved.parents for folder in folders if folder != above and folder not in above.parents
        )

    return replace(
        found,
        wanted=[one for one in found.wanted if is_open(one)],
        others=[one for one in found.others if is_open(one)],
    )


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
            key: _cell(key, value)
            if isinstance(value, str) and KINDS.get(key) in ("fields", "sides", "files")
            else value
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
    kind = KINDS.get(ALIASES.get(key, key))
    try:
        if kind == "sides":
            return [int(part) for part in text.strip("[]").split(",")]
        if kind == "fields" or (kind == "files" and text.startswith("[")):
            return json.loads(text)
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "flag":
            return {"true": True, "false": False}.get(text.strip().lower(), text)
    except ValueError:
        pass
    return text


def _beside(path: Any, root: str) -> Any:
    """A path of a manifest, seen from its folder; what is none as it is."""
    if not isinstance(path, str) or files.is_url(path) or Path(path).is_absolute():
        return path
    return files.join(root, path) if files.is_url(root) else str(Path(root) / path)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _draft(row: dict[str, Any], root: str, book: Masks, base: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
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
        return data, f"{label}it {given['broken']}."
    photo = data.get("photo")
    if not isinstance(photo, str) or not photo.strip():
        return data, f"{label}it names no photo."
    if number is not None:
        for key in ("photo", "mask"):
            if not is_mask_word(data.get(key)):
                data[key] = _beside(data.get(key), root)
        if "reference_images" in own:
            data["reference_images"] = [_beside(path, root) for path in _listed(own["reference_images"])]
    if data.get("mask") is None:
        try:
            data["mask"] = book.of(relative(data["photo"], root))
        except ValueError as error:
            if not any(data.get("outpaint") or ()):
                return data, f"{label}{error}"
    return data, None
