"""`paintback superres`: a small picture in, a larger one out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from paintback.cli.options import Command, request_options, said
from paintback.cli.output import Format, emit, format_option, quiet_option, working
from paintback.cli.results import check_results, numbered, overwrite_option
from paintback.painting.request import SuperresRequest

__all__ = ["superres"]

NOT_WISHES = frozenset({"image", "generator", "num_images_per_prompt"})  # given sample by sample


@click.command(cls=Command)
@click.argument("photo", type=click.Path())
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The picture to write.")
@request_options(SuperresRequest)
@overwrite_option
@format_option
@quiet_option
def superres(photo: str, out: Path, overwrite: bool, form: Format, quiet: bool, **values: Any) -> None:
    """Enlarge PHOTO.

    The result, made smaller again, is PHOTO. A PNG carries its settings.
    """
    import torch

    from paintback import images, methods
    from paintback.batch.job import open_inpainter, storable
    from paintback.cli import fields
    from paintback.cli.sheet import sheet
    from paintback.images.resizing import resize_unit
    from paintback.randomness import seed_from_system
    from paintback.tasks.superres import choose_method, superres

    request = said(SuperresRequest, values, photo=photo)
    method = request.method
    chosen = choose_method(method, **fields.parse(type(methods.get(method)), values["fields"]))
    request = request.with_(fields=asdict(chosen))
    samples, seed = request.samples, seed_from_system() if request.seed is None else request.seed
    names = numbered(out, samples)
    page = out.with_name(f"{out.stem}-sheet.png")
    check_results([*names, page] if samples > 1 else names, [photo], overwrite=overwrite)
    picture = images.read_picture(photo)
    images.check_writable(out, storable(picture, out))
    inpainter, request = open_inpainter(request)
    wishes = {name: value for name, value in request.to_python().items() if name not in NOT_WISHES}
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    pictures: list[images.Picture] = []
    with working(samples, quiet=quiet) as progress:
        # one after another, each with a generator of its own seed, so that any of them can be made alone, and written
        # when it is done, so that what ends the run takes none of those before
        for number, path in enumerate(names):
            progress.part(method if samples == 1 else f"{method}, sample {number + 1} of {samples}")
            output = superres(
                picture,
                **wishes,
                model=inpainter.model,
                generator=torch.Generator().manual_seed(seed + number),
                output_type="picture",
                callback=progress,
                progress_bar=False,
            )
            steps, used = output.settings["num_inference_steps"], output.settings["fields"]
            own = request.with_(seed=seed + number, samples=1, steps=steps, fields=used)
            settings.append({"command": "superres", **own.to_settings()})
            pictures.append(output.images[0])
            images.write_picture(storable(pictures[-1], path), path, settings=settings[-1])
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
        larger = resize_unit(picture.to_unit(), pictures[0].shape, "bicubic").clip(-1, 1) * 0.5 + 0.5
        pages = [images.read_picture(larger), *(one.without_alpha() for one in pictures)]
        images.write_picture(sheet(pages), page)
        data["sheet"] = str(page)
        lines.append(str(page))
    emit(form, data, "\n".join(lines))
