"""`paintback train prior` and `paintback train loss`: a picture prior, and how good it is on other pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paintback.cli.output import Format, emit, format_option, quiet_option

if TYPE_CHECKING:
    from paintback.training.data import Pictures
    from paintback.training.emoji import Split

__all__ = ["loss", "prior"]

# The shipped models' recipes: what `train prior` takes where an option is left out.
RECIPES: dict[str, dict[str, Any]] = {
    "photo": {"widths": (64, 128, 192), "blocks": 2, "batch": 64, "steps": 20_000},
    "fashion": {"widths": (64, 128, 128), "blocks": 2, "batch": 128, "steps": 10_000},
    "emoji": {
        "widths": (96, 160, 256, 256),
        "blocks": 1,
        "batch": 48,
        "steps": 5_000,
        "more": {"ema": 0.999, "sigma_mean": -0.8},
    },
}


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A folder of pictures, or an IDX file.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option(
    "--model", "recipe", type=click.Choice(list(RECIPES)), default="photo", show_default=True, help="Whose recipe."
)
@click.option("--labels", type=click.Path(path_type=Path), help="For emoji: en/data.json of emojibase-data.")
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
    labels: Path | None,
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
    if (recipe == "emoji") != (labels is not None):
        raise ValueError("--labels goes with --model emoji, and --model emoji with --labels; give both or neither.")
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
    pictures = open_pictures(data, size=size) if labels is None else _emoji(data, labels, "train", size)
    network = UNetConfig(channels=pictures.channels, widths=levels, blocks=blocks or given["blocks"])
    training = PriorTraining(
        steps=steps or given["steps"],
        batch=batch or given["batch"],
        learning_rate=lr or PriorTraining.learning_rate,
        seed=seed,
        save_every=save_every,
        sample_every=sample_every,
        autocast=autocast,
        **given.get("more", {}),
    )
    weights = train_prior(pictures, out, network=network, training=training, resume=start, progress=not quiet)
    emit(form, {"weights": str(weights), "steps": training.steps, "pictures": pictures.count}, str(weights))


@click.command()
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a file.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A folder of pictures, or an IDX file.")
@click.option("--batches", type=click.IntRange(1), default=16, show_default=True, help="Of 64 pictures each.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of crops and noise.")
@click.option("--labels", type=click.Path(path_type=Path), help="For emoji: en/data.json of emojibase-data.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Of emoji, which part.  [default: test]")
@click.option("--prompts", is_flag=True, help="Show the model the pictures' labels.")
@format_option
def loss(
    model: str,
    data: Path,
    batches: int,
    seed: int,
    labels: Path | None,
    split: Split | None,
    prompts: bool,
    form: Format,
) -> None:
    """Measure the training loss of a model on other pictures."""
    if labels is None and (split is not None or prompts):
        raise ValueError("--split and --prompts go with --labels; give the emoji's labels, or leave them out.")
    from paintback import models
    from paintback.models.embedded import EmbeddedModel
    from paintback.models.unet import UNet
    from paintback.training.data import open_pictures
    from paintback.training.prior import held_out_loss

    loaded = models.load(model)
    assert isinstance(loaded, EmbeddedModel)
    assert isinstance(loaded.network, UNet)
    size = loaded.training_size
    pictures = open_pictures(data, size=size) if labels is None else _emoji(data, labels, split or "test", size)
    if prompts and not loaded.vocabulary:
        raise ValueError(f"The model {model!r} takes no prompts; leave --prompts out.")
    vocabulary = loaded.vocabulary if prompts else None
    value = held_out_loss(loaded.network, pictures, batches=batches, seed=seed, vocabulary=vocabulary)
    emit(form, {"model": model, "loss": value, "pictures": batches * 64}, f"{value:.4f}")


def _emoji(data: Path, labels: Path, split: Split, size: int) -> Pictures:
    from paintback.training.emoji import EmojiPictures

    return EmojiPictures(data, labels, split=split, size=size)


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 2:
        raise ValueError(f"--widths takes whole numbers from 2 with commas between, such as 64,128,192; got {text!r}.")
    return widths
