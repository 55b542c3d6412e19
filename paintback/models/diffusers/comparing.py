"""The pipeline's own call from a given noise, for comparisons with ours."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from paintback.models.diffusers.base import is_edm, is_flow

__all__ = ["first_order", "run_pipe"]


def first_order(scheduler: Any) -> tuple[Any, str | None]:
    """A scheduler of the same levels whose steps are plain Euler steps to the clean picture, as ours are.

    Args:
        scheduler: of a pipeline.

    Returns:
        The scheduler, and None; or the scheduler itself and why there is none.
    """
    from diffusers import DDIMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

    if type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler":
        return scheduler, None
    if is_flow(scheduler):
        shift = scheduler.config.get("flow_shift", 1.0)
        return FlowMatchEulerDiscreteScheduler(shift=shift or 1.0), None
    if is_edm(scheduler):
        return EDMEulerScheduler.from_config(scheduler.config), None
    if getattr(scheduler, "betas", None) is None:
        return scheduler, f"{type(scheduler).__name__} has no first-order twin that we know"
    plain = DDIMScheduler.from_config(
        scheduler.config, set_alpha_to_one=True, clip_sample=False, thresholding=False, timestep_spacing="trailing"
    )
    return plain, None


def run_pipe(
    model: Any, noise: Tensor, prompt: str | None, size: tuple[int, ...], steps: int, image: Any = None
) -> Tensor:
    """The pipeline's pictures from a given noise, in [0, 1], (B, 3, H, W) or (B, F, 3, H, W).

    Args:
        model: the adapter.
        noise: (B, ...) state at the first time.
        prompt: text; with None the pipeline is called without any.
        size: (H, W) or (F, H, W).
        steps: N.
        image: to go by, for a pipeline that cannot do without one.
    """
    pipe = model.pipe
    words = {"prompt": prompt or "", "height": size[-2], "width": size[-1], "latents": model.as_latents(noise)}
    if image is not None:
        words["image"] = image
    if len(size) == 3:
        words["num_frames"] = size[0]
    if prompt is None and model.guidance_scale > 1:
        words["guidance_scale"] = 1.0
    if "max_area" in inspect.signature(type(pipe).__call__).parameters:
        words["max_area"] = size[-2] * size[-1]
    if "use_resolution_binning" in inspect.signature(type(pipe).__call__).parameters:
        words["use_resolution_binning"] = False  # sizes are kept as they are
    if "guidance_schedule" in inspect.signature(type(pipe).__call__).parameters:  # of as many steps as it has
        words |= {"guidance_scale": words.get("guidance_scale", model.guidance_scale), "guidance_schedule": None}
    if hasattr(pipe, "resolutions"):
        pipe.resolutions = [(size[-1], size[-2])]  # likewise
    out = pipe(**words, num_inference_steps=steps, output_type="pt")
    if hasattr(out, "frames"):
        made: Tensor = out.frames.transpose(1, 2)
    else:
        made = out.images if hasattr(out, "images") else out.image
    return made
