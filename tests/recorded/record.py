"""Records what the runs of `runs.py` give, or compares it with what was recorded.

    python -m tests.recorded.record --check             every run; exit code 1 where one differs
    python -m tests.recorded.record --check layers ...  those whose names contain a word
    python -m tests.recorded.record layers ...          records these anew, after a change that means to change them

First recorded at e72e4c4. A hash is that of the result's bytes, and depends on the CPU and on the versions of torch
and numpy; where one differs on another machine, the digest (values at places of the painted part, and how these spread)
tells rounding from change.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

RECORDED = Path(__file__).with_name("recorded.json")
TOLERANCE = 0.02  # of a digest's numbers, where white is 1
PLACES = 12


def describe(outcome: Any) -> dict[str, Any]:
    """A run as it is recorded: shape and type, hash, digest, cost."""
    values = np.ascontiguousarray(outcome.values)
    scaled = values / np.iinfo(values.dtype).max if values.dtype.kind == "u" else values
    shown = scaled if outcome.painted is None else scaled[np.broadcast_to(outcome.painted, scaled.shape)]
    shown = shown.astype(np.float64).ravel()
    places = np.linspace(0, len(shown) - 1, PLACES).astype(int)
    digest = [shown.mean(), shown.std(), *shown[places]]
    return {
        "shape": f"{values.dtype} {' x '.join(map(str, values.shape))}",
        "sha256": hashlib.sha256(values.tobytes()).hexdigest()[:32],
        "digest": [round(float(value), 4) for value in digest],
        "cost": outcome.cost,
    }


def measure(name: str) -> dict[str, Any]:
    """Makes a run."""
    from tests.recorded.runs import RUNS

    with tempfile.TemporaryDirectory() as folder:
        return describe(RUNS[name](Path(folder)))


def difference(recorded: dict[str, Any], measured: dict[str, Any]) -> str:
    """What is different beyond rounding, in a few words; empty where nothing is."""
    for key in ("shape", "cost"):
        if recorded[key] != measured[key]:
            return f"{key} {measured[key]}, recorded {recorded[key]}"
    away = max(abs(a - b) for a, b in zip(recorded["digest"], measured["digest"], strict=True))
    return f"values differ by {away:.3f}" if away > TOLERANCE else ""


def main(arguments: list[str]) -> int:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch

    from tests.recorded.runs import RUNS

    torch.set_num_threads(1)
    check, words = "--check" in arguments, [word for word in arguments if word != "--check"]
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    chosen = [name for name in RUNS if not words or any(word in name for word in words)]
    worse = 0
    for name in chosen:
        measured = measure(name)
        if not check:
            recorded[name] = measured
            continue
        if measured["sha256"] != recorded[name]["sha256"]:
            worse += 1
            print(f"{name}: other bytes; {difference(recorded[name], measured) or 'equal to rounding'}")
    if check:
        print(f"{len(chosen)} runs, {worse} with other bytes")
        return 1 if worse else 0
    kept = {name: recorded[name] for name in RUNS if name in recorded}
    lines = (f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in kept.items())
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
