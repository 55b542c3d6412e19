"""How much of the score actor's gradient is signal: its batches against each other, and against the exact gradient.

    python -m research.aid_signal --model fashion --data train-images-idx3-ubyte.gz

Of every variant of the rules a new critic learns beside the frozen actor for some updates; then gradients of the actor
are taken of a number of batches, without a step. With their mean g, and s^2 the mean of |g_i - g|^2 (n - 1 in place of
n), the signal to noise of one batch is (|g|^2 - s^2 / n) / s^2: 1 / it is how many batches are worth one without noise.
The cosine is that of g with the mean of the adjoint actor's gradients of the same problems.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from paintback import models
from paintback.cli.output import Format, format_option
from paintback.cli.train import parse_range
from paintback.models.guidance import Critic, Guidance, GuidanceConfig, load_guidance
from paintback.training.actor_critic import Learner
from paintback.training.aid import AidTraining, Autocast, draw_batch, levels
from paintback.training.data import Pictures, open_pictures
from research.command import run

__all__ = ["VARIANTS", "Signal", "measure"]

OURS: dict[str, Any] = {"known": "replaced", "rollout": 8, "beta": 0.2}
PAPER: dict[str, Any] = {"trace": 0.0, "balanced": False, "mirrored": False, "critic": "td0"}
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "paper, index clock": {**PAPER, "clock": "index"},
    "ours": {},
    "ours, TD(0) critic": {"critic": "td0"},
    "ours, informed": {"informed": True},
    "ours, informed, per hole": {"informed": True, "per_hole": True},
    "ours, informed, not mirrored": {"informed": True, "mirrored": False},
    "ours, informed, cells of 4": {"informed": True, "cells": 4},
    "ours, informed, cells of 8": {"informed": True, "cells": 8},
    **{
        f"ours, cells of {cells}, local {local}": {"cells": cells, "local": local}
        for cells in (1, 2, 4, 8)
        for local in (0, 1, 4)
    },
}


@dataclass(frozen=True)
class Signal:
    """One variant.

    Attributes:
        variant: its name.
        ratio: signal to noise of one batch; negative where there is none to be seen.
        cosine: of the mean gradient with the adjoint actor's.
        explained: part of the returns' variance that the critic explains.
    """

    variant: str
    ratio: float
    cosine: float
    explained: float


def measure(
    model: str,
    pictures: Pictures,
    actor: Path | None,
    *,
    batch: int,
    learn: int,
    batches: int,
    variants: list[str],
    autocast: bool = False,
) -> list[Signal]:
    """The signal to noise of each variant; see the head of this file.

    Args:
        model: the backbone's name.
        pictures: to draw problems from.
        actor: a guidance whose gradient is taken; None for a new one.
        batch: rows of an update.
        learn: updates of the critic before.
        batches: n.
        variants: names of `VARIANTS`.
        autocast: the backbone computes in bfloat16.
    """
    backbone = models.load(model)
    denoiser = Autocast(backbone.denoiser()) if autocast else backbone.denoiser()
    network = GuidanceConfig(channels=pictures.channels, sigma_low=0.5).within(33_800)
    found = []
    exact: dict[tuple[Any, ...], Tensor] = {}
    for name in variants:
        training = AidTraining(batch=batch, steps=learn + batches, **{**OURS, **VARIANTS[name]})
        torch.manual_seed(0)
        module = load_guidance(actor)[0].requires_grad_() if actor is not None else Guidance(network)
        rules = replace(training.rules(pictures.channels * pictures.size**2), clip=1e9)
        key = (training.clock, training.per_hole, training.balanced)
        if key not in exact:
            adjoint = Learner(
                denoiser, module, Critic(network), replace(rules, actor="adjoint", informed=False, local=None), 0.0
            )
            exact[key] = torch.stack(
                [_gradient(adjoint, module, pictures, training, learn + k)[0] for k in range(batches // 2)]
            ).mean(0)
        learner = Learner(denoiser, module, Critic(replace(network, width=16, blocks=2)), rules, 0.0)
        learner.optimisers[1].param_groups[0]["lr"] = 2e-3
        gradients, explained = [], 0.0
        for k in range(0 if training.local is None else learn, learn + batches):
            gradient, got = _gradient(learner, module, pictures, training, k)
            if k >= learn:
                gradients.append(gradient)
                explained += got.get("explained", 0.0) / batches
        mean = torch.stack(gradients).mean(0)
        noise = torch.stack([(g - mean).square().sum() for g in gradients]).sum() / (batches - 1)
        cosine = torch.nn.functional.cosine_similarity(mean, exact[key], dim=0)
        ratio = (mean.square().sum() - noise / batches) / noise
        found.append(Signal(name, float(ratio), float(cosine), explained))
    return found


def _gradient(
    learner: Learner, module: torch.nn.Module, pictures: Pictures, training: AidTraining, step: int
) -> tuple[Tensor, dict[str, float]]:
    """The actor's gradient of one batch; its learning rate is 0."""
    count = training.batch // 2 if training.mirrored else training.batch
    task, shift, noise = draw_batch(pictures.batch(training.seed, step, count), training, step, 80.0)
    got = learner.update(task, levels(training.rollout, 80.0, shift), noise)
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]
    return torch.cat([part.flatten() for part in parts]).clone(), got


@click.command(name="aid-signal")
@click.option("--model", required=True, help="The backbone: a model's name.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A folder of pictures, or an IDX file.")
@click.option("--actor", type=click.Path(path_type=Path), help="A trained guidance.  [default: a new one]")
@click.option("--batch", type=click.IntRange(4), default=64, show_default=True, help="Rows of an update.")
@click.option("--learn", type=click.IntRange(0), default=40, show_default=True, help="Updates of the critic before.")
@click.option("--batches", type=click.IntRange(4), default=24, show_default=True, help="Gradients taken.")
@click.option("--variant", multiple=True, type=click.Choice(list(VARIANTS)), help="May be repeated.  [default: all]")
@click.option("--only", metavar="A:B", help="Of an IDX file, the pictures from A to B - 1.")
@click.option("--size", type=click.IntRange(8), default=64, show_default=True, help="Side of the crops from a folder.")
@click.option("--autocast", is_flag=True, help="The model computes in bfloat16 where that is safe.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@format_option
def aid_signal(
    model: str,
    data: Path,
    actor: Path | None,
    batch: int,
    learn: int,
    batches: int,
    variant: tuple[str, ...],
    only: str | None,
    size: int,
    autocast: bool,
    threads: int,
    form: Format,
) -> None:
    """Measure the signal to noise of AID's score actor under several rules."""
    torch.set_num_threads(threads)
    found = measure(
        model, open_pictures(data, size=size, only=parse_range(only)), actor, batch=batch, learn=learn, batches=batches,
        variants=list(variant) or list(VARIANTS), autocast=autocast,
    )  # fmt: skip
    if form == "json":
        click.echo(json.dumps([vars(one) for one in found], indent=1))
        return
    click.echo("| rules | signal to noise of a batch | cosine with the exact gradient | explained by the critic |")
    click.echo("|---|---|---|---|")
    for one in found:
        worth = f"{one.ratio:.4f}" if math.isfinite(one.ratio) else "none"
        click.echo(f"| {one.variant} | {worth} | {one.cosine:.3f} | {one.explained:.2f} |")


if __name__ == "__main__":
    run(aid_signal)
