"""Modular blocks of diffusers: the denoise step of `stable-diffusion-3` replaced by Paintback's methods."""

from diffusers.modular_pipelines import SequentialPipelineBlocks
from diffusers.modular_pipelines.stable_diffusion_3.encoders import StableDiffusion3TextEncoderStep

from paintback.tasks.pipelines import denoise_step

PaintbackDenoiseStep = denoise_step("StableDiffusion3Pipeline", ("vae", "transformer", "scheduler"), guided=True)


class PaintbackBlocks(SequentialPipelineBlocks):
    """Text encoder, then Paintback: pictures, masks and prompts in, pictures out."""

    model_name = "stable-diffusion-3"
    block_classes = [StableDiffusion3TextEncoderStep, PaintbackDenoiseStep]
    block_names = ["text_encoder", "denoise"]

    @property
    def description(self) -> str:
        """What the blocks do."""
        return "Paints back what mask_image hides of image, as the prompt says."
