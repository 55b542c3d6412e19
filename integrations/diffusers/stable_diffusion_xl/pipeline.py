"""`custom_pipeline` of Stable Diffusion XL, called as its inpainting pipeline, painted by Paintback's methods."""

from diffusers import StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput

from paintback.tasks.pipelines import inpaint_call


class PaintbackPipeline(StableDiffusionXLPipeline):
    """Paints with any checkpoint of Stable Diffusion XL that was not trained to inpaint."""

    __call__ = inpaint_call(
        StableDiffusionXLInpaintPipeline, lambda pipe, images: StableDiffusionXLPipelineOutput(images=images)
    )
