"""`paintback inpaint` on clips: files in, files out, by a tiny random Wan."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from paintback.images.clips import Clip, read_clip, write_clip
from tests.models import tiny_pipelines as tiny

SIZE = (32, 48)


@pytest.fixture(scope="module")
def frames():
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    pictures = [np.stack([columns * 5, rows * 7, 0 * rows + 20 * k], -1) % 256 for k in range(5)]
    return np.stack(pictures).astype(np.uint8)


@pytest.fixture
def video(tmp_path, frames):
    """An MP4 of 5 frames with sound."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24000, 1001))
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=16000)
        sound.layout = "mono"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
        wave = (8000 * np.sin(np.arange(4096) / 20)).astype(np.int16)[None]
        heard = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        heard.rate, heard.pts = 16000, 0
        container.mux(sound.encode(heard))
        container.mux(sound.encode())
    return path


@pytest.fixture
def hole():
    hole = np.zeros(SIZE, bool)
    hole[6:20, 10:30] = True
    return hole


@pytest.fixture
def mask(tmp_path, hole):
    path = tmp_path / "mask.png"
    Image.fromarray(hole.astype(np.uint8) * 255).save(path)
    return path


@pytest.fixture
def paint(call, tmp_path_factory):
    folder = tiny.folder("wan", tmp_path_factory)

    def run(*arguments):
        settings = ("--model", folder, "--steps", 2, "--height", SIZE[0], "--width", SIZE[1], "--threads", 1)
        return call("inpaint", *arguments, *settings)

    return run


def sounds(path):
    """The packets of the sound, or None where there is none."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def test_a_lossless_file_keeps_what_was_not_hidden(paint, video, mask, hole, tmp_path):
    out = tmp_path / "out.mkv"
    done = paint(video, mask, "-o", out, "--prompt", "a red fox", "--seed", 3, "--format", "json")
    assert done.code == 0, done.err
    (row,) = done.json["outputs"]
    assert (row["path"], row["seed"], row["frames"], row["windows"]) == (str(out), 3, 5, 1)
    assert (row["lossless"], row["sound"], row["evaluations"]) == (True, True, 3)
    before, after = read_clip(video), read_clip(out)
    assert np.array_equal(after.frames[:, ~hole], before.frames[:, ~hole])
    assert (after.frames[:, hole] != before.frames[:, hole]).mean() > 0.5
    assert after.rate == before.rate == Fraction(24000, 1001)
    assert sounds(out) == sounds(video)
    with av.open(str(out)) as container:
        comment = next(value for key, value in container.metadata.items() if key.lower() == "comment")
    assert json.loads(comment) == done.json["settings"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "mask.png", "out.mkv"]


def test_an_mp4_is_said_to_be_lossy(paint, video, mask, hole, tmp_path):
    done = paint(video, mask, "-o", tmp_path / "out.mp4", "--method", "replacement")
    assert done.code == 0 and "lossy all over" in done.err
    before, after = read_clip(video), read_clip(tmp_path / "out.mp4")
    assert after.shape == before.shape
    assert np.abs(after.frames[:, ~hole].astype(int) - before.frames[:, ~hole]).mean() < 8


def test_a_clip_as_the_mask_and_samples(paint, video, mask, hole, tmp_path):
    masks = np.repeat(np.broadcast_to(hole, (5, *SIZE))[..., None], 3, -1) * np.uint8(255)
    write_clip(Clip(masks), tmp_path / "masks.mkv")
    assert paint(video, mask, "-o", tmp_path / "one.mkv", "--seed", 1).code == 0
    done = paint(video, tmp_path / "masks.mkv", "-o", tmp_path / "out.mkv", "--samples", 2, "--format", "json")
    assert done.code == 0, done.err
    assert [row["seed"] for row in done.json["outputs"]] == [0, 1]
    first, second = (read_clip(tmp_path / f"out-{k}.mkv").frames for k in (1, 2))
    assert np.array_equal(second, read_clip(tmp_path / "one.mkv").frames)
    assert not np.array_equal(first, second)


def test_outpainting(paint, video, tmp_path):
    done = paint(video, "-o", tmp_path / "out.mkv", "--outpaint", "16,0,0,8")
    assert done.code == 0, done.err
    after = read_clip(tmp_path / "out.mkv")
    assert after.shape == (5, SIZE[0] + 8, SIZE[1] + 16)
    assert np.array_equal(after.frames[:, : SIZE[0], 16:], read_clip(video).frames)


def test_wrong_input_is_one_sentence(call, paint, video, mask, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    Image.new("L", (8, 8), 255).save(tmp_path / "small.png")
    out = tmp_path / "out.mkv"
    for arguments, say in (
        ((tmp_path / "no.mp4", mask, "-o", out), "does not exist"),
        ((tmp_path / "broken.mp4", mask, "-o", out), "cannot be read as a clip"),
        ((video, tmp_path / "small.png", "-o", out), "expected the same size"),
        ((video, "alpha", "-o", out), "carries no transparency"),
        ((video, mask, "-o", tmp_path / "out.png"), "no clip's name"),
        ((video, mask, "-o", tmp_path / "none" / "out.mkv"), "does not exist"),
        ((video, "-o", tmp_path / "out.mp4", "--outpaint", "1,0,0,0"), "even sides"),
    ):
        done = paint(*arguments)
        assert (done.code, done.out) == (2, "") and say in done.err, done.err
        assert len(done.err.strip().splitlines()) == 1
    done = call("inpaint", video, mask, "-o", out, "--model", "fashion")
    assert done.code == 2 and "paints pictures, not clips" in done.err
    assert not out.exists()


def test_a_failure_leaves_no_file(frames, tmp_path, monkeypatch):
    path = tmp_path / "out.mkv"
    path.write_bytes(b"before")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ValueError, match="No space left"):
        write_clip(Clip(frames), path)
    assert [one.name for one in tmp_path.iterdir()] == ["out.mkv"]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("arguments", "evaluations"), [(("--strength", 0.5), 1), (("--average", 3), 6), (("--quality", "best"), 16)]
)
def test_what_is_asked_of_pictures_is_asked_of_clips(paint, video, mask, hole, tmp_path, arguments, evaluations):
    out = tmp_path / "out.mkv"
    done = paint(video, mask, "-o", out, "--method", "replacement", *arguments, "--format", "json")
    assert done.code == 0, done.err
    assert done.json["outputs"][0]["evaluations"] == evaluations
    assert np.array_equal(read_clip(out).frames[:, ~hole], read_clip(video).frames[:, ~hole])


def test_padding_blur_and_the_kind_of_a_mask_reach_clips(paint, video, mask, hole, tmp_path):
    Image.fromarray(255 - np.asarray(Image.open(mask))).save(tmp_path / "black.png")
    options = ("--method", "replacement", "--padding", 2, "--blur", 1, "--format", "json")
    done = paint(video, mask, "-o", tmp_path / "a.mkv", *options)
    assert done.code == 0, done.err
    assert (done.json["settings"]["padding"], done.json["settings"]["window"]) == (2, 81)
    assert paint(video, tmp_path / "black.png", "-o", tmp_path / "b.mkv", "--mask-is", "black", *options).code == 0
    assert np.array_equal(read_clip(tmp_path / "a.mkv").frames, read_clip(tmp_path / "b.mkv").frames)


def test_the_bar_of_a_clip_knows_all_its_steps(paint, video, mask, tmp_path, parts):
    assert paint(video, mask, "-o", tmp_path / "o.mkv", "--samples", 2, "--average", 2, "--method", "ddnm").code == 0
    assert parts == [(4, 4)] * 2  # two steps of two draws
