"""What the rectified-flow pipelines share: a transformer, shifted grids, the clock, packed latents, embedded guidance.

A run's state is never packed: a latent mask marks cells, and packing is only the transformer's way to read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paintback.models.diffusers.base import (
    Condition,
    PipelineDenoiser,
    PipelineModel,
    Size,
    VaeCodec,
    clock,
    is_flow,
)
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["FlowPipeline", "embed_guidance", "set_shifted", "shift_of", "together"]


@dataclass(frozen=True)
class FlowPipeline(PipelineModel):
    """A pipeline whose network is `pipe.transformer` and predicts the velocity x1 - x0."""

    @classmethod
    def from_pipe(cls, pipe: Any, name: str) -> PipelineModel:
        """The adapter of a loaded pipeline.

        Raises:
            ValueError: for a scheduler that is not one of flow matching.
        """
        if not is_flow(pipe.scheduler):
            raise ValueError(
                f"{name!r} is a flow model, and its scheduler, {type(pipe.scheduler).__name__}, is none of flow "
                "matching; give the pipeline a FlowMatchEulerDiscreteScheduler."
            )
        codec = cls.codec_of(pipe)
        return cls.adapt(
            pipe,
            name,
            multiple=2 * codec.factor,  # a token is 2 x 2 cells
            training_size=int(getattr(pipe, "default_sample_size", 128)) * codec.factor,
            codec=codec,
            distilled=cls.is_distilled(pipe),
            largest_area=cls.area_of(pipe),
        )

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        """To the latents of the pipeline and back."""
        return VaeCodec(pipe.vae, int(pipe.vae_scale_factor))

    @classmethod
    def is_distilled(cls, pipe: Any) -> bool:
        """Whether guidance is an input of the network or burnt into it."""
        return bool(getattr(pipe.transformer.config, "guidance_embeds", False))

    @classmethod
    def area_of(cls, pipe: Any) -> int | None:
        """Pixels that the network takes at most."""
        return None

    def tokens(self, size: Size) -> int:
        """How many tokens the transformer sees of a picture."""
        return (size[0] // self.multiple) * (size[1] // self.multiple)

    def clock(self, time: Time, rows: int) -> Tensor:
        """(rows,) what the pipeline's scheduler calls a time."""
        told = clock(self.pipe.scheduler, time)  # filled in on the device, which is not waited for
        return torch.full((rows,), told.item(), dtype=told.dtype, device=self.device)

    def pack(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the (B, h w / 4, 4 C) that the transformer reads."""
        packed: Tensor = self.pipe._pack_latents(x.contiguous(), *x.shape)
        return packed

    def unpack(self, packed: Tensor, size: Size) -> Tensor:
        """Back to (B, C, h, w)."""
        x: Tensor = self.pipe._unpack_latents(packed, *size, self.codec.factor)
        return x

    def refuse_guidance(self, guidance_scale: float | None, instead: str) -> None:
        """For networks that take no guidance scale.

        Raises:
            ValueError: if there is one above 1.
        """
        if guidance_scale is not None and guidance_scale > 1:
            raise ValueError(f"The model {self.name!r} takes no guidance_scale; {instead}.")


def shift_of(scheduler: Any, tokens: int, *, max_shift: float = 1.15) -> float:
    """The pipelines' mu: how far the times are shifted for so many tokens.

    Args:
        scheduler: its config is read.
        tokens: of the picture.
        max_shift: where the config names none.
    """
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config = scheduler.config
    return float(
        calculate_shift(
            tokens,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", max_shift),
        )
    )


def set_shifted(scheduler: Any, num_inference_steps: int, mu: float) -> None:
    """Times from 1 down to 1 / N, shifted by mu where the scheduler does so; with UniPC's own times as they are.

    Args:
        scheduler: to be set.
        num_inference_steps: N.
        mu: the shift.
    """
    from diffusers.pipelines.flux.pipeline_flux import retrieve_timesteps

    sigmas = None
    if not scheduler.config.get("use_flow_sigmas", False):
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
    retrieve_timesteps(scheduler, num_inference_steps, "cpu", sigmas=sigmas, mu=mu)


def embed_guidance(denoiser: PipelineDenoiser, guidance_scale: float) -> None:
    """Tells the network a guidance scale, under the negative prompt too."""

    def tell(condition: Condition | None) -> Condition | None:
        if condition is None:
            return None
        told = torch.tensor([guidance_scale], dtype=torch.float32, device=condition.embeds.device)
        return replace(condition, extras={**condition.extras, "guidance": told})

    denoiser.conditional, denoiser.unconditional = tell(denoiser.conditional), tell(denoiser.unconditional)


def together(embeddings: Mapping[str, Any], names: tuple[str, ...], model: str) -> None:
    """Checks that embeddings which only work together were given together.

    Raises:
        ValueError: if some are missing.
    """
    missing = [name for name in names if name not in embeddings]
    if missing and len(missing) < len(names):
        raise ValueError(f"The model {model!r} needs {', '.join(missing)} too; give {' and '.join(names)} together.")
