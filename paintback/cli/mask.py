"""`paintback mask`: finds what is to be painted back, and writes it as a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paintback.cli.options import Command, request_options
from paintback.cli.output import Format, emit, format_option
from paintback.cli.results import check_results, overwrite_option
from paintback.painting.request import Request

__all__ = ["mask"]

KINDS = ("dust", "scratches", "text", "alpha", "colour", "same_as", "object", "object_at")


@click.command(cls=Command)
@click.argument("photo", type=click.Path())
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The mask to write: .png, .tif.")
@click.option("--dust", is_flag=True, help="Small round spots.")
@click.option("--scratches", is_flag=True, help="Thin long lines.")
@click.option("--text", is_flag=True, help="Print: rows of signs of one colour.")
@click.option("--alpha", is_flag=True, help="What is not opaque.")
@click.option("--colour", "--color", metavar="#RGB", help="Everything of a colour, as #f00 or red.")
@click.option("--same-as", metavar="X,Y", help="What has the colour of a pixel and is connected with it.")
@click.option("--object", "object", metavar="X,Y,W,H", help="What stands out in a box.")
@click.option("--object-at", metavar="X,Y", help="The object that a pixel belongs to.")
@click.option(
    "--sensitivity",
    type=float,
    default=1,
    show_default=True,
    help="Above 1 finds fainter damage, and more that is none.",
)
@request_options(Request, wanted=lambda one: one.name == "grow")
@overwrite_option
@format_option
def mask(photo: str, out: Path, sensitivity: float, overwrite: bool, form: Format, **wanted: Any) -> None:
    """Find what is to be repainted in PHOTO, and write it as a mask.

    Several kinds go into one mask. Look at it before it is used, and touch it up in any editor: white is repainted. In
    one command: `paintback inpaint PHOTO auto:dust+scratches -o OUT.png`.
    """
    from paintback import images
    from paintback.images.finding import find

    grow = wanted.pop("grow") or 0
    said = [(name.replace("_", "-"), wanted[name]) for name in KINDS if wanted[name]]
    words = [name if value is True else f"{name}={value}" for name, value in said]
    if not words:
        raise click.UsageError(
            "say what to find: --dust, --scratches, --text, --alpha, --colour, --same-as, --object or --object-at."
        )
    if out.suffix.lower() not in (".png", ".tif", ".tiff"):
        raise click.UsageError(f"{str(out)!r} is no lossless picture's name; give the mask one that ends in .png.")
    check_results([out], [photo], overwrite=overwrite)
    picture = images.read_picture(photo)
    found = images.grow(find("+".join(words), picture, sensitivity), grow)
    images.check_mask(found, f"grow={grow:g}" if grow else f"sensitivity={sensitivity:g}")
    images.write_picture(images.Picture(found.astype("uint8")[..., None] * 255), out)
    share = float(found.mean())
    data = {"path": str(out), "found": words, "pixels": int(found.sum()), "share": round(share, 6)}
    emit(form, data, f"{out}  {', '.join(words)}  {data['pixels']} pixels  {share:.2%}")
