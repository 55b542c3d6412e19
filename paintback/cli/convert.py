"""`paintback convert`: a research checkpoint to safetensors."""

from __future__ import annotations

from pathlib import Path

import click

from paintback.cli.output import Format, emit, format_option

__all__ = ["convert"]

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--family", type=click.Choice(["adm", "edm", "edm2"]), help="What IN must be.  [default: what it is]")
@click.option("--dtype", type=click.Choice(list(DTYPES)), help="Of the weights.  [default: as they are]")
@click.option(
    "--config",
    "config_path",
    metavar="JSON",
    type=click.Path(path_type=Path),
    help="What an unpublished ADM's weights do not tell.  [default: IN with .json in place of .pt]",
)
@format_option
def convert(
    source: Path, out: Path, family: str | None, dtype: str | None, config_path: Path | None, form: Format
) -> None:
    """Convert the checkpoint IN (.pt of ADM, .pkl of EDM or EDM2) to OUT.safetensors.

    Nothing in IN is run. OUT carries its configuration; `paintback inpaint --model OUT.safetensors` uses it. A latent
    EDM2 model also needs the folder of Stable Diffusion's VAE, as `vae` beside it.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"{out} must end in .safetensors.")
    if source.resolve() == out.resolve():
        raise ValueError("IN and OUT are the same file; give OUT another name.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {out.parent} to write {out.name} into.")

    import torch

    from paintback.models.checkpoints import FAMILIES, read_checkpoint, read_json, write_checkpoint

    wanted = next((one for one in FAMILIES if one == family), None)
    config = None if config_path is None else read_json(config_path)
    found = read_checkpoint(source, family=wanted, config=config)
    write_checkpoint(found, out, dtype=None if dtype is None else getattr(torch, DTYPES[dtype]))
    parameters = sum(value.numel() for value in found.state.values())
    size = found.config.get("size", found.config.get("img_resolution"))
    emit(
        form,
        {"weights": str(out), "family": found.family, "parameters": parameters, "config": found.config},
        f"{out}  {found.family}, {size} x {size}, {parameters / 1e6:.3g} million weights",
    )
