"""The models: one file per family, and the list of those that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintback.models.catalogue import Card, catalogue, find

if TYPE_CHECKING:
    from paintback.models.base import Model

__all__ = ["Card", "catalogue", "find", "load"]


def load(name: str | Path, *, device: Any = None, dtype: Any = None) -> Model:
    """Loads a model by name.

    Args:
        name: an embedded model's name, or the path of a safetensors file that `paintback train prior` wrote.
        device: a torch device or its name; None chooses.
        dtype: a torch dtype; None for the family's own.

    Raises:
        ValueError: if there is no such model.
    """
    from paintback.models.embedded import load_embedded

    card = find(str(name))
    if card is not None:
        return load_embedded(card.weights, name=card.name, device=device, dtype=dtype)
    path = Path(name)
    if path.suffix == ".safetensors" and path.is_file():
        return load_embedded(path, device=device, dtype=dtype)
    names = ", ".join(card.name for card in catalogue())
    raise ValueError(
        f"There is no model {str(name)!r}; give one of {names}, or the path of your own weights (.safetensors)."
    )
