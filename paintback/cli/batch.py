"""`paintback batch`: a folder, a glob or a manifest of pictures in, a folder of results out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import click

from paintback.batch import files
from paintback.cli.job import DTYPES, sampled
from paintback.cli.output import LINES_EVERY, Format, duration, emit, format_option, quiet_option, remark

__all__ = ["batch"]

SHOWN = 20  # failures named in the text; the manifest has all


@click.command()
@click.argument("source", metavar="IN")
@click.option(
    "--masks", metavar="MASKS", help="Folder or glob paired by stem, one mask for all, alpha.  [default: beside]"
)
@click.option("-o", "--out", required=True, help="Folder or URL of the results, made if missing.")
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a path.")
@click.option("--method", help="A name from `paintback methods`, or trained.  [default: the model's own]")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A field of the method; may be repeated.")
@click.option("--steps", type=click.IntRange(1), help="Sampling steps.  [default: the model's own]")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="With a picture's name it makes the picture's seed.",
)
@click.option("--prompt", help="What to paint, for models that read text.")
@click.option("--negative-prompt", help="What not to paint.")
@click.option("--guidance", type=float, help="Scale of classifier-free guidance.")
@click.option("--grow", type=float, default=0, show_default=True, help="Grow the masks by this many pixels.")
@click.option(
    "--blur", type=click.FloatRange(0), default=0, show_default=True, help="Blend the seam over this many pixels."
)
@click.option("--height", type=click.IntRange(1), help="To paint at, for models with a VAE.")
@click.option("--width", type=click.IntRange(1), help="Likewise.")
@click.option(
    "--suffix",
    type=click.Choice([".png", ".jpg", ".webp", ".tif"]),
    default=".png",
    show_default=True,
    help="Format of the results.",
)
@click.option("--batch", "size", type=click.IntRange(1), default=8, show_default=True, help="Pictures of one batch.")
@click.option(
    "--memory", type=click.FloatRange(0, min_open=True), default=2, show_default=True, help="GB of one batch, at most."
)
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where it runs."
)
@click.option("--address", help="Ray cluster: auto, host:port, ray://host:port.  [default: one on this machine]")
@click.option("--workers", type=click.IntRange(1), help="Of Ray.  [default: one a GPU, or one a CPU]")
@click.option("--device", help="cpu, cuda, mps.  [default: cuda where there is one]")
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the network.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all; of a Ray worker 1]")
@format_option
@quiet_option
def batch(
    source: str,
    masks: str | None,
    out: str,
    model: str,
    method: str | None,
    pairs: tuple[str, ...],
    steps: int | None,
    seed: int,
    prompt: str | None,
    negative_prompt: str | None,
    guidance: float | None,
    grow: float,
    blur: float,
    height: int | None,
    width: int | None,
    suffix: str,
    size: int,
    memory: float,
    engine: Literal["local", "ray"],
    address: str | None,
    workers: int | None,
    device: str | None,
    dtype: str | None,
    threads: int | None,
    form: Format,
    quiet: bool,
) -> None:
    """Paint back many pictures.

    IN is a folder with all below it, a glob in quotes, or a manifest (.csv, .jsonl, .parquet) with the columns photo,
    mask, and where wanted name, prompt, seed, method, fields, steps. All of them may be URLs such as s3://. OUT gets
    the pictures and manifest.jsonl; run again, it skips what is done and redoes what failed. Ctrl-C finishes the batch
    in hand.
    """
    from paintback.batch.run import run
    from paintback.batch.tasks import read_tasks
    from paintback.models.catalogue import Sampler, recommended

    base: dict[str, Any] = {
        "model": model,
        **sampled(recommended(model) if method is None else Sampler(method), pairs, steps),
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "guidance": guidance,
        "grow": grow,
        "blur": blur,
        "height": height,
        "width": width,
        "device": device,
        "dtype": dtype,
        "threads": threads,
    }
    without = [] if files.is_url(out) else [out]
    tasks, remarks = read_tasks(source, masks, base, seed=seed, without=without)
    for text in remarks:
        remark(text)
    with _shown(len(tasks), quiet=quiet) as progress:
        report = run(
            tasks,
            out,
            engine=engine,
            suffix=suffix,
            batch=size,
            memory=int(memory * 2**30),
            address=address,
            workers=workers,
            progress=progress,
        )
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
