"""Turning a training checkpoint into weights to ship: float16, with a header that says what they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from paintback.models.catalogue import Sampler

__all__ = ["export_prior"]


def export_prior(
    checkpoint: Path,
    out: Path,
    *,
    size: int | None = None,
    training_size: int = 64,
    sampler: Sampler | None = None,
    guidance_scale: float | None = None,
) -> Path:
    """Writes a checkpoint of `train_prior` as float16 weights.

    Args:
        checkpoint: `model.safetensors` of a training run.
        out: the file to write.
        size: the one side that the model takes; None for any.
        training_size: side of the crops it learnt from.
        sampler: what to sample it with where the user names no method.
        guidance_scale: of classifier-free guidance where the user names none, for a model with prompts; None for 1.

    Returns:
        `out`.
    """
    with safe_open(checkpoint, "pt") as file:
        header = dict(file.metadata() or {})
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header |= {"kind": "prior", "training_size": str(training_size)}
    if sampler is not None:
        header["sampler"] = json.dumps(asdict(sampler))
    if guidance_scale is not None:
        header["guidance_scale"] = str(guidance_scale)
    if size is not None:
        header["size"] = str(size)
    half = {
        key: (value if key == "frequencies" else value.to(torch.float16)).contiguous() for key, value in state.items()
    }
    temporary = out.with_suffix(".partial")
    save_file(half, temporary, header)
    temporary.chmod(0o644)
    temporary.replace(out)
    return out
