"""`paintback train`: training a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paintback.cli.output import Format, emit, format_option, quiet_option
from paintback.cli.train_classifier import classifier
from paintback.cli.train_prior import loss, parse_range, pictures_of, prior

if TYPE_CHECKING:
    from torch import Tensor

    from paintback.training.aid import Distance

__all__ = ["parse_range", "train"]

LEAST = 64  # side, pixels, that smaller pictures are brought to for LPIPS


@click.group(commands=[prior, loss, classifier])
def train() -> None:
    """Train a model of your own."""


def _in_colour(distance: Distance) -> Distance:
    """The same map of distances for grey pictures too, and for small ones, of which AlexNet leaves nothing."""
    from torch.nn.functional import adaptive_avg_pool2d, interpolate

    def apart(a: Tensor, b: Tensor) -> Tensor:
        side = (a.shape[-2], a.shape[-1])
        a, b = (part.expand(-1, 3, -1, -1) for part in (a, b))
        if min(side) >= LEAST:
            return distance(a, b)
        larger = [LEAST * n // min(side) for n in side]
        a, b = (interpolate(part, larger, mode="bilinear") for part in (a, b))
        return adaptive_avg_pool2d(distance(a, b), side)

    return apart


def _whole_numbers(_: click.Context, __: click.Parameter, value: str) -> int | tuple[int, ...]:
    numbers = tuple(int(part) if part.isdecimal() else 0 for part in value.split(","))
    if min(numbers) < 1:
        raise click.BadParameter(f"it takes whole numbers from 1, with commas between; got {value!r}.")
    return numbers[0] if len(numbers) == 1 else numbers


@train.command()
@click.option("--model", required=True, help="Whose guidance: a model's name, or the path of its weights.")
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder of pictures, an IDX file, or a pack (.bin with a .csv beside it); packs may be repeated.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="Of packs: JSON of weights by source.")
@click.option("--prompt", help="What is said to the model meanwhile, such as a class.")
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
    "--sigma-low", type=click.FloatRange(0), default=0.5, show_default=True, help="Below it the module is silent."
)
@click.option("--exploration", type=click.FloatRange(0, min_open=True), default=0.1, show_default=True, help="Std.")
@click.option(
    "--cells",
    metavar="N[,N...]",
    callback=_whole_numbers,
    default="1",
    show_default=True,
    help="Side of the squares that exploration moves as one (the paper's: 1); several fall in the course of training.",
)
@click.option(
    "--critic",
    type=click.Choice(["martingale", "td0"]),
    default="martingale",
    show_default=True,
    help="Martingale loss, or the moment condition of TD(0).",
)
@click.option(
    "--clock",
    type=click.Choice(["sigma", "index"]),
    default="sigma",
    show_default=True,
    help="Of the controller: the noise level, or the same time for every step.",
)
@click.option("--informed", is_flag=True, help="The critic sees the hidden picture in training.")
@click.option(
    "--local",
    type=click.IntRange(0),
    metavar="R",
    help="An action answers for the cost within R pixels of it alone, and no critic is trained.  [default: for the "
    "whole picture's]",
)
@click.option("--per-hole", is_flag=True, help="The cost is a mean over the hidden pixels, so that small holes count.")
@click.option(
    "--perceptual", type=click.FloatRange(0), default=0.0, show_default=True, help="Weight of LPIPS in the cost."
)
@click.option("--lpips", type=click.Path(path_type=Path), help="Its weights (safetensors).")
@click.option("--trace", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="0: TD, 1: Monte-Carlo.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, help="Learning rate.")
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True), default=0.98, show_default=True, help="Averaging.")
@click.option(
    "--size",
    type=click.IntRange(8),
    help="Side of the crops from a folder, pixels.  [default: 64; of latent models, what they learnt from]",
)
@click.option("--resume", is_flag=True, help="Go on from the state in --out.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, batches and noise.")
@click.option(
    "--save-every", type=click.FloatRange(0), default=120.0, show_default=True, help="Seconds between checkpoints."
)
@click.option("--autocast", is_flag=True, help="The model computes in bfloat16 where that is safe.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option("--only", metavar="A:B", help="Of an IDX file, the pictures from A to B - 1.")
@format_option
@quiet_option
def aid(model: str, data: tuple[Path, ...], out: Path, resume: bool, form: Format, quiet: bool, **recipe: Any) -> None:
    """Train AID's guidance beside a model; `--method aid --set guidance=OUT/aid.safetensors` uses it.

    Of a latent model the module works on its latents, without classifier-free guidance, and is to be used so.

    OUT also holds log.jsonl, the learning curve on held-out masks. The run can be stopped at any time and resumed.
    """
    import torch

    from paintback.bench.lpips import LPIPS
    from paintback.models import load
    from paintback.models.base import Told
    from paintback.models.guidance import GuidanceConfig
    from paintback.models.latent import LatentCodec
    from paintback.training.aid import AidTraining, export_guidance, train_aid
    from paintback.training.data import EncodedPictures

    threads, lr, sigma_low, lpips = (recipe.pop(name) for name in ("threads", "lr", "sigma_low", "lpips"))
    if threads is not None:
        torch.set_num_threads(threads)
    backbone = load(model)
    codec = backbone.codec
    size = recipe.pop("size") or (backbone.training_size if isinstance(codec, LatentCodec) else 64)
    pictures = pictures_of(data, size=size, **{name: recipe.pop(name) for name in ("only", "weights")})
    guided = getattr(backbone, "guidance_scale", 1.0) != 1.0
    told = Told(recipe.pop("prompt"), guidance_scale=1.0 if guided else None)  # one look a step
    denoiser = backbone.denoiser_at((size, size), told)
    if isinstance(codec, LatentCodec):
        pictures = EncodedPictures(pictures, codec)
    top = denoiser.schedule.at(1.0)
    highest = min(80.0, top.sigma / max(top.alpha, 1e-9))  # no model of latents knows EDM's highest level
    budget = sum(p.numel() for p in backbone.network.parameters()) / 100 if backbone.network is not None else 55_000
    training = AidTraining(learning_rate=lr, mirrored=recipe["actor"] == "score" and recipe["batch"] % 2 == 0, **recipe)
    weights = train_aid(
        denoiser,
        pictures,
        out,
        backbone=backbone.name,
        network=GuidanceConfig(channels=pictures.channels, sigma_low=sigma_low, sigma_max=highest).within(budget),
        training=training,
        resume=resume,
        progress=not quiet,
        distance=None if lpips is None else _in_colour(LPIPS(lpips).where),
    )
    export_guidance(weights, out / f"aid-{Path(backbone.name).name}.safetensors")
    emit(form, {"weights": str(weights), "steps": training.steps, "pictures": pictures.count}, str(weights))
