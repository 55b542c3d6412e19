"""Progress by the plan of a run, its previews, and the uncertainty map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from paintback import methods
from paintback.images import Picture
from paintback.painting.request import Request
from paintback.tasks.inpaint import Inpainter
from paintback.web.preview import Progress, spread


@pytest.fixture(scope="module")
def inpainter() -> Inpainter:
    found = Inpainter.from_pretrained("photo")
    found.set_progress_bar_config(disable=True)
    found.policy = dataclasses.replace(found.policy, widest=32)  # so that small holes have two scales
    return found


def holes(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((200, 200), bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


HOLES = {
    "small": (holes((90, 90, 100, 100)), {}),
    "two scales": (holes((40, 40, 110, 110)), {}),
    "two regions": (holes((2, 2, 10, 10), (180, 180, 190, 190)), {"blur": 2}),
    "border": (holes((0, 150, 200, 200)), {"padding": 16}),
    "strength": (holes((40, 40, 110, 110)), {"strength": 0.5}),
    "thin, whose draw is the mean of several runs": (holes((90, 90, 100, 100)), {"method": None}),
    "draws": (holes((40, 40, 110, 110)), {"average": 3}),
}


def follow(inpainter, mask, request) -> Progress:
    """Runs a request and holds every step against the plan."""
    picture = np.random.default_rng(0).random((200, 200, 3)).astype(np.float32)
    plan = inpainter.plan(picture, mask, request=request)
    steps, progress = [], Progress(1)
    progress.begin_sample(1, plan)

    def step(inpainter, index, t, state) -> None:
        steps.append(index)
        progress.took_step(inpainter, index, state["x0"])
        stage = progress.runs[progress._run][0]
        assert state["x0"].shape[-2:] == stage.size

    output = inpainter(picture, mask, request=request, callback_on_step_end=step)
    assert steps == [index for stage, _ in progress.runs for index in range(stage.steps)]
    assert progress.fraction == pytest.approx(1) and progress.left == pytest.approx(0, abs=1e-6)
    assert progress.step == progress.steps == plan.steps == len(steps)
    assert progress.view is not None
    assert output.evaluations == plan.evaluations
    return progress


@pytest.mark.parametrize("case", HOLES)
def test_the_plan_is_what_the_inpainter_does(inpainter, case) -> None:
    mask, more = HOLES[case]
    follow(inpainter, mask, Request.parse({"method": "ddnm", "steps": 4, "seed": 0, **more}))


QUICK = {"ding", "ddnm", "lanpaint", "fmm", "dps"}  # the others are slow


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in methods.names()]
)
def test_every_method_runs_the_steps_that_were_planned(inpainter, name) -> None:
    """The hole is wide, so that a finer scale follows, whose grid is a part of the method's own."""
    progress = follow(inpainter, holes((82, 82, 118, 118)), Request.parse({"method": name, "steps": 3, "seed": 0}))
    assert len(progress.runs) == 2


def test_uncertainty_is_the_deviation_over_the_samples() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    low, high = (np.full((4, 4, 3), value, np.uint8) for value in (100, 151))
    high[1, 1] = 100
    made, largest = spread([Picture(low), Picture(high)], mask)
    assert largest == pytest.approx(51 / 255 / 2**0.5, rel=1e-3)
    assert made.alpha is not None and (made.alpha == np.where(mask, 255, 0)).all()
    assert made.pixels[1, 1].tolist() == [0, 0, 4]  # dark: sure
    assert made.pixels[2, 2].tolist() == [252, 255, 164]  # bright: not
