"""Research checkpoints, ADM (.pt), EDM and EDM2 (.pkl), and the safetensors that `paintback convert` makes of them.

A converted file's header says all that is needed to load it again: kind = "prior", family = "adm", "edm" or "edm2", and
config = the fields of that family's configuration as JSON.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from paintback.models.base import Model
from paintback.models.filling import choose_device
from paintback.models.pickles import Record, plain, read_pickle

__all__ = ["FAMILIES", "Checkpoint", "load_checkpoint", "read_checkpoint", "write_checkpoint"]

Family = Literal["adm", "edm", "edm2"]
FAMILIES: tuple[Family, ...] = ("adm", "edm", "edm2")
SUFFIXES = (".pt", ".pth", ".pkl", ".safetensors")
# what a checkpoint holds besides its network, or that was for training only
UNUSED = ("logvar_fourier.", "logvar_linear.")
TRAINING = frozenset({"use_fp16", "dropout", "sigma_min", "sigma_max", "epsilon_t", "logvar_channels", "model_type"})
FREQUENCIES = ("freqs", "phases", "u", "resample_filter")  # kept in float32, whatever the weights are in


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and what they are the weights of.

    Attributes:
        family: of the network.
        config: fields of its configuration, as JSON has them.
        state: its state dict.
        header: further entries of a converted file's header.
    """

    family: Family
    config: dict[str, Any]
    state: dict[str, Tensor]
    header: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: Path, *, family: Family | None = None, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Reads a checkpoint of any of the three families; no code in it is run.

    Args:
        path: .pt or .pth (ADM), .pkl (EDM, EDM2), or .safetensors that `write_checkpoint` wrote.
        family: that it must be of; None takes what it is.
        config: what an ADM checkpoint's shapes do not tell; None looks for a JSON file of the same name beside it.

    Raises:
        ValueError: if it is none, or of another family.
        OSError: if there is no such file.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'!r}; a checkpoint is one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        found = _from_safetensors(path)
    elif path.suffix == ".pkl":
        found = _from_pickle(path)
    else:
        found = _from_torch(path, config)
    if family is not None and family != found.family:
        raise ValueError(f"{path} holds an {found.family} network, not {family}; leave --family out or correct it.")
    return found


def _from_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = dict(file.metadata() or {})
            if header.get("family") not in FAMILIES:
                raise ValueError(f"{path} says of no family in its header; it was not made by `paintback convert`.")
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(header["config"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is broken or was not made by `paintback convert` ({type(error).__name__})."
        ) from error
    family = next(one for one in FAMILIES if one == header["family"])
    more = {key: value for key, value in header.items() if key not in ("kind", "family", "config")}
    return Checkpoint(family, config, state, more)


def _from_torch(path: Path, config: Mapping[str, Any] | None) -> Checkpoint:
    from paintback.models import adm

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} is no PyTorch checkpoint, or holds more than weights and was not opened for that; a state dict of "
            "tensors is expected."
        ) from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, KeyError, AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # it may not be read; the others are its content
            raise
        raise ValueError(f"{path} is no PyTorch checkpoint, or a broken one ({type(error).__name__}).") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict: names and tensors, and nothing else, are expected.")
    beside = path.with_suffix(".json")
    if config is None and beside.is_file():
        config = read_json(beside)
    try:
        known = adm.infer_config(state, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Checkpoint("adm", _json(known), state)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: if there is none.
        OSError: if there is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} must hold a JSON object such as {{"size": 64}}.')
    return found


