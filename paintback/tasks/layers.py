"""One picture taken apart into two layers and a soft mask; `layer_inference` says how."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from paintback.images.outputs import OutputType, check_output_type, convert
from paintback.images.picture import Picture, read_picture
from paintback.methods.base import Callback
from paintback.models.base import Model, Told
from paintback.models.latent import known_cells
from paintback.models.tiles import tiled
from paintback.observation import Observation
from paintback.painting.canvas import padded
from paintback.painting.request import LayersRequest
from paintback.painting.session import Session, open_model
from paintback.tasks.checks import precise
from paintback.tasks.layer_inference import LayerInference, PerLayer, Recorded
from paintback.tasks.options import from_python

__all__ = ["LayersOutput", "layers"]


@dataclass
class LayersOutput:
    """What `layers` gives back.

    Attributes:
        layers: the two pictures, in the type asked for.
        mask: (H, W) float32 in [0, 1]: the share of layer 1.
        composite: M L1 + (1 - M) L2 of these, in the type asked for.
        residual: root mean square of the composite minus the given picture, both in [0, 1].
        sampled_residual: the same before the layers were moved to agree.
        evaluations: denoiser calls per layer.
        seconds: wall time of the call.
        peak_memory_bytes: see `resources.PeakMemory`.
        seed: of the generator.
        settings: what is needed to make the same layers again, as plain JSON values.
        stopped: whether it was interrupted: the layers then show the last prediction.
    """

    layers: tuple[Any, Any]
    mask: NDArray[np.float32]
    composite: Any
    residual: float
    sampled_residual: float
    evaluations: int | float
    seconds: float
    peak_memory_bytes: int | None
    seed: int | None
    settings: dict[str, Any]
    stopped: bool = False


class LayersOptions(TypedDict, total=False):
    """What `layers` takes beside the picture and the prompts. Defaults are `LayerInference`'s and `LayersRequest`'s.

    Attributes:
        num_inference_steps: grid intervals.
        inner_steps: FCS corrections before every step; the other fields of FCS are those of its inpainting.
        samples: inpaintings of a layer at every time, at least 2.
        spread: noise on the states of all but the first of them, in units of sigma_t.
        grain: pixels (of the picture) over which the binary masks are coherent; 0 for independent pixels.
        floor: standard deviation that every pixel has at least, in [-1, 1].
        doubt: standard deviation of a picture about x0 at pure noise, falling with the noise.
        tempering: divides the scores.
        smoothing: standard deviation in pixels of the scores' blur.
        ema: part of the old mask that is kept, 0 to 1.
        edge: nearest that the mask comes to 0 and 1 before the end, where it is stretched to both.
        generator: or a seed; None seeds from the operating system.
        guidance_scale: of classifier-free guidance; None for the model's own.
    """

    num_inference_steps: int
    inner_steps: int
    samples: int
    spread: float
    grain: float
    floor: float
    doubt: float
    tempering: float
    smoothing: float
    ema: float
    edge: float
    generator: torch.Generator | int | None
    guidance_scale: float | None


STEPS = 20  # where none are named
FIELDS = ("inner_steps", "samples", "spread", "grain", "floor", "doubt", "tempering", "smoothing", "ema", "edge")


def layers(
    image: Any,
    prompts: Sequence[str | None] = (None, None),
    *,
    model: str | Path | Model = "photo",
    output_type: OutputType = "pil",
    callback: Callback | None = None,
    progress_bar: bool = True,
    device: Any = None,
    torch_dtype: torch.dtype | None = None,
    **options: Unpack[LayersOptions],
) -> LayersOutput:
    """Takes a picture apart into two layers and a soft mask.

    The method is our reconstruction of an idea that its paper tells in words; see `layer_inference`. A latent model
    takes the picture's latents apart and the mask is as coarse as they are; the layers are decoded, and then moved in
    pixels until they make up the picture.

    Args:
        image: path, PIL, numpy (H, W, 3) or torch (3, H, W) in [0, 1]; its alpha is left out.
        prompts: what layer 1 and layer 2 show, for models that read text.
        model: an embedded model's name, the path of one's own weights, or a loaded model.
        output_type: of the layers and the composite, as `Inpainter`'s, but one picture each.
        callback: called with (step, t, x, x0), both layers as a batch, after every step; returning True stops.
        progress_bar: tqdm on stderr.
        device: a torch device, for a model by name; None chooses.
        torch_dtype: of its network.
        **options: see `LayersOptions`.

    Returns:
        The layers, of the picture's size and with its colour profile, their mask and composite.

    Raises:
        ValueError: for input that does not fit, in one sentence.
    """
    picture = read_picture(image).without_alpha()
    if isinstance(prompts, str) or len(prompts) != 2:
        raise ValueError(f"prompts must be two, one for each layer (None for no prompt); got {prompts!r}.")
    check_output_type(output_type)
    given: dict[str, Any] = {**options}
    generator = given.pop("generator", None)
    if isinstance(generator, list | tuple):
        raise ValueError("layers takes one generator, as it makes one result; call it again for another.")
    fields = {name: given.pop(name) for name in FIELDS if name in given}
    request = from_python({**given, "prompt_1": prompts[0], "prompt_2": prompts[1], "fields": fields}, LayersRequest)
    plain, steps = LayerInference(**fields), request.steps or STEPS
    opened = precise(open_model(model, device, torch_dtype), plain)
    codec = opened.codec
    cell = codec.factor
    per_cell = {"grain": plain.grain / cell, "smoothing": plain.smoothing / cell}
    method = Recorded(**{**{name: getattr(plain, name) for name in FIELDS}, **per_cell})
    height, width = picture.shape
    values, canvas = padded(opened, picture, picture.shape)
    inner = [opened.denoiser_at(canvas, Told(prompt, None, request.guidance)) for prompt in prompts]
    denoiser = tiled(inner[0] if prompts[0] == prompts[1] else PerLayer(*inner), canvas, None, opened.multiple)
    margin = (0, canvas[1] - width, 0, canvas[0] - height)
    y = F.pad(values[None], margin, mode="constant" if cell == 1 else "replicate").to(opened.device)
    known = F.pad(torch.ones(1, 1, height, width, dtype=torch.bool), margin).to(opened.device)
    with torch.no_grad():
        y, known = codec.encode(y), known_cells(codec, known, "all")
    with Session(
        opened,
        "layers",
        generator,
        steps=steps,
        progress={"disable": None if progress_bar else True},
        step=callback,  # type: ignore[arg-type] # the method predicts at every step
    ) as session:
        own = session.generators
        result = method.sample(
            denoiser,
            Observation(y[0], known[0]),
            num_inference_steps=steps,
            generator=own if isinstance(own, torch.Generator) else own[0],
            num_samples=2,
            callback=session.step,
        )
        mask, pair = (method.masks[-1] - plain.edge) / max(1e-6, 1 - 2 * plain.edge), result.x
        if cell > 1:
            mask = F.interpolate(mask, scale_factor=cell, mode="bilinear")
        with torch.no_grad():
            pair = codec.decode(pair)
    mask = mask[0].clamp(0, 1).cpu().float()[:, :height, :width]
    pair = pair.cpu().float()[..., :height, :width]
    sampled = _rms(mask * pair[0] + (1 - mask) * pair[1] - values)
    first, second = _agree(pair[0], pair[1], mask, values)
    both = mask * first + (1 - mask) * second
    made = [_picture(opened, picture, one) for one in (first, second, both)]
    converted = convert(made, output_type)
    fields = {k: v for k, v in dataclasses.asdict(method).items() if k != "masks"}
    return LayersOutput(
        layers=(converted[0], converted[1]),
        mask=np.ascontiguousarray(mask[0].numpy()),
        composite=converted[2],
        residual=_rms(both - values),
        sampled_residual=sampled,
        evaluations=result.evaluations,
        seconds=session.seconds,
        peak_memory_bytes=session.peak_memory_bytes,
        seed=session.seeds[0],
        settings={
            "model": opened.name,
            "prompts": list(prompts),
            "num_inference_steps": steps,
            "fields": fields,
            "guidance_scale": request.guidance,
        },
        stopped=result.stopped,
    )


def _agree(first: Tensor, second: Tensor, mask: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
    """The layers moved until mask first + (1 - mask) second is the picture: alternating projections with [-1, 1]."""
    for _ in range(50):
        first, second = first.clamp(-1, 1), second.clamp(-1, 1)
        error = picture - mask * first - (1 - mask) * second
        if error.abs().max() < 1e-4:
            break
        error = error / (mask**2 + (1 - mask) ** 2)
        first, second = first + mask * error, second + (1 - mask) * error
    return first.clamp(-1, 1), second.clamp(-1, 1)


def _rms(error: Tensor) -> float:
    """Root mean square of a difference in [-1, 1], for pictures in [0, 1]."""
    return float(error.square().mean().sqrt()) / 2


def _picture(model: Model, like: Picture, values: Tensor) -> Picture:
    """(C, H, W) of the model's colours, as a picture of the given one's depth and profile."""
    new = model.to_picture(values[None])[0].permute(1, 2, 0).numpy()
    return like.with_pixels(new, np.ones(like.shape, bool))
