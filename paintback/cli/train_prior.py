"""`paintback train prior` and `paintback train loss`: a picture prior, and how good it is on other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paintback.cli.output import Format, emit, format_option, quiet_option

if TYPE_CHECKING:
    from paintback.training.data import Pictures

__all__ = ["loss", "parse_range", "pictures_of", "prior"]

# The shipped models' recipes: what `train prior` takes where an option is left out.
RECIPES: dict[str, dict[str, Any]] = {
    "photo": {
        "widths": (64, 128, 192),
        "blocks": 2,
        "batch": 64,
        "steps": 20_000,
        "network": {"heads": 4, "place": True},
        "more": {"sigma_mean": -0.9, "sigma_std": 1.6},
    },
    "fashion": {"widths": (64, 128, 128), "blocks": 2, "batch": 128, "steps": 10_000},
}


@click.command()
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder of pictures, an IDX file, or a pack (.bin with a .csv beside it); packs may be repeated.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="Of packs: JSON of weights by source.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option(
    "--model", "recipe", type=click.Choice(list(RECIPES)), default="photo", show_default=True, help="Whose recipe."
)
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps in all, with those before a resume.")
@click.option("--batch", type=click.IntRange(1), help="Pictures of a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate.  [default: 0.001]")
@click.option("--size", type=click.IntRange(8), default=64, show_default=True, help="Side of the crops from a folder.")
@click.option("--sizes", metavar="N,N,...", help="Of packs: sides that batches take turns with.  [default: --size]")
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
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop in time, with a last checkpoint.")
@click.option("--device", default="cpu", show_default=True, help="cpu, or cuda.")
@click.option("--bf16", "--autocast", "bf16", is_flag=True, help="Compute in bfloat16.")
@click.option("--channels-last", is_flag=True, help="Memory format of the weights.")
@click.option("--compile", "compiled", is_flag=True, help="The network by torch.compile.")
@click.option("--accumulation", type=click.IntRange(1), default=1, show_default=True, help="Batches of a step.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@format_option
@quiet_option
def prior(
    data: tuple[Path, ...], out: Path, recipe: str, resume: str | None, form: Format, quiet: bool, **given: Any
) -> None:
    """Train a picture prior; `paintback inpaint --model OUT/model.safetensors` uses it.

    OUT also holds log.jsonl (step, pictures, loss, seconds) and a grid of samples now and then. It can be stopped at
    any time and resumed.
    """
    recipe_of = RECIPES[recipe]
    start = None if resume is None else Path(resume) if resume else out / "model.safetensors"
    if start is not None and not start.is_file():
        raise FileNotFoundError(f"There are no weights {start} to resume from; give their path, or leave --resume out.")

    import torch

    from paintback.models.unet import UNetConfig
    from paintback.training.learner import PriorTraining
    from paintback.training.prior import train_prior

    widths = recipe_of["widths"] if given["widths"] is None else _numbers("--widths", given["widths"])
    if given["threads"] is not None:
        torch.set_num_threads(given["threads"])
    pictures = pictures_of(data, **{name: given[name] for name in ("size", "weights", "sizes", "device")})
    network = UNetConfig(
        channels=pictures.channels,
        widths=widths,
        blocks=given["blocks"] or recipe_of["blocks"],
        **recipe_of.get("network", {}),
    )
    training = PriorTraining(
        steps=given["steps"] or (recipe_of["steps"] if given["minutes"] is None else 10**9),
        batch=given["batch"] or recipe_of["batch"],
        learning_rate=given["lr"] or PriorTraining.learning_rate,
        minutes=given["minutes"],
        bf16=given["bf16"],
        compile=given["compiled"],
        **{name: given[name] for name in ("seed", "save_every", "sample_every", "channels_last", "accumulation")},
        **recipe_of.get("more", {}),
    )
    weights = train_prior(pictures, out, network=network, training=training, resume=start, progress=not quiet)
    emit(form, {"weights": str(weights), "pictures": pictures.count}, str(weights))


def parse_range(text: str | None) -> tuple[int, int] | None:
    """The pictures that --only names, as (first, end)."""
    if text is None:
        return None
    first, _, end = text.partition(":")
    if not first.isdecimal() or not end.isdecimal():
        raise ValueError(f"--only takes two whole numbers, such as 0:5000; got {text!r}.")
    return int(first), int(end)


def pictures_of(data: Sequence[Path], *, only: str | None = None, **given: Any) -> Pictures:
    """What `--data` names: packs, or one folder or IDX file.

    Args:
        data: paths.
        only: A:B, of an IDX file.
        **given: size; and of packs weights, sizes and device, as the options have them.

    Raises:
        ValueError: for options that do not go with the data.
    """
    from paintback.training.data import open_pictures
    from paintback.training.packs import PackPictures, is_pack, read_weights

    packs = [path for path in data if is_pack(path)]
    if len(packs) < len(data):
        if len(data) > 1 or given.get("weights") is not None or given.get("sizes") is not None:
            raise ValueError("Several --data, --weights and --sizes go with packs, each a .bin with a .csv beside it.")
        if given.get("device", "cpu") != "cpu":
            raise ValueError("Training on another device than the CPU takes packs; give --data PACK.bin.")
        return open_pictures(data[0], size=given["size"], only=parse_range(only))
    if only is not None:
        raise ValueError("--only goes with an IDX file; leave it out for packs.")
    return PackPictures(
        packs,
        weights=None if given.get("weights") is None else read_weights(given["weights"]),
        size=given["size"],
        sizes=None if given.get("sizes") is None else _numbers("--sizes", given["sizes"]),
        device=given.get("device", "cpu"),
    )


@click.command()
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a file.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A folder of pictures, or an IDX file.")
@click.option("--batches", type=click.IntRange(1), default=16, show_default=True, help="Of 64 pictures each.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of crops and noise.")
@format_option
def loss(model: str, data: Path, batches: int, seed: int, form: Format) -> None:
    """Measure the training loss of a model on other pictures."""
    from paintback import models
    from paintback.models.embedded import EmbeddedModel
    from paintback.models.unet import UNet
    from paintback.training.prior import held_out_loss

    loaded = models.load(model)
    assert isinstance(loaded, EmbeddedModel)
    assert isinstance(loaded.network, UNet)
    pictures = pictures_of([data], size=loaded.training_size)
    value = held_out_loss(loaded.network, pictures, batches=batches, seed=seed)
    emit(form, {"model": model, "loss": value, "pictures": batches * 64}, f"{value:.4f}")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 2:
        raise ValueError(f"{option} takes whole numbers from 2 with commas between, such as 64,128,192; got {text!r}.")
    return numbers
