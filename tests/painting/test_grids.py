"""`timesteps`, `sigmas` and `grid`: the levels that a user names are those that run."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.models.diffusers import from_pipe
from paintback.tasks.inpaint import Inpainter
from tests.models import tiny_pipelines as tiny
from tests.tasks.test_inpaint import tiny_model


def hole(side: int = 64) -> np.ndarray:
    made = np.zeros((side, side), bool)
    made[20:32, 20:32] = True
    return made


def times(inpainter: Inpainter, **asked) -> list[float]:
    """The times that a run's callback is told of."""
    seen: list[float] = []
    inpainter.set_progress_bar_config(disable=True)
    picture = np.zeros((64, 64, 3), np.float32)
    kept = {"method": "ddnm", "generator": 0}
    out = inpainter(picture, hole(), callback_on_step_end=lambda _, k, t, __: seen.append(t), **kept, **asked)
    assert out.evaluations == inpainter.plan(picture, hole(), **kept, **asked).evaluations == len(seen)
    return seen


@pytest.fixture(scope="module")
def sd3():
    return tiny.build("sd3")


def test_the_schedulers_sigmas_are_the_pipelines(sd3) -> None:
    given = [1.0, 0.75, 0.5, 0.2]
    scheduler = type(sd3.scheduler).from_config(sd3.scheduler.config)
    scheduler.set_timesteps(sigmas=given)
    own = from_pipe(sd3).denoiser("fox").times_of(sigmas=given)
    torch.testing.assert_close(own[:-1], scheduler.sigmas[:-1].double(), atol=1e-6, rtol=0)
    dynamic = copy.copy(sd3)
    dynamic.scheduler = type(sd3.scheduler).from_config(sd3.scheduler.config, use_dynamic_shifting=True)
    assert float((from_pipe(dynamic).denoiser("fox").times_of(sigmas=given) - own).abs().max()) > 0.01


def test_flow_timesteps_are_what_the_network_is_told(sd3) -> None:
    torch.testing.assert_close(
        from_pipe(sd3).denoiser("fox").times_of(timesteps=[1000, 700, 250]), torch.tensor([1, 0.7, 0.25, 0]).double()
    )


def test_they_reach_the_run() -> None:
    ddpm = Inpainter.from_pipe(tiny.build("sd15"))
    asked = [999, 600, 200, 20]
    wanted = [0.601, 0.201, 0.021, 0.0]
    for given in (asked, np.array(asked), torch.tensor(asked), "999,600,200,20"):
        assert ddpm.model.schedule.num_train_timesteps == 1000
        plan = ddpm.plan(np.zeros((64, 64, 3)), hole(), timesteps=given, method="ddnm")
        assert plan.stages[0].grid == pytest.approx([1.0, *wanted])
    assert len(times(ddpm, timesteps=asked)) == 4
    pixels = Inpainter(tiny_model(), policy=pb.Policy(widest=64, context=8))
    schedule = pixels.model.denoiser().schedule
    found = times(pixels, sigmas=[80, 5, 1, 0.1])
    assert [schedule.at(t).ratio for t in found[:-1]] == pytest.approx([5, 1, 0.1], rel=1e-3)
    assert times(pixels, grid=[1, 0.5, 0.25]) == [0.5, 0.25, 0.0]
    assert times(pixels, grid="uniform", num_inference_steps=4) == pytest.approx([0.75, 0.5, 0.25, 0])
    karras, logs = (times(pixels, grid=name, num_inference_steps=4) for name in ("karras", "log_snr"))
    assert karras != pytest.approx(logs)


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"timesteps": [5], "sigmas": [1.0]}, "same in several ways"),
        ({"sigmas": [3.0, 1.0], "num_inference_steps": 5}, "5 steps and a list of times for 2"),
        ({"sigmas": [1.0, 3.0]}, "must fall"),
        ({"timesteps": [5, 1]}, "have no numbers"),
        ({"grid": "cosine"}, "grid"),
        ({"grid": [0.2, 0.9]}, "fall strictly"),
        ({"grid": "1-"}, "grid must list finite numbers with commas between; got '1-'"),
        ({"grid": "1,1e999"}, "grid must list finite numbers"),
        ({"timesteps": "9..,1"}, "timesteps must list finite numbers"),
        ({"sigmas": [float("inf"), 1.0]}, "sigmas"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said(asked, match) -> None:
    with pytest.raises(ValueError, match=match):
        Inpainter(tiny_model()).plan(np.zeros((64, 64, 3)), hole(), method="ddnm", **asked)


def test_models_that_take_the_mask_bring_their_own() -> None:
    with pytest.raises(ValueError, match="brings its own times"):
        Inpainter.from_pipe(tiny.build("sd15_inpaint")).plan(np.zeros((64, 64, 3)), hole(), timesteps=[9, 1])
