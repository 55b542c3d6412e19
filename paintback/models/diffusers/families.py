"""Which adapter a pipeline has: by its class, one that it derives from, or one whose components it has."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any

from paintback.models.catalogue import TRAINED
from paintback.models.distilled import is_step_distilled, sampler_of

if TYPE_CHECKING:
    from paintback.models.base import Model

__all__ = ["FAMILIES", "REFUSED", "SIBLINGS", "adapter_of", "from_pipe"]

# class of the pipeline: module and class of its adapter
FAMILIES: dict[str, tuple[str, str]] = {
    "AceStepPipeline": ("ace_step", "AceStep"),
    "AuraFlowPipeline": ("aura_flow", "AuraFlow"),
    "ChromaPipeline": ("chroma", "Chroma"),
    "DDIMPipeline": ("pixel", "PixelPipeline"),
    "DDPMPipeline": ("pixel", "PixelPipeline"),
    "FluxControlPipeline": ("flux", "FluxControl"),
    "FluxFillPipeline": ("trained", "FluxFill"),
    "Flux2KleinPipeline": ("flux2", "Flux2Klein"),
    "Flux2Pipeline": ("flux2", "Flux2"),
    "FluxKontextPipeline": ("flux", "FluxKontext"),
    "FluxPipeline": ("flux", "Flux"),
    "HiDreamImagePipeline": ("hidream", "HiDreamImage"),
    "HunyuanVideoPipeline": ("hunyuan_video", "HunyuanVideo"),
    "Ideogram4Pipeline": ("ideogram4", "Ideogram4"),
    "Kandinsky5T2IPipeline": ("kandinsky5", "Kandinsky5Image"),
    "Kandinsky5T2VPipeline": ("kandinsky5", "Kandinsky5"),
    "Krea2Pipeline": ("krea2", "Krea2"),
    "LDMPipeline": ("pixel", "LatentDiffusion"),
    "LTXPipeline": ("ltx", "Ltx"),
    "Lumina2Pipeline": ("lumina2", "Lumina2"),
    "PixArtSigmaPipeline": ("pixart", "PixArtSigma"),
    "QwenImageEditPipeline": ("qwen_image", "QwenImageEdit"),
    "QwenImageEditPlusPipeline": ("qwen_image", "QwenImageEditPlus"),
    "QwenImagePipeline": ("qwen_image", "QwenImage"),
    "SanaPipeline": ("sana", "Sana"),
    "StableAudioPipeline": ("stable_audio", "StableAudio"),
    "StableDiffusion3Pipeline": ("sd3", "StableDiffusion3"),
    "StableDiffusion3ControlNetInpaintingPipeline": ("trained", "StableDiffusion3Inpaint"),
    "StableDiffusionInpaintPipeline": ("trained", "StableDiffusionInpaint"),
    "StableDiffusionPipeline": ("stable_diffusion", "StableDiffusion"),
    "StableDiffusionXLInpaintPipeline": ("trained", "StableDiffusionXLInpaint"),
    "StableDiffusionXLPipeline": ("stable_diffusion", "StableDiffusionXL"),
    "ZImagePipeline": ("z_image", "ZImage"),
    "WanPipeline": ("wan", "Wan"),
}
# classes of the same components under another name; the rule for the others is `sibling`
SIBLINGS = {
    "LatentConsistencyModelPipeline": "StableDiffusionPipeline",
    "LatentConsistencyModelImg2ImgPipeline": "StableDiffusionPipeline",
    "LTXImageToVideoPipeline": "LTXPipeline",
}
REFUSED = {
    "HunyuanVideo15Pipeline": "HunyuanVideo 1.5 has another network and other text encoders than HunyuanVideo",
    "Kandinsky5I2IPipeline": "it edits a picture; Kandinsky5T2IPipeline has one",
    "Kandinsky5I2VPipeline": "it starts from a picture; Kandinsky5T2VPipeline has one",
    "LTX2Pipeline": "it paints sound together with the picture, and a mask says nothing of sound",
    "LTXConditionPipeline": "LTX-Video 0.9.5 and later have other times and positions than LTXPipeline, which has one",
    "StableAudio3InpaintPipeline": "it is trained for masks of its own; StableAudioPipeline has one",
    "StableAudio3Pipeline": "it has another network and VAE than Stable Audio Open; StableAudioPipeline has one",
    "StableDiffusionXLControlNetUnionPipeline": (
        "its ControlNet is of several kinds; StableDiffusionXLControlNetPipeline, with ControlNets of one, has one"
    ),
    "WanImageToVideoPipeline": "it starts from a picture, which is an input of its network; WanPipeline has one",
    "WanVACEPipeline": "it is trained for masks of its own; WanPipeline has one",
}
"""Pipelines that are asked for and have no adapter, and why; all others have the same sentence without a reason."""
TASKS = re.compile(r"ControlNet|Img2Img|Inpaint(ing)?")


def from_pipe(pipe: Any, *, name: str | None = None, step_distilled: bool | None = None) -> Model:
    """The adapter of a loaded pipeline, which stays the user's: LoRA, dtype, devices and hooks as they are.

    A class of one's own is taken for the one that it derives from. The classes of a family for other tasks (img2img,
    inpainting without a mask as an input, ControlNet, LCM) are taken for its text-to-image class, whose components
    they have: the methods of Paintback do that task.

    Args:
        pipe: a diffusers pipeline.
        name: what to call it; by default where it was loaded from.
        step_distilled: whether it was trained to paint in a few steps; None to go by its name, scheduler and LoRA.

    Raises:
        ValueError: for a pipeline of no known family.
    """
    model = _of_family(pipe, name or str(getattr(pipe, "name_or_path", "") or type(pipe).__name__))
    few = is_step_distilled(model.name, pipe) if step_distilled is None else step_distilled
    if not few or model.sampler.method == TRAINED:
        return model
    return dataclasses.replace(model, step_distilled=True, sampler=sampler_of(model.name, pipe))


def _of_family(pipe: Any, label: str) -> Model:
    for own in (one.__name__ for one in type(pipe).__mro__):
        adapter = _adapter(own)
        if adapter is not None and adapter.takes(pipe):
            model: Model = adapter.from_pipe(pipe, label)
            return model
        base = sibling(own)
        adapter = _adapter(base) if base != own else None
        if adapter is not None:
            import diffusers

            made: Model = adapter.of(pipe, rebuilt(pipe, getattr(diffusers, base)), label)
            return made
    why = next((f": {REFUSED[one.__name__]}" for one in type(pipe).__mro__ if one.__name__ in REFUSED), "")
    raise ValueError(
        f"There is no adapter for {type(pipe).__name__}{why}; there are for {', '.join(sorted(FAMILIES))}."
    )


def sibling(name: str) -> str:
    """The text-to-image class of a family, by the name of its class for another task."""
    return SIBLINGS.get(name, TASKS.sub("", name))


def rebuilt(pipe: Any, kind: type[Any]) -> Any:
    """A pipeline of another class with the same components and settings; the given one is left alone."""
    has = {**dict(pipe.config), **pipe.components}
    wanted = inspect.signature(kind.__init__).parameters.values()
    given = {one.name: has[one.name] for one in wanted if one.name in has}
    missing = [one.name for one in wanted if one.name not in has and one.default is one.empty and one.name != "self"]
    made = kind(**given, **dict.fromkeys(missing))
    for entry in ("_progress_bar_config",):
        if hasattr(pipe, entry):
            setattr(made, entry, getattr(pipe, entry))
    return made


def adapter_of(kind: str) -> Any:
    """The adapter of a pipeline's class, by its name and that of its text-to-image class, or None."""
    return _adapter(kind) or _adapter(sibling(kind))


def _adapter(kind: str) -> Any:
    if kind not in FAMILIES:
        return None
    module, adapter = FAMILIES[kind]
    return getattr(importlib.import_module(f"paintback.models.diffusers.{module}"), adapter)
