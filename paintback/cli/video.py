"""`paintback inpaint` on a clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paintback.batch.job import is_mask_word, of_seed, open_inpainter, settled
from paintback.cli.output import emit, remark, working
from paintback.cli.results import check_results, numbered
from paintback.painting.request import Request

if TYPE_CHECKING:
    from paintback.cli.inpaint import Order

__all__ = ["run"]


def run(request: Request, order: Order) -> None:
    """Paints a clip and writes it, once for each sample.

    Args:
        request: what is to be painted; more samples have seeds that go up, and are OUT-1, OUT-2, ...
        order: what goes with it.

    Raises:
        ValueError: for files or settings that do not fit.
    """
    import torch

    from paintback.images.clips import check_clip_path, read_clip, write_clip
    from paintback.tasks.video import inpaint_video

    if is_mask_word(request.mask):
        raise ValueError(
            f"A clip takes no {request.mask!r} for its mask, as it carries no transparency and is not searched; give a "
            "mask picture or a clip as the mask."
        )
    if order.dry_run or order.streams.to_stdout or order.streams.piped:
        raise ValueError("A clip is planned as it is painted, and written to a file: leave out --dry-run and -.")
    out, samples = order.out, request.samples
    names = numbered(out, samples)
    check_results(names, [request.photo, request.mask], overwrite=order.overwrite)
    clip = read_clip(str(request.photo))
    frames, height, width = clip.shape
    left, top, right, bottom = request.outpaint
    check_clip_path(out, (frames, height + top + bottom, width + left + right))
    inpainter, request = open_inpainter(request)
    request = settled(request, inpainter)
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    with working(samples, quiet=order.quiet) as progress:
        for number, path in enumerate(names):
            own = of_seed(request, int(request.seed or 0) + number)
            progress.part(f"{own.method}" if samples == 1 else f"{own.method}, sample {number + 1} of {samples}")
            output = inpaint_video(
                clip,
                request.mask,
                model=inpainter,
                request=own,
                generator=torch.Generator().manual_seed(int(own.seed or 0)),
                output_type="clip",
                callback=progress,
                progress_bar=False,
            )
            own = own.with_(window=output.settings["window"], overlap=output.settings["overlap"])
            settings.append(own.to_settings())
            has_sound = write_clip(output.frames, path, settings=settings[-1])
            rows.append(
                {
                    "path": str(path),
                    "seed": own.seed,
                    "frames": frames,
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
        remark(f"{out.suffix} cannot hold the sound of {request.photo} as it is; it was left out.")
    lines = [
        f"{row['path']}  seed {row['seed']}  {row['frames']} frames  {row['evaluations']:g} evaluations  "
        f"{row['seconds']:.1f} s"
        for row in rows
    ]
    emit(order.form, {"outputs": rows, "settings": settings[0]}, "\n".join(lines))
