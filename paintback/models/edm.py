"""EDM's networks, DDPM++, NCSN++ and ADM, under the names that its published checkpoints (.pkl) have for the weights.

Reference: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022,
arXiv:2206.00364. Networks: Song et al. 2021 (arXiv:2011.13456) and Dhariwal and Nichol 2021 (arXiv:2105.05233). EDM's
own code is not free for all uses and was not read; NVIDIA's Modulus, which has these networks under Apache-2.0, was,
and is what the tests measure against.

The preconditioning D(x, sigma) = c_skip x + c_out F(c_in x, c_noise) is table 1's:

            c_skip                c_out                         c_in                    c_noise
    edm     d^2 / (sigma^2+d^2)   sigma d / sqrt(sigma^2+d^2)   1 / sqrt(sigma^2+d^2)   ln(sigma) / 4
    vp      1                     -sigma                        1 / sqrt(sigma^2+1)     (M - 1) t(sigma)
    ve      1                     sigma                         1                       ln(sigma / 2)
    iddpm   1                     -sigma                        1 / sqrt(sigma^2+1)     M - 1 - index of the nearest u
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paintback.denoiser import Denoiser, NetworkDenoiser
from paintback.models.base import Model
from paintback.models.classes import class_condition
from paintback.models.filling import configure, fill
from paintback.schedules import EDM

__all__ = ["Edm", "EdmConfig", "EdmModel", "EdmUNet", "make_config", "make_model"]


@dataclass(frozen=True)
class EdmConfig:
    """What an `Edm` is built from. The names are those of the checkpoints' own arguments; the defaults are DDPM++'s.

    Attributes:
        img_resolution: side of the pictures.
        img_channels: colours.
        label_dim: classes; 0 for none.
        preconditioning: a row of the table above.
        sigma_data: d.
        dhariwal: the ADM network; else Song's.
        augment_dim: numbers that told the network of an augmentation in training; none are told here.
        model_channels: base number of channels.
        channel_mult: factor of each level, fine to coarse.
        channel_mult_emb: factor of the embedding.
        channel_mult_noise: factor of the noise level's first embedding.
        num_blocks: residual blocks of a level.
        attn_resolutions: sides at which there is self-attention.
        label_dropout: part of the training without a label; above 0 there is guidance.
        embedding_type: "positional" (DDPM++) or "fourier" (NCSN++).
        encoder_type: "standard", "skip" or "residual" (NCSN++).
        decoder_type: "standard" or "skip".
        resample_filter: taps of the filter that changes resolution; (1, 3, 3, 1) in NCSN++.
        beta_d: of vp.
        beta_min: of vp.
        M: noise levels of vp and iddpm.
        C_1: of iddpm.
        C_2: of iddpm.
    """

    img_resolution: int
    img_channels: int = 3
    label_dim: int = 0
    preconditioning: Literal["edm", "vp", "ve", "iddpm"] = "edm"
    sigma_data: float = 0.5
    dhariwal: bool = False
    augment_dim: int = 0
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    channel_mult_emb: int = 4
    channel_mult_noise: int = 1
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    label_dropout: float = 0.0
    embedding_type: Literal["positional", "fourier"] = "positional"
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    decoder_type: Literal["standard", "skip"] = "standard"
    resample_filter: tuple[int, ...] = (1, 1)
    beta_d: float = 19.9
    beta_min: float = 0.1
    M: int = 1000
    C_1: float = 0.001
    C_2: float = 0.008


DHARIWAL = {"model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3, "attn_resolutions": (32, 16, 8)}


def make_config(fields: Mapping[str, Any]) -> EdmConfig:
    """The configuration of plain JSON values; those of the ADM network have its defaults.

    Raises:
        ValueError: for a field that is missing, unknown or of a wrong kind.
    """
    return configure(EdmConfig, {**(DHARIWAL if fields.get("dhariwal") is True else {}), **fields}, "EDM")


# -------------------------------------------------------------------------------------------------------- its layers


class _Conv(nn.Module):
    """A convolution that may double or halve the sides with a fixed filter; kernel 0 does only that.

    `fused` filters after the convolution instead of before, where sides are halved.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        taps: tuple[int, ...] | None = None,
        *,
        up: bool = False,
        down: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels, self.up, self.down, self.fused = out, up, down, fused
        self.weight = nn.Parameter(torch.empty(out, channels, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.empty(out)) if kernel else None
        filter_ = None
        if taps is not None and (up or down):
            row = torch.tensor(taps, dtype=torch.float32)
            filter_ = torch.outer(row, row)[None, None] / row.sum() ** 2
        self.register_buffer("resample_filter", filter_)

    def forward(self, x: Tensor) -> Tensor:
        inner = 0 if self.weight is None else self.weight.shape[-1] // 2
        if self.resample_filter is None:
            assert self.weight is not None
            return F.conv2d(x, self.weight, self.bias, padding=inner)
        taps = self.resample_filter.to(x.dtype)
        outer = (taps.shape[-1] - 1) // 2
        if self.fused:
            assert self.weight is not None
            x = F.conv2d(x, self.weight, padding=inner + outer)
            return F.conv2d(x, taps.repeat(x.shape[1], 1, 1, 1), self.bias, stride=2, groups=x.shape[1])
        taps = taps.repeat(x.shape[1], 1, 1, 1)
        if self.up:
            x = F.conv_transpose2d(x, 4 * taps, stride=2, padding=outer, groups=x.shape[1])
        else:
            x = F.conv2d(x, taps, stride=2, padding=outer, groups=x.shape[1])
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=inner)


