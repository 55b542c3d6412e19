"""Plug-ins: the template of docs/extending.md as an installed package, and `pb.register`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import paintback as pb
from paintback import plugins
from paintback.methods.base import Method, Run, Time, option
from paintback.models.catalogue import ModelEntry, entries
from tests.tasks.test_inpaint import tiny_model

ROOT = Path(__file__).resolve().parents[1]
FILE = re.compile(r"<!-- file: (?P<name>[\w.]+) -->\n```\w+\n(?P<text>.*?)\n```", re.DOTALL)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as pip leaves it: its files, and the metadata of its pyproject.toml."""
    folder = tmp_path_factory.mktemp("plug-in")
    for found in FILE.finditer((ROOT / "docs/extending.md").read_text(encoding="utf-8")):
        (folder / found["name"]).write_text(found["text"] + "\n", encoding="utf-8")
    made = (folder / "pyproject.toml").read_text(encoding="utf-8")
    points = re.findall(r'\[project\.entry-points\."(.*?)"\]\n(.*?)\n\n', made, re.DOTALL)
    assert [group for group, _ in points] == [plugins.METHODS, plugins.MODELS]
    info = folder / "paintback_mixed-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: paintback-mixed\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n{lines.replace(chr(34), '')}" for group, lines in points)
    )
    hole = np.zeros((24, 24), np.uint8)
    hole[6:14, 6:14] = 255
    Image.fromarray(hole).save(folder / "mask.png")
    Image.fromarray(np.full((24, 24, 3), 200, np.uint8)).save(folder / "photo.png")
    return folder


