"""`paintback inpaint`: a photograph and a mask in, a picture out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from paintback.cli.options import Command, request_options
from paintback.cli.output import Format, emit, format_option, quiet_option, remark, working
from paintback.cli.results import check_results, dry_option, numbered, overwrite_option
from paintback.cli.streams import Streams, piped
from paintback.painting.request import Request

if TYPE_CHECKING:
    from paintback.images import Picture

__all__ = ["Order", "inpaint"]

CLIPS = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v"})
WITH_AGAIN = frozenset({"photo", "mask", "reference_images", "out", "again", "overwrite", "form", "quiet"})


@dataclass(frozen=True)
class Order:
    """What a call of the command is told beside the request.

    Attributes:
        out: the file to write.
        streams: what of it comes through pipes.
        form: of what is said on stdout.
        quiet: no progress.
        overwrite: what is read may be written over.
        dry_run: say what would be done, and do nothing.
        original: the picture that is made again.
    """

    out: Path
    streams: Streams
    form: Format
    quiet: bool
    overwrite: bool
    dry_run: bool = False
    original: Path | None = None


@click.command(cls=Command)
@click.argument("photo", required=False, type=click.Path(allow_dash=True))
@click.argument("mask", required=False, type=click.Path(allow_dash=True))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, allow_dash=True),
    help="What to write: .png, .jpg, .webp, .tif, .bmp, .ppm; .mkv, .mp4.",
)
@request_options(Request)
@click.option(
    "--again", type=click.Path(path_type=Path), metavar="PNG", help="Remake this PNG from the settings in it."
)
@overwrite_option
@dry_option
@format_option
@quiet_option
@click.pass_context
def inpaint(
    ctx: click.Context,
    /,
    photo: str | None,
    mask: str | None,
    out: Path | None,
    again: Path | None,
    overwrite: bool,
    dry_run: bool,
    form: Format,
    quiet: bool,
    **values: Any,
) -> None:
    """Paint back what MASK hides of PHOTO, a picture or a clip.

    White in MASK is repainted, black is kept bit for bit. MASK may be the word "alpha": then PHOTO's transparent pixels
    are repainted; or "auto:" and what is to be found, as "auto:dust+scratches" (see `paintback mask`). PHOTO or MASK,
    and OUT, may be "-" for stdin and stdout.

    A PNG carries its settings: `paintback inpaint --again OUT.png` remakes it as OUT-again.png, from the same files,
    and says whether the two are the same.

    A clip (.mp4, .mkv, .mov, .webm, .avi) needs a --model of clips, takes one mask for all frames or a clip as the
    mask, and is written as .mkv (lossless) or .mp4 (lossy all over).
    """
    if again is not None:
        given = [p.opts[-1] for p in ctx.command.params if p.name not in WITH_AGAIN and _given(ctx, p.name)]
        if given:
            raise click.UsageError(f"--again takes everything from the PNG; leave out {', '.join(given)}.", ctx)
        out = out or again.parent / f"{again.stem}-again.png"
        order = Order(out, Streams(), form, quiet, overwrite, original=again)
        _run(_recorded(again, photo, mask, values["reference_images"]), order)
        return
    if photo is None or (mask is None and values.get("outpaint") is None):
        raise click.UsageError("give PHOTO and MASK, or PHOTO and --outpaint.", ctx)
    if out is None and not dry_run:
        raise click.UsageError("give the picture to write, as -o OUT.png.", ctx)

    from paintback.cli.job import asked

    with piped(photo, mask, out or Path("out.png")) as streams:
        request = asked(values, photo=streams.photo, mask=streams.mask)
        order = Order(streams.out, streams, form, quiet, overwrite, dry_run)
        if Path(photo).suffix.lower() in CLIPS:
            from paintback.cli.video import run

            run(request, order)
        else:
            _run(request, order)


def _given(ctx: click.Context, name: str | None) -> bool:
    return name is not None and ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)


def _run(request: Request, order: Order) -> None:
    from paintback.batch.job import hidden, inputs, open_inpainter, paint, read, storable
    from paintback.images import check_writable, write_picture

    out, samples = order.out, request.samples
    if order.streams.to_stdout and samples > 1:
        raise click.UsageError(f"stdout holds one picture, and {samples} are asked for; give -o a file.")
    names = numbered(out, samples)
    page = out.with_name(f"{out.stem}-sheet.png")
    if not order.dry_run:
        read_from = [*inputs(request).values(), order.original]
        check_results([*names, page] if samples > 1 else names, read_from, overwrite=order.overwrite)
    picture, hole = read(request)
    if not order.dry_run:
        check_writable(out, storable(picture, out))
    inpainter, request = open_inpainter(request)
    if order.dry_run:
        from paintback.cli.plans import tell

        tell(inpainter, order.streams.named(request), picture, hole, order.form)
        return
    if picture.pixels.dtype.kind == "f":
        name = order.streams.named(request).photo
        remark(f"{name} holds floating-point numbers, which {out.name} rounds to whole ones, known pixels too.")
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    pictures: list[Picture] = []
    with working(samples, quiet=order.quiet) as progress:
        # each is written when it is done: what ends the run takes none of those before
        for path, (own, output) in zip(names, paint(inpainter, request, picture, hole, progress), strict=True):
            settings.append(order.streams.named(own).to_settings())
            pictures.append(storable(output.images[0], path))
            write_picture(pictures[-1], path, settings=settings[-1])
            rows.append(
                {
                    "path": str(path),
                    "seed": own.seed,
                    "evaluations": output.evaluations,
                    "vjps": output.vjps,
                    "seconds": round(output.seconds, 3),
                    "peak_memory_bytes": output.peak_memory_bytes,
                }
            )
    data: dict[str, Any] = {"outputs": rows, "sheet": None, "settings": settings[0]}
    lines = [
        f"{row['path']}  seed {row['seed']}  {row['evaluations']:g} evaluations  {row['seconds']:.1f} s" for row in rows
    ]
    if samples > 1:
        from paintback.cli.sheet import sheet

        write_picture(sheet([hidden(picture, hole), *pictures]), page)
        data["sheet"] = str(page)
        lines.append(str(page))
    if order.original is not None:
        data["identical"] = _same(order.original, pictures[0])
        lines.append(f"{'the same as' if data['identical'] else 'differs from'} {order.original}")
    if not order.streams.to_stdout:
        emit(order.form, data, "\n".join(lines))


def _recorded(png: Path, photo: str | None, mask: str | None, references: tuple[str, ...]) -> Request:
    """The request in a PNG, with its files where they are now; those that are named here are taken in their place.

    Raises:
        ValueError: for a file that is not the one that the PNG was made with.
    """
    import torch

    from paintback import __version__
    from paintback.batch.job import digest, inputs
    from paintback.cli.job import find_file
    from paintback.images import read_settings
    from paintback.models import find

    request = Request.from_settings(read_settings(png))
    count = len(request.reference_images or ())
    if references and len(references) != count:
        raise ValueError(f"{png} was made with {count} reference pictures; got {len(references)} of --reference.")
    named = {"photo": photo, "mask": mask, **{f"reference_{k}": path for k, path in enumerate(references, 1)}}
    found = {name: named.get(name) or str(find_file(path, png)) for name, path in inputs(request).items()}
    shown = [found[f"reference_{k}"] for k in range(1, count + 1)]
    own = {name: found[name] for name in ("photo", "mask") if name in found}
    request = request.with_(**own, reference_images=shown)
    card = find(request.model)
    weights = str(card.weights) if card is not None else request.model
    for name, path in {**found, "weights": weights}.items():
        recorded = request.sha256.get(name)
        if recorded and Path(path).is_file() and digest(Path(path)) != recorded:
            raise ValueError(f"{path} is not the {name} file that {png} was made with; give that one.")
    here = {"paintback": __version__, "torch": torch.__version__}
    other = [f"{name} {version}" for name, version in request.versions.items() if here.get(name) != version]
    if other:
        remark(f"{png} was made with {' and '.join(other)}; the same bits are not certain.")
    return request


def _same(path: Path, picture: Any) -> bool:
    import numpy as np

    from paintback.images import read_picture, to_numpy

    before = read_picture(path)
    return bool(np.array_equal(to_numpy(before, as_given=True), to_numpy(picture, as_given=True)))
