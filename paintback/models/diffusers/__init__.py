"""Pipelines of diffusers as models: one adapter per family, found by the class of the pipeline."""

from paintback.models.diffusers.families import FAMILIES, from_pipe
from paintback.models.diffusers.loading import Offload, estimate, load_pipeline, load_single_file

__all__ = ["FAMILIES", "Offload", "estimate", "from_pipe", "load_pipeline", "load_single_file"]
