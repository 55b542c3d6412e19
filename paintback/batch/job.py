"""A request done: its files read, the model loaded, its samples painted, and the settings that make each of them again.

The same on the command line, in a batch and on a cluster. A PNG carries its request, which makes it again bit for bit.
Samples are painted one after another, each with a generator of its own seed, so that any one of them can be remade
alone and gives the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from paintback import __version__
from paintback.batch import files
from paintback.painting.request import Asked, Request

if TYPE_CHECKING:
    from paintback.images import Picture
    from paintback.images.masks import Mask
    from paintback.painting.layout import Plan
    from paintback.tasks.inpaint import Inpainter, Output

__all__ = [
    "Watcher",
    "bare",
    "completed",
    "digest",
    "hidden",
    "inputs",
    "is_mask_word",
    "load",
    "of_seed",
    "open_inpainter",
    "paint",
    "read",
    "run_job",
    "settled",
    "shown",
    "storable",
    "weights_digest",
]

A = TypeVar("A", bound=Asked)


def is_mask_word(mask: object) -> bool:
    """Whether a mask is named by a word, "alpha" or "auto:...", and is looked for in the picture itself."""
    from paintback.images import formats  # not above: Pillow would make every command's help slow

    return formats.is_mask_word(mask)


def inputs(request: Any) -> dict[str, str]:
    """The paths that a request of any task reads from, by what they are: photo, mask, reference_1, reference_2, ..."""
    mask = getattr(request, "mask", None)
    given = {"photo": request.photo, "mask": None if is_mask_word(mask) else mask}
    given |= {f"reference_{k}": path for k, path in enumerate(getattr(request, "reference_images", None) or (), 1)}
    return {name: path for name, path in given.items() if isinstance(path, str)}


class Watcher(Protocol):
    """Whoever is told how far a painting is."""

    def step(self) -> None:
        """One more step was done."""

    def part(self, text: str, plan: Plan | None = None, /) -> None:
        """The next part of the work begins, with its plan where there is one."""


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def read(request: Request) -> tuple[Picture, Mask]:
    """Reads the picture and the mask, extends both, grows the mask.

    Raises:
        ValueError: for files that cannot be used, those of reference pictures too, or a mask that leaves nothing to do.
    """
    from paintback.images import read_picture
    from paintback.painting.sheet import prepare

    request.check_files()
    shown(request)  # what cannot be read is told before a model is loaded
    with ExitStack() as opened:
        photo = opened.enter_context(files.here(str(request.photo)))
        mask: Any = request.mask
        if mask is not None and not is_mask_word(mask):
            mask = opened.enter_context(files.here(mask))
        return prepare(read_picture(photo), mask, request)


def shown(request: Request) -> Request:
    """The request with its reference pictures read, as a model is shown them.

    Raises:
        ValueError: for a file that cannot be used.
    """
    from paintback.images import read_picture

    if request.reference_images is None:
        return request
    with ExitStack() as opened:
        paths = [opened.enter_context(files.here(str(path))) for path in request.reference_images]
        return request.with_(reference_images=tuple(read_picture(path) for path in paths))


def bare(request: Request) -> Request:
    """The request without its picture and mask, and without what `read` does with them."""
    return request.with_(photo=None, mask=None, mask_is=None, outpaint=(0, 0, 0, 0), grow=0.0)


def hidden(picture: Picture, mask: Mask) -> Picture:
    """The picture with a mid-grey hole, for a contact sheet."""
    import numpy as np

    return picture.with_pixels(np.zeros((*picture.shape, 3), np.float32), mask)


def storable(picture: Picture, path: Path) -> Picture:
    """The picture with numbers that a file holds: of floating-point ones, 16 bits where the format has them."""
    if picture.pixels.dtype.kind != "f":
        return picture
    return picture.to_uint16() if path.suffix.lower() in (".png", ".tif", ".tiff") else picture.to_uint8()


def load(request: Any) -> Inpainter:
    """Loads a request's model on its device, with its number of threads.

    Args:
        request: of any task.

    Raises:
        ValueError: for an unknown model or device.
    """
    import torch

    from paintback.tasks.inpaint import Inpainter

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    few = None if request.step_distilled is None else request.step_distilled == "yes"
    return Inpainter.from_pretrained(
        request.model, device=request.device, torch_dtype=request.dtype, offload=request.offload, step_distilled=few
    )


def weights_digest(model: str) -> str | None:
    """SHA-256 of a model's weights, or None where they are not one file."""
    from paintback.models import find

    card = find(model)
    path = card.weights if card is not None else Path(model)
    return digest(path) if path.is_file() else None


