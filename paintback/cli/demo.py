"""`paintback demo`: the example pictures that come with the package, painted back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paintback.cli.job import asked
from paintback.cli.options import Command, request_options
from paintback.cli.output import Format, emit, format_option, quiet_option, remark, table, working
from paintback.painting.request import Request

if TYPE_CHECKING:
    from paintback.images import Picture

__all__ = ["demo"]

EVERYWHERE = frozenset({"model", "quality", "method", "fields", "steps", "seed", "device", "threads"})
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@click.command(cls=Command)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the results, made if missing."
)
@click.option("--only", multiple=True, metavar="NAME", help="This example alone; may be repeated.")
@request_options(Request, wanted=lambda one: one.name in EVERYWHERE)
@format_option
@quiet_option
def demo(out: Path, only: tuple[str, ...], form: Format, quiet: bool, **values: Any) -> None:
    """Paint back the example pictures into a folder, with one sheet of before, hole and after."""
    examples = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    names = [example["name"] for example in examples]
    for name in only:
        if name not in names:
            raise ValueError(f"There is no example {name!r}; there are {', '.join(names)}.")

    from paintback.batch.job import hidden, open_inpainter, paint, read
    from paintback.cli.sheet import sheet
    from paintback.images import read_picture, write_picture
    from paintback.images.encoding import check_folder

    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    chosen = [example for example in examples if not only or example["name"] in only]
    rows: list[dict[str, Any]] = []
    tiles: list[Picture] = []
    with working(len(chosen), quiet=quiet) as progress:
        for example in chosen:
            request = asked(
                values,
                photo=str(EXAMPLES / example["photo"]),
                mask=str(EXAMPLES / example["mask"]) if "mask" in example else None,
                outpaint=tuple(example.get("outpaint", (0, 0, 0, 0))),
            )
            picture, hole = read(request)
            inpainter, request = open_inpainter(request)
            ((own, output),) = paint(inpainter, request, picture, hole, progress)
            path = out / f"{example['name']}.png"
            write_picture(output.images[0], path, settings=own.to_settings())
            tiles += [read_picture(str(own.photo)), hidden(picture, hole), output.images[0]]
            rows.append(
                {
                    "name": example["name"],
                    "title": example["title"],
                    "path": str(path),
                    "evaluations": output.evaluations,
                    "vjps": output.vjps,
                    "seconds": round(output.seconds, 3),
                    "peak_memory_bytes": output.peak_memory_bytes,
                }
            )
            if not quiet and form == "text":
                remark(f"{example['title']}: {output.seconds:.1f} s.")
    page = out / "sheet.png"
    write_picture(sheet(tiles, columns=3), page)
    cells = [
        (row["path"], row["title"], f"{row['evaluations']:g} evaluations", f"{row['seconds']:.1f} s") for row in rows
    ]
    emit(form, {"outputs": rows, "sheet": str(page)}, table(cells) + f"\n{page}  before, hole, after")
