"""The keywords of Python: those of the request under diffusers' names, and what lives in Python alone."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypedDict, TypeVar

from pydantic import ValidationError
from torch import Tensor

from paintback import methods
from paintback.methods.base import Method
from paintback.models.base import Model
from paintback.models.catalogue import TRAINED, Sampler
from paintback.models.latent import LatentPolicy
from paintback.painting import quality
from paintback.painting.grids import of_request
from paintback.painting.layout import Policy, Recipe
from paintback.painting.request import Asked, Quality, Request, options, sentence
from paintback.painting.session import Generator
from paintback.tasks.checks import check_gradients

__all__ = [
    "CALL",
    "Options",
    "asked",
    "each_of",
    "embeddings",
    "from_python",
    "keywords",
    "per_picture",
    "settle",
    "signature",
    "to_settings",
]

# What a pipeline takes beside the text: settings that are recorded, and what only Python hands over.
WORDS = (
    "true_cfg_scale",
    "prompt_2",
    "prompt_3",
    "negative_prompt_2",
    "negative_prompt_3",
    "clip_skip",
    "max_sequence_length",
    "guidance_rescale",
    "reference_images",
)
HANDED = tuple(one.name for one in options(Request) if one.group == "record" and "python" in one.where)
EMBEDDINGS = WORDS + HANDED
A = TypeVar("A", bound=Asked)

CALL = {"generator": None, "batch_size": 1, "callback_on_step_end": None, "request": None}
"""Keywords with their defaults that are of a call and no part of what is asked."""

_SIZES = "the sizes are told as they are"
ELSEWHERE = {
    "aesthetic_score": "no refiner is run",
    "callback": "callback_on_step_end is called after every step",
    "callback_on_step_end_tensor_inputs": "callback_on_step_end always gets latents and x0",
    "callback_steps": "callback_on_step_end is called after every step",
    "cfg_normalization": "guidance is the plain mix of both predictions; lower guidance_scale",
    "cfg_truncation": "guidance is on in every step; lower guidance_scale",
    "control_mask": "any method paints in the hole of mask_image; a ControlNet follows control_image",
    "controlnet_pooled_projections": "the ControlNet is told the pooled text that its pipeline tells it by default",
    "crops_coords_top_left": _SIZES,
    "denoising_end": "a picture is painted to its end",
    "denoising_start": "strength says how much of the noise is put on the picture",
    "eta": 'give it to a method that has one, as method="ding" with fields={"eta": ...}',
    "ip_adapter_image": "the other side of an IP-Adapter's guidance is what its pipeline takes by default, no picture",
    "ip_adapter_image_embeds": "those of the negative picture stand first in ip_adapter_image_embeds",
    "latents": "the noise is drawn by generator",
    "mask": "give mask_image",
    "masked_image_latents": "the picture and the mask are encoded here; give mask_image",
    "mu": "the shift of the times is worked out from the picture's size",
    "original_size": _SIZES,
    "return_dict": "what comes back is always an Output",
    "seed": "give generator, which also takes a seed",
    "target_size": _SIZES,
}
"""Keywords of diffusers' pipelines that mean nothing here, and what takes their place."""


