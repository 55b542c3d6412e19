"""The command line's side of a request: what its options make of it, and where its files are now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paintback.cli.options import said
from paintback.painting.request import Request

__all__ = ["asked", "find_file"]


def asked(values: Mapping[str, Any], **files: Any) -> Request:
    """The request that options make, with the method and the steps that the model recommends, before it is loaded.

    Args:
        values: what click gives a command that has `request_options`.
        files: photo and mask.

    Raises:
        ValueError: for an unknown method or field, or an entry that does not fit.
    """
    from paintback.models.catalogue import recommended
    from paintback.painting.quality import resolve

    request = said(Request, values, **files)
    sampler = recommended(request.model, request.step_distilled)
    return resolve(with_fields(request, values.get("fields") or (), sampler.method), sampler)


def with_fields(request: Request, pairs: tuple[str, ...], recommended: str) -> Request:
    """The request with the fields that `--set` gives.

    Args:
        request: with or without a method.
        pairs: texts, NAME=VALUE.
        recommended: the method where the request names none.

    Raises:
        ValueError: for an unknown method or field, or a value that does not fit.
    """
    from paintback import methods
    from paintback.cli import fields
    from paintback.models.catalogue import TRAINED

    name = request.method or recommended
    if not pairs:
        return request
    if name == TRAINED:
        raise ValueError(f"The method {TRAINED!r} has no fields; leave --set out.")
    return request.with_(fields=fields.parse(type(methods.get(name)), pairs))


def find_file(recorded: str, beside: Path) -> Path:
    """A file by its recorded path: as it is, else seen from the folder of the PNG, else next to the PNG.

    Raises:
        ValueError: if it is at none of these places.
    """
    for path in (Path(recorded), beside.parent / recorded, beside.parent / Path(recorded).name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{beside} was made from {recorded!r}, which is not there; give the file's new path.")
