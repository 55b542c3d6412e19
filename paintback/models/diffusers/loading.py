"""Pipelines from folders, the Hub and single files: their dtype, where they lie, and whether they fit."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from paintback.models.diffusers.families import from_pipe
from paintback.resources import Unfit

if TYPE_CHECKING:
    import torch

    from paintback.models.base import Model

__all__ = ["Offload", "estimate", "load_pipeline", "load_single_file", "place", "unfit"]

Offload = Literal["none", "model", "group", "sequential"]
ROOM = 0.92  # share of the free memory that weights may take; activations need the rest
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def load_pipeline(
    name: str | Path,
    *,
    device: Any = None,
    dtype: Any = None,
    offload: Offload = "none",
    step_distilled: bool | None = None,
    **options: Any,
) -> Model:
    """A pipeline from a folder or from the Hub.

    Args:
        name: a folder with a `model_index.json`, or a Hub id "owner/name".
        device: None for CUDA where there is one, else the CPU.
        dtype: of its modules; None for bfloat16 on CUDA (float16 before Ampere) and float32 elsewhere.
        offload: which modules wait in the host's memory: "none"; "model", all but the one that runs; "group", all but
            the layer that runs and the next; "sequential", all but the layer that runs, without gradients.
        step_distilled: see `from_pipe`.
        options: for `DiffusionPipeline.from_pretrained`: `variant`, `quantization_config`, modules of one's own, ...

    Raises:
        ValueError: if diffusers is not installed, there is no such pipeline, or it does not fit.
    """
    diffusers = _diffusers()
    where = _where(device)
    folder = Path(name)
    index = folder / "model_index.json"
    if index.is_file():
        # a pipeline saved without an optional module has to be told so again
        parts = json.loads(index.read_text(encoding="utf-8"))
        empty = {key: None for key, value in parts.items() if value == [None, None]}
        options = {**empty, **options}
    kind = dtype or _own_dtype(where)
    try:
        if not folder.exists():
            shared = {key: options[key] for key in ("variant", "revision", "token", "cache_dir") if key in options}
            folder = Path(diffusers.DiffusionPipeline.download(str(name), **shared))
        if options.get("quantization_config") is None:
            check_fits(str(name), estimate(folder, kind, options), where, kind, offload)
        pipe = diffusers.DiffusionPipeline.from_pretrained(str(folder), dtype=kind, **options)
    except Unfit:
        raise
    except (OSError, ValueError, ImportError) as error:  # of a package that a part of it needs, too
        reason = _first_sentence(error)
        if not folder.exists():
            reason = "no folder, not in the Hub's cache, not fetched; check the name, the network and HF_HUB_OFFLINE."
        raise ValueError(f"No pipeline could be loaded from {str(name)!r}: {reason}") from error
    return _own(pipe, str(name), where, offload, step_distilled)


def load_single_file(
    path: str | Path,
    *,
    config: str | Path | None = None,
    device: Any = None,
    dtype: Any = None,
    offload: Offload = "none",
    **options: Any,
) -> Model:
    """A pipeline from one checkpoint file.

    Args:
        path: .safetensors, or .ckpt (which diffusers opens without executing it).
        config: the folder or Hub id of a pipeline of the same architecture; None to let diffusers find it, which
            needs the Hub.
        device: None for CUDA where there is one, else the CPU.
        dtype: of its modules; None as for `load_pipeline`.
        offload: likewise.
        options: for the pipeline's `from_single_file`.

    Raises:
        ValueError: if diffusers is not installed, or the file cannot be read.
    """
    diffusers = _diffusers()
    where = _where(device)
    if not Path(path).is_file():
        raise ValueError(f"There is no file {str(path)!r}; give a checkpoint's path.")
    if config is None:
        try:
            from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint

            config = fetch_diffusers_config(load_single_file_checkpoint(str(path)))["pretrained_model_name_or_path"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"The architecture of {str(path)!r} is not clear; give config=, a pipeline's folder."
            ) from error
    try:
        kind = diffusers.DiffusionPipeline.load_config(str(config))["_class_name"]
        pipe = getattr(diffusers, kind).from_single_file(
            str(path), config=str(config), dtype=dtype or _own_dtype(where), **options
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"No pipeline could be loaded from {str(path)!r}: {_first_sentence(error)}") from error
    return _own(pipe, str(path), where, offload)


# -------------------------------------------------------------------------------------------------------------- memory


def estimate(folder: Path, dtype: torch.dtype, given: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Bytes of the weights of every module of a pipeline's folder, in a dtype; nothing is loaded.

    Args:
        folder: with a `model_index.json`.
        dtype: that floating-point weights are loaded in.
        given: options of the loading: its `variant` is looked for, and modules that it names are left out.
    """
    given = given or {}
    variant = given.get("variant")
    found = {}
    for part in sorted(folder.iterdir()) if folder.is_dir() else []:
        if part.is_dir() and part.name not in given:
            files = sorted(part.glob("*.safetensors"))
            chosen = [one for one in files if variant and f".{variant}" in one.name]
            plain = [one for one in files if one.stem.split("-0")[0].count(".") == 0]
            bytes_ = sum(_weights(one, dtype.itemsize) for one in chosen or plain or files)
            if not files:
                bytes_ = sum(one.stat().st_size for one in part.glob("*.bin"))
            if bytes_:
                found[part.name] = bytes_
    return found


