"""ADM, the U-Net of guided diffusion, under the names that its published checkpoints (.pt) have for the weights.

Reference: Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, NeurIPS 2021, arXiv:2105.05233; the
schedules and the learned variance of Nichol and Dhariwal 2021 (arXiv:2102.09672). azula's port (MIT) was read and is
what the tests measure against.

The network predicts the noise; where it has six output channels, the last three are the learned variance, which no
method here needs. Its x0 is clipped to [-1, 1], as the reference sampler does: near t = 1, where alpha is 5e-5 in the
cosine schedule, a small error of the noise is a huge one of x0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paintback.denoiser import Denoiser, NetworkDenoiser, Prediction
from paintback.models.base import Model
from paintback.models.classes import class_condition
from paintback.models.filling import configure, fill
from paintback.schedules import VP, Time

__all__ = ["Adm", "AdmConfig", "AdmDenoiser", "AdmModel", "infer_config", "make_model"]


@dataclass(frozen=True)
class AdmConfig:
    """What an `Adm` is built from.

    Attributes:
        size: side of the pictures it learnt from.
        out_channels: 3, or 6 with a learned variance.
        width: base number of channels.
        multipliers: channels of each level as parts of width, fine to coarse.
        blocks: residual blocks of a level.
        attention: levels with self-attention, 0 the finest.
        classes: 0 for a model without classes.
        scale_shift: the embedding scales and shifts after the norm; else it is added before.
        resblock_updown: resolution is changed inside residual blocks; else by a convolution.
        heads: attention heads; 0 for one per `head_channels`.
        head_channels: channels of a head where heads is 0.
        new_attention_order: queries, keys and values are split before the heads.
        betas: "linear" or "cosine".
        steps: discrete noise levels T.
    """

    size: int
    width: int
    multipliers: tuple[float, ...]
    blocks: int
    attention: tuple[int, ...]
    out_channels: int = 6
    classes: int = 0
    scale_shift: bool = True
    resblock_updown: bool = True
    heads: int = 0
    head_channels: int = 64
    new_attention_order: bool = False
    betas: Literal["linear", "cosine"] = "linear"
    steps: int = 1000

    def heads_of(self, channels: int) -> int:
        """Attention heads of a layer of so many channels."""
        return self.heads or channels // self.head_channels


# ------------------------------------------------------------------------------------------------------- the network


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


class _Down(nn.Module):
    """Halves the sides, by a mean or by a strided convolution."""

    def __init__(self, channels: int, *, learned: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if learned else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class _Up(nn.Module):
    """Doubles the sides by repetition, with or without a convolution after it."""

    def __init__(self, channels: int, *, learned: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return out


class _ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the embedding in between; may change the resolution on the way."""

    def __init__(self, channels: int, out: int, config: AdmConfig, resample: nn.Module | None = None) -> None:
        super().__init__()
        self.scale_shift = config.scale_shift
        self.in_layers = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.width, out * (2 if config.scale_shift else 1)))
        # index 2 is where training has its dropout
        self.out_layers = nn.Sequential(_norm(out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1))
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
        self.resample = resample or nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers[2](self.resample(self.in_layers[1](self.in_layers[0](x))))
        x = self.resample(x)
        condition = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + condition)
        out: Tensor = self.skip_connection(x) + h
        return out


