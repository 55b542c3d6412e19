"""A network of one's own as a model: any torch module that predicts noise, v, a velocity or the picture.

`Inpainter.from_network` makes an Inpainter of it. Whatever does not fit is said there, not in the middle of a picture:
the network is run once, on a row of noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from paintback.denoiser import Denoiser, NetworkDenoiser, Parametrisation, not_finite
from paintback.models.base import Model
from paintback.models.catalogue import Sampler
from paintback.models.tiles import TiledDenoiser
from paintback.schedules import EDM, VP, Flow, Schedule, Time

__all__ = ["Layout", "NetworkModel", "network_model", "parametrisation_named"]

Layout = Literal["whole", "tiles", "coarse-to-fine"]

NAMES: dict[str, Parametrisation] = {
    "eps": "eps", "epsilon": "eps", "noise": "eps",
    "v": "v", "v_prediction": "v", "v-prediction": "v",
    "flow": "flow", "flow_prediction": "flow", "rectified_flow": "flow",
    "x0": "x0", "sample": "x0", "x_start": "x0", "start_x": "x0", "denoised": "x0", "edm": "x0",
}  # fmt: skip
"""What papers and libraries call a network's output, and what it is here; "velocity" is said below."""

SIDES = 8  # of pictures of any size, unless a multiple is named


def parametrisation_named(name: str, schedule: Schedule) -> Parametrisation:
    """What a paper's word for a network's output means.

    Args:
        name: one of `NAMES`, or "velocity": x1 - x0 on a flow schedule, and v on a variance-preserving one, whose
            papers use that word for v.
        schedule: of the network.

    Raises:
        ValueError: for a word that is none of these, or does not go with the schedule.
    """
    word = str(name).strip().lower()
    if word == "velocity" and isinstance(schedule, Flow):
        return "flow"
    if word == "velocity" and isinstance(schedule, VP):
        return "v"
    if word not in NAMES:
        raise ValueError(
            f"Unknown parametrisation {name!r}; valid are {', '.join(NAMES)}, and velocity on a schedule of flow or VP."
        )
    kind = NAMES[word]
    if kind == "v" and not isinstance(schedule, VP):
        raise ValueError(
            f"v is alpha x1 - sigma x0 of a variance-preserving schedule, and this one is {type(schedule).__name__}; "
            "give schedules.VP(...), or flow for a velocity."
        )
    if kind == "flow" and isinstance(schedule, EDM):
        raise ValueError(
            "flow is the velocity x1 - x0 of schedules.Flow, and this schedule is EDM; give the other one."
        )
    if word == "edm" and not isinstance(schedule, EDM):
        raise ValueError(
            f"edm is D(x, sigma) on a schedule of EDM, and this one is {type(schedule).__name__}; give schedules.EDM()."
        )
    return kind


def _clock(schedule: Schedule) -> Callable[[Time], float]:
    """The time argument that networks of a kind of schedule have: DDPM's index, or sigma itself."""
    if isinstance(schedule, VP):
        count = schedule.num_train_timesteps
        return lambda time: time.t * count - 1
    return lambda time: time.sigma


@dataclass(frozen=True)
class NetworkModel(Model):
    """A network of one's own.

    Attributes:
        make: gives its denoiser.
    """

    make: Callable[[], Denoiser] = field(kw_only=True)

    def denoiser(
        self, prompt: str | None = None, negative_prompt: str | None = None, guidance_scale: float | None = None
    ) -> Denoiser:
        """The denoiser, which takes no prompt.

        Raises:
            ValueError: for a prompt or guidance.
        """
        for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if value:
                raise ValueError(f"The model {self.name!r} takes no {name}; leave it out.")
        if guidance_scale not in (None, 1, 1.0):
            raise ValueError(f"The model {self.name!r} has no guidance; leave guidance_scale out.")
        return self.make()

    def to_model(self, picture: Tensor) -> Tensor:
        return picture.mean(dim=1, keepdim=True) if self.channels == 1 else picture

    def to_picture(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1) if self.channels == 1 else x


