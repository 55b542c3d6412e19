"""What all diffusers pipelines share: prompts, keywords, guidance scales, the way to a denoiser.

The pipeline itself is left as it is: its modules are called, never changed, and its scheduler is copied before use.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Parametrisation, Prediction, linear_mix
from paintback.models.diffusers.codecs import VaeCodec
from paintback.models.diffusers.control import Control, control_of
from paintback.models.diffusers.denoising import Condition, PipelineDenoiser, Size, rescaled
from paintback.models.diffusers.pipes import OfPipe, encoders_state
from paintback.models.diffusers.refusals import check_told, check_widths
from paintback.models.diffusers.schedulers import (
    clock,
    copy_scheduler,
    edm_clock,
    is_edm,
    is_flow,
    parametrisation_of,
    schedule_of,
)
from paintback.models.diffusers.shown import PROMPTS, image_prompts
from paintback.models.latent import LatentCodec, LatentModel
from paintback.schedules import EDM, VP, Schedule, Time, from_scheduler

__all__ = [
    "Condition",
    "PipelineDenoiser",
    "PipelineModel",
    "Size",
    "clock",
    "copy_scheduler",
    "is_edm",
    "is_flow",
    "parametrisation_of",
    "refuse",
    "rescaled",
    "schedule_of",
]

CACHED = 16  # prompts whose embeddings are kept
WORDS = (
    *(f"{negative}prompt_{number}" for negative in ("", "negative_") for number in (2, 3, 4)),
    "clip_skip",
    "max_sequence_length",
)
"""What pipelines take beside a text and its embeddings, and read the text by."""
ATTENTION = ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")
SETTINGS = ("max_sequence_length", "clean_caption", "complex_human_instruction")
"""What some pipelines' own call tells their `encode_prompt`, whose defaults are others."""


