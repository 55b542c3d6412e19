"""Hole metrics on photographs, beside the classical fillers of OpenCV and scikit-image.

For every photograph one crop from its middle is taken, or the whole of it, masks are laid over it (`KINDS`), and every
filler paints it back. Reported are PSNR in the
hole and LPIPS of the crop. Of the diffusion model both a single sample (mean over samples of the metric) and the mean
of the samples (metric of the mean picture) are reported: a posterior sample alone pays up to 3 dB against the mean.

A size says how much is hidden, for every kind alike: as many pixels as a square of that side has. It is exact for boxes
and scattered pixels, rounded to whole columns for strips, reached with the last scratch, and for text met by the part
of the crop that is printed on, as far as the crop suffices. So kinds can be compared at equal amounts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from paintback.bench.lpips import LPIPS
from paintback.images import generators
from paintback.images.picture import read_picture
from paintback.methods.base import Method
from paintback.tasks.inpaint import Inpainter

__all__ = ["KINDS", "HoleScore", "compare_holes", "crops", "mask_set", "steps_within", "table", "to_json"]

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
KINDS = (
    *("scratches", "text", "box", "strip", "scattered", "dust", "ellipse", "wide-ellipse", "quarter", "outpaint"),
    *("half", "sky", "object"),
)
SIZED = KINDS[:5]  # those that take a size
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class HoleScore:
    """The mean over photographs for one mask and one filler.

    Attributes:
        mask: one of `KINDS`, with the size after it where one was asked for.
        filler: its name.
        psnr: mean of the PSNR in the hole, dB.
        lpips: mean LPIPS of the crop; NaN where no weights were given.
        spread: root mean square over the hole of the samples' standard deviation, in grey levels of 255; NaN for a
            single sample.
        evaluations: denoiser evaluations per sample, mean over photographs.
        gradients: through the denoiser, likewise.
        seconds: per photograph, all samples.
        photographs: how many.
        psnrs: of every photograph.
        lpipses: of every photograph; none where no weights were given.
    """

    mask: str
    filler: str
    psnr: float
    lpips: float
    spread: float
    evaluations: float
    gradients: float
    seconds: float
    photographs: int
    psnrs: tuple[float, ...]
    lpipses: tuple[float, ...]


def classical_fillers() -> dict[str, Callable[[Pixels, Mask], Pixels]]:
    """OpenCV's Telea and Navier-Stokes (radius 3) and scikit-image's biharmonic filler."""
    import cv2
    from skimage.restoration import inpaint_biharmonic

    def biharmonic(picture: Pixels, hole: Mask) -> Pixels:
        filled = inpaint_biharmonic(picture / 255.0, hole, channel_axis=-1)
        return np.asarray(np.rint(np.clip(filled, 0, 1) * 255), np.uint8)

    def opencv(flag: int) -> Callable[[Pixels, Mask], Pixels]:
        return lambda picture, hole: np.asarray(cv2.inpaint(picture, hole.astype(np.uint8), 3, flag), np.uint8)

    return {
        "OpenCV Telea": opencv(cv2.INPAINT_TELEA),
        "OpenCV Navier-Stokes": opencv(cv2.INPAINT_NS),
        "scikit-image biharmonic": biharmonic,
    }


def mask_set(
    shape: tuple[int, int],
    seed: int,
    kinds: Sequence[str] = KINDS[:3],
    sizes: Sequence[int] = (),
    picture: Pixels | None = None,
) -> dict[str, Mask]:
    """The masks for a crop, by name.

    Args:
        shape: (H, W) of the crop.
        seed: of places.
        kinds: of `KINDS`.
        sizes: sides of squares, pixels; see the head of this file. None: six scratches, text 18 pixels high all over,
            a box of 32 pixels, the right half, every other pixel at random; sixty specks of 2 to 8 pixels, ellipses
            64 and 118 pixels high in the middle, the middle box of half the sides, a tenth of the short side all
            around; the lower half, a sixth of the height across the top, as of a sky, and an upright ellipse of 24 x 48
            pixels, as of an object.
        picture: the crop itself: the object then stands where the texture around it is most alike on all sides; None
            for the middle.

    Raises:
        ValueError: for an unknown kind, one that takes no size, or a size that does not leave a part of the crop.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"Unknown kind of hole {unknown[0]!r}; valid are {', '.join(KINDS)}.")
    if sizes and (fixed := [kind for kind in kinds if kind not in SIZED]):
        raise ValueError(f"Holes of the kind {fixed[0]!r} take no size; those that do are {', '.join(SIZED)}.")
    if sizes and not 0 < min(sizes) <= max(sizes) < min(shape):
        raise ValueError(
            f"Sizes of holes must lie between 1 and the crop's {min(shape) - 1} pixels; got {list(sizes)}."
        )
    if sizes:
        return {f"{kind} {size}": _sized(kind, size, shape, seed) for kind in kinds for size in sizes}
    rng = np.random.default_rng(seed)
    made = {
        "scratches": generators.lines(shape, rng, width=2, count=6),
        "text": generators.text(shape, "Paintback", size=18),
        "box": generators.box(shape, rng, size=(32, 32)),
        "strip": generators.half(shape),
        "scattered": _scattered(shape, rng, shape[0] * shape[1] // 2),
        "dust": _dust(shape, rng),
        "ellipse": _ellipse(shape, 64),
        "wide-ellipse": _ellipse(shape, 118),
        "quarter": generators.box(shape, size=(shape[0] // 2, shape[1] // 2)),
        "outpaint": _frame(shape, min(shape) // 10),
        "half": generators.half(shape, "bottom"),
        "sky": _sky(shape),
        "object": _object(shape, picture),
    }
    return {kind: made[kind] for kind in kinds}


def _dust(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for y, x, radius in zip(*(rng.uniform(0, side, 60) for side in shape), rng.uniform(1, 4, 60), strict=True):
        mask |= (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2
    return mask


def _ellipse(shape: tuple[int, int], height: int) -> Mask:
    """In the middle, broader than high by 15 %."""
    rows, columns = (np.arange(side) + 0.5 - side / 2 for side in shape)
    return np.asarray((rows[:, None] / (height / 2)) ** 2 + (columns / (1.15 * height / 2)) ** 2 < 1)


def _frame(shape: tuple[int, int], width: int) -> Mask:
    mask = np.ones(shape, bool)
    mask[width:-width, width:-width] = False
    return mask


def _sky(shape: tuple[int, int]) -> Mask:
    """A strip a sixth of the height high, from side to side, a twelfth of the height below the top."""
    mask = np.zeros(shape, bool)
    mask[shape[0] // 12 : shape[0] // 12 + shape[0] // 6] = True
    return mask


def _object(shape: tuple[int, int], picture: Pixels | None) -> Mask:
    """An upright ellipse on the most even texture: where the least busy of the four windows beside it is busiest."""
    half = (min(24, shape[0] // 4), min(12, shape[1] // 8))
    down, across = shape[0] // 2, shape[1] // 2
    if picture is not None:
        from scipy.ndimage import shift, uniform_filter

        grey = picture.astype(float).mean(2)
        busy = uniform_filter((grey - uniform_filter(grey, 7)) ** 2, 15)
        steps = [(-half[0] - 8, 0), (half[0] + 8, 0), (0, -half[1] - 8), (0, half[1] + 8)]
        around = np.min([shift(busy, step, order=0, cval=0.0) for step in steps], axis=0)
        inside = around[half[0] + 1 : -half[0] - 1, half[1] + 1 : -half[1] - 1]
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        down, across = int(row) + half[0] + 1, int(column) + half[1] + 1
    rows, columns = np.arange(shape[0]) - down, np.arange(shape[1]) - across
    return np.asarray((rows[:, None] / half[0]) ** 2 + (columns / half[1]) ** 2 < 1)


def _sized(kind: str, size: int, shape: tuple[int, int], seed: int) -> Mask:
    """A hole that hides about size x size pixels."""
    amount = size**2
    rng = np.random.default_rng((seed, size, KINDS.index(kind)))
    if kind == "box":
        return generators.box(shape, rng, size=(size, size))
    if kind == "strip":
        width = max(1, round(amount / shape[0]))
        return generators.outpaint((shape[0], shape[1] - width), right=width)
    if kind == "scattered":
        return _scattered(shape, rng, amount)
    if kind == "scratches":
        mask = np.zeros(shape, bool)
        while mask.sum() < amount:
            mask |= generators.lines(shape, rng, width=2, count=1)
        return mask
    everywhere = generators.text(shape, "Paintback", size=max(10, min(shape) // 6))
    rows, columns = (np.abs(np.arange(side) + 0.5 - side / 2) for side in shape)
    reach = np.maximum(rows[:, None] / shape[0], columns / shape[1])  # of pixels, from the middle
    return np.asarray(everywhere & (reach <= np.sort(reach[everywhere])[: max(1, amount)][-1]))


def _scattered(shape: tuple[int, int], rng: np.random.Generator, amount: int) -> Mask:
    mask = np.zeros(shape, bool)
    mask.flat[rng.choice(mask.size, amount, replace=False)] = True
    return mask


def steps_within(method: Method, evaluations: int) -> int:
    """The most steps that cost no more than so many evaluations.

    Raises:
        ValueError: if a single step costs more.
    """
    for steps in range(evaluations, 0, -1):
        if method.evaluations(steps) <= evaluations:
            return steps
    raise ValueError(f"{method.name} takes {method.evaluations(1)} evaluations for one step; allow more.")


def crops(folder: Path, size: int, limit: int | None) -> Iterator[tuple[str, Pixels]]:
    """Name and middle, (size, size, 3), of the first pictures of a folder; size 0 takes them whole.

    Raises:
        ValueError: if one is smaller.
    """
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)[:limit]:
        pixels = read_picture(path).to_uint8().pixels
        if size == 0:
            yield path.name, pixels
            continue
        top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
        if min(top, left) < 0:
            raise ValueError(f"{path} is smaller than {size} x {size} pixels; take a smaller --crop.")
        yield path.name, np.ascontiguousarray(pixels[top : top + size, left : left + size])


def compare_holes(
    folder: Path,
    inpainter: Inpainter,
    methods: dict[str, Method],
    *,
    lpips: Path | None,
    num_inference_steps: int | Mapping[str, int],
    samples: int = 8,
    crop: int = 128,
    seed: int = 0,
    kinds: Sequence[str] = KINDS[:3],
    sizes: Sequence[int] = (),
    limit: int | None = None,
    qualities: Sequence[str] = (),
    classical: bool = True,
    pictures: Path | None = None,
) -> list[HoleScore]:
    """Runs the comparison.

    Args:
        folder: of photographs.
        inpainter: of the model.
        methods: by the name to report.
        lpips: weights file; None leaves LPIPS out.
        num_inference_steps: grid intervals, for all or by the methods' names.
        samples: of every hole; of quality best, which draws several by itself, one.
        crop: side of the crops, pixels; 0 for whole pictures.
        seed: of masks and samples.
        kinds: of holes, of `KINDS`.
        sizes: of every kind; see `mask_set`.
        limit: how many photographs; None for all.
        qualities: of the dial, beside the methods: the model's own samplers, in their own numbers of steps.
        classical: also run the classical fillers.
        pictures: folder for a PNG per photograph and mask: given, masked, every filler.

    Returns:
        A score for each mask and filler.

    Raises:
        ValueError: for kinds and sizes as in `mask_set`, and photographs smaller than the crops.
    """
    distance = LPIPS(lpips) if lpips is not None else None
    fillers = classical_fillers() if classical else {}
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    given = num_inference_steps
    steps = given if isinstance(given, Mapping) else dict.fromkeys(methods, given)
    asked: dict[str, dict[str, Any]] = {
        label: {"method": method, "num_inference_steps": steps[label]} for label, method in methods.items()
    } | {quality: {"quality": quality} for quality in qualities}
    answers = {label: 1 if wish == {"quality": "best"} else samples for label, wish in asked.items()}
    mask_set((crop or 256, crop or 256), seed, kinds, sizes)  # complains before anything is painted
    inpainter.set_progress_bar_config(disable=True)

    def score(mask: str, filler: str, truth: Pixels, filled: Any, hole: Mask, cost: tuple[float, ...]) -> None:
        values = [(_psnr(truth, one, hole), _lpips(distance, truth, one)) for one in filled]
        mean = np.mean(values, axis=0)
        rows.setdefault((mask, filler), []).append((float(mean[0]), float(mean[1]), *cost))

    for number, (name, truth) in enumerate(tqdm(list(crops(folder, crop, limit)), unit="photo")):
        for mask, hole in mask_set(truth.shape[:2], seed + number, kinds, sizes, truth).items():
            hidden = np.where(hole[..., None], np.uint8(128), truth)
            shown = [truth, hidden]
            for filler, fill in fillers.items():
                filled = fill(hidden, hole)
                shown.append(filled)
                score(mask, filler, truth, [filled], hole, (math.nan, 0.0, 0.0, 0.0))
            for label, wish in asked.items():
                output = inpainter(
                    hidden,
                    hole,
                    **wish,
                    num_images_per_prompt=answers[label],
                    generator=[torch.Generator().manual_seed(seed + k) for k in range(answers[label])],
                    output_type="np",
                )
                made = [np.asarray(np.rint(np.asarray(one) * 255), np.uint8) for one in output.images]
                shown.append(made[0])
                cost = (_spread(made, hole), float(output.evaluations), float(output.vjps), output.seconds)
                score(mask, f"{label}, one sample", truth, made, hole, cost)
                mean = np.asarray(np.rint(np.mean([one.astype(float) for one in made], axis=0)), np.uint8)
                score(mask, f"{label}, mean of {answers[label]}", truth, [mean], hole, cost)
            if pictures is not None:
                from PIL import Image

                pictures.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.concatenate(shown, axis=1)).save(
                    pictures / f"{Path(name).stem}-{mask.replace(' ', '-')}.png"
                )
    scores = []
    for (mask, filler), values in rows.items():
        psnr, mean, spread, evaluations, gradients, seconds = np.mean(values, axis=0).tolist()
        psnrs, lpipses = tuple(v[0] for v in values), tuple(v[1] for v in values if distance is not None)
        cost = (evaluations, gradients, seconds, len(values))
        scores.append(HoleScore(mask, filler, psnr, mean, spread, *cost, psnrs, lpipses))
    return scores


def _spread(made: list[Pixels], hole: Mask) -> float:
    if len(made) < 2:
        return math.nan
    return float(np.sqrt(np.var([one[hole].astype(float) for one in made], axis=0, ddof=1).mean()))


def _psnr(truth: Pixels, filled: Pixels, hole: Mask) -> float:
    error = ((truth.astype(float) - filled.astype(float))[hole] / 255) ** 2
    return 10 * math.log10(1 / max(float(error.mean()), 1e-10))


def _lpips(distance: LPIPS | None, truth: Pixels, filled: Pixels) -> float:
    if distance is None:
        return math.nan
    a, b = (torch.from_numpy(one).permute(2, 0, 1)[None].float() / 127.5 - 1 for one in (truth, filled))
    return float(distance(a, b))


def table(scores: list[HoleScore]) -> str:
    """The scores as a Markdown table."""
    lines = [
        "| mask | filler | PSNR in the hole, dB | LPIPS | spread | evaluations | gradients | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.mask} | {s.filler} | {s.psnr:.2f} | {s.lpips:.4f} | {'' if math.isnan(s.spread) else f'{s.spread:.1f}'} "
        f"| {s.evaluations:g} | {s.gradients:g} | {s.seconds:.2f} |"
        for s in scores
    ]
    return "\n".join(lines)


def to_json(scores: list[HoleScore]) -> str:
    """The scores as JSON."""
    return json.dumps([asdict(score) for score in scores], indent=1)
