"""The tutorial and the how-to pages: what each tells to type is typed, in a folder with the pictures that it names."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import paintback
from paintback.cli.main import main
from tests.models.tiny_pipelines import folder as pipeline_folder

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs/tutorial.md", *sorted((ROOT / "docs/howto").glob("*.md"))]
WITHOUT = {"comfyui", "write-method", "write-model"}  # the test below; and those of tests/test_docs.py
BLOCK = re.compile(r"<!-- run -->\n```(?P<language>sh|python)\n(?P<code>.*?)\n```", re.DOTALL)


def made(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def desk(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The demo's pictures, most of them made small, and a tiny SDXL where a page names one."""
    examples = Path(paintback.__file__).parent / "examples"
    for path in [*examples.glob("*.jpg"), *examples.glob("*.png")]:
        shutil.copy(path, tmp_path)
    small = {"scratches.jpg": 4, "scratches-mask.png": 4, "text.jpg": 4, "text-mask.png": 4, "outpaint.jpg": 3}
    for path, shrink in small.items():  # the network's work is that of the pixels
        with Image.open(tmp_path / path) as large:
            way = Image.Resampling.NEAREST if "mask" in path else Image.Resampling.BOX
            large.resize((large.width // shrink, large.height // shrink), way).save(tmp_path / path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    hole = np.zeros((64, 64), np.uint8)
    hole[20:40, 24:44] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    page = request.node.callspec.id
    if page in ("large-models", "few-steps"):
        os.symlink(pipeline_folder("sdxl", tmp_path_factory), tmp_path / "sdxl")
    if page == "benchmark":
        (tmp_path / "scans").mkdir()
        shutil.copy(tmp_path / "outpaint.jpg", tmp_path / "scans")
    return tmp_path


def type_in(line: str, folder: Path) -> None:
    """One line of a shell: `paintback` in this process, all else as it stands.

    Painting has its quality turned down to fast where the page leaves the default: the default takes half a minute.
    """
    words = shlex.split(line)
    if words[:2] == ["paintback", "inpaint"] and not {"--again", "--quality", "--steps"} & set(words):
        words += ["--quality", "fast"]
    if words[:1] != ["paintback"]:
        subprocess.run(words, cwd=folder, check=True, timeout=60)
        return
    said = io.StringIO()
    with pytest.raises(SystemExit) as stop, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        main(words[1:])
    assert stop.value.code == 0, f"{line}\n{said.getvalue()}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in WITHOUT], ids=lambda page: page.stem)
def test_what_a_page_tells_to_type_works(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    blocks = list(BLOCK.finditer(page.read_text(encoding="utf-8")))
    assert blocks, "the page has nothing to run"
    for block in blocks:
        before = made(desk)
        if block["language"] == "python":
            exec(compile(block["code"], str(page), "exec", dont_inherit=True), {"__name__": "page"})
        else:
            for line in block["code"].replace("\\\n", " ").splitlines():
                type_in(line, desk)
        after = made(desk) - before
        printed_only = "bench holes" in block["code"]
        assert after or printed_only, f"nothing came of\n{block['code']}"


def test_nodes_and_workflows_of_the_page_of_comfyui_are_there() -> None:
    text = (ROOT / "docs/howto/comfyui.md").read_text(encoding="utf-8")
    pack = ROOT / "integrations/comfyui"
    nodes = (pack / "nodes.py").read_text(encoding="utf-8") + (pack / "sampler.py").read_text(encoding="utf-8")
    named = set(re.findall(r"`(Paintback \w[\w ]*)`", text))
    assert len(named) >= 10
    titles = {title.rstrip() for title in re.findall(r"\"(Paintback \w[\w ]*)(?:\([\w ]+\))?\"", nodes)}
    assert named <= titles | {f"Paintback {name}" for name in ("DING", "LanPaint", "FCS", "GradPaint", "FMM")}
    flows = set(re.findall(r"`(?:integrations/comfyui/workflows/)?([\w-]+\.json)`", text))
    assert flows == {path.name for path in (pack / "workflows").glob("*.json")}
