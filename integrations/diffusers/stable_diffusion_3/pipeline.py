"""`custom_pipeline` of Stable Diffusion 3, called as its inpainting pipeline, painted by Paintback's methods."""

from diffusers import StableDiffusion3InpaintPipeline, StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_output import StableDiffusion3PipelineOutput

from paintback.tasks.pipelines import inpaint_call


class PaintbackPipeline(StableDiffusion3Pipeline):
    """Paints with any checkpoint of Stable Diffusion 3 that was not trained to inpaint."""

    __call__ = inpaint_call(
        StableDiffusion3InpaintPipeline, lambda pipe, images: StableDiffusion3PipelineOutput(images=images)
    )
