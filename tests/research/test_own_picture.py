"""The study of the model `self`: its holes, and that it scores what is painted."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from research import own_picture


def test_holes_have_their_size_and_lie_in_what_is_scored():
    box, around = own_picture.hole((321, 481), "box", 0.5, 0.5)
    ellipse, _ = own_picture.hole((321, 481), "ellipse", 0.5, 0.5)
    assert box.sum() == 55**2 and np.ptp(np.nonzero(ellipse)[1]) + 1 == 119
    for down, right in ((0.0, 0.0), (1.0, 1.0), (0.3, 0.9)):
        lost, around = own_picture.hole((321, 481), "ellipse", down, right)
        assert lost[around].shape == (176, 176) and lost[around].sum() == lost.sum() == ellipse.sum()


def test_telea_is_scored_on_every_place(tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    for name, *_ in own_picture.PLACES[:2]:
        noise = random.integers(0, 256, (321, 481, 3), np.uint8)
        PIL.Image.fromarray(noise).save(tmp_path / f"{name}.jpg", quality=100)
    monkeypatch.setattr(own_picture, "PLACES", own_picture.PLACES[:2])
    seen = []

    def metric(one, other):
        seen.append((one - other).abs().max())
        return one.new_tensor([0.25])

    (row,) = own_picture.measure(tmp_path, metric, "box", ())
    assert len(seen) == 2 and min(seen) > 0.1
    assert row["filler"] == "telea" and row["lpips"] == 0.25 and 0 < row["psnr"] < 15


def test_fillers_see_the_photograph_itself(tmp_path, monkeypatch):
    name = own_picture.PLACES[0][0]
    ramp = np.mgrid[:321, :481].sum(0)
    PIL.Image.fromarray(np.repeat((ramp * 255 // ramp.max()).astype(np.uint8)[..., None], 3, -1)).save(
        tmp_path / f"{name}.jpg", quality=100
    )
    monkeypatch.setattr(own_picture, "PLACES", own_picture.PLACES[:1])
    (row,) = own_picture.measure(tmp_path, lambda one, other: (one - other).abs().max().reshape(1), "box", ())
    assert row["psnr"] > 35  # a ramp is what Telea's filler goes on with: it is one only in the file's own levels
