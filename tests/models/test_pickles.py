"""The restricted unpickler: what EDM's files hold comes out, and nothing that a pickle asks for is run."""

from __future__ import annotations

import io
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch

from paintback.models import edm, edm2, load
from paintback.models.checkpoints import read_checkpoint
from paintback.models.pickles import ForbiddenPickleError, Record, plain, read_pickle
from tests.models import persistent
from tests.models import research_reference as reference


def read(content, tmp_path, **options):
    return read_pickle(persistent.dump(content, tmp_path / "file.pkl", **options))


def edm_state(name):
    found = reference.state_for(edm.Edm(edm.make_config(reference.EDM[name])))
    return {**found, "u": torch.linspace(100, 0, 101)} if "u" in found else found


@pytest.mark.parametrize(("name", "protocol"), [(name, 4) for name in reference.EDM] + [("ddpmpp", 2), ("ddpmpp", 5)])
def test_a_persistent_edm_network_is_read_and_loads(name, protocol, tmp_path):
    fields, state = reference.EDM[name], edm_state(name)
    path = persistent.edm(tmp_path / "edm.pkl", fields, state, protocol=protocol)
    found = read_checkpoint(path)
    assert found.family == "edm"
    assert edm.make_config(found.config) == edm.make_config(fields)
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], state[key]) for key in state)
    assert load(path).size == (16, 16)


def test_a_persistent_edm2_network_is_read_without_what_was_for_training(tmp_path):
    fields = {**reference.EDM2, "channel_mult": (1, 2)}
    with torch.device("meta"):
        network = edm2.Edm2(edm2.make_config(fields))
    state = reference.state_for(network)
    encoder = {
        "scale": np.float32([0.1, 0.2, 0.3, 0.4]),
        "bias": np.array([[1.0], [2.0], [3.0], [4.0]]),
        "vae_name": "x",
    }
    found = read_checkpoint(persistent.edm2(tmp_path / "edm2.pkl", fields, state, encoder))
    assert found.family == "edm2"
    assert edm2.make_config(found.config).latent_scale == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert edm2.make_config(found.config).latent_bias == (1, 2, 3, 4)
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], state[key].half()) for key in state)


class _Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def torch_save_bytes(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open('{}', 'w')",)),
        (exec, ("open('{}', 'w')",)),
        (open, ("{}", "w")),
        (subprocess.call, (["touch", "{}"],)),
        (getattr, (os, "system")),
        (torch.load, ("{}",)),
        (np.save, ("{}", 1)),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_malicious_pickle_runs_nothing(function, arguments, protocol, tmp_path):
    trace = tmp_path / "was-run"
    filled = tuple(a.format(trace) if isinstance(a, str) else a for a in arguments)
    if function is getattr:
        content = b"cos\nsystem\n(S'touch " + os.fsencode(trace) + b"'\ntR."
    else:
        content = pickle.dumps({"ema": _Calls(function, *filled)}, protocol)
    with pytest.raises(ForbiddenPickleError, match="nothing of it was run"):
        read_pickle(io.BytesIO(content))
    assert not trace.exists()


def test_a_storage_cannot_smuggle_a_pickle(tmp_path):
    trace = tmp_path / "was-run"
    inner = torch_save_bytes(_Calls(os.system, f"touch {trace}"))
    content = pickle.dumps(_Calls(torch.storage._load_from_bytes, inner))
    with pytest.raises(ForbiddenPickleError):
        read_pickle(io.BytesIO(content))
    assert not trace.exists()


def test_module_source_is_not_executed(tmp_path):
    # its source ends the process
    found = read(persistent.persistent("Net", width=3), tmp_path)
    assert isinstance(found, Record)
    assert (found.class_name, found.state) == ("Net", {"width": 3})


def test_the_command_refuses_in_one_sentence(tmp_path):
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps(_Calls(os.system, "true")))
    with pytest.raises(ValueError, match=r"bad\.pkl: The pickle names (posix|nt)\.system") as refused:
        load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "int64", "bool"])
def test_arrays_and_numbers_come_back(dtype, protocol, tmp_path):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    found = read({"c": array, "fortran": np.asfortranarray(array), "one": array[1, 2]}, tmp_path, protocol=protocol)
    assert plain(found) == {"c": array.tolist(), "fortran": array.tolist(), "one": array[1, 2].item()}


def test_tensors_come_back(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    content = {
        "view": base.t()[1:],
        "half": base.half(),
        "grad": torch.nn.Parameter(base),
        "kind": torch.float16,
        "size": base.shape,
        "where": torch.device("cpu"),
    }
    found = read(content, tmp_path)
    assert torch.equal(found["view"], content["view"])
    assert torch.equal(found["half"], base.half())
    assert not found["grad"].requires_grad
    assert (found["kind"], found["size"], found["where"]) == (torch.float16, base.shape, torch.device("cpu"))


def test_a_tensor_beyond_its_storage_is_refused():
    storage = torch.zeros(4)._typed_storage()
    for offset, size, stride in ((0, (5,), (1,)), (2, (3,), (1,)), (0, (2,), (4,)), (-1, (1,), (1,))):
        content = pickle.dumps(_Calls(torch._utils._rebuild_tensor, storage, offset, size, stride))
        with pytest.raises(ForbiddenPickleError):
            read_pickle(io.BytesIO(content))


def test_arrays_of_objects_and_broken_files_are_refused(tmp_path):
    objects = np.empty(2, dtype=object)
    for content in (objects, np.array(["text"]), np.zeros(2, [("a", "f4")])):
        with pytest.raises(ForbiddenPickleError):
            read(content, tmp_path)
    good = persistent.edm(tmp_path / "good.pkl", reference.EDM["ddpmpp-vp"], edm_state("ddpmpp-vp")).read_bytes()
    for data in (b"", b"nothing of the kind", good[: len(good) // 2], b"\x80\x05K\x01K\x02."[:-1]):
        with pytest.raises(ForbiddenPickleError):
            read_pickle(io.BytesIO(data))


def test_pickles_of_other_things_say_so(tmp_path):
    path = tmp_path / "other.pkl"
    for content, text in (
        ({"G_ema": 1}, "no network under"),
        ([1, 2], "no network under"),
        ({"ema": persistent.persistent("Generator", _modules={})}, "a Generator of another kind"),
    ):
        persistent.dump(content, path)
        with pytest.raises(ValueError, match=text):
            load(path)
