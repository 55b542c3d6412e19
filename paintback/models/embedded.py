"""The models that Paintback ships: small U-Nets with EDM's preconditioning, read from `paintback/weights/`.

Preconditioning: Karras et al. 2022 (arXiv:2206.00364), table 1:
D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4), with c_skip = d^2 / (sigma^2 + d^2),
c_out = sigma d / sqrt(sigma^2 + d^2), c_in = 1 / sqrt(sigma^2 + d^2), d = sigma_data.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from paintback.denoiser import Denoiser, Prediction, predict
from paintback.models.base import Model
from paintback.models.catalogue import Sampler
from paintback.models.unet import UNet, UNetConfig
from paintback.schedules import EDM, Time

__all__ = ["EmbeddedModel", "UNetDenoiser", "load_embedded", "load_unet"]


class UNetDenoiser(Denoiser):
    """A trained `UNet` as a denoiser in EDM's coordinates.

    Args:
        network: the raw network.
        shape: of one picture, or None for any.
        dtype: the network's; the state keeps its own.
        name: of the model, by which AID finds the module that was trained beside it.
    """

    def __init__(
        self,
        network: UNet,
        *,
        shape: tuple[int, ...] | None = None,
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
    ) -> None:
        super().__init__(EDM())
        self.network, self.shape, self.dtype, self.name = network, shape, dtype, name
        self.multiple = network.config.multiple

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """D(x, sigma); see the head of this file."""
        if x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise ValueError(
                f"This network takes sides that are multiples of {self.multiple}; got {x.shape[-1]} x {x.shape[-2]}."
            )
        if time.sigma == 0:
            return predict("x0", x, x, time, rows=len(x))
        data, sigma = self.network.config.sigma_data, time.sigma
        total = math.hypot(sigma, data)
        clock = torch.full((len(x),), math.log(sigma) / 4, device=x.device, dtype=self.dtype)
        raw = self.network((x / total).to(self.dtype), clock).to(x.dtype)
        x0 = x * (data / total) ** 2 + raw * (sigma * data / total)
        return predict("x0", x0, x, time, rows=len(x))


@dataclass(frozen=True)
class EmbeddedModel(Model):
    """A shipped model, or one that `paintback train prior` made."""

    def denoiser(
        self, prompt: str | None = None, negative_prompt: str | None = None, guidance_scale: float | None = None
    ) -> Denoiser:
        """The denoiser; it takes no prompt."""
        for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if value:
                raise ValueError(
                    f"The model {self.name!r} takes no {name}; leave it out or choose a text-to-image model."
                )
        if guidance_scale not in (None, 1, 1.0):
            raise ValueError(f"The model {self.name!r} has no guidance; leave guidance_scale out.")
        assert isinstance(self.network, UNet)
        shape = None if self.size is None else (self.channels, *self.size)
        return UNetDenoiser(self.network, shape=shape, dtype=self.dtype, name=self.name)


def load_unet(path: Path) -> tuple[UNet, dict[str, str]]:
    """Reads a U-Net and the header of its weights.

    Args:
        path: a safetensors file that `paintback train prior` wrote.

    Returns:
        The network in float32, in eval mode, without gradients, and the header.

    Raises:
        ValueError: if the file is not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        fields = json.loads(header["config"])
        with torch.device("meta"):  # no initial weights: they would draw from torch's global generator
            network = UNet(UNetConfig(**{**fields, "widths": tuple(fields["widths"])}))
        network.load_state_dict(state, assign=True)
    except (SafetensorError, KeyError, json.JSONDecodeError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold weights of an embedded model ({type(error).__name__}).") from error
    network = network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return network.requires_grad_(False), header


def load_embedded(
    path: Path, *, name: str | None = None, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> EmbeddedModel:
    """Loads a shipped model or one's own.

    Args:
        path: its safetensors file.
        name: what to call it; by default the file's name.
        device: None for CUDA where there is one, else the CPU.
        dtype: of the network; None for float32.

    Raises:
        ValueError: if the file is not such a model, or the device is not there.
    """
    network, header = load_unet(path)
    where = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or torch.float32
    try:
        network = network.to(device=where, dtype=dtype)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"The device {where} cannot be used here: {str(error).splitlines()[0]}") from error
    size = int(header["size"]) if "size" in header else None
    return EmbeddedModel(
        name=name or path.stem,
        channels=network.config.channels,
        multiple=network.config.multiple,
        size=None if size is None else (size, size),
        training_size=int(header.get("training_size", 64)),
        network=network,
        device=where,
        dtype=dtype,
        sampler=Sampler(**json.loads(header.get("sampler", "{}"))),
    )
