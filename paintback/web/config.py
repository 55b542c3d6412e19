"""What a server is started with: where it listens, the models it offers, and its limits."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from paintback.models.catalogue import catalogue, entries, recommended, takes_mask, unknown

__all__ = ["Config", "Limits", "Offer", "offers"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WITHOUT_TEXT = frozenset({"DDIMPipeline", "DDPMPipeline"})


@dataclass(frozen=True)
class Limits:
    """What one request, one client and the whole server may take.

    Attributes:
        upload_bytes: of one picture.
        body_bytes: of any other request.
        pixels: of one picture, and of a picture with what is to be added around it.
        side: pixels of the longer side, likewise.
        samples: of one job.
        waiting: jobs in the queue.
        waiting_per_client: of one address.
        streams_per_client: event streams that one address may hold open.
        seconds: of painting one job; it is stopped then, or refused where that can be foreseen.
        days: after which finished jobs and unused pictures are removed.
        stored_bytes: of all pictures; uploads that no job needs go first, then the oldest finished jobs.
        spare_bytes: of the disk that uploads and new jobs leave to the results.
    """

    upload_bytes: int = 64 * 2**20
    body_bytes: int = 2**20
    pixels: int = 24_000_000
    side: int = 32_767
    samples: int = 16
    waiting: int = 200
    waiting_per_client: int = 64
    streams_per_client: int = 16
    seconds: float = 3600.0
    days: float = 30.0
    stored_bytes: int = 4 * 2**30
    spare_bytes: int = 32 * 2**20


@dataclass(frozen=True)
class Offer:
    """One model that may be asked for.

    Attributes:
        name: what a job calls it.
        source: what it is loaded from; never from a request.
        title: one line.
        takes_text: whether it reads a prompt.
        trained: whether it takes the mask itself and so no method.
        grey: whether it paints grey pictures only.
    """

    name: str
    source: str
    title: str
    takes_text: bool = False
    trained: bool = False
    grey: bool = False


@dataclass(frozen=True)
class Config:
    """All of it.

    Attributes:
        data: folder of the database and the pictures.
        models: name -> what may be loaded.
        limits: see there.
        hosts: names that a request may call this server by.
        token: what a request has to show, or None on the loopback.
        workers: jobs that run at once.
        device: torch device for all models, or None.
        threads: CPU threads of torch, or None.
        dtype: of the networks, by torch's name, or None for the models' own.
        offload: of pipelines, see `Inpainter.from_pretrained`, or None.
    """

    data: Path
    models: dict[str, Offer]
    limits: Limits = field(default_factory=Limits)
    hosts: frozenset[str] = LOOPBACK
    token: str | None = None
    workers: int = 1
    device: str | None = None
    threads: int | None = None
    dtype: str | None = None
    offload: Literal["none", "model", "group", "sequential"] | None = None


def offers(more: dict[str, str] | None = None) -> dict[str, Offer]:
    """The shipped models, those of plug-ins, and the ones that the command line names.

    Args:
        more: name -> path or Hub id.

    Raises:
        ValueError: for a name that is taken, or a source that is no model.
    """
    found = {
        card.name: Offer(
            card.name,
            card.name,
            card.title.partition(": ")[2] or card.title,
            takes_text=card.vocabulary > 0,
            grey=card.channels == 1,
        )
        for card in catalogue()
    } | {
        name: Offer(name, name, entry.title, takes_text=entry.takes_text, grey=entry.channels == 1)
        for name, entry in entries().items()
    }
    shipped = set(found)
    for name, source in (more or {}).items():
        if name in found:
            raise ValueError(f"There is a model {name!r} already; give {source!r} another name, as NAME=PATH.")
        hub = not Path(source).exists() and source.count("/") == 1
        if not (Path(source).exists() or hub or source in shipped):
            raise unknown(source)
        index = Path(source) / "model_index.json"
        kind = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name")) if index.is_file() else ""
        found[name] = Offer(
            name,
            source,
            kind or source,
            takes_text=hub or bool(kind and kind not in WITHOUT_TEXT),
            trained=takes_mask(source) or recommended(source).method == "trained",
        )
    return found
