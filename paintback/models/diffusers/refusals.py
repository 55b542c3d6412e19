"""What is refused before a pipeline's network sees it: there it would end in an error of torch, or be passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

__all__ = ["check_told", "check_widths"]

# how the configs of networks call the width of the text, and of its pooled vector
WIDTHS = (
    "caption_channels",
    "cross_attention_dim",
    "joint_attention_dim",
    "text_dim",
    "cap_feat_dim",
    "text_hidden_dim",
    "text_embed_dim",
)
POOLED = "pooled_projection_dim"


def check_told(
    name: str,
    network: Any,
    prompt: str | None,
    negative_prompt: str | None,
    embeddings: Mapping[str, Any],
    *,
    shown: Sequence[str] = (),
    takes: Sequence[str] = (),
) -> None:
    """Holds what a model is told against what its network reads.

    Args:
        name: of the model.
        network: of the pipeline.
        prompt: text.
        negative_prompt: text.
        embeddings: those that were given, by the pipeline's names.
        shown: the pictures beside the prompt that were given, likewise.
        takes: those that could be.

    Raises:
        ValueError: for a text beside its embeddings, or an IP-Adapter without its picture, or the other way round.
    """
    for text, key in ((prompt, "prompt_embeds"), (negative_prompt, "negative_prompt_embeds")):
        if text and key in embeddings:
            given = key.removesuffix("_embeds")
            raise ValueError(f"Got {given} and {key}, which say the same in two ways; leave one of them out.")
    parts = ("encoder_hid_proj", "image_proj")
    adapted = any("IPAdapter" in type(getattr(network, part, None)).__name__ for part in parts)
    if shown and not adapted:
        raise ValueError(f"Got {shown[0]}, and {name!r} has no IP-Adapter; call pipe.load_ip_adapter(...) first.")
    if len(shown) > 1:
        raise ValueError(f"Got {' and '.join(shown)}, which say the same in two ways; leave one of them out.")
    if adapted and not shown:
        way = f"; give {' or '.join(takes)}, or" if takes else ", and none can be given here;"
        raise ValueError(
            f"The pipeline of {name!r} has an IP-Adapter, which asks for a picture beside the prompt{way} call "
            "pipe.unload_ip_adapter() first."
        )


def check_widths(name: str, network: Any, embeddings: Mapping[str, Any]) -> None:
    """Holds embeddings against the width that a network reads, where its config says so in one number.

    Args:
        name: of the model.
        network: of the pipeline.
        embeddings: those that were given, by the pipeline's names.

    Raises:
        ValueError: for another width.
    """
    config = getattr(network, "config", {})
    for key, value in embeddings.items():
        width = _width(config, pooled="pooled" in key)
        read = key.endswith("prompt_embeds") and isinstance(value, Tensor)
        if read and width is not None and value.shape[-1] != width:
            raise ValueError(
                f"{key} is {tuple(value.shape)}, and the model {name!r} reads vectors of {width} numbers; encode the "
                "text by this model's own pipeline."
            )


def _width(config: Any, *, pooled: bool) -> int | None:
    """How wide a network's config says that embeddings are, where it says so in one number."""
    if pooled:
        width = config.get(POOLED)
        projected, per_number = (
            config.get("projection_class_embeddings_input_dim"),
            config.get("addition_time_embed_dim"),
        )
        if width is None and projected is not None and per_number is not None:
            width = projected - 6 * per_number  # SDXL: the pooled text beside six numbers of the picture's size
    else:
        width = next((config[key] for key in WIDTHS if config.get(key) is not None), None)
    if isinstance(width, tuple | list):
        width = width[0] if len(set(width)) == 1 else None
    return width if isinstance(width, int) else None
