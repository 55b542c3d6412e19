"""Stable Diffusion 3 and 3.5: a transformer on text and latents together.

Reference: Esser et al. 2024 (arXiv:2403.03206).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from paintback.denoiser import Prediction, predict
from paintback.models.diffusers.base import Condition, PipelineDenoiser, Size, refuse
from paintback.models.diffusers.flow import FlowPipeline, shift_of, together
from paintback.schedules import Time

__all__ = ["StableDiffusion3"]

SKIPS = {"scale": "scale", "start": "begins", "stop": "ends"}  # skip_layer_guidance_..., and what it is here
NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


class SkipDenoiser(PipelineDenoiser):
    """SD 3.5 with skip-layer guidance: early on, the network without some of its layers is what is moved away from.

    As the pipeline has it: + scale (c - c without the layers), in the steps between two shares of the run.

    Attributes:
        layers: that are skipped; none for no such guidance.
        scale: of it.
        begins: share of the steps after which it begins.
        ends: share of the steps at which it ends.
    """

    layers: Sequence[int] = ()
    scale: float = 2.8
    begins: float = 0.01
    ends: float = 0.2
    _times: Tensor | None = None

    def grid(self, num_inference_steps: int) -> Tensor:
        self._times = super().grid(num_inference_steps)
        return self._times

    def share(self, time: Time) -> float:
        """Which part of the steps is over at a time: of the grid that was asked for last, else of time itself."""
        if self._times is None:
            return 1 - time.t
        return int((self._times[:-1] > time.t + 1e-9).sum()) / (len(self._times) - 1)

    def adjusted(self, guided: Prediction, x: Tensor, time: Time) -> Prediction:
        if not self.layers or not self.begins < self.share(time) < self.ends:
            return guided
        assert self.conditional is not None
        assert guided.conditional is not None
        under = self.conditional.rows(len(x))
        under = replace(under, options={**under.options, "skip_layers": list(self.layers)})
        skipped = predict(self.model.parametrisation, self._run(x, time, under), x, time)
        away = [a - b for a, b in ((guided.conditional.x0, skipped.x0), (guided.conditional.x1, skipped.x1))]
        return replace(
            guided,
            x0=guided.x0 + self.scale * away[0],
            x1=guided.x1 + self.scale * away[1],
            rows=guided.rows + len(x),
        )


@dataclass(frozen=True)
class StableDiffusion3(FlowPipeline):
    """`StableDiffusion3Pipeline`, with or without T5."""

    guidance_scale: ClassVar[float] = 7.0
    attention: ClassVar[tuple[str, str] | None] = ("joint_attention_kwargs", "joint_attention_kwargs")

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: Size | None = None,
        **embeddings: Tensor | float | None,
    ) -> PipelineDenoiser:
        """As `LatentModel.denoiser`, with SD 3.5's `skip_guidance_layers` and the settings of their guidance."""
        layers: Any = embeddings.pop("skip_guidance_layers", None)
        settings: dict[str, Any] = {name: embeddings.pop(f"skip_layer_guidance_{name}", None) for name in SKIPS}
        made = super().denoiser(prompt, negative_prompt, guidance_scale, size=size, **embeddings)
        if not layers:
            return made
        if made.unconditional is None:
            raise ValueError("skip_guidance_layers go with guidance; give a prompt and a guidance_scale above 1.")
        own = SkipDenoiser(self, made.size, made.conditional, made.unconditional, made.guidance_scale)
        own.layers = tuple(layers)
        for name, value in settings.items():
            if value is not None:
                setattr(own, SKIPS[name], float(value))
        return own

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        refuse(embeddings, (*NAMES, *self.words), self.name)
        together(embeddings, NAMES[::2], self.name)
        together(embeddings, NAMES[1::2], self.name)
        under, without, pooled, pooled_without = self.pipe.encode_prompt(
            None if "prompt_embeds" in embeddings else prompt,
            device=self.device,
            do_classifier_free_guidance=guided,
            negative_prompt=negative_prompt,
            **{"prompt_2": None, "prompt_3": None, **embeddings},
        )
        conditional = Condition(under, {"pooled": pooled})
        return conditional, Condition(without, {"pooled": pooled_without}) if guided else None

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        output: Tensor = self.pipe.transformer(
            hidden_states=x.to(self.dtype),
            timestep=self.clock(time, len(x)),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            pooled_projections=condition.extras["pooled"].to(self.dtype),
            **condition.options,
            return_dict=False,
        )[0]
        return output

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        if scheduler.config.get("use_dynamic_shifting", False):
            scheduler.set_timesteps(num_inference_steps, mu=shift_of(scheduler, self.tokens(size), max_shift=1.16))
        else:
            scheduler.set_timesteps(num_inference_steps)
