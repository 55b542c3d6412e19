"""AID's amortized rival: a diffusion model that takes the mask, trained for inpainting, as large as the backbone.

AID's paper compares its module with "amortized" models, of which we know no more than the word. Ours is the ordinary
one: a U-Net of the backbone's shape sees y and the mask beside the noisy picture (so Palette, Saharia et al. 2022,
arXiv:2111.05826, does) and learns the denoising loss of EDM over the hidden part, with the masks of AID's training.
It starts from the backbone's weights, with zeros where the new planes come in: at first it is the backbone exactly.

    D(x, y, known, sigma) = y where known;   else c_skip x + c_out F(c_in x, known y, known, ln(sigma) / 4)

so that the known part of the state walks from its noise to y in a straight line, as it does under AID. It is no method
of the library: the point of AID is to need no such model. `research/aid_quality.py` measures one against the other.

    python -m research.amortized --model fashion --data train-images-idx3-ubyte.gz --out RIVAL
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import click
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from paintback import models
from paintback.cli.output import Format, emit, format_option, quiet_option
from paintback.denoiser import Denoiser, Prediction, predict
from paintback.methods.base import Method, Run
from paintback.methods.solvers import SOLVERS, SolverName
from paintback.models.unet import UNet, UNetConfig
from paintback.schedules import EDM, Coordinates, Time
from paintback.training.data import Pictures, open_pictures
from paintback.training.learner import PriorTraining, beside
from paintback.training.masks import mixed_masks
from paintback.training.prior import check, cut_log, fit
from research.command import run

__all__ = ["Amortized", "ConditionalUNet", "load_amortized", "train_amortized"]

WEIGHTS = "amortized.safetensors"


class ConditionalUNet(UNet):
    """A `UNet` whose first layer takes y and the mask beside the state.

    Args:
        config: of the `UNet`.
    """

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__(config)
        config = self.config
        planes = (2 * config.channels + 1) * config.unshuffle**2
        self.inlet = nn.Conv2d(planes, config.widths[0], 3, padding=1)

    @classmethod
    def beginning_as(cls, backbone: UNet) -> ConditionalUNet:
        """A copy of a model that does not look at y and the mask yet."""
        state = {key: value.detach().clone() for key, value in backbone.state_dict().items()}
        own = backbone.inlet.weight.detach()
        with torch.device("meta"):  # no initial weights: they would draw from torch's global generator
            model = cls(backbone.config)
        state["inlet.weight"] = own.new_zeros(model.inlet.weight.shape)
        state["inlet.weight"][:, : own.shape[1]] = own
        model.load_state_dict(state, assign=True)
        return model.requires_grad_(True)


class _Conditional(Denoiser):
    """The model for one observation; see the head of this file."""

    def __init__(self, network: ConditionalUNet, y: Tensor, known: Tensor) -> None:
        super().__init__(EDM())
        self.network, self.y, self.known = network, y, known

    def predict(self, x: Tensor, time: Time) -> Prediction:
        data, sigma = self.network.config.sigma_data, time.sigma
        total = math.hypot(sigma, data)
        clock = torch.full((len(x),), math.log(sigma) / 4)
        raw = self.network(beside(x / total, self.y, self.known.all(1, keepdim=True)), clock).to(x.dtype)
        x0 = x * (data / total) ** 2 + raw * (sigma * data / total)
        return predict("x0", torch.where(self.known, self.y, x0), x, time, rows=len(x))


@dataclass(frozen=True, kw_only=True)
class Amortized(Method):
    """Samples the rival in place of the backbone that the run is given.

    Attributes:
        network: the rival.
        solver: of the probability-flow ODE.
    """

    name: ClassVar[str] = "amortized"
    edm_coordinates: ClassVar[Coordinates] = "edm"

    network: ConditionalUNet
    solver: SolverName = "euler"

    def start(self, run: Run) -> Tensor:
        """Noise; from here on the run's denoiser is the rival."""
        run.denoiser = _Conditional(self.network, run.y, run.known)
        return super().start(run)

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        return SOLVERS[self.solver](run, lambda x, time: (x, run.denoise(x, time)), x_t, t, s)


