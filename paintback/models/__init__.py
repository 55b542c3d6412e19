"""The models: one file per family, and the list of those that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintback.models.catalogue import OWN_PICTURE, Card, ModelEntry, catalogue, entries, family, find, unknown

if TYPE_CHECKING:
    from paintback.models.base import Model

__all__ = ["Card", "ModelEntry", "catalogue", "entries", "find", "load"]


def load(name: str | Path, *, device: Any = None, dtype: Any = None, **options: Any) -> Model:
    """Loads a model by name.

    Args:
        name: an embedded model's name or a plug-in's, the path of a safetensors file that `paintback train prior` or
            `paintback convert` wrote, or of a research checkpoint (.pt, .pkl), the folder of a diffusers pipeline, or
            its id on the Hub ("owner/name").
        device: a torch device or its name; None chooses.
        dtype: a torch dtype or its name; None for the family's own.
        options: of pipelines alone: `offload`, `step_distilled`, `variant`, `quantization_config`, and more of
            `from_pretrained`.

    Raises:
        ValueError: if there is no such model, device or dtype, or it is no pipeline and takes no such option.
    """
    from paintback.models.checkpoints import load_checkpoint

    device, dtype = _device(device), _dtype(dtype)
    options = {
        key: value for key, value in options.items() if value is not None and (key, value) != ("offload", "none")
    }

    if (entry := entries().get(str(name))) is not None:
        return _plugged(str(name), entry, device, dtype)

    card = find(str(name))
    if options and (card is not None or Path(name).is_file()):
        raise ValueError(f"The model {str(name)!r} is no pipeline of diffusers and takes no {', '.join(options)}.")
    path = Path(name) if card is None else card.weights
    if path.suffix == ".safetensors" and path.is_file() and family(path) == OWN_PICTURE:
        from paintback.models.own_picture import load_own_picture

        return load_own_picture(path, device=device, dtype=dtype)
    if card is None and (checkpoint := load_checkpoint(path, device=device, dtype=dtype)) is not None:
        return checkpoint
    if path.suffix == ".safetensors" and path.is_file():
        from paintback.models.embedded import load_embedded

        return load_embedded(path, device=device, dtype=dtype)
    if (path / "model_index.json").is_file() or (not path.exists() and str(name).count("/") == 1):
        from paintback.models.diffusers import load_pipeline

        return load_pipeline(name, device=device, dtype=dtype, **options)
    raise unknown(str(name))


def _device(device: Any) -> Any:
    """A device, which may be given by its name.

    Raises:
        ValueError: for none of torch's, or one that is not here.
    """
    if device is None:
        return None
    import torch

    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"There is no device {device!r}; give cpu, cuda, cuda:1 or mps.") from None
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"There is no device '{found}' here ({why}); give cpu, or leave it out.") from None
    return found


def _dtype(dtype: Any) -> Any:
    """A dtype, which may be given by its name.

    Raises:
        ValueError: for what is no dtype of floating-point numbers.
    """
    if dtype is None:
        return None
    import torch

    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"There is no dtype {dtype!r} for a network; give float32, bfloat16 or float16.")
    return found


def _plugged(name: str, entry: ModelEntry, device: Any, dtype: Any) -> Model:
    from paintback.models.base import Model

    model = entry.load(device=device, dtype=dtype)
    if not isinstance(model, Model):
        raise ValueError(
            f"The plug-in's model {name!r} came as a {type(model).__name__}, and a paintback.models.base.Model is "
            "expected; update the plug-in."
        )
    return model
