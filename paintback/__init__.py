"""Paintback: paint back the missing part of a picture with a pretrained diffusion or flow model.

The public names are imported when they are first used, so that `import paintback` stays light.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "Denoiser": "paintback.denoiser",
    "Inpainter": "paintback.inpainter",
    "NetworkDenoiser": "paintback.denoiser",
    "Observation": "paintback.observation",
    "Prediction": "paintback.denoiser",
    "inpaint_video": "paintback.video",
    "layers": "paintback.layers",
    "superres": "paintback.superres",
}
_MODULES = (
    "batch",
    "denoiser",
    "images",
    "methods",
    "models",
    "observation",
    "priors",
    "randomness",
    "schedules",
    "training",
)

__all__ = [*_NAMES, *_MODULES]

if TYPE_CHECKING:
    from paintback import batch, denoiser, images, methods, models, observation, priors, randomness, schedules, training
    from paintback.denoiser import Denoiser, NetworkDenoiser, Prediction
    from paintback.inpainter import Inpainter
    from paintback.layers import layers
    from paintback.observation import Observation
    from paintback.superres import superres
    from paintback.video import inpaint_video


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"paintback.{name}")
    raise AttributeError(f"module 'paintback' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(ModuleType):
    """This package, in which `layers` and `superres` stay the functions when their modules are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _NAMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
