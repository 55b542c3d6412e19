"""The embedded network: a small, fully convolutional U-Net for pictures of any size.

It follows the U-Net of EDM (Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models,
NeurIPS 2022, arXiv:2206.00364) with three changes that make it cheap on a CPU and indifferent to the picture's size:

- a pixel-unshuffle comes first, so that no convolution runs at full resolution;
- every normalisation is over the channels of one position (as in ConvNeXt), never over the picture, so that a
  512-pixel picture meets the statistics that the 64-pixel training crops had;
- skips are added, not concatenated.

Two parts are there where the configuration asks for them. Self-attention at the coarsest level lets the far sides of a
crop agree. A place says where in its picture the crop lies and how many cells the picture has, so that a sky is
painted at the top and the pixels of an enlarged detail are soft; a crop without a known place is painted as well.

A network with a vocabulary also takes a prompt: the mean of the learnt vectors of its words goes through a small MLP
and is added to the embedding of the noise level. No prompt is a mean of 0, which the MLP's biases turn into a learnt
vector of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PLACE", "UNet", "UNetConfig"]


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
        heads: heads of the self-attention at the coarsest level; 0 for a network without.
        place: whether the network takes the place of the crop.
    """

    channels: int = 3
    widths: tuple[int, ...] = (64, 128, 192)
    blocks: int = 2
    unshuffle: int = 2
    sigma_data: float = 0.5
    vocabulary: int = 0
    heads: int = 0
    place: bool = False

    @property
    def multiple(self) -> int:
        """The picture's sides must be multiples of this."""
        return int(self.unshuffle * 2 ** (len(self.widths) - 1))

    def to_dict(self) -> dict[str, object]:
        """The fields as plain JSON values."""
        return {**asdict(self), "widths": list(self.widths)}


PLACE = 6  # numbers of a place: top, left, bottom, right, zoom, 1


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


class _Attention(nn.Module):
    """Residual self-attention over all positions; queries and keys have unit length, so that no size saturates it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _Norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.scale = nn.Parameter(torch.full((heads,), math.log(8.0)))
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, across = x.shape
        parts = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(batch, height * across, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        q = F.normalize(q, dim=-1) * self.scale.exp()[:, None, None].to(x.dtype)
        mixed = F.scaled_dot_product_attention(q, F.normalize(k, dim=-1), v, scale=1.0)
        out: Tensor = x + self.out(mixed.permute(0, 2, 1, 3).reshape(batch, height, across, width).permute(0, 3, 1, 2))
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
        self.inlet = nn.Conv2d(config.channels * unshuffle**2 + 3 * config.place, widths[0], 3, padding=1)
        if config.place:
            self.zoom = nn.Linear(2, embedding)
        if config.heads:
            self.attend = nn.ModuleList(_Attention(widths[-1], config.heads) for _ in range(2))
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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> UNet:
        """Moves the network; the frequencies keep at least float32, since 16 bits say little of 100 radians."""
        frequencies = self.frequencies
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.frequencies.dtype.itemsize < frequencies.dtype.itemsize:
            self.frequencies = frequencies.to(self.frequencies.device)
        return self

    def forward(self, x: Tensor, c_noise: Tensor, words: Tensor | None = None, place: Tensor | None = None) -> Tensor:
        """One evaluation.

        Args:
            x: (B, channels, H, W), scaled to unit variance; H and W multiples of `config.multiple`.
            c_noise: (B,), ln(sigma) / 4.
            words: (B, vocabulary), weights of the prompt's words, as `Vocabulary.rows` gives them; a row of zeros,
                or None for the whole batch, is no prompt.
            place: (B, 6), of a network that takes it: top, left, bottom and right of the crop in its picture, whose
                sides go from -1 to 1; the zoom, log2 of the picture's short side in cells over 64; and a 1. A row
                of zeros, or None for the whole batch, is an unknown place.

        Returns:
            (B, channels, H, W).

        Raises:
            ValueError: if words are given to a network without a vocabulary, or a place to one that takes none.
        """
        angles = c_noise[:, None] * self.frequencies * (2 * math.pi)
        embedding = self.embed(torch.cat((angles.cos(), angles.sin()), dim=1).to(x.dtype))
        if self.config.vocabulary:
            mean = embedding.new_zeros(1, self.words.shape[1]) if words is None else words @ self.words
            embedding = embedding + self.prompt(mean)
        elif words is not None:
            raise ValueError("This network has no vocabulary; leave words out.")
        h = F.pixel_unshuffle(x, self.config.unshuffle)
        if self.config.place:
            place = c_noise.new_zeros(len(x), PLACE) if place is None else place
            embedding = embedding + self.zoom(place[:, 4:].to(x.dtype))
            h = torch.cat((h, _planes(place, h.shape[-2], h.shape[-1]).to(x.dtype)), dim=1)
        elif place is not None:
            raise ValueError("This network takes no place; leave it out.")
        h = self.inlet(h.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, blocks in enumerate(self.encoder):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, embedding)
            if level < len(self.down):
                skips.append(h)
                h = self.down[level](h)
        if self.config.heads:
            h = self.attend[0](h)
        h = self.middle(h, embedding)
        for level in reversed(range(len(self.decoder))):
            if level < len(self.up):
                h = F.pixel_shuffle(self.up[level](h), 2) + skips.pop()
            for block in self.decoder[level]:  # type: ignore[attr-defined]
                h = block(h, embedding)
            if self.config.heads and level == len(self.up):
                h = self.attend[1](h)
        h = self.outlet(F.silu(self.outlet_norm(h)))
        return F.pixel_shuffle(h, self.config.unshuffle)


def _planes(place: Tensor, rows: int, columns: int) -> Tensor:
    """(B, 3, rows, columns): height and breadth of every cell's centre in the picture, and whether they are known."""
    top, left, bottom, right, _, known = place.float().T[..., None, None]
    down = (torch.arange(rows, device=place.device) + 0.5)[:, None] / rows
    along = (torch.arange(columns, device=place.device) + 0.5)[None] / columns
    planes = (top + (bottom - top) * down, left + (right - left) * along, known)
    return torch.stack([plane.expand(len(place), rows, columns) for plane in planes], dim=1)
