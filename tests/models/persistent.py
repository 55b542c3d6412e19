"""Pickles in the form of NVIDIA's persistence, made of Paintback's own networks.

Every module becomes a call of `torch_utils.persistence._reconstruct_persistent_obj(meta)`, as in the published EDM and
EDM2 files; containers of modules are torch's own, parameters are torch's, arguments are dnnlib's EasyDict. The modules
of those names exist only while a pickle is written.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

SOURCE = "raise SystemExit('the source of a persistent class was executed')"


class _Persistent:
    """Pickled as persistence has it."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.class_name, "state": self.state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


def _reconstruct_persistent_obj(meta):
    raise AssertionError("only its name is wanted")


class EasyDict(dict):
    """In place of dnnlib's."""


def persistent(class_name: str, **state: Any) -> _Persistent:
    """Any persistent object."""
    return _Persistent(class_name, state)


def network(
    module: nn.Module, class_names: dict[str, str], arguments: dict[str, dict[str, Any]], path: str = ""
) -> Any:
    """A module as a persistent object, its children too.

    Args:
        module: the module.
        class_names: of the modules whose class name matters, by path ("" is the module itself).
        arguments: keywords that they were made with, by path.
        path: of this module.
    """
    children = OrderedDict(
        (name, network(child, class_names, arguments, f"{path}.{name}".lstrip(".")))
        for name, child in module.named_children()
    )
    if isinstance(module, nn.ModuleDict):
        found = nn.ModuleDict()
        found._modules = children
        return found
    return persistent(
        class_names.get(path, type(module).__name__),
        training=False,
        _parameters=OrderedDict(module._parameters),
        _buffers=OrderedDict(module._buffers),
        _non_persistent_buffers_set=set(),
        _backward_hooks=OrderedDict(),
        _is_full_backward_hook=None,
        _modules=children,
        _init_args=(),
        _init_kwargs=EasyDict(arguments.get(path, {})),
    )


def dump(content: Any, path: Path, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    """Writes a pickle."""
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    made = {name: types.ModuleType(name) for name in names}
    made["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    made["dnnlib.util"].EasyDict = EasyDict  # type: ignore[attr-defined]
    before = _reconstruct_persistent_obj.__module__, EasyDict.__module__
    _reconstruct_persistent_obj.__module__, EasyDict.__module__ = "torch_utils.persistence", "dnnlib.util"
    sys.modules |= made
    try:
        path.write_bytes(pickle.dumps(content, protocol))
    finally:
        _reconstruct_persistent_obj.__module__, EasyDict.__module__ = before
        for name in names:
            del sys.modules[name]
    return path


def edm(path: Path, fields: dict[str, Any], state: dict[str, torch.Tensor], **options: Any) -> Path:
    """A pickle of an EDM network, its arguments split between preconditioning and network as in the published ones."""
    from paintback.models import edm as room

    made = room.Edm(room.make_config(fields))
    made.load_state_dict(state)
    given = {"img_channels": 3, "label_dim": 0, **fields}
    kind = {"edm": "EDM", "vp": "VP", "ve": "VE", "iddpm": "iDDPM"}[given.pop("preconditioning", "edm")]
    name = "DhariwalUNet" if given.pop("dhariwal", False) else "SongUNet"
    more = {
        key: value for key, value in given.items() if key not in ("img_resolution", "img_channels", "label_dim", "M")
    }
    inner = {
        "in_channels": 3,
        "out_channels": 3,
        **{key: given[key] for key in ("img_resolution", "label_dim")},
        **more,
    }
    tree = network(
        made,
        {"": f"{kind}Precond", "model": name},
        {"": {**given, "model_type": name, "use_fp16": True, "dropout": 0.1}, "model": {**inner, "dropout": 0.1}},
    )
    content = {
        "ema": tree,
        "loss_fn": persistent("EDMLoss", P_mean=-1.2),
        "augment_pipe": None,
        "dataset_kwargs": EasyDict(),
    }
    return dump(content, path, **options)


def edm2(
    path: Path, fields: dict[str, Any], state: dict[str, torch.Tensor], encoder: dict[str, Any], **options: Any
) -> Path:
    """A pickle of an EDM2 network in half precision, with the head that was for training only."""
    from paintback.models import edm2 as room

    made = room.Edm2(room.make_config(fields))
    made.load_state_dict(state)
    made.logvar_linear = nn.Linear(8, 1, bias=False)
    name = "StabilityVAEEncoder" if fields["img_channels"] == 4 else "StandardRGBEncoder"
    tree = network(
        made.half(),
        {"": "Precond", "unet": "UNet"},
        {"": {**fields, "use_fp16": True, "logvar_channels": 8}, "unet": {**fields, "dropout": 0.1}},
    )
    return dump({"ema": tree, "encoder": persistent(name, **encoder)}, path, **options)
