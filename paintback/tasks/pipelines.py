"""What `integrations/diffusers/` is made of: custom pipelines and modular blocks with the call of diffusers."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from paintback.tasks.inpaint import Inpainter
from paintback.tasks.options import ELSEWHERE, keywords, signature

__all__ = ["PASSED", "denoise_step", "inpaint_call", "paint"]

# keywords of diffusers' inpainting pipelines that an Inpainter takes too
PASSED = ("image", "mask_image", "prompt", "generator", "output_type", *keywords())
RETURNED = ("return_dict", "callback_on_step_end")


def inpaint_call(like: type, output: Callable[..., Any]) -> Callable[..., Any]:
    """The `__call__` of a custom pipeline: the signature of one of diffusers for inpainting, painted by an Inpainter.

    Names, order and defaults are diffusers', but for `strength`, which is 1: the hidden part is forgotten. What an
    `Inpainter` takes beside them (`method`, `quality`, ...) stands behind. A picture keeps its size and every pixel
    outside the mask.

    Args:
        like: diffusers' pipeline, `StableDiffusionInpaintPipeline` say.
        output: makes what the call returns, of the pictures.

    Raises:
        ValueError: by the call, for an argument that means nothing here, with what takes its place.
    """
    theirs = inspect.signature(like.__call__)
    parameters = [one for one in theirs.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = [one.replace(default=1.0) if one.name == "strength" else one for one in parameters]
    ours = signature().parameters.values()
    known = {one.name for one in parameters}
    parameters += [one for one in ours if one.name not in known and one.name in keywords()]
    made = inspect.Signature(parameters)

    def call(self: Any, *args: Any, **given: Any) -> Any:
        bound = made.bind(self, *args, **given)
        said = set(bound.arguments)
        bound.apply_defaults()
        values = {name: value for name, value in bound.arguments.items() if name != "self"}
        for name in said - {"self", *PASSED, *RETURNED}:
            if values[name] is not None and values[name] != made.parameters[name].default:
                raise ValueError(f"{name} means nothing here: {ELSEWHERE.get(name, 'leave it out')}.")
        told = values["callback_on_step_end"]
        pictures = paint(self, {name: value for name, value in values.items() if name in PASSED}, told)
        made_of = output(self, pictures)
        if values["return_dict"]:
            return made_of
        return tuple(getattr(made_of, one.name) for one in dataclasses.fields(made_of))

    call.__signature__ = made  # type: ignore[attr-defined]
    call.__doc__ = f"Paints back what the mask hides, called as `{like.__name__}` is; see `inpaint_call`."
    return call


def paint(pipe: Any, values: Mapping[str, Any], callback: Callable[..., Any] | None = None) -> Any:
    """The pictures that an Inpainter of a pipeline makes of diffusers' arguments.

    Args:
        pipe: a pipeline, or what has its components.
        values: arguments by name; None leaves one open, as does a guidance that the model has none of.
        callback: as diffusers calls it: (pipe, step, timestep, {"latents": ...}); `pipe._interrupt = True` stops.

    Returns:
        The pictures, of `output_type`.

    Raises:
        ValueError: for what an Inpainter refuses.
    """
    inpainter = Inpainter.from_pipe(pipe)
    inpainter.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    given = {name: value for name, value in values.items() if value is not None}
    image, mask, prompt = given.pop("image", None), given.pop("mask_image", None), given.get("prompt")
    if isinstance(prompt, list) and not isinstance(image, list) and getattr(image, "ndim", 0) != 4:
        image = [image] * len(prompt)
    if callback is not None:
        count = pipe.scheduler.config.num_train_timesteps

        def step(own: Inpainter, index: int, t: float, tensors: dict[str, Any]) -> None:
            callback(pipe, index, round(t * count), {"latents": tensors["latents"]})
            own.interrupt = bool(getattr(pipe, "_interrupt", False))

        pipe._interrupt = False
        given["callback_on_step_end"] = step
    return inpainter(image, mask, **given).images


def denoise_step(pipeline: str, parts: tuple[str, ...], *, guided: bool) -> type:
    """A modular block in place of a pipeline's encoder, denoising and decoder steps: it paints with an Inpainter.

    It takes the embeddings that the text encoder's block made, the picture and the mask, and gives `images`.

    Args:
        pipeline: the class of the pipeline that has these components, by its name in diffusers.
        parts: components that the pipeline is made of.
        guided: whether the scale of guidance is a `guider`'s, and not an argument.
    """
    import diffusers
    from diffusers.modular_pipelines import ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam

    kind = getattr(diffusers, pipeline)
    taken = [name for name in PASSED if not name.startswith(("prompt", "negative_prompt", "pooled", "negative_pooled"))]
    taken = [name for name in taken if name not in ("true_cfg_scale",) and not (guided and name == "guidance_scale")]
    embeds = ["prompt_embeds", "pooled_prompt_embeds"]
    embeds += ["negative_prompt_embeds", "negative_pooled_prompt_embeds"] if guided else []
    defaults = {name: one.default for name, one in signature().parameters.items()} | {"output_type": "pil"}
    hints = inspect.signature(kind.__init__).parameters

    class PaintbackDenoiseStep(ModularPipelineBlocks):  # type: ignore[misc]
        """Paints back what the mask hides."""

        @property
        def description(self) -> str:
            return "Paints back what mask_image hides of image with a method of Paintback; the rest keeps its bits."

        @property
        def expected_components(self) -> list[Any]:
            specs = [ComponentSpec(name, _class(hints[name].annotation)) for name in parts]
            if guided:
                from diffusers.guiders import ClassifierFreeGuidance

                config = diffusers.configuration_utils.FrozenDict({"guidance_scale": 7.5})
                specs.append(
                    ComponentSpec(
                        "guider", ClassifierFreeGuidance, config=config, default_creation_method="from_config"
                    )
                )
            return specs

        @property
        def inputs(self) -> list[Any]:
            own = [InputParam(name, default=defaults.get(name), required=name == "image") for name in taken]
            return own + [InputParam(name, type_hint=torch.Tensor) for name in embeds]

        @property
        def intermediate_outputs(self) -> list[Any]:
            return [OutputParam("images", description="the pictures")]

        @torch.no_grad()
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block = self.get_block_state(state)
            values = {name: getattr(block, name) for name in (*taken, *embeds)}
            if guided:
                values["guidance_scale"] = float(components.guider.guidance_scale)
            empty = dict.fromkeys(name for name in hints if name.startswith(("text_encoder", "tokenizer")))
            pipe = kind(**empty, **{name: getattr(components, name) for name in parts})
            block.images = paint(pipe, values)
            self.set_block_state(state, block)
            return components, state

    return PaintbackDenoiseStep


def _class(annotation: Any) -> Any:
    """The class that a pipeline's constructor names for a component, the first where it names several."""
    import typing

    return next(iter(typing.get_args(annotation)), annotation)