def _json(config: Any) -> dict[str, Any]:
    """A configuration's fields with lists for tuples, as they come back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(config.__dict__))
    return found


def _from_pickle(path: Path) -> Checkpoint:
    from paintback.models import edm, edm2

    try:
        content = read_pickle(path)
        network = content.get("ema") if isinstance(content, dict) else content
        if not isinstance(network, Record):
            raise ValueError('There is no network under "ema" in it, as NVIDIA\'s EDM and EDM2 have it.')
        state = {name: value for name, value in network.tensors() if not name.startswith(UNUSED)}
        if network.child("unet") is not None:
            encoder = content.get("encoder") if isinstance(content, dict) else None
            return Checkpoint("edm2", _json(edm2.make_config(_edm2_fields(network, encoder))), state)
        return Checkpoint("edm", _json(edm.make_config(_edm_fields(network))), state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (RecursionError, TypeError) as error:
        raise ValueError(f"{path} is broken or holds a network of another kind ({type(error).__name__}).") from error


def _edm_fields(network: Record) -> dict[str, Any]:
    """Fields of an `EdmConfig` from the arguments that the pickled objects were made with."""
    kind = network.class_name.removesuffix("Precond").lower()
    inner = network.child("model")
    if inner is None or inner.class_name not in ("SongUNet", "DhariwalUNet"):
        raise ValueError(f"It holds a {network.class_name or 'network'} of another kind than EDM's or EDM2's.")
    given = {**network.arguments, **inner.arguments}
    fields = {key: plain(value) for key, value in given.items() if key not in TRAINING}
    fields["img_channels"] = fields.pop("in_channels", fields.get("img_channels", 3))
    fields.pop("out_channels", None)
    dhariwal = inner.class_name == "DhariwalUNet"
    return {**fields, "preconditioning": kind, "dhariwal": dhariwal}


def _edm2_fields(network: Record, encoder: Any) -> dict[str, Any]:
    """Fields of an `Edm2Config`, likewise; the latents' scale and bias are those of the pickled encoder."""
    inner = network.child("unet")
    assert inner is not None
    given = {**network.arguments, **inner.arguments}
    fields = {key: plain(value) for key, value in given.items() if key not in TRAINING}
    if fields.pop("resample_filter", [1, 1]) != [1, 1]:
        raise ValueError("Its network changes resolution with another filter than (1, 1), which no EDM2 model does.")
    if isinstance(encoder, Record) and "scale" in encoder.state and fields.get("img_channels") == 4:
        fields["latent_scale"], fields["latent_bias"] = (
            [float(one) for one in _flat(plain(encoder.state[name]))] for name in ("scale", "bias")
        )
    return fields


def _flat(values: Any) -> list[float]:
    return [one for value in values for one in _flat(value)] if isinstance(values, list) else [values]


def write_checkpoint(checkpoint: Checkpoint, out: Path, *, dtype: torch.dtype | None = None) -> None:
    """Writes a checkpoint as safetensors, whole or not at all.

    Args:
        checkpoint: what is to be written.
        out: the file.
        dtype: of the weights; None leaves them as they are. Frequencies stay as they are in any case.

    Raises:
        OSError: if it cannot be written.
    """
    state = {}
    for name, value in checkpoint.state.items():
        cast = dtype is not None and value.is_floating_point() and name.rpartition(".")[2] not in FREQUENCIES
        # a copy, as weights may share memory, which the format does not have
        state[name] = value.detach().to(dtype if cast else value.dtype, copy=True).contiguous()
    header = {"kind": "prior", "family": checkpoint.family, "config": json.dumps(checkpoint.config)}
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        save_file(state, temporary, {**checkpoint.header, **header})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(out)
    except SafetensorError as error:
        raise OSError(f"{out} could not be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(
    path: Path,
    *,
    name: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    vae: Path | None = None,
) -> Model | None:
    """The model of a checkpoint or of a converted file.

    Args:
        path: see `read_checkpoint`.
        name: what to call it; by default the path.
        device: None for CUDA where there is one, else the CPU.
        dtype: of the network; None for float32.
        vae: folder of the VAE that latent EDM2 needs; None for the folder `vae` beside the file.

    Returns:
        The model; None if the path is no file of a checkpoint at all, or a safetensors file of another kind.

    Raises:
        ValueError: if it is one, but broken, unknown or dangerous.
    """
    if path.suffix not in SUFFIXES or not path.is_file() or (path.suffix == ".safetensors" and not _converted(path)):
        return None
    from paintback.models import adm, edm, edm2

    found = read_checkpoint(path)
    where, kind, label = choose_device(device), dtype or torch.float32, name or path.stem
    if found.family == "adm":
        return adm.make_model(found.config, found.state, name=label, device=where, dtype=kind)
    if found.family == "edm":
        return edm.make_model(found.config, found.state, name=label, device=where, dtype=kind)
    vae = vae or path.parent / "vae"
    return edm2.make_model(found.config, found.state, name=label, device=where, dtype=kind, vae=vae)


def _converted(path: Path) -> bool:
    """Whether a safetensors file names a family of these in its header."""
    try:
        with safe_open(path, "pt") as file:
            return "family" in (file.metadata() or {})
    except SafetensorError:
        return False
