"""Servers as the tests see them, and small pictures to send."""

from __future__ import annotations

import io
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paintback.web.config import Config

EXAMPLES = Path(__file__).resolve().parents[2] / "paintback" / "examples"
HOME = "http://127.0.0.1"


def png(array: np.ndarray) -> bytes:
    """The bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def photograph(side: int = 64) -> np.ndarray:
    """A corner of an example photograph."""
    return np.asarray(Image.open(EXAMPLES / "object.jpg").convert("RGB"))[100 : 100 + side, 300 : 300 + side].copy()


def hole(side: int = 64, width: int = 8) -> np.ndarray:
    """A mask with a square in it."""
    mask = np.zeros((side, side), np.uint8)
    mask[20 : 20 + width, 24 : 24 + width] = 255
    return mask


@dataclass
class Site:
    """A running application and what is often asked of it."""

    http: Any
    config: Config

    def send(self, data: bytes, name: str = "photo.png", media: str = "image/png") -> Any:
        return self.http.post("/api/pictures", params={"name": name}, content=data, headers={"content-type": media})

    def pictures(self, side: int = 64, width: int = 8) -> dict[str, str]:
        """The ids of a photograph and a mask that were sent, as a job names them."""
        photo, mask = self.send(png(photograph(side))), self.send(png(hole(side, width)), "mask.png")
        return {"photo": photo.json()["id"], "mask": mask.json()["id"]}

    def ask(self, **job: Any) -> Any:
        response = self.http.post("/api/jobs", json=job)
        assert response.status_code == 201, response.text
        return response.json()

    def wait(self, job: str, timeout: float = 300) -> Any:
        """The job once it has ended."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            view = self.http.get(f"/api/jobs/{job}").json()
            if view["state"] in ("done", "failed", "stopped"):
                return view
            time.sleep(0.05)
        raise AssertionError(f"job {job} did not end: {view}")


@dataclass
class Server:
    """`paintback serve` in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def kill(self) -> None:
        """As the machine's power does it."""
        self.process.kill()
        self.process.wait(30)


def events(text: str) -> list[tuple[str, Any]]:
    """The name and data of each server-sent event."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found
