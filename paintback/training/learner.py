"""One step of training a prior: the recipe, the EDM loss, the optimiser, the averages and what a resume needs.

Reference: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022,
arXiv:2206.00364, table 1 and equation 8: sigma is log-normal, D = c_skip x + c_out F(c_in x, ln(sigma) / 4), and
the loss, lambda(sigma) |D - x0|^2, is the plain squared error of F.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from paintback.models.unet import UNet, UNetConfig

__all__ = ["Learner", "PriorTraining", "beside", "edm_loss", "read_state", "whole"]


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


class Learner:
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


def read_state(weights: Path, step: int) -> dict[str, Tensor] | None:
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
