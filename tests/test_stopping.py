"""A painting stops before its next evaluation or gradient, in the middle of a step, with the last prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import paintback as pb
from paintback import methods
from paintback.denoiser import Denoiser, Prediction
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
