"""What all methods share: the loop, the fields, the counting of cost, the final paste.

A method is a frozen dataclass with a `step`. Whatever state a run needs beyond x_t lives in the `Run`, so that one
method object serves any number of runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from paintback import stopping
from paintback.denoiser import Codec, Denoiser, Prediction
from paintback.methods.options import check, option
from paintback.observation import LinearOperator, Observation
from paintback.randomness import Generators
from paintback.schedules import Coordinates, Grid, Time, coordinates_of, make_grid

__all__ = ["Callback", "Method", "Result", "Run", "Time", "ancestral_std", "ddim", "option"]

Callback = Callable[[int, float, Tensor, Tensor], "bool | None"]


@dataclass(frozen=True)
class Result:
    """What a run gives back.

    Attributes:
        x: (B, ...) samples in the denoiser's space; known entries are y itself when sigma is 0.
        evaluations: guided denoiser calls per sample, counted.
        vjps: gradients through the denoiser per sample, counted.
        network_rows: rows that the network saw per sample; 2 a call under classifier-free guidance.
        residual: (B,) largest |x - y| over known entries (or |A x - y|) before the final paste.
        stopped: whether the callback ended the run early.
    """

    x: Tensor
    evaluations: int | float
    vjps: int | float
    network_rows: int | float
    residual: Tensor
    stopped: bool = False


class Run:
    """One run of one method: the observation, the noise, the counters.

    Attributes:
        y: (B, ...) observed values, 0 where hidden; for an operator, its output.
        known: (B, ...) bool, True = given; all False where there is an operator.
        sigma: noise of y.
        operator: a linear operator in place of `known`, or None; it takes pictures, which a latent state must be
            decoded to.
        picture: (y, known) as pictures (B, C, H, W), where y is an encoding and the picture was given with it.
        times: the grid.
        codec: of the model.
        condition: the prompt embedding or None.
        initial: clean picture to start from in place of pure noise, of the state's shape, or None.
        memory: whatever a method keeps between steps.
        last: the last prediction.
    """

    def __init__(
        self, denoiser: Denoiser, observation: Observation, times: list[Time], batch: int, noise: Generators
    ) -> None:
        self.denoiser, self.times, self.generators = denoiser, times, noise
        self.codec: Codec = denoiser.codec
        self.condition: Tensor | None = denoiser.condition
        self.sigma = observation.sigma
        self.operator: LinearOperator | None = observation.operator
        self.y = observation.y
        self.known = torch.zeros((), dtype=torch.bool)
        self.picture: tuple[Tensor, Tensor] | None = None
        self.shape: tuple[int, ...] = ()
        self.memory: dict[str, Any] = {}
        self.initial: Tensor | None = None
        self.last: Prediction | None = None
        self.batch = batch
        self._rows = self._vjps = self._network_rows = 0

    def denoise(self, x: Tensor, t: Time) -> Prediction:
        """One evaluation, counted; x is (k B, ...) for k evaluations, a sample's rows next to each other."""
        prediction = self.denoiser(x, t)
        self._rows += len(x)
        self._network_rows += prediction.rows or len(x)
        self.last = prediction
        return prediction

    def linearise(
        self, x: Tensor, t: Time, *, condition: Tensor | None = None, checkpoint: bool = False
    ) -> tuple[Prediction, Callable[[Tensor], Tensor]]:
        """One evaluation and its vector-Jacobian product with respect to x, or to the prompt embedding.

        Args:
            x: (B, ...) states.
            t: their time.
            condition: evaluates under this embedding and differentiates with respect to it in place of x.
            checkpoint: keep no activations but run the model again inside every product: less memory, more time.
                The repeated runs belong to the product and are not counted as evaluations.

        Returns:
            The prediction, and a function v -> (d x0 / d x)^T v, counted at every call; 0 where x0 does not depend
            on x (an eps network at alpha = 0).
        """
        denoiser = self.denoiser
        with torch.enable_grad():
            leaf = (x if condition is None else condition).detach().requires_grad_()
            try:
                if condition is not None:
                    self.denoiser = denoiser.with_condition(leaf)
                if checkpoint:
                    self.denoiser = _Checkpointed(self.denoiser)
                prediction = self.denoise(leaf if condition is None else x.detach(), t)
            finally:
                self.denoiser = denoiser

        def vjp(v: Tensor) -> Tensor:
            stopping.check()
            self._vjps += len(v)
            if not prediction.x0.requires_grad:
                return torch.zeros_like(leaf)
            return torch.autograd.grad(prediction.x0, leaf, v, retain_graph=True, materialize_grads=True)[0]

        detached = dataclasses.replace(prediction, x0=prediction.x0.detach(), x1=prediction.x1.detach())
        self.last = detached
        return detached, vjp

    def noise(self) -> Tensor:
        """Fresh standard normal noise of the state's shape."""
        return self.generators.normal(self.template)

    @property
    def template(self) -> Tensor:
        """A tensor with the state's shape, dtype and device, for its form alone."""
        return self._template

    def bind(self, template: Tensor, known: Tensor, y: Tensor) -> None:
        """Fixes the state's form and the observation in it."""
        self._template, self.known, self.y, self.shape = template, known, y, tuple(template.shape)

    @property
    def cost(self) -> tuple[int | float, int | float, int | float]:
        """Evaluations, gradients and network rows per sample so far."""
        return tuple(_per_sample(count, self.batch) for count in (self._rows, self._vjps, self._network_rows))  # type: ignore[return-value]

    def per_sample(self, values: Tensor) -> Tensor:
        """A (B,) tensor shaped to multiply the state."""
        return values.reshape(-1, *[1] * (len(self.shape) - 1))

    def residual(self, x: Tensor) -> Tensor:
        """(B,) largest deviation from the observation."""
        error = (
            self.operator(self.codec.decode(x)) - self.y if self.operator else torch.where(self.known, x - self.y, 0.0)
        )
        return error.abs().flatten(1).amax(1)


