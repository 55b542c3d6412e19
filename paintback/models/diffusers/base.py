"""What all diffusers pipelines share: conditions, classifier-free guidance, schedulers, autoencoders.

The pipeline itself is left as it is: its modules are called, never changed, and its scheduler is copied before use.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paintback.denoiser import Denoiser, Parametrisation, Prediction, linear_mix, predict
from paintback.models.diffusers.codecs import VaeCodec
from paintback.models.diffusers.control import Control, asked, control_of, placed
from paintback.models.diffusers.pipes import OfPipe, encoders_state
from paintback.models.diffusers.refusals import check_told, check_widths
from paintback.models.diffusers.shown import PROMPTS, image_prompts
from paintback.models.latent import LatentCodec, LatentModel
from paintback.schedules import EDM, VP, Flow, Schedule, Time, from_scheduler

__all__ = ["Condition", "PipelineDenoiser", "PipelineModel", "copy_scheduler", "schedule_of"]

Size = tuple[int, ...]
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
class Condition:
    """What a network is told of the prompt.

    Attributes:
        embeds: (1 or B, L, D), the text itself.
        extras: whatever else goes with it, (1 or B, ...) each.
        options: what the network is called with besides, whatever the rows.
    """

    embeds: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, count: int) -> Condition:
        """Brought to a number of rows, those of a sample next to each other."""
        extras = {name: _rows(value, count) for name, value in self.extras.items()}
        return Condition(_rows(self.embeds, count), extras, self.options)

    def called(self, **options: Any) -> Condition:
        """With more that the network is called with."""
        return replace(self, options={**self.options, **options})

    @staticmethod
    def cat(conditions: list[Condition]) -> Condition:
        """One batch of several conditions that have been brought to their rows."""
        first = conditions[0]
        return Condition(
            torch.cat([one.embeds for one in conditions]),
            {name: torch.cat([one.extras[name] for one in conditions]) for name in first.extras},
            first.options,
        )


def _rows(value: Tensor, count: int) -> Tensor:
    if count % len(value):
        raise ValueError(f"Got {len(value)} conditions for {count} samples; give one or one per sample.")
    return value.repeat_interleave(count // len(value), dim=0)


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler is one of rectified flow; UniPC has the fields of both families and says so in its config."""
    config = scheduler.config
    return (
        type(scheduler).__name__.startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas", False))
        or config.get("prediction_type") == "flow_prediction"
    )


def is_edm(scheduler: Any) -> bool:
    """Whether a scheduler is one of Karras et al., whose network's input and output are scaled by the noise level."""
    return type(scheduler).__name__.startswith("EDM")


def schedule_of(scheduler: Any, *, of_noise: bool = False, edm: bool = False) -> Schedule:
    """The noise schedule that a scheduler's config describes.

    For flow models t is sigma itself; the shift is in the scheduler's grid.

    Args:
        scheduler: of the pipeline.
        of_noise: the network was trained on a schedule of noise, and runs on no other.
        edm: the family's network can be scaled as `is_edm` has it.

    Raises:
        ValueError: for a scheduler of neither family, or of flow matching where that is the wrong one.
    """
    if is_flow(scheduler):
        if of_noise:
            raise ValueError(
                f"{type(scheduler).__name__} is a scheduler of flow matching, and this pipeline's network was trained "
                "on a schedule of noise; give the pipeline a DDIMScheduler."
            )
        return Flow()
    if edm and is_edm(scheduler):
        config = scheduler.config
        return EDM(config.sigma_min, config.sigma_max, config.rho)
    betas = getattr(scheduler, "betas", None)
    if betas is None:
        raise ValueError(
            f"{type(scheduler).__name__} has no betas and is none of flow matching; give the pipeline a DDIMScheduler "
            "or a FlowMatchEulerDiscreteScheduler."
        )
    return VP(betas)


