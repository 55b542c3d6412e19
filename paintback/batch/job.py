"""The job: one painting as plain values, the same on the command line, on the page, in a batch and on a cluster.

A PNG carries its job, which makes it again bit for bit. Samples are painted one after another, each with a generator of
its own seed, so that any one of them can be remade alone and gives the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from paintback import __version__
from paintback.batch import files

if TYPE_CHECKING:
    from paintback.images import Picture
    from paintback.images.masks import Mask
    from paintback.tasks.inpaint import Inpainter, Output

__all__ = [
    "ALPHA",
    "DTYPES",
    "LARGEST_SEED",
    "Job",
    "Watcher",
    "digest",
    "hidden",
    "is_mask_word",
    "open_inpainter",
    "paint",
    "prepare",
    "run_job",
]

DTYPES = ("float32", "bfloat16", "float16")
LARGEST_SEED = 2**63 - 1

ALPHA = "alpha"  # in place of a mask: the picture's transparency
_TEXT: dict[str, Any] = {"type": "string"}
_NAME: dict[str, Any] = {"type": "string", "minLength": 1}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 1}
_LENGTH: dict[str, Any] = {"type": "number", "minimum": 0}


def _entry(description: str, schema: dict[str, Any], *, null: bool = False, **default: Any) -> Any:
    """A field with its JSON schema."""
    kind = [schema["type"], "null"] if null else schema["type"]
    return field(**default, metadata={"schema": {**schema, "type": kind, "description": description}})


@dataclass(frozen=True)
class Job:
    """What is to be painted, and how.

    Attributes:
        photo: path or URL of the picture, as the user gave it.
        mask: path or URL of the mask, "alpha", or None where only `outpaint` says what is missing.
        model: name or path.
        method: name.
        fields: of the method.
        steps: grid intervals, or None for the inpainter's own.
        seed: of this sample.
        prompt: text, or None.
        negative_prompt: likewise.
        guidance: scale of classifier-free guidance, or None for the model's own.
        grow: pixels to grow the mask by; below 0 it shrinks.
        blur: pixels of blended seam.
        outpaint: pixels to add left, top, right and bottom.
        height: to paint at, for models with a VAE; None for the model's own choice.
        width: likewise.
        device: torch device.
        dtype: of the network, or None for the model's own.
        threads: CPU threads of torch; bits depend on it.
        sha256: of the files: photo, mask and weights, where there is one.
        versions: of paintback and torch.
    """

    photo: str = _entry("Path or URL of the picture.", _NAME)
    mask: str | None = _entry('Path or URL of the mask (white = repaint), or "alpha".', _NAME, null=True)
    model: str = _entry("A shipped model's name, a path or a Hub id.", _NAME, default="photo")
    method: str = _entry("A method's name, or trained.", _NAME, default="ding")
    fields: dict[str, Any] = _entry("The method's fields.", {"type": "object"}, default_factory=dict)
    steps: int | None = _entry("Grid intervals.", _COUNT, null=True, default=None)
    seed: int = _entry("Of this sample.", {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED}, default=0)
    prompt: str | None = _entry("What to paint, for models that read text.", _TEXT, null=True, default=None)
    negative_prompt: str | None = _entry("What not to paint.", _TEXT, null=True, default=None)
    guidance: float | None = _entry("Scale of classifier-free guidance.", {"type": "number"}, null=True, default=None)
    grow: float = _entry("Pixels to grow the mask by.", {"type": "number"}, default=0)
    blur: float = _entry("Pixels of blended seam.", _LENGTH, default=0)
    outpaint: tuple[int, int, int, int] = _entry(
        "Pixels to add left, top, right and bottom.",
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 4, "maxItems": 4},
        default=(0, 0, 0, 0),
    )
    height: int | None = _entry("To paint at, for models with a VAE.", _COUNT, null=True, default=None)
    width: int | None = _entry("Likewise.", _COUNT, null=True, default=None)
    device: str | None = _entry("Torch device.", _NAME, null=True, default=None)
    dtype: str | None = _entry("Of the network.", {"type": "string", "enum": list(DTYPES)}, null=True, default=None)
    threads: int | None = _entry("CPU threads.", _COUNT, null=True, default=None)
    sha256: dict[str, str] = _entry("Of the files; filled in by the run.", {"type": "object"}, default_factory=dict)
    versions: dict[str, str] = _entry(
        "Of the packages; filled in by the run.", {"type": "object"}, default_factory=dict
    )

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

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """The JSON schema (draft 2020-12) of a job file; defaults and ranges included."""
        from paintback import methods
        from paintback.models.catalogue import TRAINED

        entries: dict[str, Any] = {}
        for entry in fields(cls):
            shown = dict(entry.metadata["schema"])
            if entry.name == "method":
                shown["enum"] = [*methods.names(), TRAINED]
            if "enum" in shown and "null" in shown["type"]:
                shown["enum"] = [*shown["enum"], None]
            if entry.name not in ("photo", "mask", "method", "fields", "sha256", "versions"):
                shown["default"] = json.loads(json.dumps(entry.default))
            entries[entry.name] = shown
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Paintback job",
            "type": "object",
            "properties": entries,
            "required": ["photo"],
            "additionalProperties": False,
        }

    @classmethod
    def from_json(cls, data: str | bytes | dict[str, Any]) -> Job:
        """Reads a job file, or its parsed contents. Without a method, the model's recommended sampler is filled in.

        Raises:
            ValueError: for what does not fit the schema, or for a method or field that there is not, in one sentence.
        """
        if not isinstance(data, dict):
            try:
                data = json.loads(data)
            except ValueError as error:
                raise ValueError(f'The job is not JSON ({error}); give an object such as {{"photo": ...}}.') from None
        if not isinstance(data, dict):
            raise ValueError(f"The job is a JSON {type(data).__name__}; give an object with photo and mask.")
        unknown = [key for key in data if key not in cls.__dataclass_fields__]
        if unknown:
            raise ValueError(f"A job has no {unknown[0]!r}; its entries: {', '.join(cls.__dataclass_fields__)}.")
        if "photo" not in data:
            raise ValueError("The job names no photo; give its path.")
        for entry in fields(cls):
            if entry.name in data:
                _check(entry.name, data[entry.name], entry.metadata["schema"])
        values = {"mask": None, **data, "outpaint": tuple(data.get("outpaint", (0, 0, 0, 0)))}
        if values["mask"] is None and not any(values["outpaint"]):
            raise ValueError("The job names neither a mask nor outpaint; give one of them.")
        if "method" not in data:
            from paintback.models.catalogue import recommended

            own = recommended(values.get("model", "photo"))
            values["method"] = own.method
            values["fields"] = {**own.fields, **data.get("fields", {})}
            if data.get("steps") is None and own.method != "trained":
                values["steps"] = own.num_inference_steps
        job = cls(**values)
        job.check_method()
        return job

    def check_method(self) -> None:
        """Looks the method and its fields up.

        Raises:
            ValueError: if there is no such method or field, or a field is out of its range.
        """
        from paintback import methods
        from paintback.models.catalogue import TRAINED

        if self.method == TRAINED:
            if self.fields:
                raise ValueError(f"The method {TRAINED!r} has no fields; leave them out.")
            return
        try:
            methods.get(self.method, **self.fields)
        except TypeError as error:
            raise ValueError(f"{self.method}: a field has the wrong type ({error}).") from None


_KINDS: dict[str, tuple[str, Any]] = {
    "string": ("a text", lambda value: isinstance(value, str)),
    "integer": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "number": (
        "a number",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
    ),
    "array": ("a list", lambda value: isinstance(value, list | tuple)),
    "object": ("an object", lambda value: isinstance(value, dict)),
    "null": ("nothing", lambda value: value is None),
}


def _check(name: str, value: Any, schema: dict[str, Any]) -> None:
    """Holds a value against the part of JSON schema that jobs use."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_KINDS[kind][1](value) for kind in kinds):
        raise ValueError(f"{name} must be {' or '.join(_KINDS[kind][0] for kind in kinds)}; got {value!r}.")
    if value is None:
        return
    if "enum" in schema and value not in schema["enum"]:
        raise ValueError(f"{name} must be one of {', '.join(schema['enum'])}; got {value!r}.")
    if "minimum" in schema and value < schema["minimum"]:
        raise ValueError(f"{name} must be at least {schema['minimum']}; got {value}.")
    if "maximum" in schema and value > schema["maximum"]:
        raise ValueError(f"{name} must be at most {schema['maximum']}; got {value}.")
    if "minLength" in schema and len(value) < schema["minLength"]:
        raise ValueError(f"{name} is empty; give a value or leave it out.")
    if "minItems" in schema:
        if len(value) != schema["minItems"]:
            raise ValueError(f"{name} takes {schema['minItems']} values; got {len(value)}.")
        for item in value:
            _check(name, item, schema["items"])


