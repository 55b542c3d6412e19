"""Wan 2.1 and 2.2: a transformer for clips in the latents of a VAE that is causal in time.

Reference: Team Wan, Wan: Open and Advanced Large-Scale Video Generative Models, 2025, arXiv:2503.20314.
Wan 2.2 A14B has two transformers, one for high noise and one for low; TI2V 5B is told a time for every token.
A picture is a clip of one frame. The pipelines that start from a picture, and VACE, are left out.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.models.diffusers.base import Condition, PipelineDenoiser, PipelineModel, Size
from paintback.models.diffusers.codecs import ClipCodec
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["Wan", "WanDenoiser"]

# Nothing in a folder says what its model learnt from: (side of a square of the area, frames), by pixels per cell.
TRAINED = {8: (640, 81), 16: (960, 121)}  # 832 x 480 at 16 frames a second; 1280 x 704 at 24


class WanDenoiser(PipelineDenoiser):
    """Wan under one prompt, with a guidance scale for either transformer.

    Attributes:
        guidance_scale_2: of the transformer for low noise.
    """

    guidance_scale_2: float

    def predict(self, x: Tensor, time: Time) -> Prediction:
        assert isinstance(self.model, Wan)
        if self.guidance_scale_2 == self.guidance_scale or not self.model.is_late(time):
            return super().predict(x, time)
        late = copy.copy(self)
        late.guidance_scale = self.guidance_scale_2
        return late.predict(x, time)


@dataclass(frozen=True)
class Wan(PipelineModel):
    """`WanPipeline`."""

    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    guidance_scale: ClassVar[float] = 5.0
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    keywords: ClassVar[tuple[str, ...]] = ("guidance_scale_2",)

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        config = pipe.vae.config
        return ClipCodec(pipe.vae, int(config.scale_factor_spatial), int(config.scale_factor_temporal))

    @classmethod
    def facts(cls, pipe: Any, codec: LatentCodec) -> dict[str, Any]:
        network = pipe.transformer if pipe.transformer is not None else pipe.transformer_2
        side, frames = TRAINED.get(codec.factor, TRAINED[8])
        return {
            "multiple": codec.factor * math.lcm(*network.config.patch_size[1:]),
            "training_size": side,
            "training_frames": frames,
        }

    def finish(self, made: PipelineDenoiser, own: Mapping[str, Any]) -> WanDenoiser:
        """Adds `guidance_scale_2`: of the transformer for low noise, None for the same.

        Raises:
            ValueError: if there is one transformer.
        """
        second = own["guidance_scale_2"]
        if second is not None and self.pipe.config.boundary_ratio is None:
            raise ValueError(f"The model {self.name!r} has one transformer; leave guidance_scale_2 out.")
        other = WanDenoiser(self, made.size, made.conditional, made.unconditional, made.guidance_scale)
        other.guidance_scale_2 = other.guidance_scale if second is None else float(second)
        return other

    def clock(self, time: Time) -> float:
        """The number that the scheduler has for a time: 1000 sigma, whole where the scheduler's timesteps are."""
        scheduler = self.pipe.scheduler
        value = time.sigma * float(scheduler.config.num_train_timesteps)
        return value if type(scheduler).__name__.startswith("FlowMatch") else math.floor(value)

    def is_late(self, time: Time) -> bool:
        """Whether the transformer for low noise is in charge."""
        ratio = self.pipe.config.boundary_ratio
        return ratio is not None and self.clock(time) < ratio * self.pipe.scheduler.config.num_train_timesteps

    @property  # type: ignore[misc]
    def network(self) -> torch.nn.Module:
        """The transformer for high noise, or the only one that there is."""
        return self.networks()[0]

    @network.setter
    def network(self, value: Any) -> None:
        """The pipeline's own stays."""

    def networks(self) -> list[torch.nn.Module]:
        return [one for one in (self.pipe.transformer, self.pipe.transformer_2) if one is not None]

    @contextlib.contextmanager
    def cache(self, branch: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            network: Any
            for network in self.networks():
                if getattr(network, "is_cache_enabled", False):
                    stack.enter_context(network.cache_context(branch))
            yield

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        if x.ndim == 4:
            return self.run(x[:, :, None], time, condition, size)[:, :, 0]
        network = self.pipe.transformer_2 if self.is_late(time) else self.pipe.transformer
        told = self.clock(time)
        t = x.new_full((), told, dtype=torch.float32 if isinstance(told, float) else torch.int64)
        if self.pipe.config.expand_timesteps:
            # one time for every token: T' h/2 w/2
            t = (torch.ones(x.shape[2:], device=x.device)[:, ::2, ::2] * t).flatten().expand(len(x), -1)
        else:
            t = t.expand(len(x))
        output: Tensor = network(
            hidden_states=x.to(network.dtype),
            timestep=t,
            encoder_hidden_states=condition.embeds.to(network.dtype),
            return_dict=False,
            **condition.options,
        )[0]
        return output
