"""Training an embedded prior: from pictures to weights, with a log, samples and checkpoints that can be resumed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from paintback.models.embedded import load_unet
from paintback.models.unet import UNet, UNetConfig
from paintback.models.vocabulary import Vocabulary
from paintback.training.data import Pictures, prefetch
from paintback.training.learner import Learner, PriorTraining, edm_loss, read_state, whole

__all__ = ["check", "cut_log", "fit", "held_out_loss", "train_prior"]


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
        x0, place = pictures.placed(seed, number, size)
        x0, place = x0.cpu(), None if place is None or not model.config.place else place.cpu()
        sigma = (torch.randn(len(x0), generator=rng) * recipe.sigma_std + recipe.sigma_mean).exp()
        words = vocabulary.rows(pictures.prompts(seed, number, size)) if vocabulary else None
        total += edm_loss(model, x0, sigma, torch.randn(x0.shape, generator=rng), words=words, place=place).item()
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
        resume: weights to go on from, as this function or Paintback's distribution wrote them. The optimiser goes on
            where its state of that step lies beside them, and else starts anew with a warm-up; the step count goes on.
        progress: show a progress bar.

    Returns:
        The path of the weights.

    Raises:
        ValueError: if the pictures do not fit the network, or there is nothing left to train.
    """
    start, seconds_before, vocabulary, state = 0, 0.0, Vocabulary(pictures.vocabulary), None
    with torch.random.fork_rng(devices=[]):  # modules draw their weights from the global generator
        torch.manual_seed(training.seed)
        if resume is None:
            model = UNet(replace(network, vocabulary=len(vocabulary)))
        else:
            model, header = load_unet(resume)
            model = model.train().requires_grad_(True)
            start, seconds_before = int(header.get("step", 0)), float(header.get("seconds", 0))
            vocabulary = Vocabulary(tuple(json.loads(header.get("vocabulary", "[]"))))
            state = read_state(resume, start)
    check(pictures, model.config, start, training.steps)
    out.mkdir(parents=True, exist_ok=True)
    cut_log(out / "log.jsonl", start)

    def prompts(step: int) -> Tensor:
        rows = vocabulary.rows(pictures.prompts(training.seed, step, training.batch))
        rng = torch.Generator().manual_seed((training.seed + 1) * 1_000_003 * 2 + step)
        rows[torch.rand(training.batch, generator=rng) < training.prompt_drop] = 0
        return rows.to(pictures.device)

    return fit(
        model,
        pictures,
        out / "model.safetensors",
        training=training,
        start=start,
        seconds_before=seconds_before,
        prompts=prompts if vocabulary else None,
        more={"vocabulary": json.dumps(vocabulary.words, ensure_ascii=False)} if vocabulary else None,
        state=state,
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
    state: Mapping[str, Tensor] | None = None,
    progress: bool = True,
) -> Path:
    """The loop of `train_prior`, for any model that takes what a `UNet` takes.

    Args:
        model: the raw network.
        pictures: what to train on; training runs on their device.
        weights: file of the EMA; the log, the samples and the optimiser's state go beside it.
        training: the recipe.
        start: steps that the model has seen.
        seconds_before: and how long they took.
        masks: step -> (batch, 1, H, W) bool, True = given, for a model that takes the mask.
        prompts: step -> (batch, V) weights of words, for a model with a vocabulary.
        more: further entries of the header.
        state: of the optimiser, from the file beside the weights.
        progress: show a progress bar.
    """
    out, device = weights.parent, pictures.device
    model = model.to(device)
    if training.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = Learner(model, training, state)
    running = torch.zeros((), device=device)
    began = saved = clock = time.monotonic()
    deadline = math.inf if training.minutes is None else began + 60 * training.minutes
    batches = prefetch(pictures, training.seed, start, training.steps, training.batch)
    bar = tqdm(batches, initial=start, total=training.steps, disable=not progress, unit="step")
    seen = start * training.batch
    for step, (x0, place) in enumerate(bar, start):
        done = step - start
        if done == training.accumulation:  # the first steps compile, and are no measure of the time
            clock = time.monotonic()
        passed = step / training.steps
        if training.minutes is not None and done > training.accumulation:
            passed = max(passed, (time.monotonic() - clock) / max(1e-9, deadline - clock))
        rng = torch.Generator(device).manual_seed(training.seed * 1_000_003 + step)
        sigma = (torch.randn(len(x0), generator=rng, device=device) * training.sigma_std + training.sigma_mean).exp()
        noise = torch.randn(x0.shape, generator=rng, device=device)
        loss = learner.learn(
            x0,
            sigma,
            noise,
            known=None if masks is None else masks(step),
            words=None if prompts is None else prompts(step),
            place=place,
        )
        if (done + 1) % training.accumulation == 0:
            learner.update(min(1.0, (done + 1) / training.warmup) * _half_cosine(passed))
        seen += len(x0)
        running = torch.where(running == 0, loss, torch.lerp(running, loss, 0.01))
        now = time.monotonic()
        last = step + 1 == training.steps or now > deadline
        if (step + 1) % 100 == 0 or last:
            mean_loss = running.item()
            now = time.monotonic()
            bar.set_postfix(loss=f"{mean_loss:.4f}", refresh=False)
            line = {"step": step + 1, "pictures": seen, "loss": mean_loss, "seconds": seconds_before + now - began}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if last or now - saved > training.save_every:
            saved = now
            header = {
                "config": json.dumps(model.config.to_dict()),
                "training": json.dumps(asdict(training)),
                "step": str(step + 1),
                "pictures": str(seen),
                "training_size": str(pictures.size),
                "loss": f"{running.item():.5f}",
                "seconds": f"{seconds_before + now - began:.0f}",
                **(more or {}),
            }
            learner.save(weights, header)
        if masks is None and (last or (step + 1) % training.sample_every == 0):
            _sample_grid(learner.averages[0], pictures.size, out / f"samples-{step + 1:07d}.png")
        if last:
            break
    return weights


def _half_cosine(passed: float) -> float:
    """The learning rate's share: from 1 to a fiftieth."""
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))


def check(pictures: Pictures, config: UNetConfig, start: int, steps: int) -> None:
    """Looks whether training can start.

    Raises:
        ValueError: if it cannot, in one sentence.
    """
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


@torch.no_grad()
def _sample_grid(model: UNet, size: int, path: Path, *, side: int = 6, steps: int = 40) -> None:
    """Writes side x side unconditional samples (DDIM on EDM's grid) as one PNG."""
    from PIL import Image

    data = model.config.sigma_data
    rng = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (80 ** (1 / 7) + ramp * (0.005 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    device = next(model.parameters()).device
    x = (torch.randn(side**2, model.config.channels, size, size, generator=rng) * 80).to(device)
    for t, s in zip(sigmas, [*sigmas[1:], 0], strict=True):
        t, s = float(t), float(s)
        total = (t**2 + data**2) ** 0.5
        raw = model(x / total, torch.full((len(x),), math.log(t) / 4, device=device)).float()
        x0 = x * (data / total) ** 2 + raw * t * data / total
        x = x0 + (x - x0) * (s / t)
    tiles = x.unflatten(0, (side, side)).permute(0, 3, 1, 4, 2).reshape(side * size, side * size, -1)
    pixels = tiles.clamp(-1, 1).add(1).mul(127.5).round().byte().cpu().numpy()
    with whole(path) as temporary:
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(temporary, "PNG")
