"""Reading the pickles of EDM and EDM2 (.pkl) without running anything that they hold.

Such a file is `dict(ema=network, ...)`. NVIDIA's persistence writes each object as a call of
`torch_utils.persistence._reconstruct_persistent_obj(meta)` with meta = dict(type="class", version, module_src,
class_name, state), and the original reader executes module_src. Here nothing is executed: every such object, and every
torch.nn module, becomes an inert `Record` of its name and state; tensors, numpy arrays and plain containers are built
by the few functions listed below; whatever else a pickle names ends the reading.
"""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

__all__ = ["ForbiddenPickleError", "Record", "plain", "read_pickle"]


class ForbiddenPickleError(ValueError):
    """The pickle asks for something that a network's weights do not need, or is no pickle."""


class Record:
    """An object of a pickle, its class not built: a name and a state.

    Attributes:
        class_name: as the pickle has it, with the module for classes of torch.
        state: the object's attributes.
    """

    class_name = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ForbiddenPickleError("The pickle holds an object whose state is no dictionary.")
        self.state = state

    @property
    def arguments(self) -> dict[str, Any]:
        """The keywords that the object was made with, where persistence kept them."""
        found = self.state.get("_init_kwargs", {})
        return dict(found) if isinstance(found, dict) else {}

    def child(self, name: str) -> Record | None:
        """The module of that name in this one, or None."""
        found = self._table("_modules").get(name)
        return found if isinstance(found, Record) else None

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """The state dict of a module: names and values of parameters and lasting buffers, children's after its own."""
        passing = self.state.get("_non_persistent_buffers_set", ())
        for table in ("_parameters", "_buffers"):
            for name, value in self._table(table).items():
                if isinstance(value, Tensor) and not (table == "_buffers" and name in passing):
                    yield prefix + name, value
        for name, module in self._table("_modules").items():
            if isinstance(module, Record):
                yield from module.tensors(f"{prefix}{name}.")

    def _table(self, name: str) -> dict[str, Any]:
        found = self.state.get(name, {})
        return found if isinstance(found, dict) else {}


class _Attributes(dict[str, Any]):
    """In place of dnnlib's EasyDict: a dictionary."""


def plain(value: Any) -> Any:
    """A value of a pickle as JSON has it: arrays as lists, tuples too.

    Raises:
        ForbiddenPickleError: if it is neither a number, a text, nor made of them.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, _Array):
        return value.value.tolist()
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    raise ForbiddenPickleError(f"The pickle has a {type(value).__name__} where a number or a text is expected.")


def _persistent(meta: Any) -> Record:
    """In place of persistence's reader: module_src is not looked at."""
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise ForbiddenPickleError("The pickle holds a persistent object without a state.")
    record = Record()
    record.class_name, record.state = str(meta.get("class_name", "")), meta["state"]
    return record


def _storage(data: bytes) -> Any:
    """In place of torch.storage._load_from_bytes, which would unpickle freely."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """In place of torch._utils._rebuild_tensor and _rebuild_tensor_v2; a storage that is too short would grow there."""
    if not isinstance(storage, torch.TypedStorage):
        raise ForbiddenPickleError("The pickle holds a tensor without numbers.")
    whole = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min(offset, *size, *stride, 0) < 0 or (last >= whole.numel() and 0 not in size):
        raise ForbiddenPickleError("The pickle holds a tensor that reaches beyond its numbers.")
    return whole.as_strided(tuple(size), tuple(stride), offset)


def _parameter(data: Tensor, *rest: Any) -> Tensor:
    return data


class _Dtype:
    """In place of numpy.dtype, whose own reader would change the types of the whole program."""

    def __init__(self, code: str, *rest: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def read(self, raw: Any) -> np.ndarray:
        """The numbers in some bytes."""
        if not isinstance(self.code, str) or self.code.lstrip("<>=|")[:1] not in tuple("fiub"):
            raise ForbiddenPickleError(f"The pickle holds an array of {self.code!r}, which are no numbers.")
        if isinstance(raw, str):  # protocol 2 and older
            raw = raw.encode("latin1")
        order = self.order if self.order in ("<", ">") else ""
        return np.frombuffer(raw, np.dtype(order + self.code.lstrip("<>=|")))


class _Array:
    """In place of numpy.ndarray: `value` is the array, once its state is read."""

    value: np.ndarray

    def __init__(self, *rest: Any) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.value = kind.read(raw).reshape(shape, order="F" if fortran else "C")


def _frombuffer(raw: Any, kind: Any, shape: Any, order: str) -> _Array:
    """In place of numpy's, which protocol 5 calls."""
    found = _Array()
    found.__setstate__((1, shape, kind, order == "F", bytes(raw)))
    return found


def _scalar(kind: Any, raw: Any) -> Any:
    return kind.read(raw)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """In place of _codecs.encode, for bytes in protocol 2."""
    return str(text).encode("latin1")


def _object(kind: type, base: type, state: Any) -> Any:
    """In place of copyreg._reconstructor, for records and dictionaries."""
    if not issubclass(kind, Record | _Attributes):
        raise ForbiddenPickleError(f"The pickle builds a {kind.__name__} in an unusual way.")
    return kind() if base is object else kind(state)


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("dnnlib.util", "EasyDict"): _Attributes,
    ("dnnlib", "EasyDict"): _Attributes,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{("builtins", kind.__name__): kind for kind in (dict, list, set, frozenset, tuple)},
    ("copyreg", "_reconstructor"): _object,
    ("builtins", "object"): object,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)  # protocols 0 to 2
        if found := _ALLOWED.get((module, name)):
            return found
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.startswith("torch.nn.modules."):
            return type("Record", (Record,), {"class_name": f"{module}.{name}"})
        raise ForbiddenPickleError(
            f"The pickle names {module}.{name}, which no network's weights need; nothing of it was run. Do not open "
            "this file with other programs unless you trust where it comes from."
        )

    def persistent_load(self, pid: Any) -> Any:
        raise ForbiddenPickleError("The pickle refers to data outside of it.")


def read_pickle(source: Path | BinaryIO) -> Any:
    """Reads a pickle of EDM or EDM2; no code in it is run.

    Args:
        source: the file.

    Returns:
        Its content, with a `Record` for every object that is neither a tensor nor a plain value.

    Raises:
        ForbiddenPickleError: if it holds anything else, or cannot be read; a ValueError.
        OSError: if there is no such file.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return read_pickle(file)
    try:
        return _Unpickler(source).load()
    except ForbiddenPickleError:
        raise
    except MemoryError:
        raise ForbiddenPickleError("The pickle claims to hold more than this computer's memory.") from None
    except Exception as error:  # a broken pickle may fail in any way; none of them is to be more than a sentence
        raise ForbiddenPickleError(f"The pickle is broken or of another kind ({type(error).__name__}).") from error
