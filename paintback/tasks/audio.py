"""Sounds: the seconds that are missing of one are painted back by a frozen model of sounds, with any method.

The model works on cells of some two thousand samples. A cell is known only where all its samples are, and what is
missing is filled smoothly before the sound is encoded; the missing samples never reach the model. What is painted is
put into the hole alone. Inside it, over `fade` milliseconds from either end, the difference between what is given and
what the model made of it just outside is mirrored into the hole and faded out, so that there is no step at its ends.

A sound that is longer than what the model takes is painted in windows around its holes, one after another. Where the
sound has another rate than the model, the model hears and paints a resampled one; what is known stays as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from paintback import methods
from paintback.images.sounds import Sound, read_sound
from paintback.methods.base import Callback, Method
from paintback.models.base import Model, Told
from paintback.models.latent import fill_hole, observe
from paintback.models.sound import SoundModel
from paintback.painting.layout import whole_grid
from paintback.painting.request import AudioRequest
from paintback.painting.session import Session, open_model
from paintback.tasks.checks import check_gradients, precise, warn_of_method
from paintback.tasks.inpaint import Inpainter
from paintback.tasks.options import from_python, keywords

__all__ = ["AudioOutput", "holes_of", "inpaint_audio", "plan_sound"]

AudioType = Literal["np", "pt", "sound"]
TYPES = ("np", "pt", "sound")
CONTEXT = 8  # windows of a long sound show an eighth of their length on either side of a hole, where they can
TAPS = 10  # samples of the slower rate that resampling looks at on either side
Hole = str | Sequence[tuple[float, float]] | NDArray[np.bool_]


@dataclass
class AudioOutput:
    """What `inpaint_audio` gives back.

    Attributes:
        audio: the sound in the type asked for.
        sampling_rate: samples a second: the input's.
        evaluations: denoiser calls, over all windows.
        vjps: gradients, likewise.
        seconds: wall time of the call.
        peak_memory_bytes: see `resources.PeakMemory`.
        seeds: the seed, in a list as `Output` has it.
        settings: what is needed to make the same sound again, as plain JSON values.
        windows: (first, last) second of what was painted at once.
        stopped: whether the callback ended it.
    """

    audio: Any
    sampling_rate: int
    evaluations: int | float
    vjps: int | float
    seconds: float
    peak_memory_bytes: int | None
    seeds: list[int | None]
    settings: dict[str, Any]
    windows: list[tuple[float, float]]
    stopped: bool = False


class AudioOptions(TypedDict, total=False):
    """What `inpaint_audio` takes beside sound, hole and prompt. Defaults and limits are `AudioRequest`'s.

    Attributes:
        negative_prompt: text, for models that take one.
        fade: milliseconds inside the hole over which its ends are joined; 0 for none.
        method: a name, or a method made by `methods.get`; None for the model's own.
        fields: of a method that is named.
        num_inference_steps: grid intervals; None for what the model is sampled with.
        guidance_scale: of classifier-free guidance; None for the model's own.
        lyrics: of ACE-Step.
        vocal_language: of the lyrics, "en" for English; likewise.
        bpm: beats a minute; likewise.
        keyscale: such as "C major"; likewise.
        timesignature: such as "4"; likewise.
        generator: or a seed; None seeds from the operating system.
    """

    negative_prompt: str | None
    fade: float
    method: str | Method | None
    fields: Mapping[str, Any]
    num_inference_steps: int | None
    guidance_scale: float | None
    lyrics: str | None
    vocal_language: str | None
    bpm: int | None
    keyscale: str | None
    timesignature: str | None
    generator: torch.Generator | int | None


def inpaint_audio(
    sound: Any,
    hole: Hole,
    *,
    model: str | Path | Model | Inpainter | Any,
    prompt: str | None = None,
    sampling_rate: int | None = None,
    output_type: AudioType = "np",
    callback: Callback | None = None,
    progress_bar: bool = True,
    device: Any = None,
    torch_dtype: torch.dtype | None = None,
    **options: Unpack[AudioOptions],
) -> AudioOutput:
    """Paints the missing seconds of a sound.

    Args:
        sound: the path of a WAV file; numpy (N,) or (N, channels), whole numbers or [-1, 1]; torch (channels, N) in
            [-1, 1]; or an `images.sounds.Sound`.
        hole: what is missing: [(start, end), ...] in seconds, the same as text ("3.2:4.5,7:7.25"), or (N,) bool, True =
            repaint. Samples that are partly in it are.
        model: a loaded pipeline of sounds (StableAudioPipeline, AceStepPipeline), its folder or Hub id, or an
            `Inpainter` or model that holds it.
        prompt: text.
        sampling_rate: samples a second, where `sound` is an array.
        output_type: "np" ((N, channels), the type of its numbers kept), "pt" ((channels, N) in [-1, 1]) or "sound".
        callback: called after every step with (step, t, x, x0); returning True stops.
        progress_bar: whether to show one.
        device: for a model that is loaded here.
        torch_dtype: likewise.
        **options: see `AudioOptions`.

    Returns:
        The sound, of the input's rate and length, bit-identical outside the hole, with its cost and settings.

    Raises:
        ValueError: for input that does not fit, in one sentence.
    """
    if output_type not in TYPES:
        raise ValueError(f"output_type must be one of {', '.join(TYPES)}; got {output_type!r}.")
    generator = options.get("generator")
    if isinstance(generator, list | tuple):
        raise ValueError("inpaint_audio makes one sound and takes one generator or seed; call it again for another.")
    own = {name: value for name, value in options.items() if name != "generator"}
    request = from_python({**own, "prompt": prompt}, AudioRequest)
    heard = read_sound(sound, sampling_rate)
    missing = holes_of(hole, len(heard.samples), heard.rate)
    given = options.get("method")
    opened = _open(model, device, torch_dtype)
    if isinstance(given, Method):
        method = given
    else:
        name = request.method or opened.sampler.method
        shipped = opened.sampler.fields if request.method is None else {}
        method = methods.get(name, **{**shipped, **request.fields})
    check_gradients(opened, method)
    opened = precise(opened, method).as_sound()
    warn_of_method(opened, method)
    steps = request.steps or opened.sampler.num_inference_steps
    request = request.with_(method=method.name, fields=dataclasses.asdict(method), steps=steps)
    said = {name: getattr(request, name) for name in WORDS if getattr(request, name) is not None}
    _check_words(opened, said)
    told = Told(request.prompt, request.negative_prompt, request.guidance, said)
    painting = _Painting(opened, method, steps, told, heard.rate, round(request.fade / 1000 * heard.rate))
    spans = plan_sound(missing, int(opened.longest * heard.rate / opened.rate), heard.rate)
    values = torch.from_numpy(heard.to_unit())
    left = torch.from_numpy(missing.copy())
    progress = {"disable": None if progress_bar else True}
    step: Any = callback  # every method here predicts
    painted: list[tuple[float, float]] = []
    with Session(opened, method.name, generator, progress=progress, step=step, method=method) as session:
        one = session.generators
        drawn = one if isinstance(one, torch.Generator) else one[0]
        for start, stop in spans:
            inside = slice(start, stop)
            values[:, inside] = painting.paint(values[:, inside], left[inside], drawn, len(spans), session)
            left[inside] = False
            painted.append((start / heard.rate, stop / heard.rate))
            if session.stopped:
                break
    done = heard.with_hole(values.numpy(), missing & ~left.numpy())
    asked = {name: getattr(request, entry) for name, entry in keywords(AudioRequest).items()}
    return AudioOutput(
        audio=_convert(done, output_type),
        sampling_rate=heard.rate,
        evaluations=session.evaluations,
        vjps=session.vjps,
        seconds=session.seconds,
        peak_memory_bytes=session.peak_memory_bytes,
        seeds=session.seeds,
        settings={"model": opened.name, **asked, "hole": _as_text(missing, heard.rate)},
        windows=painted,
        stopped=session.stopped,
    )


WORDS = ("lyrics", "vocal_language", "bpm", "keyscale", "timesignature")


def _check_words(model: SoundModel, said: Mapping[str, Any]) -> None:
    wrong = [name for name in said if name not in model.said]
    if wrong:
        raise ValueError(f"The model {model.name!r} takes no {', '.join(wrong)}; leave that out.")


def _open(model: Any, device: Any, torch_dtype: torch.dtype | None) -> SoundModel:
    """The model of sounds.

    Raises:
        ValueError: for another one.
    """
    if isinstance(model, Inpainter):
        model = model.model
    if not isinstance(model, str | Path | Model):
        from paintback.models.diffusers import from_pipe

        model = from_pipe(model)
    return open_model(model, device, torch_dtype).as_sound()


def holes_of(hole: Hole, count: int, rate: int) -> NDArray[np.bool_]:
    """Which samples are missing: those that are in a hole at all.

    Args:
        hole: as `inpaint_audio` takes it.
        count: samples of the sound.
        rate: samples a second.

    Raises:
        ValueError: for holes that are none, lie beyond the sound, or hold all of it.
    """
    if isinstance(hole, np.ndarray):
        if hole.dtype != np.bool_ or hole.shape != (count,):
            raise ValueError(
                f"A hole of samples is boolean, one for each of the sound's {count}; got {hole.dtype} of shape "
                f"{hole.shape}."
            )
        missing = hole.copy()
    else:
        missing, seconds = np.zeros(count, bool), count / rate
        for start, end in _spans(hole):
            if not 0 <= start < end:
                raise ValueError(f"A hole is START:END in seconds, START before END; got {start:g}:{end:g}.")
            if start >= seconds:
                raise ValueError(f"The hole {start:g}:{end:g} lies behind the sound's end at {seconds:g} s.")
            # a millionth of a sample is rounding
            missing[int(np.floor(start * rate + 1e-6)) : int(np.ceil(min(end, seconds) * rate - 1e-6))] = True
    if not missing.any():
        raise ValueError("No sample is missing; say which seconds are, as in 3.2:4.5.")
    if missing.all():
        raise ValueError("All of the sound is missing, and what is known of it is what it is painted by; hide less.")
    return missing


def _spans(hole: str | Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    try:
        pairs = [part.split(":") for part in hole.split(",")] if isinstance(hole, str) else list(hole)
        return [(float(start), float(end)) for start, end in pairs]
    except (TypeError, ValueError):
        raise ValueError(f"Holes are START:END in seconds, as in 3.2:4.5; got {hole!r}.") from None


def _as_text(missing: NDArray[np.bool_], rate: int) -> str:
    return ",".join(f"{start / rate:.12g}:{stop / rate:.12g}" for start, stop in _runs(missing))


def _runs(missing: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, behind the last) of every stretch that is missing."""
    ends = np.flatnonzero(np.diff(np.concatenate(([0], missing.astype(np.int8), [0]))))
    return [(int(start), int(stop)) for start, stop in ends.reshape(-1, 2)]


