"""The plan of a run, its progress, and the uncertainty map."""

from __future__ import annotations

import numpy as np
import pytest

from paintback.batch.job import Job, chosen_method
from paintback.images import Picture
from paintback.tasks.inpaint import Inpainter
from paintback.web.preview import Progress, plan, spread


@pytest.fixture(scope="module")
def inpainter() -> Inpainter:
    found = Inpainter.from_pretrained("photo")
    found.set_progress_bar_config(disable=True)
    return found


def holes(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((200, 200), bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "blur"),
    [
        (holes((90, 90, 100, 100)), 0),
        (holes((40, 40, 110, 110)), 0),
        (holes((2, 2, 10, 10), (180, 180, 190, 190)), 2),
        (holes((0, 150, 200, 200)), 0),
    ],
    ids=["small", "two scales", "two regions", "border"],
)
def test_the_plan_is_what_the_inpainter_does(inpainter, mask, blur) -> None:
    job = Job(photo="", mask=None, method="ddnm", fields={}, steps=3, blur=blur)
    stages = plan(inpainter, job, mask)
    steps, progress = [], Progress(1)
    progress.begin_sample(1, stages)

    def step(inpainter, index, t, state) -> None:
        steps.append(index)
        progress.took_step(inpainter, index, state["x0"])
        stage = stages[progress._stage]
        factor = round(stage.box.height / state["x0"].shape[-2])
        assert state["x0"].shape[-2:] == (stage.box.height // factor, stage.box.width // factor)

    picture = np.random.default_rng(0).random((200, 200, 3)).astype(np.float32)
    inpainter(picture, mask, method=chosen_method(job), num_inference_steps=3, mask_blur=blur,
              callback_on_step_end=step)  # fmt: skip
    assert steps == [index for stage in stages for index in range(stage.steps)]
    assert progress.fraction == pytest.approx(1) and progress.left == pytest.approx(0, abs=1e-6)
    assert progress.step == progress.steps == len(steps)
    assert progress.view is not None


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