def _weights(path: Path, size: int) -> int:
    """Bytes of a safetensors file's weights, floating-point ones at `size` bytes a number; its head is read."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    kinds = ((one["dtype"], math.prod(one["shape"])) for name, one in head.items() if name != "__metadata__")
    return sum(count * (size if kind in FLOATS else SIZES.get(kind, 1)) for kind, count in kinds)


def check_fits(name: str, parts: Mapping[str, int], where: Any, dtype: Any, offload: Offload) -> None:
    """Refuses weights that the device has no room for, before they are loaded.

    Raises:
        ValueError: saying what would fit.
    """
    from paintback.resources import free_bytes

    free = free_bytes(where)
    sentence = None if free is None else unfit(name, parts, free, str(where), dtype, offload)
    if sentence is not None:
        raise Unfit(sentence)


def unfit(name: str, parts: Mapping[str, int], free: int, where: str, dtype: Any, offload: Offload) -> str | None:
    """The sentence on weights that a device has no room for, or None where they fit.

    Args:
        name: of the model.
        parts: bytes by module.
        free: bytes of the device.
        where: the device.
        dtype: of the weights.
        offload: as asked.
    """
    whole, largest = sum(parts.values()), max(parts.values(), default=0)
    needed = {"none": whole, "model": largest, "group": 0, "sequential": 0}
    if needed[offload] <= ROOM * free:
        return None
    fitting = next(way for way, size in needed.items() if size <= ROOM * free)
    kind = str(dtype).removeprefix("torch.")
    advice = [f"offload={fitting!r} needs {_giga(needed[fitting])}" if needed[fitting] else f"offload={fitting!r} fits"]
    if kind == "float32":
        advice.append("bfloat16 (torch_dtype) needs half of it")
    advice.append("a quantization_config less")
    return (
        f"The weights of {name!r} need {_giga(needed[offload])} in {kind}, and {where} has {_giga(free)} free; "
        f"{', '.join(advice)}."
    )


def _giga(count: int) -> str:
    return f"{count / 1e9:.3g} GB"


# ------------------------------------------------------------------------------------------------------------- placing


def place(pipe: Any, where: torch.device, offload: Offload = "none") -> None:
    """Puts a pipeline on a device, or has its modules come there when they run.

    Args:
        pipe: the pipeline.
        where: the device.
        offload: see `load_pipeline`.

    Raises:
        ValueError: for a way that there is none of, or that this device cannot do.
    """
    if offload not in get_args(Offload):
        raise ValueError(f"offload must be one of {', '.join(get_args(Offload))}; got {offload!r}.")
    if offload != "none" and where.type == "cpu":
        raise ValueError(f"offload={offload!r} moves modules between the CPU and another device; leave it out on cpu.")
    try:
        if offload == "model":
            pipe.enable_model_cpu_offload(device=where)
        elif offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=where)
        elif offload == "group":
            stream = where.type == "cuda"
            pipe.enable_group_offload(onload_device=where, offload_type="leaf_level", use_stream=stream)
        elif getattr(pipe, "hf_device_map", None) is None:
            pipe.to(where)
    except ImportError as error:
        raise ValueError(f"offload={offload!r} needs accelerate; run pip install accelerate.") from error
    except (RuntimeError, AssertionError) as error:
        if "out of memory" in str(error):
            raise Unfit(
                f"The weights do not fit {where} ({_first_sentence(error)}); offload='model' takes less."
            ) from None
        raise ValueError(f"The device {where} cannot be used here: {_first_sentence(error)}") from error


def _own(pipe: Any, name: str, where: torch.device, offload: Offload, step_distilled: bool | None = None) -> Model:
    """Puts a pipeline that we loaded ourselves to use: on a device, without gradients of its weights."""
    import torch

    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.requires_grad_(False)
    place(pipe, where, offload)
    return from_pipe(pipe, name=name, step_distilled=step_distilled)


def _diffusers() -> Any:
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise ValueError(
            "Pipelines need diffusers, which is not installed; run pip install 'paintback[models]'."
        ) from error


def _where(device: Any) -> torch.device:
    import torch

    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _own_dtype(where: torch.device) -> torch.dtype:
    """Half precision on CUDA: bfloat16, or float16 on devices before Ampere, which have no other of their own."""
    import torch

    if where.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(where)[0] >= 8 else torch.float16


def _first_sentence(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
