"""What is said before the work: a method that the model cannot run, and pictures that will be worse than hoped."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from paintback.images.errors import Remark
from paintback.methods.base import Method
from paintback.models.base import Model
from paintback.painting.layout import Plan

__all__ = ["check_gradients", "precise", "prepare_network", "warn_of_method", "warn_of_width"]


def check_gradients(model: Model, method: Method | None) -> None:
    """Refuses gradients where accelerate's sequential offloading takes the weights away in between.

    Raises:
        ValueError: naming what to use in its place.
    """
    if method is None or not (method.needs_vjp or method.vjps(2)) or model.network is None:
        return
    parts = [part for network in model.networks() for part in network.modules()]
    sequential = any(getattr(getattr(part, "_hf_hook", None), "offload", False) for part in parts)
    hooks = (getattr(getattr(part, "_diffusers_hook", None), "hooks", {}) for part in parts)
    if sequential or any("group_offloading" in names for names in hooks):
        raise ValueError(
            f"Method {method.name} takes gradients, and {'sequential' if sequential else 'group'} offloading has taken "
            'the weights away by then; use whole-model offloading in its place (offload="model", '
            "enable_model_cpu_offload), or a method without gradients."
        )


def precise(model: Model, *methods: Method | None) -> Model:
    """The model as methods need it: in float32 for those that take differences, unless fewer bits were asked for."""
    return model.exact() if any(method is not None and method.differences for method in methods) else model


def warn_of_method(
    model: Model,
    method: Method | None,
    warned: set[str] | None = None,
    *,
    instead: str = 'leave the method out, which takes "gibbs"',
) -> None:
    """Says that a method draws by a score which the model does not give, or takes its picture for a mean.

    Args:
        model: that paints.
        method: that samples, or None.
        warned: of which methods it was said, added to; None to say it again.
        instead: what the task has that such a model can run.
    """
    warned = set() if warned is None else warned
    if method is None or method.name in warned:
        return
    if method.needs_score and model.distilled:
        warned.add(method.name)
        warnings.warn(
            f"Method {method.name} draws by the model's score, which {model.name!r} does not give, since "
            "guidance was distilled into it: expect worse pictures, or take another method or undistilled model.",
            stacklevel=3,
        )
    if model.step_distilled and not method.takes_draws:
        warned.add(method.name)
        warnings.warn(
            f"Method {method.name} takes the model's prediction for a mean, and {model.name!r} is step-distilled: it "
            "predicts the end of the path from noise to picture, and knows few noise levels. Expect worse pictures, or "
            f"{instead}; step_distilled=False says that the model is none.",
            stacklevel=3,
        )


def warn_of_width(model: Model, plans: Iterable[Plan], warned: set[str]) -> None:
    """Says once that a hole is wider than what the model learnt from, and what to do."""
    wide = max((plan.widest for plan in plans), default=0)
    if wide <= model.training_size or "width" in warned:
        return
    warned.add("width")
    warnings.warn(
        f"The hole is about {wide:.0f} pixels wide, and {model.name!r} learnt from pictures of "
        f"{model.training_size}: its middle is begun small and comes out vague; hide less at a time, or take "
        "a model of larger pictures, such as a pipeline of diffusers.",
        Remark,
        stacklevel=3,
    )


def prepare_network(model: Model, *, channels_last: bool, compile: bool, gradient_checkpointing: bool) -> None:
    """Changes how a model's network runs, as `Inpainter.from_pretrained` was asked to.

    Raises:
        ValueError: if the network does not take it.
    """
    if not (channels_last or compile or gradient_checkpointing):
        return
    if not model.networks():
        raise ValueError(f"The model {model.name!r} has no network of its own; leave the options of networks out.")
    for network in model.networks():
        _prepare(model, network, channels_last, compile, gradient_checkpointing)


def _prepare(model: Model, network: nn.Module, channels_last: bool, compile: bool, checkpointing: bool) -> None:
    if channels_last:
        if not any(weight.ndim == 4 for weight in network.parameters()):
            raise ValueError(f"The network of {model.name!r} has no 2-D convolutions; leave channels_last out.")
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if checkpointing:
        enable: Any = getattr(network, "enable_gradient_checkpointing", None)
        if enable is None:
            raise ValueError(f"The network of {model.name!r} has no gradient checkpointing; leave that out.")
        enable()
    if compile:
        network.compile()
