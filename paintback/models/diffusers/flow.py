"""What the rectified-flow pipelines share: a transformer, shifted grids, the clock, packed latents, embedded guidance.

A run's state is never packed: a latent mask marks cells, and packing is only the transformer's way to read them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from paintback.denoiser import Prediction
from paintback.models.diffusers.base import Condition, PipelineDenoiser, PipelineModel, Size, clock, is_flow
from paintback.models.diffusers.shown import numbered, references
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["AddedGuidance", "FlowPipeline", "TrueGuidance", "set_shifted", "shift_of", "with_length"]


@dataclass(frozen=True)
class FlowPipeline(PipelineModel):
    """A pipeline whose network is `pipe.transformer` and predicts the velocity x1 - x0.

    Attributes:
        packed: whether the pipeline's latents are tokens, as its `_pack_latents` makes them.
        most_references: pictures that it is shown to go by, at most; None for any number.
    """

    packed: ClassVar[bool] = False
    most_references: ClassVar[int | None] = None

    @classmethod
    def check_pipe(cls, pipe: Any, name: str) -> None:
        if not is_flow(pipe.scheduler):
            raise ValueError(
                f"{name!r} is a flow model, and its scheduler, {type(pipe.scheduler).__name__}, is none of flow "
                "matching; give the pipeline a FlowMatchEulerDiscreteScheduler."
            )

    @classmethod
    def facts(cls, pipe: Any, codec: LatentCodec) -> dict[str, Any]:
        return {
            "multiple": 2 * codec.factor,  # a token is 2 x 2 cells
            "training_size": int(getattr(pipe, "default_sample_size", 128)) * codec.factor,
            "distilled": cls.is_distilled(pipe),
            "largest_area": cls.area_of(pipe),
        }

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

    def as_latents(self, x: Tensor) -> Tensor:
        return self.pack(super().as_latents(x)) if self.packed else super().as_latents(x)

    def control_of_picture(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        return self.codec.encode(self.given.image_processor.preprocess(picture, height=height, width=width))

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        set_shifted(scheduler, num_inference_steps, shift_of(scheduler, self.tokens(size)))

    def image_ids(self, x: Tensor, size: Size) -> Tensor:
        """Where the tokens of a picture lie, as the pipeline says it, on the device."""
        height, width = (side // self.multiple for side in size)
        return self.remember(
            (height, width, x.device, self.dtype),
            lambda: self.pipe._prepare_latent_image_ids(1, height, width, x.device, self.dtype),
        )

    def finish(self, made: PipelineDenoiser, own: Mapping[str, Any]) -> PipelineDenoiser:
        """Adds the pictures that it is shown to go by, if any; under the negative prompt too."""
        for number, picture in enumerate(references(own.get("reference_images"), self.name, self.most_references)):
            with torch.no_grad():
                latents = self.encode_reference(picture)
            for conditional in (True, False):
                made.tell({f"reference_{number}": latents}, conditional=conditional)
        return super().finish(made, own)

    def options(self, condition: Condition) -> dict[str, Any]:
        """What the network is called with besides, with an IP-Adapter's pictures among what its attention is told."""
        prompts = [one.to(self.dtype) for one in numbered(dict(condition.extras), "image_embeds")]
        if not prompts or self.attention is None:
            return dict(condition.options)
        told = {**condition.options.get(self.attention[1], {}), "ip_adapter_image_embeds": self.adapted(prompts)}
        return {**condition.options, self.attention[1]: told}

    def adapted(self, prompts: list[Tensor]) -> Any:
        """The embeddings of all IP-Adapters as the network takes them."""
        return prompts

    def encode_reference(self, picture: Any) -> Tensor:
        """(1, C, h, w), the latents of a picture to go by, at the size and as the pipeline has them."""
        raise NotImplementedError

    def refuse_guidance(self, guidance_scale: float | None, instead: str) -> None:
        """For networks that take no guidance scale.

        Raises:
            ValueError: if there is one above 1.
        """
        if guidance_scale is not None and guidance_scale > 1:
            raise ValueError(f"The model {self.name!r} takes no guidance_scale; {instead}.")


