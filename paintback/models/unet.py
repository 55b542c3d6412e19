"""The embedded network: a small, fully convolutional U-Net for pictures of any size.

It follows the U-Net of EDM (Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models,
NeurIPS 2022, arXiv:2206.00364) with three changes that make it cheap on a CPU and indifferent to the picture's size:

- a pixel-unshuffle comes first, so that no convolution runs at full resolution;
- every normalisation is over the channels of one position (as in ConvNeXt), never over the picture, so that a
  512-pixel picture meets the statistics that the 64-pixel training crops had;
- skips are added, not concatenated, and there is no attention.

A network with a vocabulary also takes a prompt: the mean of the learnt vectors of its words goes through a small MLP
and is added to the embedding of the noise level. No prompt is a mean of 0, which the MLP's biases turn into a learnt
vector of its own.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["UNet", "UNetConfig"]


@dataclass(frozen=True)
class UNetConfig:
    """What a `UNet` is built from; stored in the header of its weights.

    Attributes:
        channels: colours of a picture.
        widths: channels of each level, fine to coarse; each level has half the resolution of the one before.
        blocks: residual blocks of a level, in the encoder and again in the decoder.
        unshuffle: side of the pixel-unshuffle in front.
        sigma_data: standard deviation of the training pictures, for EDM's preconditioning.
        vocabulary: number of words that prompts are made of; 0 for a network without prompts.
    """

    channels: int = 3
    widths: tuple[int, ...] = (64, 128, 192)
    blocks: int = 2
    unshuffle: int = 2
    sigma_data: float = 0.5
    vocabulary: int = 0

    @property
    def multiple(self) -> int:
        """The picture's sides must be multiples of this."""
        return int(self.unshuffle * 2 ** (len(self.widths) - 1))

    def to_dict(self) -> dict[str, object]:
        """The fields as plain JSON values."""
        return {**asdict(self), "widths": list(self.widths)}


class _Norm(nn.LayerNorm):
    """Layer norm over the channels of a (B, C, H, W) tensor, position by position."""

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = super().forward(x.permute(0, 2, 3, 1))
        back: Tensor = normed.permute(0, 3, 1, 2)
        return back


class _Block(nn.Module):
    """Residual block: norm, SiLU, conv, norm scaled and shifted by the noise level, SiLU, conv."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = _Norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = _Norm(width)
        self.film = nn.Linear(embedding, 2 * width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale)))
        out: Tensor = x + h
        return out


class UNet(nn.Module):
    """The raw network F(x, c_noise) that EDM's preconditioning wraps.

    Args:
        config: the shape of the network.
    """

    frequencies: Tensor

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        widths, unshuffle = config.widths, config.unshuffle
        embedding = 2 * widths[0]
        self.register_buffer("frequencies", torch.exp(torch.linspace(math.log(0.25), math.log(16.0), widths[0] // 2)))
        self.embed = nn.Sequential(
            nn.Linear(2 * (widths[0] // 2), embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.inlet = nn.Conv2d(config.channels * unshuffle**2, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(_Block(width, embedding) for _ in range(config.blocks)) for width in widths
        )
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(widths, widths[1:], strict=False))
        self.middle = _Block(widths[-1], embedding)
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.decoder = nn.ModuleList(
            nn.ModuleList(_Block(width, embedding) for _ in range(config.blocks)) for width in widths
        )
        self.outlet_norm = _Norm(widths[0])
        self.outlet = nn.Conv2d(widths[0], config.channels * unshuffle**2, 3, padding=1)
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)  # type: ignore[arg-type]
        if config.vocabulary:
            self.words = nn.Parameter(torch.randn(config.vocabulary, embedding))
            self.prompt = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def forward(self, x: Tensor, c_noise: Tensor, words: Tensor | None = None) -> Tensor:
        """One evaluation.

        Args:
            x: (B, channels, H, W), scaled to unit variance; H and W multiples of `config.multiple`.
            c_noise: (B,), ln(sigma) / 4.
            words: (B, vocabulary), weights of the prompt's words, as `Vocabulary.rows` gives them; a row of zeros,
                or None for the whole batch, is no prompt.

        Returns:
            (B, channels, H, W).

        Raises:
            ValueError: if words are given to a network without a vocabulary.
        """
        angles = c_noise[:, None] * self.frequencies * (2 * math.pi)
        embedding = self.embed(torch.cat((angles.cos(), angles.sin()), dim=1).to(x.dtype))
        if self.config.vocabulary:
            mean = embedding.new_zeros(1, self.words.shape[1]) if words is None else words @ self.words
            embedding = embedding + self.prompt(mean)
        elif words is not None:
            raise ValueError("This network has no vocabulary; leave words out.")
        h = self.inlet(F.pixel_unshuffle(x, self.config.unshuffle).contiguous(memory_format=torch.channels_last))
        skips = []
        for level, blocks in enumerate(self.encoder):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, embedding)
            if level < len(self.down):
                skips.append(h)
                h = self.down[level](h)
        h = self.middle(h, embedding)
        for level in reversed(range(len(self.decoder))):
            if level < len(self.up):
                h = F.pixel_shuffle(self.up[level](h), 2) + skips.pop()
            for block in self.decoder[level]:  # type: ignore[attr-defined]
                h = block(h, embedding)
        h = self.outlet(F.silu(self.outlet_norm(h)))
        return F.pixel_shuffle(h, self.config.unshuffle)