def parametrisation_of(scheduler: Any) -> Parametrisation:
    """What the network's output means, by the scheduler's config.

    Raises:
        ValueError: for a prediction type that we do not know.
    """
    if is_flow(scheduler):
        return "flow"
    if is_edm(scheduler):
        return "x0"  # after its scaling, which turns what the config names into it
    kinds: dict[str, Parametrisation] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in kinds:
        raise ValueError(f"The scheduler's prediction_type must be one of {', '.join(kinds)}; got {kind!r}.")
    return kinds[kind]


def clock(scheduler: Any, time: Time) -> Tensor:
    """What a flow scheduler calls a time: 1000 sigma, a whole number where it (UniPC) has those alone."""
    value = torch.tensor(time.sigma, dtype=torch.float32) * int(scheduler.config.num_train_timesteps)
    return value if type(scheduler).__name__.startswith("FlowMatch") else value.long()


def copy_scheduler(scheduler: Any) -> Any:
    """A scheduler of the same config and no state."""
    return type(scheduler).from_config(scheduler.config)


class _Given:
    """A scheduler that is set to given sigmas, whatever a pipeline would set it to, with the shift that this names."""

    def __init__(self, inner: Any, given: Sequence[float]) -> None:
        self.inner, self.config, self.given = inner, inner.config, [float(one) for one in given]

    @property
    def timesteps(self) -> Tensor:
        """Of the scheduler."""
        timesteps: Tensor = self.inner.timesteps
        return timesteps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        """As of the scheduler."""
        self.inner.set_timesteps(sigmas=self.given, **({} if mu is None else {"mu": mu}))


