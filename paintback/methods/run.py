"""One run of one method: the observation as the method sees it, the looks at the model, the noise, the counters.

A `Run` is whole from its first line on: everything in it follows from the denoiser, the observation, the grid and the
generator that it is made of. README.md, beside this file, says what a method may use and keep.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from paintback import stopping
from paintback.denoiser import Codec, Denoiser, Prediction, network_dtype, not_finite
from paintback.observation import LinearOperator, Observation
from paintback.randomness import Generators
from paintback.schedules import Time, whole

__all__ = ["Run"]


class Run:
    """One run of one method.

    Args:
        denoiser: the model, in the coordinates of the run.
        observation: what is given.
        times: the grid.
        generator: one for the batch, or a list of one per sample; None seeds from the operating system.
        num_samples: batch size where y has no batch axis, else samples per row of y; 1 by default.
        initial: (B, ...) or event-shaped clean picture to start from in place of pure noise.

    Attributes:
        y: (B, ...) observed values, 0 where hidden; for an operator, its output.
        known: (B, ...) bool, True = given; all False where there is an operator.
        sigma: noise of y.
        operator: a linear operator in place of `known`, or None; it takes pictures, which a latent state must be
            decoded to.
        picture: (y, known) as pictures (B, C, H, W), where y is an encoding and the picture was given with it.
        times: the grid.
        batch: B.
        shape: (B, ...) of the state.
        template: a tensor with the state's shape, dtype and device, for its form alone.
        codec: of the model.
        condition: the prompt embedding or None.
        initial: clean picture to start from in place of pure noise, of the state's shape, or None.
        memory: whatever a method keeps between steps.
        answer: (k B, ...) the picture as the method would give it back now: the last look's x0, but for looks that are
            probes, or what the method put there; None before the first look.
        modules: the torch modules that a step may run: the network's, and the codec's.
        missed: (B,) largest deviation of the samples from the observation before the final paste; NaN until then.

    Raises:
        ValueError: for an observation, a number of samples or an initial picture that does not fit.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        observation: Observation,
        times: Sequence[Time],
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_samples: int | None = None,
        *,
        initial: Tensor | None = None,
    ) -> None:
        repeats = 1 if num_samples is None else whole("num_samples", num_samples)
        self.denoiser, self.times = denoiser.along([one.t for one in times]), list(times)
        self.codec: Codec = denoiser.codec if type(denoiser.codec) is Codec else _Watched(denoiser.codec, self)
        self.condition: Tensor | None = None if denoiser.condition is None else usual(denoiser.condition)
        self.sigma = observation.sigma
        self.operator: LinearOperator | None = observation.operator
        self.memory: dict[str, Any] = {}
        self.answer: Tensor | None = None
        self.modules = [*denoiser.modules(), *denoiser.codec.modules()]
        self._rows = self._vjps = self._network_rows = 0
        self._graph: list[Tensor] = []
        self._doubts: list[tuple[str, Tensor]] = []

        y = usual(observation.y)
        y = y if y.dtype == torch.float64 else y.float()
        batched = observation.is_batched(denoiser.shape)
        self.batch = batch = (len(y) if batched else 1) * repeats
        self.y = y.repeat_interleave(repeats, dim=0) if batched else y.expand(batch, *y.shape)
        self.generators = Generators(generator, batch)
        self.missed = self.y.new_full((batch,), math.nan)
        if self.operator is None:
            self.template, known = self.y, observation.known
            if known is None:
                known = torch.ones((), dtype=torch.bool)
            elif batched and known.ndim == y.ndim and len(known) > 1:
                known = known.repeat_interleave(repeats, dim=0)
        else:
            event = denoiser.shape or self.operator.pseudo_inverse(self.y[:1]).shape[1:]
            self.template, known = self.y.new_empty(1).expand(batch, *event), torch.zeros((), dtype=torch.bool)
        self.known = usual(known).to(y.device).broadcast_to(self.template.shape)
        self.picture = None if observation.picture is None else self._repeated(observation.picture)
        self.initial = None if initial is None else self._fitted(initial)

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, ...) of the state."""
        return tuple(self.template.shape)

    def give(self, y: Tensor, known: Tensor) -> None:
        """Replaces what is given, in as many rows as a method wants to look at together.

        Args:
            y: (rows, ...) values; those hidden are dropped.
            known: bool, of a shape that fits y.
        """
        self.known = known.broadcast_to(y.shape)
        self.template, self.y = y, torch.where(self.known, y, 0.0)

    def denoise(self, x: Tensor, t: Time, *, probe: bool = False) -> Prediction:
        """One evaluation, counted.

        Args:
            x: (k B, ...) states for k evaluations, a sample's rows next to each other.
            t: their time.
            probe: whether the look serves a purpose of its own (a difference, a proxy), so that its picture is not
                the method's answer so far.

        Raises:
            ValueError: if the prediction of a finite state is not finite.
        """
        prediction = self.denoiser(x, t)
        self._rows += len(x)
        self._network_rows += prediction.rows or len(x)
        if not probe:
            self.answer = prediction.x0.detach()
        self.expect_finite(prediction.x0, x, f"The network's prediction at t = {t.t:.3g}")
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
            The prediction, and a function v -> (d x0 / d x)^T v, counted at every call; 0 at alpha = 0 where x0 does
            not depend on x (an eps network's). It lives until the next `linearise` of the run, which frees its graph.

        Raises:
            ValueError: if no gradient passes through the model elsewhere.
        """
        self._graph.clear()
        self._graph = graph = []
        denoiser = self.denoiser
        x, leaf = usual(x), usual(x if condition is None else condition).detach()
        with torch.inference_mode(False), torch.enable_grad(), self.held_still():
            leaf = leaf.requires_grad_()
            try:
                if condition is not None:
                    self.denoiser = denoiser.with_condition(leaf)
                if checkpoint:
                    self.denoiser = _Checkpointed(self.denoiser)
                prediction = self.denoise(leaf if condition is None else x.detach(), t)
            except RuntimeError as error:
                if "Inference tensors cannot be saved for backward" not in str(error):
                    raise
                raise ValueError(
                    "The model's weights or prompts were made inside torch.inference_mode(), where no gradient can "
                    "pass; load the model and make its prompts outside of it, or take a method without gradients."
                ) from error
            finally:
                self.denoiser = denoiser
        if prediction.x0.requires_grad:
            graph.append(prediction.x0)
        elif t.alpha:
            raise ValueError(
                "This method takes gradients through the model, and the model's prediction has none; "
                "run its network without torch.no_grad(), inference_mode() or detach()."
            )
        # nothing but the graph of x0 itself is kept: the pair of guidance would keep both halves' graphs
        at_x, depends = prediction.detach(), bool(graph)
        del prediction

        def vjp(v: Tensor) -> Tensor:
            stopping.check()
            self._vjps += len(v)
            if not depends:
                return torch.zeros_like(leaf)
            if not graph:
                raise RuntimeError("The graph of this look is gone: a later linearise of the same run has freed it.")
            with torch.inference_mode(False), torch.no_grad(), self.held_still():
                product = torch.autograd.grad(graph[0], leaf, usual(v), retain_graph=True, materialize_grads=True)[0]
            self.expect_finite(product, v, f"The gradient through the network at t = {t.t:.3g}")
            return product

        return at_x, vjp

    @contextlib.contextmanager
    def held_still(self) -> Iterator[None]:
        """No weight of the model asks for a gradient meanwhile, as those of a pipeline just loaded do."""
        loose = [weight for module in self.modules for weight in module.parameters() if weight.requires_grad]
        for weight in loose:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in loose:
                weight.requires_grad_()

    def expect_finite(self, made: Tensor, given: Tensor, what: str) -> None:
        """Raises where finite numbers became others: at once on a CPU, else at the end of the run (`settle`).

        Args:
            made: what came out.
            given: what went in.
            what: that came out, for the sentence.

        Raises:
            ValueError: saying what, and the likely cause.
        """
        made, given = made.detach(), given.detach()
        if made.device.type == "cpu":
            if not bool(made.isfinite().all()) and bool(given.isfinite().all()):
                raise ValueError(not_finite(what, network_dtype(self.denoiser)))
            return
        self._doubts.append((what, ~made.isfinite().all() & given.isfinite().all()))

    def settle(self) -> None:
        """Raises for the first of the checks that were put off so as not to wait for the device in between."""
        doubts, self._doubts = self._doubts, []
        if doubts:
            wrong = torch.stack([flag for _, flag in doubts]).tolist()
            if any(wrong):
                raise ValueError(not_finite(doubts[wrong.index(True)][0], network_dtype(self.denoiser)))

    def noise(self) -> Tensor:
        """Fresh standard normal noise of the state's shape."""
        return self.generators.normal(self.template)

    @property
    def cost(self) -> tuple[int | float, int | float, int | float]:
        """Evaluations, gradients and network rows per sample so far."""
        return tuple(_per_sample(count, self.batch) for count in (self._rows, self._vjps, self._network_rows))  # type: ignore[return-value]

    @property
    def so_far(self) -> Tensor | None:
        """(B, ...) what the method would give back now, of several rows of a sample the first; else the start."""
        return self.initial if self.answer is None else self.answer[:: len(self.answer) // self.batch]

    def per_sample(self, values: Tensor) -> Tensor:
        """A (B,) tensor shaped to multiply the state."""
        return values.reshape(-1, *[1] * (len(self.shape) - 1))

    def residual(self, x: Tensor) -> Tensor:
        """(B,) largest deviation from the observation."""
        error = (
            self.operator(self.codec.decode(x)) - self.y if self.operator else torch.where(self.known, x - self.y, 0.0)
        )
        return error.abs().flatten(1).amax(1)

    def close(self, x: Tensor) -> Tensor:
        """The samples: how far they are from the observation is kept, then a noiseless y is pasted in.

        Raises:
            ValueError: for numbers on the way that are not finite, where that was not said before.
        """
        self.settle()
        self.missed = self.residual(x)
        return torch.where(self.known, self.y, x) if self.sigma == 0 and self.operator is None else x

    def _repeated(self, picture: Observation) -> tuple[Tensor, Tensor]:
        """A picture given beside its encoding, and what is known of it, in B rows."""
        values = usual(picture.y).to(self.y)
        known = torch.ones((), dtype=torch.bool) if picture.known is None else usual(picture.known)
        known = known.to(values.device).broadcast_to(values.shape)
        repeats = self.batch // len(values)
        return values.repeat_interleave(repeats, dim=0), known.repeat_interleave(repeats, dim=0)

    def _fitted(self, initial: Tensor) -> Tensor:
        try:
            return usual(initial).to(self.template).broadcast_to(self.shape)
        except RuntimeError:
            raise ValueError(
                f"initial of shape {tuple(initial.shape)} does not fit samples of shape {self.shape}."
            ) from None


class _Watched(Codec):
    """A codec whose numbers are checked by the run, which does not wait for the device to do so."""

    def __init__(self, inner: Codec, run: Run) -> None:
        self.inner, self.run, self.factor = inner, run, inner.factor

    def encode(self, picture: Tensor) -> Tensor:
        return self._checked("encode", picture)

    def decode(self, x: Tensor) -> Tensor:
        return self._checked("decode", x)

    def share_known(self, known: Tensor) -> Tensor:
        return self.inner.share_known(known)

    def modules(self) -> list[torch.nn.Module]:
        return self.inner.modules()

    def _checked(self, name: str, x: Tensor) -> Tensor:
        convert = getattr(type(self.inner), name)
        out: Tensor = getattr(convert, "__wrapped__", convert)(self.inner, x)  # without the check that waits
        self.run.expect_finite(out, x, f"What the VAE {name}d")
        return out


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


def usual(x: Tensor) -> Tensor:
    """The tensor itself, or its copy where it was made inside torch.inference_mode(), which autograd refuses."""
    if not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()


def _per_sample(count: int, batch: int) -> int | float:
    return count // batch if count % batch == 0 else count / batch
