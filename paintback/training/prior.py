"""Training an embedded prior: the EDM loss, an EMA of the weights, checkpoints that can be resumed.

Reference: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022,
arXiv:2206.00364, table 1 and equation 8: sigma is log-normal, D = c_skip x + c_out F(c_in x, ln(sigma) / 4), and
the loss, lambda(sigma) |D - x0|^2, is the plain squared error of F.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from paintback.models.embedded import load_unet
from paintback.models.unet import UNet, UNetConfig
from paintback.models.vocabulary import Vocabulary
from paintback.training.data import Pictures, prefetch

__all__ = ["PriorTraining", "beside", "check", "cut_log", "edm_loss", "fit", "held_out_loss", "train_prior", "whole"]


@dataclass(frozen=True)
class PriorTraining:
    """How a prior is trained.

    Attributes:
        steps: optimiser steps, counted from the very first one, so that a resumed run ends at the same step.
        batch: pictures of a step.
        learning_rate: of AdamW, after the warm-up; it falls to a twentieth along a half cosine.
        weight_decay: of AdamW.
        warmup: steps over which the learning rate rises, again after every resume.
        ema: decay of the average of the weights, reached as (1 + k) / (10 + k) after k steps.
        sigma_mean: mean of ln(sigma).
        sigma_std: standard deviation of ln(sigma).
        seed: of the batches, the noise and the initial weights.
        save_every: seconds between checkpoints.
        sample_every: steps between grids of samples.
        autocast: compute in bfloat16 where that is safe.
        prompt_drop: fraction of pictures that are shown without their prompt, for classifier-free guidance
            (Ho and Salimans, arXiv:2207.12598).
    """

    steps: int = 20_000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 300
    ema: float = 0.9995
    sigma_mean: float = -1.0
    sigma_std: float = 1.4
    seed: int = 0
    save_every: float = 180.0
    sample_every: int = 2_000
    autocast: bool = False
    prompt_drop: float = 0.15


def edm_loss(
    model: UNet, x0: Tensor, sigma: Tensor, noise: Tensor, known: Tensor | None = None, words: Tensor | None = None
) -> Tensor:
    """EDM's weighted denoising loss.

    Args:
        model: the raw network F; with `known`, one that sees y and the mask beside x.
        x0: (B, C, H, W), clean pictures in [-1, 1].
        sigma: (B,), noise levels.
        noise: of x0's shape, standard normal.
        known: (B, 1, H, W) bool, True = given to the network, and then no part of the loss.
        words: (B, V), the prompts of a network with a vocabulary.

    Returns:
        A scalar: mean over all entries, or all that are not given, of |F - (x0 - c_skip x) / c_out|^2.
    """
    data = model.config.sigma_data
    s = sigma[:, None, None, None]
    total = (s**2 + data**2).sqrt()
    x = x0 + s * noise
    target = (x0 - x * (data / total) ** 2) * total / (s * data)
    seen = x / total if known is None else beside(x / total, x0, known)
    condition = () if words is None else (words,)
    error: Tensor = model(seen, sigma.log() / 4, *condition).float() - target
    return error.square().mean() if known is None else error.square()[~known.expand_as(error)].mean()


def beside(x: Tensor, y: Tensor, known: Tensor) -> Tensor:
    """What a network that takes the mask sees: (B, 2 C + 1, H, W), the scaled state, y where known, the mask.

    Args:
        x: (B, C, H, W), c_in times the state.
        y: (B, C, H, W); its hidden values are dropped.
        known: (B, 1, H, W) bool, True = given.
    """
    m = known.to(x)
    return torch.cat((x, torch.where(known, y, 0.0), m), dim=1)


@torch.no_grad()
def held_out_loss(
    model: UNet,
    pictures: Pictures,
    *,
    batches: int = 16,
    size: int = 64,
    seed: int = 0,
    vocabulary: Vocabulary | None = None,
) -> float:
    """The EDM loss on pictures, with noise levels drawn as in training; a function of its arguments alone.

    Args:
        model: the raw network.
        pictures: that it was not trained on.
        batches: how many.
        size: pictures of a batch.
        seed: of crops, noise levels and noise.
        vocabulary: the model's, to show it the prompts; None for no prompts.

    Returns:
        The mean over all entries.
    """
    recipe, total = PriorTraining(), 0.0
    for number in range(batches):
        rng = torch.Generator().manual_seed(seed * 1_000_003 + number)
        x0 = pictures.batch(seed, number, size)
        sigma = (torch.randn(size, generator=rng) * recipe.sigma_std + recipe.sigma_mean).exp()
        words = vocabulary.rows(pictures.prompts(seed, number, size)) if vocabulary else None
        total += edm_loss(model, x0, sigma, torch.randn(x0.shape, generator=rng), words=words).item()
    return total / batches


def train_prior(
    pictures: Pictures,
    out: Path,
    *,
    network: UNetConfig,
    training: PriorTraining,
    resume: Path | None = None,
    progress: bool = True,
) -> Path:
    """Trains a U-Net prior and keeps its EMA in `out/model.safetensors`.

    Beside it: `log.jsonl`, one line a hundred steps (step, pictures seen, loss, seconds), and `samples-STEP.png`.

    Args:
        pictures: what to train on.
        out: folder of the results, made if missing.
        network: shape of the network; ignored when `resume` is given. Its vocabulary is the pictures'.
        training: the recipe.
        resume: weights to go on from, as this function or Paintback's distribution wrote them; the optimiser
            starts anew with a warm-up, the step count goes on.
        progress: show a progress bar.

    Returns:
        The path of the weights.

    Raises:
        ValueError: if the pictures do not fit the network, or there is nothing left to train.
    """
    start, seconds_before, vocabulary = 0, 0.0, Vocabulary(pictures.vocabulary)
    with torch.random.fork_rng(devices=[]):  # modules draw their weights from the global generator
        torch.manual_seed(training.seed)
        if resume is None:
            model = UNet(replace(network, vocabulary=len(vocabulary)))
        else:
            model, header = load_unet(resume)
            model = model.train().requires_grad_(True)
            start, seconds_before = int(header.get("step", 0)), float(header.get("seconds", 0))
            vocabulary = Vocabulary(tuple(json.loads(header.get("vocabulary", "[]"))))
    check(pictures, model.config, start, training.steps)
    out.mkdir(parents=True, exist_ok=True)
    cut_log(out / "log.jsonl", start)

    def prompts(step: int) -> Tensor:
        rows = vocabulary.rows(pictures.prompts(training.seed, step, training.batch))
        rng = torch.Generator().manual_seed((training.seed + 1) * 1_000_003 * 2 + step)
        rows[torch.rand(training.batch, generator=rng) < training.prompt_drop] = 0
        return rows

    return fit(
        model,
        pictures,
        out / "model.safetensors",
        training=training,
        start=start,
        seconds_before=seconds_before,
        prompts=prompts if vocabulary else None,
        more={"vocabulary": json.dumps(vocabulary.words, ensure_ascii=False)} if vocabulary else None,
        progress=progress,
    )


def fit(
    model: UNet,
    pictures: Pictures,
    weights: Path,
    *,
    training: PriorTraining,
    start: int = 0,
    seconds_before: float = 0.0,
    masks: Callable[[int], Tensor] | None = None,
    prompts: Callable[[int], Tensor] | None = None,
    more: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Path:
    """The loop of `train_prior`, for any model that takes what a `UNet` takes.

    Args:
        model: the raw network.
        pictures: what to train on.
        weights: file of the EMA; the log and the samples go beside it.
        training: the recipe.
        start: steps that the model has seen.
        seconds_before: and how long they took.
        masks: step -> (batch, 1, H, W) bool, True = given, for a model that takes the mask.
        prompts: step -> (batch, V) weights of words, for a model with a vocabulary.
        more: further entries of the header.
        progress: show a progress bar.
    """
    out = weights.parent
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        model.parameters(), training.learning_rate, betas=(0.9, 0.99), weight_decay=training.weight_decay
    )
    began = saved = time.monotonic()
    mean_loss = float("nan")
    batches = prefetch(pictures, training.seed, start, training.steps, training.batch)
    bar = tqdm(batches, initial=start, total=training.steps, disable=not progress, unit="step")
    for step, x0 in enumerate(bar, start):
        rng = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        sigma = (torch.randn(len(x0), generator=rng) * training.sigma_std + training.sigma_mean).exp()
        noise = torch.randn(x0.shape, generator=rng)
        done = step - start
        rate = min(1.0, (done + 1) / training.warmup) * (
            0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / training.steps)))
        )
        for group in optimiser.param_groups:
            group["lr"] = training.learning_rate * rate
        known = None if masks is None else masks(step)
        words = None if prompts is None else prompts(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=training.autocast):
            loss = edm_loss(model, x0.contiguous(memory_format=torch.channels_last), sigma, noise, known, words)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if done >= training.warmup or start == 0:
            decay = min(training.ema, (1 + done) / (10 + done)) if start == 0 else training.ema
            torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
        value = loss.item()
        mean_loss = value if math.isnan(mean_loss) else mean_loss + 0.01 * (value - mean_loss)
        bar.set_postfix(loss=f"{mean_loss:.4f}", refresh=False)
        now = time.monotonic()
        last = step + 1 == training.steps
        seconds = seconds_before + now - began
        if (step + 1) % 100 == 0 or last:
            line = {"step": step + 1, "pictures": (step + 1) * training.batch, "loss": mean_loss, "seconds": seconds}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if last or now - saved > training.save_every:
            saved = now
            header = {
                "config": json.dumps(model.config.to_dict()),
                "training": json.dumps(asdict(training)),
                "step": str(step + 1),
                "pictures": str((step + 1) * training.batch),
                "training_size": str(pictures.size),
                "loss": f"{mean_loss:.5f}",
                "seconds": f"{seconds:.0f}",
                **(more or {}),
            }
            with whole(weights) as temporary:
                save_file({key: value.contiguous() for key, value in ema.state_dict().items()}, temporary, header)
        if masks is None and (last or (step + 1) % training.sample_every == 0):
            _sample_grid(ema, pictures.size, out / f"samples-{step + 1:07d}.png")
    return weights


def check(pictures: Pictures, config: UNetConfig, start: int, steps: int) -> None:
    """One clear ValueError where training cannot start."""
    if pictures.channels != config.channels:
        raise ValueError(
            f"The pictures have {pictures.channels} channels and the network {config.channels}; they must be the same."
        )
    if pictures.size % config.multiple:
        raise ValueError(
            f"The pictures are {pictures.size} pixels wide, and a network of {len(config.widths)} levels takes "
            f"multiples of {config.multiple}; choose another size or fewer levels."
        )
    if start >= steps:
        raise ValueError(f"The weights have seen {start} steps already; ask for more than that in all, got {steps}.")


def cut_log(path: Path, step: int) -> None:
    """Drops the lines after the step that training goes on from, which will be written again."""
    if path.exists():
        lines = [
            line for line in path.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] <= step
        ]
        with whole(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when it is complete, and on the disk."""
    temporary = path.with_name(f"{path.name}.partial")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@torch.no_grad()
def _sample_grid(model: UNet, size: int, path: Path, *, side: int = 6, steps: int = 40) -> None:
    """Writes side x side unconditional samples (DDIM on EDM's grid) as one PNG."""
    from PIL import Image

    data = model.config.sigma_data
    rng = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (80 ** (1 / 7) + ramp * (0.005 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    x = torch.randn(side**2, model.config.channels, size, size, generator=rng) * 80
    for t, s in zip(sigmas, [*sigmas[1:], 0], strict=True):
        t, s = float(t), float(s)
        total = (t**2 + data**2) ** 0.5
        raw = model(x / total, torch.full((len(x),), math.log(t) / 4)).float()
        x0 = x * (data / total) ** 2 + raw * t * data / total
        x = x0 + (x - x0) * (s / t)
    tiles = x.unflatten(0, (side, side)).permute(0, 3, 1, 4, 2).reshape(side * size, side * size, -1)
    pixels = tiles.clamp(-1, 1).add(1).mul(127.5).round().byte().numpy()
    with whole(path) as temporary:
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(temporary, "PNG")
