"""Paints one cell, in a process of its own: its seconds and its peak memory are its own too.

`python -m paintback.bench.pictures.worker` reads an `Order` as JSON from standard input, paints the parts that are not
there yet, and writes a JSON line for each: {"painted": samples so far, "of": all}, at last {"done": true}, or
{"error": "one sentence"}.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from paintback import methods
from paintback.bench.pictures.cases import Case, make_cases
from paintback.bench.pictures.cell import Cell, parts_of, write_rows
from paintback.bench.pictures.suite import Suite
from paintback.images.encoding import write_whole
from paintback.models.catalogue import TRAINED
from paintback.painting.layout import Policy
from paintback.tasks.inpaint import Inpainter

__all__ = ["Order", "main", "open_model", "paint_cases", "paint_cell", "wanted"]

PROBES = (4, 12)  # steps by which seconds are measured


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    Attributes:
        suite: as plain values.
        data: folder.
        limit: pictures, or None.
        model: name or path.
        cell: as plain values.
        out: folder of the results.
        batch: samples painted at once.
        threads: CPU threads.
        device: torch device, or None.
        dtype: of the network, or None.
        first: only so many pictures for now, and none of the further samples; None for all.
    """

    suite: dict[str, Any]
    data: str
    limit: int | None
    model: str
    cell: dict[str, Any]
    out: str
    batch: int
    threads: int
    device: str | None
    dtype: str | None
    first: int | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def wanted(suite: Suite, cell: Cell, cases: Sequence[Case]) -> list[Case]:
    """The cases that a cell paints: fewer for those with gradients, where the suite says so."""
    few = suite.gradient_pictures
    if few is None or cell.method == TRAINED or not methods.get(cell.method, **cell.fields).vjps(10):
        return list(cases)
    return [case for case in cases if case.number < few]


def open_model(name: str, device: str | None, dtype: str | None) -> Inpainter:
    """The model, painting every picture whole, at one scale, from noise and by its network alone.

    Methods are compared, not policies.
    """
    inpainter = Inpainter.from_pretrained(
        name, device=device, torch_dtype=None if dtype is None else getattr(torch, dtype)
    )
    inpainter.policy = Policy(widest=2**30, multiple=inpainter.policy.multiple, wide_from=0.0, own_below=0.0)
    inpainter.set_progress_bar_config(disable=True)
    return inpainter


def paint_cases(
    inpainter: Inpainter, suite: Suite, cell: Cell, cases: Sequence[Case], batch: int, steps: int
) -> list[dict[str, Any]]:
    """Paints cases of one batch.

    Returns:
        A row for each: where it belongs, the picture as PNG, evaluations, gradients, and its share of the seconds.
    """
    method = cell.method if cell.method == TRAINED else methods.get(cell.method, **cell.fields)
    hidden = []
    for case in cases:
        shown = case.truth.copy()
        shown[case.hole] = 128
        hidden.append(shown)
    prompts = [case.prompt for case in cases]
    height, width = cases[0].truth.shape[:2]
    # such a model would bring the picture to the size it learnt from; the suite's is what is measured
    own_size = (
        {"height": height, "width": width}
        if inpainter.model.codec.factor > 1 or inpainter.model.sampler.method == TRAINED
        else {}
    )
    output = inpainter(
        hidden,
        [case.hole for case in cases],
        None if all(one is None for one in prompts) else [one or "" for one in prompts],
        method=method,
        num_inference_steps=steps,
        guidance_scale=suite.guidance_scale,
        generator=[torch.Generator().manual_seed(case.seed) for case in cases],
        padding_mask_crop=max(height, width),
        output_type="picture",
        batch_size=batch,
        **own_size,
    )
    rows = []
    for case, made in zip(cases, output.images, strict=True):
        rows.append(
            {
                "picture": case.picture,
                "number": case.number,
                "mask": case.mask,
                "sample": case.sample,
                "seed": case.seed,
                "hidden": int(case.hole.sum()),
                "evaluations": output.evaluations / len(cases),
                "vjps": output.vjps / len(cases),
                "seconds": output.seconds / len(cases),
                "peak_memory_bytes": output.peak_memory_bytes,
                "png": _png(made.to_uint8().pixels),
            }
        )
    return rows


