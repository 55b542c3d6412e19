"""Pipelines of diffusers as models: one adapter per family, found by the class of the pipeline."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintback.models.catalogue import TRAINED
from paintback.models.distilled import is_step_distilled, sampler_of

if TYPE_CHECKING:
    from paintback.models.base import Model

__all__ = ["FAMILIES", "from_pipe", "load_pipeline", "load_single_file"]

# class of the pipeline: module and class of its adapter
FAMILIES: dict[str, tuple[str, str]] = {
    "DDIMPipeline": ("pixel", "PixelPipeline"),
    "DDPMPipeline": ("pixel", "PixelPipeline"),
    "FluxFillPipeline": ("trained", "FluxFill"),
    "Flux2KleinPipeline": ("flux2", "Flux2Klein"),
    "Flux2Pipeline": ("flux2", "Flux2"),
    "FluxPipeline": ("flux", "Flux"),
    "HiDreamImagePipeline": ("hidream", "HiDreamImage"),
    "LDMPipeline": ("pixel", "LatentDiffusion"),
    "QwenImagePipeline": ("qwen_image", "QwenImage"),
    "StableDiffusion3Pipeline": ("sd3", "StableDiffusion3"),
    "StableDiffusion3ControlNetInpaintingPipeline": ("trained", "StableDiffusion3Inpaint"),
    "StableDiffusionInpaintPipeline": ("trained", "StableDiffusionInpaint"),
    "StableDiffusionPipeline": ("stable_diffusion", "StableDiffusion"),
    "StableDiffusionXLInpaintPipeline": ("trained", "StableDiffusionXLInpaint"),
    "StableDiffusionXLPipeline": ("stable_diffusion", "StableDiffusionXL"),
    "ZImagePipeline": ("z_image", "ZImage"),
    "WanPipeline": ("wan", "Wan"),
}


def from_pipe(pipe: Any, *, name: str | None = None, step_distilled: bool | None = None) -> Model:
    """The adapter of a loaded pipeline, which stays the user's: LoRA, dtype, devices and hooks as they are.

    Args:
        pipe: a diffusers pipeline.
        name: what to call it; by default where it was loaded from.
        step_distilled: whether it was trained to paint in a few steps; None to go by its name, scheduler and LoRA.

    Raises:
        ValueError: for a pipeline of no known family.
    """
    kind = type(pipe).__name__
    # a class of the user's own that derives from one of diffusers', such as a custom pipeline, is of its family
    kind = next((base.__name__ for base in type(pipe).__mro__ if base.__name__ in FAMILIES), kind)
    if kind not in FAMILIES:
        raise ValueError(f"There is no adapter for {kind}; there are for {', '.join(sorted(FAMILIES))}.")
    module, adapter = FAMILIES[kind]
    own = getattr(importlib.import_module(f"{__name__}.{module}"), adapter)
    model: Model = own.from_pipe(pipe, name or str(getattr(pipe, "name_or_path", "") or kind))
    few = is_step_distilled(model.name, pipe) if step_distilled is None else step_distilled
    if not few or model.sampler.method == TRAINED:
        return model
    return dataclasses.replace(model, step_distilled=True, sampler=sampler_of(model.name, pipe))


def load_pipeline(name: str | Path, *, device: Any = None, dtype: Any = None, **options: Any) -> Model:
    """A pipeline from a folder or from the Hub.

    Args:
        name: a folder with a `model_index.json`, or a Hub id "owner/name".
        device: None for CUDA where there is one, else the CPU.
        dtype: of its modules; None for float32.
        options: for `DiffusionPipeline.from_pretrained`.

    Raises:
        ValueError: if diffusers is not installed, or there is no such pipeline.
    """
    diffusers = _diffusers()
    folder = Path(name)
    index = folder / "model_index.json"
    if index.is_file():
        # a pipeline saved without an optional module has to be told so again
        parts = json.loads(index.read_text(encoding="utf-8"))
        empty = {key: None for key, value in parts.items() if value == [None, None]}
        options = {**empty, **options}
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(str(name), dtype=_dtype(dtype), **options)
    except (OSError, ValueError) as error:
        reason = _first_sentence(error)
        if not folder.exists():
            reason = "no folder, not in the Hub's cache, not fetched; check the name, the network and HF_HUB_OFFLINE."
        raise ValueError(f"No pipeline could be loaded from {str(name)!r}: {reason}") from error
    return _own(pipe, str(name), device)


def load_single_file(
    path: str | Path, *, config: str | Path | None = None, device: Any = None, dtype: Any = None, **options: Any
) -> Model:
    """A pipeline from one checkpoint file.

    Args:
        path: .safetensors, or .ckpt (which diffusers opens without executing it).
        config: the folder or Hub id of a pipeline of the same architecture; None to let diffusers find it, which
            needs the Hub.
        device: None for CUDA where there is one, else the CPU.
        dtype: of its modules; None for float32.
        options: for the pipeline's `from_single_file`.

    Raises:
        ValueError: if diffusers is not installed, or the file cannot be read.
    """
    diffusers = _diffusers()
    if not Path(path).is_file():
        raise ValueError(f"There is no file {str(path)!r}; give a checkpoint's path.")
    if config is None:
        try:
            from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint

            config = fetch_diffusers_config(load_single_file_checkpoint(str(path)))["pretrained_model_name_or_path"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"The architecture of {str(path)!r} is not clear; give config=, a pipeline's folder."
            ) from error
    try:
        kind = diffusers.DiffusionPipeline.load_config(str(config))["_class_name"]
        pipe = getattr(diffusers, kind).from_single_file(str(path), config=str(config), dtype=_dtype(dtype), **options)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"No pipeline could be loaded from {str(path)!r}: {_first_sentence(error)}") from error
    return _own(pipe, str(path), device)


def _own(pipe: Any, name: str, device: Any) -> Model:
    """Puts a pipeline that we loaded ourselves to use: on a device, without gradients of its weights."""
    import torch

    where = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        pipe.to(where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"The device {where} cannot be used here: {_first_sentence(error)}") from error
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.requires_grad_(False)
    return from_pipe(pipe, name=name)


def _diffusers() -> Any:
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise ValueError(
            "Pipelines need diffusers, which is not installed; run pip install 'paintback[models]'."
        ) from error


def _dtype(dtype: Any) -> Any:
    import torch

    return torch.float32 if dtype is None else dtype


def _first_sentence(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