def train_amortized(
    backbone: UNet,
    pictures: Pictures,
    out: Path,
    *,
    name: str,
    training: PriorTraining,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Trains the rival and keeps its EMA in `out/amortized.safetensors`, with `log.jsonl` beside it.

    Args:
        backbone: what it starts from.
        pictures: what to train on.
        out: folder of the results, made if missing.
        name: the backbone's, kept in the header.
        training: the recipe.
        resume: go on from the weights in `out`; the optimiser starts anew with a warm-up, the step count goes on.
        progress: show a progress bar.

    Returns:
        The path of the weights.

    Raises:
        ValueError: if the pictures do not fit the backbone, or there is nothing left to train.
    """
    weights, start, seconds = out / WEIGHTS, 0, 0.0
    if resume:
        model, header = load_amortized(weights)
        model = model.train().requires_grad_(True)
        start, seconds = int(header["step"]), float(header["seconds"])
    else:
        model = ConditionalUNet.beginning_as(backbone)
    check(pictures, model.config, start, training.steps)
    out.mkdir(parents=True, exist_ok=True)
    cut_log(out / "log.jsonl", start)
    return fit(
        model,
        pictures,
        weights,
        training=training,
        start=start,
        seconds_before=seconds,
        masks=lambda step: mixed_masks(training.seed, step, training.batch, pictures.size),
        more={"kind": "amortized", "backbone": name},
        progress=progress,
    )


def load_amortized(path: Path) -> tuple[ConditionalUNet, dict[str, str]]:
    """Reads a rival and the header of its weights, as `models.embedded.load_unet` does.

    Raises:
        ValueError: if the file is not such a file.
    """
    if not path.is_file():
        raise ValueError(f"There are no weights {path}; give a file that `python -m research.amortized` wrote.")
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        if header["kind"] != "amortized":
            raise KeyError("kind")
        fields = json.loads(header["config"])
        with torch.device("meta"):  # no initial weights: they would draw from torch's global generator
            network = ConditionalUNet(UNetConfig(**{**fields, "widths": tuple(fields["widths"])}))
        network.load_state_dict(state, assign=True)
    except (SafetensorError, KeyError, json.JSONDecodeError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold an amortized model ({type(error).__name__}).") from error
    network = network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return network.requires_grad_(False), header


@click.command()
@click.option("--model", required=True, help="The shipped model, or weights of `train prior`, that it starts from.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A folder of pictures, or an IDX file.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--steps", type=click.IntRange(1), default=3000, show_default=True, help="Optimiser steps in all.")
@click.option("--batch", type=click.IntRange(1), default=128, show_default=True, help="Pictures of a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, help="Learning rate.")
@click.option("--size", type=click.IntRange(8), default=64, show_default=True, help="Side of the crops from a folder.")
@click.option("--resume", is_flag=True, help="Go on from the weights in --out.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of batches, masks and noise.")
@click.option(
    "--save-every", type=click.FloatRange(0), default=180.0, show_default=True, help="Seconds between checkpoints."
)
@click.option("--bf16", is_flag=True, help="Compute in bfloat16 where that is safe.")
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
    """Train AID's rival, a copy of a model that takes the mask; `research.aid_quality --rival` compares the two."""
    if threads is not None:
        torch.set_num_threads(threads)
    backbone = models.load(model)
    if not isinstance(backbone.network, UNet):
        raise ValueError(f"The rival is a copy of an embedded model, and {model!r} is none; see `paintback models`.")
    pictures = open_pictures(data, size=size)
    training = PriorTraining(learning_rate=lr, **recipe)
    weights = train_amortized(
        backbone.network, pictures, out, name=backbone.name, training=training, resume=resume, progress=not quiet
    )
    emit(form, {"weights": str(weights), "steps": training.steps, "pictures": pictures.count}, str(weights))


if __name__ == "__main__":
    run(amortized)
