"""Clips painted by a tiny random Wan: shapes, seeds, cost, windows, what stays bit-identical, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import paintback as pb
from paintback import methods
from paintback.images.clips import Clip, extend_clip
from paintback.tasks.video import VideoOutput, plan_windows
from tests.models import tiny_pipelines as tiny

FRAMES, HEIGHT, WIDTH = 5, 32, 48


@pytest.fixture(scope="module")
def pipe():
    return tiny.build("wan")


@pytest.fixture(scope="module")
def clip():
    return np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def mask():
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[6:22, 10:39] = True
    return hole


@pytest.fixture
def paint(pipe, clip, mask):
    def run(video=clip, hole=mask, **more) -> VideoOutput:
        settings = {
            "model": pipe,
            "prompt": "a red fox",
            "num_inference_steps": 2,
            "generator": torch.Generator().manual_seed(0),
            "height": HEIGHT,
            "width": WIDTH,
            "output_type": "clip",
            "progress_bar": False,
        }
        return pb.inpaint_video(video, hole, **{**settings, **more})

    return run


@pytest.mark.parametrize("method", ["ding", "lanpaint"])
def test_paints_the_hole_and_nothing_else(method, paint, clip, mask):
    out = paint(method=method)
    frames = out.frames.frames
    assert frames.shape == clip.shape and frames.dtype == np.uint8
    assert np.array_equal(frames[:, ~mask], clip[:, ~mask])
    assert (frames[:, mask] != clip[:, mask]).mean() > 0.9
    chosen = methods.get(method)
    assert (out.evaluations, out.vjps) == (chosen.evaluations(2), chosen.vjps(2))
    assert [(one.start, one.stop, one.size) for one in out.windows] == [(0, FRAMES, (WIDTH, HEIGHT))]
    assert (out.seeds, out.settings["method"], out.stopped) == ([0], method, False)
    assert out.seconds > 0


def test_a_method_that_a_distilled_model_does_not_fit_is_said(paint, pipe):
    with pytest.warns(UserWarning, match="Method ding takes .* is step-distilled"):
        paint(model=pb.Inpainter.from_pipe(pipe, step_distilled=True), method="ding", num_inference_steps=1)


def test_seeds_and_prompts_decide(paint):
    first = paint().frames.frames
    assert np.array_equal(first, paint().frames.frames)
    assert not np.array_equal(first, paint(generator=torch.Generator().manual_seed(1)).frames.frames)
    assert not np.array_equal(first, paint(prompt="a blue whale").frames.frames)
    assert not np.array_equal(first, paint(negative_prompt="rain").frames.frames)
    assert not np.array_equal(first, paint(guidance_scale=2.0).frames.frames)
    assert paint(generator=None).seeds != paint(generator=None).seeds


def test_every_way_to_give_a_clip(paint, clip, mask):
    want = paint().frames.frames
    pil = [Image.fromarray(frame) for frame in clip]
    tensor = torch.from_numpy(clip).permute(0, 3, 1, 2) / 255
    hole = Image.fromarray(mask.astype(np.uint8) * 255)
    done = paint(pil, hole, output_type="pil").frames
    assert [one.size for one in done] == [(WIDTH, HEIGHT)] * FRAMES
    assert all(np.array_equal(np.asarray(one), frame) for one, frame in zip(done, want, strict=True))
    done = paint(tensor, [hole] * FRAMES, output_type="pt").frames
    assert done.shape == tensor.shape
    assert torch.equal(done[:, :, ~torch.from_numpy(mask)], tensor[:, :, ~torch.from_numpy(mask)])
    assert torch.allclose(done * 255, torch.from_numpy(want).permute(0, 3, 1, 2).float(), atol=0.51)
    done = paint(clip, torch.from_numpy(mask).expand(FRAMES, 1, -1, -1), output_type="np").frames
    assert np.array_equal(done, want.astype(np.float32) / np.float32(255))


def test_a_mask_for_every_frame(paint, clip, mask):
    masks = np.stack([mask] * FRAMES)
    assert np.array_equal(paint(hole=masks).frames.frames, paint().frames.frames)
    masks = np.stack([np.roll(mask, 2 * k, axis=1) for k in range(FRAMES)])
    masks[0] = False
    masks[3] = True  # a frame of which nothing is known
    frames = paint(hole=masks).frames.frames
    assert np.array_equal(frames[~masks], clip[~masks])
    assert (frames[masks] != clip[masks]).mean() > 0.9


def test_the_number_of_frames_is_any(paint, clip, mask):
    frames = paint(clip[:3]).frames.frames
    assert frames.shape == (3, HEIGHT, WIDTH, 3)
    assert np.array_equal(frames[:, ~mask], clip[:3, ~mask])
    assert paint(clip[:1]).frames.shape == (1, HEIGHT, WIDTH)


def test_sides_that_the_model_does_not_take_and_a_seam(paint, clip, mask):
    video, hole = clip[:, :30, :41], mask[:30, :41]
    out = paint(video, hole, mask_blur=2)
    frames, far = out.frames.frames, ~pb.images.grow(hole, 3)
    assert frames.shape == video.shape
    assert np.array_equal(frames[:, far], video[:, far])
    assert (frames[:, ~far & ~hole] != video[:, ~far & ~hole]).any()


def test_outpainting(paint, clip):
    wide, hole = extend_clip(Clip(clip), left=8, bottom=16)
    out = paint(wide, hole, width=64, height=48)
    assert out.frames.shape == (FRAMES, HEIGHT + 16, WIDTH + 8)
    assert np.array_equal(out.frames.frames[:, :HEIGHT, 8:], clip)
    assert (out.frames.frames[hole] != 128).mean() > 0.9


def test_a_crop_around_the_hole(paint, clip, mask):
    small = np.zeros_like(mask)
    small[4:8, 4:8] = True
    out = paint(hole=small, padding_mask_crop=4, height=16, width=16)
    assert out.windows[0].size == (16, 16)
    assert np.array_equal(out.frames.frames[:, ~small], clip[:, ~small])


def test_windows_cover_a_clip_and_know_what_is_painted(paint, mask):
    video = np.random.default_rng(1).integers(0, 256, (12, HEIGHT, WIDTH, 3), dtype=np.uint8)
    out = paint(video, window=9, overlap=5)
    assert [(one.start, one.stop) for one in out.windows] == [(0, 9), (4, 12)]
    assert out.evaluations == 2 * methods.get("ding").evaluations(2)
    assert np.array_equal(out.frames.frames[:, ~mask], video[:, ~mask])
    assert (out.frames.frames[:, mask] != video[:, mask]).mean() > 0.9
    # the second window leaves the first one's frames as they are
    alone = paint(video[:9], window=9, overlap=5).frames.frames
    assert np.array_equal(out.frames.frames[:9], alone)
    # and what hides in them decides on its own frames
    other = video.copy()
    other[:4] = 255 - other[:4]
    assert not np.array_equal(paint(other, window=9, overlap=5).frames.frames[9:], out.frames.frames[9:])


def test_windows_without_a_hole_are_left_out(paint, mask):
    video = np.zeros((12, HEIGHT, WIDTH, 3), np.uint8)
    masks = np.zeros((12, HEIGHT, WIDTH), bool)
    masks[10] = mask
    assert [(one.start, one.stop) for one in paint(video, masks, window=9, overlap=5).windows] == [(4, 12)]


@pytest.mark.parametrize(
    ("count", "length", "overlap"), [(81, 81, 17), (82, 81, 17), (200, 81, 17), (10, 5, 1), (7, 5, 1)]
)
def test_windows_in_time(count, length, overlap):
    windows = plan_windows(count, length, overlap, 4)
    assert windows[0][0] == 0 and windows[-1][1] == count
    for (_, end), (start, stop) in zip(windows, windows[1:], strict=False):
        assert end - start >= overlap and (end - start) % 4 == 1
        assert stop > end
    assert all(length - 4 < stop - start <= length for start, stop in windows[1:])


def test_a_callback_stops(paint, clip):
    seen = []
    out = paint(callback=lambda step, t, x, x0: seen.append((step, x.ndim)) or True)
    assert out.stopped and seen == [(0, 5)]
    assert out.frames.shape == clip.shape[:3]


def test_what_is_refused(paint, pipe, clip, mask):
    for wrong, say in (
        ({"video": clip[0]}, "a clip was given of shape"),
        ({"video": Image.fromarray(clip[0])}, "for one picture use Inpainter"),
        ({"video": []}, "no frames"),
        ({"video": [clip[0], clip[0, :8]]}, "expected the same for all"),
        ({"hole": np.zeros((HEIGHT, WIDTH), bool)}, "nothing to repaint"),
        ({"hole": mask[:8]}, "expected the same size"),
        ({"hole": [mask] * 3}, "the mask has 3 frames and the clip 5"),
        ({"window": 8}, "window must be 4 k \\+ 1 frames"),
        ({"window": 5, "overlap": 5}, "overlap must be shorter"),
        ({"height": 20}, "height must be a multiple of 16"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"output_type": "latent"}, "output_type must be one of"),
        ({"guidance_scale_2": 3.0}, "one transformer"),
        ({"method": "nothing"}, "nothing"),
        ({"model": "fashion"}, "paints pictures, not clips"),
        ({"mask_blur": -1}, "mask_blur"),
    ):
        with pytest.raises(ValueError, match=say):
            paint(**wrong)
    with pytest.raises(ValueError, match="not clips"):
        paint(model=tiny.build("ddpm"))
    out = paint(model=pb.Inpainter.from_pipe(pipe))
    assert out.settings["model"] == "WanPipeline"


def test_what_pictures_can_be_asked_clips_can_too(paint, clip, mask):
    full = paint(num_inference_steps=4)
    weak = paint(num_inference_steps=4, strength=0.5)
    assert (full.evaluations, weak.evaluations) == (
        methods.get("ding").evaluations(4),
        methods.get("ding").evaluations(2),
    )
    assert np.array_equal(weak.frames.frames[:, ~mask], clip[:, ~mask])
    shown = [np.abs(one.frames.frames.astype(int) - clip)[:, mask].mean() for one in (full, weak)]
    assert shown[1] < shown[0]
    mean = paint(average=2, generator=3)
    seeds = torch.randint(2**63 - 1, (2,), generator=torch.Generator().manual_seed(3)).tolist()
    each = [paint(generator=torch.Generator().manual_seed(seed)).frames.frames.astype(float) for seed in seeds]
    assert np.abs(mean.frames.frames[:, mask] - np.mean(each, 0)[:, mask]).max() <= 1.01  # roundings
    assert mean.evaluations == 2 * paint().evaluations
    wide = paint(hole=None, outpaint=(0, 0, 16, 0), width=64)
    assert wide.frames.frames.shape == (FRAMES, HEIGHT, WIDTH + 16, 3)
    assert np.array_equal(wide.frames.frames[:, :, :WIDTH], clip)
    grown = paint(mask_grow=2)
    assert (grown.frames.frames[:, pb.images.grow(mask, 2) & ~mask] != clip[:, pb.images.grow(mask, 2) & ~mask]).any()
    request = pb.Request(prompt="a red fox", steps=2, height=HEIGHT, width=WIDTH, seed=0)
    options = {"prompt": None, "num_inference_steps": None, "height": None, "width": None}
    same = paint(request=request, **{**options, "generator": torch.Generator().manual_seed(0)})
    assert np.array_equal(same.frames.frames, paint().frames.frames)
    with pytest.raises(ValueError, match="one clip"):
        paint(num_images_per_prompt=2)


def test_the_bar_knows_all_steps_of_a_clip(paint, mask, monkeypatch):
    import paintback.painting.session as session

    totals = []
    monkeypatch.setattr(session.Session, "expect", lambda self, steps: totals.append(steps))
    seen = []
    video = np.zeros((12, HEIGHT, WIDTH, 3), np.uint8)
    paint(video, window=9, overlap=5, strength=0.5, num_inference_steps=5, callback=lambda *_: seen.append(1))
    assert len(seen) == totals[0] == totals[-1] == 2 * 2
