"""A painting stops before its next evaluation or gradient, in the middle of a step, with the last prediction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

import paintback as pb
from paintback import methods
from paintback.denoiser import Denoiser, Prediction
from paintback.models.base import Told
from paintback.models.latent import LatentCodec, LatentModel
from paintback.observation import Observation
from paintback.priors import GaussianMixture
from paintback.schedules import Flow
from paintback.stopping import Stopped, stoppable
from paintback.tasks.inpaint import Inpainter


class Counting(Denoiser):
    """Counts the evaluations that really began."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule)
        self.inner, self.shape, self.calls = inner, inner.shape, 0

    def predict(self, x: torch.Tensor, time: pb.schedules.Time) -> Prediction:
        self.calls += 1
        return self.inner.predict(x, time)


def case() -> tuple[Counting, Observation]:
    prior = GaussianMixture(torch.zeros(2, 4), torch.eye(4).expand(2, 4, 4).clone(), torch.tensor([0.3, 0.7]))
    observation = Observation(torch.tensor([0.5, 0.0, 0.0, 0.0]), torch.tensor([True, False, False, False]))
    return Counting(prior.denoiser(Flow())), observation


@pytest.mark.parametrize("name", ["lanpaint", "fmm", "daps", "dps", "repaint", "ddnm"])
def test_no_evaluation_begins_once_it_is_to_stop(name) -> None:
    denoiser, observation = case()
    for most in (1, 4, 9):
        denoiser.calls = 0
        with stoppable(lambda: denoiser.calls >= most):  # noqa: B023 - called within the loop's turn
            result = methods.get(name).sample(denoiser, observation, 20, torch.Generator().manual_seed(0))
        assert denoiser.calls == most
        assert result.stopped and result.evaluations == most and torch.isfinite(result.x).all()
        assert result.x[0, 0] == 0.5


def test_gradients_stop_too() -> None:
    denoiser, observation = case()
    asked = 0

    def at_the_second() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1

    with stoppable(at_the_second):
        result = methods.get("dps").sample(denoiser, observation, 20, torch.Generator().manual_seed(0))
    assert (result.evaluations, result.vjps) == (1, 0)


def test_before_the_first_prediction_there_is_nothing_to_show() -> None:
    denoiser, observation = case()
    with stoppable(lambda: True), pytest.raises(Stopped):
        methods.get("ddnm").sample(denoiser, observation, 20)
    assert denoiser.calls == 0
    methods.get("ddnm").sample(denoiser, observation, 2)  # nobody asks any more
    assert denoiser.calls == 2


def test_a_picture_keeps_what_was_painted_and_the_rest_stays() -> None:
    inpainter = Inpainter.from_pretrained("photo")
    inpainter.set_progress_bar_config(disable=True)
    picture = np.random.default_rng(0).random((200, 200, 3)).astype(np.float32)
    mask = np.zeros((200, 200), bool)
    mask[5:12, 5:12] = mask[180:190, 180:190] = True
    steps = 0

    def step(*_: object) -> None:
        nonlocal steps
        steps += 1

    def paint(most: int):
        nonlocal steps
        steps = 0
        with stoppable(lambda: steps >= most):
            return inpainter(picture, mask, method="ddnm", num_inference_steps=3, output_type="np",
                             generator=torch.Generator().manual_seed(0), callback_on_step_end=step)  # fmt: skip

    whole, half = paint(99), paint(3)  # the second region is never begun
    assert not whole.stopped and half.stopped and (whole.evaluations, half.evaluations) == (6, 3)
    first, second = mask.copy(), mask.copy()
    first[100:], second[:100] = False, False
    if (half.images[0][first] != whole.images[0][first]).any():  # which region comes first is not ours to say
        first, second = second, first
    assert (half.images[0][first] == whole.images[0][first]).all()
    assert np.abs(half.images[0][second] - picture[second]).max() < 1e-6


# ---------------------------------------------------------------------------------------------- in several batches


SIDES = (24, 24)
HIDDEN = np.zeros(SIDES, bool)
HIDDEN[6:18, 6:18] = True


@dataclass(frozen=True)
class Latent(LatentModel):
    """Latents that are pixels, of which `LatentModel`s' way of painting knows nothing."""

    own: Denoiser = field(kw_only=True)

    def denoiser_at(self, size: tuple[int, ...], told: Told) -> Denoiser:
        return self.own