def settled(request: Request, inpainter: Inpainter) -> Request:
    """The request with the method, the fields, the steps and the seed that it leaves open.

    Raises:
        ValueError: for a method that the model does not run.
    """
    from paintback.painting.quality import resolve
    from paintback.randomness import seed_from_system

    model = inpainter.model
    model.check_method(request.method)
    request = resolve(request, model.sampler)
    seed = seed_from_system() if request.seed is None else request.seed
    return request.with_(steps=request.steps or model.sampler.num_inference_steps, seed=seed)


def completed(request: A, inpainter: Inpainter, sha256: dict[str, str | None]) -> A:
    """The request with where it runs: device, threads, dtype, versions, and the hashes that are known."""
    import torch

    return request.with_(
        dtype=_dtype(request, inpainter),
        device=str(inpainter.model.device),
        threads=torch.get_num_threads(),
        sha256={name: value for name, value in sha256.items() if value is not None},
        versions={"paintback": __version__, "torch": torch.__version__},
    )


def _dtype(request: Any, inpainter: Inpainter) -> str | None:
    """The dtype that a request is painted in, so that it is the same when it is made again; None where it is open.

    Raises:
        ValueError: for a method that the model does not run.
    """
    from paintback.models.embedded import EmbeddedModel
    from paintback.painting.quality import named, resolve
    from paintback.painting.request import LayersRequest
    from paintback.tasks.checks import precise

    model = inpainter.model
    if request.dtype is not None or not isinstance(model, EmbeddedModel):
        return None if request.dtype is None else str(request.dtype)
    if isinstance(request, LayersRequest):
        texts = ["fcs"]
    else:
        if isinstance(request, Request):
            model.check_method(request.method)
        made = resolve(request, model.sampler) if isinstance(request, Request) else request
        texts = [text for text in (made.method, getattr(made, "thin_method", None)) if text is not None]
    return str(precise(model, *map(named, texts)).dtype).removeprefix("torch.")


def open_inpainter(request: A) -> tuple[Inpainter, A]:
    """Loads the model of a request of any task, and completes it with where it runs and the hashes of its files.

    Raises:
        ValueError: for an unknown model or device.
    """
    asked: Any = request
    inpainter = load(asked)
    hashes: dict[str, str | None] = {
        name: digest(Path(path)) for name, path in inputs(asked).items() if Path(path).is_file()
    }
    return inpainter, completed(request, inpainter, {**hashes, "weights": weights_digest(asked.model)})


def of_seed(request: Request, seed: int) -> Request:
    """The request for one sample alone, which is painted as it is among the others."""
    from paintback.painting.quality import draws

    one = request.with_(seed=seed, samples=1)
    return one if draws(one) == draws(request) else one.with_(average=draws(request))


def paint(
    inpainter: Inpainter,
    request: Request,
    picture: Picture,
    hole: Mask,
    progress: Watcher | None = None,
) -> Iterator[tuple[Request, Output[list[Picture]]]]:
    """Paints the samples of a request, one after another.

    Args:
        inpainter: with the request's model.
        request: with method and steps.
        picture: what `read` read.
        hole: likewise.
        progress: told of every step.

    Yields:
        For each sample, when it is done, the request that makes it alone, and the output with one `Picture`.
    """
    import torch

    request = settled(request, inpainter)
    inpainter.set_progress_bar_config(disable=True)
    first, count, name, plain = int(request.seed or 0), request.samples, str(request.method), bare(shown(request))
    plan = None if progress is None else inpainter.plan(picture, hole, request=of_seed(plain, first))
    for number in range(count):
        if progress is not None:
            progress.part(name if count == 1 else f"{name}, sample {number + 1} of {count}", plan)
        output = inpainter(
            picture,
            hole,
            request=of_seed(plain, first + number),
            generator=[torch.Generator().manual_seed(first + number)],
            output_type="picture",
            callback_on_step_end=None if progress is None else lambda *_: progress.step(),
        )
        yield of_seed(request, first + number), output


def run_job(
    inpainter: Inpainter, request: Request, progress: Watcher | None = None
) -> tuple[Request, Output[list[Picture]]]:
    """Reads a request's files and paints its first sample.

    Args:
        inpainter: with the request's model.
        request: what is to be painted; its seed is the sample's.
        progress: told of every step.

    Returns:
        The request as it was done, and the inpainter's output with one `Picture`.

    Raises:
        ValueError: for files or settings that cannot be used.
    """
    picture, hole = read(request)
    ((own, output),) = paint(inpainter, request.with_(samples=1), picture, hole, progress)
    return own, output
