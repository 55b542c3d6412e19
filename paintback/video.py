"""Clips: what a mask hides of a clip is painted back by a frozen model of clips, with any method.

A clip longer than what the model learnt from is painted in windows, one after another. A window begins some frames
before the end of the one before it, and what is painted there is known to it, so that motion goes on.

In time a latent cell stands for several frames (the very first for one), so windows have 4 k + 1 frames for Wan, and a
cell is known only where all its frames are. A window that is short of that number repeats its last frame, which is cut
off again. What of a frame is hidden is filled smoothly from the rest of the frame before the clip is encoded, and a
frame of which nothing is known is filled with the one next to it; the hidden pixels never reach the model.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from paintback import methods
from paintback.canvas import open_model
from paintback.images import masks
from paintback.images.clips import Clip, read_clip, read_clip_mask
from paintback.images.picture import Picture, to_numpy, to_pil
from paintback.images.regions import Box, context_crop
from paintback.inpainter import Inpainter
from paintback.methods.base import Callback, Method, Result
from paintback.models.base import Model
from paintback.models.catalogue import Sampler
from paintback.models.latent import LatentModel, LatentPolicy, fill_hole, observe
from paintback.randomness import one_or_each
from paintback.resources import PeakMemory
from paintback.whole_picture import LARGEST, Frame, choose_size

__all__ = ["VideoOutput", "Window", "inpaint_video", "plan_windows"]

VideoType = Literal["pil", "np", "pt", "clip"]
TYPES = ("pil", "np", "pt", "clip")
OVERLAP = 17  # frames; five cells in time of Wan


@dataclass(frozen=True)
class Window:
    """What one window cost.

    Attributes:
        start: its first frame.
        stop: the frame after its last.
        size: (width, height) that was painted.
        evaluations: denoiser calls.
        vjps: gradients.
    """

    start: int
    stop: int
    size: tuple[int, int]
    evaluations: int | float
    vjps: int | float


@dataclass
class VideoOutput:
    """What `inpaint_video` gives back.

    Attributes:
        frames: of the clip, in the type asked for.
        evaluations: denoiser calls, over all windows.
        vjps: gradients, likewise.
        seconds: wall time of the call.
        peak_memory_bytes: see `resources.PeakMemory`.
        seeds: the seed, in a list as `Output` has it.
        settings: what is needed to make the same clip again, as plain JSON values.
        windows: the cost by window.
        stopped: whether the callback ended it: the window then shows the last prediction, and later ones what they had.
    """

    frames: Any
    evaluations: int | float
    vjps: int | float
    seconds: float
    peak_memory_bytes: int | None
    seeds: list[int]
    settings: dict[str, Any]
    windows: list[Window] = field(default_factory=list)
    stopped: bool = False


def plan_windows(count: int, length: int, overlap: int, factor: int) -> list[tuple[int, int]]:
    """The windows that cover a clip.

    The last one is as long as the others, so it may begin further back; overlaps always are factor k + 1 frames, the
    first k + 1 cells in time of the later window.

    Args:
        count: frames of the clip.
        length: frames of a window, factor k + 1.
        overlap: frames that two windows share, at least; factor k + 1.
        factor: frames of a cell in time.

    Returns:
        (start, stop) of each.

    Raises:
        ValueError: for lengths that do not fit.
    """
    for name, value in (("window", length), ("overlap", overlap)):
        if value < 1 or (value - 1) % factor:
            raise ValueError(
                f"{name} must be {factor} k + 1 frames, such as {4 * factor + 1} or {20 * factor + 1}; got {value}."
            )
    if overlap >= length:
        raise ValueError(f"overlap must be shorter than the window; got {overlap} of {length} frames.")
    windows = [(0, min(count, length))]
    while windows[-1][1] < count:
        start = windows[-1][1] - overlap
        start -= max(0, start + length - count) // factor * factor
        windows.append((start, min(count, start + length)))
    return windows


def inpaint_video(
    video: Any,
    mask: Any,
    *,
    model: str | Path | Model | Inpainter | Any,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    method: str | Method | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_scale_2: float | None = None,
    generator: torch.Generator | None = None,
    height: int | None = None,
    width: int | None = None,
    padding_mask_crop: int | None = None,
    mask_blur: float = 0,
    window: int | None = None,
    overlap: int = OVERLAP,
    latent_mask: LatentPolicy = "all",
    prompt_embeds: Tensor | None = None,
    negative_prompt_embeds: Tensor | None = None,
    output_type: VideoType = "pil",
    callback: Callback | None = None,
    progress_bar: bool = True,
    device: Any = None,
    torch_dtype: torch.dtype | None = None,
) -> VideoOutput:
    """Paints back what the mask hides of a clip.

    Args:
        video: a path, a list of pictures, numpy (F, H, W, 3), or torch (F, 3, H, W) in [0, 1].
        mask: one mask for all frames, or one for each (see `images.clips.read_clip_mask`); white = repaint.
        model: a loaded pipeline of clips (WanPipeline), its folder or Hub id, or an `Inpainter` or model that holds it.
        prompt: text.
        negative_prompt: text.
        method: a name, or a method made by `methods.get`; None for "ding".
        num_inference_steps: grid intervals; None for 25.
        guidance_scale: of classifier-free guidance; None for the model's own.
        guidance_scale_2: of the second transformer of Wan 2.2; None for the same.
        generator: None seeds from the operating system.
        height: what the clip, or the crop around the hole, is scaled to before the model; None for the model's choice.
        width: likewise.
        padding_mask_crop: pixels of context around the hole, over all frames; None for the whole clip where it is not
            much larger than what the model learnt from, else for a crop of that size.
        mask_blur: the hole is grown by this many pixels, over which old and new are blended.
        window: frames that are painted together, 4 k + 1 for Wan; None for those of the clips the model learnt from.
        overlap: frames that a window shares at least with the one before, 4 k + 1.
        latent_mask: which latent cells count as known: those of which "all", the "majority" or "any" pixels are.
        prompt_embeds: in place of the text, as the pipeline makes it.
        negative_prompt_embeds: likewise.
        output_type: "pil" (a list), "np" ((F, H, W, 3) in [0, 1]), "pt" ((F, 3, H, W) in [0, 1]), or "clip" (an
            `images.clips.Clip`, with the type of its numbers kept).
        callback: called after every step with (step, t, x, x0); returning True stops.
        progress_bar: whether to show one.
        device: for a model that is loaded here.
        torch_dtype: likewise.

    Returns:
        The frames, of the input's size and number, bit-identical outside the hole, with their cost and settings.

    Raises:
        ValueError: for input that does not fit, in one sentence.
    """
    began = time.perf_counter()
    if output_type not in TYPES:
        raise ValueError(f"output_type must be one of {', '.join(TYPES)}; got {output_type!r}.")
    if not mask_blur >= 0:
        raise ValueError(f"mask_blur must be at least 0 pixels; got {mask_blur}.")
    clip = read_clip(video)
    hole = read_clip_mask(mask, clip.shape)
    weights = np.stack([masks.blur(one, mask_blur) for one in hole]) if mask_blur else None
    wide = hole if weights is None else weights > 0
    masks.check_mask(wide)
    opened = _open(model, device, torch_dtype)
    spans = plan_windows(len(hole), window or opened.training_frames, overlap, opened.codec.frames)
    own = opened.sampler if method is None else Sampler()
    if method is None:
        method = methods.get(own.method, **own.fields)
    chosen = methods.get(method) if isinstance(method, str) else method
    steps = own.num_inference_steps if num_inference_steps is None else num_inference_steps
    if int(steps) != steps or steps < 1:
        raise ValueError(f"num_inference_steps must be a whole number of at least 1; got {steps}.")
    generators, seeds = one_or_each(generator, 1)
    frame = choose_size(_crop(wide, opened, padding_mask_crop), opened, (height, width))
    told = {
        "guidance_scale_2": guidance_scale_2,
        "prompt_embeds": prompt_embeds,
        "negative_prompt_embeds": negative_prompt_embeds,
    }
    output = VideoOutput([], 0, 0, 0.0, None, seeds, {})
    with (
        PeakMemory(opened.device) as memory,
        tqdm(unit="step", leave=False, disable=None if progress_bar else True) as bar,
    ):

        def step(index: int, t: float, x: Tensor, x0: Tensor) -> bool:
            bar.update()
            return bool(callback is not None and callback(index, t, x, x0))

        def sample(values: Tensor, known: Tensor) -> Result:
            codec = opened.codec
            size = (values.shape[2], *frame.size)
            shown = opened.denoiser(prompt, negative_prompt, guidance_scale, size=size, **told)
            bar.total = (bar.total or 0) + int(steps)
            return chosen.sample(
                shown,
                # the hole is filled already, with more care for hidden frames than observe takes
                observe(codec, values, known, policy=latent_mask, hidden=values),
                num_inference_steps=int(steps),
                generator=generators,
                callback=step,
            )

        painting = _Painting(clip.frames.copy(), hole, wide.copy(), weights, frame, opened)
        for start, stop in spans:
            result = painting.paint(start, stop, sample)
            if result is None:
                continue
            output.windows.append(Window(start, stop, (frame.size[1], frame.size[0]), result.evaluations, result.vjps))
            output.evaluations += result.evaluations
            output.vjps += result.vjps
            if result.stopped:
                output.stopped = True
                break
        opened.release()
    output.frames = _convert(dataclasses.replace(clip, frames=painting.frames), output_type)
    output.seconds = time.perf_counter() - began
    output.peak_memory_bytes = memory.bytes
    output.settings = {
        "model": opened.name,
        "method": chosen.name,
        "fields": dataclasses.asdict(chosen),
        "num_inference_steps": int(steps),
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "guidance_scale": guidance_scale,
        "guidance_scale_2": guidance_scale_2,
        "padding_mask_crop": padding_mask_crop,
        "mask_blur": mask_blur,
        "height": height,
        "width": width,
        "window": window or opened.training_frames,
        "overlap": overlap,
        "latent_mask": latent_mask,
    }
    return output


@dataclass
class _Painting:
    """A clip that is being painted.

    Attributes:
        frames: (F, H, W, 3) as given, painted window by window.
        hole: (F, H, W) bool, what is replaced wholly.
        todo: (F, H, W) bool, what is not painted yet, the seam included.
        weights: (F, H, W) of the seam, or None.
        frame: the crop and the size it is painted at.
        model: that paints.
    """

    frames: NDArray[Any]
    hole: NDArray[np.bool_]
    todo: NDArray[np.bool_]
    weights: NDArray[np.float32] | None
    frame: Frame
    model: LatentModel

    @torch.no_grad()
    def paint(self, start: int, stop: int, sample: Callable[[Tensor, Tensor], Result]) -> Result | None:
        """Paints what is hidden of a window; None where nothing is."""
        todo = self.todo[start:stop]
        if not todo.any():
            return None
        values, known = self._enter(start, stop)
        result = sample(values.to(self.model.device), known.to(self.model.device))
        decoded = self.model.codec.decode(result.x)[0].float().cpu().clamp(-1, 1).transpose(0, 1)
        painted = self.frame.leave(decoded[: stop - start]).permute(0, 2, 3, 1).numpy()
        new = np.zeros((*self.frames.shape[1:3], 3), np.float32)
        for number in np.flatnonzero(todo.any((1, 2))):
            place = start + number
            new[self.frame.box.slices] = painted[number]
            weight = None if self.weights is None else self.weights[place]
            self.frames[place] = Picture(self.frames[place]).with_pixels(new, self.hole[place], weight).pixels
        todo[:] = False
        return result

    def _enter(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The window before the model, (1, 3, F, H, W) with its hole filled and (1, 1, F, H, W) bool."""
        box, factor = self.frame.box, self.model.codec.frames
        inside = (slice(start, stop), *box.slices)
        values = torch.from_numpy(np.stack([Picture(one).to_unit() for one in self.frames[inside]])).permute(0, 3, 1, 2)
        known = torch.from_numpy(~self.todo[inside])[:, None]
        filled = fill_hole(values, known)
        seen = np.flatnonzero(known.flatten(1).any(1).numpy())
        count = len(filled)
        if 0 < len(seen) < count:
            nearest = [seen[np.abs(seen - number).argmin()] for number in range(count)]
            filled = filled[torch.tensor(np.array(nearest))]
        more = torch.arange(count + -(count - 1) % factor).clamp(max=count - 1)
        values, known = self.frame.enter(filled)[more], self.frame.enter_known(known)[more]
        return values.transpose(0, 1)[None], known.transpose(0, 1)[None]


