"""What all methods share: the fields, the loop, the final paste.

A method is a frozen dataclass with a `step`. Whatever a run needs beyond x_t lives in its `Run`, so that one method
object serves any number of runs. README.md, beside this file, is the contract of a step.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from paintback import stopping
from paintback.denoiser import Codec, Denoiser
from paintback.methods.options import check, option
from paintback.methods.run import Run, usual
from paintback.methods.solvers import ancestral_std, ddim
from paintback.observation import Observation
from paintback.schedules import GRIDS, Coordinates, Grid, Time, coordinates_of, make_grid

__all__ = [
    "FAMILIES",
    "Callback",
    "Family",
    "Method",
    "Result",
    "Run",
    "State",
    "Time",
    "ancestral_std",
    "ddim",
    "option",
]

Family = Literal["posterior", "projection", "replacement", "langevin", "gradients"]
FAMILIES: dict[Family, tuple[str, str]] = {  # what people call it, and in plain words what its methods do
    "posterior": ("Posterior steps", "Each step is drawn from an estimate of what fits the known part."),
    "projection": (
        "Corrected predictions",
        "What the model predicts is corrected until it agrees with the known part.",
    ),
    "replacement": ("Replacement", "The known part is put back after every step, and the hole follows it."),
    "langevin": ("Langevin", "Many small noisy steps let the hole settle into its surroundings; slower."),
    "gradients": ("Gradients", "The picture follows gradients through the model; slower, and takes more memory."),
}
FAINT = 3.0  # noise level sigma / alpha below which pure noise is no likely state of any picture
Callback = Callable[[int, float, Tensor, Tensor], "bool | Tensor | None"]


class State(NamedTuple):
    """Where a run is after one of its steps.

    Attributes:
        step: index of the step, from 0 to N - 1.
        t: the time that it came to; 0 for the last one.
        x: (B, ...) the state there; for the last one, the samples.
        x0: (B, ...) what the method would answer now.
    """

    step: int
    t: float
    x: Tensor
    x0: Tensor


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


@dataclass(frozen=True)
class Method:
    """One published way to sample a picture given an observation. A subclass defines `step`.

    Attributes:
        differences: whether it takes small differences of predictions, which 16 bits round away.
        family: of `FAMILIES`, by which lists of methods are ordered; None for one of its own.
        needs_score: whether it draws by the model's score, which a network with guidance distilled into it lacks.
        takes_draws: whether it takes the model's picture for a draw, as that of a step-distilled model is, and no mean.
        coordinates: the coordinates that the run is made in: "vp", "flow" or "edm"; None keeps the model's own,
            except that a variance-exploding model is run in the method's `edm_coordinates`: VP where the method does
            not say otherwise, because there the papers' formulas live.
        times: the grid of a run for which none is given: one of `schedules.GRIDS` by its name; "own" for the method's,
            which is the model's for most.

    Raises:
        ValueError: for a field of a wrong kind or out of its range.
    """

    name: ClassVar[str]
    family: ClassVar[Family | None] = None
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    takes_operator: ClassVar[bool] = False
    decodes: ClassVar[bool] = False
    needs_vjp: ClassVar[bool] = False
    needs_score: ClassVar[bool] = False
    differences: ClassVar[bool] = False
    takes_draws: ClassVar[bool] = False
    edm_coordinates: ClassVar[Coordinates] = "vp"

    coordinates: Coordinates | None = option(
        None, "coordinates of the run; none for the model's own", choices=("vp", "flow", "edm")
    )
    _: dataclasses.KW_ONLY
    times: str = option("own", "times of the run; own for the method's or the model's", choices=tuple(GRIDS))

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, check(self.name, entry, getattr(self, entry.name)))

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """The state at s given the state at t; s.sigma > 0."""
        raise NotImplementedError

    def start(self, run: Run) -> Tensor:
        """The state at the first time: noise, around the initial picture where there is one."""
        first = run.times[0]
        x = run.noise() * first.sigma
        if run.initial is not None:
            return x + first.alpha * run.initial
        if first.ratio < FAINT and first.t < 1:
            warnings.warn(
                f"The grid starts at noise level {first.ratio:.3g}, where a state still shows its picture, and this "
                f"run starts from noise alone; give initial= (strength= of an Inpainter), or start above {FAINT:g}.",
                stacklevel=2,
            )
        return x

    def finish(self, run: Run, x_t: Tensor, t: Time) -> Tensor:
        """The sample, from the state at the last time above 0: one evaluation."""
        return run.denoise(x_t, t).x0

    def grid(self, denoiser: Denoiser, num_inference_steps: int) -> Grid | None:
        """The method's own times: the model's; None for those uniform in t."""
        return denoiser.grid(num_inference_steps)

    def default_grid(self, denoiser: Denoiser, num_inference_steps: int) -> Grid | None:
        """The times of a run for which none are given: those of the field `times`."""
        return self.grid(denoiser, num_inference_steps) if self.times == "own" else GRIDS[self.times]

    def evaluations(self, num_inference_steps: int) -> int:
        """The documented cost: denoiser evaluations per sample of N grid intervals."""
        return num_inference_steps

    def vjps(self, num_inference_steps: int) -> int:
        """The documented cost: gradients per sample of N grid intervals."""
        return 0

    @torch.inference_mode(False)
    @torch.no_grad()
    def open(
        self,
        denoiser: Denoiser,
        observation: Observation,
        num_inference_steps: int = 20,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_samples: int | None = None,
        grid: Grid | None = None,
        *,
        initial: Tensor | None = None,
    ) -> Run:
        """The run before its first step; arguments and errors are those of `sample`."""
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
        own = self.default_grid(denoiser, num_inference_steps) if grid is None else grid
        times = make_grid(denoiser.schedule, num_inference_steps, own)
        return Run(denoiser, observation, times, generator, num_samples, initial=initial)

    def iterate(
        self,
        denoiser: Denoiser,
        observation: Observation,
        num_inference_steps: int = 20,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_samples: int | None = None,
        grid: Grid | None = None,
        *,
        initial: Tensor | None = None,
    ) -> Iterator[State]:
        """The states of a run, one after every step, as they are made; whoever has seen enough stops asking.

            for step, t, x, x0 in method.iterate(denoiser, observation):
                show(x0)

        The arguments and errors are those of `sample`. The last state is the finished one: t = 0, and x = x0 are the
        samples.
        """
        run = self.open(
            denoiser, observation, num_inference_steps, generator, num_samples, grid, initial=initial
        )  # here, so that what does not fit is said before the first state is asked for
        return self.states(run)

    @torch.inference_mode(False)
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
            grid: the times; see `schedules.make_grid`. None for those of the field `times`.
            callback: called after every step with (step, t, x, x0), x the new state and x0 what the method would
                answer now; returning True stops the run, whose samples are then x0; a tensor of x's shape that it
                returns is the state that the run goes on from.
            initial: (B, ...) or event-shaped clean picture that is noised to the first time in place of pure noise.

        Returns:
            The samples and what they cost.

        Raises:
            ValueError: for an observation or grid that does not fit.
            Stopped: if it is stopped before anything was predicted; see `stopping`.
        """
        run = self.open(denoiser, observation, num_inference_steps, generator, num_samples, grid, initial=initial)
        stopped = False
        states, told = self.states(run), None
        try:
            while (state := states.send(told)) is not None:
                answer = None if callback is None else callback(*state)
                told = answer if isinstance(answer, Tensor) else None
                x, stopped = state.x0, told is None and bool(answer) and state.t > 0
                if stopped or state.t == 0:
                    break
        except stopping.Stopped:
            if run.so_far is None:
                raise
            x, stopped = run.so_far, True
        return Result(run.close(x) if stopped else x, *run.cost, run.missed, stopped)

    @torch.inference_mode(False)
    @torch.no_grad()
    def states(self, run: Run) -> Generator[State, Tensor | None, None]:
        """The loop that all methods share: the states of a run that `open` has made.

        It goes on from the state that is sent to it, where one is.
        """
        x = self.start(run)
        for k, (t, s) in enumerate(zip(run.times[:-1], run.times[1:-1], strict=False)):
            x = self.step(run, x, t, s)
            moved = yield State(k, s.t, x, x if run.so_far is None else run.so_far)
            x = x if moved is None else usual(moved).to(x)
        x = run.close(self.finish(run, x, run.times[-2]))
        yield State(len(run.times) - 2, 0.0, x, x)

    def _in_own_coordinates(self, denoiser: Denoiser) -> Denoiser:
        wanted = self.coordinates
        if wanted is None and coordinates_of(denoiser.schedule) == "edm":
            wanted = self.edm_coordinates
        return denoiser if wanted is None else denoiser.in_coordinates(wanted)
