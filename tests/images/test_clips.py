"""Clips in files: depth, colour tags, the shape of pixels, and what is not taken along."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paintback.images.clips import Clip, Colour, read_clip, read_clip_mask, write_clip
from paintback.images.errors import PictureError

HLG, PQ, BT2020 = 18, 16, 9
few = settings(max_examples=20, derandomize=True, deadline=None)


def silent(path):
    said = []
    clip = read_clip(path, say=said.append)
    assert said == []
    return clip


def noise(dtype, shape=(3, 20, 32), seed=0):
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top + 1, (*shape, 3), dtype=dtype)


@pytest.fixture
def hdr(tmp_path):
    """Five frames of HEVC with 10 bits, HLG and BT.2020, as phones write them."""
    path = tmp_path / "hdr.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=30)
        stream.width, stream.height, stream.pix_fmt = 66, 50, "yuv420p10le"
        stream.options = {"x265-params": "log-level=error:lossless=1"}
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = BT2020, HLG, BT2020
        for number in range(5):
            ramp = np.zeros((75, 66), np.uint16)
            ramp[:50] = 64 + 13 * np.arange(66) + number  # luma in steps that 8 bits do not have
            ramp[50:] = 512
            container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp, format="yuv420p10le")))
        container.mux(stream.encode())
    return path


def tags(path):
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        bits = max(part.bits for part in frame.format.components)
        return frame.color_primaries, frame.color_trc, bits


def test_ten_bits_and_their_tags_are_kept(tmp_path, hdr):
    assert tags(hdr) == (BT2020, HLG, 10)
    clip = silent(hdr)
    assert clip.frames.dtype == np.uint16
    assert clip.colour == Colour(BT2020, HLG)
    assert len(np.unique(clip.frames[:, 25, :, 1])) > 256 / 4  # 66 columns in 5 frames: more levels than 8 bits part
    assert write_clip(clip, tmp_path / "o.mkv") is False
    again = silent(tmp_path / "o.mkv")
    np.testing.assert_array_equal(again.frames, clip.frames)  # bit for bit
    assert again.colour == clip.colour
    assert tags(tmp_path / "o.mkv")[:2] == (BT2020, HLG)
    write_clip(clip, tmp_path / "o.mp4")
    assert tags(tmp_path / "o.mp4") == (BT2020, HLG, 10)
    near = np.abs(silent(tmp_path / "o.mp4").frames.astype(int) - clip.frames)
    assert near.max() < 0.03 * 65535


def test_mp4_of_deep_noise_is_not_lossless(tmp_path):
    clip = Clip(noise(np.uint16))
    write_clip(clip, tmp_path / "o.mp4")
    assert not np.array_equal(silent(tmp_path / "o.mp4").frames, clip.frames)


@few
@given(
    st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from([1, 2, 9]),
    st.sampled_from([1, 2, HLG, PQ]),
    st.integers(0, 99),
)
def test_matroska_gives_back_any_clip(tmp_path_factory, dtype, primaries, transfer, seed):
    path = tmp_path_factory.mktemp("c") / "o.mkv"
    clip = Clip(noise(dtype, (2, 17, 23), seed), colour=Colour(primaries, transfer))
    write_clip(clip, path)
    again = silent(path)
    np.testing.assert_array_equal(again.frames, clip.frames)
    assert again.frames.dtype == dtype
    assert again.colour == clip.colour


def test_the_shape_of_pixels_is_kept_or_said(tmp_path):
    clip = Clip(noise(np.uint8), aspect=Fraction(4, 3))
    said = []
    write_clip(clip, tmp_path / "o.mp4", say=said.append)
    assert said == []
    assert silent(tmp_path / "o.mp4").aspect == Fraction(4, 3)
    write_clip(clip, tmp_path / "o.mkv", say=said.append)
    assert len(said) == 1
    assert "4/3 as wide as high" in said[0]


def test_what_is_not_taken_along_is_said(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 20, "bgr0"
        sounds = [container.add_stream("pcm_s16le", rate=8000) for _ in range(2)]
        for sound in sounds:
            sound.layout = "mono"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(np.uint8)[0], format="rgb24")))
        container.mux(stream.encode())
        for sound in sounds:
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            heard.rate, heard.pts = 8000, 0
            container.mux(sound.encode(heard))
    said = []
    read_clip(path, say=said.append)
    assert said == [f"{str(path)!r} has more than one sound track, which a result does not carry."]


def test_transparency_is_refused(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 20, "bgra"
        rgba = np.concatenate([noise(np.uint8)[0], np.full((20, 32, 1), 9, np.uint8)], -1)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        container.mux(stream.encode())
    with pytest.raises(PictureError, match="transparency"):
        read_clip(path)


def test_masks_of_all_frames_are_read_by_one_rule(tmp_path):
    hole = np.zeros((3, 20, 32), bool)
    hole[1, 5:12, 8:20] = True
    labels = hole.astype(np.uint8) + 0
    grey = np.where(hole, 255, 0).astype(np.uint8)
    noisy = grey | np.random.default_rng(0).integers(0, 2, grey.shape, dtype=np.uint8)  # 0 and 1 where it is black
    for source in (labels, grey, noisy, list(noisy), np.repeat(noisy[..., None], 3, -1)):
        said = []
        np.testing.assert_array_equal(read_clip_mask(source, hole.shape, say=said.append), hole)
    write_clip(Clip(np.repeat(grey[..., None], 3, -1)), tmp_path / "m.mkv")
    np.testing.assert_array_equal(read_clip_mask(tmp_path / "m.mkv", hole.shape), hole)
    np.testing.assert_array_equal(read_clip_mask(grey, hole.shape, mask_is="black"), ~hole)


def test_a_long_name_is_written(tmp_path):
    name = "写" * 79 + ".mkv"  # 241 bytes
    write_clip(Clip(noise(np.uint8)), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
