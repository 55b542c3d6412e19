"""`pb.inpaint_audio` by painters that know the truth, or nothing: what is known stays, and the seconds are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly
from torch import Tensor

import paintback as pb
from paintback.denoiser import Denoiser, Prediction
from paintback.models.sound import SoundCodec, SoundModel
from paintback.schedules import Flow, Time
from paintback.tasks.audio import holes_of, joined, plan_sound

RATE = 8000


class Blocks(SoundCodec):
    """A cell is eight samples of both channels, as they are."""

    factor, channels = 8, 16

    def encode(self, picture: Tensor) -> Tensor:
        return picture.unflatten(-1, (-1, 8)).permute(0, 1, 4, 2, 3).flatten(1, 2)

    def decode(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (2, 8)).permute(0, 1, 3, 4, 2).flatten(-2)


class Truth(Denoiser):
    def __init__(self, truth: Tensor) -> None:
        super().__init__(Flow())
        self.truth, self.shape, self.codec = truth, tuple(truth.shape), Blocks()

    def predict(self, x: Tensor, time: Time) -> Prediction:
        x0 = self.truth.expand_as(x)
        return Prediction(x0, (x - time.alpha * x0) / max(time.sigma, 1e-6), rows=len(x))


@dataclass(frozen=True)
class Painter(SoundModel):
    """Knows a sound (2, N) of its own rate, where the window is all of it; else it hears a low tone in everything."""

    truth: Any = None

    def denoiser(self, prompt=None, negative_prompt=None, guidance_scale=None, *, size=None, **embeddings):
        sound = torch.zeros(1, 2, 1, self.codec.samples(size[-1])) + 0.25
        if self.truth is not None:
            sound[..., : size[-1]] = self.truth[None, :, None, : size[-1]]
        return Truth(self.codec.encode(sound)[0])


def painter(truth=None, longest=RATE):
    return Painter(
        name="painter", channels=3, multiple=8, size=None, training_size=longest, network=None,
        device=torch.device("cpu"), dtype=torch.float32, codec=Blocks(), rate=RATE, longest=longest, truth=truth,
    )  # fmt: skip


def tones(rate, count, channels=2):
    t = np.arange(count)[:, None] / rate
    return (0.3 * np.sin(2 * np.pi * t * [440, 330][:channels]) + 0.2 * np.sin(2 * np.pi * t * 97)).astype(np.float32)


def paint(sound, hole, model, rate=RATE, **more):
    more = {"method": "replacement", "num_inference_steps": 2, "generator": 0, **more}
    return pb.inpaint_audio(sound, hole, model=model, sampling_rate=rate, progress_bar=False, **more)


@pytest.mark.parametrize(("rate", "decibel"), [(RATE, 90), (11025, 45), (6000, 45)])
def test_a_perfect_painter_leaves_no_trace(rate, decibel):
    sound = tones(rate, int(0.9 * rate))
    heard = resample_poly(sound.astype(float), RATE, rate, axis=0) if rate != RATE else sound
    model = painter(torch.from_numpy(np.ascontiguousarray(heard.T, np.float32)))
    damaged = sound.copy()
    damaged[int(0.3 * rate) : int(0.5 * rate)] = 99.0
    out = paint(damaged, [(0.3, 0.5)], model, rate)
    error = np.abs(out.audio - sound)
    assert -20 * np.log10(error.max() + 1e-9) > decibel
    assert np.array_equal(out.audio[error == 0], sound[error == 0])
    assert (out.sampling_rate, out.windows) == (rate, [(0.0, len(sound) / rate)])


KINDS = st.sampled_from(["uint8", "int16", "int32", "float32", "float64"])
HOLES = st.lists(st.tuples(st.floats(0, 0.19), st.floats(1e-4, 0.05)), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None)
@given(KINDS, st.integers(1, 2), st.sampled_from([RATE, 5000]), HOLES, st.floats(0, 20), st.integers(0, 9))
def test_known_samples_stay_to_the_bit_and_hidden_ones_are_not_heard(kind, channels, rate, holes, fade, seed):
    rng = np.random.default_rng(seed)
    count = rate // 5
    sound = rng.normal(0, 0.3, (count, channels))
    if np.dtype(kind).kind != "f":
        sound = rng.integers(0, np.iinfo(kind).max, (count, channels))
    sound = sound.astype(kind)
    spans = [(start, start + length) for start, length in holes]
    hole = holes_of(spans, count, rate)
    for start, stop in spans:  # every sample whose moment lies inside is in the hole
        moments = np.arange(count) / rate
        assert hole[(moments > start + 1e-9) & (moments < stop - 1e-9)].all()
    other = sound.copy()
    other[hole] = rng.integers(0, 100, (hole.sum(), channels)).astype(kind)
    one, two = (paint(given, spans, painter(), rate, fade=fade).audio for given in (sound, other))
    assert one.dtype == sound.dtype
    assert one[~hole].tobytes() == sound[~hole].tobytes()
    assert one.tobytes() == two.tobytes()
    assert one[hole].tobytes() != sound[hole].tobytes()


@pytest.mark.parametrize("hole", ["1:1e999", [(1, float("inf"))], "1:1e300"])
def test_a_hole_may_end_behind_the_sound(hole):
    missing = holes_of(hole, 100, 10)
    assert missing[10:].all() and not missing[:10].any()


def test_the_ends_are_joined_inside_the_hole_alone():
    given, made = torch.full((1, 100), 0.5), torch.zeros(1, 100)
    missing = torch.zeros(100, dtype=torch.bool)
    missing[40:60] = True
    out = joined(given, made, missing, 5)[0]
    assert torch.equal(out[~missing], made[0, ~missing])
    assert bool((out[40:45].diff() < 0).all()) and bool((out[55:60].diff() > 0).all())
    assert bool((out[45:55] == 0).all())
    assert float(out[40]) > 0.46
    assert torch.allclose(out[40:60], out[40:60].flip(0))
    assert torch.equal(joined(given, made, missing, 0), made)
    missing[:60] = True  # nothing is known before it
    assert float(joined(given, made, missing, 5)[0, 0]) == 0


def test_a_long_sound_is_painted_in_windows():
    sound = tones(RATE, 10 * RATE)
    out = paint(sound, "1:1.2,1.3:1.4,8:8.5,9.9:10", painter(longest=2 * RATE), fade=0)
    assert out.windows == [(0.2, 2.2), (7.25, 9.25), (8.0, 10.0)]
    hole = holes_of(out.settings["hole"], len(sound), RATE)
    assert np.array_equal(out.audio[~hole], sound[~hole])
    assert np.allclose(out.audio[hole], 0.25, atol=1e-6)
    assert out.evaluations == 3 * pb.methods.get("replacement").evaluations(2)


def test_windows_are_within_the_sound_and_hold_their_holes():
    missing = np.zeros(1000, bool)
    missing[[0, 1, 500, 990]] = True
    spans = plan_sound(missing, 100, 10)
    assert spans == [(0, 100), (450, 550), (900, 1000)]
    missing[200:300] = True
    with pytest.raises(ValueError, match="20:30 is not shorter than the 10 s"):
        plan_sound(missing, 100, 10)


@pytest.mark.parametrize(("hole", "sentence"), [
    ("3", "START:END in seconds"),
    ([(0.5, 0.2)], "START before END"),
    ([(-1, 0.2)], "START before END"),
    ([(float("nan"), 1)], "START before END"),
    ("7:8", "lies behind the sound's end"),
    ("0:2", "All of the sound is missing"),
    (np.zeros(8000, bool), "No sample is missing"),
    (np.zeros(7, bool), "one for each"),
])  # fmt: skip
def test_other_holes_are_refused(hole, sentence):
    with pytest.raises(ValueError, match=sentence):
        paint(tones(RATE, RATE), hole, painter())


def test_other_wishes_are_refused():
    sound = tones(RATE, 800)
    with pytest.raises(ValueError, match="paints no sounds"):
        paint(sound, "0.01:0.02", "photo")
    with pytest.raises(ValueError, match="takes no bpm"):
        paint(sound, "0.01:0.02", painter(), bpm=90)
    with pytest.raises(ValueError, match="no keyword 'mask_blur'"):
        paint(sound, "0.01:0.02", painter(), mask_blur=3)
    with pytest.raises(ValueError, match="one generator"):
        paint(sound, "0.01:0.02", painter(), generator=[0, 1])
    with pytest.raises(ValueError, match="output_type must be"):
        paint(sound, "0.01:0.02", painter(), output_type="pil")
    sound[0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        paint(sound, "0.01:0.02", painter())


def test_it_is_made_again_by_its_settings_and_stops_when_told():
    sound = tones(RATE, 2 * RATE)
    first = paint(sound, "0.5:0.6,1.5:1.6", painter(longest=RATE), method=None, num_inference_steps=None)
    own = {name: value for name, value in first.settings.items() if name != "model"}
    own["generator"] = first.seeds[0]
    hole = own.pop("hole")
    again = paint(sound, hole, painter(longest=RATE), **own, output_type="pt")
    assert torch.equal(again.audio.T, torch.from_numpy(first.audio))
    assert (first.settings["method"], first.settings["num_inference_steps"]) == ("ding", 25)
    stopped = paint(sound, "0.5:0.6,1.5:1.6", painter(longest=RATE), callback=lambda *_: True)
    assert stopped.stopped and len(stopped.windows) == 1
    assert np.array_equal(stopped.audio[RATE:], sound[RATE:])