def is_mask_word(mask: object) -> bool:
    """Whether a mask is named by a word, "alpha" or "auto:...", and is looked for in the picture itself."""
    from paintback.images import formats  # not above: Pillow would make every command's help slow

    return formats.is_mask_word(mask)


class Watcher(Protocol):
    """Whoever is told how far a painting is."""

    def step(self) -> None:
        """One more step was done."""

    def part(self, text: str, /) -> None:
        """The next part of the work begins."""


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def prepare(job: Job) -> tuple[Picture, Mask]:
    """Reads the picture and the mask, extends both, grows the mask.

    Raises:
        ValueError: for files that cannot be used, or a mask that leaves nothing to do.
    """
    import numpy as np

    from paintback import images

    with files.here(job.photo) as photo:
        picture = images.read_picture(photo)
    if job.mask is not None and is_mask_word(job.mask):
        mask = images.read_mask(job.mask, picture=picture)
    elif job.mask is not None:
        with files.here(job.mask) as path:
            mask = images.read_mask(path, picture.shape)
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


def load(job: Job) -> Inpainter:
    """Loads a job's model on its device, with its number of threads.

    Raises:
        ValueError: for an unknown model or device.
    """
    import torch

    from paintback.tasks.inpaint import Inpainter

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    try:
        device = None if job.device is None else torch.device(job.device)
    except RuntimeError:
        raise ValueError(f"There is no device {job.device!r}; give cpu, cuda, cuda:1 or mps.") from None
    dtype = None if job.dtype is None else getattr(torch, job.dtype)
    return Inpainter.from_pretrained(job.model, device=device, torch_dtype=dtype)


