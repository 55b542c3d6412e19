"""Unconditional `UNet2DModel` pipelines: DDPM and DDIM in pixels, LDM in the latents of a VQ model.

References: Ho et al. 2020 (arXiv:2006.11239), Song et al. 2021 (DDIM, arXiv:2010.02502), Rombach et al. 2022 (LDM,
arXiv:2112.10752).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Denoiser, Parametrisation, Prediction, predict
from paintback.models.diffusers.base import (
    Condition,
    PipelineDenoiser,
    PipelineModel,
    Size,
    copy_scheduler,
    parametrisation_of,
    schedule_of,
)
from paintback.models.diffusers.pipes import OfPipe
from paintback.models.latent import LatentCodec
from paintback.schedules import VP, Schedule, Time, from_scheduler

__all__ = ["LatentDiffusion", "PixelDenoiser", "PixelPipeline"]


class PixelDenoiser(Denoiser):
    """A `UNet2DModel` on pixels."""

    def __init__(self, model: PixelPipeline) -> None:
        super().__init__(model.schedule)
        assert model.size is not None
        self.model, self.shape = model, (model.channels, *model.size)

    def predict(self, x: Tensor, time: Time) -> Prediction:
        if time.sigma == 0:
            return predict("x0", x, x, time, rows=len(x))
        return predict(
            self.model.parametrisation, run_unet(self.model.pipe.unet, x, time, self.schedule), x, time, len(x)
        )

    def modules(self) -> list[torch.nn.Module]:
        return self.model.networks()

    def grid(self, num_inference_steps: int) -> Tensor:
        """The times that the pipeline's own scheduler would take."""
        scheduler = copy_scheduler(self.model.pipe.scheduler)
        scheduler.set_timesteps(num_inference_steps)
        return from_scheduler(scheduler, self.schedule)


def run_unet(unet: Any, x: Tensor, time: Time, schedule: Schedule) -> Tensor:
    """The output of a `UNet2DModel` for x, its variance channels left out."""
    assert isinstance(schedule, VP)
    clock = x.new_full((), time.t * schedule.num_train_timesteps - 1, dtype=torch.float32)
    output: Tensor = unet(x.to(unet.dtype), clock, return_dict=False)[0]
    return output[:, : x.shape[1]].to(x.dtype)


@dataclass(frozen=True)
class PixelPipeline(OfPipe):
    """`DDPMPipeline` or `DDIMPipeline`.

    Attributes:
        schedule: of its scheduler.
        parametrisation: of its network.
    """

    part: ClassVar[str] = "unet"

    schedule: Schedule = field(kw_only=True)
    parametrisation: Parametrisation = field(kw_only=True)

    @classmethod
    def from_pipe(cls, pipe: Any, name: str) -> PixelPipeline:
        """The adapter of a loaded pipeline.

        Raises:
            ValueError: for a network that wants a class.
        """
        config = pipe.unet.config
        if getattr(config, "num_class_embeds", None):
            raise ValueError(f"{name!r} is conditioned on classes, which a {type(pipe).__name__} does not take.")
        side = config.sample_size
        height, width = side if isinstance(side, tuple | list) else (side, side)
        return cls(
            name=name,
            channels=config.in_channels,
            multiple=2 ** (len(config.block_out_channels) - 1),
            size=(height, width),
            training_size=max(height, width),
            network=pipe.unet,
            device=pipe.unet.device,
            dtype=pipe.unet.dtype,
            pipe=pipe,
            schedule=schedule_of(pipe.scheduler, of_noise=True),
            parametrisation=parametrisation_of(pipe.scheduler),
        )

    def denoiser(
        self, prompt: str | None = None, negative_prompt: str | None = None, guidance_scale: float | None = None
    ) -> Denoiser:
        """The denoiser; it takes no prompt."""
        refuse_prompt(self.name, prompt, negative_prompt, guidance_scale)
        return PixelDenoiser(self)


def refuse_prompt(name: str, prompt: str | None, negative_prompt: str | None, guidance_scale: float | None) -> None:
    """For models without text.

    Raises:
        ValueError: if there is a prompt or guidance.
    """
    for label, value in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if value:
            raise ValueError(f"The model {name!r} takes no {label}; leave it out or choose a text-to-image model.")
    if guidance_scale not in (None, 1, 1.0):
        raise ValueError(f"The model {name!r} has no guidance; leave guidance_scale out.")


class VqCodec(LatentCodec):
    """A `VQModel`: encoding is continuous, decoding goes to the nearest codes, whose gradient diffusers passes through.

    Args:
        vae: the pipeline's own.
    """

    def __init__(self, vae: Any) -> None:
        self.vae, self.scaling = vae, float(vae.config.scaling_factor)
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.channels = int(vae.config.latent_channels)

    def encode(self, picture: Tensor) -> Tensor:
        z: Tensor = self.vae.encode(picture.to(self.vae.dtype)).latents.to(picture.dtype)
        return z * self.scaling

    def decode(self, x: Tensor) -> Tensor:
        picture: Tensor = self.vae.decode((x / self.scaling).to(self.vae.dtype), return_dict=False)[0].to(x.dtype)
        return picture


@dataclass(frozen=True)
class LatentDiffusion(PipelineModel):
    """`LDMPipeline`: unconditional, in the latents of a VQ model."""

    part: ClassVar[str] = "unet"
    of_noise: ClassVar[bool] = True

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return VqCodec(pipe.vqvae)

    @classmethod
    def facts(cls, pipe: Any, codec: LatentCodec) -> dict[str, Any]:
        config = pipe.unet.config
        return {
            "multiple": codec.factor * 2 ** (len(config.block_out_channels) - 1),
            "training_size": config.sample_size * codec.factor,
        }

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: Size | None = None,
        **embeddings: Tensor | float | None,
    ) -> PipelineDenoiser:
        refuse_prompt(self.name, prompt, negative_prompt, guidance_scale)
        return PipelineDenoiser(self, size or (self.training_size, self.training_size))

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        return run_unet(self.pipe.unet, x, time, self.schedule)

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        raise ValueError(f"The model {self.name!r} takes no prompt.")
