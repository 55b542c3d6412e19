"""`paintback inpaint` on a clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintback.cli.job import Job, is_mask_word, open_inpainter
from paintback.cli.output import Format, Silent, emit, remark, working
from paintback.cli.results import check_results, numbered

if TYPE_CHECKING:
    from paintback.images.clips import Clip, Masks

__all__ = ["run"]


def run(job: Job, out: Path, samples: int, *, form: Format, quiet: bool, overwrite: bool = False) -> None:
    """Paints a clip and writes it, once for each sample.

    Args:
        job: what is to be painted.
        out: the file to write; more samples are OUT-1, OUT-2, ...
        samples: how many; seeds go up from the job's.
        form: of what is said on stdout.
        quiet: no progress bar.
        overwrite: the clip or the mask may be written over.

    Raises:
        ValueError: for files or settings that do not fit.
    """
    from paintback.images.clips import check_clip_path, write_clip

    names = numbered(out, samples)
    check_results(names, [job.photo, None if is_mask_word(job.mask) else job.mask], overwrite=overwrite)
    clip, mask = prepare(job)
    check_clip_path(out, clip.shape)
    inpainter, job = open_inpainter(job)
    rows: list[dict[str, Any]] = []
    with working(samples, quiet=quiet) as progress:
        for number, path in enumerate(names):
            own = replace(job, seed=job.seed + number)
            progress.part(job.method if samples == 1 else f"{job.method}, sample {number + 1} of {samples}")
            output = _paint(inpainter, own, clip, mask, progress)
            has_sound = write_clip(output.frames, path, settings=own.to_settings())
            rows.append(
                {
                    "path": str(path),
                    "seed": own.seed,
                    "frames": clip.shape[0],
                    "windows": len(output.windows),
                    "evaluations": output.evaluations,
                    "vjps": output.vjps,
                    "seconds": round(output.seconds, 3),
                    "peak_memory_bytes": output.peak_memory_bytes,
                    "lossless": path.suffix.lower() == ".mkv",
                    "sound": has_sound,
                }
            )
    if not rows[0]["lossless"]:
        remark(f"{out.suffix} is lossy all over, also outside the mask; an .mkv keeps what was not repainted.")
    if clip.sound is not None and not rows[0]["sound"]:
        remark(f"{out.suffix} cannot hold the sound of {job.photo} as it is; it was left out.")
    lines = [
        f"{row['path']}  seed {row['seed']}  {row['frames']} frames  {row['evaluations']:g} evaluations  "
        f"{row['seconds']:.1f} s"
        for row in rows
    ]
    emit(form, {"outputs": rows, "settings": replace(job, seed=rows[0]["seed"]).to_settings()}, "\n".join(lines))


def prepare(job: Job) -> tuple[Clip, Masks]:
    """Reads the clip and its mask, extends both, grows the mask.

    Raises:
        ValueError: for files that cannot be used, or a mask that leaves nothing to do.
    """
    import numpy as np

    from paintback import images
    from paintback.images.clips import extend_clip, read_clip, read_clip_mask

    if is_mask_word(job.mask):
        raise ValueError(f"A clip takes no {job.mask!r} for its mask; give a mask picture or a clip as the mask.")
    clip = read_clip(job.photo)
    mask = np.zeros(clip.shape, bool) if job.mask is None else read_clip_mask(job.mask, clip.shape)
    if any(job.outpaint):
        left, top, _, _ = job.outpaint
        _, height, width = clip.shape
        clip, wide = extend_clip(clip, *job.outpaint)
        wide[:, top : top + height, left : left + width] |= mask
        mask = wide
    if job.grow:
        mask = np.stack([images.grow(one, job.grow) for one in mask])
    images.check_mask(mask)
    return clip, mask


def _paint(inpainter: Any, job: Job, clip: Clip, mask: Masks, progress: Silent) -> Any:
    import torch

    from paintback import methods
    from paintback.tasks.video import inpaint_video

    return inpaint_video(
        clip,
        mask,
        model=inpainter,
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        method=methods.get(job.method, **job.fields),
        num_inference_steps=job.steps,
        guidance_scale=job.guidance,
        generator=torch.Generator().manual_seed(job.seed),
        mask_blur=job.blur,
        height=job.height,
        width=job.width,
        output_type="clip",
        callback=lambda *_: progress.step(),
        progress_bar=False,
    )
