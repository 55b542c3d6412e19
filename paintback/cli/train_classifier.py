"""`paintback train classifier`: the classifier that fills of Fashion-MNIST are measured with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paintback.cli.output import Format, emit, format_option, quiet_option

__all__ = ["classifier"]


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="An IDX file of pictures.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="The IDX file of their classes.  [default: the one beside it, labels-idx1 for images-idx3]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--epochs", type=click.IntRange(1), default=12, show_default=True, help="Passes over the pictures.")
@click.option("--batch", type=click.IntRange(2), default=256, show_default=True, help="Pictures of a step.")
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), default=4e-3, show_default=True, help="Highest learning rate."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, order and shifts.")
@click.option("--autocast", is_flag=True, help="Compute in bfloat16 where that is safe.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option(
    "--measure",
    is_flag=True,
    help="Train nothing: the accuracy on --data of the weights in --out, or the shipped ones.",
)
@format_option
@quiet_option
def classifier(
    data: Path,
    labels: Path | None,
    out: Path | None,
    lr: float,
    threads: int | None,
    measure: bool,
    form: Format,
    quiet: bool,
    **recipe: Any,
) -> None:
    """Train a small classifier of an IDX file's pictures, the yardstick of `paintback bench` for them.

    OUT gets classifier.safetensors and log.jsonl.
    """
    import torch

    from paintback.models.catalogue import WEIGHTS
    from paintback.training.classifier import (
        ClassifierTraining,
        LabelledPictures,
        accuracy,
        load_classifier,
        train_classifier,
    )

    if threads is not None:
        torch.set_num_threads(threads)
    pictures = LabelledPictures(data, labels)
    if measure:
        weights = WEIGHTS / "fashion-classifier.safetensors" if out is None else out / "classifier.safetensors"
        value = accuracy(load_classifier(weights)[0], pictures)
        told = {"weights": str(weights), "accuracy": value, "pictures": len(pictures)}
        emit(form, told, f"{100 * value:.2f} % of {len(pictures):,} pictures")
        return
    if out is None:
        raise ValueError("Training needs a folder for the results; give --out, or --measure to train nothing.")
    training = ClassifierTraining(learning_rate=lr, **recipe)
    weights = train_classifier(pictures, out, training=training, progress=not quiet)
    emit(form, {"weights": str(weights), "epochs": training.epochs, "pictures": len(pictures)}, str(weights))
