"""`paintback check`: whether a model works here, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paintback.cli.options import Command, request_options
from paintback.cli.output import Format, emit, format_option
from paintback.painting.request import Request

__all__ = ["check"]

MACHINE = frozenset({"device", "dtype", "offload", "threads"})


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for report.json, sheet.png."
)
@click.option("--prompt", default="a photograph of a garden", show_default=True, help="For models that read text.")
@click.option("--steps", type=click.IntRange(2), default=8, show_default=True, help="Evaluations of every run, about.")
@click.option("--size", type=click.IntRange(16), help="Side of the picture, pixels.  [default: the model's own]")
@request_options(Request, wanted=lambda one: one.name in MACHINE)
@format_option
def check(
    model: str, out: Path | None, prompt: str, steps: int, size: int | None, form: Format, **machine: Any
) -> None:
    """Look at whether MODEL works on this machine: a name, a pipeline's folder or its Hub id.

    Its pipeline runs with nothing known and must equal ours; known pixels must be exact and evaluations counted; five
    methods paint one picture, with milliseconds and peak memory beside the pipeline's own. An issue of yours should
    hold the report. The exit code is 1 where something is wrong.
    """
    import torch

    from paintback.tasks.checking import check as look

    threads = machine.pop("threads")
    if threads is not None:
        torch.set_num_threads(threads)
    dtype = machine.pop("dtype")
    report = look(
        model,
        prompt=prompt,
        num_inference_steps=steps,
        size=size,
        torch_dtype=None if dtype is None else getattr(torch, dtype),
        **machine,
    )
    if out is not None:
        import json

        from paintback.cli.sheet import sheet
        from paintback.images import write_picture

        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
        write_picture(sheet(report.pictures, 3), out / "sheet.png")
    emit(form, report.to_dict(), str(report))
    if not report.passed:
        raise SystemExit(1)
