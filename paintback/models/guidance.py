"""AID's small networks beside a frozen denoiser: the guidance, its critic, and how a guidance is stored and found.

Reference: Huang and Zhou, AID, May 2026, arXiv:2605.13010. The paper's architecture was not available to us; everything
here is our reconstruction: depthwise-separable residual blocks, each scaled and shifted by the noise level.

The guidance answers Delta = sigma u, the correction of the denoiser, in EDM's coordinates:

    Delta = sigma Phi(sigma) [ net(c_in x, D, m y, m) + g(sigma) m (y - D) ],    Phi = d / sqrt(sigma^2 + d^2)

with d = sigma_data. Phi is the factor by which a push at sigma reaches the picture where the data are Gaussian, and
there the best u is proportional to it, so that net has the same size at every level (sigma Phi is EDM's c_out). The
gain g is one number a level. net's last convolution and g are 0 at first: untrained, it is the backbone exactly.

The critic, needed in training alone, is  V = a(sigma) w_known mean m (y - D)^2 + mean of net(c_in x, D, m y, m).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from paintback.models.catalogue import WEIGHTS

__all__ = ["Critic", "Guidance", "GuidanceConfig", "Guide", "find_guidance", "load_guidance"]

Guide = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""(x, x0, y, known, sigma) -> Delta: EDM state, the backbone's picture, what is given, where, the noise level."""


@dataclass(frozen=True)
class GuidanceConfig:
    """What a `Guidance` or a `Critic` is built from; stored in the header of its weights.

    Attributes:
        channels: of the state.
        width: channels inside.
        blocks: residual blocks.
        expand: widening inside a block.
        kernel: side of the depthwise convolutions, dilated by 1, 2, 4, 2, 1, ... in turn.
        unshuffle: side of the pixel-unshuffle in front.
        embedding: size of the noise level's embedding.
        sigma_data: standard deviation of the backbone's training pictures.
        sigma_max: the highest noise level it is trained at; higher ones are taken for it.
        sigma_low: below this noise level the module is silent, and the backbone alone draws the details.
    """

    channels: int = 3
    width: int = 32
    blocks: int = 4
    expand: int = 2
    kernel: int = 5
    unshuffle: int = 4
    embedding: int = 32
    sigma_data: float = 0.5
    sigma_max: float = 80.0
    sigma_low: float = 0.0

    def within(self, parameters: float) -> GuidanceConfig:
        """The same with the largest even width, at least 8, whose guidance has at most so many parameters."""
        width = 8
        with torch.device("meta"):
            while sum(p.numel() for p in Guidance(replace(self, width=width + 2)).parameters()) <= parameters:
                width += 2
        return replace(self, width=width)


