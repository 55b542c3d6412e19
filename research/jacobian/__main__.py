"""`python -m research.jacobian`: the derivative of a model's denoiser, for docs/jacobian.md."""

from __future__ import annotations

import math
from pathlib import Path

import click

from paintback.cli.output import Format, emit, format_option, quiet_option, remark, working
from research.command import run

__all__ = ["jacobian"]

LEVELS = "0.02,0.05,0.1,0.2,0.5,1,2,5,10,20,80"


def _levels(text: str) -> tuple[float, ...]:
    try:
        levels = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        levels = ()
    if not levels or not all(level > 0 and math.isfinite(level) for level in levels):
        raise ValueError(f"--levels takes positive numbers with commas between; got {text!r}.")
    return levels


@click.command()
@click.option("--model", default="fashion", show_default=True, help="A pixel model from `paintback models`, or a file.")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path, exists=True), help="A folder of pictures, or an IDX file."
)
@click.option("--levels", default=LEVELS, show_default=True, help="Noise levels sigma / alpha.")
@click.option("--pictures", type=click.IntRange(1), default=16, show_default=True, help="Whose holes are filled.")
@click.option("--spectra", type=click.IntRange(1), default=2, show_default=True, help="Of these, whose J is analysed.")
@click.option("--size", type=click.IntRange(8), default=64, show_default=True, help="Side of the crops from a folder.")
@click.option("--probes", type=click.IntRange(2), default=6, show_default=True, help="Of Hutchinson's estimate.")
@click.option("--iterations", type=click.IntRange(1), default=12, show_default=True, help="Of Lanczos.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of pictures, noise and probes.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@format_option
@quiet_option
def jacobian(
    model: str,
    data: Path,
    levels: str,
    pictures: int,
    spectra: int,
    size: int,
    probes: int,
    iterations: int,
    seed: int,
    threads: int,
    out: Path,
    form: Format,
    quiet: bool,
) -> None:
    """Measure how symmetric a denoiser's derivative is, and what its products are good for.

    OUT gets jacobian.json, jacobian.md, jacobian.png and red-square.png. Of pictures of at most 1024 entries the matrix
    is formed; of larger ones norms are estimated with --probes and the ends of the spectra with --iterations.
    """
    chosen = _levels(levels)
    import torch

    from paintback.bench.posterior_report import pyplot
    from paintback.images.encoding import write_whole
    from paintback.models import load
    from research.jacobian import report, suite

    pyplot()  # before the minutes, not after
    torch.set_num_threads(threads)
    settings = suite.Settings(chosen, pictures, min(spectra, pictures), probes, iterations, seed)
    loaded = load(model)
    denoiser = loaded.denoiser()
    x, numbers = suite.pictures_of(loaded, data, size, pictures, seed)
    with working(2 * len(chosen) + 1, quiet=quiet) as bar:
        found = list(suite.analyse(denoiser, x, settings, bar.part))
        bar.part("red square")
        squares = suite.red_square(denoiser, x[0], settings)
    files = {
        "jacobian.json": report.to_json(found, suite.protocol(loaded, model, data, x, numbers, settings)).encode(),
        "jacobian.md": (text := report.markdown(found)).encode(),
        "jacobian.png": report.plot(found),
        "red-square.png": report.squares(squares),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(content, out / name)
    if form == "json":
        click.echo(files["jacobian.json"].decode(), nl=False)
    else:
        emit(form, None, text)
        remark("wrote " + ", ".join(str(out / name) for name in files) + ".")


if __name__ == "__main__":
    run(jacobian)
