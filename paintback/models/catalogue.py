"""The list of shipped models, read from `paintback/weights/`: NAME.safetensors with its card NAME.md."""

from __future__ import annotations

import difflib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paintback import plugins

__all__ = [
    "OWN_PICTURE",
    "TRAINED",
    "WEIGHTS",
    "Card",
    "ModelEntry",
    "Sampler",
    "catalogue",
    "check_entry",
    "entries",
    "find",
    "is_here",
    "is_pipeline",
    "read_header",
    "recommended",
    "takes_mask",
    "takes_references",
    "unknown",
]

TRAINED = "trained"  # in place of a method: the model takes the mask itself
OWN_PICTURE = "own-picture"  # the family of files with settings and no weights
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True)
class Sampler:
    """How a model is sampled best, as measured on its card; used where the user names no method.

    Attributes:
        method: its name.
        fields: those that are not the method's defaults.
        num_inference_steps: grid intervals.
        policy: how holes are cut into crops and scales: fields of `painting.layout.Policy` that are not the defaults.
        fast: fields that quality "fast" changes, so that the steps stay the model's own; None where it takes fewer.
        thin: NAME:FIELD=VALUE..., the method where the hole is thin; None for the same.
    """

    method: str = "ding"
    fields: dict[str, Any] = field(default_factory=dict)
    num_inference_steps: int = 25
    policy: dict[str, Any] = field(default_factory=dict)
    thin: str | None = None
    fast: dict[str, Any] | None = None


@dataclass(frozen=True)
class Card:
    """What is known of a shipped model without loading it.

    Attributes:
        name: for `Inpainter.from_pretrained` and `--model`.
        title: one line.
        channels: colours.
        parameters: number of weights.
        size_bytes: of the file.
        weights: the file.
        card: the model card.
        vocabulary: number of words that prompts are made of; 0 for a model without prompts.
    """

    name: str
    title: str
    channels: int
    parameters: int
    size_bytes: int
    weights: Path
    card: Path
    vocabulary: int = 0


@dataclass(frozen=True)
class ModelEntry:
    """A model of a plug-in, known before it is loaded.

    Attributes:
        load: called with `device` and `dtype`, None for its own choice; gives a `models.base.Model`.
        title: one line.
        channels: colours.
        takes_text: whether it reads a prompt.
        sampler: what it is sampled with best; the loaded model's own counts.
    """

    load: Callable[..., Any]
    title: str = ""
    channels: int = 3
    takes_text: bool = False
    sampler: Sampler = field(default_factory=Sampler)


def entries() -> dict[str, ModelEntry]:
    """The models of plug-ins, and those that were registered, by name."""
    names = [path.stem for path in WEIGHTS.glob("*.safetensors")]
    found = plugins.added(plugins.MODELS, names, check_entry)
    return {name: check_entry(name, value) for name, value in sorted(found.items())}


def check_entry(name: str, value: object) -> ModelEntry:
    """What a plug-in gives as a model, as an entry; a function's title is the first line of its docstring.

    Args:
        name: that it is to be asked for by.
        value: an entry, or a function that loads.

    Raises:
        ValueError: for anything else, or a name that would be a path or a Hub id.
    """
    if not name or "/" in name or "." in name:
        raise ValueError(f"A model's name must be a word without '/' and '.'; got {name!r}.")
    if isinstance(value, ModelEntry):
        return value
    if not callable(value):
        raise ValueError(
            f"The model {name!r} must be a function load(*, device, dtype) or a ModelEntry; got {value!r}."
        )
    return ModelEntry(value, title=(value.__doc__ or name).strip().splitlines()[0])


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, without torch.

    Raises:
        ValueError: for another file.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= path.stat().st_size:
            raise ValueError(f"{path} is not a safetensors file.")
        header: dict[str, Any] = json.loads(file.read(length))
    return header


def family(path: Path) -> str:
    """The family of models that a safetensors file is of, as its header says; empty where it says none."""
    try:
        return str(read_header(path).get("__metadata__", {}).get("family", ""))
    except ValueError:
        return ""


