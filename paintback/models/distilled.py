"""Step-distilled models: how they are known, and how they are sampled.

Their networks were trained to come from noise to a picture in 1 to 8 steps (Turbo, schnell, Lightning, LCM, Hyper-SD,
Z-Image-Turbo, FLUX.2 klein, Wan with a distilled LoRA). What they predict is the end of the ODE and no mean; they have
no score, know few noise levels, and have guidance distilled into them too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from paintback.models.catalogue import Sampler

__all__ = ["STEPS", "is_step_distilled", "sampler_of", "steps_of"]

STEPS = 4  # where the name does not say how many
# names of released weights, as words of an id, a folder, a file or a LoRA
WORDS = re.compile(
    r"(?<![a-z])(turbo|schnell|lightning|lcm|hyper|hypersd|tcd|pcm|dmd2?|klein|sprint|causvid|lightx2v|fastwan|"
    r"step[-_]?distill\w*|\d+[-_ ]?steps?)(?![a-z])",
    re.IGNORECASE,
)
BASE = re.compile(r"klein[-_]base|undistilled", re.IGNORECASE)  # of these names those that are not
NUMBER = re.compile(r"(?<!\d)(\d+)[-_ ]?steps?(?![a-z])", re.IGNORECASE)
OWN = (
    ("z-image-turbo", 8),
    ("krea-2-turbo", 8),
    ("lcm", 8),
    ("acestep", 8),
)  # steps that their makers recommend, where they are not STEPS
SCHEDULERS = ("LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler")


def is_step_distilled(name: str, pipe: Any = None) -> bool:
    """Whether a model is step-distilled, by its name, or its pipeline's scheduler, network or LoRA.

    >>> is_step_distilled("Tongyi-MAI/Z-Image-Turbo"), is_step_distilled("stabilityai/stable-diffusion-3.5-medium")
    (True, False)

    Args:
        name: as the user named it.
        pipe: a diffusers pipeline, or None.
    """
    names = [_own(name), *_adapters(pipe)]
    if any(WORDS.search(one) and not BASE.search(one) for one in names):
        return True
    if type(getattr(pipe, "scheduler", None)).__name__ in SCHEDULERS or getattr(pipe, "is_turbo", False):
        return True
    config = getattr(getattr(pipe, "unet", None), "config", None)
    return getattr(config, "time_cond_proj_dim", None) is not None


def steps_of(name: str, pipe: Any = None) -> int:
    """The steps that a step-distilled model was made for; `STEPS` where its name does not say.

    >>> steps_of("ByteDance/Hyper-SD, 8-steps LoRA"), steps_of("black-forest-labs/FLUX.1-schnell")
    (8, 4)

    Args:
        name: as the user named it.
        pipe: a diffusers pipeline, or None.
    """
    for one in (_own(name), *_adapters(pipe)):
        found = NUMBER.search(one)
        if found and 1 <= int(found[1]) <= 16:
            return int(found[1])
        for word, steps in OWN:
            if re.search(rf"(?<![a-z]){word}(?![a-z])", one, re.IGNORECASE):
                return steps
    return STEPS


def sampler_of(name: str, pipe: Any = None) -> Sampler:
    """What a step-distilled model is sampled with where the user names no method."""
    return Sampler("gibbs", {}, steps_of(name, pipe), fast={"repeats": 1, "aims": 0})


def _own(name: str) -> str:
    """A Hub id as it is, of a path the last part: the folders above say nothing of the model."""
    return name if name.count("/") == 1 and not Path(name).exists() else Path(name).name


def _adapters(pipe: Any) -> list[str]:
    """Names of the LoRA that a pipeline's network holds."""
    found: list[str] = []
    for part in ("unet", "transformer", "transformer_2"):
        found += [str(key) for key in getattr(getattr(pipe, part, None), "peft_config", None) or {}]
    return found
