"""`paintback inpaint`: a photograph and a mask in, a picture out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from paintback.cli.job import (
    DTYPES,
    Job,
    digest,
    find_file,
    hidden,
    is_mask_word,
    open_inpainter,
    paint,
    prepare,
    sampled,
)
from paintback.cli.output import Format, emit, format_option, quiet_option, remark, working
from paintback.cli.results import check_results, numbered, overwrite_option

__all__ = ["inpaint"]

CLIPS = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v"})
WITH_AGAIN = frozenset({"photo", "mask", "out", "again", "overwrite", "form", "quiet"})


class _Sides(click.ParamType[tuple[int, int, int, int]]):
    name = "L,T,R,B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, int, int]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
            self.fail(f"takes four whole numbers of pixels, left,top,right,bottom; got {value!r}.", param, ctx)
        left, top, right, bottom = (int(part) for part in parts)
        return left, top, right, bottom


@click.command()
@click.argument("photo", required=False)
@click.argument("mask", required=False)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="What to write: .png, .jpg, .webp, .tif; .mkv, .mp4."
)
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a path.")
@click.option("--method", help="A name from `paintback methods`, or trained.  [default: the model's own]")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A field of the method; may be repeated.")
@click.option("--steps", type=click.IntRange(1), help="Sampling steps.  [default: the model's own]")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help="Of the first sample; the next have seed + 1, ...  [default: 0]"
)
@click.option(
    "--samples", type=click.IntRange(1), default=1, show_default=True, help="OUT-1, OUT-2, ... and OUT-sheet."
)
@click.option("--prompt", help="What to paint, for models that read text.")
@click.option("--negative-prompt", help="What not to paint.")
@click.option("--guidance", type=float, help="Scale of classifier-free guidance.")
@click.option("--grow", type=float, default=0, show_default=True, help="Grow the mask by this many pixels.")
@click.option(
    "--blur", type=click.FloatRange(0), default=0, show_default=True, help="Blend the seam over this many pixels."
)
@click.option(
    "--outpaint", type=_Sides(), metavar="L,T,R,B", help="Pixels to add on each side; then MASK may be left out."
)
@click.option(
    "--height", type=click.IntRange(1), help="To paint at, for models with a VAE.  [default: the model's own]"
)
@click.option("--width", type=click.IntRange(1), help="Likewise.")
@click.option("--device", help="cpu, cuda, mps.  [default: cuda where there is one]")
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the network.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option(
    "--again", type=click.Path(path_type=Path), metavar="PNG", help="Remake this PNG from the settings in it."
)
@overwrite_option
@format_option
@quiet_option
@click.pass_context
def inpaint(
    ctx: click.Context,
    photo: str | None,
    mask: str | None,
    out: Path | None,
    model: str,
    method: str | None,
    pairs: tuple[str, ...],
    steps: int | None,
    seed: int | None,
    samples: int,
    prompt: str | None,
    negative_prompt: str | None,
    guidance: float | None,
    grow: float,
    blur: float,
    outpaint: tuple[int, int, int, int] | None,
    height: int | None,
    width: int | None,
    device: str | None,
    dtype: str | None,
    threads: int | None,
    again: Path | None,
    overwrite: bool,
    form: Format,
    quiet: bool,
) -> None:
    """Paint back what MASK hides of PHOTO, a picture or a clip.

    White in MASK is repainted, black is kept bit for bit. MASK may be the word "alpha": then PHOTO's transparent pixels
    are repainted. A PNG carries its settings: `paintback inpaint --again OUT.png` remakes it as OUT-again.png, from the
    same files, and says whether the two are the same.

    A clip (.mp4, .mkv, .mov, .webm, .avi) needs a --model of clips, takes one mask for all frames or a clip as the
    mask, and is written as .mkv (lossless) or .mp4 (lossy all over).
    """
    if again is not None:
        given = [p.opts[-1] for p in ctx.command.params if p.name not in WITH_AGAIN and _given(ctx, p.name)]
        if given:
            raise click.UsageError(f"--again takes everything from the PNG; leave out {', '.join(given)}.", ctx)
        _again(
            again,
            photo,
            mask,
            out or again.with_name(f"{again.stem}-again.png"),
            form=form,
            quiet=quiet,
            overwrite=overwrite,
        )
        return
    if photo is None or (mask is None and outpaint is None):
        raise click.UsageError("give PHOTO and MASK, or PHOTO and --outpaint.", ctx)
    if out is None:
        raise click.UsageError("give the picture to write, as -o OUT.png.", ctx)

    from paintback.models.catalogue import Sampler, recommended

    job = Job(
        photo=photo,
        mask=mask,
        model=model,
        **sampled(recommended(model) if method is None else Sampler(method), pairs, steps),
        seed=seed or 0,
        prompt=prompt,
        negative_prompt=negative_prompt,
        guidance=guidance,
        grow=grow,
        blur=blur,
        outpaint=outpaint or (0, 0, 0, 0),
        height=height,
        width=width,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    if Path(photo).suffix.lower() in CLIPS:
        from paintback.cli.video import run

        run(job, out, samples, form=form, quiet=quiet, overwrite=overwrite)
        return
    _run(job, out, samples, form=form, quiet=quiet, overwrite=overwrite)


def _given(ctx: click.Context, name: str | None) -> bool:
    return name is not None and ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)


def _run(
    job: Job, out: Path, samples: int, *, form: Format, quiet: bool, overwrite: bool, original: Path | None = None
) -> None:
    from paintback.images import check_writable, write_picture

    names = numbered(out, samples)
    page = out.with_name(f"{out.stem}-sheet.png")
    given = [job.photo, None if is_mask_word(job.mask) else job.mask, original]
    check_results([*names, page] if samples > 1 else names, given, overwrite=overwrite)
    picture, mask = prepare(job)
    check_writable(out, picture)
    inpainter, job = open_inpainter(job)
    with working(samples, quiet=quiet) as progress:
        painted = paint(inpainter, job, picture, mask, range(job.seed, job.seed + samples), progress)
    rows: list[dict[str, Any]] = []
    for path, (own, output) in zip(names, painted, strict=True):
        write_picture(output.images[0], path, settings=own.to_settings())
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
    data: dict[str, Any] = {"outputs": rows, "sheet": None, "settings": painted[0][0].to_settings()}
    lines = [
        f"{row['path']}  seed {row['seed']}  {row['evaluations']:g} evaluations  {row['seconds']:.1f} s" for row in rows
    ]
    if samples > 1:
        from paintback.cli.sheet import sheet

        write_picture(sheet([hidden(picture, mask), *(output.images[0] for _, output in painted)]), page)
        data["sheet"] = str(page)
        lines.append(str(page))
    if original is not None:
        data["identical"] = _same(original, painted[0][1].images[0])
        lines.append(f"{'the same as' if data['identical'] else 'differs from'} {original}")
    emit(form, data, "\n".join(lines))


def _again(
    png: Path, photo: str | None, mask: str | None, out: Path, *, form: Format, quiet: bool, overwrite: bool
) -> None:
    import torch

    from paintback import __version__
    from paintback.images import read_settings
    from paintback.models import find

    job = Job.from_settings(read_settings(png))
    recorded = job.sha256
    job = replace(job, photo=photo or str(find_file(job.photo, png)))
    if job.mask is not None and not is_mask_word(job.mask):
        job = replace(job, mask=mask or str(find_file(str(job.mask), png)))
    card = find(job.model)
    weights = str(card.weights) if card is not None else job.model
    for name, path in (("photo", job.photo), ("mask", job.mask), ("weights", weights)):
        if name in recorded and path is not None and Path(path).is_file() and digest(Path(path)) != recorded[name]:
            raise ValueError(f"{path} is not the {name} file that {png} was made with; give that one.")
    here = {"paintback": __version__, "torch": torch.__version__}
    other = [f"{name} {version}" for name, version in job.versions.items() if here.get(name) != version]
    if other:
        remark(f"{png} was made with {' and '.join(other)}; the same bits are not certain.")
    _run(job, out, 1, form=form, quiet=quiet, overwrite=overwrite, original=png)


def _same(path: Path, picture: Any) -> bool:
    import numpy as np

    from paintback.images import read_picture, to_numpy

    before = read_picture(path)
    return bool(np.array_equal(to_numpy(before, as_given=True), to_numpy(picture, as_given=True)))