def network_model(
    network: Callable[..., Tensor],
    *,
    parametrisation: str,
    schedule: Schedule,
    size: int | tuple[int, int],
    channels: int = 3,
    layout: Layout = "coarse-to-fine",
    fixed: bool = False,
    multiple: int | None = None,
    clock: Callable[[Time], float] | None = None,
    name: str = "network",
    device: Any = None,
    dtype: torch.dtype | None = None,
) -> NetworkModel:
    """The model of a network; the arguments and errors are those of `Inpainter.from_network`."""
    if not isinstance(schedule, Schedule):
        raise ValueError(f"schedule must be one of schedules.VP, Flow or EDM; got {schedule!r}.")
    kind = parametrisation_named(parametrisation, schedule)
    if layout not in get_args(Layout):
        raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}; got {layout!r}.")
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
        raise ValueError(f"size must be a number of pixels, or (height, width); got {size!r}.")
    if not isinstance(channels, int) or channels < 1:
        raise ValueError(f"channels must be a whole number of at least 1; got {channels!r}.")
    if layout != "whole" and sides[0] != sides[1]:
        raise ValueError(f"Only layout='whole' takes pictures that are not square; got size={sides}.")
    step = multiple or (1 if fixed else SIDES)
    if any(side % step for side in sides):
        raise ValueError(f"The sides of size must be multiples of {step}; got {sides}. Say multiple= if that is wrong.")
    where, precision = _place_of(network, device, dtype)
    tried = NetworkDenoiser(network, schedule, kind, clock=clock or _clock(schedule), dtype=precision)
    _try(tried, (channels, *sides), where)

    tiles = layout == "tiles" or (fixed and layout == "coarse-to-fine")
    whole = sides if fixed and layout == "whole" else None
    tried.shape = None if whole is None else (channels, *whole)
    side = sides[0]
    policy: dict[str, Any] = {"context": max(side // 2, step), "multiple": side if tiles and fixed else step}
    policy["widest"] = side if layout == "coarse-to-fine" else 2**30

    def make() -> Denoiser:
        return TiledDenoiser(tried, side, side // 4 // step * step, step) if tiles else tried

    return NetworkModel(
        name=name,
        channels=channels,
        multiple=policy["multiple"],
        size=whole,
        training_size=min(sides),
        network=network if isinstance(network, nn.Module) else None,
        device=where,
        dtype=precision,
        sampler=Sampler(policy=policy),
        make=make,
    )


def _place_of(network: Any, device: Any, dtype: torch.dtype | None) -> tuple[torch.device, torch.dtype]:
    """Where a network runs and in which dtype: where its weights are, unless said otherwise.

    Raises:
        ValueError: for what is no network, or one that draws random numbers of its own.
    """
    if not callable(network):
        raise ValueError(f"network must be callable as network(x, clock); got {type(network).__name__}.")
    weight = None
    if isinstance(network, nn.Module):
        random = [type(part).__name__ for part in network.modules() if part.training and isinstance(part, RANDOM)]
        if random:
            raise ValueError(f"The network is in training mode and holds {random[0]}; call network.eval() first.")
        weight = next((one for one in network.parameters() if one.is_floating_point()), None)
    own_device = torch.device("cpu") if weight is None else weight.device
    return torch.device(device) if device is not None else own_device, dtype or (
        torch.float32 if weight is None else weight.dtype
    )


RANDOM = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


@torch.no_grad()
def _try(denoiser: NetworkDenoiser, shape: tuple[int, ...], device: torch.device) -> None:
    """One row of noise at half time, for what a run would stumble over.

    Raises:
        ValueError: if the network does not take it, or what comes out does not fit.
    """
    row = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0)).to(device)
    time = denoiser.schedule.at(0.5)
    try:
        prediction = denoiser.predict(row * (time.alpha**2 + time.sigma**2) ** 0.5, time)
    except ValueError:
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"The network does not take a picture of shape {(1, *shape)} and a time of shape (1,) "
            f"({type(error).__name__}: {line}); check size, channels and multiple, or wrap it as network(x, clock)."
        ) from error
    if not bool(prediction.x0.isfinite().all() and prediction.x1.isfinite().all()):
        raise ValueError(not_finite("The network's prediction for noise", denoiser.dtype))
