"""The command line's side of a job: what `--method`, `--set` and `--steps` make of it, and where its files are now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintback.batch.job import ALPHA, DTYPES, Job, digest, hidden, is_mask_word, open_inpainter, paint, prepare

if TYPE_CHECKING:
    from paintback.models.catalogue import Sampler

__all__ = [
    "ALPHA",
    "DTYPES",
    "Job",
    "digest",
    "find_file",
    "hidden",
    "is_mask_word",
    "open_inpainter",
    "paint",
    "prepare",
    "sampled",
]


def sampled(sampler: Sampler, pairs: Sequence[str] = (), steps: int | None = None) -> dict[str, Any]:
    """A job's method, fields and steps.

    Args:
        sampler: the method with the fields and steps that go with it.
        pairs: fields from the command line, NAME=VALUE.
        steps: from the command line.

    Raises:
        ValueError: for an unknown method or field.
    """
    from paintback import methods
    from paintback.cli import fields
    from paintback.models.catalogue import TRAINED

    if sampler.method == TRAINED:
        if pairs:
            raise ValueError(f"The method {TRAINED!r} has no fields; leave --set out.")
        return {"method": TRAINED, "fields": {}, "steps": steps}  # how many go with it only the loaded model says
    given = fields.parse(type(methods.get(sampler.method)), pairs)
    method = methods.get(sampler.method, **{**sampler.fields, **given})
    return {
        "method": sampler.method,
        "fields": asdict(method),
        "steps": sampler.num_inference_steps if steps is None else steps,
    }


def find_file(recorded: str, beside: Path) -> Path:
    """A file by its recorded path: as it is, else seen from the folder of the PNG, else next to the PNG.

    Raises:
        ValueError: if it is at none of these places.
    """
    for path in (Path(recorded), beside.parent / recorded, beside.parent / Path(recorded).name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{beside} was made from {recorded!r}, which is not there; give the file's new path.")