class _Attention(nn.Module):
    """Self-attention over all positions, the softmax in float32."""

    def __init__(self, channels: int, config: AdmConfig) -> None:
        super().__init__()
        self.heads, self.new_order = config.heads_of(channels), config.new_attention_order
        self.norm = _norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        qkv = self.qkv(self.norm(x).flatten(2))
        if self.new_order:
            q, k, v = qkv.view(batch, 3, self.heads, channels // self.heads, -1).unbind(1)
        else:
            q, k, v = qkv.view(batch, self.heads, 3, channels // self.heads, -1).unbind(2)
        scale = (channels // self.heads) ** -0.25  # on both, so that half precision does not overflow
        weights = torch.einsum("bhcq,bhck->bhqk", q * scale, k * scale).float().softmax(-1).to(x.dtype)
        h = torch.einsum("bhqk,bhck->bhcq", weights, v).reshape(batch, channels, -1)
        out: Tensor = x + self.proj_out(h).view_as(x)
        return out


class _Block(nn.Sequential):
    """Layers in a row, the embedding given to those that take it."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, _ResBlock) else layer(x)
        return x


class Adm(nn.Module):
    """The network: (B, 3, H, W) noisy pictures and (B,) discrete times to (B, 3 or 6, H, W).

    Args:
        config: see there.
    """

    def __init__(self, config: AdmConfig) -> None:
        super().__init__()
        self.config = config
        width, top = 4 * config.width, len(config.multipliers) - 1
        widths = [int(config.width * multiplier) for multiplier in config.multipliers]
        self.time_embed = nn.Sequential(nn.Linear(config.width, width), nn.SiLU(), nn.Linear(width, width))
        if config.classes:
            self.label_emb = nn.Embedding(config.classes, width)

        channels = widths[0]
        self.input_blocks = nn.ModuleList([_Block(nn.Conv2d(3, channels, 3, padding=1))])
        skips = [channels]
        for level, out in enumerate(widths):
            for _ in range(config.blocks):
                self.input_blocks.append(_Block(*self._layers(channels, out, level)))
                channels = out
                skips.append(channels)
            if level < top:
                down: nn.Module = _Down(channels, learned=not config.resblock_updown)
                self.input_blocks.append(
                    _Block(_ResBlock(channels, channels, config, down) if config.resblock_updown else down)
                )
                skips.append(channels)

        self.middle_block = _Block(
            _ResBlock(channels, channels, config), _Attention(channels, config), _ResBlock(channels, channels, config)
        )

        self.output_blocks = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            for number in range(config.blocks + 1):
                layers = self._layers(channels + skips.pop(), out, level)
                channels = out
                if level and number == config.blocks:
                    up: nn.Module = _Up(channels, learned=not config.resblock_updown)
                    layers.append(_ResBlock(channels, channels, config, up) if config.resblock_updown else up)
                self.output_blocks.append(_Block(*layers))
        self.out = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, config.out_channels, 3, padding=1))

    def _layers(self, channels: int, out: int, level: int) -> list[nn.Module]:
        layers: list[nn.Module] = [_ResBlock(channels, out, self.config)]
        if level in self.config.attention:
            layers.append(_Attention(out, self.config))
        return layers

    def forward(self, x: Tensor, time: Tensor, classes: Tensor | None = None) -> Tensor:
        """Evaluates the network.

        Args:
            x: (B, 3, H, W) in the network's dtype.
            time: (B,) discrete times, 0 to T - 1; fractions lie in between.
            classes: (B, classes) one-hot rows, for a model with classes.
        """
        half = self.config.width // 2
        rates = torch.exp(torch.arange(half, dtype=torch.float32, device=x.device) * (-math.log(10000) / half))
        angles = time.float()[:, None] * rates
        embedding = self.time_embed(torch.cat((angles.cos(), angles.sin()), dim=1).to(x.dtype))
        if classes is not None:
            embedding = embedding + classes @ self.label_emb.weight
        skips, h = [], x
        for block in self.input_blocks:
            h = block(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for block in self.output_blocks:
            h = block(torch.cat((h, skips.pop()), dim=1), embedding)
        out: Tensor = self.out(h)
        return out


# ----------------------------------------------------------------------------------------------- reading a checkpoint

# The published checkpoints, by (width, multipliers, blocks, first and number of levels with attention), and what the
# shapes of their weights do not tell.
_PUBLISHED: dict[tuple[int, tuple[float, ...], int, tuple[int, ...]], dict[str, Any]] = {
    # ImageNet 64, with classes
    (192, (1, 2, 3, 4), 3, (1, 2, 3)): {"size": 64, "new_attention_order": True, "betas": "cosine"},
    # ImageNet 128, with classes
    (256, (1, 1, 2, 3, 4), 2, (2, 3, 4)): {"size": 128, "heads": 4},
    # ImageNet 256 with and without classes, LSUN 256, CelebA-HQ 256, Places 256
    (256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5)): {"size": 256},
    # ImageNet 512, with classes
    (256, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6)): {"size": 512},
    # FFHQ 256 of DPS, and the models of P2 weighting
    (128, (1, 1, 2, 2, 4, 4), 1, (4,)): {"size": 256},
}


def infer_config(state: Mapping[str, Tensor], more: Mapping[str, Any] | None = None) -> AdmConfig:
    """Reads off the weights what they are the weights of.

    Args:
        state: the state dict of a guided-diffusion checkpoint.
        more: what the shapes do not tell, as fields of `AdmConfig` ("size", "heads", "head_channels",
            "new_attention_order", "betas", "steps"); None where the checkpoint is one of the published ones.

    Raises:
        ValueError: if it is no ADM, or none of the published ones and `more` is not given.
    """
    if (
        "time_embed.0.weight" not in state
        or "out.2.weight" not in state
        or "output_blocks.0.0.in_layers.0.weight" not in state
    ):
        raise ValueError(
            "These are no weights of an ADM network (guided diffusion's classifiers are not pictures' models)."
        )
    first = state["input_blocks.0.0.weight"]
    if first.shape[1] != 3 or state["out.2.weight"].shape[0] not in (3, 6):
        raise ValueError(
            f"This ADM network takes {first.shape[1]} channels and gives {state['out.2.weight'].shape[0]}; one that "
            "takes 3 and gives 3 or 6 is needed (an upsampler is no model of pictures)."
        )
    width = state["time_embed.0.weight"].shape[1]
    count = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("output_blocks."))
    # a level's last decoder block has one more layer, which doubles the sides
    ups = {
        key.split(".")[1]
        for key in state
        if key.startswith("output_blocks.")
        and key.split(".")[2] != "0"
        and key.endswith((".in_layers.0.weight", ".conv.weight"))
    }
    levels = len(ups) + 1
    blocks = count // levels - 1
    starts = [1 + level * (blocks + 1) for level in range(levels)]  # the first residual block of each level
    try:
        outs = [state[f"input_blocks.{start}.0.out_layers.3.weight"].shape[0] for start in starts]
        embedded = state["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"These weights are not laid out as an ADM network's: {error.args[0]} is missing.") from None
    multipliers = tuple(out / width for out in outs)
    attention = tuple(level for level, start in enumerate(starts) if f"input_blocks.{start}.1.qkv.weight" in state)
    known = _PUBLISHED.get((width, multipliers, blocks, attention))
    if known is None and more is None:
        raise ValueError(
            f"This ADM network (width {width}, multipliers {', '.join(f'{m:g}' for m in multipliers)}, {blocks} "
            f"blocks, attention on levels {', '.join(map(str, attention)) or 'none'}) is none of the published ones; "
            'say its size, heads and schedule in a JSON file of the same name beside it, such as {"size": 64, '
            '"head_channels": 64, "betas": "linear"}.'
        )
    return make_config(
        {
            "width": width,
            "multipliers": multipliers,
            "blocks": blocks,
            "attention": attention,
            "out_channels": state["out.2.weight"].shape[0],
            "classes": state["label_emb.weight"].shape[0] if "label_emb.weight" in state else 0,
            "scale_shift": embedded == 2 * outs[0],
            "resblock_updown": levels == 1 or f"input_blocks.{starts[1] - 1}.0.in_layers.0.weight" in state,
            **(known or {}),
            **(more or {}),
        }
    )


def make_config(fields: Mapping[str, Any]) -> AdmConfig:
    """The configuration of plain JSON values.

    Raises:
        ValueError: for a field that is missing, unknown or of a wrong kind.
    """
    return configure(AdmConfig, fields, "ADM")


# ---------------------------------------------------------------------------------------------------------- the model


class AdmDenoiser(NetworkDenoiser):
    """An ADM network as a denoiser; see the head of this file for the clipping.

    Args:
        network: the network.
        dtype: its dtype; the state keeps its own.
        condition: (1, classes) one-hot row, for a network with classes.
        clip: whether x0 is held in [-1, 1]; x1 follows it.
    """

    def __init__(
        self, network: Adm, *, dtype: torch.dtype = torch.float32, condition: Tensor | None = None, clip: bool = True
    ) -> None:
        config = network.config
        schedule = VP(config.betas, num_train_timesteps=config.steps) if config.steps == 1000 else _stretched(config)
        super().__init__(
            lambda *inputs: network(*inputs)[:, :3],
            schedule,
            "eps",
            condition=condition,
            dtype=dtype,
        )
        self.shape, self.clip, self._own = (3, config.size, config.size), clip, network

    def modules(self) -> list[torch.nn.Module]:
        return [self._own]

    def predict(self, x: Tensor, time: Time) -> Prediction:
        seen = super().predict(x, time)
        if not self.clip or time.sigma == 0 or time.alpha == 0:
            return seen
        x0 = seen.x0.clamp(-1, 1)
        return Prediction(x0, (x - time.alpha * x0) / time.sigma, rows=seen.rows)


def _stretched(config: AdmConfig) -> VP:
    """Linear betas keep their integral when their number changes."""
    factor = 1000 / config.steps
    return VP(config.betas, beta_start=1e-4 * factor, beta_end=0.02 * factor, num_train_timesteps=config.steps)


@dataclass(frozen=True)
class AdmModel(Model):
    """An ADM checkpoint. It takes pictures of the one size that it learnt from."""

    def denoiser(
        self,
        prompt: str | int | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
    ) -> Denoiser:
        """The denoiser of a class.

        Args:
            prompt: "class 207", "207" or 207, for a checkpoint with classes.
            negative_prompt: not taken.
            guidance_scale: not taken: ADM's guidance needs a classifier beside it.

        Raises:
            ValueError: for a missing class, or anything that the checkpoint does not take.
        """
        assert isinstance(self.network, Adm)
        given = class_condition(self.name, self.network.config.classes, prompt, negative_prompt, guidance_scale)
        condition = None if given.condition is None else given.condition.to(self.device)
        return AdmDenoiser(self.network, dtype=self.dtype, condition=condition)


def make_model(
    config: Mapping[str, Any], state: Mapping[str, Tensor], *, name: str, device: torch.device, dtype: torch.dtype
) -> AdmModel:
    """The model of a configuration and its weights.

    Args:
        config: fields of `AdmConfig`.
        state: the weights.
        name: what to call it.
        device: where it runs.
        dtype: of the network.

    Raises:
        ValueError: if the weights do not fit.
    """
    known = make_config(config)
    network = fill(lambda: Adm(known), state, device=device, dtype=dtype, kind="ADM")
    return AdmModel(
        name=name,
        channels=3,
        multiple=2 ** (len(known.multipliers) - 1),
        size=(known.size, known.size),
        training_size=known.size,
        network=network,
        device=device,
        dtype=dtype,
    )
