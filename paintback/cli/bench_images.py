"""`paintback bench suites`, `images`, `tune` and `report`: the methods on pictures, at equal cost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paintback.cli.output import Format, emit, format_option, quiet_option, remark, table

if TYPE_CHECKING:
    from paintback.bench.pictures.benchmark import Setting

__all__ = ["images", "report", "suites", "tune"]

FEW = 64  # holes below which a search is not worth its name


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a suite is measured with; the same for `images` and `tune`."""
    folder = click.Path(path_type=Path, exists=True, file_okay=False)
    file = click.Path(path_type=Path, exists=True, dir_okay=False)
    for option in reversed(
        [
            click.argument("suite"),
            click.option("--data", required=True, type=folder, help="Folder of the suite's data."),
            click.option("--model", help="A name, path or Hub id.  [default: the suite's]"),
            click.option("--limit", type=click.IntRange(1), help="How many pictures.  [default: the suite's]"),
            click.option("--lpips", type=file, help="Weights of LPIPS (safetensors).  [default: without]"),
            click.option("--clip", help="Folder or Hub id of a CLIP model.  [default: without]"),
            click.option("--batch", type=click.IntRange(1), help="Samples painted at once.  [default: by size]"),
            click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads."),
            click.option("--device", help="Torch device."),
            click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Of the network."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@format_option
def suites(form: Format) -> None:
    """List the suites: what `bench images` and `bench tune` measure on."""
    from paintback.bench.pictures.suite import load_suite, suite_names

    rows, lines = [], []
    for suite in map(load_suite, suite_names()):
        names = [mask["name"] for mask in suite.masks]
        rows.append(
            {
                "name": suite.name,
                "title": suite.title,
                "size": suite.size,
                "model": suite.model,
                "masks": names,
                "metrics": suite.metrics,
                "data": suite.data["needs"],
                "source": suite.source,
            }
        )
        told = [("size", f"{suite.size} x {suite.size}"), ("model", suite.model), ("masks", ", ".join(names))]
        told += [("metrics", ", ".join(suite.metrics)), ("data", suite.data["needs"])]
        told += [("source", suite.source)] if suite.source else []
        lines.append(f"{suite.name}: {suite.title}\n{table(told, indent='  ')}")
    emit(form, rows, "\n\n".join(lines))


@click.command()
@setting_options
@click.option("--methods", "names", default="all", show_default=True, help="all, or NAME[:field=value...],...")
@click.option("--budget", type=click.IntRange(1), help="Evaluations and gradients of a sample.  [default: 50]")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Of a sample, in place of --budget.")
@click.option(
    "--tuned",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Record of `bench tune`: its best fields for methods named without fields.",
)
@click.option("--first", type=click.IntRange(1), help="Paint only so many pictures for now; the next run goes on.")
@click.option("--fid/--no-fid", default=False, show_default=True, help="FID by its standard network.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Cells at a time.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where.")
@click.option("--address", help="Of a Ray cluster.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@quiet_option
def images(
    suite: str,
    names: str,
    budget: int | None,
    seconds: float | None,
    tuned: Path | None,
    fid: bool,
    workers: int,
    engine: str,
    address: str | None,
    out: Path,
    quiet: bool,
    **given: Any,
) -> None:
    """Paint SUITE's holes with methods at equal cost, and score them.

    SUITE is a name from `paintback bench suites`, or the path of a .json. Every method runs in a process of its own.
    OUT gets the pictures with their cost and scores (Parquet), results.parquet and summary.json; a run that was ended
    goes on where it was. `paintback bench report OUT` makes tables and pictures of it.

    An evaluation is one call of the denoiser for one sample: under guidance, where the network sees two rows, it is
    one too. A gradient counts as one more.
    """
    if budget is not None and seconds is not None:
        raise ValueError("Give --budget or --seconds, not both.")
    from paintback.bench.pictures import benchmark, runner, summary
    from paintback.bench.pictures.suite import load_suite

    chosen = load_suite(suite)
    labels, fields = _labels(names, tuned)
    cells, refused = runner.cells_of(labels, None if seconds is not None else budget or 50, seconds, fields)
    for one in refused:
        remark(f"{one.cell.label} was left out: {one.error}")
    with _Watch(len(cells), quiet) as watch:
        finished = benchmark.run_benchmark(
            chosen, _setting(given, fid=fid), cells, out,
            workers=workers, engine=engine, address=address, progress=watch.see,  # type: ignore[arg-type]
        )  # fmt: skip
    failed = [one for one in finished if one.error is not None]
    for one in failed:
        remark(f"{one.cell.key}: {one.error}")
    if len(failed) < len(finished) or summary.read_results(out):
        remark("wrote " + ", ".join(map(str, summary.write_summary(out))) + ".")
    if failed:
        remark(f"{len(failed)} of {len(finished)} methods failed; say the same again to try them once more.")
        sys.exit(1)


@click.command()
@setting_options
@click.option("--methods", "names", default="all", show_default=True, help="all, or names with commas between.")
@click.option("--budget", type=click.IntRange(1), default=50, show_default=True, help="Evaluations and gradients.")
@click.option("--trials", type=click.IntRange(1), default=12, show_default=True, help="Of each method.")
@click.option(
    "--rounds", type=click.IntRange(1), default=1, show_default=True, help="Each drops the worse half of the trials."
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Record (JSON).")
@format_option
def tune(suite: str, names: str, budget: int, trials: int, rounds: int, out: Path, form: Format, **given: Any) -> None:
    """Search the methods' fields and grids on SUITE's pictures of validation.

    Each method has as many trials, the first with its defaults, and the same choice of grids. With --rounds 3 all
    trials are painted on a quarter of the pictures, the better half on half of them, and the better half of these on
    all. Fewer than 64 holes in the last round hardly tell settings apart. Say the same again to go on after an
    interruption.
    """
    from paintback import methods
    from paintback.bench.pictures import benchmark, tuning
    from paintback.bench.pictures.suite import load_suite

    wanted = methods.names() if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise ValueError("--methods names no method; give all, or names with commas between.")
    for name in wanted:
        methods.get(name)  # complains before anything is painted
    chosen = load_suite(suite)
    if chosen.tunes_on_reported:
        remark(
            f"the suite {chosen.name} reports its pictures of validation too; give --data that it does not report on."
        )
    record = benchmark.run_tuning(
        chosen, _setting(given), wanted, out,
        budget=budget, trials=trials, rounds=rounds, progress=lambda name, trial: None,
    )  # fmt: skip
    if (holes := record["protocol"]["holes"][-1]) < FEW:
        remark(
            f"{holes} holes hardly tell settings apart; give the suite more pictures to tune on ({FEW} holes or more)."
        )
    lines = ["| method | default | best | fields |", "|---|---|---|---|"]
    for name in wanted:
        entry = record["methods"][name]
        first, best = entry["trials"][0], entry["best"]
        if best is None:
            lines.append(f"| {name} | {first.get('error', '')} | | |")
            continue
        shown = tuning.label_of("", tuning.best_fields(record, name)).lstrip(":") or "defaults"
        lines.append(f"| {name} | {first.get('value', float('nan')):.4f} | {best['value']:.4f} | {shown} |")
    emit(form, record, "\n".join(lines))


@click.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="For the grid of pictures.")
@click.option("--rows", type=click.IntRange(1), default=8, show_default=True, help="Pictures of the grid.")
def report(results: Path, out: Path, data: Path | None, rows: int) -> None:
    """Make tables, plots and a grid of pictures of RESULTS.

    OUT gets NAME.html, which holds all in one file, NAME.md, and its figures, NAME being the suite's.
    """
    from paintback.bench.pictures import report as maker

    remark("wrote " + ", ".join(map(str, maker.write_report(results, out, data=data, rows=rows))) + ".")


def _setting(given: dict[str, Any], fid: bool = False) -> Setting:
    from paintback.bench.pictures.benchmark import Setting

    return Setting(**given, fid=fid)


def _labels(names: str, tuned: Path | None) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Methods and their fields by label."""
    from paintback import methods
    from paintback.bench.pictures import tuning
    from paintback.cli import fields as reader
    from paintback.models.catalogue import TRAINED

    record = None if tuned is None else tuning.read_tuning(tuned)
    labels: dict[str, Any] = {}
    fields: dict[str, dict[str, Any]] = {}
    for text in methods.names() if names == "all" else [part.strip() for part in names.split(",") if part.strip()]:
        name, *pairs = text.split(":")
        if name == TRAINED and not pairs:
            labels[name] = None
            continue
        own = reader.parse(type(methods.get(name)), pairs)
        if record is not None and not pairs:
            own = tuning.best_fields(record, name)
        label = tuning.label_of(name, own)
        labels[label], fields[label] = methods.get(name, **own), own
    if not labels:
        raise ValueError("--methods names no method; give all, or names with commas between.")
    return labels, fields


class _Watch:
    """A bar on stderr: cells, samples of the present one, time left."""

    def __init__(self, cells: int, quiet: bool) -> None:
        from tqdm import tqdm

        self.lock, self.done = threading.Lock(), {"": 0}
        self.cells = cells
        self.bar: Any = tqdm(total=0, disable=True if quiet else None, unit="sample", dynamic_ncols=True)

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def see(self, now: Any) -> None:
        """One part more; the cells that have not begun count as long as the present one."""
        with self.lock:
            before = self.done.get(now.cell.key)
            self.done[now.cell.key] = now.painted
            self.bar.total = now.of * self.cells
            self.bar.set_description(now.cell.label, refresh=False)
            if before is None:
                before = 0
            self.bar.update(now.painted - before)
