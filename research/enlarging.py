"""Noisy super-resolution of known pictures: every method through the same operator, at equal cost, in a fresh process.

    python -m research.enlarging --photos FOLDER

A crop from the middle of each photograph is reduced, noise is added, and `superres` enlarges it again. The memory of a
method is what its process has at the peak above what it had before its first call, so that weights and libraries, which
all methods share, do not hide the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F

from paintback.bench.holes import crops
from paintback.bench.lpips import LPIPS
from paintback.bench.pictures.cell import cost_within
from paintback.cli.bench import method_of
from paintback.cli.output import Format, emit, format_option
from paintback.methods.base import Method
from paintback.observation import Bicubic
from paintback.tasks.superres import choose_method, superres
from research.command import run

__all__ = ["Enlarging", "compare_enlarging", "table"]


@dataclass(frozen=True)
class Enlarging:
    """One method, means over photographs.

    Attributes:
        label: of the method, or "bicubic".
        steps: grid intervals.
        evaluations: per sample.
        vjps: per sample.
        psnr: of the whole crop, dB.
        psnr_ci: half width of its 95 % interval.
        lpips: NaN where no weights were given.
        lpips_ci: half width of its 95 % interval.
        seconds: per sample.
        megabytes: at the peak, above what was resident before; NaN where it cannot be measured.
        photographs: how many.
    """

    label: str
    steps: int
    evaluations: float
    vjps: float
    psnr: float
    psnr_ci: float
    lpips: float
    lpips_ci: float
    seconds: float
    megabytes: float
    photographs: int


def compare_enlarging(
    folder: Path,
    labels: Mapping[str, Method | str],
    *,
    model: str = "photo",
    scale: int = 4,
    sigma: float = 0.05,
    budget: int = 100,
    crop: int = 64,
    limit: int | None = None,
    lpips: Path | None = None,
    seed: int = 0,
    threads: int = 1,
    pictures: Path | None = None,
    progress: Callable[[str], None] = lambda label: None,
) -> list[Enlarging]:
    """Runs the comparison.

    Args:
        folder: of photographs.
        labels: methods; a name takes the fields that its paper has for super-resolution.
        model: name or path.
        scale: whole number.
        sigma: of the noise, where white is 1.
        budget: evaluations and gradients of a sample; steps are the most that it pays for.
        crop: side of the truth, pixels.
        limit: how many photographs; None for all.
        lpips: weights file; None leaves LPIPS out.
        seed: of noise and samples.
        threads: CPU threads.
        pictures: folder for a PNG of every photograph: truth, what was given, bicubic, every method.
        progress: called before each method.

    Returns:
        A row for bicubic interpolation and one for each method.

    Raises:
        ValueError: for photographs smaller than the crops, or a method that cannot enlarge or costs too much.
    """
    truths = [truth for _, truth in crops(folder, crop, limit)]
    if not truths:
        raise ValueError(f"{folder} holds no picture.")
    chosen = {label: choose_method(method) for label, method in labels.items()}
    steps = {label: cost_within(method, budget) for label, method in chosen.items()}
    given = [_reduced(truth, scale, sigma, seed + number) for number, truth in enumerate(truths)]
    distance = None if lpips is None else LPIPS(lpips)
    smooth = [np.asarray(_enlarged(small, scale)) for small in given]
    rows = [_row("bicubic", 0, truths, smooth, distance, (0.0, 0.0, 0.0, math.nan))]
    shown = [[truth, _blocks(small, scale), big] for truth, small, big in zip(truths, given, smooth, strict=True)]
    for label, method in chosen.items():
        progress(label)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            made, cost = pool.submit(_run, model, method, given, scale, sigma, steps[label], seed, threads).result()
        rows.append(_row(label, steps[label], truths, made, distance, cost))
        for sheet, one in zip(shown, made, strict=True):
            sheet.append(one)
    if pictures is not None:
        from PIL import Image

        pictures.mkdir(parents=True, exist_ok=True)
        for number, sheet in enumerate(shown):
            Image.fromarray(np.concatenate(sheet, axis=1)).save(pictures / f"{number:03}.png")
    return rows


def _run(
    model: str,
    method: Method,
    given: Sequence[np.ndarray],
    scale: int,
    sigma: float,
    steps: int,
    seed: int,
    threads: int,
) -> tuple[list[np.ndarray], tuple[float, float, float, float]]:
    """All photographs by one method, in a process of its own."""
    torch.set_num_threads(threads)
    settings: dict[str, Any] = {"method": method, "sigma": sigma, "output_type": "np", "progress_bar": False}
    from paintback import models

    opened = models.load(model)
    before = _resident()
    made, costs = [], []
    for number, small in enumerate(given):
        generator = torch.Generator().manual_seed(seed + number)
        out = superres(small, scale, model=opened, num_inference_steps=steps, generator=generator, **settings)
        made.append(np.asarray(np.rint(np.asarray(out.images[0]) * 255), np.uint8))
        peak = math.nan if out.peak_memory_bytes is None else (out.peak_memory_bytes - before) / 1e6
        costs.append((float(out.evaluations), float(out.vjps), out.seconds, peak))
    evaluations, vjps, seconds, _ = np.mean(costs, axis=0).tolist()
    return made, (evaluations, vjps, seconds, max(cost[3] for cost in costs))


def _resident() -> int:
    """Bytes of this process in memory; 0 where that is not told."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def _reduced(truth: np.ndarray, scale: int, sigma: float, seed: int) -> np.ndarray:
    """(h, w, 3) float32 in [0, 1]: bicubic means of the truth, with noise."""
    x = torch.from_numpy(truth).permute(2, 0, 1)[None].double() / 255
    small = Bicubic(scale, *x.shape[-2:])(x)
    noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(seed), dtype=small.dtype)
    made: np.ndarray = (small + sigma * noise)[0].permute(1, 2, 0).clamp(0, 1).float().numpy()
    return made