class PipelineDenoiser(Denoiser):
    """A pipeline's network at one size, under one prompt.

    Args:
        model: the pipeline's adapter.
        size: of the pictures, in pixels.
        conditional: the prompt, or None for a model without one.
        unconditional: the empty or negative prompt, where there is guidance.
        guidance_scale: w in unconditional + w (conditional - unconditional).

    Attributes:
        rescale: diffusers' guidance_rescale.
        control: what the pipeline's ControlNets follow, or None.
    """

    def __init__(
        self,
        model: PipelineModel,
        size: Size,
        conditional: Condition | None = None,
        unconditional: Condition | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        super().__init__(model.schedule)
        self.model, self.size, self.codec, self.shape = model, size, model.codec, model.codec.shape(size)
        self.conditional, self.unconditional, self.guidance_scale = conditional, unconditional, guidance_scale
        self.rescale = 0.0
        self.control: Control | None = None
        self._times: Sequence[float] = ()
        self.condition = None if conditional is None else conditional.embeds
        self.step_distilled = model.step_distilled

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """One guided evaluation: one doubled batch, or two calls where the pipeline makes two."""
        kind, rows = self.model.parametrisation, len(x)
        if time.sigma == 0:
            return predict("x0", x, x, time, rows=rows)
        if self.conditional is None or self.unconditional is None:
            under = None if self.conditional is None else self.conditional.rows(rows)
            under = None if under is None else under.called(**asked(self, x, time, under))
            return predict(kind, self._run(x, time, under), x, time, rows)
        under, without = self.conditional.rows(rows), self.unconditional.rows(rows)
        said = asked(self, x, time, under, without)
        if self.model.guidance == "batch":
            both = self._run(torch.cat((x, x)), time, Condition.cat([without, under]).called(**said))
            lower, upper = both.chunk(2)
        else:
            upper, lower = (
                self._run(x, time, one.called(**said), branch) for one, branch in ((under, "cond"), (without, "uncond"))
            )
        conditional, unconditional = (predict(kind, output, x, time) for output in (upper, lower))

        def own(conditional: Prediction, unconditional: Prediction, scale: float) -> Prediction:
            mixed = self.model.mix(conditional, unconditional, scale, time)
            if not self.rescale:
                return mixed
            return self.model.rescaled(mixed, conditional, self.rescale, time)

        pair = Prediction(conditional.x0, conditional.x1, conditional, unconditional, mix=own)
        return self.adjusted(replace(pair.guided(self.guidance_scale), rows=2 * rows), x, time)

    def adjusted(self, guided: Prediction, x: Tensor, time: Time) -> Prediction:
        """What a family adds to the guided prediction."""
        return guided

    def _run(self, x: Tensor, time: Time, condition: Condition | None, branch: str = "cond") -> Tensor:
        with self.model.cache(branch):
            return self.model.run(x, time, condition, self.size).to(x.dtype)

    def tell(self, extras: Mapping[str, Tensor], *, conditional: bool) -> None:
        """Adds to what the network is told under the prompt, or under the negative one if there is any."""
        name = "conditional" if conditional else "unconditional"
        own = getattr(self, name)
        if own is not None:
            setattr(self, name, replace(own, extras={**own.extras, **extras}))

    def placed(
        self, boxes: Sequence[tuple[int, int, int, int]], shapes: Sequence[tuple[int, int]], factor: int
    ) -> PipelineDenoiser:
        if self.control is None:
            return self
        other = copy.copy(self)
        other.control = placed(self, boxes, shapes)
        return other

    def along(self, times: Sequence[float]) -> PipelineDenoiser:
        other = copy.copy(self)
        other._times = tuple(times)
        return other

    def steps_at(self, time: Time) -> tuple[float, float]:
        """The shares of the steps that are over before and after the step at a time; of time itself outside a run."""
        steps = self._times[:-1]
        if not steps:
            return 1 - time.t, 1 - time.t
        over = sum(one > time.t + 1e-9 for one in steps)
        return over / len(steps), (over + 1) / len(steps)

    def modules(self) -> list[torch.nn.Module]:
        return self.model.networks()

    def grid(self, num_inference_steps: int) -> Tensor:
        """The times that the pipeline's own scheduler would take."""
        return self.model.grid(num_inference_steps, self.size)

    def times_of(self, *, timesteps: Sequence[float] | None = None, sigmas: Sequence[float] | None = None) -> Tensor:
        """As `Denoiser.times_of`; sigmas of a flow go through its scheduler, which shifts them."""
        if sigmas is None or not isinstance(self.model.schedule, Flow):
            return super().times_of(timesteps=timesteps, sigmas=sigmas)
        scheduler = _Given(copy_scheduler(self.model.pipe.scheduler), sigmas)
        self.model.set_timesteps(scheduler, len(sigmas), self.size)
        return from_scheduler(scheduler.inner, self.model.schedule)

    def with_condition(self, condition: Tensor) -> Denoiser:
        assert self.conditional is not None
        other = copy.copy(self)
        other.conditional, other.condition = replace(self.conditional, embeds=condition), condition
        return other


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
        return under, self.condition(self.ask(negative_prompt or "", {**own, **shared}))

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
        text = None if self.embeds[0] in given else prompt
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
        return [*super().networks(), *([] if self.controlnet is None else [self.controlnet])]

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


def rescaled(kind: Parametrisation, mixed: Prediction, conditional: Prediction, share: float, time: Time) -> Prediction:
    """The guided output with a share of it scaled to the conditional one's deviation.

    Reference: Lin et al. 2024, Common Diffusion Noise Schedules and Sample Steps are Flawed, arXiv:2305.08891.

    Args:
        kind: of the network's output.
        mixed: guided prediction.
        conditional: of the pair.
        share: diffusers' guidance_rescale.
        time: of both.
    """

    def output(one: Prediction) -> Tensor:
        if kind == "eps":
            return one.x1
        return (
            time.alpha * one.x1 - time.sigma * one.x0 if kind == "v" else one.x1 - one.x0 if kind == "flow" else one.x0
        )

    def spread(value: Tensor) -> Tensor:
        return value.flatten(1).std(1).reshape(-1, *[1] * (value.ndim - 1))

    out = output(mixed)
    factor = share * spread(output(conditional)) / spread(out) + 1 - share
    made = predict(kind, out * factor, time.alpha * mixed.x0 + time.sigma * mixed.x1, time)
    return Prediction(made.x0, made.x1)


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
