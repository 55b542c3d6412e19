"""`paintback audio`: a sound with missing seconds in, the sound with them painted out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paintback.cli.options import Command, request_options, said
from paintback.cli.output import Format, emit, format_option, quiet_option, working
from paintback.cli.results import check_results, numbered, overwrite_option
from paintback.painting.request import AudioRequest

__all__ = ["audio"]

HOLE = AudioRequest.model_fields["hole"].description
NOT_WISHES = frozenset({"sound", "hole", "generator"})  # given beside the others


@click.command(cls=Command)
@click.argument("sound", type=click.Path())
@click.option("--hole", multiple=True, required=True, metavar="START:END", help=f"{HOLE} May be repeated.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The WAV file to write.")
@request_options(AudioRequest)
@overwrite_option
@format_option
@quiet_option
def audio(
    sound: str, hole: tuple[str, ...], out: Path, overwrite: bool, form: Format, quiet: bool, **values: Any
) -> None:
    """Paint back missing seconds of SOUND, a WAV file.

    All other samples stay as they are, to the bit. Stable Audio and ACE-Step are the models that there are.
    """
    import torch

    from paintback import methods
    from paintback.batch.job import completed, digest, load
    from paintback.cli import fields
    from paintback.images.sounds import check_sound_path, read_sound, write_sound
    from paintback.randomness import seed_from_system
    from paintback.tasks.audio import holes_of, inpaint_audio

    request = said(AudioRequest, values, sound=sound, hole=",".join(hole))
    if request.model is None:
        raise ValueError("No model is named; give --model, the folder or Hub id of Stable Audio or ACE-Step.")
    pairs = values["fields"]
    if pairs and request.method is None:
        raise ValueError("--set goes with --method; name one.")
    if request.method is not None:
        request = request.with_(fields=fields.parse(type(methods.get(request.method)), pairs))
    samples, seed = request.samples, seed_from_system() if request.seed is None else request.seed
    names = numbered(out, samples)
    for path in names:
        check_sound_path(path)
    check_results(names, [sound], overwrite=overwrite)
    heard = read_sound(sound)
    holes_of(str(request.hole), len(heard.samples), heard.rate)
    inpainter = load(request)
    request = completed(request, inpainter, {"sound": digest(Path(sound))})
    wishes = {name: value for name, value in request.to_python().items() if name not in NOT_WISHES}
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    with working(samples, quiet=quiet) as progress:
        for number, path in enumerate(names):
            progress.part("sound" if samples == 1 else f"sample {number + 1} of {samples}")
            output = inpaint_audio(
                heard,
                str(request.hole),
                **wishes,
                model=inpainter,
                generator=torch.Generator().manual_seed(seed + number),
                output_type="sound",
                callback=progress,
                progress_bar=False,
            )
            write_sound(output.audio, path)
            used = {name: output.settings[own] for name, own in USED.items()}
            own = request.with_(seed=seed + number, samples=1, **used)
            settings.append({"command": "audio", **own.to_settings()})
            rows.append(
                {
                    "path": str(path),
                    "seed": own.seed,
                    "sampling_rate": output.sampling_rate,
                    "windows": output.windows,
                    "evaluations": output.evaluations,
                    "vjps": output.vjps,
                    "seconds": round(output.seconds, 3),
                    "peak_memory_bytes": output.peak_memory_bytes,
                }
            )
    lines = [
        f"{row['path']}  seed {row['seed']}  {row['evaluations']:g} evaluations  {row['seconds']:.1f} s" for row in rows
    ]
    emit(form, {"outputs": rows, "settings": settings[0]}, "\n".join(lines))


USED = {"method": "method", "fields": "fields", "steps": "num_inference_steps"}