class Options(TypedDict, total=False):
    """What `Inpainter` and `pb.inpaint` take beside picture, mask and prompt. Defaults and limits are `Request`'s.

    Attributes:
        negative_prompt: text, or one for each picture.
        method: a name, or a method made by `methods.get`; None for what the model's card recommends, and "ding" where
            it names nothing. A checkpoint that takes the mask as an input runs only as "trained".
        fields: of a method that is named.
        thin_method: NAME:FIELD=VALUE..., a method of its own for thin holes, of models of pixels; None for what the
            model's card recommends, or for `method` where that is named.
        quality: "fast", "good" or "best": see `painting.quality`; a method, steps or average of one's own beat it.
        average: draws whose mean is an answer; None for what the quality says.
        num_inference_steps: grid intervals; None for what goes with the recommended method and the quality.
        timesteps: the model's own timesteps, falling, in place of num_inference_steps.
        sigmas: noise levels as the model's scheduler takes them, falling, likewise.
        grid: how the steps are spaced: "model", "uniform", "karras", "log_snr", or times falling from at most 1.
        guidance_scale: of classifier-free guidance; None for the model's own.
        true_cfg_scale: of guidance by two calls, for models whose `guidance_scale` is an input of the network.
        num_images_per_prompt: answers for each picture.
        strength: below 1, the hidden part is not forgotten: sampling starts from the picture itself, noised to this
            fraction of the steps.
        padding_mask_crop: pixels of context around the hole; None for the model's own.
        mask_is: which part of the mask is repainted.
        mask_grow: pixels to grow the mask by.
        mask_blur: the hole is grown by this many pixels, over which old and new are blended.
        outpaint: pixels to add left, top, right and bottom.
        height: what a crop is scaled to before a latent model; None for the model's own choice.
        width: likewise.
        latent_mask: which latent cells count as known: those of which "all", the "majority" or "any" pixels are.
        match_colour: brings the colours of what a model with a VAE paints to those around the hole.
        leaky_encoding: encodes the picture with what the mask hides, as some papers' code does; the model then knows
            what it should not.
        prompt_2: for a pipeline's second text encoder; None for `prompt`.
        prompt_3: likewise, the third.
        negative_prompt_2: likewise, for `negative_prompt`.
        negative_prompt_3: likewise.
        clip_skip: last layers of CLIP that are left out.
        max_sequence_length: tokens of a prompt.
        guidance_rescale: share of the guided output that is scaled to the deviation without guidance, for Stable
            Diffusion and SDXL.
        reference_images: a picture to go by, or several, of FLUX.1 Kontext, FLUX.2 and Qwen-Image-Edit; often the one
            that is painted in. Each is whatever a picture may be; settings hold them where all are paths.
        prompt_embeds: in place of the text, as the model's pipeline makes it.
        negative_prompt_embeds: likewise.
        pooled_prompt_embeds: likewise.
        negative_pooled_prompt_embeds: likewise.
        prompt_attention_mask: which words are no padding, of families that ask for it beside the embeddings.
        negative_prompt_attention_mask: likewise.
        prompt_embeds_mask: of Qwen-Image, beside its embeddings.
        negative_prompt_embeds_mask: likewise.
        prompt_embeds_t5: of HiDream, likewise.
        negative_prompt_embeds_t5: likewise.
        prompt_embeds_llama3: of HiDream, likewise.
        negative_prompt_embeds_llama3: likewise.
        cross_attention_kwargs: what Stable Diffusion's and SDXL's attention layers are told, such as LoRA's scale.
        joint_attention_kwargs: the same, of SD 3 and FLUX.1.
        attention_kwargs: the same, of FLUX.2, Qwen-Image, HiDream and Wan.
        ip_adapter_image: a picture beside the prompt, or one for each IP-Adapter that the pipeline has loaded, for
            Stable Diffusion, SDXL, SD 3, FLUX.1 and Chroma.
        ip_adapter_image_embeds: in place of it, as the pipeline makes them; the negative ones first under guidance.
        control_image: what the pipeline's ControlNet follows, or one for each, of all of the picture; the pipeline is
            one of the ControlNet classes of Stable Diffusion, SDXL, SD 3, FLUX.1, Qwen-Image, Z-Image or Sana, which
            without it are not asked, or a FluxControlPipeline, which needs it.
        controlnet_conditioning_scale: how strongly, 1 by default (.75 of Z-Image); one number, or one for each.
        control_guidance_start: share of the steps before which it is not followed, 0 by default; likewise.
        control_guidance_end: share of the steps after which it is not, 1 by default; likewise.
        control_mode: the kind of picture, for a union ControlNet of FLUX.1; one number, or one for each.
        guess_mode: of Stable Diffusion and SDXL: the side of guidance without the prompt does without the ControlNet.
        skip_guidance_layers: of SD 3.5: layers that are left out of what guidance moves away from.
        skip_layer_guidance_scale: likewise; 2.8 by default.
        skip_layer_guidance_start: likewise, share of the steps; .01 by default.
        skip_layer_guidance_stop: likewise; .2 by default.
        generator: one for all, a list of one per output picture, or the first one's seed; None seeds from the
            operating system.
        batch_size: pictures that are painted in one batch, where their crops have the same sizes (see
            `Inpainter.sizes`); for models of pixels and a list of generators. A sample does not depend on its batch,
            to rounding.
        callback_on_step_end: called with (inpainter, step, timestep, {"latents": x, "x0": prediction}) after every
            step (x0 is None for "trained", which does not say what it predicts). The timestep is the scheduler's, at
            which the step began; for models without a scheduler it is the time in [0, 1] that the step came to. Other
            "latents" in a dict that it returns are what the run goes on from; `inpainter.interrupt = True` stops.
        request: all of the above in one, and then nothing else is taken but what is of the call.
    """

    negative_prompt: str | Sequence[str] | None
    method: str | Method | None
    fields: Mapping[str, Any]
    thin_method: str | None
    quality: Quality
    average: int | None
    num_inference_steps: int | None
    timesteps: Sequence[int] | Tensor | str | None
    sigmas: Sequence[float] | Tensor | str | None
    grid: Sequence[float] | Tensor | str | None
    guidance_scale: float | None
    true_cfg_scale: float | None
    num_images_per_prompt: int
    strength: float
    padding_mask_crop: int | None
    mask_is: str | None
    mask_grow: float
    mask_blur: float
    outpaint: tuple[int, int, int, int]
    height: int | None
    width: int | None
    latent_mask: LatentPolicy
    match_colour: bool
    leaky_encoding: bool
    prompt_2: str | None
    prompt_3: str | None
    negative_prompt_2: str | None
    negative_prompt_3: str | None
    clip_skip: int | None
    max_sequence_length: int | None
    guidance_rescale: float | None
    reference_images: Any
    prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    pooled_prompt_embeds: Tensor | None
    negative_pooled_prompt_embeds: Tensor | None
    prompt_attention_mask: Tensor | None
    negative_prompt_attention_mask: Tensor | None
    prompt_embeds_mask: Tensor | None
    negative_prompt_embeds_mask: Tensor | None
    prompt_embeds_t5: Tensor | None
    negative_prompt_embeds_t5: Tensor | None
    prompt_embeds_llama3: Tensor | None
    negative_prompt_embeds_llama3: Tensor | None
    cross_attention_kwargs: Mapping[str, Any] | None
    joint_attention_kwargs: Mapping[str, Any] | None
    attention_kwargs: Mapping[str, Any] | None
    ip_adapter_image: Any
    ip_adapter_image_embeds: Tensor | Sequence[Tensor] | None
    control_image: Any
    controlnet_conditioning_scale: float | Sequence[float] | None
    control_guidance_start: float | Sequence[float] | None
    control_guidance_end: float | Sequence[float] | None
    control_mode: int | Sequence[int | None] | None
    guess_mode: bool | None
    skip_guidance_layers: Sequence[int] | None
    skip_layer_guidance_scale: float | None
    skip_layer_guidance_start: float | None
    skip_layer_guidance_stop: float | None
    generator: Generator
    batch_size: int
    callback_on_step_end: Callable[[Any, int, float, dict[str, Any]], Any] | None
    request: Request | None


