"""EDM2's U-Net, in pixels or in the latents of Stable Diffusion's VAE, with the weights' names of its checkpoints.

Reference: Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, CVPR 2024,
arXiv:2312.02696: configuration G, figure 21; magnitude-preserving layers of appendix B. EDM2's own code is not free for
all uses and was not read; lucidrains' denoising-diffusion-pytorch (MIT) was, and is what the tests measure against.

Every layer keeps the expected magnitude of its input at 1:
    weights   w / (eps + rms(w)) / sqrt(fan-in), algorithm 1
    sum       ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2), equation 88
    concat    sqrt((Na + Nb) / ((1 - t)^2 + t^2)) [(1 - t) a / sqrt(Na), t b / sqrt(Nb)], equation 103
    SiLU      silu(x) / 0.596
    Fourier   sqrt(2) cos(2 pi (f x + phase))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paintback.denoiser import Denoiser, NetworkDenoiser
from paintback.models.base import Model
from paintback.models.classes import class_condition
from paintback.models.edm import EdmModel
from paintback.models.edm2_vae import Edm2Codec, load_vae
from paintback.models.filling import configure, fill
from paintback.models.latent import LatentModel
from paintback.schedules import EDM

__all__ = ["Edm2", "Edm2Config", "Edm2LatentModel", "Edm2UNet", "make_config", "make_model"]

EPS = 1e-4
# Mean and standard deviation of ImageNet's latents under Stable Diffusion's VAE: the models see (z - mean) / std / 2.
LATENT_MEAN = (5.81, 3.25, 0.12, -2.15)
LATENT_STD = (4.17, 4.62, 3.71, 3.28)
LATENT_SIGMA = 0.5


@dataclass(frozen=True)
class Edm2Config:
    """What an `Edm2` is built from. The names are those of the checkpoints' own arguments.

    Attributes:
        img_resolution: side of the pictures or latents.
        img_channels: 3 in pixels, 4 in latents.
        label_dim: classes; 0 for none.
        sigma_data: standard deviation of the data.
        model_channels: base number of channels.
        channel_mult: factor of each level, fine to coarse.
        channel_mult_noise: factor of the noise level's embedding; None for the first level's.
        channel_mult_emb: factor of the embedding; None for the largest level's.
        num_blocks: residual blocks of a level.
        attn_resolutions: sides at which there is self-attention.
        label_balance: t of the sum of noise level and label.
        concat_balance: t of the skips' concatenation.
        res_balance: t of the residual sum.
        attn_balance: t of the attention's sum.
        channels_per_head: of the attention.
        clip_act: activations are held within this; None for no bound.
        latent_scale: factor of each latent channel.
        latent_bias: added after it.
    """

    img_resolution: int
    img_channels: int
    label_dim: int = 0
    sigma_data: float = 0.5
    model_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    channel_mult_noise: int | None = None
    channel_mult_emb: int | None = None
    num_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (16, 8)
    label_balance: float = 0.5
    concat_balance: float = 0.5
    res_balance: float = 0.3
    attn_balance: float = 0.3
    channels_per_head: int = 64
    clip_act: float | None = 256
    latent_scale: tuple[float, ...] = tuple(LATENT_SIGMA / std for std in LATENT_STD)
    latent_bias: tuple[float, ...] = tuple(
        -LATENT_SIGMA * mean / std for mean, std in zip(LATENT_MEAN, LATENT_STD, strict=True)
    )

    @property
    def latent(self) -> bool:
        """Whether it works in latents."""
        return self.img_channels == 4


def make_config(fields: Mapping[str, Any]) -> Edm2Config:
    """The configuration of plain JSON values.

    Raises:
        ValueError: for a field that is missing, unknown or of a wrong kind.
    """
    known = configure(Edm2Config, fields, "EDM2")
    if known.img_channels not in (3, 4):
        raise ValueError(f"EDM2 networks have 3 channels (pixels) or 4 (latents); got {known.img_channels}.")
    return known


# -------------------------------------------------------------------------------------------------------- its layers


def _normalize(x: Tensor, dims: int | list[int]) -> Tensor:
    """A tensor over its root mean square along dims, in float32."""
    rms = x.float().square().mean(dims, keepdim=True).sqrt()
    return x / (EPS + rms).to(x.dtype)


def _silu(x: Tensor) -> Tensor:
    return F.silu(x) / 0.596


def _sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


def _cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    total = math.sqrt((a.shape[1] + b.shape[1]) / ((1 - t) ** 2 + t**2))
    return torch.cat((a * (total * (1 - t) / math.sqrt(a.shape[1])), b * (total * t / math.sqrt(b.shape[1]))), dim=1)


class _Conv(nn.Module):
    """A convolution, or with kernel 0 a linear layer, without bias. `freeze` must follow the loading of its weights."""

    def __init__(self, channels: int, out: int, kernel: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, channels, *((kernel, kernel) if kernel else ())))

    def freeze(self) -> None:
        """Normalises the weights, once and for all; the checkpoints hold them as training left them."""
        others = list(range(1, self.weight.ndim))
        scaled = _normalize(self.weight.data.float(), others) / math.sqrt(self.weight[0].numel())
        self.weight.data = scaled.to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.ndim == 2:
            return F.linear(x, self.weight)
        return F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)


class _Fourier(nn.Module):
    """A noise level as cosines of random frequencies and phases, which are part of the checkpoint."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(channels))  # with the 2 pi in them
        self.register_buffer("phases", torch.empty(channels))

    def forward(self, noise: Tensor) -> Tensor:
        return (torch.outer(noise.float(), self.freqs) + self.phases).cos() * math.sqrt(2)