def _open(model: Any, device: Any, torch_dtype: torch.dtype | None) -> LatentModel:
    """The model of clips.

    Raises:
        ValueError: for one of pictures.
    """
    if isinstance(model, Inpainter):
        model = model.model
    if not isinstance(model, str | Path | Model):
        from paintback.models.diffusers import from_pipe

        model = from_pipe(model)
    opened = open_model(model, device, torch_dtype)
    if not isinstance(opened, LatentModel) or opened.training_frames == 1:
        raise ValueError(
            f"The model {opened.name!r} paints pictures, not clips; give a model of clips, such as the folder of a "
            "WanPipeline."
        )
    return opened


def _crop(hole: NDArray[np.bool_], model: LatentModel, context: int | None) -> Box:
    """The part of every frame that the model sees: all of it, or a crop around the hole of all frames."""
    together, side = np.asarray(hole.any(0)), model.training_size
    if context is not None:
        return context_crop(together, context=context, minimum=model.multiple, multiple=model.multiple)
    if together.size <= LARGEST * side**2:
        return Box(0, 0, *together.shape)
    return context_crop(together, context=0.5, minimum=side, multiple=model.multiple)


def _convert(clip: Clip, output_type: VideoType) -> Any:
    if output_type == "clip":
        return clip
    pictures = [Picture(frame) for frame in clip.frames]
    if output_type == "pil":
        return [to_pil(picture) for picture in pictures]
    array = np.stack([to_numpy(picture) for picture in pictures])
    return array if output_type == "np" else torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()
