"""`custom_pipeline` of Stable Diffusion, called as its inpainting pipeline, painted by Paintback's methods."""

from __future__ import annotations

from typing import Any

from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

from paintback.tasks.pipelines import inpaint_call


def _output(pipe: Any, images: Any) -> StableDiffusionPipelineOutput:
    """The pictures, those that the pipeline's safety checker flags blackened, where it has one."""
    flags = None
    if pipe.safety_checker is not None:
        arrays = pipe.image_processor.pil_to_numpy(images) if isinstance(images, list) else images
        arrays = arrays.movedim(1, -1).numpy() if hasattr(arrays, "movedim") else arrays
        _, flags = pipe.run_safety_checker(arrays.copy(), pipe._execution_device, pipe.unet.dtype)
        for k, flag in enumerate(flags):
            if flag:
                images[k] = images[k].point(lambda value: 0) if isinstance(images, list) else 0 * images[k]
    return StableDiffusionPipelineOutput(images=images, nsfw_content_detected=flags)


class PaintbackPipeline(StableDiffusionPipeline):
    """Paints with any checkpoint of Stable Diffusion that was not trained to inpaint."""

    __call__ = inpaint_call(StableDiffusionInpaintPipeline, _output)
