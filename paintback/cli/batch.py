"""`paintback batch`: a folder, a glob or a manifest of pictures in, a folder of results out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from paintback.batch import files
from paintback.cli.options import Command, given, request_options, said
from paintback.cli.output import LINES_EVERY, Format, duration, emit, format_option, quiet_option, remark
from paintback.cli.results import dry_option
from paintback.painting.request import Option, Request

__all__ = ["batch"]

SHOWN = 20  # failures named in the text; the manifest has all


def _of_all(one: Option) -> bool:
    """Whether an option may be said for all pictures of a batch at once."""
    return not one.clips and ("manifest" in one.where or one.group == "machine" or one.name == "model")


@click.command(cls=Command)
@click.argument("source", metavar="IN", type=click.Path())
@click.option(
    "--masks",
    metavar="MASKS",
    help="Folder or glob paired by stem, one mask for all, alpha, auto:WORDS.  [default: beside]",
)
@click.option("-o", "--out", required=True, help="Folder or URL of the results, made if missing.")
@request_options(Request, wanted=_of_all)
@click.option(
    "--suffix",
    type=click.Choice([".png", ".jpg", ".webp", ".tif", ".bmp", ".ppm"]),
    default=".png",
    show_default=True,
    help="Format of the results.",
)
@click.option("--batch", "size", type=click.IntRange(1), default=8, show_default=True, help="Pictures of one batch.")
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    help="GB of one batch, at most.  [default: 2; on CUDA four fifths of what is free]",
)
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where it runs."
)
@click.option("--address", help="Ray cluster: auto, host:port, ray://host:port.  [default: one on this machine]")
@click.option("--workers", type=click.IntRange(1), help="Of Ray.  [default: one a GPU, or one a CPU]")
@dry_option
@format_option
@quiet_option
def batch(source: str, masks: str | None, out: str, dry_run: bool, form: Format, quiet: bool, **values: Any) -> None:
    """Paint back many pictures.

    IN is a folder with all below it, a glob in quotes, or a manifest (.csv, .jsonl, .parquet) with the columns photo,
    mask, and where wanted name and any option of one picture, such as prompt, seed, method, fields, steps, quality. All
    of them may be URLs such as s3://. OUT gets the pictures and manifest.jsonl; run again, it skips what is done and
    redoes what failed. Ctrl-C finishes the batch in hand.
    """
    from paintback.batch.run import foresee, run
    from paintback.batch.tasks import read_tasks
    from paintback.cli.job import with_fields
    from paintback.models.catalogue import recommended
    from paintback.painting.quality import resolve
    from paintback.randomness import seed_from_system

    how = {name: values.pop(name) for name in ("suffix", "engine", "address", "workers")}
    size, most = values.pop("size"), values.pop("memory")
    memory = None if most is None else int(most * 2**30)
    request = said(Request, values)
    own = recommended(request.model, request.step_distilled)
    request = with_fields(request, values["fields"], own.method)
    resolve(request, own)  # what is wrong with all pictures is said at once
    base = {**given(values), "fields": request.fields}
    seed = base.pop("seed", 0)
    if seed == -1:
        seed = seed_from_system()
        remark(f"--seed {seed} goes on with this batch.")
    without = [] if files.is_url(out) else [out]
    tasks, remarks = read_tasks(source, masks, base, seed=seed, without=without)
    for text in remarks:
        remark(text)
    if dry_run:
        from paintback.batch.planning import plan_all
        from paintback.cli.plans import tell_all

        tell_all(plan_all(*foresee(tasks, out, engine=how["engine"], suffix=how["suffix"])), form)
        return
    with _shown(len(tasks), quiet=quiet) as progress:
        report = run(tasks, out, batch=size, memory=memory, progress=progress, **how)
    manifest = files.join(out, "manifest" if files.is_url(out) else "manifest.jsonl")
    data = {
        "out": out,
        "manifest": manifest,
        "total": report.total,
        "skipped": len(report.skipped),
        "done": len(report.done),
        "failed": [{"name": record["name"], "error": record["error"]} for record in report.failed],
        "missing": report.missing,
        "seconds": round(report.seconds, 3),
        "stopped": report.stopped,
    }
    lines = [f"{record['name']}: {record['error']}" for record in report.failed[:SHOWN]]
    if len(report.failed) > SHOWN:
        lines.append(f"and {len(report.failed) - SHOWN} more failures, in {manifest}")
    lines.append(
        f"{out}  {len(report.done)} done, {len(report.skipped)} done before, {len(report.failed)} failed, "
        f"{report.missing} missing  {report.seconds:.1f} s"
    )
    emit(form, data, "\n".join(lines))
    if report.stopped:
        remark("the same command does the rest.")
        raise KeyboardInterrupt
    if report.failed:
        sys.exit(1)


@contextmanager
def _shown(total: int, *, quiet: bool) -> Iterator[Callable[[Any], None] | None]:
    """A bar with the time left on stderr; where that is no terminal, a line now and then."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(now: Any) -> None:
            nonlocal last
            if time.monotonic() - last >= LINES_EVERY:
                last = time.monotonic()
                left = "" if now.left is None else f", {duration(now.left)} left"
                remark(f"{now.skipped + now.done} of {now.total} done, {now.failed} failed{left}.")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def update(now: Any) -> None:
            words = [] if now.left is None else [f"{duration(now.left)} left"]
            words += [f"{now.failed} failed"] if now.failed else []
            bar.update(task, completed=now.skipped + now.done + now.failed, description=", ".join(words))

        yield update
