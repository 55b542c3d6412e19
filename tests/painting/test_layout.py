"""The one plan: planned steps are the steps run, for every method, every kind of model and every way to cut them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.denoiser import Denoiser
from paintback.images.regions import thickness
from paintback.methods import get
from paintback.models.catalogue import Sampler
from paintback.painting.layout import THIN, Speed, quick_grid, tail, thin_grid, whole_grid
from paintback.painting.quality import DRAWS, EVALUATIONS
from paintback.tasks.inpaint import Inpainter
from tests.models import tiny_pipelines
from tests.tasks.test_inpaint import seeded, tiny_model

TIGHT = pb.Policy(widest=8, context=8)


def wide(side: int = 64, hole: int = 20) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[16 : 16 + hole, 12 : 12 + hole] = True
    return mask


def image(side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).random((side, side, 3)).astype(np.float32)


def run(inpainter: Inpainter, mask: np.ndarray, **options) -> SimpleNamespace:
    """A call with its plan, the steps that its callback saw, and what the bar came to."""
    seen: list[int] = []
    bars: list[tuple[int, int]] = []
    import paintback.painting.session as session

    class Bar(session.tqdm):
        def close(self) -> None:
            bars.append((self.n, self.total))
            super().close()

    before, session.tqdm = session.tqdm, Bar
    try:
        plan = inpainter.plan(image(len(mask)), mask, **options)
        inpainter.set_progress_bar_config(disable=False)
        out = inpainter(image(len(mask)), mask, callback_on_step_end=lambda _, k, *__: seen.append(k), **options)
    finally:
        session.tqdm = before
    return SimpleNamespace(plan=plan, out=out, seen=seen, bar=bars[-1])


def check(done: SimpleNamespace, costs: bool = True) -> None:
    plan = done.plan
    each = [k for stage in plan.stages for _ in range(plan.batches(stage)) for k in range(stage.steps)]
    assert done.seen == each
    assert done.bar == (plan.steps, plan.steps) == (len(done.seen), len(done.seen))
    assert plan.to_json()["steps"] == plan.steps
    if costs:
        assert (plan.evaluations, plan.vjps) == (done.out.evaluations, done.out.vjps)
    if len(done.out.scales) == len(plan.stages):
        assert [(s.factor, s.size[::-1]) for s in done.out.scales] == [(s.factor, s.size) for s in plan.stages]


SMALL = {
    "copaint": {"iterations": 1},
    "daps": {"langevin_steps": 2, "ode_steps": 1},
    "lanpaint": {"inner_steps": 1},
    "repaint": {"repeats": 2, "jump_length": 1},
}


@pytest.mark.parametrize("name", [name for name in pb.methods.names() if name != "aid"])
def test_planned_steps_and_costs_are_those_that_run(name) -> None:
    kind = pb.methods.types()[name]
    known = {entry: value for entry, value in SMALL.get(name, {}).items() if entry in kind.__dataclass_fields__}
    done = run(
        Inpainter(tiny_model(), policy=pb.Policy(widest=4, context=4)),
        wide(32, 10),
        method=pb.methods.get(name, **known),
        num_inference_steps=4,
    )
    assert len(done.plan.stages) == 3
    # what the prompt's or the decoder's turn comes to is known to the run alone
    check(done, costs=name not in ("p2l", "resample"))


@pytest.mark.parametrize(
    "options",
    [
        {"strength": 0.4},
        {"strength": 0.01},
        {"mask_blur": 2, "padding_mask_crop": 4},
        {"num_images_per_prompt": 3, "generator": seeded(1, 2, 3)},
        {"num_images_per_prompt": 3, "generator": torch.Generator().manual_seed(0)},
        {"average": 3},
        {"quality": "best"},
        {"quality": "fast", "num_inference_steps": None},
        {"outpaint": (0, 8, 0, 0), "mask_grow": 1},
    ],
    ids=lambda options: ",".join(options),
)
def test_whatever_is_asked_is_planned(options) -> None:
    inpainter = Inpainter(tiny_model(), policy=pb.Policy(widest=8, context=8, batch_pixels=5000))
    check(run(inpainter, wide(), **{"method": "fmm", "num_inference_steps": 7, **options}))


@pytest.mark.parametrize(
    ("name", "strength"),
    [(name, strength) for name in ("sd15", "sd15_inpaint") for strength in (1.0, 0.55, 0.1)]
    + [("ddpm", 1.0), ("ddpm", 0.55), ("flux_fill", 0.55)],
)
def test_every_kind_of_model(name, strength) -> None:
    inpainter = Inpainter.from_pipe(tiny_pipelines.build(name))
    trained = inpainter.model.sampler.method == "trained"
    method = None if trained else "ding"
    done = run(inpainter, wide(48, 12), method=method, num_inference_steps=5, strength=strength)
    (stage,) = done.plan.stages[-1:]
    assert (stage.kept, stage.steps) == (tail(5, strength), tail(5, strength) + (name == "sd15_inpaint"))  # its PNDM
    check(done, costs=not trained)


def test_strength_is_cut_by_the_length_of_the_grid() -> None:
    assert [tail(7, share) for share in (1.0, 0.99, 0.5, 0.1, 0.001)] == [7, 6, 3, 1, 1]


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (3, 3), (10, 6), (25, 9), (50, 14)])
def test_the_grid_of_thin_holes_is_even_in_the_logarithm(steps, count) -> None:
    denoiser = tiny_model().denoiser()
    times = thin_grid(denoiser, steps, 0.5)
    ratios = np.array([denoiser.schedule.at(t).ratio for t in times[:-1]])
    assert (len(ratios), times[-1]) == (count, 0)
    assert abs(ratios[0] - 0.5) < 1e-6
    assert count == 1 or abs(ratios[-1] - 0.18 / count) < 1e-6
    assert np.ptp(np.diff(np.log(ratios))) < 1e-6 if count > 2 else True


@pytest.mark.parametrize("name", ["ding", "fmm", "gibbs"])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_grid_of_fast_is_all_of_its_steps_below_a_noise_level(name: str, steps: int) -> None:
    denoiser = tiny_model().denoiser()
    times = quick_grid(denoiser, steps, 4.0, get(name))
    ratios = [denoiser.schedule.at(t).ratio for t in times[:-1]]
    assert (len(times), times[-1]) == (steps + 1, 0)
    assert abs(ratios[0] - 4.0) < 1e-6 and times == sorted(times, reverse=True)
    assert np.allclose(quick_grid(denoiser, steps, 1e9, get(name)), whole_grid(denoiser, get(name), steps), atol=1e-9)


def test_a_models_own_method_starts_wide_holes_from_a_smooth_fill() -> None:
    """At fast with all steps below; else, where the model does so in thin holes too, with those of the whole grid."""

    def first(model, **call):
        policy = pb.Policy(multiple=model.multiple)
        return Inpainter(model, policy=policy).plan(image(), mask, **call).stages[0]

    def start(stage) -> float:
        return float(schedule.at(stage.grid[0]).ratio)

    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    plain, policy = tiny_model(), pb.Policy()
    own = dataclasses.replace(plain, sampler=Sampler(fields={"delayed": True}, thin="ddnm:eta=1.0"))
    schedule = plain.denoiser().schedule
    for model in (plain, own):
        fast = first(model, quality="fast")
        assert abs(start(fast) - policy.fast_from) < 1e-4 and EVALUATIONS - 1 <= fast.evaluations <= EVALUATIONS
        listed = first(model, quality="fast", grid="karras", num_inference_steps=10)
        assert start(listed) > policy.fast_from  # who names the times has them whole
        assert first(model, quality="fast", method="ddnm").grid is None  # and who names a method has it as it is
    assert first(plain).grid is None
    for quality in ("good", "best"):
        stage = first(own, quality=quality)
        whole = whole_grid(own.denoiser(), get("ding", delayed=True), own.sampler.num_inference_steps)
        assert abs(start(stage) - policy.wide_from) < 1e-4
        assert list(stage.grid[1:]) == [t for t in whole if t < stage.grid[0] - 1e-9]
    assert (
        first(own, method="ding").grid is None and first(own, method=get("ding", eta="ddpm", delayed=True)).grid is None
    )
    again = first(own, method=get("ding", delayed=True))  # as settings have it, so that a result can be made again
    assert again.grid == stage.grid
    with_size = dataclasses.replace(own, size=(64, 64))
    assert all(first(with_size, quality=quality).grid is None for quality in ("fast", "good"))


def test_thickness_is_that_of_the_largest_disk() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:14] = True
    assert thickness(mask) == 4
    assert thickness(np.ones((3, 9), bool)) == 9


def test_best_averages_thin_holes_and_picks_in_wide_ones() -> None:
    inpainter = Inpainter(tiny_model(), policy=pb.Policy())
    inpainter.set_progress_bar_config(disable=True)
    for width, mean in ((THIN, True), (3 * THIN, False)):
        mask = np.zeros((64, 64), bool)
        mask[20 : 20 + width, 8:56] = True
        call = {"method": "ding", "num_inference_steps": 2, "output_type": "np"}
        best = inpainter(image(), mask, quality="best", generator=4, **call)
        mother = torch.Generator().manual_seed(4)
        seeds = torch.randint(2**63 - 1, (DRAWS,), generator=mother).tolist()
        draws = inpainter(image(), mask, num_images_per_prompt=DRAWS, generator=seeded(*seeds), **call)
        each, middle = draws.images[:, mask], draws.images[:, mask].mean(0)
        wanted = middle if mean else each[((each - middle) ** 2).sum((1, 2)).argmin()]
        assert abs(best.images[0][mask] - wanted).max() < 1e-5
        assert best.evaluations == DRAWS * draws.evaluations
        by_hand = inpainter(image(), mask, average=DRAWS, generator=4, **call)
        assert abs(by_hand.images[0][mask] - middle).max() < 1e-5


def test_seconds_grow_with_batches_gradients_and_pixels() -> None:
    inpainter = Inpainter(tiny_model(), policy=TIGHT)
    plan = inpainter.plan(image(), wide(), method="ddnm", num_inference_steps=4)
    cells = sum(stage.evaluations * stage.cells for stage in plan.stages)
    assert plan.seconds(Speed(0.0, 2.0)) == 2 * cells
    assert plan.seconds(Speed(1.0, 0.0)) == plan.evaluations
    gradients = inpainter.plan(image(), wide(), method="dps", num_inference_steps=4)
    assert gradients.seconds(Speed(1.0, 0.0)) == plan.evaluations + 2 * gradients.vjps > plan.evaluations
    speed = inpainter.speed(plan)
    assert speed is not None and plan.seconds(speed) > 0
    assert Inpainter.from_pipe(tiny_pipelines.build("sd15_inpaint")).speed(plan) is None


def test_a_denoiser_is_told_where_its_rows_lie() -> None:
    model = tiny_model()
    told: list[tuple] = []

    class Placed(Denoiser):
        def __init__(self, inner: Denoiser) -> None:
            super().__init__(inner.schedule)
            self.inner = inner

        def placed(self, boxes, shapes, factor) -> Denoiser:
            told.append((list(boxes), list(shapes), factor))
            return self.inner

    inner = type(model).denoiser
    inpainter = Inpainter(model, policy=TIGHT)
    inpainter.set_progress_bar_config(disable=True)
    masks = [np.zeros((192, 192), bool) for _ in range(2)]
    masks[0][64:84, 64:84] = masks[1][64:84, 96:116] = True
    pictures = [image(192)] * 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "denoiser", lambda self, *told: Placed(inner(self, *told)))
        call = {"method": "ddnm", "num_inference_steps": 2, "generator": seeded(1, 2), "batch_size": 2}
        inpainter(pictures, masks, **call)
        plan = inpainter.plan(pictures[0], masks[0], method="ddnm", num_inference_steps=2)
    assert [factor for _, _, factor in told] == [4, 2, 1] == [stage.factor for stage in plan.stages]
    for (boxes, shapes, factor), stage in zip(told, plan.stages, strict=True):
        first = (stage.box.top, stage.box.left, stage.box.bottom, stage.box.right)
        assert boxes == [first, (first[0], first[1] + 32, first[2], first[3] + 32)]
        assert shapes == [(192, 192)] * 2 and factor == stage.factor


def test_what_nobody_sees_is_unknown_to_the_model_and_unchanged() -> None:
    inpainter = Inpainter(tiny_model(), policy=TIGHT)
    inpainter.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(1)
    cut = rng.integers(0, 256, (48, 48, 4), np.uint8)
    cut[..., 3] = 255
    cut[:, :16, 3] = 0
    other = cut.copy()
    other[:, :16, :3] = rng.integers(0, 256, (48, 16, 3), np.uint8)
    mask = np.zeros((48, 48), bool)
    mask[10:30, 18:30] = True
    call = {"method": "ding", "num_inference_steps": 3, "generator": 0, "output_type": "picture"}
    made = [inpainter(one, mask, **call).images[0].pixels for one in (cut, other)]
    assert (made[0][mask] == made[1][mask]).all()
    assert (made[1][:, :16] == other[:, :16, :3]).all()
