"""`paintback train`: training a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paintback.cli.output import Format, emit, format_option, quiet_option

__all__ = ["train"]

# The shipped models' recipes: what `train prior` takes where an option is left out.
RECIPES: dict[str, dict[str, Any]] = {
    "photo": {"widths": (64, 128, 192), "blocks": 2, "batch": 64, "steps": 20_000},
    "fashion": {"widths": (64, 128, 128), "blocks": 2, "batch": 128, "steps": 10_000},
}


@click.group()
def train() -> None:
    """Train a model of your own."""


@train.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A folder of pictures, or an IDX file.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option(
    "--model", "recipe", type=click.Choice(list(RECIPES)), default="photo", show_default=True, help="Whose recipe."
)
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps in all, with those before a resume.")
@click.option("--batch", type=click.IntRange(1), help="Pictures of a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate.  [default: 0.001]")
@click.option("--size", type=click.IntRange(8), default=64, show_default=True, help="Side of the crops from a folder.")
@click.option("--widths", metavar="N,N,...", help="Channels of each level, fine to coarse.")
@click.option("--blocks", type=click.IntRange(1), help="Residual blocks of a level.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Go on from these weights; alone: from those in --out.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, batches and noise.")
@click.option(
    "--save-every", type=click.FloatRange(0), default=180.0, show_default=True, help="Seconds between checkpoints."
)
@click.option(
    "--sample-every", type=click.IntRange(1), default=2000, show_default=True, help="Steps between sample grids."
)
@click.option("--autocast", is_flag=True, help="Compute in bfloat16 where that is safe.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@format_option
@quiet_option
def prior(
    data: Path,
    out: Path,
    recipe: str,
    steps: int | None,
    batch: int | None,
    lr: float | None,
    size: int,
    widths: str | None,
    blocks: int | None,
    resume: str | None,
    seed: int,
    save_every: float,
    sample_every: int,
    autocast: bool,
    threads: int | None,
    form: Format,
    quiet: bool,
) -> None:
    """Train a picture prior; `paintback inpaint --model OUT/model.safetensors` uses it.

    OUT also holds log.jsonl (step, pictures, loss, seconds) and a grid of samples now and then. It can be stopped at
    any time and resumed.
    """
    given = RECIPES[recipe]
    levels = given["widths"] if widths is None else _widths(widths)
    start = None if resume is None else Path(resume) if resume else out / "model.safetensors"
    if start is not None and not start.is_file():
        raise FileNotFoundError(f"There are no weights {start} to resume from; give their path, or leave --resume out.")

    import torch

    from paintback.models.unet import UNetConfig
    from paintback.training.data import open_pictures
    from paintback.training.prior import PriorTraining, train_prior

    if threads is not None:
        torch.set_num_threads(threads)
    pictures = open_pictures(data, size=size)
    network = UNetConfig(channels=pictures.channels, widths=levels, blocks=blocks or given["blocks"])
    training = PriorTraining(
        steps=steps or given["steps"],
        batch=batch or given["batch"],
        learning_rate=lr or PriorTraining.learning_rate,
        seed=seed,
        save_every=save_every,
        sample_every=sample_every,
        autocast=autocast,
    )
    weights = train_prior(pictures, out, network=network, training=training, resume=start, progress=not quiet)
    emit(form, {"weights": str(weights), "steps": training.steps, "pictures": pictures.count}, str(weights))


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 2:
        raise ValueError(f"--widths takes whole numbers from 2 with commas between, such as 64,128,192; got {text!r}.")
    return widths