class _Checkpointed(Denoiser):
    """A denoiser whose activations are computed again in the backward pass; it gives the mixed prediction only."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule)
        self.inner = inner

    def predict(self, x: Tensor, time: Time) -> Prediction:
        rows = []

        def call(x: Tensor) -> tuple[Tensor, Tensor]:
            prediction = self.inner.predict(x, time)
            rows.append(prediction.rows)
            return prediction.x0, prediction.x1

        x0, x1 = torch_checkpoint(call, x, use_reentrant=False, preserve_rng_state=False)
        return Prediction(x0, x1, rows=rows[0])


def _per_sample(count: int, batch: int) -> int | float:
    return count // batch if count % batch == 0 else count / batch


@dataclass(frozen=True)
class Method:
    """One published way to sample a picture given an observation. A subclass defines `step`.

    Attributes:
        needs_score: whether it draws by the model's score, which a network with guidance distilled into it lacks.
        coordinates: the coordinates that the run is made in: "vp", "flow" or "edm"; None keeps the model's own,
            except that a variance-exploding model is run in the method's `edm_coordinates`: VP where the method does
            not say otherwise, because there the papers' formulas live.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    takes_operator: ClassVar[bool] = False
    decodes: ClassVar[bool] = False
    needs_vjp: ClassVar[bool] = False
    needs_score: ClassVar[bool] = False
    edm_coordinates: ClassVar[Coordinates] = "vp"

    coordinates: Coordinates | None = option(
        None, "coordinates of the run; none for the model's own", choices=("vp", "flow", "edm")
    )

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            check(self.name, entry, getattr(self, entry.name))

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """The state at s given the state at t; s.sigma > 0."""
        raise NotImplementedError

    def start(self, run: Run) -> Tensor:
        """The state at the first time: noise, around the initial picture where there is one."""
        x = run.noise() * run.times[0].sigma
        return x if run.initial is None else x + run.times[0].alpha * run.initial

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The sample, from the state at the last time above 0: one evaluation."""
        return run.denoise(x_t, t).x0

    def grid(self, denoiser: Denoiser, num_inference_steps: int) -> Grid | None:
        """The times of a run for which none are given: the model's own; None for those uniform in t."""
        return denoiser.grid(num_inference_steps)

    def evaluations(self, num_inference_steps: int) -> int:
        """The documented cost: denoiser evaluations per sample of N grid intervals."""
        return num_inference_steps

    def vjps(self, num_inference_steps: int) -> int:
        """The documented cost: gradients per sample of N grid intervals."""
        return 0

    @torch.no_grad()
    def sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        num_inference_steps: int = 20,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_samples: int | None = None,
        grid: Grid | None = None,
        callback: Callback | None = None,
        *,
        initial: Tensor | None = None,
    ) -> Result:
        """Draws samples of the picture given the observation.

        Args:
            denoiser: the model.
            observation: what is given.
            num_inference_steps: grid intervals N.
            generator: one for the batch, or a list of one per sample; None seeds from the operating system.
            num_samples: batch size when y has no batch axis; 1 by default. When y has one, samples per row of y.
            grid: the times; see `schedules.make_grid`. None for the method's own, which is the model's for most.
            callback: called after every step with (step, t, x, x0), x the new state and x0 the last predicted
                picture; returning True stops the run, whose samples are then x0.
            initial: (B, ...) or event-shaped clean picture that is noised to the first time in place of pure noise.

        Returns:
            The samples and what they cost.

        Raises:
            ValueError: for an observation or grid that does not fit.
            Stopped: if it is stopped before anything was predicted; see `stopping`.
        """
        denoiser = self._in_own_coordinates(denoiser)
        if observation.operator is not None and not self.takes_operator:
            from paintback.methods import types

            others = ", ".join(name for name, kind in types().items() if kind.takes_operator)
            raise ValueError(f"{self.name} takes masks only, no linear operator; methods that take one: {others}.")
        if observation.operator is not None and type(denoiser.codec) is not Codec and not self.decodes:
            from paintback.methods import types

            others = ", ".join(name for name, kind in types().items() if kind.takes_operator and kind.decodes)
            raise ValueError(
                f"{self.name} applies the operator to the model's own space, and this model's is not that of pictures; "
                f"methods that decode: {others}."
            )
        own = self.grid(denoiser, num_inference_steps) if grid is None else grid
        times = make_grid(denoiser.schedule, num_inference_steps, own)
        run = _open_run(denoiser, observation, times, generator, num_samples)
        if initial is not None:
            try:
                run.initial = initial.to(run.template).broadcast_to(run.shape)
            except RuntimeError:
                raise ValueError(
                    f"initial of shape {tuple(initial.shape)} does not fit samples of shape {run.shape}."
                ) from None
        x = self.start(run)
        stopped = False
        try:
            for k, (t, s) in enumerate(zip(times[:-1], times[1:-1], strict=False)):
                x = self.step(run, x, t, s)
                if callback is not None and callback(k, s.t, x, _predicted(run, x)):
                    stopped = True
                    break
            else:
                x = self.finish(run, x, times[-2])
        except stopping.Stopped:
            if run.last is None and run.initial is None:
                raise
            stopped = True
        if stopped:
            x = _predicted(run, x)
        residual = run.residual(x)
        if run.sigma == 0 and run.operator is None:
            x = torch.where(run.known, run.y, x)
        if callback is not None and not stopped:
            callback(len(times) - 2, 0.0, x, x)
        evaluations, vjps, rows = run.cost
        return Result(x, evaluations, vjps, rows, residual, stopped)

    def _in_own_coordinates(self, denoiser: Denoiser) -> Denoiser:
        wanted = self.coordinates
        if wanted is None and coordinates_of(denoiser.schedule) == "edm":
            wanted = self.edm_coordinates
        return denoiser if wanted is None else denoiser.in_coordinates(wanted)


