"""Nodes for tests in a real ComfyUI: a tiny random model, its conditions, and a codec of means."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F

# ComfyUI has a package called tests of its own
spec = importlib.util.spec_from_file_location("realcomfy", Path(__file__).resolve().parents[1] / "realcomfy.py")
realcomfy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(realcomfy)

SIDE = 8  # pixels of a cell


class TinyModel:
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING")
    FUNCTION = "make"
    CATEGORY = "tiny"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"kind": (list(realcomfy.KINDS),)}}

    def make(self, kind):
        return realcomfy.patcher(kind), realcomfy.condition(1.0), realcomfy.condition(-1.0)


class TinyEncode:
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "make"
    CATEGORY = "tiny"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def make(self, image):
        cells = F.avg_pool2d(image.movedim(-1, 1), SIDE) * 2 - 1
        return ({"samples": torch.cat((cells, cells.mean(1, keepdim=True)), 1) / 0.18215},)


class TinyDecode:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "tiny"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",)}}

    def make(self, samples):
        picture = (samples["samples"][:, :3] * 0.18215 + 1) / 2
        return (F.interpolate(picture, scale_factor=SIDE, mode="nearest").clamp(0, 1).movedim(1, -1),)


class TinyCheck:
    """How far the known cells are from what was given; finite or not; shown as text."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "make"
    CATEGORY = "tiny"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"before": ("LATENT",), "after": ("LATENT",)}}

    def make(self, before, after):
        hole = before["noise_mask"].cpu() > 0
        given, made = before["samples"].cpu(), after["samples"].cpu()
        far = torch.where(hole, 0.0, (given - made).abs()).max()
        moved = torch.where(hole, (given - made).abs(), 0.0).max()
        return {"ui": {"text": [float(far), float(moved), bool(made.isfinite().all())]}}


NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in (TinyModel, TinyEncode, TinyDecode, TinyCheck)}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
