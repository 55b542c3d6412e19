"""FLUX.2: dev, with guidance distilled into the network, and klein, with guidance by two calls or none.

Reference: Black Forest Labs, FLUX.2, 2025 (no paper; the architecture is that of diffusers).

The pipelines' latents are 2 x 2 patches of 32 channels, each of the 128 numbers normalised with the VAE's batch-norm
statistics. The state here is the same numbers laid out as (32, h, w), so that a latent mask has cells of 8 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from paintback.models.diffusers.base import Condition, PipelineDenoiser, Size, refuse
from paintback.models.diffusers.flow import FlowPipeline, embed_guidance, set_shifted
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

    def normalise(self, z: Tensor) -> Tensor:
        """The VAE's own latents, (B, 32, h, w), to the state."""
        mean, std = self._statistics(z)
        x: Tensor = self.pipe._unpatchify_latents((self.pipe._patchify_latents(z) - mean) / std)
        return x

    def denormalise(self, x: Tensor) -> Tensor:
        """The state to the VAE's own latents."""
        mean, std = self._statistics(x)
        z: Tensor = self.pipe._unpatchify_latents(self.pipe._patchify_latents(x) * std + mean)
        return z

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

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return Flux2Codec(pipe)

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: Size | None = None,
        **embeddings: Tensor | float | None,
    ) -> PipelineDenoiser:
        if negative_prompt is not None:
            raise ValueError(f"The model {self.name!r} takes no negative_prompt; leave it out.")
        made = super().denoiser(prompt, None, 1.0, size=size, **embeddings)
        embed_guidance(made, self.guidance_scale if guidance_scale is None else float(guidance_scale))
        return made

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        refuse(embeddings, ("prompt_embeds", *self.words), self.name)
        return self._told(prompt, "", embeddings), None

    def _told(self, text: str, negative: str, given: Mapping[str, Any]) -> Condition:
        embeds = given.get(f"{negative}prompt_embeds")
        length = {name: given[name] for name in ("max_sequence_length",) if name in given}
        embeds, places = self.pipe.encode_prompt(
            prompt=text if embeds is None else None, prompt_embeds=embeds, device=self.device, **length
        )
        assert embeds is not None
        return Condition(embeds, {"places": places})

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        patches = self.pipe._patchify_latents(x.to(self.dtype).contiguous())
        output: Tensor = self.pipe.transformer(
            hidden_states=self.pipe._pack_latents(patches),
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            guidance=condition.extras.get("guidance"),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            txt_ids=condition.extras["places"],
            img_ids=self.remember(
                (tuple(patches.shape), x.device), lambda: self.pipe._prepare_latent_ids(patches).to(x.device)
            ),
            return_dict=False,
            **condition.options,
        )[0]
        unpacked: Tensor = self.pipe._unpatchify_latents(output.transpose(1, 2).reshape(patches.shape))
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

    @classmethod
    def is_distilled(cls, pipe: Any) -> bool:
        return bool(pipe.config.is_distilled)

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: Size | None = None,
        **embeddings: Tensor | float | None,
    ) -> PipelineDenoiser:
        if self.distilled:
            self.refuse_guidance(guidance_scale, "it is distilled to need none")
            guidance_scale = 1.0
        return super(Flux2, self).denoiser(prompt, negative_prompt, guidance_scale, size=size, **embeddings)

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        refuse(embeddings, ("prompt_embeds", "negative_prompt_embeds", *self.words), self.name)
        under = self._told(prompt, "", embeddings)
        return under, self._told(negative_prompt or "", "negative_", embeddings) if guided else None
