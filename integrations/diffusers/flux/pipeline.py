"""`custom_pipeline` of FLUX.1, called as its inpainting pipeline, painted by Paintback's methods."""

from diffusers import FluxInpaintPipeline, FluxPipeline
from diffusers.pipelines.flux.pipeline_output import FluxPipelineOutput

from paintback.tasks.pipelines import inpaint_call


class PaintbackPipeline(FluxPipeline):
    """Paints with any checkpoint of FLUX.1 that was not trained to inpaint."""

    __call__ = inpaint_call(FluxInpaintPipeline, lambda pipe, images: FluxPipelineOutput(images=images))
