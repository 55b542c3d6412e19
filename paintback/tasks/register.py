"""`paintback.register`: a method or a model of one's own, by name, until the process ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from paintback import methods, plugins
from paintback.methods.base import Method
from paintback.models.base import Model
from paintback.models.catalogue import ModelEntry, catalogue, check_entry

__all__ = ["register"]

T = TypeVar("T", bound="type[Method] | Model | ModelEntry | Callable[..., Any]")


def register(thing: T, *, name: str | None = None) -> T:
    """Makes a method or a model known by its name, as an installed plug-in's is.

        @pb.register
        @dataclass(frozen=True)
        class Mixed(pb.methods.Method): ...

        pb.register(pb.Inpainter.from_network(network, ...).model, name="mine")

    Args:
        thing: a class that derives from `Method`; a loaded `Model`; or, for a model that is loaded when it is first
            asked for, a `models.ModelEntry` or a function load(*, device, dtype) that gives one.
        name: of a model; None for its own. A method has its class's.

    Returns:
        The thing itself, so that this is a decorator too.

    Raises:
        ValueError: for a name that is taken, or a thing of another kind.
    """
    if isinstance(thing, type) and issubclass(thing, Method):
        own = str(getattr(thing, "name", ""))
        if name not in (None, own):
            raise ValueError(f"A method has the name of its class; got name={name!r} for {own!r}.")
        plugins.add(plugins.METHODS, own, thing, methods.shipped(), methods.check_type)
        return thing
    if isinstance(thing, Model):
        kept: Model = thing
        given = name or kept.name
        entry: Any = ModelEntry(lambda device, dtype: kept, kept.name, kept.channels, sampler=kept.sampler)
    else:
        given = name or str(getattr(thing, "__name__", ""))
        entry = thing
    shipped = [card.name for card in catalogue()]
    plugins.add(plugins.MODELS, given, entry, shipped, check_entry)
    return thing