def weights_digest(model: str) -> str | None:
    """SHA-256 of a model's weights, or None where they are not one file."""
    from paintback.models import find

    card = find(model)
    path = card.weights if card is not None else Path(model)
    return digest(path) if path.is_file() else None


def completed(job: Job, inpainter: Inpainter, sha256: dict[str, str | None]) -> Job:
    """The job with what was left open: device, threads, versions, and the hashes that are known."""
    import torch

    return replace(
        job,
        device=str(inpainter.model.device),
        threads=torch.get_num_threads(),
        sha256={name: value for name, value in sha256.items() if value is not None},
        versions={"paintback": __version__, "torch": torch.__version__},
    )


def open_inpainter(job: Job) -> tuple[Inpainter, Job]:
    """Loads the model, and completes the job with what was left open: device, threads, versions, hashes.

    Raises:
        ValueError: for an unknown model or device.
    """
    inpainter = load(job)
    given = {"photo": job.photo, "mask": None if is_mask_word(job.mask) else job.mask}
    hashes: dict[str, str | None] = {
        name: digest(Path(path)) for name, path in given.items() if path is not None and Path(path).is_file()
    }
    return inpainter, completed(job, inpainter, {**hashes, "weights": weights_digest(job.model)})


def chosen_method(job: Job) -> Any:
    """What `Inpainter` takes as the method: an object, or "trained".

    Raises:
        ValueError: if there is no such method or field.
    """
    from paintback import methods
    from paintback.models.catalogue import TRAINED

    return job.method if job.method == TRAINED else methods.get(job.method, **job.fields)


def paint(
    inpainter: Inpainter,
    job: Job,
    picture: Picture,
    mask: Mask,
    seeds: Sequence[int],
    progress: Watcher | None = None,
) -> list[tuple[Job, Output[list[Picture]]]]:
    """Paints one sample for each seed.

    Args:
        inpainter: with the job's model.
        job: what `open_inpainter` completed.
        picture: what `prepare` read.
        mask: likewise.
        seeds: of the samples.
        progress: told of every step.

    Returns:
        For each sample the job that makes it alone, and the inpainter's output with one `Picture`.
    """
    import torch

    method = chosen_method(job)
    inpainter.set_progress_bar_config(disable=True)
    done = []
    for number, seed in enumerate(seeds, 1):
        if progress is not None:
            progress.part(job.method if len(seeds) == 1 else f"{job.method}, sample {number} of {len(seeds)}")
        output = inpainter(
            image=picture,
            mask_image=mask,
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            method=method,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            generator=[torch.Generator().manual_seed(seed)],
            mask_blur=job.blur,
            height=job.height,
            width=job.width,
            output_type="picture",
            callback_on_step_end=None if progress is None else lambda *_: progress.step(),
        )
        steps = output.settings.get("num_inference_steps", job.steps)
        done.append((replace(job, seed=seed, steps=steps), output))
    return done


def run_job(inpainter: Inpainter, job: Job, progress: Watcher | None = None) -> tuple[Job, Output[list[Picture]]]:
    """Reads a job's files and paints its one sample.

    Args:
        inpainter: with the job's model.
        job: what is to be painted; its seed is the sample's.
        progress: told of every step.

    Returns:
        The job as it was done, and the inpainter's output with one `Picture`.

    Raises:
        ValueError: for files or settings that cannot be used.
    """
    picture, mask = prepare(job)
    ((own, output),) = paint(inpainter, job, picture, mask, [job.seed], progress)
    return own, output
