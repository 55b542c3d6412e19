"""`paintback train`: training a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paintback.cli.output import Format, emit, format_option, quiet_option
from paintback.cli.train_classifier import classifier
from paintback.cli.train_prior import loss, prior

__all__ = ["train"]


@click.group(commands=[prior, loss, classifier])
def train() -> None:
    """Train a model of your own."""


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, end = text.partition(":")
    if not first.isdecimal() or not end.isdecimal():
        raise ValueError(f"--only takes two whole numbers, such as 0:5000; got {text!r}.")
    return int(first), int(end)


@train.command()
@click.option("--model", required=True, help="Whose guidance: a model's name, or the path of its weights.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A folder of pictures, or an IDX file.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option(
    "--actor",
    type=click.Choice(["score", "pathwise", "adjoint"]),
    default="score",
    show_default=True,
    help="Score function (the paper's), the critic's slope, or backpropagation through the rollout.",
)
@click.option(
    "--known",
    type=click.Choice(["guided", "replaced"]),
    default="replaced",
    show_default=True,
    help="The known part is left to the module (the paper's), or held at what is given.",
)
@click.option("--steps", type=click.IntRange(1), default=1000, show_default=True, help="Updates in all.")
@click.option("--batch", type=click.IntRange(2), default=64, show_default=True, help="Rows of an update.")
@click.option("--rollout", type=click.IntRange(2), default=8, show_default=True, help="Solver steps of a rollout.")
@click.option(
    "--beta", type=click.FloatRange(0, min_open=True), default=0.2, show_default=True, help="Price of guidance."
)
@click.option(
    "--sigma-low",
    type=click.FloatRange(0),
    multiple=True,
    help="Below it the module is silent; with --measure any number of them, to compare.  [default: 0.5]",
)
@click.option("--exploration", type=click.FloatRange(0, min_open=True), default=0.1, show_default=True, help="Std.")
@click.option(
    "--cells",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Side of the squares that exploration moves as one (the paper's: 1).",
)
@click.option("--trace", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="0: TD, 1: Monte-Carlo.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, help="Learning rate.")
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True), default=0.98, show_default=True, help="Averaging.")
@click.option("--size", type=click.IntRange(8), default=64, show_default=True, help="Side of the crops from a folder.")
@click.option("--resume", is_flag=True, help="Go on from the state in --out.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, batches and noise.")
@click.option(
    "--save-every", type=click.FloatRange(0), default=120.0, show_default=True, help="Seconds between checkpoints."
)
@click.option("--autocast", is_flag=True, help="The model computes in bfloat16 where that is safe.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option(
    "--measure",
    type=click.IntRange(2),
    metavar="N",
    help="Train nothing: compare the guidance in --out, or the shipped one, with replacement on N pictures of --data.",
)
@click.option("--rival", type=click.Path(path_type=Path), help="Weights of `train amortized` to measure with it.")
@click.option("--beside", multiple=True, metavar="METHOD", help="Another method to measure with it, with its defaults.")
@click.option("--only", metavar="A:B", help="Of an IDX file, the pictures from A to B - 1.")
@format_option
@quiet_option
def aid(
    model: str,
    data: Path,
    out: Path,
    size: int,
    resume: bool,
    threads: int | None,
    measure: int | None,
    rival: Path | None,
    beside: tuple[str, ...],
    only: str | None,
    form: Format,
    quiet: bool,
    lr: float,
    sigma_low: tuple[float, ...],
    **recipe: Any,
) -> None:
    """Train AID's guidance beside a model; `--method aid --set guidance=OUT/aid.safetensors` uses it.

    OUT also holds log.jsonl, the learning curve on held-out masks. The run can be stopped at any time and resumed.
    """
    import torch

    from paintback.models import load
    from paintback.models.guidance import GuidanceConfig
    from paintback.training import aid_quality
    from paintback.training.aid import AidTraining, Autocast, export_guidance, train_aid
    from paintback.training.data import open_pictures

    if threads is not None:
        torch.set_num_threads(threads)
    if measure is None and (len(sigma_low) > 1 or rival is not None or beside):
        raise ValueError("Several --sigma-low, --rival and --beside go with --measure alone; leave them out to train.")
    backbone = load(model)
    pictures = open_pictures(data, size=size, only=_range(only))
    if measure is not None:
        own = out / "aid.safetensors"
        denoiser = Autocast(backbone.denoiser()) if recipe["autocast"] else backbone.denoiser()
        rows = aid_quality.measure(
            denoiser,
            pictures,
            str(own) if own.exists() else None,
            count=measure,
            rival=rival,
            sigma_lows=sigma_low,
            others=beside,
            out=out,
            progress=not quiet,
        )
        click.echo(aid_quality.to_json(rows) if form == "json" else aid_quality.table(rows))
        return
    budget = sum(p.numel() for p in backbone.network.parameters()) / 100 if backbone.network is not None else 55_000
    training = AidTraining(learning_rate=lr, mirrored=recipe["actor"] == "score" and recipe["batch"] % 2 == 0, **recipe)
    weights = train_aid(
        backbone.denoiser(),
        pictures,
        out,
        backbone=backbone.name,
        network=GuidanceConfig(channels=backbone.channels, sigma_low=sigma_low[0] if sigma_low else 0.5).within(budget),
        training=training,
        resume=resume,
        progress=not quiet,
    )
    export_guidance(weights, out / f"aid-{backbone.name}.safetensors")
    emit(form, {"weights": str(weights), "steps": training.steps, "pictures": pictures.count}, str(weights))


@train.command()
@click.option("--model", required=True, help="The shipped model, or weights of `train prior`, that it starts from.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A folder of pictures, or an IDX file.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--steps", type=click.IntRange(1), default=3000, show_default=True, help="Optimiser steps in all.")
@click.option("--batch", type=click.IntRange(1), default=128, show_default=True, help="Pictures of a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, help="Learning rate.")
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True), default=0.995, show_default=True, help="Averaging.")
@click.option("--size", type=click.IntRange(8), default=64, show_default=True, help="Side of the crops from a folder.")
@click.option("--resume", is_flag=True, help="Go on from the weights in --out.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of batches, masks and noise.")
@click.option(
    "--save-every", type=click.FloatRange(0), default=180.0, show_default=True, help="Seconds between checkpoints."
)
@click.option("--autocast", is_flag=True, help="Compute in bfloat16 where that is safe.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@format_option
@quiet_option
def amortized(
    model: str,
    data: Path,
    out: Path,
    size: int,
    lr: float,
    resume: bool,
    threads: int | None,
    form: Format,
    quiet: bool,
    **recipe: Any,
) -> None:
    """Train AID's rival, a copy of a model that takes the mask; `train aid --measure N --rival` compares the two."""
    import torch

    from paintback.models import load
    from paintback.models.unet import UNet
    from paintback.training.amortized import train_amortized
    from paintback.training.data import open_pictures
    from paintback.training.prior import PriorTraining

    if threads is not None:
        torch.set_num_threads(threads)
    backbone = load(model)
    if not isinstance(backbone.network, UNet):
        raise ValueError(f"The rival is a copy of an embedded model, and {model!r} is none; see `paintback models`.")
    pictures = open_pictures(data, size=size)
    training = PriorTraining(learning_rate=lr, **recipe)
    weights = train_amortized(
        backbone.network, pictures, out, name=backbone.name, training=training, resume=resume, progress=not quiet
    )
    emit(form, {"weights": str(weights), "steps": training.steps, "pictures": pictures.count}, str(weights))