class _Block(nn.Module):
    """A residual block of the encoder or of the decoder, with self-attention after it."""

    def __init__(
        self,
        channels: int,
        out: int,
        embedding: int,
        config: Edm2Config,
        *,
        encoder: bool,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.encoder, self.up, self.down = config, encoder, up, down
        self.heads = out // config.channels_per_head if attention else 0
        self.emb_gain = nn.Parameter(torch.empty(()))
        self.conv_res0 = _Conv(out if encoder else channels, out, 3)
        self.emb_linear = _Conv(embedding, out)
        self.conv_res1 = _Conv(out, out, 3)
        self.conv_skip = _Conv(channels, out, 1) if channels != out else None
        if self.heads:
            self.attn_qkv = _Conv(out, 3 * out, 1)
            self.attn_proj = _Conv(out, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        config = self.config
        if self.down:
            x = F.avg_pool2d(x, 2)
        elif self.up:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        if self.encoder:
            x = _normalize(x if self.conv_skip is None else self.conv_skip(x), 1)
        h = self.conv_res0(_silu(x))
        scale = self.emb_linear(embedding) * self.emb_gain + 1
        h = self.conv_res1(_silu(h * scale[:, :, None, None]))
        if not self.encoder and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = _sum(x, h, config.res_balance)
        if self.heads:
            x = _sum(x, self._attend(x), config.attn_balance)
        return x if config.clip_act is None else x.clamp(-config.clip_act, config.clip_act)

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        qkv = self.attn_qkv(x).view(batch, self.heads, channels // self.heads, 3, -1)
        q, k, v = _normalize(qkv, 2).unbind(3)
        weights = torch.einsum("bhcq,bhck->bhqk", q, k / math.sqrt(channels // self.heads)).softmax(-1)
        out: Tensor = self.attn_proj(torch.einsum("bhqk,bhck->bhcq", weights, v).reshape(x.shape))
        return out


# ------------------------------------------------------------------------------------------------------- the network


class Edm2UNet(nn.Module):
    """F: (B, C, H, W), (B,) noise levels ln(sigma) / 4 and (B, classes) labels to (B, C, H, W).

    Args:
        config: see there.
    """

    def __init__(self, config: Edm2Config) -> None:
        super().__init__()
        self.config = config
        widths = [config.model_channels * mult for mult in config.channel_mult]
        noise = config.model_channels * config.channel_mult_noise if config.channel_mult_noise else widths[0]
        embedding = config.model_channels * config.channel_mult_emb if config.channel_mult_emb else max(widths)
        self.emb_fourier = _Fourier(noise)
        self.emb_noise = _Conv(noise, embedding)
        self.emb_label = _Conv(config.label_dim, embedding) if config.label_dim else None
        self.out_gain = nn.Parameter(torch.empty(()))

        def block(channels: int, out: int, **options: bool) -> _Block:
            return _Block(channels, out, embedding, config, **options)

        self.enc = nn.ModuleDict()
        channels, skips = config.img_channels + 1, []
        for level, out in enumerate(widths):
            side = config.img_resolution >> level
            attention = side in config.attn_resolutions
            if level == 0:
                self.enc[f"{side}x{side}_conv"] = _Conv(channels, out, 3)
                channels = out
            else:
                self.enc[f"{side}x{side}_down"] = block(channels, channels, encoder=True, down=True)
            skips.append(channels)
            for number in range(config.num_blocks):
                self.enc[f"{side}x{side}_block{number}"] = block(channels, out, encoder=True, attention=attention)
                channels = out
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for level, out in reversed(list(enumerate(widths))):
            side = config.img_resolution >> level
            attention = side in config.attn_resolutions
            if level == len(widths) - 1:
                self.dec[f"{side}x{side}_in0"] = block(channels, channels, encoder=False, attention=True)
                self.dec[f"{side}x{side}_in1"] = block(channels, channels, encoder=False)
            else:
                self.dec[f"{side}x{side}_up"] = block(channels, channels, encoder=False, up=True)
            for number in range(config.num_blocks + 1):
                self.dec[f"{side}x{side}_block{number}"] = block(
                    channels + skips.pop(), out, encoder=False, attention=attention
                )
                channels = out
        self.out_conv = _Conv(channels, config.img_channels, 3)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.emb_noise(self.emb_fourier(noise).to(x.dtype))
        if self.emb_label is not None and labels is not None:
            label = self.emb_label(labels.to(x.dtype) * math.sqrt(self.config.label_dim))
            embedding = _sum(embedding, label, self.config.label_balance)
        embedding = _silu(embedding)
        x = torch.cat((x, torch.ones_like(x[:, :1])), dim=1)  # the one of it stands in for biases
        skips = []
        for layer in self.enc.values():
            x = layer(x, embedding) if isinstance(layer, _Block) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(_cat(x, skips.pop(), self.config.concat_balance) if "block" in name else x, embedding)
        out: Tensor = self.out_conv(x) * self.out_gain
        return out


class Edm2(nn.Module):
    """D(x, sigma) with EDM's preconditioning, table 1 of arXiv:2206.00364.

    Args:
        config: see there.
    """

    def __init__(self, config: Edm2Config) -> None:
        super().__init__()
        self.config = config
        self.unet = Edm2UNet(config)

    def freeze(self) -> None:
        """Normalises all weights; see `_Conv.freeze`."""
        for layer in self.modules():
            if isinstance(layer, _Conv):
                layer.freeze()

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """D(x, sigma).

        Args:
            x: (B, C, H, W) in float32.
            sigma: (B,) noise levels above 0.
            labels: (B, classes) one-hot rows, for a network with classes.
        """
        data = self.config.sigma_data
        total = (sigma**2 + data**2)[:, None, None, None]
        raw = self.unet((x * total.rsqrt()).to(self.unet.out_gain.dtype), sigma.log() / 4, labels)
        out: Tensor = x * (data**2 / total) + raw.to(x.dtype) * (sigma[:, None, None, None] * data * total.rsqrt())
        return out


# ---------------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Edm2LatentModel(LatentModel):
    """A latent EDM2 checkpoint.

    Attributes:
        classes: how many it knows; 0 for none.
    """

    classes: int = dataclasses.field(default=0, kw_only=True)

    def denoiser(
        self,
        prompt: str | int | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: tuple[int, ...] | None = None,
        **embeddings: Tensor | float | None,
    ) -> Denoiser:
        """The denoiser of a class, in latents.

        Args:
            prompt: "class 207", "207" or 207, for a checkpoint with classes.
            negative_prompt: not taken.
            guidance_scale: not taken: EDM2's guidance needs a second model.
            size: (H, W) of the pictures; None for the training size.
            embeddings: none is taken.

        Raises:
            ValueError: for a missing class, or anything that the checkpoint does not take.
        """
        if given := [name for name, value in embeddings.items() if value is not None]:
            raise ValueError(f"The model {self.name!r} takes no {', '.join(given)}; leave it out.")
        assert self.network is not None
        condition = class_condition(self.name, self.classes, prompt, negative_prompt, guidance_scale).condition
        denoiser = NetworkDenoiser(
            self.network,
            EDM(),
            "x0",
            clock=lambda time: time.sigma,
            condition=None if condition is None else condition.to(self.device),
            dtype=torch.float32,  # the preconditioning's; the network inside has its own
        )
        denoiser.shape = self.codec.shape(size or (self.training_size, self.training_size))
        denoiser.codec = self.codec
        return denoiser


def make_model(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    vae: Path | None = None,
) -> Model:
    """The model of a configuration and its weights.

    Args:
        config: fields of `Edm2Config`.
        state: the weights.
        name: what to call it.
        device: where it runs.
        dtype: of the network.
        vae: folder of the VAE that a latent model needs.

    Raises:
        ValueError: if the weights do not fit, or a latent model's VAE is not there.
    """
    known = make_config(config)
    codec = None
    if known.latent:
        if vae is None:
            raise ValueError("A latent EDM2 model needs a VAE; give its folder.")
        codec = Edm2Codec(load_vae(vae, device=device, dtype=dtype), known.latent_scale, known.latent_bias)
    network = fill(lambda: Edm2(known), state, device=device, dtype=dtype, kind="EDM2", prepare=Edm2.freeze)
    levels, side = 2 ** (len(known.channel_mult) - 1), known.img_resolution
    if codec is None:
        return EdmModel(
            name=name,
            channels=3,
            multiple=levels,
            size=(side, side),
            training_size=side,
            network=network,
            device=device,
            dtype=dtype,
            classes=known.label_dim,
        )
    return Edm2LatentModel(
        name=name,
        channels=3,
        multiple=codec.factor * levels,
        size=None,
        training_size=codec.factor * side,
        network=network,
        device=device,
        dtype=dtype,
        codec=codec,
        classes=known.label_dim,
    )
