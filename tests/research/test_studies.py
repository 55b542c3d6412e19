"""Every study says how it is run, runs, and stays out of the package."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = re.findall(r"`python -m research\.(\w+)`", (ROOT / "research" / "README.md").read_text(encoding="utf-8"))


def test_the_readme_names_every_study():
    files = {path.stem for path in (ROOT / "research").glob("*.py")} - {"__init__", "command"}
    packages = {path.parent.name for path in (ROOT / "research").glob("*/__main__.py")}
    assert set(NAMES) == files | packages


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_as_a_module(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, f"research.{name}", raising=False)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(f"research.{name}", run_name="__main__")
    assert not stop.value.code
    assert "usage" in capsys.readouterr().out.lower()


def test_the_package_does_not_import_it():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "paintback").rglob("*.py")]
    assert len(sources) > 100
    assert not [text for text in sources if re.search(r"^\s*(from|import) research\b", text, re.MULTILINE)]
