"""Modular blocks of diffusers: the denoise step of `flux` replaced by Paintback's methods."""

from diffusers.modular_pipelines import SequentialPipelineBlocks
from diffusers.modular_pipelines.flux.encoders import FluxTextEncoderStep

from paintback.tasks.pipelines import denoise_step

PaintbackDenoiseStep = denoise_step("FluxPipeline", ("vae", "transformer", "scheduler"), guided=False)


class PaintbackBlocks(SequentialPipelineBlocks):
    """Text encoder, then Paintback: pictures, masks and prompts in, pictures out."""

    model_name = "flux"
    block_classes = [FluxTextEncoderStep, PaintbackDenoiseStep]
    block_names = ["text_encoder", "denoise"]

    @property
    def description(self) -> str:
        """What the blocks do."""
        return "Paints back what mask_image hides of image, as the prompt says."
