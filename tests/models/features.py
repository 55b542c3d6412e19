"""What each family of pipelines has, found by running it at tiny size: `python -m tests.models.features [NAME ...]`.

Writes docs/data/features.json, of which docs/generate.py makes the table in docs/models/families.md;
`test_features.py` runs every cell again. A cell is "yes", or the sentence with which the feature is refused.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import paintback as pb
from paintback.models.diffusers import FAMILIES, from_pipe
from paintback.models.diffusers.families import rebuilt, sibling
from paintback.models.sound import SoundModel
from paintback.tasks.checks import check_gradients, prepare_network
from tests.models import tiny_pipelines as tiny

DATA = Path(__file__).parents[2] / "docs" / "data" / "features.json"
NAMES = (
    *("sd15", "sdxl", "sd3", "flux_dev", "flux_kontext", "flux2_klein", "qwen_image", "qwen_image_edit", "z_image"),
    *(
        "hidream",
        "chroma",
        "aura_flow",
        "pixart_sigma",
        "lumina2",
        "sana",
        "krea2",
        "kandinsky5_image",
        "ideogram4",
        "wan",
        "ltx",
        "hunyuan_video",
        "kandinsky5",
        *tiny.SOUND,
    ),
)


def look(pipe: Any, **words: Any) -> Any:
    """One evaluation under a prompt and what is given beside it."""
    model: Any = from_pipe(pipe)
    denoiser = model.denoiser("a red fox", size=size_of(model), **{**shown(model), **words})
    seen = denoiser(torch.zeros(1, *denoiser.shape), 0.5)
    assert bool(seen.x0.isfinite().all())
    return seen


def size_of(model: Any) -> tuple[int, ...]:
    """Of a picture, a clip or a sound."""
    if isinstance(model, SoundModel):
        return (1, 1200)
    return (5, 64, 64) if model.training_frames > 1 else (64, 64)


def shown(model: Any) -> dict[str, Any]:
    """A picture to go by, for models that cannot do without one; a short text where 2048 tokens are the default."""
    if type(model).__name__ == "Ideogram4":
        return {"max_sequence_length": 64}
    return {"reference_images": torch.zeros(1, 3, 64, 64)} if "image" in model.reads else {}


def keyword(name: str, value: Any) -> Callable[[Any], None]:
    """A keyword of the call that reaches the model."""
    return lambda pipe: look(pipe, **{name: value})


def control(**words: Any) -> Callable[[Any], None]:
    """A picture to follow, with the ControlNet of the family where diffusers has one."""

    def feature(pipe: Any) -> None:
        import diffusers

        has = hasattr(diffusers, type(pipe).__name__.replace("Pipeline", "ControlNetPipeline"))
        own = tiny.with_controlnet(pipe) if has and "control_image" in from_pipe(pipe).keywords else pipe
        for more in ({}, words):
            look(own, control_image=torch.zeros(1, 3, 64, 64), **more)

    return feature


def image_prompt(pipe: Any) -> None:
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    own = type(pipe)(**pipe.components, **EXTRA.get(type(pipe).__name__, {}))
    setattr(own, part, copy.deepcopy(getattr(pipe, part)))
    takes = "ip_adapter_image" in from_pipe(pipe).keywords
    siglip = "StableDiffusion3" in type(pipe).__name__
    embeds: Any = torch.zeros(2, 4, 16) if siglip else [torch.zeros(2, 1, 24)]
    look(tiny.with_ip_adapter(own) if takes else pipe, ip_adapter_image_embeds=embeds)


EXTRA = {"StableDiffusionPipeline": {"requires_safety_checker": False}}


def attention(pipe: Any) -> None:
    told = from_pipe(pipe).attention
    if told is None:
        raise ValueError("its pipeline has no such keyword for the network")
    look(pipe, **{told[0]: {}})


def class_of_another_task(pipe: Any) -> None:
    import diffusers

    own = type(pipe).__name__
    others = [name for name in dir(diffusers) if name not in FAMILIES and sibling(name) == own and name != own]
    if not others:
        raise ValueError("diffusers has none")
    assert type(from_pipe(rebuilt(pipe, getattr(diffusers, sorted(others, key=len)[0])))) is type(from_pipe(pipe))


def gradients(pipe: Any) -> None:
    model: Any = from_pipe(pipe)
    denoiser = model.denoiser("a red fox", size=size_of(model), **shown(model))
    hidden = torch.zeros(denoiser.shape, dtype=torch.bool)
    run = pb.methods.get("dps").open(denoiser, pb.Observation(torch.zeros(denoiser.shape), hidden), 2)
    x = torch.zeros(1, *denoiser.shape)
    _, vjp = run.linearise(x, run.times[0])
    assert bool(vjp(x + 1).abs().sum() > 0)


def checkpointing(pipe: Any) -> None:
    model = from_pipe(pipe)
    prepare_network(model, channels_last=False, compile=False, gradient_checkpointing=True)
    for network in model.networks():
        network.disable_gradient_checkpointing()  # the other cells are of the pipe as it comes


def sequential(pipe: Any) -> None:
    part = next(from_pipe(pipe).network.children())
    part._hf_hook = type("Hook", (), {"offload": True})()
    try:
        check_gradients(from_pipe(pipe), pb.methods.get("dps"))
    finally:
        del part._hf_hook


def cast_later(pipe: Any) -> None:
    model = from_pipe(pipe)
    before = model.dtype
    model.network.to(torch.bfloat16)
    try:
        assert model.dtype == torch.bfloat16
        look(pipe)
    except RuntimeError as error:  # the network's own: not ours to mend
        if not type(pipe).__name__.startswith("Kandinsky5"):
            raise
        raise ValueError("on a CPU its network runs in the dtype that it was loaded in") from error
    finally:
        model.network.to(before)


FEATURES: dict[str, Callable[[Any], Any]] = {
    "a prompt": look,
    "`prompt_2`": keyword("prompt_2", "a stone"),
    "`clip_skip`": keyword("clip_skip", 1),
    "`max_sequence_length`": keyword("max_sequence_length", 64),
    "`guidance_rescale`": keyword("guidance_rescale", 0.5),
    "keywords of attention": attention,
    "`skip_guidance_layers`": keyword("skip_guidance_layers", [0]),
    "classes for other tasks": class_of_another_task,
    "gradients": gradients,
    "gradient checkpointing": checkpointing,
    "gradients, sequential offloading": sequential,
    "cast after `from_pipe`": cast_later,
    "`ip_adapter_image`": image_prompt,
    "`control_image`": control(),
    "`control_guidance_start`, `_end`": control(control_guidance_start=0.1, control_guidance_end=0.9),
    "`guess_mode`": control(guess_mode=True),
    "reference pictures": keyword("reference_images", torch.zeros(1, 3, 64, 64)),
}


def cell(pipe: Any, feature: str) -> str:
    """A cell: "yes", or the sentence."""
    try:
        FEATURES[feature](pipe)
    except ValueError as error:
        said = re.sub(r"The model '[^']*'", "It", str(error)).strip()
        said = re.sub(r"The ControlNets of '[^']*'", "Its ControlNets", said)
        return re.sub(r"; valid are .*", ".", said)  # that list is as long as the family takes embeddings
    return "yes"


def column(name: str) -> dict[str, str]:
    """All cells of a family."""
    pipe = tiny.build(name)
    return {feature: cell(pipe, feature) for feature in FEATURES}


if __name__ == "__main__":
    tiny.small_references(setattr)
    found = json.loads(DATA.read_text(encoding="utf-8")) if sys.argv[1:] else {}
    found |= {name: column(name) for name in sys.argv[1:] or NAMES}
    DATA.write_text(json.dumps({name: found[name] for name in NAMES}, indent=1) + "\n", encoding="utf-8")
