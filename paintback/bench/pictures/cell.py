"""A cell of the benchmark: one method at one budget, its folder, and the parts of it that are done.

A cell's folder holds `cell.json` (method, fields, steps), a Parquet file for every part (a batch of samples that were
painted together, with the pictures as PNG and what they cost), and one with the scores of every part. Each file is
written whole or not at all, so that a run can be killed at any moment and goes on where it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from paintback.bench.pictures.cases import Case
from paintback.images.encoding import write_whole
from paintback.methods.base import Method

__all__ = ["Cell", "cost_within", "parts_of", "read_rows", "write_rows"]


@dataclass(frozen=True)
class Cell:
    """One method at one budget.

    Attributes:
        label: NAME[:field=value...], by which it is reported.
        method: its name.
        fields: of the method, those that were set.
        budget: evaluations and gradients together per sample, or None.
        seconds: per sample, in place of the budget, or None.
        steps: grid intervals; None until a budget of seconds has been measured.
    """

    label: str
    method: str
    fields: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    seconds: float | None = None
    steps: int | None = None

    @property
    def key(self) -> str:
        """Label and budget."""
        return f"{self.label} @ {self.budget}" if self.seconds is None else f"{self.label} @ {self.seconds:g} s"

    def folder(self, out: Path) -> Path:
        """Where it lies; fields are part of it, so that tuned and default ones never mix."""
        text = re.sub(r"[^a-z0-9.]+", "-", self.key.lower()).strip("-")
        told = json.dumps([self.label, self.method, self.fields, self.budget, self.seconds], sort_keys=True)
        return out / "cells" / f"{text}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


def cost_within(method: Method, budget: int) -> int:
    """The most steps whose documented evaluations and gradients together are within a budget.

    Raises:
        ValueError: if a single step costs more.
    """
    for steps in range(budget, 0, -1):
        if method.evaluations(steps) + method.vjps(steps) <= budget:
            return steps
    raise ValueError(
        f"One step of {method.name} costs {method.evaluations(1) + method.vjps(1)} evaluations, more than the "
        f"budget of {budget}."
    )


def parts_of(cases: Sequence[Case], batch: int) -> list[list[Case]]:
    """Batches of cases that are painted together: of one mask, in their order."""
    parts: list[list[Case]] = []
    for case in cases:
        if not parts or len(parts[-1]) == batch or parts[-1][0].mask != case.mask:
            parts.append([])
        parts[-1].append(case)
    return parts


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Rows as one Parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(sink.getvalue(), path)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.ParquetFile(path).read(columns=columns).to_pylist()
    return rows
