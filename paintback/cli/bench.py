"""`paintback bench`: the methods against exact posteriors, and on photographs with holes."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paintback.cli.bench_images import images, report, suites, tune
from paintback.cli.output import Format, emit, format_option, quiet_option, remark, working

if TYPE_CHECKING:
    from paintback.bench.posterior import Cell, Score
    from paintback.methods.base import Method

__all__ = ["bench", "chosen", "measured", "method_of", "write_results"]

# With the names of all methods: the settings that were measured elsewhere, or that a page speaks of.
VARIANTS = (
    "lanpaint:inner_steps=10", "lanpaint:preset=fast", "lanpaint:big=false", "ding:eta=sqrt", "ding:eta=ddpm",
    "ding:delayed=true", "dps:zeta=0.3", "dps:zeta=0.1", "mcg:alpha=1", "mmps:eta=1", "pigdm:form=posterior",
    "pigdm:form=posterior:eta=0", "diffpir:zeta=0.3", "ddnm:eta=1", "daps:step_size=0.001", "reddiff:lr=0.2",
    "flowchef:loss=norm", "repaint:repeats=5:jump_length=1", "psld:omega=0.1", "gradpaint:fraction=1",
    "copaint:repeats=2", "mmps:iterations=4", "fmm:iterations=1:eta=0", "fmm:iterations=1",
)  # fmt: skip


@click.group()
def bench() -> None:
    """Measure the methods."""


def method_of(text: str) -> Method:
    """The method of a text NAME[:field=value...].

    Raises:
        ValueError: for an unknown name or field, or a value out of range.
    """
    from paintback import methods
    from paintback.cli import fields

    name, *pairs = text.split(":")
    return methods.get(name, **fields.parse(type(methods.get(name)), pairs))


def chosen(text: str) -> dict[str, Method]:
    """Methods by label: "all", "variants" (all, and settings of some), or texts with commas between."""
    from paintback import methods

    names = methods.names()
    lists = {"all": names, "variants": sorted([*names, *VARIANTS])}
    return {label: method_of(label) for label in lists.get(text) or _split(text)}


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str) -> list[int]:
    parts = _split(text)
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"{option} takes whole numbers from 1 with commas between; got {text!r}.")
    return [int(part) for part in parts]


@bench.command()
@click.option(
    "--methods",
    "names",
    default="all",
    show_default=True,
    help="all, variants, or NAME[:field=value...],...",
)
@click.option("--problems", default="A,B,C,D,E,F", show_default=True, help="A B C C2 D E F, and A-noisy and so on.")
@click.option("--steps", default="10,20,50,100", show_default=True, help="Grid intervals.")
@click.option("--particles", type=click.IntRange(10), default=4000, show_default=True, help="Samples of a run.")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Runs of each kind.")
@click.option(
    "--schedule",
    type=click.Choice(["paper", "vp", "flow", "edm"]),
    default="paper",
    show_default=True,
    help="Of the model; paper: flow for the methods made for it, else VP.",
)
@click.option(
    "--grid",
    type=click.Choice(["uniform", "linspace", "karras", "log_snr", "quadratic", "noisy_end"]),
    default="uniform",
    show_default=True,
    help="Times; linspace: 1 to 0.001, as Euler's in diffusers.",
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@format_option
@quiet_option
def posterior(
    names: str,
    problems: str,
    steps: str,
    particles: int,
    seeds: int,
    schedule: str,
    grid: str,
    threads: int,
    out: Path,
    form: Format,
    quiet: bool,
) -> None:
    """Measure methods against exact posteriors.

    OUT gets posterior.json, posterior.md and posterior.png (KL against cost). Every finished run is kept in
    OUT/cells.jsonl and not made again; delete that file after changing a method's code.
    """
    numbers, wanted = _numbers(steps, "--steps"), _split(problems)
    _check_labels(methods := chosen(names))
    import torch

    from paintback.bench import posterior as suite
    from paintback.bench import posterior_report as report

    report.pyplot()  # before the hours, not after
    torch.set_num_threads(threads)
    todo = suite.cells(methods, wanted, numbers, seeds, particles, schedule, grid)  # type: ignore[arg-type]
    results = measured(todo, out, quiet)
    rows = suite.summarise(results)
    refused: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if not row.evaluations:
            refused.setdefault((row.label, row.note), []).append(row.problem)
    for (label, note), where in refused.items():
        remark(f"{label} was left out of {', '.join(dict.fromkeys(where))}: {note}")
    rows = [row for row in rows if row.evaluations]
    data = report.to_json(rows, report.protocol(particles, seeds, schedule, grid))
    write_results(out, "posterior", data, report.markdown(rows, particles), report.plot(rows), form)


def measured(cells: Sequence[Cell], out: Path, quiet: bool) -> list[tuple[Cell, Score]]:
    """The runs of a study on closed-form problems; those that OUT has are not made again."""
    from paintback.bench import posterior as suite

    store, results = suite.Store(out / "cells.jsonl"), []
    with working(len(cells), quiet=quiet) as bar:
        for cell, score in suite.run(cells, store, lambda c: bar.part(f"{c.problem} {c.label}, {c.steps} steps")):
            results.append((cell, score))
    return results


def write_results(out: Path, stem: str, data: str, text: str, image: bytes, form: Format) -> None:
    """Writes STEM.json, STEM.md and STEM.png to OUT, and says what was found on stdout."""
    from paintback.images.encoding import write_whole

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{stem}{suffix}" for suffix in (".json", ".md", ".png")]
    for path, content in zip(paths, (data.encode(), text.encode(), image), strict=True):
        write_whole(content, path)
    if form == "json":
        click.echo(data, nl=False)
    else:
        emit(form, None, text)
        remark("wrote " + ", ".join(map(str, paths)) + ".")


def _check_labels(methods: dict[str, Method]) -> None:
    if not methods:
        raise ValueError("--methods names no method; give all, variants, or names with commas between.")


@bench.command()
@click.option(
    "--photos", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of pictures."
)
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a file.")
@click.option(
    "--method",
    "texts",
    multiple=True,
    metavar="NAME[:FIELD=VALUE...]",
    help="May be repeated.  [default: ding, where no --qualities are given]",
)
@click.option("--qualities", help="fast, good or best, or several with commas: the model's own samplers.")
@click.option("--steps", type=click.IntRange(1), default=25, show_default=True, help="Grid intervals.")
@click.option("--evaluations", type=click.IntRange(1), help="In place of --steps: as many steps as this pays for.")
@click.option(
    "--kinds",
    default="scratches,text,box",
    show_default=True,
    help="Of holes; also strip, scattered, dust, ellipse, wide-ellipse, quarter, outpaint, half, sky and object.",
)
@click.option("--sizes", help="Of every kind: holes of as many pixels as squares of these sides have.")
@click.option("--samples", type=click.IntRange(1), default=8, show_default=True, help="Of every hole.")
@click.option(
    "--crop",
    type=click.IntRange(0),
    default=128,
    show_default=True,
    help="Side of the crops, pixels; 0: whole pictures.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of masks and samples.")
@click.option("--limit", type=click.IntRange(1), help="How many pictures.  [default: all]")
@click.option("--classical/--no-classical", default=True, show_default=True, help="Run OpenCV and scikit-image too.")
@click.option(
    "--lpips",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Weights of LPIPS (safetensors).  [default: PSNR alone]",
)
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False), help="Folder for what was painted.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Of the network.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@format_option
def holes(
    photos: Path,
    model: str,
    texts: Sequence[str],
    qualities: str | None,
    kinds: str,
    sizes: str | None,
    form: Format,
    **given: Any,
) -> None:
    """Paint back holes in photographs and score PSNR and LPIPS in them."""
    wanted = [] if qualities is None else _split(qualities)
    chosen_methods = {text: method_of(text) for text in texts or (() if wanted else ("ding",))}
    missing = [name for name in ("cv2", "skimage") if given["classical"] and importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"The classical fillers need {' and '.join(missing)}; install them with `pip install 'paintback[bench]'`, "
            "or give --no-classical."
        )
    import torch

    from paintback.bench import holes as suite
    from paintback.painting.request import QUALITIES
    from paintback.tasks.inpaint import Inpainter

    if unknown := [one for one in wanted if one not in QUALITIES]:
        raise ValueError(f"--qualities are of {', '.join(QUALITIES)}; got {unknown[0]!r}.")
    threads, steps, evaluations, dtype = (given.pop(name) for name in ("threads", "steps", "evaluations", "dtype"))
    if threads is not None:
        torch.set_num_threads(threads)
    scores = suite.compare_holes(
        photos,
        Inpainter.from_pretrained(model, torch_dtype=None if dtype is None else getattr(torch, dtype)),
        chosen_methods,
        num_inference_steps=steps
        if evaluations is None
        else {label: suite.steps_within(method, evaluations) for label, method in chosen_methods.items()},
        qualities=wanted,
        kinds=_split(kinds),
        sizes=[] if sizes is None else _numbers(sizes, "--sizes"),
        **given,
    )
    if not scores:
        raise ValueError(f"{photos} holds no picture ({', '.join(suite.SUFFIXES)}).")
    rows = [{k: None if v != v else v for k, v in asdict(score).items()} for score in scores]  # some may be NaN
    emit(form, rows, suite.table(scores))


@bench.command()
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a file.")
@click.option("--method", "text", metavar="NAME[:FIELD=VALUE...]", help="Method.  [default: the model's own]")
@click.option("--steps", type=click.IntRange(1), help="Grid intervals.  [default: the model's own]")
@click.option("--size", type=click.IntRange(16), default=512, show_default=True, help="Side of the picture, pixels.")
@click.option("--hole", type=click.IntRange(1), default=64, show_default=True, help="Side of the hole, pixels.")
@click.option("--pairs", type=click.IntRange(1), default=3, show_default=True, help="Calls, each beside bare forwards.")
@click.option("--prompt", help="For models that read text; with it there is guidance.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@format_option
def overhead(
    model: str,
    text: str | None,
    steps: int | None,
    size: int,
    hole: int,
    pairs: int,
    prompt: str | None,
    threads: int | None,
    form: Format,
) -> None:
    """Time a call against the bare forwards of the network, and measure its memory."""
    import torch

    from paintback.bench.overhead import measure_overhead
    from paintback.tasks.inpaint import Inpainter

    if threads is not None:
        torch.set_num_threads(threads)
    found = measure_overhead(
        Inpainter.from_pretrained(model),
        None if text is None else method_of(text),
        size=size,
        hole=hole,
        num_inference_steps=steps,
        pairs=pairs,
        prompt=prompt,
    )
    shapes = ", ".join(f"{count} of {shape}" for shape, count in found.shapes.items())
    memory = ""
    if found.peak_memory_bytes is not None and found.bare_peak_memory_bytes is not None:
        peak, bare = found.peak_memory_bytes / 1e6, found.bare_peak_memory_bytes / 1e6
        memory = f"; {peak:.0f} MB at the peak, {bare:.0f} MB of the bare forwards"
    emit(
        form,
        asdict(found),
        f"{found.seconds:.2f} s for {found.evaluations:g} evaluations ({shapes}); bare forwards "
        f"{found.bare_seconds:.2f} s; ratio {found.ratio:.3f}{memory}",
    )


@bench.command()
@click.option(
    "--methods",
    "names",
    default="gibbs,repaint:jump_length=1:repeats=4,lanpaint,ding,flowchef,fmm",
    show_default=True,
    help="NAME[:field=value...],...",
)
@click.option("--steps", type=click.IntRange(1), default=8, show_default=True, help="Grid intervals.")
@click.option("--evaluations", type=click.IntRange(1), help="In place of --steps: as many steps as this pays for.")
@click.option("--particles", type=click.IntRange(10), default=2000, show_default=True, help="Samples of a run.")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Runs of each.")
@format_option
def distilled(names: str, steps: int, evaluations: int | None, particles: int, seeds: int, form: Format) -> None:
    """Measure methods on ideal step-distilled models, whose picture is the end of the ODE."""
    _check_labels(methods := chosen(names))
    from paintback.bench import distilled as suite

    runs = {label: (method, steps) for label, method in methods.items()}
    if evaluations is not None:
        runs = suite.at_cost(methods, evaluations)
        for label in methods.keys() - runs.keys():
            remark(f"{label} costs more than {evaluations} evaluations in one step, and was left out.")
    rows = suite.measure(runs, particles=particles, seeds=seeds)
    floors = {problem: suite.floor(problem, particles, seeds) for problem in suite.PROBLEMS}
    emit(form, {"rows": [asdict(row) for row in rows], "floors": floors}, suite.table(rows, floors))


@bench.command()
@click.option("--device", help="cuda, cuda:1.  [default: cuda where there is one]")
@click.option("--models", "names", metavar="NAME,...", help="sd15, sdxl, sd35m, flux, wan, adm256.  [default: all]")
@click.option("--parts", metavar="NAME,...", help="sync, cost, memory, offload, batch, compile, half, papers.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, help="Stop then.")
@click.option("--dry", is_flag=True, help="Tiny networks on the CPU, to see that everything runs.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder: results.jsonl, at-size.md."
)
@format_option
def pipelines(
    device: str | None,
    names: str | None,
    parts: str | None,
    minutes: float,
    dry: bool,
    out: Path | None,
    form: Format,
) -> None:
    """Measure pipelines of released sizes, with random weights, beside the bare pipelines."""
    from paintback.bench.pipelines import FAMILIES, PARTS, measure_pipelines, page

    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    records = measure_pipelines(
        None if out is None else out / "results.jsonl",
        device=device,
        names=tuple(FAMILIES) if names is None else _split(names),
        parts=PARTS if parts is None else _split(parts),
        minutes=minutes,
        dry=dry,
        say=lambda record: remark(" ".join(f"{name}={value}" for name, value in record.items())),
    )
    if out is not None:
        (out / "at-size.md").write_text(page(records), encoding="utf-8")
    emit(form, records, page(records))


for command in (suites, images, tune, report):
    bench.add_command(command)
