"""ControlNets: networks beside a pipeline's own that follow pictures and are asked at every look.

Reference: Zhang et al. 2023 (arXiv:2302.05543). What they answer is added inside the pipeline's network, so that they
go beside any method. Where a ControlNet reads latents, the picture's are the mode of the encoder's Gaussian; some of
the pipelines draw from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from paintback.models.diffusers.shown import as_tensor, cut
from paintback.schedules import Time

if TYPE_CHECKING:
    from paintback.models.diffusers.base import Condition, PipelineDenoiser, PipelineModel

__all__ = ["CONTROL", "Control", "asked", "control_of", "placed"]

CONTROL = (
    "control_image",
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
    "guess_mode",
    "control_mode",
)
# what not all families have, and what to do there
INSTEAD = {
    "guess_mode": "lower controlnet_conditioning_scale, or control_guidance_end",
    "control_mode": "load the ControlNet of the kind that is wanted",
}


@dataclass(frozen=True)
class Control:
    """What the ControlNets of a pipeline follow, and how strongly; one entry for each.

    Attributes:
        pictures: (1, 3, H, W) in [0, 1], of all of the picture that is painted in.
        scales: diffusers' controlnet_conditioning_scale.
        starts: share of the steps before which it is not followed.
        ends: share of the steps after which it is not.
        modes: of ControlNets of several kinds, or None.
        guess: whether the side of guidance without the prompt does without.
        several: whether they are one module of several.
        seen: (1 or B, ...) the pictures' parts at the crops, as the ControlNets read them.
    """

    pictures: Sequence[Tensor]
    scales: Sequence[float]
    starts: Sequence[float]
    ends: Sequence[float]
    modes: Sequence[int | None]
    guess: bool = False
    several: bool = False
    seen: Sequence[Tensor] = ()

    def at(self, begin: float, end: float) -> Control:
        """With the strengths of a step that lasts from one share of the steps to another."""
        limits = zip(self.scales, self.starts, self.ends, strict=True)
        return replace(self, scales=[0.0 if begin < first or end > last else scale for scale, first, last in limits])

    def told(self) -> dict[str, Any]:
        """What every ControlNet of diffusers is called with."""
        if self.several:
            return {"controlnet_cond": list(self.seen), "conditioning_scale": list(self.scales)}
        return {"controlnet_cond": self.seen[0], "conditioning_scale": self.scales[0]}


def control_of(model: PipelineModel, own: Mapping[str, Any]) -> Control | None:
    """What `CONTROL` asks for; None for nothing.

    Args:
        model: whose pipeline has the ControlNets.
        own: the keywords with their values, or None.

    Raises:
        ValueError: for pictures without a ControlNet, another number of them, or what the family's do not have.
    """
    given = {name: own[name] for name in CONTROL if own.get(name) is not None}
    pictures = given.pop("control_image", None)
    for name, instead in INSTEAD.items():
        if given.get(name) not in (None, False) and name not in model.controls:
            raise ValueError(f"The ControlNets of {model.name!r} have no {name}; {instead}.")
    if pictures is None:
        if given:
            raise ValueError(f"Got {', '.join(given)} without control_image, the picture that is to be followed.")
        return None
    if model.controlnet is None:
        raise ValueError(
            f"Got control_image, and {model.name!r} has no ControlNet; load it by its pipeline's ControlNet class."
        )
    nets = list(getattr(model.controlnet, "nets", [model.controlnet]))
    model.check_controlnet(nets)
    several = hasattr(model.controlnet, "nets")
    pictures = list(pictures) if isinstance(pictures, list | tuple) else [pictures]
    count = len(pictures) if several and len(nets) == 1 else len(nets)  # one of several kinds takes any number
    defaults = {
        "controlnet_conditioning_scale": model.control_scale,
        "control_guidance_start": 0.0,
        "control_guidance_end": 1.0,
        "control_mode": None,
    }
    each: dict[str, list[Any]] = {}
    for name, default in defaults.items():
        value = given.get(name, default)
        each[name] = list(value) if isinstance(value, list | tuple) else [value] * count
    wrong = {"control_image": pictures, **{name: value for name, value in each.items() if len(value) != count}}
    if len(wrong) > 1 or len(pictures) != count:
        said = " and ".join(f"{len(value)} {name}" for name, value in wrong.items())
        raise ValueError(f"{model.name!r} has {count} ControlNets; got {said}. Give one for each.")
    starts, ends = each["control_guidance_start"], each["control_guidance_end"]
    if not all(0 <= start < end <= 1 for start, end in zip(starts, ends, strict=True)):
        raise ValueError(
            f"control_guidance_start and control_guidance_end are shares of the steps, 0 <= start < end <= 1; got "
            f"{starts} and {ends}."
        )
    config = getattr(nets[0], "config", {})
    return Control(
        [as_tensor(one).to(model.device) for one in pictures],
        [float(one) for one in each["controlnet_conditioning_scale"]],
        [float(one) for one in starts],
        [float(one) for one in ends],
        each["control_mode"],
        bool(given.get("guess_mode", False) or config.get("global_pool_conditions", False)),
        several,
    )


@torch.no_grad()
def placed(
    made: PipelineDenoiser, boxes: Sequence[tuple[int, int, int, int]], shapes: Sequence[tuple[int, int]]
) -> Control:
    """The control of a denoiser with what its ControlNets see of some crops.

    Args:
        made: the denoiser.
        boxes: (top, left, bottom, right) of every row's crop, in pixels of the picture.
        shapes: (H, W) of every row's picture.
    """
    assert made.control is not None
    places = list(dict.fromkeys(zip(boxes, shapes, strict=True)))
    places = places if len(places) == 1 else list(zip(boxes, shapes, strict=True))
    seen = []
    for picture in made.control.pictures:
        parts = torch.cat([cut(picture, box, shape, made.size[-2:]) for box, shape in places])
        seen.append(made.model.control_of_picture(parts))
    return replace(made.control, seen=seen)


def asked(
    made: PipelineDenoiser, x: Tensor, time: Time, under: Condition | None, without: Condition | None = None
) -> dict[str, Any]:
    """What the ControlNets say of a look, as the pipeline's network takes it; nothing outside their steps.

    As the pipelines have it: both halves of a doubled batch are asked for, and where guidance makes two calls the
    answer under the prompt goes into both.

    Args:
        made: the denoiser.
        x: (B, ...) states.
        time: of the look.
        under: the prompt, at x's rows.
        without: the negative one, likewise, where there is guidance.
    """
    if made.control is None or under is None:
        return {}
    control, model = made.control.at(*made.steps_at(time)), made.model
    if not any(control.scales):
        return {}
    if not control.seen:
        whole = (made.size[-2], made.size[-1])
        made.control = placed(made, [(0, 0, *whole)], [whole])
        control = replace(control, seen=made.control.seen)
    seen = [one.repeat_interleave(len(x) // len(one), dim=0) for one in control.seen]
    doubled = without is not None and model.guidance == "batch"
    if doubled and not control.guess:
        assert without is not None
        x, under, seen = torch.cat((x, x)), type(under).cat([without, under]), [torch.cat((one, one)) for one in seen]
    said = model.residuals(x, time, under, made.size, replace(control, seen=seen))
    return {name: _half(value) for name, value in said.items()} if doubled and control.guess else said


def _half(value: Any) -> Any:
    """What is said of the half with the prompt, beside nothing for the other, which comes first."""
    if isinstance(value, Tensor):
        return torch.cat((torch.zeros_like(value), value))
    return [_half(one) for one in value]
