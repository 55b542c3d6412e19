"""An option is added in one place and is there in Python, the help, manifests, settings, over HTTP and on the page."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# One line in `Request`, as if its file had it: whatever is imported afterwards reads that class.
SCRIPT = """
import inspect, json, os, sys, tempfile
from pathlib import Path
from typing import Annotated
from pydantic import Field
import paintback.painting.request as room

class Request(room.Request):
    warmth: Annotated[float, Field(ge=0, le=1, description="How warm the colours are."), room.Ask()] = 0.5

room.Request = Request

import click
import paintback as pb
from paintback.batch.tasks import read_tasks
from paintback.cli.batch import batch
from paintback.cli.inpaint import inpaint
from paintback.tasks.options import from_python
from starlette.testclient import TestClient
from paintback.web.app import make_app
from paintback.web.config import Config, Limits, offers

folder = Path(tempfile.mkdtemp())
(folder / "rows.csv").write_text("photo,mask,warmth\\na.png,m.png,0.25\\nb.png,m.png,\\nc.png,m.png,2\\n")
tasks, remarks = read_tasks(str(folder / "rows.csv"), None, {"warmth": 0.75})

def help_of(command):
    with click.Context(command, terminal_width=200, max_content_width=200) as context:
        return command.get_help(context)

with TestClient(make_app(Config(folder / "data", offers(), Limits())), base_url="http://127.0.0.1") as client:
    described = client.get("/api/openapi.json").json()["components"]["schemas"]["JobRequest"]["properties"]
    entries = {entry["name"]: entry for entry in client.get("/api/options").json()["entries"]}

print(json.dumps({
    "python": inspect.signature(pb.inpaint).parameters["warmth"].default,
    "object": inspect.signature(pb.Inpainter.__call__).parameters["warmth"].default,
    "request": from_python({"warmth": 1}, Request).to_settings()["warmth"],
    "help": [help_of(inpaint), help_of(batch)],
    "rows": [task.request.warmth if task.request else task.error for task in tasks],
    "remarks": remarks,
    "settings": Request.from_settings({"photo": "a.png", "warmth": 0.1}).warmth,
    "http": described["warmth"],
    "page": entries["warmth"],
}), flush=True)
os._exit(0)  # a worker may be in the midst of importing torch, which aborts an interpreter that ends then
"""


@pytest.fixture(scope="module")
def seen():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_python_has_it(seen):
    assert (seen["python"], seen["object"], seen["request"]) == (0.5, 0.5, 1)


def test_the_command_line_has_it(seen):
    for text in seen["help"]:
        (line,) = [line for line in text.splitlines() if "--warmth" in line]
        assert line.split(maxsplit=2) == ["--warmth", "NUMBER", "How warm the colours are.  [default: 0.5]"]


def test_manifests_have_it(seen):
    assert seen["rows"][:2] == [0.25, 0.75]
    assert "warmth must be at most 1; got 2" in seen["rows"][2]
    assert seen["remarks"] == []
    assert seen["settings"] == 0.1


def test_http_has_it(seen):
    assert seen["http"].items() >= {"minimum": 0, "maximum": 1, "default": 0.5, "type": "number"}.items()


def test_the_page_has_it(seen):
    """The form is made of these entries; tests/web/test_page.py looks at it in a browser."""
    assert seen["page"].items() >= {"kind": "float", "low": 0, "high": 1, "help": "How warm the colours are."}.items()
