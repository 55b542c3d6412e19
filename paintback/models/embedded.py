"""The models that Paintback ships: small U-Nets with EDM's preconditioning, read from `paintback/weights/`.

Preconditioning: Karras et al. 2022 (arXiv:2206.00364), table 1:
D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4), with c_skip = d^2 / (sigma^2 + d^2),
c_out = sigma d / sqrt(sigma^2 + d^2), c_in = 1 / sqrt(sigma^2 + d^2), d = sigma_data.

Some take a prompt, as weights of the words of their vocabulary, with classifier-free guidance (Ho and Salimans 2022,
arXiv:2207.12598): D = D(x, negative) + w (D(x, prompt) - D(x, negative)), no words where there is no negative prompt.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from paintback.denoiser import Denoiser, Prediction, condition_rows, predict
from paintback.models.base import Model
from paintback.models.catalogue import Sampler
from paintback.models.precision import native, quicker
from paintback.models.unet import UNet, UNetConfig
from paintback.models.vocabulary import Vocabulary
from paintback.schedules import EDM, Time

__all__ = ["EmbeddedModel", "UNetDenoiser", "load_embedded", "load_unet"]

ZOOMS = (0.0, 2.2)  # of the crops that networks with a place learnt from; beyond, the nearest is told


class UNetDenoiser(Denoiser):
    """A trained `UNet` as a denoiser in EDM's coordinates.

    Args:
        network: the raw network.
        shape: of one picture, or None for any.
        dtype: the network's; the state keeps its own.
        name: of the model, by which AID finds the module that was trained beside it.
        condition: (1 or B, V) weights of the prompt's words, for a network with a vocabulary; None for no prompt.
        unconditional: the same for the negative prompt; zeros where there is none.
        guidance_scale: w of classifier-free guidance; its two predictions are one doubled batch.

    Raises:
        ValueError: for a guidance scale other than 1 with only one of the two rows.
    """

    def __init__(
        self,
        network: UNet,
        *,
        shape: tuple[int, ...] | None = None,
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
        condition: Tensor | None = None,
        unconditional: Tensor | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        super().__init__(EDM())
        if guidance_scale != 1 and condition is not None and unconditional is None:
            raise ValueError("A guidance_scale other than 1 needs the unconditional row too.")
        self.condition, self.unconditional, self.guidance_scale = condition, unconditional, guidance_scale
        self.network, self.shape, self.dtype, self.name = network, shape, dtype, name
        self.multiple = network.config.multiple
        self.place: Tensor | None = None

    def placed(
        self, boxes: Sequence[tuple[int, int, int, int]], shapes: Sequence[tuple[int, int]], factor: int
    ) -> UNetDenoiser:
        """The denoiser of crops whose place is known, for a network that takes it; else this one.

        Args:
            boxes: top, left, bottom and right of each row's crop, in pixels of its picture.
            shapes: (H, W) of each row's picture.
            factor: pixels of a cell along a side.
        """
        if not self.network.config.place:
            return self
        rows = []
        for box, (height, width) in zip(boxes, shapes, strict=True):
            edges = [2 * edge / side - 1 for edge, side in zip(box, (height, width, height, width), strict=True)]
            zoom = min(max(math.log2(min(height, width) / factor / 64), ZOOMS[0]), ZOOMS[1])
            rows.append([*edges, zoom, 1.0])
        other = copy.copy(self)
        where = next(self.network.parameters()).device
        other.place = torch.tensor(rows).to(where, non_blocking=True)  # once, and no evaluation waits for it
        return other

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """D(x, sigma); see the head of this file."""
        if x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise ValueError(
                f"This network takes sides that are multiples of {self.multiple}; got {x.shape[-1]} x {x.shape[-2]}."
            )
        if time.sigma == 0:
            return predict("x0", x, x, time, rows=len(x))
        if self.condition is None:
            return predict("x0", self._picture(x, time.sigma), x, time, rows=len(x))
        condition = condition_rows(self.condition, len(x))
        if self.unconditional is None or self.guidance_scale == 1:
            return predict("x0", self._picture(x, time.sigma, condition), x, time, rows=len(x))
        both = torch.cat((condition_rows(self.unconditional, len(x)), condition))
        halves = self._picture(torch.cat((x, x)), time.sigma, both, halves=2).chunk(2)
        lower, upper = (predict("x0", half, x, time) for half in halves)
        guided = Prediction(upper.x0, upper.x1, upper, lower).guided(self.guidance_scale)
        return replace(guided, rows=2 * len(x))

    def _picture(self, x: Tensor, sigma: float, words: Tensor | None = None, halves: int = 1) -> Tensor:
        """D(x, sigma), of x's shape."""
        data = self.network.config.sigma_data
        total = math.hypot(sigma, data)
        clock = torch.full(
            (len(x),), math.log(sigma) / 4, device=x.device, dtype=torch.promote_types(self.dtype, torch.float32)
        )
        condition = {} if words is None else {"words": words.to(self.dtype)}
        if self.place is not None:
            # under guidance x is twice the batch, one after the other
            condition["place"] = torch.cat([condition_rows(self.place, len(x) // halves)] * halves)
        raw: Tensor = self.network((x / total).to(self.dtype), clock, **condition).to(x.dtype)
        return x * (data / total) ** 2 + raw * (sigma * data / total)


@dataclass(frozen=True)
class EmbeddedModel(Model):
    """A shipped model, or one that `paintback train prior` made.

    Attributes:
        vocabulary: the words that its prompts are made of; empty for a model without prompts.
        guidance_scale: of classifier-free guidance, where the user names none.
        full: the network in float32, where its bfloat16 was chosen because it is quicker here; else None.
    """

    vocabulary: Vocabulary = field(default_factory=Vocabulary, kw_only=True)
    guidance_scale: float = field(default=1.0, kw_only=True)
    full: UNet | None = field(default=None, repr=False, kw_only=True)

    def exact(self) -> EmbeddedModel:
        """This model in float32, where bfloat16 was chosen for its speed and not asked for."""
        return self if self.full is None else replace(self, network=self.full, dtype=torch.float32, full=None)

    def denoiser(
        self, prompt: str | None = None, negative_prompt: str | None = None, guidance_scale: float | None = None
    ) -> Denoiser:
        """The denoiser of a prompt.

        Without prompt and negative prompt the two predictions that guidance mixes are one, whatever its scale, and
        the network is run once.

        Args:
            prompt: a few words, for a model with a vocabulary; their order does not matter.
            negative_prompt: words to steer away from, likewise.
            guidance_scale: w of classifier-free guidance; None for the model's own.

        Raises:
            ValueError: for a prompt without a known word, or anything that the model does not take.
        """
        assert isinstance(self.network, UNet)
        shape = None if self.size is None else (self.channels, *self.size)
        make = partial(UNetDenoiser, self.network, shape=shape, dtype=self.dtype, name=self.name)
        if self.vocabulary:
            if not prompt and not negative_prompt:
                return make()
            scale = self.guidance_scale if guidance_scale is None else float(guidance_scale)
            condition = self._row("prompt", prompt)
            unconditional = self._row("negative_prompt", negative_prompt)
            return make(condition=condition, unconditional=unconditional, guidance_scale=scale)
        for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if value:
                raise ValueError(
                    f"The model {self.name!r} takes no {name}; leave it out or choose a text-to-image model."
                )
        if guidance_scale not in (None, 1, 1.0):
            raise ValueError(f"The model {self.name!r} has no guidance; leave guidance_scale out.")
        return make()

    def _row(self, name: str, prompt: str | None) -> Tensor:
        """(1, V) weights of a prompt's words, zeros for none; a warning for unknown ones."""
        text = str(prompt or "")
        row, unknown = self.vocabulary.row(text), self.vocabulary.unknown(text)
        if prompt and not row.any():
            raise ValueError(
                f"The model {self.name!r} knows none of the words of the {name} {prompt!r}; it reads plain English "
                "words such as 'red apple'."
            )
        if unknown:
            warnings.warn(
                f"The model {self.name!r} does not know {', '.join(map(repr, unknown))} in the {name}, and reads the "
                "other words alone.",
                stacklevel=3,
            )
        return row[None].to(self.device)


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
        if len(_vocabulary(header)) != network.config.vocabulary:
            raise KeyError("vocabulary")
    except (SafetensorError, KeyError, json.JSONDecodeError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold weights of an embedded model ({type(error).__name__}).") from error
    network = network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return network.requires_grad_(False), header


def _vocabulary(header: dict[str, str]) -> Vocabulary:
    return Vocabulary(tuple(json.loads(header.get("vocabulary", "[]"))))


def load_embedded(
    path: Path, *, name: str | None = None, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> EmbeddedModel:
    """Loads a shipped model or one's own.

    Args:
        path: its safetensors file.
        name: what to call it; by default the file's name.
        device: None for CUDA where there is one, else the CPU.
        dtype: of the network; None for float32, or for bfloat16 on a CPU where that is quicker: see `precision`.

    Raises:
        ValueError: if the file is not such a model, or the device is not there.
    """
    network, header = load_unet(path)
    where = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = quicker(network) if dtype is None and where.type == "cpu" and native() else None
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
        network=half or network,
        device=where,
        dtype=torch.bfloat16 if half is not None else dtype,
        full=None if half is None else network,
        sampler=Sampler(**json.loads(header.get("sampler", "{}"))),
        vocabulary=_vocabulary(header),
        guidance_scale=float(header.get("guidance_scale", 1)),
    )