def paint_cell(order: Order, tell: Any) -> None:
    """Paints the parts of a cell that are not there yet.

    Args:
        order: what to do.
        tell: called with what `main` prints.
    """
    torch.set_num_threads(order.threads)
    suite = Suite.from_dict(order.suite, order.suite["name"])
    cell = Cell(**order.cell)
    folder = cell.folder(Path(order.out))
    first, further = make_cases(suite, Path(order.data), limit=order.limit)
    cases, more = (wanted(suite, cell, some) for some in (first, further))
    parts = [*parts_of(cases, order.batch), *parts_of(more, order.batch)]
    todo = [(part, folder / f"part-{number:05}.parquet") for number, part in enumerate(parts)]
    if order.first is not None:
        todo = [
            (part, path) for part, path in todo[: len(parts_of(cases, order.batch))] if part[0].number < order.first
        ]
    # pictures in their order, all masks of each: so a run that was ended leaves whole pictures
    todo.sort(key=lambda one: one[0][0].number)
    done = sum(len(part) for part, path in todo if path.exists())
    total = sum(len(part) for part, _ in todo)
    if done < total:
        folder.mkdir(parents=True, exist_ok=True)
        inpainter = open_model(order.model, order.device, order.dtype)
        before = folder / "cell.json"
        if cell.steps is None or cell.method == TRAINED:  # what it costs shows in running it
            known = json.loads(before.read_text(encoding="utf-8")) if before.exists() else {}
            find = _steps_in if cell.seconds is not None else _steps_of_trained
            cell = replace(cell, steps=known.get("steps") or find(inpainter, suite, cell, parts[0], order.batch))
        write_whole(json.dumps(cell.to_dict(), indent=1).encode(), before)
        assert cell.steps is not None
        paint_cases(inpainter, suite, cell, parts[0][:1], order.batch, min(cell.steps, 2))  # warms up
    for part, path in todo:
        if not path.exists():
            assert cell.steps is not None
            write_rows(paint_cases(inpainter, suite, cell, part, order.batch, cell.steps), path)
            done += len(part)
        tell({"painted": done, "of": total})
    tell({"done": True})


def _steps_in(inpainter: Inpainter, suite: Suite, cell: Cell, part: Sequence[Case], batch: int) -> int:
    """The most steps within the cell's seconds per sample, from two short runs."""
    assert cell.seconds is not None
    spent = []
    for steps in PROBES:
        paint_cases(inpainter, suite, cell, part, batch, 1)
        began = time.perf_counter()
        paint_cases(inpainter, suite, cell, part, batch, steps)
        spent.append((time.perf_counter() - began) / len(part))
    slope = max((spent[1] - spent[0]) / (PROBES[1] - PROBES[0]), 1e-9)
    steps = int(PROBES[0] + (cell.seconds - spent[0]) / slope)
    if steps < 1:
        raise ValueError(f"One step of {cell.label} takes longer than {cell.seconds:g} s; allow more.")
    return steps


def _steps_of_trained(inpainter: Inpainter, suite: Suite, cell: Cell, part: Sequence[Case], batch: int) -> int:
    """The most steps within the budget: a pipeline's own sampler may evaluate more than once in a step."""
    assert cell.budget is not None
    for steps in range(cell.budget, 0, -1):
        (row,) = paint_cases(inpainter, suite, cell, part[:1], batch, steps)
        if row["evaluations"] <= cell.budget:
            return steps
    raise ValueError(f"One step of {cell.label} costs more than the budget of {cell.budget}; allow more.")


def _png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    Image.fromarray(flat).save(sink, "PNG")
    return sink.getvalue()


def main() -> int:
    """Reads an order, paints, tells."""

    def tell(what: dict[str, Any]) -> None:
        print(json.dumps(what), flush=True)

    try:
        paint_cell(Order(**json.loads(sys.stdin.read())), tell)
    except (ValueError, OSError, RuntimeError) as error:
        tell({"error": " ".join(str(error).split()) or type(error).__name__})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
