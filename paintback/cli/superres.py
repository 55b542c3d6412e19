"""`paintback superres`: a small picture in, a larger one out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from paintback.cli.job import DTYPES, Job, open_inpainter
from paintback.cli.output import Format, emit, format_option, quiet_option, working
from paintback.cli.results import check_results, numbered, overwrite_option

__all__ = ["superres"]

SETTINGS = ("photo", "model", "method", "steps", "seed", "prompt", "device", "dtype", "threads", "sha256", "versions")


@click.command()
@click.argument("photo")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The picture to write.")
@click.option("--scale", type=click.IntRange(2, 8), default=2, show_default=True, help="Times the sides.")
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a path.")
@click.option("--method", default="fcs", show_default=True, help="A method that takes operators.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A field of the method; may be repeated.")
@click.option("--steps", type=click.IntRange(1), help="Sampling steps.  [default: 20]")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Of the first sample; the next have seed + 1, ...",
)
@click.option(
    "--samples", type=click.IntRange(1), default=1, show_default=True, help="OUT-1, OUT-2, ... and OUT-sheet."
)
@click.option("--kernel", type=click.Choice(["bicubic", "area"]), default="bicubic", help="How PHOTO was made smaller.")
@click.option(
    "--sigma", type=click.FloatRange(0), default=0, show_default=True, help="Noise in PHOTO: its std, white = 1."
)
@click.option("--prompt", help="What PHOTO shows, for models that read text.")
@click.option("--device", help="cpu, cuda, mps.  [default: cuda where there is one]")
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the network.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@overwrite_option
@format_option
@quiet_option
def superres(
    photo: str,
    out: Path,
    scale: int,
    model: str,
    method: str,
    pairs: tuple[str, ...],
    steps: int | None,
    seed: int,
    samples: int,
    kernel: str,
    sigma: float,
    prompt: str | None,
    device: str | None,
    dtype: str | None,
    threads: int | None,
    overwrite: bool,
    form: Format,
    quiet: bool,
) -> None:
    """Enlarge PHOTO.

    The result, made smaller again, is PHOTO. A PNG carries its settings.
    """
    import torch

    from paintback import images, methods
    from paintback.cli import fields
    from paintback.cli.sheet import sheet
    from paintback.images.resizing import resize_unit
    from paintback.tasks.superres import choose_method, superres

    chosen = choose_method(method, **fields.parse(type(methods.get(method)), pairs))
    names = numbered(out, samples)
    page = out.with_name(f"{out.stem}-sheet.png")
    check_results([*names, page] if samples > 1 else names, [photo], overwrite=overwrite)
    picture = images.read_picture(photo)
    images.check_writable(out, picture)
    job = Job(photo, None, model, method, steps=steps, prompt=prompt, device=device, dtype=dtype, threads=threads)
    inpainter, job = open_inpainter(job)
    made = []
    with working(samples, quiet=quiet) as progress:
        # one after another, each with a generator of its own seed, so that any of them can be made alone
        for number in range(samples):
            progress.part(method if samples == 1 else f"{method}, sample {number + 1} of {samples}")
            made.append(
                superres(
                    picture,
                    scale,
                    model=inpainter.model,
                    method=chosen,
                    num_inference_steps=steps,
                    generator=torch.Generator().manual_seed(seed + number),
                    prompt=prompt,
                    sigma=sigma,
                    kernel=kernel,  # type: ignore[arg-type]
                    output_type="picture",
                    callback=lambda *_: progress.step(),
                    progress_bar=False,
                )
            )
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    for number, (path, output) in enumerate(zip(names, made, strict=True)):
        own = replace(job, seed=seed + number, steps=output.settings["num_inference_steps"])
        settings.append(
            {
                "command": "superres",
                **{name: getattr(own, name) for name in SETTINGS},
                **{name: output.settings[name] for name in ("fields", "scale", "kernel", "sigma", "project")},
            }
        )
        images.write_picture(output.images[0], path, settings=settings[-1])
        rows.append(
            {
                "path": str(path),
                "seed": own.seed,
                "evaluations": output.evaluations,
                "vjps": output.vjps,
                "residual": output.residuals[0],
                "seconds": round(output.seconds, 3),
                "peak_memory_bytes": output.peak_memory_bytes,
            }
        )
    data: dict[str, Any] = {"outputs": rows, "sheet": None, "settings": settings[0]}
    lines = [
        f"{row['path']}  seed {row['seed']}  {row['evaluations']:g} evaluations  residual {row['residual']:.4f}  "
        f"{row['seconds']:.1f} s"
        for row in rows
    ]
    if samples > 1:
        larger = resize_unit(picture.to_unit(), made[0].images[0].shape, "bicubic").clip(-1, 1) * 0.5 + 0.5
        pages = [images.read_picture(larger), *(output.images[0].without_alpha() for output in made)]
        images.write_picture(sheet(pages), page)
        data["sheet"] = str(page)
        lines.append(str(page))
    emit(form, data, "\n".join(lines))
