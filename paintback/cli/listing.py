"""`paintback methods`, `paintback models`, `paintback env`: what there is here."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import Any

import click

from paintback import __version__
from paintback.cli.output import Format, emit, format_option, table

__all__ = ["env", "methods", "models"]

PACKAGES = ("torch", "numpy", "pillow", "scipy", "safetensors")
EXTRAS = ("diffusers", "transformers", "accelerate", "huggingface-hub", "fastapi", "ray")


@click.command()
@click.argument("names", nargs=-1)
@format_option
def methods(names: tuple[str, ...], form: Format) -> None:
    """List the methods, or show NAMES with all their fields."""
    from paintback import methods as room
    from paintback.cli import fields

    kinds = room.types()
    for name in names:
        if name not in kinds:
            room.get(name)  # raises, and lists the valid names
    rows = [_method(kind, fields.describe(kind)) for name, kind in kinds.items() if not names or name in names]
    text = "\n\n".join(map(_method_text, rows)) if names else table([(row["name"], row["title"]) for row in rows])
    emit(form, rows, text if names else text + "\n\n`paintback methods NAME` shows a method's fields.")


def _method(kind: Any, fields: list[dict[str, Any]]) -> dict[str, Any]:
    module = sys.modules[kind.__module__]
    return {
        "name": kind.name,
        "title": kind.title,
        "paper": kind.paper,
        "needs_gradients": kind.needs_vjp,
        "takes_operator": kind.takes_operator,
        "fields": fields,
        "docs": (module.__doc__ or "").strip(),
    }


def _method_text(row: dict[str, Any]) -> str:
    lines = [row["docs"], ""]
    if row["fields"]:
        cells = [(f"{f['name']}={_plain(f['default'])}", _range(f), f["help"]) for f in row["fields"]]
        lines += ["Fields, for --set name=value:", table(cells, "  ")]
    return f"{row['name']}  {row['title']}  {row['paper']}\n\n" + "\n".join(lines)


def _plain(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _range(field: dict[str, Any]) -> str:
    if field["choices"]:
        return " | ".join(field["choices"])
    low, high = field["low"], field["high"]
    if low is not None and high is not None:
        return f"{field['type']}, {low} to {high}"
    return str(field["type"]) + ("" if low is None else f", from {low}") + ("" if high is None else f", up to {high}")


@click.command()
@format_option
def models(form: Format) -> None:
    """List the models that are shipped with the package, and those of plug-ins."""
    from paintback.models.catalogue import catalogue, entries

    rows: list[dict[str, Any]] = [
        {
            "name": card.name,
            "title": card.title,
            "channels": card.channels,
            "parameters": card.parameters,
            "size_bytes": card.size_bytes,
            "takes_prompts": card.vocabulary > 0,
            "weights": str(card.weights),
            "card": str(card.card),
        }
        for card in catalogue()
    ]
    rows += [
        {
            "name": name,
            "title": entry.title,
            "channels": entry.channels,
            "parameters": None,
            "size_bytes": None,
            "takes_prompts": entry.takes_text,
            "weights": None,
            "card": None,
        }
        for name, entry in entries().items()
    ]
    sizes = [f"{row['size_bytes'] / 1e6:.1f} MB" if row["size_bytes"] is not None else "plug-in" for row in rows]
    cells = [(str(row["name"]), size, str(row["title"])) for row, size in zip(rows, sizes, strict=True)]
    emit(
        form,
        rows,
        table(cells) if rows else "No model is shipped with this copy; train one with `paintback train prior`.",
    )


@click.command()
@format_option
def env(form: Format) -> None:
    """Show versions, devices and threads: what a bug report needs."""
    import torch

    devices: list[dict[str, Any]] = [{"name": "cpu", "title": platform.machine(), "memory_bytes": None}]
    for k in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(k)
        devices.append({"name": f"cuda:{k}", "title": found.name, "memory_bytes": found.total_memory})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "title": "Apple GPU", "memory_bytes": None})
    data = {
        "paintback": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "optional": {name: _version(name) for name in EXTRAS},
        "devices": devices,
        "threads": torch.get_num_threads(),
    }
    rows = [("paintback", __version__), ("python", str(data["python"])), ("platform", str(data["platform"]))]
    rows += [(name, _version(name) or "not installed") for name in PACKAGES + EXTRAS]
    rows += [("device", f"{entry['name']} ({entry['title']})") for entry in devices]
    rows += [("threads", str(data["threads"]))]
    emit(form, data, table(rows))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
