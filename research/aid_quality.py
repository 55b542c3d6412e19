"""What a guidance is worth: AID against replacement at equal evaluations, on held-out pictures with known answers.

    python -m research.aid_quality --model fashion --data t10k-images-idx3-ubyte.gz --out OUT

Intervals are 95 %, of Student's t over source pictures: samples of one hole and crops of one picture count as one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor
from tqdm import tqdm

from paintback import models
from paintback.cli.output import Format, format_option, quiet_option
from paintback.cli.train import parse_range
from paintback.denoiser import Denoiser
from paintback.methods import Method, get
from paintback.methods.aid import Aid
from paintback.models.guidance import Guidance
from paintback.observation import Observation
from paintback.painting.quality import named
from paintback.training.aid import Autocast
from paintback.training.data import Pictures, open_pictures
from paintback.training.masks import one_mask
from research.amortized import Amortized, load_amortized
from research.command import run

__all__ = ["Quality", "measure", "table", "to_json"]


@dataclass(frozen=True)
class Quality:
    """One kind of mask, one method.

    Attributes:
        mask: kind.
        method: and its path, where it has one.
        psnr: mean of the PSNR in the hole, dB, of one sample; pictures in [-1, 1], peak 2.
        psnr_ci: half width of its 95 % confidence interval.
        mse: mean squared error in the hole.
        mse_ci: half width of its 95 % confidence interval.
        gain: mean of this mse minus that of the first method; negative is better.
        gain_ci: half width of its 95 % confidence interval, paired by picture.
        diversity: standard deviation over samples of a hidden pixel, mean over hidden pixels and pictures.
        mean_mse: squared error of the mean of those samples.
        evaluations: of the backbone, per sample.
        pictures: how many, with a hole each.
        sources: different pictures that they were made from.
    """

    mask: str
    method: str
    psnr: float
    psnr_ci: float
    mse: float
    mse_ci: float
    gain: float
    gain_ci: float
    diversity: float
    mean_mse: float
    evaluations: float
    pictures: int
    sources: int


@torch.no_grad()
def measure(
    denoiser: Denoiser,
    pictures: Pictures,
    guidance: str | None,
    *,
    count: int = 200,
    steps: int = 20,
    solver: str = "euler",
    samples: int = 2,
    rival: Path | None = None,
    sigma_lows: Sequence[float] = (),
    others: Sequence[str] = (),
    kinds: tuple[str, ...] = ("box", "half", "strokes"),
    seed: int = 0,
    out: Path | None = None,
    progress: bool = True,
) -> list[Quality]:
    """Runs the comparison; all methods see the same pictures, masks and seeds.

    Args:
        denoiser: the backbone.
        pictures: held-out ones.
        guidance: path of the module; None for the shipped one.
        count: pictures of every kind of mask.
        steps: grid intervals N.
        solver: of all methods.
        samples: of every picture.
        rival: weights of `research.amortized`, measured too.
        others: further methods, NAME[:FIELD=VALUE...], at as many steps.
        sigma_lows: levels below which the module is silent, measured each in place of its own.
        kinds: of masks.
        seed: of pictures, masks and samples.
        out: folder for a grid of samples of every kind of mask; None for none.
        progress: show a progress bar.
    """
    aid = get("aid", solver=solver, guidance=guidance)
    methods: dict[str, Method] = {
        "replacement": get("replacement", solver=solver),
        "replacement, fixed noise": get("replacement", solver=solver, path="fixed"),
        "aid": aid,
    }
    if sigma_lows:
        methods = {"replacement": methods["replacement"]}
        methods |= {f"aid, silent below {low:g}": _silent(aid, denoiser, low) for low in sigma_lows}
    methods |= {text: named(text) for text in others}
    if rival is not None:
        methods["amortized"] = Amortized(network=load_amortized(rival)[0], solver=solver)  # type: ignore[arg-type]
    truth, sources = pictures.spread(seed + 50_021, count)
    rows = []
    bar = tqdm(total=len(kinds) * len(methods) * count, disable=not progress, unit="picture")
    for kind in kinds:
        rng = np.random.default_rng((seed, *kind.encode()))
        hole = np.stack([one_mask(kind, pictures.size, rng) for _ in range(count)])
        known = ~torch.from_numpy(hole)[:, None].expand_as(truth)
        y = torch.where(known, truth, 0.0)
        first, shown = None, [truth[:12], torch.where(known, truth, -1.0)[:12]]
        for name, method in methods.items():
            parts, evaluations = [], 0.0
            for start in range(0, count, 25):
                part = slice(start, start + 25)
                generators = [
                    torch.Generator().manual_seed(seed + 1000 * (start + i) + k)
                    for i in range(len(y[part]))
                    for k in range(samples)
                ]
                result = method.sample(
                    denoiser, Observation(y[part], known[part]), steps, generators, num_samples=samples
                )
                parts.append(result.x.unflatten(0, (-1, samples)))
                evaluations = result.evaluations
                bar.update(len(y[part]))
            got = torch.cat(parts)
            error = _in_hole((got - truth[:, None]).square(), known)
            first = error if first is None else first
            psnr = 10 * torch.log10(4 / error.clamp(min=1e-10))
            spread = (
                _in_hole(got.var(1, keepdim=True), known).sqrt() if samples > 1 else torch.full((count, 1), math.nan)
            )
            mean = _in_hole((got.mean(1, keepdim=True) - truth[:, None]).square(), known)
            rows.append(
                Quality(
                    kind, name, *_interval(psnr, sources), *_interval(error, sources),
                    *_interval(error - first, sources), float(spread.mean()), float(mean.mean()),
                    float(evaluations), count, len(set(sources)),
                )
            )  # fmt: skip
            shown += [got[:12, 0], got[:12, -1]]
        if out is not None:
            _grid(shown, out / f"quality-{kind}.png")
    return rows


def _silent(aid: Method, denoiser: Denoiser, sigma_low: float) -> Method:
    """The same method with another level below which its module is silent."""
    assert isinstance(aid, Aid)
    module, replaced = aid.module(denoiser)
    assert isinstance(module, Guidance)
    module.config = replace(module.config, sigma_low=sigma_low)
    return get("aid", solver=aid.solver, guidance=module, known="replaced" if replaced else "guided")


def _in_hole(values: Tensor, known: Tensor) -> Tensor:
    """(n, k, C, H, W) -> (n, k), means over hidden entries."""
    hidden = ~known[:, None].expand_as(values)
    return torch.where(hidden, values, 0.0).flatten(2).sum(2) / hidden.flatten(2).sum(2)


def _interval(values: Tensor, sources: Sequence[int]) -> tuple[float, float]:
    """Mean over sources of (n, k) values, and half the width of its 95 % interval; NaN for a single source."""
    each, owner = values.double().mean(1), torch.tensor(sources)
    means = torch.stack([each[owner == source].mean() for source in sorted(set(sources))])
    reach = float(student.ppf(0.975, max(1, len(means) - 1))) / len(means) ** 0.5
    return float(means.mean()), reach * float(means.std()) if len(means) > 1 else math.nan


def _grid(rows: list[Tensor], path: Path) -> None:
    """One row of pictures each: truth, given, and two samples of every method."""
    from PIL import Image

    tiles = torch.cat([row.permute(2, 0, 3, 1).flatten(1, 2) for row in rows])
    pixels = tiles.clamp(-1, 1).add(1).mul(127.5).round().byte().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).resize(
        (pixels.shape[1] * 2, pixels.shape[0] * 2), Image.Resampling.NEAREST
    ).save(path)


def table(rows: list[Quality]) -> str:
    """The measurements as a Markdown table."""
    lines = [
        "| mask | method | PSNR in the hole, dB | MSE in the hole | MSE minus replacement's | std over samples "
        "| MSE of their mean | evaluations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.mask} | {r.method} | {r.psnr:.2f} ± {r.psnr_ci:.2f} | {r.mse:.4f} ± {r.mse_ci:.4f} "
        f"| {r.gain:+.4f} ± {r.gain_ci:.4f} | {r.diversity:.3f} | {r.mean_mse:.4f} | {r.evaluations:g} |"
        for r in rows
    ]
    return "\n".join(lines)


def to_json(rows: list[Quality]) -> str:
    """The measurements as JSON."""
    return json.dumps([asdict(row) for row in rows], indent=1)


@click.command(name="aid-quality")
@click.option("--model", required=True, help="The backbone: a model's name, or the path of its weights.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A folder of pictures, or an IDX file.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of grids; of aid.safetensors.")
@click.option("--count", type=click.IntRange(2), default=200, show_default=True, help="Pictures of a kind of mask.")
@click.option("--sigma-low", type=click.FloatRange(0), multiple=True, help="Levels below which the module is silent.")
@click.option("--rival", type=click.Path(path_type=Path), help="Weights of `research.amortized`, to measure too.")
@click.option("--beside", multiple=True, metavar="NAME[:FIELD=VALUE...]", help="Another method.")
@click.option("--steps", type=click.IntRange(1), multiple=True, default=(20,), show_default=True, help="Of all.")
@click.option("--only", metavar="A:B", help="Of an IDX file, the pictures from A to B - 1.")
@click.option("--size", type=click.IntRange(8), default=64, show_default=True, help="Side of the crops from a folder.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of pictures, masks and samples.")
@click.option("--autocast", is_flag=True, help="The model computes in bfloat16 where that is safe.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@format_option
@quiet_option
def aid_quality(
    model: str,
    data: Path,
    out: Path,
    count: int,
    sigma_low: tuple[float, ...],
    rival: Path | None,
    beside: tuple[str, ...],
    steps: tuple[int, ...],
    only: str | None,
    size: int,
    seed: int,
    autocast: bool,
    threads: int | None,
    form: Format,
    quiet: bool,
) -> None:
    """Compare AID's guidance with replacement: the module in OUT, or the shipped one where there is none."""
    if threads is not None:
        torch.set_num_threads(threads)
    denoiser = models.load(model).denoiser()
    own = out / "aid.safetensors"
    rows = [
        row
        for number in steps
        for row in measure(
            Autocast(denoiser) if autocast else denoiser,
            open_pictures(data, size=size, only=parse_range(only)),
            str(own) if own.exists() else None,
            count=count,
            steps=number,
            rival=rival,
            sigma_lows=sigma_low,
            others=beside,
            seed=seed,
            out=out,
            progress=not quiet,
        )
    ]
    click.echo(to_json(rows) if form == "json" else table(rows))


if __name__ == "__main__":
    run(aid_quality)