def _norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class _Block(nn.Module):
    """A residual block with self-attention after it, of either network."""

    def __init__(
        self,
        channels: int,
        out: int,
        config: EdmConfig,
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        adm, resampled = config.dhariwal, up or down
        taps, eps = ((1, 1), 1e-5) if adm else (config.resample_filter, 1e-6)
        embedding = config.model_channels * config.channel_mult_emb
        self.in_channels, self.out_channels = channels, out
        self.scale_shift, self.skip_scale = adm, 1.0 if adm else math.sqrt(0.5)
        self.heads = (out // 64 if adm else 1) if attention else 0
        self.norm0 = _norm(channels, eps)
        self.conv0 = _Conv(channels, out, 3, taps, up=up, down=down)
        self.affine = nn.Linear(embedding, out * (2 if adm else 1))
        self.norm1 = _norm(out, eps)
        self.conv1 = _Conv(out, out, 3)
        self.skip: _Conv | None = None
        if channels != out or resampled:
            self.skip = _Conv(channels, out, 0 if adm and channels == out else 1, taps, up=up, down=down)
        if self.heads:
            self.norm2 = _norm(out, eps)
            self.qkv = _Conv(out, 3 * out, 1)
            self.proj = _Conv(out, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        condition = self.affine(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h + condition)
        h = self.conv1(F.silu(h))
        x = (h + (x if self.skip is None else self.skip(x))) * self.skip_scale
        return (x + self._attend(x)) * self.skip_scale if self.heads else x

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        q, k, v = self.qkv(self.norm2(x)).view(batch, self.heads, channels // self.heads, 3, -1).unbind(3)
        scores = torch.einsum("bhcq,bhck->bhqk", q.float(), k.float() * (channels // self.heads) ** -0.5)
        out: Tensor = self.proj(torch.einsum("bhqk,bhck->bhcq", scores.softmax(-1).to(x.dtype), v).reshape(x.shape))
        return out


class _Positional(nn.Module):
    """Sines and cosines of a noise level."""

    def __init__(self, channels: int, *, endpoint: bool) -> None:
        super().__init__()
        self.count, self.steps = channels // 2, channels // 2 - int(endpoint)

    def forward(self, noise: Tensor) -> Tensor:
        rates = 10000 ** -(torch.arange(self.count, dtype=torch.float32, device=noise.device) / self.steps)
        angles = torch.outer(noise, rates)
        return torch.cat((angles.cos(), angles.sin()), dim=1)


class _Fourier(nn.Module):
    """The same with random frequencies, which are part of the checkpoint."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(channels // 2))

    def forward(self, noise: Tensor) -> Tensor:
        angles = torch.outer(noise, 2 * math.pi * self.freqs)
        return torch.cat((angles.cos(), angles.sin()), dim=1)


# ------------------------------------------------------------------------------------------------------- the network


class EdmUNet(nn.Module):
    """F: (B, C, H, W), (B,) noise levels c_noise and (B, classes) labels to (B, out_channels, H, W).

    Args:
        config: see there.
        out_channels: colours, or twice as many with iddpm's learned variance.
    """

    def __init__(self, config: EdmConfig, out_channels: int) -> None:
        super().__init__()
        self.config = config
        adm, width, mults = config.dhariwal, config.model_channels, config.channel_mult
        noise, embedding = width * (1 if adm else config.channel_mult_noise), width * config.channel_mult_emb
        self.map_noise = _Fourier(noise) if config.embedding_type == "fourier" else _Positional(noise, endpoint=not adm)
        if config.augment_dim:
            self.map_augment = nn.Linear(config.augment_dim, noise, bias=False)
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        if config.label_dim:
            self.map_label = nn.Linear(config.label_dim, embedding if adm else noise, bias=not adm)

        self.enc = nn.ModuleDict()
        channels, aux, skips = config.img_channels, config.img_channels, []
        for level, mult in enumerate(mults):
            side = config.img_resolution >> level
            name = f"{side}x{side}"
            if level == 0:
                first = width * mult if adm else width
                self.enc[f"{name}_conv"] = _Conv(channels, first, 3)
                channels = first
            else:
                self.enc[f"{name}_down"] = _Block(channels, channels, config, down=True)
                if config.encoder_type == "skip":
                    self.enc[f"{name}_aux_down"] = _Conv(aux, aux, 0, config.resample_filter, down=True)
                    self.enc[f"{name}_aux_skip"] = _Conv(aux, channels, 1)
                elif config.encoder_type == "residual":
                    self.enc[f"{name}_aux_residual"] = _Conv(
                        aux, channels, 3, config.resample_filter, down=True, fused=True
                    )
                    aux = channels
            skips.append(channels)
            for number in range(config.num_blocks):
                attention = side in config.attn_resolutions
                self.enc[f"{name}_block{number}"] = _Block(channels, width * mult, config, attention=attention)
                channels = width * mult
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for level, mult in reversed(list(enumerate(mults))):
            side = config.img_resolution >> level
            name = f"{side}x{side}"
            if level == len(mults) - 1:
                self.dec[f"{name}_in0"] = _Block(channels, channels, config, attention=True)
                self.dec[f"{name}_in1"] = _Block(channels, channels, config)
            else:
                self.dec[f"{name}_up"] = _Block(channels, channels, config, up=True)
            for number in range(config.num_blocks + 1):
                # ADM attends in all blocks of a level, Song's decoder in the last
                attention = side in config.attn_resolutions and (adm or number == config.num_blocks)
                block = _Block(channels + skips.pop(), width * mult, config, attention=attention)
                self.dec[f"{name}_block{number}"] = block
                channels = width * mult
            if not adm and (config.decoder_type == "skip" or level == 0):
                if config.decoder_type == "skip" and level < len(mults) - 1:
                    self.dec[f"{name}_aux_up"] = _Conv(out_channels, out_channels, 0, config.resample_filter, up=True)
                self.dec[f"{name}_aux_norm"] = _norm(channels, 1e-6)
                self.dec[f"{name}_aux_conv"] = _Conv(channels, out_channels, 3)
        if adm:
            self.out_norm = _norm(channels, 1e-5)
            self.out_conv = _Conv(channels, out_channels, 3)

    def embed(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """(B, width) embedding of noise level and label."""
        dtype = self.map_layer0.weight.dtype
        first = self.map_noise(noise.float()).to(dtype)
        if self.config.dhariwal:
            second = self.map_layer1(F.silu(self.map_layer0(first)))
            return F.silu(second if labels is None else second + self.map_label(labels.to(dtype)))
        first = torch.cat(first.chunk(2, dim=1)[::-1], dim=1)  # Song's order: sines first
        if labels is not None:
            first = first + self.map_label(labels.to(dtype) * math.sqrt(self.config.label_dim))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(first))))

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.embed(noise, labels)
        skips: list[Tensor] = []
        aux: Tensor | None = x
        for name, layer in self.enc.items():
            if "aux_down" in name:
                aux = layer(aux)
            elif "aux_skip" in name:
                x = skips[-1] = x + layer(aux)
            elif "aux_residual" in name:
                x = skips[-1] = aux = (x + layer(aux)) / math.sqrt(2)
            else:
                x = layer(x, embedding) if isinstance(layer, _Block) else layer(x)
                skips.append(x)
        aux, normed = None, x
        for name, layer in self.dec.items():
            if "aux_up" in name:
                aux = layer(aux)
            elif "aux_norm" in name:
                normed = layer(x)
            elif "aux_conv" in name:
                normed = layer(F.silu(normed))
                aux = normed if aux is None else normed + aux
            else:
                x = layer(torch.cat((x, skips.pop()), dim=1) if "block" in name else x, embedding)
        if self.config.dhariwal:
            out: Tensor = self.out_conv(F.silu(self.out_norm(x)))
            return out
        assert aux is not None
        return aux


class Edm(nn.Module):
    """D: a noisy picture to the expected clean one; the table at the head of this file.

    Args:
        config: see there.
    """

    u: Tensor

    def __init__(self, config: EdmConfig) -> None:
        super().__init__()
        self.config = config
        learned = config.preconditioning == "iddpm"
        self.model = EdmUNet(config, config.img_channels * (2 if learned else 1))
        if learned:
            self.register_buffer("u", torch.empty(config.M + 1))  # its noise levels, part of the checkpoint

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in and c_noise of (B,) noise levels."""
        config, one = self.config, torch.ones_like(sigma)
        if config.preconditioning == "edm":
            total = sigma**2 + config.sigma_data**2
            return (
                config.sigma_data**2 / total,
                sigma * config.sigma_data / total.sqrt(),
                total.rsqrt(),
                sigma.log() / 4,
            )
        if config.preconditioning == "ve":
            return one, sigma, one, (sigma / 2).log()
        c_in = (sigma**2 + 1).rsqrt()
        if config.preconditioning == "vp":
            root = (config.beta_min**2 + 2 * config.beta_d * (1 + sigma**2).log()).sqrt()
            return one, -sigma, c_in, (config.M - 1) * (root - config.beta_min) / config.beta_d
        nearest = (sigma[:, None] - self.u).abs().argmin(dim=1)
        return one, -sigma, c_in, config.M - 1 - nearest.to(sigma.dtype)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """D(x, sigma).

        Args:
            x: (B, C, H, W) in float32.
            sigma: (B,) noise levels above 0.
            labels: (B, classes) one-hot rows, for a network with classes.
        """
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)
        c_skip, c_out, c_in = (c[:, None, None, None] for c in (c_skip, c_out, c_in))
        raw = self.model((c_in * x).to(self.model.map_layer0.weight.dtype), c_noise, labels)
        out: Tensor = c_skip * x + c_out * raw[:, : self.config.img_channels].to(x.dtype)
        return out


# ---------------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class EdmModel(Model):
    """An EDM checkpoint, or one of EDM2 that works in pixels. It takes pictures of the size that it learnt from.

    Attributes:
        classes: how many it knows; 0 for none.
        droppable: whether it learnt without labels too.
    """

    classes: int = dataclasses.field(default=0, kw_only=True)
    droppable: bool = dataclasses.field(default=False, kw_only=True)

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
            guidance_scale: taken only where the checkpoint learnt without labels too.

        Raises:
            ValueError: for a missing class, or anything that the checkpoint does not take.
        """
        assert self.network is not None
        assert self.size is not None
        given = class_condition(
            self.name, self.classes, prompt, negative_prompt, guidance_scale, droppable=self.droppable
        )
        denoiser = NetworkDenoiser(
            self.network,
            EDM(),
            "x0",
            clock=lambda time: time.sigma,
            condition=None if given.condition is None else given.condition.to(self.device),
            unconditional=None if given.unconditional is None else given.unconditional.to(self.device),
            guidance_scale=given.guidance_scale,
            dtype=torch.float32,  # the preconditioning's; the network inside has its own
        )
        denoiser.shape = (self.channels, *self.size)
        return denoiser


def make_model(
    config: Mapping[str, Any], state: Mapping[str, Tensor], *, name: str, device: torch.device, dtype: torch.dtype
) -> EdmModel:
    """The model of a configuration and its weights.

    Args:
        config: fields of `EdmConfig`.
        state: the weights.
        name: what to call it.
        device: where it runs.
        dtype: of the network.

    Raises:
        ValueError: if the weights do not fit.
    """
    known = make_config(config)
    return EdmModel(
        name=name,
        channels=known.img_channels,
        multiple=2 ** (len(known.channel_mult) - 1),
        size=(known.img_resolution, known.img_resolution),
        training_size=known.img_resolution,
        network=fill(lambda: Edm(known), state, device=device, dtype=dtype, kind="EDM"),
        device=device,
        dtype=dtype,
        classes=known.label_dim,
        droppable=known.label_dropout > 0,
    )
