"""What a reader of the house may rely on: the way is short, and kinds of models are told apart in models/ alone."""

from __future__ import annotations

import ast
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

import paintback as pb
from paintback.tasks.inpaint import Inpainter
from tests.models import tiny_pipelines
from tests.tasks.test_inpaint import tiny_model

ROOT = Path(pb.__file__).parent


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_from_the_call_to_a_step_a_reader_passes_four_functions(kind) -> None:
    passed: list[list[str]] = []

    @dataclasses.dataclass(frozen=True)
    class Looking(type(pb.methods.get("ddnm"))):
        def step(self, run, x_t, t, s):
            frame, names = sys._getframe(1), []
            while frame.f_code.co_name != "__call__" or "inpaint" not in frame.f_code.co_filename:
                if Path(frame.f_code.co_filename).is_relative_to(ROOT):
                    names.append(frame.f_code.co_name)
                frame = frame.f_back
            passed.append(names)
            return super().step(run, x_t, t, s)

    inpainter = Inpainter(tiny_model()) if kind == "pixels" else Inpainter.from_pipe(tiny_pipelines.build("sd15"))
    mask = np.zeros((64, 64), bool)
    mask[20:30, 20:30] = True
    inpainter(np.zeros((64, 64, 3), np.uint8), mask, method=Looking(), num_inference_steps=2)
    assert passed and len(passed[0]) <= 4 and passed[0][-2:] == ["paint", "paint"], passed


def test_kinds_of_models_are_told_apart_in_models_alone() -> None:
    kinds = {"LatentModel", "TrainedModel"}
    found = []
    for path in ROOT.rglob("*.py"):
        if path.is_relative_to(ROOT / "models"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                names = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                found += [f"{path.name}:{node.lineno}"] if names & kinds else []
    assert found == []
