"""The how-to pages: what each tells to type is typed, from top to bottom, in a folder with the pictures it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import paintback
from tests.models.tiny_pipelines import folder as pipeline_folder

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs/howto").glob("*.md"))
BLOCK = re.compile(r"<!-- run -->\n```(?P<language>sh|python)\n(?P<code>.*?)\n```", re.DOTALL)


def made(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def desk(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The demo's pictures, a small photo and mask, and for the page of large models a tiny SDXL."""
    examples = Path(paintback.__file__).parent / "examples"
    for path in [*examples.glob("*.jpg"), *examples.glob("*.png")]:
        shutil.copy(path, tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    hole = np.zeros((64, 64), np.uint8)
    hole[20:40, 24:44] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    if request.node.callspec.id == "large-models":
        os.symlink(pipeline_folder("sdxl", tmp_path_factory), tmp_path / "sdxl")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_tells_to_type_works(page: Path, desk: Path) -> None:
    blocks = list(BLOCK.finditer(page.read_text(encoding="utf-8")))
    assert blocks, "the page has nothing to run"
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    for block in blocks:
        before = made(desk)
        command = [sys.executable, "-c"] if block["language"] == "python" else ["sh", "-ec"]
        done = subprocess.run(
            [*command, block["code"]], cwd=desk, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{block['code']}\n{done.stderr}"
        assert made(desk) - before, f"nothing came of\n{block['code']}"


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert PAGES
    assert [page.name for page in PAGES if f"howto/{page.name}" not in text] == []