@dataclass(frozen=True)
class TrueGuidance(FlowPipeline):
    """A pipeline whose guidance by two calls has a scale of its own, `true_cfg_scale`, and needs a negative prompt.

    Its `guidance_scale` is an input of the network, if it is anything.

    Attributes:
        true_scale: that the pipeline has by default.
        told_scale: of the network, likewise.
        instead: what to do in place of a guidance scale that the network does not read.
    """

    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    keywords: ClassVar[tuple[str, ...]] = ("true_cfg_scale",)
    true_scale: ClassVar[float] = 1.0
    told_scale: ClassVar[float] = 1.0
    instead: ClassVar[str] = "leave it out, or give true_cfg_scale and a negative_prompt"

    def scales(
        self, negative_prompt: str | None, guidance_scale: float | None, given: Mapping[str, Any]
    ) -> tuple[float, float | None]:
        if not self.distilled:
            self.refuse_guidance(guidance_scale, self.instead)
        told = (self.told_scale if guidance_scale is None else float(guidance_scale)) if self.distilled else None
        negated = negative_prompt is not None or f"negative_{self.embeds[0]}" in given
        scale = given["true_cfg_scale"]
        if scale is not None and scale > 1 and not negated:
            raise ValueError(
                f"The model {self.name!r} needs a negative_prompt for true_cfg_scale; an empty one will do."
            )
        if not negated:
            return 1.0, told
        own = 1.0 if self.step_distilled else self.true_scale
        scale = own if scale is None else float(scale)
        if scale <= 1:
            warnings.warn(
                f"The model {self.name!r} does not look at a negative prompt unless true_cfg_scale is above 1.",
                stacklevel=3,
            )
        return scale, told


@dataclass(frozen=True)
class AddedGuidance(FlowPipeline):
    """A pipeline whose guidance_scale is s in c + s (c - u): above 0 there is guidance, with w = s + 1."""

    def scales(
        self, negative_prompt: str | None, guidance_scale: float | None, given: Mapping[str, Any]
    ) -> tuple[float, float | None]:
        own = 0.0 if self.step_distilled else self.guidance_scale
        return 1 + (own if guidance_scale is None else float(guidance_scale)), None


def with_length(
    conditional: Prediction, unconditional: Prediction, scale: float, time: Time, length: Callable[[Tensor], Tensor]
) -> Prediction:
    """Guidance that keeps the conditional velocity's length: m |c| / |m| with m = u + w (c - u).

    Args:
        conditional: of the pair.
        unconditional: likewise.
        scale: w.
        time: of both.
        length: |v|, of the shape of v or one that is broadcast to it.
    """
    velocity = conditional.x1 - conditional.x0
    mixed = torch.lerp(unconditional.x1 - unconditional.x0, velocity, scale)
    away = mixed * (length(velocity) / length(mixed)) - velocity
    return Prediction(conditional.x0 - time.sigma * away, conditional.x1 + time.alpha * away)


def shift_of(scheduler: Any, tokens: int, *, max_shift: float = 1.15, longest: int = 4096) -> float:
    """The pipelines' mu: how far the times are shifted for so many tokens.

    Args:
        scheduler: its config is read.
        tokens: of the picture.
        max_shift: where the config names none.
        longest: likewise, of as many tokens.
    """
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config = scheduler.config
    return float(
        calculate_shift(
            tokens,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", longest),
            config.get("base_shift", 0.5),
            config.get("max_shift", max_shift),
        )
    )


def set_shifted(scheduler: Any, num_inference_steps: int, mu: float | None) -> None:
    """Times from 1 down to 1 / N, shifted by mu where the scheduler does so; with UniPC's own times as they are.

    Args:
        scheduler: to be set.
        num_inference_steps: N.
        mu: the shift; None for that of the scheduler's config.
    """
    from diffusers.pipelines.flux.pipeline_flux import retrieve_timesteps

    sigmas = None
    if not scheduler.config.get("use_flow_sigmas", False):
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
    retrieve_timesteps(scheduler, num_inference_steps, "cpu", sigmas=sigmas, **({} if mu is None else {"mu": mu}))
