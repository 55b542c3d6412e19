"""From what a checkpoint says of its network and its weights to the network."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

__all__ = ["choose_device", "configure", "fill"]

C = TypeVar("C")
N = TypeVar("N", bound=nn.Module)


def configure(kind: type[C], fields: Mapping[str, Any], what: str) -> C:
    """A configuration from plain JSON values; lists become tuples.

    Args:
        kind: a dataclass.
        fields: its fields.
        what: kind of network, for messages.

    Raises:
        ValueError: for a field that is missing, unknown or of a wrong kind.
    """
    hints = get_type_hints(kind)
    if unknown := sorted(set(fields) - set(hints)):
        raise ValueError(f"{what} networks have no {', '.join(unknown)}; their fields are {', '.join(sorted(hints))}.")
    needed = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}  # type: ignore[arg-type]
    if lacking := sorted(needed - set(fields)):
        raise ValueError(f"The configuration of this {what} network lacks {', '.join(lacking)}.")
    for name, value in fields.items():
        if not _fits(value, hints[name]):
            choices = get_args(hints[name]) if get_origin(hints[name]) is Literal else (_told(hints[name]),)
            raise ValueError(f"{name} of this {what} network is {value!r}; {' or '.join(choices)} is expected.")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(one, inner[0]) for one in value)
    if origin in (types.UnionType, Union):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def _told(hint: Any) -> str:
    """A type for readers."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if get_origin(hint) is tuple:
        return "a list, each of it " + _told(get_args(hint)[0])
    return words[hint] if hint in words else " or ".join(_told(one) for one in get_args(hint))


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; None for CUDA where there is one, else the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fill(
    make: Callable[[], N],
    state: Mapping[str, Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    kind: str,
    prepare: Callable[[N], None] | None = None,
) -> N:
    """A network with given weights, in eval mode and without gradients.

    Args:
        make: builds the network; it is called without memory for initial weights, which would also draw from torch's
            global generator.
        state: all weights and buffers of the network, and nothing else.
        device: where it runs.
        dtype: of the parameters; buffers, such as frequencies, stay in float32.
        kind: of network, for messages.
        prepare: called with the network while its weights are in float32.

    Raises:
        ValueError: if the weights do not fit the network, or the device is not there.
    """
    with torch.device("meta"):
        network = make()
    wanted = network.state_dict()
    for keys, text in (
        (wanted.keys() - state.keys(), "lack {}"),
        (state.keys() - wanted.keys(), "also hold {}"),
        (
            {key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape},
            "have {} of another shape",
        ),
    ):
        if keys:
            names = min(keys) + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
            raise ValueError(
                f"The weights do not fit the {kind} network of their configuration: they {text.format(names)}."
            )
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    if prepare is not None:
        prepare(network)
    try:
        for parameter in network.parameters():
            parameter.data = parameter.data.to(dtype)
        return network.to(device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"The device {device} cannot be used here: {str(error).splitlines()[0]}") from error