class Same(LatentCodec):
    factor, channels = 1, 3

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        return picture

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x


def painter(kind: str, rows: int, widest: int = 64) -> tuple[Inpainter, list[int]]:
    """An Inpainter that paints so many rows at once, and the rows of every evaluation."""
    looks: list[int] = []

    def network(x: torch.Tensor, clock: torch.Tensor) -> torch.Tensor:
        looks.append(len(x))
        return 0.9 * x

    own = Inpainter.from_network(network, parametrisation="epsilon", schedule=pb.schedules.VP(), size=24)
    if kind == "latents":
        shared = {name: getattr(own.model, name) for name in ("channels", "multiple", "network", "device", "dtype")}
        shared |= {"size": None, "training_size": 24, "codec": Same(), "own": own.model.denoiser()}
        own = Inpainter(Latent(name="latent", **shared))
    own.set_progress_bar_config(disable=True)
    own.policy = replace(own.policy, batch_pixels=rows * 24 * 24, widest=widest, context=8)
    looks.clear()
    return own, looks


def stopped_after(most: int, own: Inpainter, looks: list[int], pictures, **call):
    with stoppable(lambda: len(looks) >= most):
        out = own(pictures, HIDDEN, method="ddnm", num_inference_steps=3, output_type="np", **call)
    assert len(looks) == most and out.stopped
    return out


@pytest.mark.parametrize("kind", ["pixels", "latents"])
@pytest.mark.parametrize("most", [3, 4])
def test_batches_that_are_done_are_kept(kind, most) -> None:
    picture = np.random.default_rng(0).random((*SIDES, 3)).astype(np.float32)
    own, looks = painter(kind, 2)
    call = {"num_images_per_prompt": 4, "generator": [0, 1, 2, 3]}
    whole = own(picture, HIDDEN, method="ddnm", num_inference_steps=3, output_type="np", **call)
    assert looks == [2] * 6 and not whole.stopped
    looks.clear()
    out = stopped_after(most, own, looks, picture, **call)
    assert np.array_equal(out.images[:2], whole.images[:2])
    # what was not come to looks like the last that was; the rest has its own last prediction
    assert np.array_equal(out.images[2], out.images[1]) == np.array_equal(out.images[3], out.images[1]) == (most == 3)
    looks.clear()
    mean = stopped_after(most, own, looks, picture, average=4, generator=0)
    assert np.abs(mean.images[0] - picture)[HIDDEN].min() > 0
    assert np.array_equal(mean.images[0][~HIDDEN], picture[~HIDDEN])


def test_a_callback_that_stops_ends_the_batches_too() -> None:
    own, looks = painter("pixels", 2)

    def stop(inpainter: Inpainter, *_: object) -> None:
        inpainter.interrupt = True

    out = own(np.zeros((*SIDES, 3), np.float32), HIDDEN, method="ddnm", num_inference_steps=3, average=4, generator=0,
              callback_on_step_end=stop)  # fmt: skip
    assert out.stopped and looks == [2]


def test_rows_that_were_not_come_to_stay_as_the_coarser_scale_has_them() -> None:
    picture = np.random.default_rng(0).random((*SIDES, 3)).astype(np.float32)
    own, looks = painter("pixels", 2, widest=6)
    call = {"num_images_per_prompt": 4, "generator": [0, 1, 2, 3]}
    plan = own.plan(picture, HIDDEN, method="ddnm", num_inference_steps=3)
    coarse, fine = plan.stages
    assert (coarse.factor, fine.factor) == (2, 1)
    out = stopped_after(coarse.steps + fine.steps, own, looks, picture, **call)
    assert looks == [4] * coarse.steps + [2] * fine.steps
    assert len({one.tobytes() for one in out.images}) == 4


@pytest.mark.parametrize("kind", ["pixels", "latents"])
@pytest.mark.parametrize("together", [1, 2])
def test_pictures_that_were_not_begun_stay_as_they_were_given(kind, together) -> None:
    pictures = list(np.random.default_rng(0).random((2, *SIDES, 3)).astype(np.float32))
    own, looks = painter(kind, 8)
    out = stopped_after(3, own, looks, pictures, quality="best", generator=[0, 1], batch_size=together)
    assert np.abs(out.images[0] - pictures[0])[HIDDEN].min() > 0
    assert np.abs(out.images[1] - pictures[1]).max() < 1e-6
