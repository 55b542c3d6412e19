"""Modular blocks of diffusers: the denoise step of `stable-diffusion-xl` replaced by Paintback's methods."""

from diffusers.modular_pipelines import SequentialPipelineBlocks
from diffusers.modular_pipelines.stable_diffusion_xl.encoders import StableDiffusionXLTextEncoderStep

from paintback.tasks.pipelines import denoise_step

PaintbackDenoiseStep = denoise_step("StableDiffusionXLPipeline", ("vae", "unet", "scheduler"), guided=True)


class PaintbackBlocks(SequentialPipelineBlocks):
    """Text encoder, then Paintback: pictures, masks and prompts in, pictures out."""

    model_name = "stable-diffusion-xl"
    block_classes = [StableDiffusionXLTextEncoderStep, PaintbackDenoiseStep]
    block_names = ["text_encoder", "denoise"]

    @property
    def description(self) -> str:
        """What the blocks do."""
        return "Paints back what mask_image hides of image, as the prompt says."
