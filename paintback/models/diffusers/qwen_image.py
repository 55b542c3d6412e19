"""Qwen-Image and Qwen-Image-Edit: a transformer on packed latents of a video VAE.

Guided only where there is a negative prompt.
Reference: Wu et al. 2025 (arXiv:2508.02324).

Guidance keeps the conditional velocity's length: with c and u the velocities under the prompt and the negative one,
    v = m |c| / |m|,   m = u + w (c - u),
norms taken over each token, which is 2 x 2 cells. Not linear in w, so `Prediction.guided` is told of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.codecs import ClipCodec
from paintback.models.diffusers.control import CONTROL, Control
from paintback.models.diffusers.flow import TrueGuidance, with_length
from paintback.models.diffusers.shown import numbered, references
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["QwenImage", "QwenImageEdit", "QwenImageEditPlus"]


@dataclass(frozen=True)
class QwenImage(TrueGuidance):
    """`QwenImagePipeline`; a network with embedded guidance is told 1 where the user names no scale."""

    packed: ClassVar[bool] = True
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    guidance_scale: ClassVar[float] = 4.0  # the pipeline's true_cfg_scale
    true_scale: ClassVar[float] = 4.0
    instead: ClassVar[str] = "give true_cfg_scale and a negative_prompt"
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_embeds_mask")
    keywords: ClassVar[tuple[str, ...]] = (*TrueGuidance.keywords, *CONTROL)
    alone: ClassVar[bool] = True
    answers: ClassVar[tuple[str, ...]] = ("embeds", "mask")

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return ClipCodec(pipe.vae, int(pipe.vae_scale_factor))

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        packed = self.pack(x.to(self.dtype))
        shown = [one.to(self.dtype) for one in numbered(dict(condition.extras), "reference")]
        shapes = [(1, one.shape[-2] // 2, one.shape[-1] // 2) for one in (x, *shown)]
        output: Tensor = self.pipe.transformer(
            hidden_states=torch.cat((packed, *(self.pack(one) for one in shown)), dim=1),
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            guidance=condition.extras.get("guidance"),
            encoder_hidden_states_mask=condition.extras.get("mask"),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            img_shapes=[shapes] * len(x),
            return_dict=False,
            **condition.options,
        )[0]
        return self.unpack(output[:, : packed.shape[1]], size)

    def check_controlnet(self, nets: Sequence[Any]) -> None:
        if any(net.config.extra_condition_channels for net in nets):
            raise ValueError(
                f"A ControlNet of {self.name!r} takes the mask, which is not given to one here; load the ControlNet "
                "without it: any method paints in the hole."
            )

    def control_of_picture(self, picture: Tensor) -> Tensor:
        return self.pack(super().control_of_picture(picture))

    def residuals(self, x: Tensor, time: Time, condition: Condition, size: Size, control: Control) -> dict[str, Any]:
        height, width = (side // self.multiple for side in size)
        said = self.controlnet(
            hidden_states=self.pack(x.to(self.dtype)),
            timestep=self.clock(time, len(x)).to(self.dtype) / 1000,
            encoder_hidden_states_mask=condition.extras.get("mask"),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            img_shapes=[[(1, height, width)]] * len(x),
            **replace(control, seen=[one.to(self.dtype) for one in control.seen]).told(),
            return_dict=False,
        )
        return {"controlnet_block_samples": said}

    def unpack(self, packed: Tensor, size: Size) -> Tensor:
        return super().unpack(packed, size)[:, :, 0]

    def mix(self, conditional: Prediction, unconditional: Prediction, scale: float, time: Time) -> Prediction:
        return with_length(conditional, unconditional, scale, time, _token_norm)


@dataclass(frozen=True)
class QwenImageEdit(QwenImage):
    """`QwenImageEditPipeline`: its network is shown a picture to go by, and so is the encoder of the text."""

    keywords: ClassVar[tuple[str, ...]] = (*TrueGuidance.keywords, "reference_images")
    most_references: ClassVar[int | None] = 1
    reads: ClassVar[tuple[str, ...]] = ("image",)

    def beside(self, own: Mapping[str, Any]) -> dict[str, Any]:
        pictures = references(own["reference_images"], self.name, self.most_references)
        if pictures:
            return {"image": self.read_pictures(pictures)}
        said = (
            f"The model {self.name!r} learnt to go by a picture; give reference_images, often the very picture that is "
            "painted in."
        )
        if self.most_references == 1:  # its words to the encoder of the text have a place for the picture
            raise ValueError(said)
        warnings.warn(said, stacklevel=3)
        return {}

    def read_pictures(self, pictures: Sequence[Any]) -> Any:
        """What the text encoder is shown."""
        return self.scaled(pictures[0])

    def scaled(self, picture: Any, *, read: bool = False) -> Any:
        """A picture at about the area that the network is shown, or the encoder of the text where that is another."""
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

        area = plus.CONDITION_IMAGE_SIZE if read else plus.VAE_IMAGE_SIZE
        width, height = plus.calculate_dimensions(area, picture.width / picture.height)
        return self.pipe.image_processor.resize(picture, height, width)

    def encode_reference(self, picture: Any) -> Tensor:
        scaled = self.scaled(picture)
        pixels = self.pipe.image_processor.preprocess(scaled, scaled.height, scaled.width)[:, :, None]
        latents: Tensor = self.pipe._encode_vae_image(pixels.to(self.device, self.pipe.vae.dtype), None)
        return latents[:, :, 0]


@dataclass(frozen=True)
class QwenImageEditPlus(QwenImageEdit):
    """`QwenImageEditPlusPipeline`: shown one picture or several; the encoder of the text sees them smaller."""

    most_references: ClassVar[int | None] = None

    def read_pictures(self, pictures: Sequence[Any]) -> Any:
        return [self.scaled(one, read=True) for one in pictures]


def _token_norm(v: Tensor) -> Tensor:
    """(B, 1, h, w): in every cell the norm over all channels of the token it lies in."""
    squares = torch.nn.functional.avg_pool2d(v.square().sum(1, keepdim=True), 2) * 4
    return squares.sqrt().repeat_interleave(2, -2).repeat_interleave(2, -1)
