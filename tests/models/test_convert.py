"""`paintback convert`, and painting with checkpoints and with what it makes of them."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from paintback.models import adm, edm, edm2, find, load
from paintback.models.catalogue import Sampler, recommended
from paintback.web.config import offers
from tests.cli.conftest import call, mask, photo  # noqa: F401 - fixtures
from tests.models import persistent
from tests.models import research_reference as reference

UNSEEN = ("size", "heads", "head_channels", "new_attention_order", "betas", "steps")


def adm_file(folder, name="plain", stem="tiny"):
    """A .pt as guided diffusion writes it, with the JSON beside it that an unpublished one needs."""
    config = adm.make_config(reference.ADM[name])
    with torch.device("meta"):
        network = adm.Adm(config)
    torch.save(reference.state_for(network), folder / f"{stem}.pt")
    (folder / f"{stem}.json").write_text(json.dumps({key: getattr(config, key) for key in UNSEEN}))
    return folder / f"{stem}.pt"


def edm_file(folder, name="adm"):
    fields = reference.EDM[name]
    return persistent.edm(folder / "edm.pkl", fields, reference.state_for(edm.Edm(edm.make_config(fields))))


def edm2_file(folder):
    fields = {**reference.EDM2, "img_channels": 3, "channel_mult": (1, 2), "channels_per_head": 16}
    with torch.device("meta"):
        network = edm2.Edm2(edm2.make_config(fields))
    return persistent.edm2(folder / "edm2.pkl", fields, reference.state_for(network), {})


FILES = {"adm": adm_file, "edm": edm_file, "edm2": edm2_file}


@pytest.mark.parametrize("family", FILES)
def test_a_checkpoint_and_its_conversion_paint_the_same_bytes(family, call, photo, mask, tmp_path):  # noqa: F811
    source = FILES[family](tmp_path)
    done = call("convert", source, tmp_path / "new.safetensors", "--family", family, "--format", "json")
    assert done.code == 0, done.err
    assert done.json["family"] == family
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        header = file.metadata()
    assert (header["kind"], header["family"]) == ("prior", family)
    assert json.loads(header["config"]) == done.json["config"]
    assert not [path for path in os.listdir(tmp_path) if "partial" in path]
    assert recommended(str(tmp_path / "new.safetensors")) == Sampler()
    prompt = [] if family == "adm" else ["--prompt", "class 2"]
    for model, out in ((source, "a.tif"), (tmp_path / "new.safetensors", "b.tif")):
        painted = call(
            "inpaint", photo, mask, "-o", tmp_path / out, "--model", model, "--steps", 2, "--threads", 1, *prompt
        )
        assert painted.code == 0, painted.err
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    before, after, hole = (np.asarray(Image.open(path)) for path in (photo, tmp_path / "a.tif", mask))
    assert (after[hole == 0] == before[hole == 0]).all()
    assert (after[hole > 0] != before[hole > 0]).any()


@pytest.mark.parametrize("family", FILES)
@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_weights_are_written_in_the_dtype_asked_for(family, name, dtype, call, tmp_path):  # noqa: F811
    out = tmp_path / "new.safetensors"
    assert call("convert", FILES[family](tmp_path), out, "--dtype", name).code == 0
    with safe_open(out, "pt") as file:
        kinds = {key: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert {kind for key, kind in kinds.items() if not key.endswith(("freqs", "phases", "filter"))} == {dtype}
    assert load(out).dtype == torch.float32
    again = tmp_path / "again.safetensors"
    assert call("convert", out, again).code == 0
    with safe_open(out, "pt") as first, safe_open(again, "pt") as second:
        assert first.metadata() == second.metadata()
        assert all(torch.equal(first.get_tensor(key), second.get_tensor(key)) for key in kinds)


def test_the_dtype_of_the_network_can_be_chosen(call, tmp_path):  # noqa: F811
    loaded = load(adm_file(tmp_path), dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.network.parameters()} == {torch.bfloat16}


def test_what_cannot_be_converted_is_one_sentence(call, tmp_path):  # noqa: F811
    good, out = adm_file(tmp_path), tmp_path / "new.safetensors"
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "text.pkl").write_text("no checkpoint")
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "nested.pt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "object.pt")
    save_file({"weight": torch.zeros(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "half.pt").write_bytes(good.read_bytes()[:5000])
    for source, more, text in (
        (tmp_path / "none.pt", (), "There is no file"),
        (tmp_path / "text.pt", (), "no PyTorch checkpoint"),
        (tmp_path / "half.pt", (), "no PyTorch checkpoint"),
        (tmp_path / "text.pkl", (), "pickle is broken"),
        (tmp_path / "nested.pt", (), "no state dict"),
        (tmp_path / "other.pt", (), "no weights of an ADM"),
        (tmp_path / "object.pt", (), "more than weights and was not opened"),
        (tmp_path / "plain.safetensors", (), "no family"),
        (tmp_path / "broken.safetensors", (), "broken"),
        (tmp_path / "photo.png", (), "one of .pt"),
        (good, ("--family", "edm"), "not edm"),
        (good, ("--config", tmp_path / "list.json"), "JSON object"),
        (good, ("--config", tmp_path / "none.json"), "No such file"),
    ):
        done = call("convert", source, out, *more)
        assert done.code == 2, (source, done.err)
        assert text in done.err, done.err
        assert len(done.err.strip().splitlines()) == 1
        assert not out.exists()
    for target, text in (("new.pt", "must end in"), ("none/new.safetensors", "no folder")):
        done = call("convert", good, tmp_path / target)
        assert (done.code, text in done.err) == (2, True), done.err


def test_bad_models_are_one_sentence_when_painting(call, photo, mask, tmp_path):  # noqa: F811
    (tmp_path / "bad.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    header = {"kind": "prior", "family": "adm", "config": json.dumps({"size": 16, "width": "wide"})}
    wide = {**reference.ADM["plain"], "width": "wide"}
    save_file({"weight": torch.zeros(1)}, tmp_path / "wide.safetensors", {**header, "config": json.dumps(wide)})
    save_file({"weight": torch.zeros(1)}, tmp_path / "bad.safetensors", header)
    unknown = adm_file(tmp_path, stem="unknown")
    unknown.with_suffix(".json").unlink()
    for model, text in (
        (tmp_path / "bad.pkl", "os.system"),
        (tmp_path / "bad.safetensors", "lacks attention"),
        (tmp_path / "wide.safetensors", "a whole number is expected"),
        (unknown, "none of the published ones"),
        (edm_file(tmp_path), "say which one"),
    ):
        done = call("inpaint", photo, mask, "-o", tmp_path / "out.png", "--model", model, "--steps", 2)
        assert done.code == 2, done.err
        assert text in done.err, done.err
        assert len(done.err.strip().splitlines()) == 1
        assert not (tmp_path / "out.png").exists()


def test_the_shipped_models_and_other_names_are_found_as_before():
    assert load("photo").name == "photo"
    assert find("photo") is not None
    with pytest.raises(ValueError, match="There is no model"):
        load("nothing.pt")
    for refused in (load, lambda name: offers({"mine": name})):
        with pytest.raises(ValueError, match=r"There is no model 'phto' \(did you mean 'photo'\?\)"):
            refused("phto")
