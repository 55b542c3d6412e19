"""The nodes: samplers, masks, crop and stitch, a grid, and an eraser that needs no checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from paintback import methods
from paintback.images.masks import grow as grow_mask
from paintback.images.regions import context_crop
from paintback.methods.base import Method
from paintback.models.latent import fill_hole

from .sampler import PaintbackSampler

CATEGORY = "sampling/paintback"
POLICY = (
    ["all", "majority", "any"],
    {"default": "all", "tooltip": "Which latent cells count as known: those of which all, most or any pixels are."},
)
OWN = "own"  # in a menu or as a number's name: what the method has by itself
NONE = -1.0  # in place of none, for numbers
RETIRED: dict[str, str] = {}
"""Values of menus that graphs were saved with, and what they are now."""
LEFT_OUT = ("aid",)  # needs a module that was trained beside the model


def menu() -> list[str]:
    """The methods that a sampler offers."""
    return [name for name in methods.names() if name not in LEFT_OUT]


def widget(field: dataclasses.Field[Any]) -> tuple[Any, dict[str, Any]]:
    """A field of a method as an input of a node: type, default, range and tooltip."""
    meta, default = field.metadata, field.default
    kind = meta.get("kind") or type(default)
    told: dict[str, Any] = {"tooltip": meta["help"]}
    if meta["choices"]:
        first = [OWN] if default is None else []
        return first + list(meta["choices"]), {**told, "default": OWN if default is None else default}
    if kind is bool:
        return "BOOLEAN", {**told, "default": bool(default)}
    if kind not in (int, float):
        return "STRING", {**told, "default": str(default or "")}
    low = meta["low"] if meta["low"] is not None else -1000
    high = meta["high"] if meta["high"] is not None else 1000
    if default is None:
        told["tooltip"] += "; -1 for none"
        low = min(low, NONE)
    value = kind(NONE) if default is None else default
    more = {} if kind is int else {"step": 0.001, "round": False}
    return kind.__name__.upper(), {**told, "default": value, "min": kind(low), "max": kind(high), **more}


def fields_of(kind: type[Method]) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a method that a node has inputs for."""
    return {one.name: one for one in dataclasses.fields(kind) if "path" not in one.metadata.get("help", "")}


def method_of(kind: type[Method], values: dict[str, Any]) -> Method:
    """The method that a node's inputs make; what is left at its default is the method's own."""
    given = {}
    for name, field in fields_of(kind).items():
        if name not in values:
            continue
        value = values[name]
        if field.default is None and value in (OWN, NONE, ""):
            continue
        if value != field.default:
            given[name] = value
    return methods.get(kind.name, **given)


class _Sampler:
    """What all sampler nodes share."""

    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "make"
    CATEGORY = CATEGORY