def keywords(kind: type[Asked] | None = None, *, clips: bool = False) -> dict[str, str]:
    """Python's keywords and the request's names for them; without the picture, the mask and the seed.

    Args:
        kind: of request; None for `Request`.
        clips: whether those of clips are wanted too.
    """
    return {
        one.python: one.name
        for one in options(kind or Request)
        if "python" in one.where and one.group != "file" and one.name != "seed" and (clips or not one.clips)
    }


def from_python(given: Mapping[str, Any], kind: type[A], *, clips: bool = False) -> A:
    """The request that keywords of Python make.

    Args:
        given: keywords with their values; a method may be an object.
        kind: of request.
        clips: whether those of clips are taken too.

    Raises:
        ValueError: for an unknown keyword or a value that does not fit, in one sentence.
    """
    known = keywords(kind, clips=clips)
    values = {}
    for name, value in given.items():
        if name not in known:
            every = [*known, *CALL]
            elsewhere = ELSEWHERE.get(name.removeprefix("negative_"))
            if elsewhere is not None:
                raise ValueError(f"There is no keyword {name!r} here: {elsewhere}.")
            near = [key for key in known if known[key] == name] or difflib.get_close_matches(name, every, 1)
            near += [key for key in every if name in key]
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            raise ValueError(f"There is no keyword {name!r}; {meant}")
        values[known[name]] = value
    method = values.get("method")
    if isinstance(method, Method):
        values |= {"method": method.name, "fields": asdict(method)}
    elif "fields" in values:
        values["fields"] = dict(values["fields"])
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(sentence(error, kind, python=True)) from None


def asked(given: Mapping[str, Any], *, clips: bool = False) -> tuple[Request, Method | None]:
    """The request in the keywords of a call, or in its `request`, and the method where it is an object.

    Raises:
        ValueError: for a request and its entries, or what `from_python` refuses.
    """
    own = {name: value for name, value in given.items() if name not in CALL}
    request = given.get("request")
    if request is None:
        method = own.get("method")
        return from_python(own, Request, clips=clips), method if isinstance(method, Method) else None
    if any(value is not None for value in own.values()):
        raise ValueError("Give a request or its entries as keywords, not both; Request.with_ changes entries.")
    return request, None


