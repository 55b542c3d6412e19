"""LanPaint's synthetic figure: KL against steps and inner steps, its ablations, and what its score leaves out.

    python -m research.lanpaint_figure -o OUT


Reference: Zheng et al., arXiv:2502.03491, figure 2 (two-dimensional Gaussian, KL of Gaussian fits, 20 steps where inner
steps vary, a line at 0.01), table 3 (ablations over step sizes) and figures 8 and 9 (norm ratio). The paper's target
is not published; ours are the problems A, C and D of `bench.cases`.

The bidirectionally guided chain moves y with g = (1 + lambda) grad_y ln p(y | y_o) - lambda grad_y ln p_t(x, y). Its
target q ~ p_t(x | y) p_t(y | y_o)^(1 + lambda) / p_t(y)^lambda has the score g + (1 + lambda) grad_y ln p_t(x | y), so
that the second term is dropped. Here its root mean square is held against that of g, at states x_t, y_t of the exact
posterior, noised independently.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from paintback.bench.cases import case
from paintback.bench.posterior import Cell, Summary, summarise
from paintback.bench.posterior_report import GOOD, markdown, png, protocol, pyplot
from paintback.cli.bench import measured, write_results
from paintback.cli.output import Format, format_option, quiet_option
from paintback.methods import Method, get
from paintback.schedules import VP
from research.command import run

__all__ = ["cells", "norm_ratio", "report"]

STEPS = (5, 10, 20, 50, 100, 200)
INNER = (1, 2, 5, 10, 20, 40)
SIZES = (0.03, 0.06, 0.15, 0.3, 0.6, 1.0, 1.5)
ABLATED: dict[str, tuple[str, dict[str, Any]]] = {
    "BiG + FLD": ("lanpaint", {}),
    "FLD only": ("lanpaint", {"big": False}),
    "BiG only": ("lanpaint", {"fast_langevin": False}),
    "neither (TFG)": ("tfg", {}),
}
AGAINST_STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "lanpaint-10": ("lanpaint", {"inner_steps": 10}),
    "lanpaint-5": ("lanpaint", {}),
    "fld-10": ("lanpaint", {"inner_steps": 10, "big": False}),
    "tfg-10": ("tfg", {"inner_steps": 10}),
    "mcg 1.0": ("mcg", {"alpha": 1.0}),
    "mcg 0.1": ("mcg", {"alpha": 0.1}),
    "dps 1.0": ("dps", {"zeta": 1.0}),
    "dps 0.1": ("dps", {"zeta": 0.1}),
    "copaint-10": ("copaint", {"iterations": 10}),
    "ddrm": ("ddrm", {}),
    "replacement": ("replacement", {}),
}
AGAINST_INNER: dict[str, tuple[str, dict[str, Any], str]] = {
    "lanpaint": ("lanpaint", {}, "inner_steps"),
    "fld": ("lanpaint", {"big": False}, "inner_steps"),
    "tfg": ("tfg", {}, "inner_steps"),
    "copaint": ("copaint", {}, "iterations"),
}
FLAT = ("mcg 1.0", "mcg 0.1", "dps 1.0", "dps 0.1", "ddrm", "replacement")


def cells(particles: int, seeds: int) -> list[Cell]:
    """Every run that the figure needs."""
    made: list[Cell] = []

    def add(label: str, method: Method, problem: str, steps: int) -> None:
        count = min(particles, case(problem).particles or particles)
        made.extend(Cell(label, method, problem, steps, seed, count, "vp", "uniform") for seed in range(seeds))

    for label, (name, fields) in AGAINST_STEPS.items():
        for steps in STEPS:
            add(label, get(name, **fields), "A", steps)
    for label, (name, fields, inner) in AGAINST_INNER.items():
        for count in INNER:
            add(f"{label}, {count} inner", get(name, **{**fields, inner: count}), "A", 20)
    for problem in ("A", "C", "D"):
        for label, (name, fields) in ABLATED.items():
            for size in SIZES:
                add(f"{label}, eta {size:g}", get(name, step_size=size, **fields), problem, 20)
    return made


def norm_ratio(problem: str, guidance: float = 8.0, particles: int = 2000, seed: int = 0) -> list[tuple[float, float]]:
    """(sigma_t, ratio) over VP times: root mean square of the dropped term over that of the score kept.

    Args:
        problem: of `CASES`, without noise.
        guidance: lambda.
        particles: states at every time.
        seed: of them.
    """
    at, schedule = case(problem), VP()
    assert at.observation.known is not None
    known = at.observation.known.flatten()
    draw = torch.Generator().manual_seed(seed)
    y = at.observation.y.flatten()[known].double()
    x0 = torch.empty(particles, at.prior.dim, dtype=torch.float64)
    x0[:, known], x0[:, ~known] = y, at.posterior.sample(particles, draw).double()
    joint, marginal = at.prior.denoiser(schedule), at.prior.marginal(known.nonzero()[:, 0]).denoiser(schedule)
    ratios = []
    for t in torch.linspace(0.98, 0.02, 25, dtype=torch.float64).tolist():
        time = schedule.at(t)
        z = time.alpha * x0 + time.sigma * torch.randn(x0.shape, generator=draw, dtype=torch.float64)
        score = -joint.predict(z, time).x1[:, known] / time.sigma  # grad_y ln p_t(x, y)
        own = -marginal.predict(z[:, known], time).x1 / time.sigma  # grad_y ln p_t(y)
        dropped = (1 + guidance) * (score - own)
        kept = -(1 + guidance) * (z[:, known] - time.alpha * y) / time.sigma**2 - guidance * score
        ratios.append((time.sigma, float((dropped.square().mean() / kept.square().mean()).sqrt())))
    return ratios


def report(rows: Sequence[Summary], about: dict[str, Any]) -> tuple[str, str, bytes]:
    """JSON, Markdown and PNG of the figure."""
    ratios = {problem: norm_ratio(problem) for problem in ("A", "C", "D")}
    data = {"protocol": about, "rows": [{**asdict(row), "cost": row.cost} for row in rows], "norm_ratio": ratios}
    against = [row for row in rows if row.label in AGAINST_STEPS]
    text = [markdown(against, about["particles"]), _inner_table(rows), _ablation_table(rows), _ratio_table(ratios)]
    return json.dumps(data, indent=1, allow_nan=False) + "\n", "\n".join(text), _figure(rows, ratios)


def _found(rows: Sequence[Summary], label: str, problem: str, steps: int) -> Summary | None:
    return next((r for r in rows if (r.label, r.problem, r.steps) == (label, problem, steps)), None)


def _kl(row: Summary | None) -> str:
    return "diverged" if row is None or row.kl is None else f"{row.kl:.2g}" if row.kl < 1000 else f"{row.kl:.0e}"


def _inner_table(rows: Sequence[Summary]) -> str:
    lines = [
        "### A: inner steps, 20 steps",
        "",
        f"| method | {' | '.join(map(str, INNER))} | <= {GOOD:g} from |",
        "|---" * (len(INNER) + 2) + "|",
    ]
    for label in AGAINST_INNER:
        own = [_found(rows, f"{label}, {count} inner", "A", 20) for count in INNER]
        first = None
        for count, row in zip(reversed(INNER), reversed(own), strict=True):
            if row is None or row.kl is None or row.kl > GOOD:
                break
            first = count
        lines.append(f"| {label} | {' | '.join(map(_kl, own))} | {first or '-'} |")
    return "\n".join([*lines, ""])


def _ablation_table(rows: Sequence[Summary]) -> str:
    lines = []
    for problem in ("A", "C", "D"):
        lines += [
            f"### {problem}: ablations over the step size, 20 steps of 5",
            "",
            f"| part | {' | '.join(f'{size:g}' for size in SIZES)} |",
            "|---" * (len(SIZES) + 1) + "|",
        ]
        for label in ABLATED:
            own = [_found(rows, f"{label}, eta {size:g}", problem, 20) for size in SIZES]
            lines.append(f"| {label} | {' | '.join(map(_kl, own))} |")
        lines.append("")
    return "\n".join(lines)


def _ratio_table(ratios: dict[str, list[tuple[float, float]]]) -> str:
    picks = range(0, 25, 4)
    sigmas = [next(iter(ratios.values()))[k][0] for k in picks]
    lines = [
        "### Norm of the dropped term over that of the score kept, lambda 8",
        "",
        f"| problem | {' | '.join(f'sigma {sigma:.2g}' for sigma in sigmas)} |",
        "|---" * (len(sigmas) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(f'{pairs[k][1]:.2g}' for k in picks)} |" for name, pairs in ratios.items()]
    return "\n".join([*lines, ""])


def _figure(rows: Sequence[Summary], ratios: dict[str, list[tuple[float, float]]]) -> bytes:
    plt = pyplot()
    figure, axes = plt.subplots(2, 3, figsize=(19, 9.5))
    colours, marks = plt.get_cmap("tab20"), "osD^v<>P*Xh"
    shades = (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 1)

    def line(axis: Any, number: int, label: str, places: Sequence[float], own: Sequence[Summary | None]) -> None:
        pairs = [(x, row.kl) for x, row in zip(places, own, strict=True) if row is not None and row.kl is not None]
        values = [min(max(kl, 1e-5), 100.0) for _, kl in pairs]
        style = {"color": colours(shades[number % len(shades)]), "marker": marks[number % len(marks)], "markersize": 5}
        axis.plot([x for x, _ in pairs], values, label=label, **style)

    by_steps, by_inner, ratio = axes[0, 0], axes[0, 1], axes[0, 2]
    for number, label in enumerate(AGAINST_STEPS):
        line(by_steps, number, label, STEPS, [_found(rows, label, "A", n) for n in STEPS])
    for number, label in enumerate(AGAINST_INNER):
        line(by_inner, number, label, INNER, [_found(rows, f"{label}, {n} inner", "A", 20) for n in INNER])
    for number, label in enumerate(FLAT, start=len(AGAINST_INNER)):
        row = _found(rows, label, "A", 20)
        if row is not None and row.kl is not None:
            by_inner.axhline(row.kl, color=colours(shades[number]), linewidth=1, linestyle=":", label=label)
    for axis, title in ((by_steps, "A: KL against steps"), (by_inner, "A: KL against inner steps, 20 steps")):
        axis.axhline(GOOD, color="black", linestyle="--", linewidth=1, label=f"KL = {GOOD:g}")
        axis.set(xscale="log", yscale="log", title=title, ylabel="KL, nats")
    by_steps.set(xlabel="steps")
    by_inner.set(xlabel="inner steps")
    for number, (problem, pairs) in enumerate(ratios.items()):
        ratio.plot(
            [s for s, _ in pairs], [r for _, r in pairs], label=problem, color=colours(shades[number]), marker="o"
        )
    ratio.set(title="Term that BiG drops, over the score kept", xlabel="sigma_t (VP)", ylabel="ratio of norms")
    for axis, problem in zip(axes[1], ("A", "C", "D"), strict=True):
        for number, label in enumerate(ABLATED):
            line(axis, number, label, SIZES, [_found(rows, f"{label}, eta {s:g}", problem, 20) for s in SIZES])
        axis.set(xscale="log", yscale="log", title=f"{problem}: ablation, 20 steps of 5")
        axis.set(xlabel="step size eta", ylabel="KL, nats")
    for axis in axes.flat:
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    figure.tight_layout()
    return png(figure)


@click.command(name="lanpaint-figure")
@click.option("--particles", type=click.IntRange(10), default=4000, show_default=True, help="Samples of a run.")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Runs of each kind.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@format_option
@quiet_option
def figure(particles: int, seeds: int, threads: int, out: Path, form: Format, quiet: bool) -> None:
    """Remake LanPaint's synthetic figure: OUT gets lanpaint.json, lanpaint.md and lanpaint.png.

    Every finished run is kept in OUT/cells.jsonl and not made again.
    """
    pyplot()  # before the hours, not after
    torch.set_num_threads(threads)
    rows = summarise(measured(cells(particles, seeds), out, quiet))
    data, text, image = report(rows, protocol(particles, seeds, "paper", "uniform"))
    write_results(out, "lanpaint", data, text, image, form)


if __name__ == "__main__":
    run(figure)
