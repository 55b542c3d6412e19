"""FLUX.1: a transformer on packed latents, guidance distilled into the network.

Reference: Black Forest Labs, FLUX.1, 2024 (no paper; the architecture is that of diffusers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.models.diffusers.base import Condition, PipelineDenoiser, Size
from paintback.models.diffusers.control import CONTROL, Control
from paintback.models.diffusers.flow import TrueGuidance
from paintback.models.diffusers.shown import PROMPTS, numbered
from paintback.schedules import Time

__all__ = ["Flux", "FluxControl", "FluxKontext"]


@dataclass(frozen=True)
class Flux(TrueGuidance):
    """`FluxPipeline`: dev, whose guidance scale is an input of the network, and schnell, which has none."""

    packed: ClassVar[bool] = True
    guidance_scale: ClassVar[float] = 3.5
    told_scale: ClassVar[float] = 3.5
    attention: ClassVar[tuple[str, str] | None] = ("joint_attention_kwargs", "joint_attention_kwargs")
    keywords: ClassVar[tuple[str, ...]] = (*TrueGuidance.keywords, *PROMPTS, *CONTROL)
    shown: ClassVar[tuple[str, ...]] = PROMPTS
    controls: ClassVar[tuple[str, ...]] = ("control_mode",)
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_prompt_embeds")
    answers: ClassVar[tuple[str, ...]] = ("embeds", "pooled", "")

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        packed, ids = self.read(x, condition), self.image_ids(x, size)
        shown = [one.to(self.dtype) for one in numbered(dict(condition.extras), "reference")]
        output: Tensor = self.pipe.transformer(
            hidden_states=torch.cat((packed, *(self.pack(one) for one in shown)), dim=1),
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            guidance=condition.extras.get("guidance"),
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            txt_ids=condition.embeds.new_zeros(condition.embeds.shape[1], 3, dtype=self.dtype),
            img_ids=torch.cat((ids, *(self.places(one) for one in shown))),
            return_dict=False,
            **self.options(condition),
        )[0]
        return self.unpack(output[:, : packed.shape[1]], size)

    def read(self, x: Tensor, condition: Condition) -> Tensor:
        """The tokens that the network reads of states."""
        return self.pack(x.to(self.dtype))

    def places(self, latents: Tensor) -> Tensor:
        """Where the tokens of a picture to go by lie: as those of the one that is painted, but for a first number."""
        first = torch.tensor([1, 0, 0], device=latents.device, dtype=self.dtype)
        size = (latents.shape[-2] * self.codec.factor, latents.shape[-1] * self.codec.factor)
        return self.remember(
            (*size, "reference", latents.device, self.dtype), lambda: self.image_ids(latents, size) + first
        )

    def hinted(self) -> bool:
        """Whether the ControlNet reads pixels, and its answers go round the network's blocks."""
        return getattr(self.controlnet, "nets", [self.controlnet])[0].input_hint_block is not None

    def control_of_picture(self, picture: Tensor) -> Tensor:
        if self.hinted():
            made: Tensor = self.given.image_processor.preprocess(picture)
            return made
        return self.pack(super().control_of_picture(picture))

    def residuals(self, x: Tensor, time: Time, condition: Condition, size: Size, control: Control) -> dict[str, Any]:
        nets = getattr(self.controlnet, "nets", [self.controlnet])
        told = replace(control, seen=[one.to(self.dtype) for one in control.seen]).told()
        modes = [None if one is None else torch.full((len(x),), one, device=x.device) for one in control.modes]
        if control.several:
            told["controlnet_mode"] = [torch.full((len(x),), -1, device=x.device) if m is None else m for m in modes]
        elif modes[0] is not None:
            told["controlnet_mode"] = modes[0][:, None]
        guidance = condition.extras.get("guidance")
        if guidance is None:
            guidance = x.new_full((len(x),), self.told_scale, dtype=torch.float32)
        blocks, single = self.controlnet(
            hidden_states=self.pack(x.to(self.dtype)),
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            guidance=guidance if nets[0].config.guidance_embeds else None,
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            txt_ids=condition.embeds.new_zeros(condition.embeds.shape[1], 3, dtype=self.dtype),
            img_ids=self.image_ids(x, size),
            **told,
            **condition.options,
            return_dict=False,
        )
        return {
            "controlnet_block_samples": blocks,
            "controlnet_single_block_samples": single,
            "controlnet_blocks_repeat": self.hinted(),
        }


@dataclass(frozen=True)
class FluxKontext(Flux):
    """`FluxKontextPipeline`: dev, which is shown a picture to go by; without one it is FLUX.1 dev.

    Reference: Labs et al. 2025 (arXiv:2506.15742).
    """

    keywords: ClassVar[tuple[str, ...]] = (*TrueGuidance.keywords, *PROMPTS, "reference_images")
    most_references: ClassVar[int | None] = 1

    def encode_reference(self, picture: Any) -> Tensor:
        """At that of the pipeline's sizes which is nearest in proportion."""
        from diffusers.pipelines.flux import pipeline_flux_kontext as kontext

        pipe = self.pipe
        height, width = pipe.image_processor.get_default_height_width(picture)
        _, width, height = min((abs(width / height - w / h), w, h) for w, h in kontext.PREFERRED_KONTEXT_RESOLUTIONS)
        height, width = (side // self.multiple * self.multiple for side in (height, width))
        scaled = pipe.image_processor.preprocess(pipe.image_processor.resize(picture, height, width), height, width)
        latents: Tensor = pipe._encode_vae_image(scaled.to(self.device, pipe.vae.dtype), None)
        return latents


@dataclass(frozen=True)
class FluxControl(Flux):
    """`FluxControlPipeline` (Canny and Depth dev): its network reads the latents of a picture to follow too."""

    keywords: ClassVar[tuple[str, ...]] = (*TrueGuidance.keywords, "control_image")
    shown: ClassVar[tuple[str, ...]] = ()

    @property
    def controlnet(self) -> Any:
        """The network itself, which does what a ControlNet does beside others."""
        return self.pipe.transformer

    def finish(self, made: PipelineDenoiser, own: Mapping[str, Any]) -> PipelineDenoiser:
        if own["control_image"] is None:
            raise ValueError(f"The network of {self.name!r} reads a picture that it follows; give control_image.")
        return super().finish(made, own)

    def control_of_picture(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        return self.codec.encode(self.pipe.image_processor.preprocess(picture, height=height, width=width))

    def residuals(self, x: Tensor, time: Time, condition: Condition, size: Size, control: Control) -> dict[str, Any]:
        return {"followed": control.seen[0]}

    def read(self, x: Tensor, condition: Condition) -> Tensor:
        followed = condition.options["followed"].to(self.dtype)
        return torch.cat((super().read(x, condition), self.pack(followed)), dim=2)

    def options(self, condition: Condition) -> dict[str, Any]:
        return {name: value for name, value in super().options(condition).items() if name != "followed"}
