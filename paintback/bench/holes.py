"""Hole metrics on photographs, beside the classical fillers of OpenCV and scikit-image.

For every photograph one crop from its middle is taken, three masks are laid over it (scratches 2 pixels wide, overprint
of text, a 32-pixel box), and every filler paints it back. Reported are PSNR in the hole and LPIPS of the crop. Of the
diffusion model both a single sample (mean over samples of the metric) and the mean of the samples (metric of the
mean picture) are reported: a posterior sample alone pays up to 3 dB against the mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
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
from paintback.inpainter import Inpainter
from paintback.methods.base import Method

__all__ = ["HoleScore", "compare_holes", "table"]

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class HoleScore:
    """The mean over photographs for one mask and one filler.

    Attributes:
        mask: "scratches", "text" or "box".
        filler: its name.
        psnr: mean of the PSNR in the hole, dB.
        lpips: mean LPIPS of the crop; NaN where no weights were given.
        evaluations: denoiser evaluations per sample, mean over photographs.
        seconds: per photograph, all samples.
        photographs: how many.
    """

    mask: str
    filler: str
    psnr: float
    lpips: float
    evaluations: float
    seconds: float
    photographs: int


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


def mask_set(shape: tuple[int, int], seed: int) -> dict[str, Mask]:
    """The three masks for a crop."""
    rng = np.random.default_rng(seed)
    return {
        "scratches": generators.lines(shape, rng, width=2, count=6),
        "text": generators.text(shape, "Paintback", size=18),
        "box": generators.box(shape, rng, size=(32, 32)),
    }


def _crops(folder: Path, size: int, limit: int | None) -> Iterator[tuple[str, Pixels]]:
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)[:limit]:
        pixels = read_picture(path).to_uint8().pixels
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
    num_inference_steps: int,
    samples: int = 8,
    crop: int = 128,
    seed: int = 0,
    masks: tuple[str, ...] = ("scratches", "text", "box"),
    limit: int | None = None,
    classical: bool = True,
    pictures: Path | None = None,
) -> list[HoleScore]:
    """Runs the comparison.

    Args:
        folder: of photographs.
        inpainter: of the model.
        methods: by the name to report.
        lpips: weights file; None leaves LPIPS out.
        num_inference_steps: grid intervals.
        samples: of every hole.
        crop: side of the crops, pixels.
        seed: of masks and samples.
        masks: which of the three.
        limit: how many photographs; None for all.
        classical: also run the classical fillers.
        pictures: folder for a PNG per photograph and mask: given, masked, every filler.

    Returns:
        A score for each mask and filler.
    """
    distance = LPIPS(lpips) if lpips is not None else None
    fillers = classical_fillers() if classical else {}
    rows: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    inpainter.set_progress_bar_config(disable=True)

    def score(mask: str, filler: str, truth: Pixels, filled: Any, hole: Mask, cost: tuple[float, float]) -> None:
        values = [(_psnr(truth, one, hole), _lpips(distance, truth, one)) for one in filled]
        mean = np.mean(values, axis=0)
        rows.setdefault((mask, filler), []).append((float(mean[0]), float(mean[1]), *cost))

    for number, (name, truth) in enumerate(tqdm(list(_crops(folder, crop, limit)), unit="photo")):
        for mask, hole in mask_set(truth.shape[:2], seed + number).items():
            if mask not in masks:
                continue
            hidden = np.where(hole[..., None], np.uint8(128), truth)
            shown = [truth, hidden]
            for filler, fill in fillers.items():
                filled = fill(hidden, hole)
                shown.append(filled)
                score(mask, filler, truth, [filled], hole, (0.0, 0.0))
            for label, method in methods.items():
                output = inpainter(
                    hidden,
                    hole,
                    method=method,
                    num_inference_steps=num_inference_steps,
                    num_images_per_prompt=samples,
                    generator=[torch.Generator().manual_seed(seed + k) for k in range(samples)],
                    output_type="np",
                )
                made = [np.asarray(np.rint(np.asarray(one) * 255), np.uint8) for one in output.images]
                shown.append(made[0])
                cost = (float(output.evaluations), output.seconds)
                score(mask, f"{label}, one sample", truth, made, hole, cost)
                mean = np.asarray(np.rint(np.mean([one.astype(float) for one in made], axis=0)), np.uint8)
                score(mask, f"{label}, mean of {samples}", truth, [mean], hole, cost)
            if pictures is not None:
                from PIL import Image

                pictures.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.concatenate(shown, axis=1)).save(pictures / f"{Path(name).stem}-{mask}.png")
    scores = []
    for (mask, filler), values in rows.items():
        psnr, distance_mean, evaluations, seconds = np.mean(values, axis=0).tolist()
        scores.append(HoleScore(mask, filler, psnr, distance_mean, evaluations, seconds, len(values)))
    return scores


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
        "| mask | filler | PSNR in the hole, dB | LPIPS | evaluations | seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.mask} | {s.filler} | {s.psnr:.2f} | {s.lpips:.4f} | {s.evaluations:g} | {s.seconds:.2f} |"
        for s in scores
    ]
    return "\n".join(lines)


def to_json(scores: list[HoleScore]) -> str:
    """The scores as JSON."""
    return json.dumps([asdict(score) for score in scores], indent=1)