def settle(model: Model, policy: Policy, request: Request, method: Method | None) -> tuple[Request, Recipe]:
    """The request with everything that it leaves to the model, and how it is painted.

    Args:
        model: that paints.
        policy: how holes are cut into crops and scales.
        request: as asked.
        method: the object, where the request's method was given as one.

    Raises:
        ValueError: for what the model does not take or run.
    """
    model.check_method(request.method)
    if method is not None:
        request = request.with_(steps=quality.intervals(request, method, Sampler().num_inference_steps))
    else:
        request = quality.resolve(request, model.sampler)
        method = None if request.method == TRAINED else methods.get(str(request.method), **request.fields)
    check_gradients(model, method)
    times = of_request(request)
    if times is not None and request.method == TRAINED:
        raise ValueError(f"The model {model.name!r} brings its own times; leave grid, timesteps and sigmas out.")
    if request.listed not in (None, request.steps):
        raise ValueError(f"Got {request.steps} steps and a list of times for {request.listed}; leave one of them out.")
    if request.thin_method is not None:
        check_gradients(model, quality.named(request.thin_method))
    request = request.with_(steps=request.steps or model.sampler.num_inference_steps)
    given = [name for name in (*EMBEDDINGS, "height", "width") if getattr(request, name) is not None]
    given += ["leaky_encoding"] * request.leaky_encoding + ["latent_mask"] * (request.latent_mask != "all")
    model.check_takes(given)
    recipe = Recipe(
        method=method,
        steps=int(request.steps or 0),
        policy=policy if request.padding is None else replace(policy, context=request.padding),
        strength=request.strength,
        context=request.padding,
        size=(request.height, request.width),
        latent_mask=request.latent_mask,
        leaky_encoding=request.leaky_encoding,
        match=request.match_colour,
        times=times,
        draws=quality.draws(request),
        thin_draws=quality.thin_draws(request),
        mean=request.average is not None,
        filled=quality.starts_filled(request, model.sampler) and model.size is None,
        quick=request.quality == "fast",
        thin=None if request.thin_method is None else quality.named(request.thin_method),
    )
    return request, recipe


def embeddings(request: Request) -> dict[str, Any]:
    """What a request says in place of the text, by the names that pipelines have for it."""
    return {name: getattr(request, name) for name in EMBEDDINGS if getattr(request, name) is not None}


def to_settings(model: Model, request: Request, *, clips: bool = False) -> dict[str, Any]:
    """What is needed to make the same again: Python's keywords as plain JSON values.

    Args:
        model: that painted.
        request: as it was settled.
        clips: whether those of clips are among them.
    """
    names = {name: own for name, own in keywords(clips=clips).items() if own not in HANDED}
    values = {name: getattr(request, own) for name, own in names.items()}
    plain = request.model_dump(mode="json", include={"outpaint", "reference_images"})
    return {"model": model.name, **values, **plain}


def each_of(given: Any) -> list[Any]:
    """The pictures or masks of a list or of a batch, (B, ...) of four axes; one by itself is a list of one."""
    return list(given) if isinstance(given, list | tuple) or getattr(given, "ndim", 0) == 4 else [given]


def per_picture(name: str, value: str | int | Sequence[str] | None, count: int) -> list[str | None]:
    """One text for all pictures, or one for each; the number of a class as text.

    Raises:
        ValueError: for another number of texts.
    """
    if isinstance(value, int):
        value = str(value)
    if value is None or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"Got {len(value)} texts for {name} and {count} pictures; give one, or one for each.")
    return list(value)


def signature(*first: str, **more: Any) -> inspect.Signature:
    """The signature of a function that takes a request's keywords, made from the request.

    Args:
        first: names of what stands before the keywords; a name with "=" has None as its default.
        more: further keywords, with their defaults.
    """
    defaults = {one.python: one.default for one in options(Request)}
    parameters = [
        inspect.Parameter(
            name.rstrip("="),
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None if name.endswith("=") else inspect.Parameter.empty,
        )
        for name in first
    ]
    taken = {parameter.name for parameter in parameters}
    own = {name: defaults[name] for name in keywords() if name not in taken}
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in (own | more | CALL).items()
    ]
    return inspect.Signature(parameters)
