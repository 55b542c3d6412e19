"""One painting from the command line, as plain values that a PNG can carry and that make it again bit for bit.

Samples are painted one after another, each with a generator of its own seed, so that any one of them can be remade
alone and gives the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintback import __version__

if TYPE_CHECKING:
    from paintback.cli.output import Silent
    from paintback.images import Picture
    from paintback.images.masks import Mask
    from paintback.inpainter import Inpainter, Output

__all__ = ["ALPHA", "DTYPES", "Job", "digest", "find_file", "hidden", "open_inpainter", "paint", "prepare"]

ALPHA = "alpha"  # in place of a mask: the picture's transparency
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Job:
    """What is to be painted, and how.

    Attributes:
        photo: path of the picture, as the user gave it.
        mask: path of the mask, "alpha", or None where only `outpaint` says what is missing.
        model: name or path.
        method: name.
        fields: of the method, all of them.
        steps: grid intervals, or None for the inpainter's own.
        seed: of this sample.
        prompt: text, or None.
        negative_prompt: likewise.
        guidance: scale of classifier-free guidance, or None for the model's own.
        grow: pixels to grow the mask by.
        blur: pixels of blended seam.
        outpaint: pixels to add left, top, right and bottom.
        device: torch device.
        dtype: of the network, or None for the model's own.
        threads: CPU threads of torch; bits depend on it.
        sha256: of the files: photo, mask and weights, where there is one.
        versions: of paintback and torch.
    """

    photo: str
    mask: str | None
    model: str = "photo"
    method: str = "ding"
    fields: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    seed: int = 0
    prompt: str | None = None
    negative_prompt: str | None = None
    guidance: float | None = None
    grow: float = 0
    blur: float = 0
    outpaint: tuple[int, int, int, int] = (0, 0, 0, 0)
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def to_settings(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {**asdict(self), "outpaint": list(self.outpaint)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Job:
        """Reads what `to_settings` wrote; entries that this version does not know are left alone.

        Raises:
            ValueError: if something is missing.
        """
        known = {key: value for key, value in settings.items() if key in cls.__dataclass_fields__}
        try:
            return cls(**{**known, "outpaint": tuple(known["outpaint"])})
        except (KeyError, TypeError):
            raise ValueError("The PNG's settings are incomplete; give one that `paintback inpaint` wrote.") from None


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file.read())
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def find_file(recorded: str, beside: Path) -> Path:
    """A file by its recorded path: as it is, else seen from the folder of the PNG, else next to the PNG.

    Raises:
        ValueError: if it is at none of these places.
    """
    for path in (Path(recorded), beside.parent / recorded, beside.parent / Path(recorded).name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{beside} was made from {recorded!r}, which is not there; give the file's new path.")


def prepare(job: Job) -> tuple[Picture, Mask]:
    """Reads the picture and the mask, extends both, grows the mask.

    Raises:
        ValueError: for files that cannot be used, or a mask that leaves nothing to do.
    """
    import numpy as np

    from paintback import images

    picture = images.read_picture(job.photo)
    if job.mask == ALPHA:
        mask = images.mask_from_alpha(picture)
    elif job.mask is not None:
        mask = images.read_mask(job.mask, picture.shape)
    else:
        mask = np.zeros(picture.shape, bool)
    if any(job.outpaint):
        left, top, _, _ = job.outpaint
        height, width = picture.shape
        picture, wide = images.extend_picture(picture, *job.outpaint)
        wide[top : top + height, left : left + width] |= mask
        mask = wide
    if job.grow:
        mask = images.grow(mask, job.grow)
    images.check_mask(mask)
    return picture, mask


def hidden(picture: Picture, mask: Mask) -> Picture:
    """The picture with a mid-grey hole, for a contact sheet."""
    import numpy as np

    return picture.with_pixels(np.zeros((*picture.shape, 3), np.float32), mask)


def open_inpainter(job: Job) -> tuple[Inpainter, Job]:
    """Loads the model, and completes the job with what was left open: device, threads, versions, hashes.

    Raises:
        ValueError: for an unknown model or device.
    """
    import torch

    from paintback.inpainter import Inpainter
    from paintback.models import find

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    try:
        device = None if job.device is None else torch.device(job.device)
    except RuntimeError:
        raise ValueError(f"There is no device {job.device!r}; give cpu, cuda, cuda:1 or mps.") from None
    dtype = None if job.dtype is None else getattr(torch, job.dtype)
    inpainter = Inpainter.from_pretrained(job.model, device=device, torch_dtype=dtype)
    card = find(job.model)
    weights = card.weights if card is not None else Path(job.model)
    files = {"photo": job.photo, "mask": job.mask if job.mask != ALPHA else None, "weights": weights}
    hashes = {name: digest(Path(path)) for name, path in files.items() if path is not None and Path(path).is_file()}
    return inpainter, replace(
        job,
        device=str(inpainter.model.device),
        threads=torch.get_num_threads(),
        sha256=hashes,
        versions={"paintback": __version__, "torch": torch.__version__},
    )


def paint(
    inpainter: Inpainter, job: Job, picture: Picture, mask: Mask, seeds: Sequence[int], progress: Silent
) -> list[tuple[Job, Output]]:
    """Paints one sample for each seed.

    Returns:
        For each sample the job that makes it alone, and the inpainter's output with one `Picture`.
    """
    import torch

    from paintback import methods
    from paintback.images import to_numpy

    method = methods.get(job.method, **job.fields)
    inpainter.set_progress_bar_config(disable=True)
    done = []
    for number, seed in enumerate(seeds, 1):
        progress.part(job.method if len(seeds) == 1 else f"{job.method}, sample {number} of {len(seeds)}")
        output = inpainter(
            image=to_numpy(picture, as_given=True),
            mask_image=mask,
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            method=method,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            generator=[torch.Generator().manual_seed(seed)],
            mask_blur=job.blur,
            output_type="picture",
            callback_on_step_end=lambda *_: progress.step(),
        )
        output.images = [replace(image, icc=picture.icc) for image in output.images]  # arrays carry no profile
        steps = output.settings.get("num_inference_steps", job.steps)
        done.append((replace(job, seed=seed, steps=steps), output))
    return done
