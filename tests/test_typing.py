"""A user's program is typed: mypy, strict, passes on one that uses every public name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import paintback as pb

ROOT = Path(__file__).resolve().parents[1]
USER = ROOT / "tests" / "typed" / "every_public_name.py"


def used(text: str) -> set[str]:
    """The names that a program takes from `pb`."""
    return {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pb"
    }


def mypy(path: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """As a user runs it: strict, without our configuration."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(cache), str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_program_uses_every_public_name():
    assert used(USER.read_text(encoding="utf-8")) == {*pb.__all__, "__version__"}


@pytest.mark.slow
def test_mypy_passes_on_it_and_finds_what_is_wrong(tmp_path):
    done = mypy(USER, tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import paintback as pb\n\nprint(pb.no_such_name)\npb.superres('a.png', 'twice')\n")
    done = mypy(wrong, tmp_path / "cache")
    assert done.returncode == 1
    assert 'no attribute "no_such_name"' in done.stdout
    assert "superres" in done.stdout
