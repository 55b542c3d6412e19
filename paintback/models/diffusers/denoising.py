"""A pipeline's network at one size under one prompt: what it is told, and one guided look."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from paintback.denoiser import Denoiser, Parametrisation, Prediction, predict
from paintback.models.diffusers.control import Control, asked, placed
from paintback.models.diffusers.schedulers import Given, copy_scheduler
from paintback.schedules import Flow, Time, from_scheduler

if TYPE_CHECKING:
    from paintback.models.diffusers.base import PipelineModel

__all__ = ["Condition", "PipelineDenoiser", "Size", "rescaled"]

Size = tuple[int, ...]


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
        scheduler = Given(copy_scheduler(self.model.pipe.scheduler), sigmas)
        self.model.set_timesteps(scheduler, len(sigmas), self.size)
        return from_scheduler(scheduler.inner, self.model.schedule)

    def with_condition(self, condition: Tensor) -> Denoiser:
        assert self.conditional is not None
        other = copy.copy(self)
        other.conditional, other.condition = replace(self.conditional, embeds=condition), condition
        return other


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
