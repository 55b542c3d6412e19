"""`paintback demo`: the example pictures that come with the package, painted back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paintback.cli.job import Job, hidden, open_inpainter, paint, prepare, sampled
from paintback.cli.output import Format, emit, format_option, quiet_option, remark, table, working

if TYPE_CHECKING:
    from paintback.images import Picture

__all__ = ["demo"]

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@click.command()
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the results, made if missing."
)
@click.option("--only", multiple=True, metavar="NAME", help="This example alone; may be repeated.")
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a path.")
@click.option("--method", help="A name from `paintback methods`.  [default: the model's own]")
@click.option("--steps", type=click.IntRange(1), help="Sampling steps.  [default: the model's own]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every picture.")
@click.option("--device", help="cpu, cuda, mps.  [default: cuda where there is one]")
@format_option
@quiet_option
def demo(
    out: Path,
    only: tuple[str, ...],
    model: str,
    method: str | None,
    steps: int | None,
    seed: int,
    device: str | None,
    form: Format,
    quiet: bool,
) -> None:
    """Paint back the example pictures into a folder, with one sheet of before, hole and after."""
    examples = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    names = [example["name"] for example in examples]
    for name in only:
        if name not in names:
            raise ValueError(f"There is no example {name!r}; there are {', '.join(names)}.")

    from paintback.cli.sheet import sheet
    from paintback.images import read_picture, write_picture
    from paintback.models.catalogue import Sampler, recommended

    sampler = recommended(model) if method is None else Sampler(method)
    out.mkdir(parents=True, exist_ok=True)
    chosen = [example for example in examples if not only or example["name"] in only]
    rows: list[dict[str, Any]] = []
    tiles: list[Picture] = []
    with working(len(chosen), quiet=quiet) as progress:
        for example in chosen:
            job = Job(
                photo=str(EXAMPLES / example["photo"]),
                mask=str(EXAMPLES / example["mask"]) if "mask" in example else None,
                outpaint=tuple(example.get("outpaint", (0, 0, 0, 0))),
                model=model,
                **sampled(sampler, steps=steps),
                seed=seed,
                device=device,
            )
            picture, mask = prepare(job)
            inpainter, job = open_inpainter(job)
            ((own, output),) = paint(inpainter, job, picture, mask, [seed], progress)
            path = out / f"{example['name']}.png"
            write_picture(output.images[0], path, settings=own.to_settings())
            tiles += [read_picture(job.photo), hidden(picture, mask), output.images[0]]
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
