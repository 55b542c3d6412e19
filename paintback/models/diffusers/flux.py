"""FLUX.1: a transformer on packed latents, guidance distilled into the network.

Reference: Black Forest Labs, FLUX.1, 2024 (no paper; the architecture is that of diffusers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.models.diffusers.base import Condition, PipelineDenoiser, Size
from paintback.models.diffusers.flow import TrueGuidance
from paintback.models.diffusers.shown import as_pil
from paintback.schedules import Time

__all__ = ["Flux", "FluxKontext"]


@dataclass(frozen=True)
class Flux(TrueGuidance):
    """`FluxPipeline`: dev, whose guidance scale is an input of the network, and schnell, which has none."""

    packed: ClassVar[bool] = True
    guidance_scale: ClassVar[float] = 3.5
    told_scale: ClassVar[float] = 3.5
    attention: ClassVar[tuple[str, str] | None] = ("joint_attention_kwargs", "joint_attention_kwargs")
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_prompt_embeds")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "pooled", "")

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        packed = self.pack(x.to(self.dtype))
        shown, places = self.reference(condition)
        output: Tensor = self.pipe.transformer(
            hidden_states=torch.cat((packed, *shown), dim=1),
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            guidance=condition.extras.get("guidance"),
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            txt_ids=condition.embeds.new_zeros(condition.embeds.shape[1], 3, dtype=self.dtype),
            img_ids=torch.cat((self.image_ids(x, size), *places)),
            return_dict=False,
            **condition.options,
        )[0]
        return self.unpack(output[:, : packed.shape[1]], size)

    def reference(self, condition: Condition) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens of a picture that the network is shown beside the noisy one, and where they lie; none here."""
        return [], []


@dataclass(frozen=True)
class FluxKontext(Flux):
    """`FluxKontextPipeline`: dev, which is shown a picture to go by; without one it is FLUX.1 dev.

    Reference: Labs et al. 2025 (arXiv:2506.15742).
    """

    keywords: ClassVar[tuple[str, ...]] = (*Flux.keywords, "reference_images")

    def finish(self, made: PipelineDenoiser, own: Mapping[str, Any]) -> PipelineDenoiser:
        """Encodes the picture as the pipeline does, at that of its sizes which is nearest in proportion."""
        shown = own["reference_images"]
        if shown is None:
            return made
        if isinstance(shown, list | tuple):
            if len(shown) != 1:
                raise ValueError(f"The model {self.name!r} is shown one reference picture; got {len(shown)}.")
            (shown,) = shown
        from diffusers.pipelines.flux import pipeline_flux_kontext as kontext

        shown, pipe = as_pil(shown), self.pipe
        height, width = pipe.image_processor.get_default_height_width(shown)
        _, width, height = min((abs(width / height - w / h), w, h) for w, h in kontext.PREFERRED_KONTEXT_RESOLUTIONS)
        height, width = (side // self.multiple * self.multiple for side in (height, width))
        with torch.no_grad():
            scaled = pipe.image_processor.preprocess(pipe.image_processor.resize(shown, height, width), height, width)
            latents = pipe._encode_vae_image(scaled.to(self.device, pipe.vae.dtype), None)
        places = pipe._prepare_latent_image_ids(
            1, height // self.multiple, width // self.multiple, self.device, self.dtype
        )
        places[..., 0] = 1  # the picture that is painted has 0
        for conditional in (True, False):
            made.tell({"reference": self.pack(latents), "places": places[None]}, conditional=conditional)
        return made

    def reference(self, condition: Condition) -> tuple[list[Tensor], list[Tensor]]:
        if "reference" not in condition.extras:
            return [], []
        return [condition.extras["reference"].to(self.dtype)], [condition.extras["places"][0]]
