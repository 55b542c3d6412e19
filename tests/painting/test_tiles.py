"""Tiles around thin holes: they hold all of it, the network sees nothing else, and nothing is moved."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.denoiser import Denoiser, Prediction, predict
from paintback.images import generators
from paintback.images.regions import Box
from paintback.models.tiles import HoleTiles, Tiles, cover
from paintback.painting.layout import THIN
from paintback.schedules import EDM
from paintback.tasks.inpaint import Inpainter
from tests.tasks.test_inpaint import tiny_model


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("margin", [0, 5, 12])
def test_every_pixel_of_a_hole_lies_well_inside_a_tile(seed: int, margin: int) -> None:
    part = generators.lines((300, 420), np.random.default_rng(seed), width=2, count=1 + seed)
    tiles = cover(part, (32, 48, 64), margin)
    assert tiles is not None
    assert tiles.cells < part.size
    held = np.zeros_like(part)
    for top, left in tiles.corners:
        assert 0 <= top <= 300 - tiles.side
        assert 0 <= left <= 420 - tiles.side
        low = [0 if corner == 0 else corner + margin for corner in (top, left)]
        high = [
            side if corner == side - tiles.side else corner + tiles.side - margin
            for corner, side in zip((top, left), part.shape, strict=True)
        ]
        held[low[0] : high[0], low[1] : high[1]] = True
    assert held[part].all()


def test_no_tiles_where_they_save_nothing() -> None:
    assert cover(np.ones((64, 64), bool), (16, 32), 4) is None
    assert cover(np.zeros((30, 90), bool), (32,), 4) is None
    speck = np.zeros((80, 80), bool)
    speck[40:44, 38:42] = True
    assert cover(speck, (32, 48, 64), 12) == Tiles(32, ((26, 24),))


class Where(Denoiser):
    """Answers with where in its picture every pixel lies, so that whatever is put elsewhere is seen."""

    def __init__(self) -> None:
        super().__init__(EDM())
        self.boxes: list[tuple[int, int, int, int]] = []
        self.shapes: list[torch.Size] = []

    def placed(self, boxes, shapes, factor) -> Denoiser:
        assert factor == 1
        assert len(boxes) == len(shapes)
        told = copy.copy(self)  # the list of looks stays one
        told.boxes = list(boxes)
        return told

    def predict(self, x: torch.Tensor, time) -> Prediction:
        self.shapes.append(x.shape)
        assert len(x) == len(self.boxes)
        rows = [
            torch.stack(torch.meshgrid(torch.arange(top, bottom), torch.arange(left, right), indexing="ij"))
            for top, left, bottom, right in self.boxes
        ]
        return predict("x0", torch.stack(rows).to(x), x, time, rows=len(x))


def test_tiles_of_two_pictures_come_back_to_their_places() -> None:
    inner = Where()
    tiles = [Tiles(8, ((0, 0), (4, 4))), Tiles(16, ((8, 2),))]
    boxes, values = [Box(100, 40, 132, 64), Box(-8, 16, 24, 40)], torch.full((2, 2, 32, 24), 0.5)
    shown = HoleTiles(inner, tiles, values, boxes, [(200, 200), (24, 40)])
    made = shown(torch.zeros(4, 2, 32, 24), 0.5)  # two samples of each picture
    assert sorted({tuple(shape) for shape in inner.shapes}) == [(2, 2, 16, 16), (4, 2, 8, 8)]
    assert made.rows == 6
    for row in range(4):
        box, seen = boxes[row // 2], torch.zeros(32, 24, dtype=torch.bool)
        for top, left in tiles[row // 2].corners:
            side = tiles[row // 2].side
            seen[top : top + side, left : left + side] = True
        truth = torch.stack(
            torch.meshgrid(torch.arange(32) + box.top, torch.arange(24) + box.left, indexing="ij")
        ).float()
        assert torch.allclose(made.x0[row], torch.where(seen, truth, 0.5), atol=1e-3)


def test_the_network_sees_only_what_lies_around_a_thin_hole_and_the_plan_says_so() -> None:
    inpainter = Inpainter(tiny_model(), policy=pb.Policy(margin=2))
    inpainter.set_progress_bar_config(disable=True)
    network, seen = inpainter.model.network, []
    assert network is not None
    handle = network.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    image, mask = np.random.default_rng(0).random((96, 400, 3)).astype(np.float32), np.zeros((96, 400), bool)
    mask[40:44, 10:390] = True
    call = {"method": "ddnm", "num_inference_steps": 4, "generator": 0}
    plan = inpainter.plan(image, mask, **call)
    out = inpainter(image, mask, **call)
    handle.remove()
    (stage,) = plan.stages
    assert stage.thin
    assert stage.region.thickness <= THIN
    assert stage.tiles is not None
    assert stage.cells == stage.tiles.cells < stage.size[0] * stage.size[1] / 4
    assert sum(rows * height * width for rows, _, height, width in seen) == 4 * stage.cells
    assert len(seen) == 4 * plan.forwards(stage)
    assert out.evaluations == plan.evaluations == 4
    speed = inpainter.speed(plan)
    assert speed is not None
    assert plan.seconds(speed) > 0