def catalogue() -> list[Card]:
    """All shipped models, by name; torch is not imported."""
    cards = []
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        header = read_header(path)
        meta = header.pop("__metadata__")
        assert isinstance(meta, dict)
        if meta.get("kind", "prior") != "prior":
            continue
        parameters = 0
        for entry in header.values():
            assert isinstance(entry, dict)
            start, stop = entry["data_offsets"]
            parameters += (stop - start) // {"F16": 2, "BF16": 2, "F32": 4}[entry["dtype"]]
        card = path.with_suffix(".md")
        title = card.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") if card.exists() else path.stem
        config = json.loads(str(meta["config"]))
        size, words = path.stat().st_size, config.get("vocabulary", 0)
        cards.append(Card(path.stem, title, config["channels"], parameters, size, path, card, words))
    return cards


def find(name: str) -> Card | None:
    """The shipped model of that name, or None."""
    return next((card for card in catalogue() if card.name == name), None)


def unknown(name: str) -> ValueError:
    """What to say of a name that is no model's."""
    names = [*(card.name for card in catalogue()), *entries()]
    near = [] if "/" in name else difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return ValueError(
        f"There is no model {name!r}{hint}; give one of {', '.join(names)}, the path of your own weights "
        "(.safetensors), or a diffusers pipeline's folder or Hub id."
    )


def recommended(name: str, step_distilled: str | None = None) -> Sampler:
    """The sampler that a model's weights recommend, without loading them; the common default where they name none.

    Args:
        name: a shipped model's name, or the path of a file or folder, or a Hub id.
        step_distilled: "yes" or "no" of a pipeline, or None to go by its name.
    """
    if name in (own := entries()):
        return own[name].sampler
    if takes_mask(name):
        return Sampler(TRAINED)
    card = find(name)
    path = Path(name) if card is None else card.weights
    if (card is None and (path / "model_index.json").is_file()) or (not path.exists() and name.count("/") == 1):
        from paintback.models.distilled import is_step_distilled, sampler_of

        few = is_step_distilled(name) if step_distilled is None else step_distilled == "yes"
        return sampler_of(name) if few else Sampler()
    if path.suffix != ".safetensors" or not path.is_file():
        return Sampler()
    meta = read_header(path).get("__metadata__", {})
    assert isinstance(meta, dict)
    return Sampler(**json.loads(meta.get("sampler", "{}")))


def is_here(name: str) -> bool:
    """Whether a model is known to be on this machine, before it is loaded.

    Args:
        name: as in `recommended`.
    """
    return name in entries() or find(name) is not None or Path(name).exists() or _index(name) is not None


def is_pipeline(name: str) -> bool:
    """Whether a name is that of a pipeline of diffusers: of a folder or a Hub id, and of no model that is known here.

    Args:
        name: as in `recommended`.
    """
    return name not in entries() and find(name) is None and not Path(name).is_file()


def takes_mask(name: str) -> bool:
    """Whether a pipeline was trained to inpaint, by its `model_index.json`, in a folder or already got from the Hub.

    Args:
        name: the folder or the Hub id.
    """
    index = _index(name)
    if index is None:
        return False
    from paintback.models.diffusers import FAMILIES

    if FAMILIES.get(_class(index), ("",))[0] != "trained":
        return False
    network = index.parent / "unet" / "config.json"  # the class is also that of networks without the mask
    return not network.is_file() or json.loads(network.read_text(encoding="utf-8")).get("in_channels") != 4


def takes_references(name: str) -> bool:
    """Whether a model goes by reference pictures, or is a pipeline of which that is not known before it is loaded.

    Args:
        name: as in `recommended`.
    """
    index = _index(name)
    if index is None:
        return is_pipeline(name)
    from paintback.models.diffusers.families import adapter_of

    adapter = adapter_of(_class(index))
    return adapter is None or "reference_images" in tuple(getattr(adapter, "keywords", ()))


def _index(name: str) -> Path | None:
    """The `model_index.json` of a pipeline, in its folder or already got from the Hub; None where there is none."""
    if Path(name).exists() or name.count("/") != 1:
        index = Path(name) / "model_index.json"
        return index if index.is_file() else None
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(name, "model_index.json")
    return Path(found) if isinstance(found, str) else None


def _class(index: Path) -> str:
    """The class of the pipeline that an index is of."""
    return str(json.loads(index.read_text(encoding="utf-8")).get("_class_name"))