@dataclass(frozen=True)
class PipelineModel(LatentModel, OfPipe):
    """A diffusers pipeline. A subclass says what its network and its text encoders want.

    Attributes:
        of_noise: the network was trained on a schedule of noise, and runs on no other; see `schedule_of`.
        edm: the network can be scaled as a scheduler of EDM has it.
        guidance: "batch" where the pipeline puts both halves of guidance into one batch, "calls" where it makes two.
        guidance_scale: that the pipeline has by default.
        attention: the keyword that its attention layers are told by, as the pipeline and as the network call it.
        rescales: whether it knows guidance_rescale.
        keywords: what its call takes beside the text, its embeddings and the guidance scale.
        shown: those of `keywords` that are prompts too: with them there is guidance without a text.
        embeds: what stands for the text, by the pipeline's names; those of a negative prompt have "negative_" before.
        alone: whether the first of `embeds` does without the others.
        takes_negative: whether there is a negative prompt.
        negative: what it is where none is given.
        reads: what the pipeline's `encode_prompt` reads beside the text, as `beside` has it.
        controls: those of `control.CONTROL` that not all ControlNets have and the family's do.
        control_scale: of its ControlNets by default.
        answers: what the pipeline's `encode_prompt` gives, in order: "embeds" and names of `Condition.extras`; those of
            the negative prompt have "negative_" before; "" for what the network need not be told.
    """

    of_noise: ClassVar[bool] = False
    edm: ClassVar[bool] = False
    guidance: ClassVar[Literal["batch", "calls"]] = "batch"
    guidance_scale: ClassVar[float] = 1.0
    attention: ClassVar[tuple[str, str] | None] = None
    rescales: ClassVar[bool] = False
    keywords: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[tuple[str, ...]] = ()
    embeds: ClassVar[tuple[str, ...]] = ("prompt_embeds",)
    alone: ClassVar[bool] = False
    takes_negative: ClassVar[bool] = True
    negative: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    controls: ClassVar[tuple[str, ...]] = ()
    control_scale: ClassVar[float] = 1.0
    answers: ClassVar[tuple[str, ...]] = ("embeds", "negative_embeds")

    schedule: Schedule = field(kw_only=True)
    parametrisation: Parametrisation = field(kw_only=True)
    _kept: dict[Any, Tensor] = field(default_factory=dict, repr=False, kw_only=True)
    _prompts: dict[Any, tuple[Condition, Condition | None]] = field(default_factory=dict, repr=False, kw_only=True)

    @classmethod
    def from_pipe(cls, pipe: Any, name: str) -> PipelineModel:
        """The adapter of a loaded pipeline.

        Raises:
            ValueError: for a scheduler or a network of another kind than the family's.
        """
        cls.check_pipe(pipe, name)
        network, codec = getattr(pipe, cls.part), cls.codec_of(pipe)
        return cls(
            name=name,
            channels=3,
            size=None,
            network=network,
            device=pipe._execution_device,
            dtype=network.dtype if network is not None else torch.float32,
            pipe=pipe,
            schedule=schedule_of(pipe.scheduler, of_noise=cls.of_noise, edm=cls.edm),
            parametrisation=parametrisation_of(pipe.scheduler),
            codec=codec,
            **cls.facts(pipe, codec),
        )

    @classmethod
    def check_pipe(cls, pipe: Any, name: str) -> None:
        """Refuses a pipeline of the right class that this adapter is not for."""

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        """To the latents of the pipeline and back."""
        return VaeCodec(pipe.vae, int(pipe.vae_scale_factor))

    @classmethod
    def facts(cls, pipe: Any, codec: LatentCodec) -> dict[str, Any]:
        """What the family has to say of a pipeline: `multiple`, `training_size` and other fields of `Model`."""
        raise NotImplementedError

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        """The conditions of a prompt and, where guided, of the negative one; of either, embeddings if there are any.

        Raises:
            ValueError: for embeddings that the pipeline does not take, or that others go with.
        """
        negative = tuple(f"negative_{name}" for name in self.embeds)
        taken = (*self.embeds, *(negative if self.takes_negative else ()), *self.words)
        refuse({name: value for name, value in embeddings.items() if name not in self.reads}, taken, self.name)
        if not self.alone:
            together(embeddings, self.embeds, self.name)
            together(embeddings, negative, self.name)
        if "do_classifier_free_guidance" in inspect.signature(self.pipe.encode_prompt).parameters:
            said = {} if negative_prompt is None else {"negative_prompt": negative_prompt}
            found = self.ask(prompt, {**embeddings, **said}, do_classifier_free_guidance=guided)
            return self.condition(found), self.condition(found, "negative_") if guided else None
        of_other = tuple(name for name in embeddings if name.startswith("negative_"))
        under = self.condition(
            self.ask(prompt, {name: embeddings[name] for name in embeddings if name not in of_other})
        )
        if not guided:
            return under, None
        own = {name.removeprefix("negative_"): embeddings[name] for name in of_other}
        both = ("clip_skip", "max_sequence_length", *self.reads)
        shared = {name: embeddings[name] for name in both if name in embeddings}
        return under, self.condition(
            self.ask(self.negative if negative_prompt is None else negative_prompt, {**own, **shared})
        )

    def ask(self, prompt: str, given: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """What the pipeline's `encode_prompt` answers, by the names in `answers`.

        Args:
            prompt: text.
            given: embeddings and settings by its names.
            more: likewise.
        """
        taken = inspect.signature(self.pipe.encode_prompt).parameters
        own = inspect.signature(type(self.pipe).__call__).parameters
        needed = [
            one.name for one in taken.values() if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
        ]
        settings = {name: own[name].default for name in SETTINGS if name in taken and name in own}
        text = None if given.keys() & set(self.embeds[:1]) else prompt
        fixed = {"prompt": text, "device": self.device, "num_images_per_prompt": 1}
        said = {name: value for name, value in fixed.items() if name in taken}
        answer = self.pipe.encode_prompt(**{**dict.fromkeys(needed), **settings, **said, **given, **more})
        found = answer if isinstance(answer, tuple) else (answer,)
        return dict(zip(self.answers, found, strict=False))

    def condition(self, found: Mapping[str, Any], prefix: str = "") -> Condition:
        """The condition in what `ask` found.

        Args:
            found: by the names in `answers`.
            prefix: "negative_" for the negative prompt's.
        """
        negative = {name for name in found if name.startswith("negative_")}
        own = {
            name.removeprefix(prefix): value
            for name, value in found.items()
            if name and value is not None and (name in negative) == bool(prefix)
        }
        return Condition(own.pop("embeds"), own)

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        """The network's output for states x, in x's shape, as `parametrisation` has it."""
        raise NotImplementedError

    @property
    def controlnet(self) -> Any:
        """Of the pipeline that the user gave, or None."""
        return getattr(self.given, "controlnet", None)

    def networks(self) -> list[torch.nn.Module]:
        own = super().networks()
        return own if self.controlnet is None or self.controlnet in own else [*own, self.controlnet]

    def check_controlnet(self, nets: Sequence[Any]) -> None:
        """Refuses ControlNets of the right class that cannot be asked here."""

    def control_of_picture(self, picture: Tensor) -> Tensor:
        """What a ControlNet reads of a picture, (B, 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def residuals(self, x: Tensor, time: Time, condition: Condition, size: Size, control: Control) -> dict[str, Any]:
        """What the ControlNets answer, by the names that the network takes it by.

        Args:
            x: (B, ...) states.
            time: of all.
            condition: at x's rows.
            size: of the pictures.
            control: of the step, with what is seen at x's rows.
        """
        raise NotImplementedError

    def timestep(self, t: float) -> float:
        if isinstance(self.schedule, VP):
            return t * self.schedule.num_train_timesteps - 1
        if isinstance(self.schedule, EDM):
            return edm_clock(self.pipe.scheduler, self.schedule.at(t).sigma)
        return float(clock(self.pipe.scheduler, self.schedule.at(t)))

    def as_latents(self, x: Tensor) -> Tensor:
        """Our state as the pipeline takes it for its `latents`."""
        return x.to(self.device, self.dtype)

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        """Sets a scheduler's timesteps as the pipeline does."""
        scheduler.set_timesteps(num_inference_steps)

    def at_size(self, condition: Condition, size: Size) -> Condition:
        """The condition with what it says of the picture's size, where the network is told."""
        return condition

    def mix(self, conditional: Prediction, unconditional: Prediction, scale: float, time: Time) -> Prediction:
        """Guidance as the pipeline has it."""
        return linear_mix(conditional, unconditional, scale)

    def rescaled(self, mixed: Prediction, conditional: Prediction, share: float, time: Time) -> Prediction:
        """The guided prediction with a share of it scaled; see `rescaled`."""
        return rescaled(self.parametrisation, mixed, conditional, share, time)

    def cache(self, branch: str) -> contextlib.AbstractContextManager[None]:
        """What the pipeline opens around a call, where the user has enabled a cache of the network's blocks."""
        if not getattr(self.network, "is_cache_enabled", False):
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = self.pipe.transformer.cache_context(branch)
        return context

    def grid(self, num_inference_steps: int, size: Size) -> Tensor:
        """The times of the pipeline's scheduler, without repetitions."""
        scheduler = copy_scheduler(self.pipe.scheduler)
        self.set_timesteps(scheduler, num_inference_steps, size)
        return from_scheduler(scheduler, self.schedule)

    def scales(
        self, negative_prompt: str | None, guidance_scale: float | None, given: Mapping[str, Any]
    ) -> tuple[float, float | None]:
        """The scale w of guidance by two predictions, and that which the network is told, or None for none.

        Args:
            negative_prompt: text.
            guidance_scale: that the user gives, or None.
            given: embeddings and keywords.

        Raises:
            ValueError: for what the family does not have.
        """
        own = 1.0 if self.step_distilled else self.guidance_scale
        return own if guidance_scale is None else float(guidance_scale), None

    def embed(self, condition: Condition, guidance_scale: float) -> Condition:
        """The condition with a guidance scale that the network is told."""
        told = torch.tensor([guidance_scale], dtype=torch.float32, device=condition.embeds.device)
        return replace(condition, extras={**condition.extras, "guidance": told})

    def beside(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """What `encode_prompt` reads beside the text, by its names.

        Args:
            own: `keywords` with the values that were given, or None.
        """
        return {}

    def finish(self, made: PipelineDenoiser, own: Mapping[str, Any]) -> PipelineDenoiser:
        """The denoiser with what it is shown beside the prompt, and what the family adds.

        Args:
            made: the denoiser.
            own: `keywords` with the values that were given, or None.
        """
        if any(own.get(name) is not None for name in PROMPTS):
            pairs = image_prompts(self.pipe, own, self.device, guided=made.unconditional is not None)
            for conditional in (True, False):
                told = {f"image_embeds_{k}": pair[conditional] for k, pair in enumerate(pairs)}
                made.tell(told, conditional=conditional)
        made.control = control_of(self, own)
        return made

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: Size | None = None,
        **embeddings: Tensor | float | None,
    ) -> PipelineDenoiser:
        size = size or (self.training_size, self.training_size)
        given = {name: value for name, value in embeddings.items() if value is not None}
        own = {name: given.pop(name, None) for name in self.keywords}
        shown = [name for name in self.shown if own[name] is not None]
        check_told(self.name, self.network, prompt, negative_prompt, given, shown=shown, takes=self.shown)
        scale, told = self.scales(negative_prompt, guidance_scale, {**own, **given})
        rescale, attention = self._settings(given)
        guided = scale > 1 and (prompt is not None or negative_prompt is not None or bool(given) or bool(shown))
        both = self._encode(prompt or "", negative_prompt, guided, {**given, **self.beside(own)})
        check_widths(self.name, self.network, given)
        at = [None if one is None else replace(self.at_size(one, size), options=attention) for one in both]
        under, without = (one if one is None or told is None else self.embed(one, told) for one in at)
        made = PipelineDenoiser(self, size, under, without, scale)
        made.rescale = rescale
        return self.finish(made, own)

    @property
    def words(self) -> tuple[str, ...]:
        """What the pipeline's own `encode_prompt` takes beside the text."""
        taken = inspect.signature(self.pipe.encode_prompt).parameters
        return tuple(name for name in WORDS if name.removeprefix("negative_") in taken)

    def _settings(self, given: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Takes what is no text out of what is given: guidance_rescale, and what the attention layers are told.

        Raises:
            ValueError: for what this family does not have.
        """
        rescale, options = given.pop("guidance_rescale", None), {}
        if rescale and not self.rescales:
            raise ValueError(f"The model {self.name!r} knows no guidance_rescale; lower guidance_scale.")
        for name in ATTENTION:
            if name in given:
                if self.attention is None or self.attention[0] != name:
                    own = "nothing of the kind" if self.attention is None else self.attention[0]
                    raise ValueError(f"The model {self.name!r} takes no {name}; its pipeline takes {own}.")
                options[self.attention[1]] = given.pop(name)
        return float(rescale or 0.0), options

    def remember(self, key: tuple[Any, ...], make: Callable[[], Tensor]) -> Tensor:
        """What `make` makes, once for a key: what a network is told anew at every look and is always the same."""
        if key not in self._kept:
            if len(self._kept) >= CACHED:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = make()
        return self._kept[key]

    @torch.no_grad()
    def _encode(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        """`encode_prompt`, remembered for texts while the text encoders are what they were."""
        if set(embeddings) - set(WORDS):
            return self.encode_prompt(prompt, negative_prompt, guided, embeddings)
        key = (prompt, negative_prompt, guided, *sorted(embeddings.items()), encoders_state(self.pipe))
        if key not in self._prompts:
            if len(self._prompts) >= CACHED:
                self._prompts.pop(next(iter(self._prompts)))
            self._prompts[key] = self.encode_prompt(prompt, negative_prompt, guided, embeddings)
        return self._prompts[key]


def refuse(embeddings: Mapping[str, Any], allowed: tuple[str, ...], name: str) -> None:
    """Names the embeddings that a model does not take.

    Raises:
        ValueError: if there are any.
    """
    wrong = sorted(set(embeddings) - set(allowed))
    if wrong:
        raise ValueError(f"The model {name!r} takes no {', '.join(wrong)}; valid are {', '.join(allowed) or 'none'}.")


def together(embeddings: Mapping[str, Any], names: tuple[str, ...], model: str) -> None:
    """Checks that embeddings which only work together were given together.

    Raises:
        ValueError: if some are missing.
    """
    missing = [name for name in names if name not in embeddings]
    if missing and len(missing) < len(names):
        raise ValueError(f"The model {model!r} needs {', '.join(missing)} too; give {' and '.join(names)} together.")
