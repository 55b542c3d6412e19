"""What a pipeline's scheduler says: its noise schedule, what the network predicts, and how it calls a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paintback.denoiser import Parametrisation
from paintback.schedules import EDM, VP, Flow, Schedule, Time

__all__ = [
    "Given",
    "clock",
    "copy_scheduler",
    "edm_clock",
    "edm_input",
    "edm_picture",
    "is_edm",
    "is_flow",
    "parametrisation_of",
    "schedule_of",
]


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler is one of rectified flow; UniPC has the fields of both families and says so in its config."""
    config = scheduler.config
    return (
        type(scheduler).__name__.startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas", False))
        or config.get("prediction_type") == "flow_prediction"
    )


def is_edm(scheduler: Any) -> bool:
    """Whether a scheduler is one of Karras et al., whose network's input and output are scaled by the noise level."""
    return type(scheduler).__name__.startswith(("EDM", "CosineDPM"))


def edm_clock(scheduler: Any, sigma: float) -> float:
    """What a scheduler of `is_edm` calls a noise level: ln(sigma) / 4, or 2 atan(sigma) / pi of the cosine one."""
    return float(scheduler.precondition_noise(torch.tensor(sigma, dtype=torch.float64)))


def edm_input(scheduler: Any, x: Tensor, sigma: float) -> Tensor:
    """The states as a network of `is_edm` takes them; Karras et al. 2022 (arXiv:2206.00364), table 1."""
    return x / math.hypot(sigma, float(scheduler.config.sigma_data))


def edm_picture(scheduler: Any, x: Tensor, output: Tensor, sigma: float) -> Tensor:
    """The clean picture in the states x and the output of a network of `is_edm`, which is the noise's or v's."""
    variance = float(scheduler.config.sigma_data) ** 2
    share = variance / (sigma**2 + variance)
    sign = -1 if scheduler.config.prediction_type == "v_prediction" else 1
    return share * x + sign * sigma * math.sqrt(share) * output.to(x.dtype)


def schedule_of(scheduler: Any, *, of_noise: bool = False, edm: bool = False) -> Schedule:
    """The noise schedule that a scheduler's config describes.

    For flow models t is sigma itself; the shift is in the scheduler's grid.

    Args:
        scheduler: of the pipeline.
        of_noise: the network was trained on a schedule of noise, and runs on no other.
        edm: the family's network can be scaled as `is_edm` has it.

    Raises:
        ValueError: for a scheduler of neither family, or of flow matching where that is the wrong one.
    """
    if is_flow(scheduler):
        if of_noise:
            raise ValueError(
                f"{type(scheduler).__name__} is a scheduler of flow matching, and this pipeline's network was trained "
                "on a schedule of noise; give the pipeline a DDIMScheduler."
            )
        return Flow()
    if edm and is_edm(scheduler):
        config = scheduler.config
        return EDM(config.sigma_min, config.sigma_max, config.rho)
    betas = getattr(scheduler, "betas", None)
    if betas is None:
        raise ValueError(
            f"{type(scheduler).__name__} has no betas and is none of flow matching; give the pipeline a DDIMScheduler "
            "or a FlowMatchEulerDiscreteScheduler."
        )
    return VP(betas)


def parametrisation_of(scheduler: Any) -> Parametrisation:
    """What the network's output means, by the scheduler's config.

    Raises:
        ValueError: for a prediction type that we do not know.
    """
    if is_flow(scheduler):
        return "flow"
    if is_edm(scheduler):
        return "x0"  # after its scaling, which turns what the config names into it
    kinds: dict[str, Parametrisation] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in kinds:
        raise ValueError(f"The scheduler's prediction_type must be one of {', '.join(kinds)}; got {kind!r}.")
    return kinds[kind]


def clock(scheduler: Any, time: Time) -> Tensor:
    """What a flow scheduler calls a time: 1000 sigma, a whole number where it (UniPC) has those alone."""
    value = torch.tensor(time.sigma, dtype=torch.float32) * int(scheduler.config.num_train_timesteps)
    return value if type(scheduler).__name__.startswith("FlowMatch") else value.long()


def copy_scheduler(scheduler: Any) -> Any:
    """A scheduler of the same config and no state."""
    return type(scheduler).from_config(scheduler.config)


class Given:
    """A scheduler that is set to given sigmas, whatever a pipeline would set it to, with the shift that this names."""

    def __init__(self, inner: Any, given: Sequence[float]) -> None:
        self.inner, self.config, self.given = inner, inner.config, [float(one) for one in given]

    @property
    def timesteps(self) -> Tensor:
        """Of the scheduler."""
        timesteps: Tensor = self.inner.timesteps
        return timesteps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        """As of the scheduler."""
        self.inner.set_timesteps(sigmas=self.given, **({} if mu is None else {"mu": mu}))