def plan_sound(missing: NDArray[np.bool_], longest: int, rate: int) -> list[tuple[int, int]]:
    """The windows in which a sound is painted: all of it, or for a long one those around its holes.

    Args:
        missing: (N,) bool.
        longest: samples of a window at most.
        rate: samples a second.

    Returns:
        (first sample, sample behind the last) of each; a hole lies in one wholly.

    Raises:
        ValueError: for a hole that no window shows with what is around it.
    """
    count = len(missing)
    if count <= longest:
        return [(0, count)]
    groups: list[tuple[int, int]] = []
    for start, stop in _runs(missing):
        if stop - start >= longest:
            raise ValueError(
                f"The hole {start / rate:g}:{stop / rate:g} is not shorter than the {longest / rate:g} s that the "
                "model takes at once; hide less at a time."
            )
        if groups and stop - groups[-1][0] <= longest - 2 * (longest // CONTEXT):
            groups[-1] = (groups[-1][0], stop)
        else:
            groups.append((start, stop))
    firsts = [min(max(0, (start + stop - longest) // 2), count - longest) for start, stop in groups]
    return [(first, first + longest) for first in firsts]


@dataclass(frozen=True)
class _Painting:
    """How windows are painted.

    Attributes:
        model: that paints.
        method: by which.
        steps: grid intervals.
        told: of the sound.
        rate: of the sound.
        fade: samples at either end of a hole.
    """

    model: SoundModel
    method: Method
    steps: int
    told: Told
    rate: int
    fade: int

    @torch.no_grad()
    def paint(
        self, values: Tensor, missing: Tensor, generator: torch.Generator, windows: int, session: Session
    ) -> Tensor:
        """Paints what is missing of a window.

        Args:
            values: (channels, n) in [-1, 1].
            missing: (n,) bool; those values are not looked at.
            generator: that draws.
            windows: how many there are in all, for the bar.
            session: counts costs, and is told of every step.

        Returns:
            The window with its holes painted, the rest as it was.

        Raises:
            ValueError: for values that are not finite where they are known.
        """
        known = ~missing
        if not bool(values[:, known].isfinite().all()):
            raise ValueError("The sound holds numbers that are not finite where it is known; remove NaN and infinity.")
        filled = fill_hole(values[None, :, None], known[None, None, None])[0, :, 0]
        heard, count = self._enter(filled), missing.shape[0]
        size = (1, heard.shape[-1])
        behind = self.model.codec.samples(size[1]) - size[1]
        shown = self.model.denoiser_at(size, self.told)
        session.expect((len(whole_grid(shown, self.method, self.steps)) - 1) * windows)
        sound = torch.nn.functional.pad(heard, (0, behind))[None, :, None].to(self.model.device)
        seen = torch.nn.functional.pad(self._known(missing, size[1]), (0, behind))[None, None, None]
        result = self.method.sample(
            shown,
            observe(self.model.codec, sound, seen.to(self.model.device), hidden=sound),
            num_inference_steps=self.steps,
            generator=generator,
            callback=session.step,
        )
        session.count(result)
        made = self.model.codec.decode(result.x)[0, :, 0, : size[1]].float().cpu()
        made = self._leave(made, len(values), count)
        return torch.where(missing, joined(values, made, missing, self.fade), values)

    def _ratio(self) -> Fraction:
        return Fraction(self.model.rate, self.rate)

    def _enter(self, values: Tensor) -> Tensor:
        """(channels, n) at the model's rate and with its channels."""
        wanted = self.model.sound_channels
        if len(values) != wanted:
            values = values.mean(0, keepdim=True) if wanted == 1 else values.expand(wanted, -1)
        return _resampled(values, self._ratio())

    def _leave(self, made: Tensor, channels: int, count: int) -> Tensor:
        """What the model made, (channels, n) at the sound's rate."""
        made = _resampled(made, 1 / self._ratio())
        made = torch.nn.functional.pad(made, (0, max(0, count - made.shape[-1])))[:, :count]
        if len(made) != channels:
            made = made.mean(0, keepdim=True) if channels == 1 else made.expand(channels, -1)
        return made

    def _known(self, missing: Tensor, count: int) -> Tensor:
        """(count,) bool: which samples at the model's rate are made of known ones alone."""
        ratio = float(self._ratio())
        if ratio == 1:
            return ~missing
        known, reach = torch.ones(count, dtype=torch.bool), TAPS * max(1.0, ratio)
        for start, stop in _runs(missing.numpy()):
            known[max(0, int(start * ratio - reach)) : int(np.ceil(stop * ratio + reach))] = False
        return known


def joined(given: Tensor, made: Tensor, missing: Tensor, fade: int) -> Tensor:
    """What was made, with no step at the ends of its holes.

    Args:
        given: (channels, n), looked at where known.
        made: of its shape.
        missing: (n,) bool.
        fade: samples at either end of a hole, at most half of it and as many as are known beside it.

    Returns:
        `made`, to which in the holes the mirrored difference of both beside them is added, fading out.
    """
    out, runs, count = made.clone(), _runs(missing.numpy()), len(missing)
    for number, (start, stop) in enumerate(runs):
        before = start - (runs[number - 1][1] if number else 0)
        behind = (runs[number + 1][0] if number + 1 < len(runs) else count) - stop
        for room, place, direction in ((before, start, 1), (behind, stop - 1, -1)):
            length = min(fade, room, (stop - start + 1) // 2)
            if length < 1:
                continue
            steps = torch.arange(length)
            inside, outside = place + direction * steps, place - direction * (steps + 1)
            weight = 0.5 + 0.5 * torch.cos(torch.pi * (steps + 1) / (length + 1))
            out[:, inside] += weight * (given[:, outside] - made[:, outside])
    return out


def _resampled(values: Tensor, ratio: Fraction) -> Tensor:
    """(channels, n) at a rate that is `ratio` times theirs."""
    if ratio == 1:
        return values
    from scipy.signal import resample_poly

    made = resample_poly(values.double().numpy(), ratio.numerator, ratio.denominator, axis=-1)
    return torch.from_numpy(made.astype(np.float32))


def _convert(sound: Sound, output_type: AudioType) -> Any:
    if output_type == "sound":
        return sound
    return sound.samples if output_type == "np" else torch.from_numpy(sound.to_unit())
