"""`paintback layers`: a picture in, a folder with two layers and their mask out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from paintback.cli.job import DTYPES, Job, open_inpainter
from paintback.cli.output import Format, emit, format_option, quiet_option, working
from paintback.cli.results import check_results, overwrite_option

__all__ = ["layers"]

OWN = ("inner_steps", "samples", "spread", "grain", "floor", "doubt", "tempering", "smoothing", "ema", "edge")
SETTINGS = ("photo", "model", "steps", "seed", "device", "dtype", "threads", "sha256", "versions")


@click.command()
@click.argument("photo")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="The folder to write to."
)
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a path.")
@click.option("--prompt-1", help="What layer 1 shows, for models that read text.")
@click.option("--prompt-2", help="What layer 2 shows.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help=f"May be repeated: {', '.join(OWN)}.")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Sampling steps.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the result.")
@click.option("--device", help="cpu, cuda, mps.  [default: cuda where there is one]")
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the network.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@overwrite_option
@format_option
@quiet_option
def layers(
    photo: str,
    out: Path,
    model: str,
    prompt_1: str | None,
    prompt_2: str | None,
    pairs: tuple[str, ...],
    steps: int,
    seed: int,
    device: str | None,
    dtype: str | None,
    threads: int | None,
    overwrite: bool,
    form: Format,
    quiet: bool,
) -> None:
    """Take PHOTO apart: PHOTO = mask * layer 1 + (1 - mask) * layer 2.

    Writes layer-1.png, layer-2.png and mask.png (white = layer 1) to FOLDER, which is made where there is none. The
    mask is inferred; without prompts the layers are those that the model finds easiest to tell apart.
    """
    import torch

    from paintback import images
    from paintback.cli import fields
    from paintback.images.encoding import check_place
    from paintback.tasks.layer_inference import LayerInference
    from paintback.tasks.layers import layers

    values = fields.parse(LayerInference, pairs)
    if foreign := [name for name in values if name not in OWN]:
        raise ValueError(f"layers has no field {foreign[0]!r} to set; its fields: {', '.join(OWN)}.")
    paths = {name: out / f"{name}.png" for name in ("layer-1", "layer-2", "mask")}
    if out.exists():
        check_results(list(paths.values()), [photo], overwrite=overwrite)
    else:
        check_place(out)
    picture = images.read_picture(photo)
    inpainter, job = open_inpainter(Job(photo, None, model, device=device, dtype=dtype, threads=threads))
    with working(1, quiet=quiet) as progress:
        progress.part("layers")
        made = layers(
            picture,
            (prompt_1, prompt_2),
            model=inpainter.model,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            output_type="picture",
            callback=lambda *_: progress.step(),
            progress_bar=False,
            **values,
        )
    own = replace(job, steps=steps, seed=seed)
    settings: dict[str, Any] = {
        "command": "layers",
        **{name: getattr(own, name) for name in SETTINGS},
        **{name: made.settings[name] for name in ("prompts", "fields")},
    }
    out.mkdir(exist_ok=True)
    pages = (*made.layers, images.read_picture(made.mask).to_uint8())
    for (name, path), page in zip(paths.items(), pages, strict=True):
        images.write_picture(page, path, settings={**settings, "page": name})
    data = {
        **{name: str(path) for name, path in paths.items()},
        "seed": seed,
        "evaluations": made.evaluations,
        "residual": made.residual,
        "sampled_residual": made.sampled_residual,
        "seconds": round(made.seconds, 3),
        "peak_memory_bytes": made.peak_memory_bytes,
        "settings": settings,
    }
    told = f"seed {seed}  {made.evaluations:g} evaluations a layer  residual {made.residual:.4f}  {made.seconds:.1f} s"
    emit(form, data, "\n".join([*map(str, paths.values()), told]))
