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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Unpack

from paintback.images import masks
from paintback.images.clips import Clip, Masks, extend_clip, read_clip, read_clip_mask
from paintback.images.picture import Picture, to_numpy, to_pil
from paintback.images.regions import Box, context_crop
from paintback.methods.base import Callback
from paintback.models.base import Model, Told
from paintback.models.latent import LatentModel
from paintback.painting.frames import LARGEST, choose_size
from paintback.painting.layout import Policy
from paintback.painting.request import Request
from paintback.painting.session import Session, draw_generators, open_model
from paintback.painting.windows import ClipPainting, Window, plan_windows
from paintback.tasks.checks import warn_of_method
from paintback.tasks.inpaint import Inpainter
from paintback.tasks.options import Options, asked, embeddings, settle, to_settings

__all__ = ["VideoOutput", "Window", "inpaint_video", "plan_windows"]

VideoType = Literal["pil", "np", "pt", "clip"]
TYPES = ("pil", "np", "pt", "clip")


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
    seeds: list[int | None]
    settings: dict[str, Any]
    windows: list[Window] = field(default_factory=list)
    stopped: bool = False


class ClipOptions(Options, total=False):
    """What `inpaint_video` takes beside an `Inpainter`'s keywords.

    Attributes:
        guidance_scale_2: of the second transformer of Wan 2.2; None for the same as the first.
        window: frames that are painted together, 4 k + 1, of LTX 8 k + 1; None for those of the clips the
            model learnt from.
        overlap: frames that a window shares at least with the one before, likewise; 17 by default.
    """

    guidance_scale_2: float | None
    window: int | None
    overlap: int


def inpaint_video(
    video: Any,
    mask: Any = None,
    *,
    model: str | Path | Model | Inpainter | Any,
    prompt: str | None = None,
    output_type: VideoType = "pil",
    callback: Callback | None = None,
    progress_bar: bool = True,
    device: Any = None,
    torch_dtype: torch.dtype | None = None,
    **options: Unpack[ClipOptions],
) -> VideoOutput:
    """Paints back what the mask hides of a clip.

    Args:
        video: a path, a list of pictures, numpy (F, H, W, 3), or torch (F, 3, H, W) in [0, 1].
        mask: one mask for all frames, or one for each (see `images.clips.read_clip_mask`); white = repaint. None where
            `outpaint` says what is missing.
        model: a loaded pipeline of clips (WanPipeline), its folder or Hub id, or an `Inpainter` or model that holds it.
        prompt: text.
        output_type: "pil" (a list), "np" ((F, H, W, 3) in [0, 1]), "pt" ((F, 3, H, W) in [0, 1]), or "clip" (an
            `images.clips.Clip`, with the type of its numbers kept).
        callback: called after every step with (step, t, x, x0); returning True stops.
        progress_bar: whether to show one.
        device: for a model that is loaded here.
        torch_dtype: likewise.
        **options: see `ClipOptions`; as an `Inpainter`'s, for one clip. `height` and `width` are what the clip, or the
            crop around the hole, is scaled to before the model; `padding_mask_crop` is over all frames, None for the
            whole clip where it is not much larger than what the model learnt from, else for a crop of that size; of
            `average` draws the clip is the mean.

    Returns:
        The frames, of the input's size and number, bit-identical outside the hole, with their cost and settings.

    Raises:
        ValueError: for input that does not fit, in one sentence.
    """
    if output_type not in TYPES:
        raise ValueError(f"output_type must be one of {', '.join(TYPES)}; got {output_type!r}.")
    request, method = asked({**options, "prompt": prompt}, clips=True)
    generator = options.get("generator", None if options.get("request") is None else request.seed)
    if request.samples > 1 or isinstance(generator, list | tuple):
        raise ValueError("inpaint_video makes one clip and takes one generator or seed; call it again for another.")
    clip, hole = _prepare(read_clip(video), mask, request)
    weights = np.stack([masks.blur(one, request.blur) for one in hole]) if request.blur else None
    wide = hole if weights is None else weights > 0
    masks.check_mask(wide, f"blur={request.blur:g}" if request.blur else "")
    opened = _open(model, device, torch_dtype)
    request, recipe = settle(opened, Policy(), request, method)
    warn_of_method(opened, recipe.method)
    request = request.with_(window=request.window or opened.training_frames)
    spans = plan_windows(len(hole), int(request.window or 0), request.overlap, opened.codec.frames)
    frame = choose_size(_crop(wide, opened, request.padding), opened, recipe.size)
    second = {} if request.guidance_2 is None else {"guidance_scale_2": request.guidance_2}
    rate = {"frame_rate": float(clip.rate)} if "frame_rate" in getattr(opened, "keywords", ()) else {}
    told = Told(request.prompt, request.negative_prompt, request.guidance, {**embeddings(request), **second, **rate})
    painting = ClipPainting(clip.frames.copy(), hole, wide.copy(), weights, frame, opened, recipe, told)
    progress = {"disable": None if progress_bar else True}
    step: Any = callback  # every method here predicts
    windows = []
    with Session(opened, str(request.method), generator, progress=progress, step=step, method=recipe.method) as session:
        drawn = draw_generators(session.generators, 1, recipe.draws)
        spans = painting.with_holes(spans)
        for start, stop in spans:
            windows.append(painting.paint(start, stop, drawn, len(spans), session))
            if session.stopped:
                break
    return VideoOutput(
        frames=_convert(dataclasses.replace(clip, frames=painting.frames), output_type),
        evaluations=session.evaluations,
        vjps=session.vjps,
        seconds=session.seconds,
        peak_memory_bytes=session.peak_memory_bytes,
        seeds=session.seeds,
        settings=to_settings(opened, request, clips=True),
        windows=windows,
        stopped=session.stopped,
    )


def _prepare(clip: Clip, mask: Any, request: Request) -> tuple[Clip, Masks]:
    """The clip and its hole, both extended as the request says, and the hole grown."""
    if mask is None and any(request.outpaint):
        hole = np.zeros(clip.shape, bool)
    else:
        hole = read_clip_mask(mask, clip.shape, mask_is=request.mask_is)
    if any(request.outpaint):
        left, top, _, _ = request.outpaint
        _, height, width = clip.shape
        clip, wide = extend_clip(clip, *request.outpaint)
        wide[:, top : top + height, left : left + width] |= hole
        hole = wide
    masks.check_mask(hole, f"mask_is={request.mask_is}" if request.mask_is not in (None, "auto") else "")
    if request.grow:
        hole = np.stack([masks.grow(one, request.grow) for one in hole])
        masks.check_mask(hole, f"grow={request.grow:g}")
    return clip, hole


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
    return open_model(model, device, torch_dtype).as_clips()


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
