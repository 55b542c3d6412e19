"""What two numbers must share to be compared, kept beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from paintback import __version__
from paintback.bench.pictures.suite import Suite
from paintback.images.encoding import write_whole

__all__ = ["agree", "difference", "make_protocol", "model_sha256", "read_protocol"]

VERSION = 1


def model_sha256(name: str) -> str | None:
    """Of a model's weights: its file, or all files of a pipeline's folder; None for what is not on the disk."""
    from paintback.models.catalogue import find

    card = find(name)
    path = Path(name) if card is None else card.weights
    if not path.exists():
        return None
    total = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file()):
        total.update(file.relative_to(path.parent).as_posix().encode())
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                total.update(block)
    return total.hexdigest()


def make_protocol(
    suite: Suite,
    *,
    pictures: int,
    data: str,
    model: str,
    weights: str | None,
    metrics: Mapping[str, Any],
    batch: int,
    threads: int,
    device: str | None,
    dtype: str | None,
) -> dict[str, Any]:
    """The protocol of a run.

    Args:
        suite: what is measured.
        pictures: how many.
        data: hash of pictures, holes and seeds.
        model: its name.
        weights: hash of the model's weights.
        metrics: what each is measured with; None for those that were left out.
        batch: samples painted at once.
        threads: CPU threads.
        device: torch device, or None for the model's choice.
        dtype: of the network, or None for its own.
    """
    return {
        "version": VERSION,
        "suite": suite.to_dict(),
        "pictures": pictures,
        "data_sha256": data,
        "model": model,
        "model_sha256": weights,
        "metrics": dict(metrics),
        "batch": batch,
        "threads": threads,
        "device": device,
        "dtype": dtype,
        "clipping": "to [-1, 1], rounded to 8 bit; known pixels are the picture's own",
        "versions": {"paintback": __version__, "torch": torch.__version__},
    }


def read_protocol(out: Path) -> dict[str, Any] | None:
    """What lies in a folder of results; None where there is nothing yet.

    Raises:
        ValueError: if it cannot be read.
    """
    path = out / "protocol.json"
    if not path.exists():
        return None
    try:
        protocol = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is not JSON; give a folder that this command made.") from None
    if not isinstance(protocol, dict):
        raise ValueError(f"{path} is no protocol; give a folder that this command made.")
    return protocol


def difference(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> str | None:
    """The first entry in which two protocols differ, as a phrase; None where they agree."""
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            if found := difference(a, b, f"{where}{key}."):
                return found
        elif a != b:
            return f"{where}{key} ({_short(a)} there, {_short(b)} now)"
    return None


def agree(out: Path, protocol: Mapping[str, Any]) -> None:
    """Writes the protocol into a new folder of results, or holds it against the one there.

    Raises:
        ValueError: if they differ; numbers of different protocols are not compared.
    """
    old = read_protocol(out)
    if old is None:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(json.dumps(protocol, indent=1).encode(), out / "protocol.json")
        return
    if found := difference(old, json.loads(json.dumps(protocol))):
        raise ValueError(f"The numbers in {out} were made under another protocol, which differs in {found}.")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
