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
from safetensors import safe_open
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
        learning_rate: of AdamW, after the warm-up; it falls to a fiftieth along a half cosine.
        weight_decay: of AdamW.
        warmup: steps over which the learning rate rises, again after every resume.
        accumulation: batches of an optimiser step.
        ema: powers gamma of the averages of the weights, which decay by (1 - 1/k)^(gamma + 1) at update k (Karras et
            al., arXiv:2312.02696, equation 4), so that each has a width in proportion to the length of the run: 17
            and 7 are 5 and 10 %. The first is the model, the others lie beside it.
        sigma_mean: mean of ln(sigma).
        sigma_std: standard deviation of ln(sigma).
        seed: of the batches, the noise and the initial weights.
        save_every: seconds between checkpoints.
        sample_every: steps between grids of samples.
        minutes: stops in time, whatever is left of the steps, with the learning rate fallen as at the end; None for
            no limit.
        bf16: the network computes in bfloat16; weights, averages and optimiser stay in float32.
        channels_last: memory format of the weights.
        compile: the network by torch.compile.
        prompt_drop: fraction of pictures that are shown without their prompt, for classifier-free guidance
            (Ho and Salimans, arXiv:2207.12598).
    """

    steps: int = 20_000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 300
    accumulation: int = 1
    ema: tuple[float, ...] = (17.0, 7.0)
    sigma_mean: float = -1.0
    sigma_std: float = 1.4
    seed: int = 0
    save_every: float = 180.0
    sample_every: int = 2_000
    minutes: float | None = None
    bf16: bool = False
    channels_last: bool = False
    compile: bool = False
    prompt_drop: float = 0.15


def edm_loss(
    model: Callable[..., Tensor],
    x0: Tensor,
    sigma: Tensor,
    noise: Tensor,
    known: Tensor | None = None,
    words: Tensor | None = None,
    *,
    place: Tensor | None = None,
    config: UNetConfig | None = None,
    bf16: bool = False,
) -> Tensor:
    """EDM's weighted denoising loss.

    Args:
        model: the raw network F; with `known`, one that sees y and the mask beside x.
        x0: (B, C, H, W), clean pictures in [-1, 1].
        sigma: (B,), noise levels.
        noise: of x0's shape, standard normal.
        known: (B, 1, H, W) bool, True = given to the network, and then no part of the loss.
        words: (B, V), the prompts of a network with a vocabulary.
        place: (B, 6), of a network that takes it.
        config: of the network, where `model` is no `UNet` itself.
        bf16: whether the network's weights are bfloat16.

    Returns:
        A scalar: mean over all entries, or all that are not given, of |F - (x0 - c_skip x) / c_out|^2.
    """
    data = (config or model.config).sigma_data  # type: ignore[attr-defined]
    s = sigma[:, None, None, None]
    total = (s**2 + data**2).sqrt()
    x = x0 + s * noise
    target = (x0 - x * (data / total) ** 2) * total / (s * data)
    seen = x / total if known is None else beside(x / total, x0, known)
    more = {name: value for name, value in (("words", words), ("place", place)) if value is not None}
    error = model(seen.to(torch.bfloat16) if bf16 else seen, sigma.log() / 4, **more).float() - target
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
            state = _read_state(resume, start)
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


def _read_state(weights: Path, step: int) -> dict[str, Tensor] | None:
    """What a run left beside its weights; None where there is nothing of the same step."""
    path = weights.with_name("state.safetensors")
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        if header.get("step") != str(step):
            return None
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return {**state, "updates": torch.tensor(int(header["updates"]))}


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
    learner = _Learner(model, training, state)
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


class _Learner:
    """The weights that learn, a copy of them in the dtype that computes, the optimiser and the averages.

    Args:
        model: float32 weights.
        training: the recipe.
        state: of an earlier run's optimiser.
    """

    def __init__(self, model: UNet, training: PriorTraining, state: Mapping[str, Tensor] | None = None) -> None:
        self.training, self.model = training, model
        self.names = [name for name, _ in model.named_parameters()]
        self.weights: list[Tensor] = list(model.parameters())
        self.device = self.weights[0].device
        self.half = copy.deepcopy(model).to(torch.bfloat16) if training.bf16 else model
        self.call: Callable[..., Tensor] = torch.compile(self.half, dynamic=False) if training.compile else self.half
        # weights may be in the compiled graph, gradients are not: they are added up in float32
        self.averages = [copy.deepcopy(model).requires_grad_(False) for _ in training.ema]
        self.optimiser = torch.optim.AdamW(
            self.weights,
            training.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=training.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.updates = 0
        if state is not None:
            self._restore(state)

    def learn(
        self,
        x0: Tensor,
        sigma: Tensor,
        noise: Tensor,
        *,
        known: Tensor | None,
        words: Tensor | None,
        place: Tensor | None,
    ) -> Tensor:
        """Adds a batch's gradient; returns its loss, on the device."""
        config = self.model.config
        place = place if config.place else None
        loss = edm_loss(self.call, x0, sigma, noise, known, words, place=place, config=config, bf16=self.training.bf16)
        (loss / self.training.accumulation).backward()
        if self.half is not self.model:
            with torch.no_grad():
                fresh = [weight.grad for weight in self.half.parameters()]
                for weight, grad in zip(self.weights, fresh, strict=True):
                    if grad is not None:
                        weight.grad = grad.float() if weight.grad is None else weight.grad.add_(grad)
            self.half.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """One step of the optimiser at a share of the learning rate, and of the averages."""
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.training.learning_rate * rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.half is not self.model:
            torch._foreach_copy_(list(self.half.parameters()), self.weights)
        self.updates += 1
        for power, average in zip(self.training.ema, self.averages, strict=True):
            decay = (1 - 1 / self.updates) ** (power + 1)
            torch._foreach_lerp_(list(average.parameters()), self.weights, 1 - decay)

    def save(self, path: Path, header: Mapping[str, str]) -> None:
        """Writes the averages (the first under `path`, the others with a number), and all that a resume needs."""
        for number, average in enumerate(self.averages):
            target = path if number == 0 else path.with_name(f"{path.stem}-{number + 1}{path.suffix}")
            tensors = {key: value.cpu().contiguous() for key, value in average.state_dict().items()}
            with whole(target) as temporary:
                save_file(tensors, temporary, {**header, "ema": str(self.training.ema[number])})
        kept = {f"weight.{name}": weight.detach() for name, weight in zip(self.names, self.weights, strict=True)}
        for name, weight in zip(self.names, self.weights, strict=True):
            moments = self.optimiser.state.get(weight, {})
            kept |= {f"{key}.{name}": value for key, value in moments.items() if isinstance(value, Tensor)}
        for number, average in enumerate(self.averages):
            kept |= {f"average{number}.{name}": value for name, value in average.named_parameters()}
        tensors = {key: value.detach().cpu().contiguous() for key, value in kept.items()}
        with whole(path.with_name("state.safetensors")) as temporary:
            save_file(tensors, temporary, {"step": header["step"], "updates": str(self.updates)})

    @torch.no_grad()
    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self.updates = int(state["updates"])
        for name, weight in zip(self.names, self.weights, strict=True):
            weight.copy_(state[f"weight.{name}"])
            self.optimiser.state[weight] = {
                key: state[f"{key}.{name}"].to("cpu" if key == "step" and self.device.type == "cpu" else self.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        for number, average in enumerate(self.averages):
            for name, value in average.named_parameters():
                value.copy_(state.get(f"average{number}.{name}", state[f"weight.{name}"]))
        if self.half is not self.model:
            torch._foreach_copy_(list(self.half.parameters()), self.weights)


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
