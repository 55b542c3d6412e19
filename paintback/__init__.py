"""Paintback: paint back the missing part of a picture with a pretrained diffusion or flow model.

The public names are imported when they are first used, so that `import paintback` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Denoiser",
    "Inpainter",
    "NetworkDenoiser",
    "Observation",
    "Policy",
    "Prediction",
    "Request",
    "batch",
    "check",
    "denoiser",
    "images",
    "inpaint",
    "inpaint_audio",
    "inpaint_video",
    "layers",
    "methods",
    "models",
    "observation",
    "priors",
    "randomness",
    "register",
    "schedules",
    "superres",
    "training",
]

if TYPE_CHECKING:
    from paintback import batch, denoiser, images, methods, models, observation, priors, randomness, schedules, training
    from paintback.denoiser import Denoiser, NetworkDenoiser, Prediction
    from paintback.observation import Observation
    from paintback.painting.layout import Policy
    from paintback.painting.request import Request
    from paintback.tasks.audio import inpaint_audio
    from paintback.tasks.checking import check
    from paintback.tasks.inpaint import Inpainter
    from paintback.tasks.layers import layers
    from paintback.tasks.oneshot import inpaint
    from paintback.tasks.register import register
    from paintback.tasks.superres import superres
    from paintback.tasks.video import inpaint_video

_HOMES = {
    "Denoiser": "paintback.denoiser",
    "Inpainter": "paintback.tasks.inpaint",
    "NetworkDenoiser": "paintback.denoiser",
    "Observation": "paintback.observation",
    "Policy": "paintback.painting.layout",
    "Prediction": "paintback.denoiser",
    "Request": "paintback.painting.request",
    "check": "paintback.tasks.checking",
    "inpaint": "paintback.tasks.oneshot",
    "inpaint_audio": "paintback.tasks.audio",
    "inpaint_video": "paintback.tasks.video",
    "layers": "paintback.tasks.layers",
    "register": "paintback.tasks.register",
    "superres": "paintback.tasks.superres",
}


if not TYPE_CHECKING:  # else a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        if name in __all__:
            return importlib.import_module(f"paintback.{name}")
        raise AttributeError(f"module 'paintback' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted([*globals(), *__all__])