def run(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command of Python in a folder that is on the path, as site-packages are."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def test_the_templates_own_test_passes(package: Path) -> None:
    done = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_paintback_mixed.py")
    assert "1 passed" in done.stdout


@pytest.mark.slow
def test_the_command_line_has_it(package: Path) -> None:
    (shown,) = json.loads(run(package, "-m", "paintback", "methods", "mixed", "--format", "json").stdout)
    assert [field["name"] for field in shown["fields"]] == ["coordinates", "times", "share"]
    assert shown["docs"].startswith("Mixed: the predicted picture")
    listed = json.loads(run(package, "-m", "paintback", "models", "--format", "json").stdout)
    assert {row["name"]: row["title"] for row in listed}["grey-fog"] == "Grey fog: an example of a model"
    words = ["inpaint", "photo.png", "mask.png", "-o", "out.png", "--model", "grey-fog", "--method", "mixed"]
    run(package, "-m", "paintback", *words, "--set", "share=0.5", "--steps", "4")
    made = np.asarray(Image.open(package / "out.png"))
    assert abs(made[6:14, 6:14].mean() - 127.5) < 15 and (made[:6] == 200).all()
    refused = run(package, "-m", "paintback", *words, "--set", "share=2", code=2).stderr
    assert "mixed: share must be between 0.0 and 1.0; got 2.0" in refused


@pytest.mark.slow
def test_the_bench_has_it(package: Path) -> None:
    words = ["bench", "posterior", "--methods", "mixed", "--problems", "A", "--steps", "4", "--particles", "200"]
    run(package, "-m", "paintback", *words, "--seeds", "1", "-o", "bench", "-q")
    (row,) = json.loads((package / "bench/posterior.json").read_text())["rows"]
    assert row["method"] == "mixed" and row["evaluations"] == 4


PAGE = """
import json, time
from pathlib import Path
from starlette.testclient import TestClient
from paintback.web.app import make_app
from paintback.web.config import Config, Limits, offers

if __name__ == "__main__":
    with TestClient(make_app(Config(Path("data"), offers(), Limits())), base_url="http://127.0.0.1") as client:
        options = client.get("/api/options").json()
        ids = [client.post("/api/pictures", params={"name": name}, content=Path(name).read_bytes(),
                           headers={"content-type": "image/png"}).json()["id"] for name in ("photo.png", "mask.png")]
        job = {"photo": ids[0], "mask": ids[1], "model": "grey-fog", "method": "mixed"}
        job |= {"fields": {"share": 0.5}, "steps": 4}
        made = client.post("/api/jobs", json=job).json()
        end = time.monotonic() + 120
        while made["state"] not in ("done", "failed", "stopped") and time.monotonic() < end:
            time.sleep(0.2)
            made = client.get(f"/api/jobs/{made['id']}").json()
        (out,) = made["outputs"]
        Path("page.png").write_bytes(client.get(f"/api/pictures/{out['picture']}").content)
        print(json.dumps({
            "models": [model["name"] for model in options["models"]],
            "methods": [method["name"] for method in options["methods"]],
            "state": made["state"],
        }))
"""


@pytest.mark.slow
def test_the_page_has_it(package: Path) -> None:
    (package / "page.py").write_text(PAGE)
    seen = json.loads(run(package, "page.py").stdout.splitlines()[-1])
    assert "grey-fog" in seen["models"] and "mixed" in seen["methods"] and seen["state"] == "done"
    made = np.asarray(Image.open(package / "page.png"))
    assert abs(made[6:14, 6:14].mean() - 127.5) < 15 and (made[:6] == 200).all()


# ------------------------------------------------------------------------------------------------------ at run time


@dataclasses.dataclass(frozen=True)
class Plain(Method):
    """The model's picture as it is."""

    name: ClassVar[str] = "plain"
    title: ClassVar[str] = "Plain"
    amount: float = option(1.0, "none", low=0.0)

    def step(self, run: Run, x_t: torch.Tensor, t: Time, s: Time) -> torch.Tensor:
        at = run.denoise(x_t, t)
        return s.alpha * at.x0 + s.sigma * at.x1


@pytest.fixture
def clean() -> Iterator[None]:
    yield
    plugins.forget(plugins.METHODS, "plain")
    plugins.forget(plugins.MODELS, "mine")


@pytest.mark.usefixtures("clean")
def test_register() -> None:
    assert pb.register(Plain) is Plain
    assert pb.register(Plain) is Plain  # once more does no harm
    assert "plain" in pb.methods.names() and pb.methods.get("plain", amount=2).amount == 2
    model = tiny_model()
    pb.register(model, name="mine")
    assert pb.models.load("mine") is model
    hole = np.zeros((24, 24), bool)
    hole[6:12, 6:12] = True
    given = np.full((24, 24, 3), 0.5, np.float32)
    out = pb.inpaint(given, hole, model="mine", method="plain", num_inference_steps=3, generator=0)
    direct = pb.Inpainter(model)(given, hole, method=Plain(), num_inference_steps=3, generator=0, output_type="np")
    assert np.array_equal(out.images, direct.images) and out.evaluations == 3
    plugins.forget(plugins.METHODS, "plain")
    assert "plain" not in pb.methods.names()


@pytest.mark.usefixtures("clean")
def test_what_cannot_be_registered() -> None:
    class Nameless(Method):
        pass

    class Ding(Method):
        name = "ding"

    for thing, name, sentence in (
        (Ding, None, "'ding' among paintback.methods already"),
        (Nameless, None, "says name = ''"),
        (Plain, "other", "has the name of its class"),
        (tiny_model(), "photo", "'photo' among paintback.models already"),
        (tiny_model(), "own/model", "without '/'"),
        (3, "mine", "must be a function"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            pb.register(thing, name=name)
    pb.register(ModelEntry(lambda device, dtype: object(), "no model"), name="mine")
    assert entries()["mine"].title == "no model"
    with pytest.raises(ValueError, match="came as a object"):
        pb.models.load("mine")


def test_a_plug_in_that_does_not_work_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("broken", "no_such_module:Broken", plugins.METHODS),
        EntryPoint("ding", "tests.test_plugins:Plain", plugins.METHODS),
        EntryPoint("plain", "tests.test_plugins:Plain", plugins.METHODS),
        EntryPoint("wrong", "tests.test_plugins:Plain", plugins.METHODS),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == plugins.METHODS else [])
    monkeypatch.setattr(plugins, "_installed", {})
    pb.methods.types.cache_clear()
    try:
        with pytest.warns(UserWarning, match="is left out") as said:
            names = pb.methods.names()
        assert "plain" in names and "wrong" not in names and "broken" not in names
        texts = " ".join(str(one.message) for one in said)
        assert "cannot be imported (ModuleNotFoundError" in texts
        assert "there is 'ding' among paintback.methods already" in texts
        assert "The method 'wrong' must be a class" in texts
        assert pb.methods.types()["ding"].__module__ == "paintback.methods.ding"
    finally:
        pb.methods.types.cache_clear()
