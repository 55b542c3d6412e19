"""`paintback layers`: a picture in, a folder with two layers and their mask out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paintback.cli.options import Command, request_options, said
from paintback.cli.output import Format, emit, format_option, quiet_option, working
from paintback.cli.results import check_results, overwrite_option
from paintback.painting.request import LayersRequest

__all__ = ["layers"]

NOT_WISHES = frozenset({"image", "generator", "prompt_1", "prompt_2", "fields"})  # given by themselves


@click.command(cls=Command)
@click.argument("photo", type=click.Path())
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="The folder to write to."
)
@request_options(LayersRequest)
@overwrite_option
@format_option
@quiet_option
def layers(photo: str, out: Path, overwrite: bool, form: Format, quiet: bool, **values: Any) -> None:
    """Take PHOTO apart: PHOTO = mask * layer 1 + (1 - mask) * layer 2.

    Writes layer-1.png, layer-2.png and mask.png (white = layer 1) to FOLDER, which is made where there is none. The
    mask is inferred; without prompts the layers are those that the model finds easiest to tell apart.
    """
    import torch

    from paintback import images
    from paintback.batch.job import open_inpainter, storable
    from paintback.cli import fields
    from paintback.images.encoding import check_place
    from paintback.randomness import seed_from_system
    from paintback.tasks.layer_inference import LayerInference
    from paintback.tasks.layers import FIELDS, layers

    request = said(LayersRequest, values, photo=photo)
    own = fields.parse(LayerInference, values["fields"])
    if foreign := [name for name in own if name not in FIELDS]:
        raise ValueError(f"layers has no field {foreign[0]!r} to set; its fields: {', '.join(FIELDS)}.")
    paths = {name: out / f"{name}.png" for name in ("layer-1", "layer-2", "mask")}
    if out.exists():
        check_results(list(paths.values()), [photo], overwrite=overwrite)
    else:
        check_place(out)
    picture = images.read_picture(photo)
    request = request.with_(seed=seed_from_system() if request.seed is None else request.seed)
    inpainter, request = open_inpainter(request)
    wishes = {name: value for name, value in request.to_python().items() if name not in NOT_WISHES}
    with working(1, quiet=quiet) as progress:
        progress.part("layers")
        made = layers(
            picture,
            (request.prompt_1, request.prompt_2),
            model=inpainter.model,
            generator=torch.Generator().manual_seed(int(request.seed or 0)),
            **wishes,
            output_type="picture",
            callback=progress,
            progress_bar=False,
            **own,
        )
    steps, used = made.settings["num_inference_steps"], made.settings["fields"]
    settings = {"command": "layers", **request.with_(steps=steps, fields=used).to_settings()}
    out.mkdir(exist_ok=True)
    pages = (*made.layers, images.read_picture(made.mask).to_uint8())
    for (name, path), page in zip(paths.items(), pages, strict=True):
        images.write_picture(storable(page, path), path, settings={**settings, "page": name})
    data = {
        **{name: str(path) for name, path in paths.items()},
        "seed": request.seed,
        "evaluations": made.evaluations,
        "residual": made.residual,
        "sampled_residual": made.sampled_residual,
        "seconds": round(made.seconds, 3),
        "peak_memory_bytes": made.peak_memory_bytes,
        "settings": settings,
    }
    told = (
        f"seed {request.seed}  {made.evaluations:g} evaluations a layer  residual {made.residual:.4f}  "
        f"{made.seconds:.1f} s"
    )
    emit(form, data, "\n".join([*map(str, paths.values()), told]))
