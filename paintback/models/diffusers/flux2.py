"""FLUX.2: dev, with guidance distilled into the network, and klein, with guidance by two calls or none.

Reference: Black Forest Labs, FLUX.2, 2025 (no paper; the architecture is that of diffusers).

The pipelines' latents are 2 x 2 patches of 32 channels, each of the 128 numbers normalised with the VAE's batch-norm
statistics. The state here is the same numbers laid out as (32, h, w), so that a latent mask has cells of 8 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.flow import FlowPipeline, set_shifted
from paintback.models.diffusers.shown import numbered
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["Flux2", "Flux2Codec", "Flux2Klein"]


class Flux2Codec(LatentCodec):
    """An `AutoencoderKLFlux2`, its patches normalised with its batch-norm statistics.

    Args:
        pipe: the pipeline, for its VAE and its way to make patches.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.vae = pipe, pipe.vae
        self.factor, self.channels = int(pipe.vae_scale_factor), int(pipe.vae.config.latent_channels)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        variance = norm.running_var.reshape(1, -1, 1, 1) + self.vae.config.batch_norm_eps
        return norm.running_mean.reshape(1, -1, 1, 1).to(x), variance.sqrt().to(x)

    def patches(self, z: Tensor) -> Tensor:
        """(B, 32, h, w) to (B, 128, h / 2, w / 2)."""
        found: Tensor = self.pipe._patchify_latents(z)
        return found

    def whole(self, patches: Tensor) -> Tensor:
        """Back to (B, 32, h, w)."""
        found: Tensor = self.pipe._unpatchify_latents(patches)
        return found

    def normalise(self, z: Tensor) -> Tensor:
        """The VAE's own latents, (B, 32, h, w), to the state."""
        mean, std = self._statistics(z)
        return self.whole((self.patches(z) - mean) / std)

    def denormalise(self, x: Tensor) -> Tensor:
        """The state to the VAE's own latents."""
        mean, std = self._statistics(x)
        return self.whole(self.patches(x) * std + mean)

    def encode(self, picture: Tensor) -> Tensor:
        z: Tensor = self.vae.encode(picture.to(self.vae.dtype)).latent_dist.mode().to(picture.dtype)
        return self.normalise(z)

    def decode(self, x: Tensor) -> Tensor:
        z = self.denormalise(x).to(self.vae.dtype)
        picture: Tensor = self.vae.decode(z, return_dict=False)[0].to(x.dtype)
        return picture


@dataclass(frozen=True)
class Flux2(FlowPipeline):
    """`Flux2Pipeline` (dev): the guidance scale is an input of the network, and there is no other guidance."""

    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    guidance_scale: ClassVar[float] = 4.0
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "joint_attention_kwargs")
    keywords: ClassVar[tuple[str, ...]] = ("reference_images",)
    takes_negative: ClassVar[bool] = False
    answers: ClassVar[tuple[str, ...]] = ("embeds", "places")

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return Flux2Codec(pipe)

    def scales(
        self, negative_prompt: str | None, guidance_scale: float | None, given: Mapping[str, Any]
    ) -> tuple[float, float | None]:
        if negative_prompt is not None:
            raise ValueError(f"The model {self.name!r} takes no negative_prompt; leave it out.")
        return 1.0, self.guidance_scale if guidance_scale is None else float(guidance_scale)

    def encode_reference(self, picture: Any) -> Tensor:
        """Patches of the picture, which is brought down to an area of 1024 x 1024 and cut to whole tokens."""
        processor, pipe, most = self.pipe.image_processor, self.pipe, 1024 * 1024
        processor.check_image_input(picture)
        if picture.width * picture.height > most:
            picture = processor._resize_to_target_area(picture, most)
        width, height = (side // self.multiple * self.multiple for side in picture.size)
        pixels = processor.preprocess(picture, height=height, width=width, resize_mode="crop")
        patches: Tensor = pipe._encode_vae_image(pixels.to(self.device, pipe.vae.dtype), None)
        return patches

    def ids(self, patches: Tensor, shown: Sequence[Tensor]) -> Tensor:
        """Where all tokens lie, those of the pictures to go by too."""
        own = self.pipe._prepare_latent_ids(patches[:1])
        return torch.cat((own, self.pipe._prepare_image_ids([one[:1] for one in shown])), 1) if shown else own

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        patches = self.pipe._patchify_latents(x.to(self.dtype).contiguous())
        shown = [one.to(self.dtype) for one in numbered(dict(condition.extras), "reference")]
        packed = [self.pipe._pack_latents(one) for one in (patches, *shown)]
        shapes = [tuple(one.shape[-2:]) for one in (patches, *shown)]
        output: Tensor = self.pipe.transformer(
            hidden_states=torch.cat(packed, dim=1),
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            guidance=condition.extras.get("guidance"),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            txt_ids=condition.extras["places"],
            img_ids=self.remember((*shapes, x.device), lambda: self.ids(patches, shown).to(x.device)),
            return_dict=False,
            **condition.options,
        )[0]
        unpacked: Tensor = self.pipe._unpatchify_latents(
            output[:, : packed[0].shape[1]].transpose(1, 2).reshape(patches.shape)
        )
        return unpacked

    def as_latents(self, x: Tensor) -> Tensor:
        patches: Tensor = self.pipe._patchify_latents(super().as_latents(x))
        return patches

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        set_shifted(scheduler, num_inference_steps, compute_empirical_mu(self.tokens(size), num_inference_steps))


@dataclass(frozen=True)
class Flux2Klein(Flux2):
    """`Flux2KleinPipeline`: guidance by two calls, which the step-distilled releases do without."""

    takes_negative: ClassVar[bool] = True

    @classmethod
    def is_distilled(cls, pipe: Any) -> bool:
        return bool(pipe.config.is_distilled)

    def scales(
        self, negative_prompt: str | None, guidance_scale: float | None, given: Mapping[str, Any]
    ) -> tuple[float, float | None]:
        if self.distilled:
            self.refuse_guidance(guidance_scale, "it is distilled to need none")
            return 1.0, None
        return super(Flux2, self).scales(negative_prompt, guidance_scale, given)