def _predicted(run: Run, x: Tensor) -> Tensor:
    if run.last is None:
        return x if run.initial is None else run.initial
    return run.last.x0[:: len(run.last.x0) // len(x)]


def _open_run(
    denoiser: Denoiser,
    observation: Observation,
    times: list[Time],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    num_samples: int | None,
) -> Run:
    y = observation.y if observation.y.dtype == torch.float64 else observation.y.float()
    batched = observation.is_batched(denoiser.shape)
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1; got {num_samples}.")
    repeats = num_samples or 1
    batch = (len(y) if batched else 1) * repeats
    y = y.repeat_interleave(repeats, dim=0) if batched else y.expand(batch, *y.shape)
    run = Run(denoiser, observation, times, batch, Generators(generator, batch))
    if observation.operator is None:
        known = observation.known
        if known is None:
            known = torch.ones((), dtype=torch.bool)
        elif batched and known.ndim == y.ndim and len(known) > 1:
            known = known.repeat_interleave(repeats, dim=0)
        run.bind(y, known.to(y.device).broadcast_to(y.shape), y)
    else:
        shape = denoiser.shape or observation.operator.pseudo_inverse(y[:1]).shape[1:]
        template = y.new_empty(1).expand(batch, *shape)
        run.bind(template, torch.zeros((), dtype=torch.bool, device=y.device).expand(batch, *shape), y)
    if observation.picture is not None:
        picture = observation.picture.y.to(y)
        seen = torch.ones((), dtype=torch.bool) if observation.picture.known is None else observation.picture.known
        seen = seen.to(y.device).broadcast_to(picture.shape)
        run.picture = tuple(  # type: ignore[assignment]
            part.repeat_interleave(batch // len(part), dim=0) for part in (picture, seen)
        )
    return run


def ancestral_std(t: Time, s: Time) -> float:
    """Standard deviation of the ancestral (DDPM) step: sigma_s sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)."""
    return s.sigma * math.sqrt(max(0.0, 1 - (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2))


def ddim(prediction: Prediction, s: Time, eta: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """The DDIM step to s: alpha_s x0 + sqrt(sigma_s^2 - eta^2) x1 + eta noise (Song et al. 2021, arXiv:2010.02502).

    Args:
        prediction: at t.
        s: the next time.
        eta: standard deviation of the fresh noise, at most sigma_s; `ancestral_std` makes it DDPM's step.
        noise: standard normal, needed where eta > 0.
    """
    x = s.alpha * prediction.x0 + math.sqrt(max(0.0, s.sigma**2 - eta**2)) * prediction.x1
    return x if noise is None or eta == 0 else x + eta * noise
