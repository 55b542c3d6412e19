"""One picture taken apart into two layers and a soft mask; `layer_inference` says how."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from paintback.canvas import count_steps, open_model, tiled, to_canvas
from paintback.images.picture import Picture, read_picture
from paintback.inpainter import OutputType, _convert, _generators
from paintback.layer_inference import PerLayer, Recorded
from paintback.methods.base import Callback
from paintback.models.base import Model
from paintback.observation import Observation
from paintback.resources import PeakMemory

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
    seed: int
    settings: dict[str, Any]
    stopped: bool = False


def layers(
    image: Any,
    prompts: Sequence[str | None] = (None, None),
    *,
    model: str | Path | Model = "photo",
    num_inference_steps: int = 20,
    inner_steps: int = 5,
    samples: int = 4,
    spread: float = 0.1,
    grain: float = 8.0,
    floor: float = 0.1,
    doubt: float = 0.5,
    tempering: float = 1.0,
    smoothing: float = 2.0,
    ema: float = 0.8,
    edge: float = 0.05,
    generator: torch.Generator | None = None,
    guidance_scale: float | None = None,
    output_type: OutputType = "pil",
    callback: Callback | None = None,
    progress_bar: bool = True,
    device: Any = None,
    torch_dtype: torch.dtype | None = None,
) -> LayersOutput:
    """Takes a picture apart into two layers and a soft mask.

    The method is our reconstruction of an idea that its paper tells in words; see `layer_inference`.

    Args:
        image: path, PIL, numpy (H, W, 3) or torch (3, H, W) in [0, 1]; its alpha is left out.
        prompts: what layer 1 and layer 2 show, for models that read text.
        model: an embedded model's name, the path of one's own weights, or a loaded model.
        num_inference_steps: grid intervals.
        inner_steps: FCS corrections before every step; the other fields of FCS are those of its inpainting.
        samples: inpaintings of a layer at every time, at least 2.
        spread: noise on the states of all but the first of them, in units of sigma_t.
        grain: pixels over which the binary masks are coherent; 0 for independent pixels.
        floor: standard deviation that every pixel has at least, in [-1, 1].
        doubt: standard deviation of a picture about x0 at pure noise, falling with the noise.
        tempering: divides the scores.
        smoothing: standard deviation in pixels of the scores' blur.
        ema: part of the old mask that is kept, 0 to 1.
        edge: nearest that the mask comes to 0 and 1 before the end, where it is stretched to both.
        generator: None seeds from the operating system.
        guidance_scale: of classifier-free guidance; None for the model's own.
        output_type: of the layers and the composite, as `Inpainter`'s, but one picture each.
        callback: called with (step, t, x, x0), both layers as a batch, after every step; returning True stops.
        progress_bar: tqdm on stderr.
        device: a torch device, for a model by name; None chooses.
        torch_dtype: of its network.

    Returns:
        The layers, of the picture's size and with its colour profile, their mask and composite.

    Raises:
        ValueError: for input that does not fit, in one sentence.
    """
    began = time.perf_counter()
    picture = read_picture(image).without_alpha()
    if isinstance(prompts, str) or len(prompts) != 2:
        raise ValueError(f"prompts must be two, one for each layer (None for no prompt); got {prompts!r}.")
    if output_type not in ("pil", "np", "pt", "picture"):
        raise ValueError(f"output_type must be pil, np, pt or picture; got {output_type!r}.")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError("layers takes one generator, as it makes one result; call it again for another.")
    steps = count_steps(num_inference_steps)
    method = Recorded(
        inner_steps=inner_steps,
        samples=samples,
        spread=spread,
        grain=grain,
        floor=floor,
        doubt=doubt,
        tempering=tempering,
        smoothing=smoothing,
        ema=ema,
        edge=edge,
    )
    opened = open_model(model, device, torch_dtype)
    inner = [opened.denoiser(prompt, None, guidance_scale) for prompt in prompts]
    height, width = picture.shape
    values, canvas = to_canvas(opened, picture, picture.shape)
    denoiser = tiled(inner[0] if prompts[0] == prompts[1] else PerLayer(*inner), canvas, None, opened.multiple)
    y, known = torch.zeros(len(values), *canvas), torch.zeros(1, *canvas, dtype=torch.bool)
    y[:, :height, :width], known[:, :height, :width] = values, True
    generators, (seed, *_) = _generators(generator, 1)
    with (
        PeakMemory(opened.device) as memory,
        tqdm(unit="step", leave=False, desc="layers", disable=None if progress_bar else True) as bar,
    ):

        def step(index: int, t: float, x: Tensor, x0: Tensor) -> bool:
            bar.update()
            return bool(callback is not None and callback(index, t, x, x0))

        result = method.sample(
            denoiser,
            Observation(y.to(opened.device), known.to(opened.device)),
            num_inference_steps=steps,
            generator=generators if isinstance(generators, torch.Generator) else generators[0],
            num_samples=2,
            callback=step,
        )
    mask = ((method.masks[-1][0].cpu().float() - edge) / max(1e-6, 1 - 2 * edge)).clamp(0, 1)[:, :height, :width]
    pair = result.x.cpu().float()[..., :height, :width]
    sampled = _rms(mask * pair[0] + (1 - mask) * pair[1] - values)
    first, second = _agree(pair[0], pair[1], mask, values)
    both = mask * first + (1 - mask) * second
    made = [_picture(opened, picture, one) for one in (first, second, both)]
    converted = _convert(made, output_type)
    fields = {k: v for k, v in dataclasses.asdict(method).items() if k != "masks"}
    return LayersOutput(
        layers=(converted[0], converted[1]),
        mask=np.ascontiguousarray(mask[0].numpy()),
        composite=converted[2],
        residual=_rms(both - values),
        sampled_residual=sampled,
        evaluations=result.evaluations,
        seconds=time.perf_counter() - began,
        peak_memory_bytes=memory.bytes,
        seed=seed,
        settings={
            "model": opened.name,
            "prompts": list(prompts),
            "num_inference_steps": steps,
            "fields": fields,
            "guidance_scale": guidance_scale,
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