class _Block(nn.Module):
    """Residual block: depthwise, norm, scale and shift by the noise level, widen, SiLU, narrow."""

    def __init__(self, config: GuidanceConfig, dilation: int) -> None:
        super().__init__()
        width, inner, reach = config.width, config.width * config.expand, config.kernel // 2 * dilation
        self.depthwise = nn.Conv2d(width, width, config.kernel, padding=reach, dilation=dilation, groups=width)
        self.film = nn.Linear(config.embedding, 2 * width)
        self.widen = nn.Conv2d(width, inner, 1)
        self.narrow = nn.Conv2d(inner, width, 1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        inner = self.depthwise(h)
        # over the channels of one position, so that a larger picture meets the statistics of training
        inner = inner * (inner.square().mean(1, keepdim=True) + 1e-4).rsqrt()
        narrow: Tensor = self.narrow(F.silu(self.widen(torch.addcmul(shift, inner, 1 + scale))))
        return h + narrow


class _Trunk(nn.Module):
    """(x, x0, y, known, sigma) -> `out` planes of the picture's size, 0 at first; sigma is a number or one per row."""

    def __init__(self, config: GuidanceConfig, out: int) -> None:
        super().__init__()
        self.config = config
        cells, width = config.unshuffle**2, config.width
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.exp(torch.linspace(math.log(0.25), math.log(4.0), 8)))
        self.embed = nn.Sequential(
            nn.Linear(16, config.embedding), nn.SiLU(), nn.Linear(config.embedding, config.embedding), nn.SiLU()
        )
        self.inlet = nn.Conv2d((3 * config.channels + 1) * cells, width, 1)
        dilations = (1, 2, 4, 2)
        self.blocks = nn.ModuleList(_Block(config, dilations[k % 4]) for k in range(config.blocks))
        self.outlet = nn.Conv2d(width, out * cells, 3, padding=1)
        self.number = nn.Linear(config.embedding, 1)
        for layer in (self.outlet, self.number):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, x0: Tensor, y: Tensor, known: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The planes, and one more number a row that depends on sigma alone, (B, 1, 1, 1)."""
        if x.ndim != 4 or x.shape[1] != self.config.channels:
            raise ValueError(
                f"This guidance takes pictures of shape (B, {self.config.channels}, H, W); got {tuple(x.shape)}."
            )
        m = known.all(1, keepdim=True).to(x)
        planes = torch.cat((x / (sigma**2 + self.config.sigma_data**2).sqrt(), x0, y * m, m), dim=1)
        height, width, side = x.shape[2], x.shape[3], self.config.unshuffle
        planes = F.pad(planes, (0, -width % side, 0, -height % side))
        angles = sigma.reshape(-1, 1).log() / 4 * self.frequencies * (2 * math.pi)
        embedding = self.embed(torch.cat((angles.cos(), angles.sin()), dim=1))
        h = self.inlet(F.pixel_unshuffle(planes, side).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h, embedding)
        out = F.pixel_shuffle(self.outlet(h), side)[..., :height, :width]
        return out, self.number(embedding)[:, :, None, None]

    def levels(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Noise levels as (B, 1, 1, 1), at most sigma_max."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).clamp(max=self.config.sigma_max)
        return level.expand(len(x)).reshape(-1, 1, 1, 1)


class Guidance(nn.Module):
    """The actor: Delta(sigma, x, y, known); see the head of this file.

    Args:
        config: its shape.
    """

    def __init__(self, config: GuidanceConfig | None = None) -> None:
        super().__init__()
        self.config = config or GuidanceConfig()
        self.trunk = _Trunk(self.config, self.config.channels)

    @property
    def sigma_max(self) -> float:
        """The highest noise level that it knows."""
        return self.config.sigma_max

    def forward(self, x: Tensor, x0: Tensor, y: Tensor, known: Tensor, sigma: float | Tensor) -> Tensor:
        """The correction of the denoiser.

        Args:
            x: (B, C, H, W), state in EDM's coordinates.
            x0: the backbone's picture at x.
            y: what is given; hidden values are ignored.
            known: (B, 1 or C, H, W) bool, True = given.
            sigma: noise level, a number or (B,).

        Returns:
            Delta = sigma u, of x's shape.
        """
        level = self.trunk.levels(x, sigma)
        net, gain = self.trunk(x, x0, y, known, level)
        reach = level * self.config.sigma_data / (level**2 + self.config.sigma_data**2).sqrt()
        reach = torch.where(level < self.config.sigma_low, 0.0, reach)
        delta: Tensor = reach * (net + gain * torch.where(known, y - x0, 0.0))
        return delta


class Critic(nn.Module):
    """V(sigma, x, y, known): the cost still to come, which never sees the hidden picture; see the head of this file.

    Args:
        config: its shape.
        w_known: the weight of the known part in Psi.
    """

    def __init__(self, config: GuidanceConfig | None = None, w_known: float = 1.0) -> None:
        super().__init__()
        self.config, self.w_known = config or GuidanceConfig(), w_known
        self.trunk = _Trunk(self.config, 1)

    def forward(self, x: Tensor, x0: Tensor, y: Tensor, known: Tensor, sigma: float | Tensor) -> Tensor:
        """Arguments as `Guidance.forward`; returns (B,)."""
        # the slope of V in x, which the pathwise actor follows, is that of the first term alone: the free network's is
        # not determined by returns and leads the actor astray
        net, gain = self.trunk(x.detach(), x0.detach(), y, known, self.trunk.levels(x, sigma))
        proxy = self.w_known * torch.where(known, y - x0, 0.0).square().flatten(1).mean(1)
        value: Tensor = gain.flatten() * proxy + net.flatten(1).mean(1)
        return value


def load_guidance(path: Path) -> tuple[Guidance, dict[str, str]]:
    """Reads a trained guidance and its header.

    Args:
        path: a safetensors file that `paintback train aid` wrote.

    Returns:
        The module in float32, in eval mode, without gradients, and the header: kind "aid", backbone, clock, beta,
        actor, known, and more.

    Raises:
        ValueError: if the file is not such a file.
    """
    if not path.is_file():
        raise ValueError(f"There is no guidance {path}; give a file that `paintback train aid` wrote.")
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        if header["kind"] != "aid" or header["clock"] != "edm":
            raise KeyError("kind")
        with torch.random.fork_rng(devices=[]):  # modules draw their first weights from the global generator
            module = Guidance(GuidanceConfig(**json.loads(header["config"])))
        module.load_state_dict(state)
    except (SafetensorError, KeyError, json.JSONDecodeError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold a guidance of AID ({type(error).__name__}).") from error
    return module.eval().requires_grad_(False), header


def find_guidance(backbone: str, actor: str | None = None) -> Path | None:
    """The shipped guidance trained for a model of that name, or None.

    Args:
        backbone: the model's name.
        actor: that it must have learnt by, such as "adjoint"; None for the model's own module, however it learnt.
    """
    for name in (f"aid-{backbone}", f"aid-{backbone}-{actor}"):
        path = WEIGHTS / f"{name}.safetensors"
        if path.name == f"{name}.safetensors" and path.is_file() and actor in (None, load_guidance(path)[1]["actor"]):
            return path
    return None