def _enlarged(small: np.ndarray, scale: int) -> np.ndarray:
    x = torch.from_numpy(small).permute(2, 0, 1)[None]
    big = F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False).clamp(0, 1)
    return np.asarray(np.rint(big[0].permute(1, 2, 0).numpy() * 255), np.uint8)


def _blocks(small: np.ndarray, scale: int) -> np.ndarray:
    return np.asarray(np.rint(small.repeat(scale, 0).repeat(scale, 1) * 255), np.uint8)


def _row(
    label: str,
    steps: int,
    truths: Sequence[np.ndarray],
    made: Sequence[np.ndarray],
    distance: LPIPS | None,
    cost: tuple[float, float, float, float],
) -> Enlarging:
    from scipy.stats import t as student

    values = []
    for truth, one in zip(truths, made, strict=True):
        error = float(np.mean(((truth.astype(float) - one) / 255) ** 2))
        a, b = (torch.from_numpy(some).permute(2, 0, 1)[None].float() / 127.5 - 1 for some in (truth, one))
        values.append((10 * math.log10(1 / max(error, 1e-10)), math.nan if distance is None else float(distance(a, b))))
    mean, spread = np.mean(values, axis=0), np.std(values, axis=0, ddof=1) if len(values) > 1 else [math.nan] * 2
    wide = student.ppf(0.975, max(1, len(values) - 1)) / math.sqrt(len(values))
    evaluations, vjps, seconds, memory = cost
    return Enlarging(
        label, steps, evaluations, vjps, float(mean[0]), float(wide * spread[0]), float(mean[1]),
        float(wide * spread[1]), seconds, memory, len(values),
    )  # fmt: skip


def table(rows: Sequence[Enlarging]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| method | steps | evaluations | gradients | PSNR, dB | LPIPS | seconds | MB above rest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        memory = "" if math.isnan(row.megabytes) else f"{row.megabytes:.0f}"
        lpips = "" if math.isnan(row.lpips) else f"{row.lpips:.4f} ± {row.lpips_ci:.4f}"
        lines.append(
            f"| {row.label} | {row.steps} | {row.evaluations:g} | {row.vjps:g} | {row.psnr:.2f} ± {row.psnr_ci:.2f} "
            f"| {lpips} | {row.seconds:.2f} | {memory} |"
        )
    return "\n".join(lines)


@click.command()
@click.option(
    "--photos", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of pictures."
)
@click.option("--methods", "names", default="fcs,psld,ldps,p2l", show_default=True, help="NAME[:field=value...],...")
@click.option("--model", default="photo", show_default=True, help="A name from `paintback models`, or a file.")
@click.option("--scale", type=click.IntRange(2, 8), default=4, show_default=True, help="Side over side.")
@click.option("--sigma", type=click.FloatRange(0), default=0.05, show_default=True, help="Noise, where white is 1.")
@click.option("--budget", type=click.IntRange(1), default=100, show_default=True, help="Evaluations and gradients.")
@click.option("--crop", type=click.IntRange(32), default=64, show_default=True, help="Side of the crops, pixels.")
@click.option("--limit", type=click.IntRange(1), help="How many pictures.  [default: all]")
@click.option("--lpips", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Weights of LPIPS.")
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False), help="Folder for what was made.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@format_option
def enlarging(names: str, form: Format, photos: Path, **given: Any) -> None:
    """Reduce photographs, add noise, and enlarge them again with methods at equal cost."""
    texts = [part.strip() for part in names.split(",") if part.strip()]
    labels = {text: method_of(text) if ":" in text else text for text in texts}
    if not labels:
        raise ValueError("--methods names no method; give names with commas between.")
    rows = compare_enlarging(photos, labels, **given)
    plain = [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]  # some may be NaN
    emit(form, plain, table(rows))


if __name__ == "__main__":
    run(enlarging)