class Sampler(_Sampler):
    """Any method by its name."""

    DESCRIPTION = "A method of Paintback as a sampler: connect it to SamplerCustom or SamplerCustomAdvanced."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        return {
            "required": {"method": (menu(), {"default": "lanpaint", "tooltip": "One published method."})},
            "optional": {
                "policy": POLICY,
                "fields": (
                    "STRING",
                    {"default": "", "tooltip": "Fields of the method, as inner_steps=10, step_size=0.2"},
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, method: str) -> bool | str:
        """Names that graphs were saved with stay good."""
        return method in menu() or method in RETIRED or f"There is no method {method!r}; there are {', '.join(menu())}."

    def make(self, method: str, policy: str = "all", fields: str = "", **retired: Any) -> tuple[PaintbackSampler]:
        """The sampler."""
        from paintback.cli.fields import parse

        kind = methods.types()[RETIRED.get(method, method)]
        pairs = [pair for pair in fields.replace("\n", ",").split(",") if pair.strip()]
        return (PaintbackSampler(methods.get(kind.name, **parse(kind, pairs)), policy),)


def sampler_node(name: str) -> type:
    """A node of one method with its own fields."""
    kind = methods.types()[name]

    class Node(_Sampler):
        """One method with its fields."""

        DESCRIPTION = f"{kind.title}. {kind.paper}"

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            """What the node asks for."""
            return {
                "required": {},
                "optional": {"policy": POLICY, **{name: widget(field) for name, field in fields_of(kind).items()}},
            }

        def make(self, policy: str = "all", **values: Any) -> tuple[PaintbackSampler]:
            """The sampler; inputs that the method no longer has are not looked at."""
            return (PaintbackSampler(method_of(kind, values), policy),)

    return Node


class LatentMask:
    """What of latents is repainted, cell by cell, by a named policy."""

    RETURN_TYPES = ("LATENT", "MASK")
    FUNCTION = "put"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Puts a mask on latents cell by cell, so that no thin scratch is lost between them; use it in place of "
        "Set Latent Noise Mask. Masks of clips have a frame each, or one for all."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        return {
            "required": {"samples": ("LATENT",), "mask": ("MASK",)},
            "optional": {
                "policy": POLICY,
                "grow": (
                    "INT",
                    {"default": 0, "min": -512, "max": 512, "tooltip": "Pixels to grow the mask by first."},
                ),
            },
        }

    def put(
        self, samples: dict[str, Any], mask: Tensor, policy: str = "all", grow: int = 0, **retired: Any
    ) -> tuple[dict[str, Any], Tensor]:
        """The latents with their mask, and the mask at their size."""
        latents = samples["samples"]
        hole = F.adaptive_avg_pool2d(grown(mask, grow)[:, None].float(), latents.shape[-2:])[:, 0]
        if latents.ndim == 5:
            hole = over_time(hole, latents.shape[2])
        limit = {"all": 1e-6, "majority": 0.5, "any": 1 - 1e-6}[policy]
        cells = (hole > limit).float()
        return {**samples, "noise_mask": cells[:, None] if latents.ndim == 4 else cells[None, None]}, cells


def over_time(hole: Tensor, frames: int) -> Tensor:
    """A clip's mask, (F, H, W), at its latents' frames: the first has a cell of its own, the others share cells.

    Raises:
        ValueError: for a number of frames that does not fit.
    """
    if len(hole) == 1 or len(hole) == frames:
        return hole.float().expand(frames, -1, -1) if len(hole) == 1 else hole.float()
    if frames < 2 or (len(hole) - 1) % (frames - 1):
        raise ValueError(
            f"A mask of {len(hole)} frames does not fit latents of {frames}; give 1, or one for each frame."
        )
    rest = hole[1:].float().unflatten(0, (frames - 1, -1)).mean(1)
    return torch.cat((hole[:1].float(), rest))


def grown(mask: Tensor, pixels: int) -> Tensor:
    """(B, H, W) bool: a mask, grown by a number of pixels."""
    hole = mask.reshape(-1, *mask.shape[-2:]) > 0.5
    if not pixels:
        return hole
    return torch.stack([torch.from_numpy(np.asarray(grow_mask(one.numpy(), float(pixels)))) for one in hole.cpu()])


class GrowMask:
    """A mask made larger or smaller; for clips, one mask for every frame."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "make"
    CATEGORY = CATEGORY
    DESCRIPTION = "Grows a mask by pixels (below 0 it shrinks), and repeats the mask of a picture for a clip's frames."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        return {
            "required": {"mask": ("MASK",)},
            "optional": {
                "grow": ("INT", {"default": 4, "min": -512, "max": 512, "tooltip": "Pixels to grow the mask by."}),
                "frames": (
                    "INT",
                    {"default": 1, "min": 1, "max": 10000, "tooltip": "Frames of the clip; 1 for a picture."},
                ),
            },
        }

    def make(self, mask: Tensor, grow: int = 4, frames: int = 1, **retired: Any) -> tuple[Tensor]:
        """The mask."""
        made = grown(mask, grow).float()
        if frames > 1 and len(made) not in (1, frames):
            raise ValueError(
                f"A mask of {len(made)} frames cannot be made one of {frames}; give one mask, or one each."
            )
        return (made.expand(frames, -1, -1).clone() if len(made) == 1 else made,)


class Crop:
    """The hole with some of its surroundings, its hidden part filled, so that no encoder sees it."""

    RETURN_TYPES = ("IMAGE", "MASK", "PAINTBACK_STITCH")
    RETURN_NAMES = ("image", "mask", "stitch")
    FUNCTION = "cut"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Cuts out the hole with its surroundings; Paintback Stitch puts the result back and changes nothing else."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        return {
            "required": {"image": ("IMAGE",), "mask": ("MASK",)},
            "optional": {
                "context": ("INT", {"default": 64, "min": 0, "max": 4096, "tooltip": "Pixels around the hole."}),
                "multiple": ("INT", {"default": 16, "min": 1, "max": 128, "tooltip": "Sides are multiples of this."}),
                "side": (
                    "INT",
                    {"default": 0, "min": 0, "max": 4096, "tooltip": "Longer side to scale to; 0 for none."},
                ),
            },
        }

    def cut(
        self, image: Tensor, mask: Tensor, context: int = 64, multiple: int = 16, side: int = 0, **retired: Any
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """The crop, its mask, and what the stitch needs."""
        hole = (mask.reshape(-1, *mask.shape[-2:]) > 0.5).any(0)
        if hole.shape != image.shape[1:3]:
            raise ValueError(
                f"The mask is {tuple(hole.shape)} and the picture {tuple(image.shape[1:3])}; bring them to one size."
            )
        box = context_crop(hole.cpu().numpy(), int(context), multiple, multiple)
        part, inside = (
            image[:, box.top : box.bottom, box.left : box.right, :3],
            hole[box.top : box.bottom, box.left : box.right],
        )
        shown = part.movedim(-1, 1)
        filled = fill_hole(shown, (~inside).expand(len(shown), 1, -1, -1))
        here = inside[None].float()
        if side:
            scale = side / max(inside.shape)
            size = [max(multiple, round(one * scale / multiple) * multiple) for one in inside.shape]
            filled = F.interpolate(filled, size=size, mode="bicubic", antialias=True).clamp(0, 1)
            here = (F.interpolate(here[None], size=size, mode="area")[0] > 1e-6).float()
        return filled.movedim(1, -1).contiguous(), here, {"image": image, "hole": hole, "box": box}


class Stitch:
    """A painted crop put back; every pixel outside the mask keeps its bits."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "put"
    CATEGORY = CATEGORY
    DESCRIPTION = "Puts a painted crop back into its picture; every pixel outside the mask is bit-identical."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        return {"required": {"stitch": ("PAINTBACK_STITCH",), "image": ("IMAGE",)}}

    def put(self, stitch: dict[str, Any], image: Tensor, **retired: Any) -> tuple[Tensor]:
        """The whole picture, one for each crop of a batch."""
        box, hole = stitch["box"], stitch["hole"]
        new = image[..., :3].movedim(-1, 1).to(stitch["image"])
        size = (box.bottom - box.top, box.right - box.left)
        if tuple(new.shape[-2:]) != size:
            new = F.interpolate(new, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        given = stitch["image"]
        whole = given.repeat(len(new) // len(given), 1, 1, 1) if len(new) > len(given) else given.clone()
        part = whole[:, box.top : box.bottom, box.left : box.right, :3]
        inside = hole[box.top : box.bottom, box.left : box.right, None]
        part.copy_(torch.where(inside, new.movedim(1, -1), part))
        return (whole,)


class Grid:
    """Pictures side by side."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = CATEGORY
    DESCRIPTION = "Puts up to six results side by side, with a gap between them; smaller ones are centred."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        more = {f"image_{k}": ("IMAGE",) for k in range(2, 7)}
        gap = ("INT", {"default": 8, "min": 0, "max": 256, "tooltip": "Pixels between two."})
        return {"required": {"image_1": ("IMAGE",)}, "optional": {**more, "gap": gap}}

    def make(self, image_1: Tensor, gap: int = 8, **more: Tensor) -> tuple[Tensor]:
        """One picture."""
        batches = [image_1, *(more[name] for name in sorted(more) if name.startswith("image_"))]
        pictures = [picture[..., :3] for batch in batches for picture in batch]
        height = max(len(picture) for picture in pictures)
        columns = []
        for picture in pictures:
            above = (height - len(picture)) // 2
            columns += [F.pad(picture, (0, 0, 0, 0, above, height - len(picture) - above), value=1.0)]
            columns += [torch.ones(height, gap, 3).to(picture)]
        return (torch.cat(columns[:-1], dim=1)[None],)


class Eraser:
    """Removes what a mask covers with a model that comes with Paintback: no checkpoint, no prompt."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "paint"
    CATEGORY = "image/paintback"
    DESCRIPTION = "Removes scratches, text and small things with a model that is shipped with Paintback; no checkpoint."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        from paintback.models import catalogue, entries

        names = [card.name for card in catalogue() if card.channels == 3] + list(entries())
        return {
            "required": {"image": ("IMAGE",), "mask": ("MASK",)},
            "optional": {
                "model": (
                    names,
                    {"default": "photo", "tooltip": "photo learnt from photographs, self from this picture."},
                ),
                "quality": (
                    ["fast", "good", "best"],
                    {"default": "good", "tooltip": "About 10 steps, the recommended, or 8 draws."},
                ),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "control_after_generate": True}),
                "grow": ("INT", {"default": 0, "min": 0, "max": 512, "tooltip": "Pixels to grow the mask by."}),
                "method": ([OWN, *menu()], {"default": OWN, "tooltip": "own: what the model is sampled with best."}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "0 for what quality says."}),
            },
        }

    def paint(
        self,
        image: Tensor,
        mask: Tensor,
        model: str = "photo",
        quality: str = "good",
        seed: int = 0,
        grow: int = 0,
        method: str = OWN,
        steps: int = 0,
        **retired: Any,
    ) -> tuple[Tensor]:
        """The pictures."""
        import comfy.model_management as management
        import comfy.utils

        import paintback as pb

        masks = mask.reshape(-1, *mask.shape[-2:]) > 0.5
        bar, made = None, []

        def step(inpainter: Any, index: int, t: float, tensors: Any) -> None:
            management.throw_exception_if_processing_interrupted()
            if bar is not None:
                bar.update(1)

        more: dict[str, Any] = {} if method == OWN else {"method": RETIRED.get(method, method)}
        more |= {"num_inference_steps": steps} if steps else {}
        with torch.inference_mode(False):
            for k, picture in enumerate(image):
                shown = picture[..., :3].cpu().clone()
                given, hole = shown.clamp(0, 1).numpy(), masks[min(k, len(masks) - 1)].cpu().numpy()
                call = {"quality": quality, "mask_grow": float(grow), "generator": seed, **more}
                bar = comfy.utils.ProgressBar(_inpainter(model).plan(given, hole, **call).steps)
                out = pb.inpaint(
                    given, hole, model=_inpainter(model), output_type="np", callback_on_step_end=step, **call
                )
                new = torch.from_numpy(np.ascontiguousarray(out.images[0]))
                made.append(torch.where(new == torch.from_numpy(given), shown, new))  # as other nodes gave it
        return (torch.stack(made),)


_kept: dict[str, Any] = {}


def _inpainter(name: str) -> Any:
    """One Inpainter for each model, kept."""
    import paintback as pb

    if name not in _kept:
        _kept[name] = pb.Inpainter.from_pretrained(name)
        _kept[name].set_progress_bar_config(disable=True)
    return _kept[name]


OWN_NODES = {"ding": "DING", "lanpaint": "LanPaint", "fcs": "FCS", "gradpaint": "GradPaint", "fmm": "FMM"}

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "PaintbackSampler": Sampler,
    **{f"Paintback{title}": sampler_node(name) for name, title in OWN_NODES.items()},
    "PaintbackLatentMask": LatentMask,
    "PaintbackGrowMask": GrowMask,
    "PaintbackCrop": Crop,
    "PaintbackStitch": Stitch,
    "PaintbackGrid": Grid,
    "PaintbackEraser": Eraser,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "PaintbackSampler": "Paintback sampler",
    **{f"Paintback{title}": f"Paintback {title}" for title in OWN_NODES.values()},
    "PaintbackLatentMask": "Paintback latent mask",
    "PaintbackGrowMask": "Paintback grow mask (pictures and clips)",
    "PaintbackCrop": "Paintback crop",
    "PaintbackStitch": "Paintback stitch",
    "PaintbackGrid": "Paintback compare",
    "PaintbackEraser": "Paintback eraser (no checkpoint)",
}
