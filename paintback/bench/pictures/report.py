"""The report of a folder of results: one HTML page that holds all it shows, the same as Markdown, plots and a grid."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from paintback.bench.pictures.cases import Case, data_sha256, make_cases
from paintback.bench.pictures.cell import read_rows
from paintback.bench.pictures.runner import read_cells
from paintback.bench.pictures.suite import Suite
from paintback.bench.pictures.summary import ALL, PAIRED, RISING, write_summary
from paintback.images.encoding import write_whole

__all__ = ["TITLES", "grid", "pareto", "tables", "write_report"]

Row = dict[str, Any]
TITLES = {
    "psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS", "accuracy": "accuracy", "clip": "CLIP score",
    "context_psnr": "context PSNR, dB", "context_psnr_released": "context PSNR as released, dB", "fid": "FID",
    "patch_fid": "patch FID", "frechet_alexnet": "Frechet (AlexNet)", "frechet_classifier": "Frechet (classifier)",
}  # fmt: skip
ORDER = ("lpips", "fid", "frechet_alexnet", "psnr")  # the first that was measured sorts the tables
DIGITS = {"psnr": 2, "lpips": 4, "ssim": 4, "accuracy": 3}


def write_report(results: Path, out: Path, *, data: Path | None = None, rows: int = 8) -> list[Path]:
    """Writes the report.

    Args:
        results: folder that `paintback bench images` made.
        out: folder of the report.
        data: folder of the suite's data, for the grid of pictures; None for a report without.
        rows: pictures of the grid.

    Returns:
        The files.

    Raises:
        ValueError: if there are no results, or the data is not what they were made on.
    """
    _, path = write_summary(results)
    summary = json.loads(path.read_text(encoding="utf-8"))
    protocol, found = summary["protocol"], summary["rows"]
    if protocol is None:
        raise ValueError(f"{results} lacks protocol.json; give a folder that `paintback bench images` made.")
    suite = Suite.from_dict(protocol["suite"], protocol["suite"]["name"])
    figures: dict[str, bytes] = {"pareto": pareto(found)} if _plotted(found) else {}
    if data is not None:
        figures["grid"] = grid(results, suite, protocol, data, rows)
    text = markdown(suite, protocol, found, list(figures))
    page = as_html(suite, protocol, found, figures)
    written = {f"{suite.name}.md": text.encode(), f"{suite.name}.html": page.encode()}
    written |= {f"{suite.name}-{name}.png": image for name, image in figures.items()}
    written[f"{suite.name}.json"] = path.read_bytes()
    out.mkdir(parents=True, exist_ok=True)
    for name, content in written.items():
        write_whole(content, out / name)
    return [out / name for name in written]


def _sections(found: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """A title and rows for each table: every cost, all masks and then each."""
    made = []
    costs = {(row["budget"], row["budget_seconds"]): None for row in found}
    for budget, seconds in sorted(costs, key=lambda cost: (cost[0] or 0, cost[1] or 0)):
        cost = f"{budget} evaluations" if budget is not None else f"{seconds:g} s a sample"
        at = [row for row in found if (row["budget"], row["budget_seconds"]) == (budget, seconds)]
        shared = any(row["common"] for row in at)
        for common in (True, False):
            for mask in (ALL, *dict.fromkeys(row["mask"] for row in at if row["mask"] != ALL)):
                least = [row["pictures"] for row in at if row["mask"] == mask and row["common"]]
                some = [row for row in at if row["mask"] == mask and row["common"] == common]
                among = f", the {least[0]} pictures that all methods painted" if common and least else ""
                if shared and not common:
                    some = [row for row in some if not least or row["pictures"] > least[0]]
                    among = ", methods that painted more"
                if some:
                    made.append((f"{cost}, {mask}{among}", _sorted(some)))
    return made


def _comparable(found: Sequence[Row]) -> list[Row]:
    """Over all masks, and of every cost over the pictures that all of its methods painted."""
    rows = [row for row in found if row["mask"] == ALL]
    shared = {(row["budget"], row["budget_seconds"]) for row in rows if row["common"]}
    return [row for row in rows if row["common"] == ((row["budget"], row["budget_seconds"]) in shared)]


def _short(label: str, labels: Sequence[str]) -> str:
    """The method's name alone, where no other label has it."""
    name = label.partition(":")[0]
    return name if sum(other.partition(":")[0] == name for other in labels) == 1 else label


def _sorted(rows: list[Row]) -> list[Row]:
    first = next((metric for metric in ORDER if _measured(rows, metric)), None)
    if first is None:
        return sorted(rows, key=lambda row: str(row["label"]))
    sign = -1 if first in RISING else 1
    return sorted(rows, key=lambda row: math.inf if row["means"][first] is None else sign * row["means"][first])


def tables(found: Sequence[Row]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, heads and cells of every table."""
    made = []
    for title, rows in _sections(found):
        metrics = [metric for metric in TITLES if _measured(rows, metric)]
        heads = ["method", "steps", "pictures", "evaluations", "gradients", "seconds", "MB"]
        heads += [f"{TITLES[m]} {'(more is better)' if m in RISING else '(less is better)'}" for m in metrics]
        spread = any(row["diversity"] is not None for row in rows)
        some = any(row["behind"] is not None for row in rows)
        paired = next((metric for metric in PAIRED if metric in metrics and some), None)
        if paired:
            heads.append(f"{TITLES[paired]} behind the best, by picture")
        body = []
        for row in rows:
            memory = row["peak_memory_bytes"]
            line = [
                row["label"],
                str(row["steps"]),
                str(row["pictures"]),
                f"{row['evaluations']:g}",
                f"{row['vjps']:g}",
            ]
            line += [f"{row['seconds']:.3g}", "" if memory is None else f"{memory / 1e6:.0f}"]
            line += [_number(metric, row["means"][metric], row["intervals"][metric]) for metric in metrics]
            line += [_number(paired, row["behind"], row["behind_interval"])] if paired else []
            line += ["" if row["diversity"] is None else f"{row['diversity']:.1f}"] * spread
            body.append(line)
        made.append((title, heads + ["spread of samples"] * spread, body))
    return made


def _number(metric: str, mean: float | None, interval: float | None) -> str:
    if mean is None:
        return ""
    digits = DIGITS.get(metric, 2)
    return f"{mean:.{digits}f}" + ("" if interval is None else f" ± {interval:.{digits}f}")


def _facts(suite: Suite, protocol: Row) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in protocol["versions"].items())
    facts = [
        f"{suite.title}: {protocol['pictures']} pictures of {suite.size} x {suite.size}, masks "
        f"{', '.join(mask['name'] for mask in suite.masks)}, model {Path(protocol['model']).name}.",
        "Cost: evaluations of the denoiser for one sample, a gradient counted as one more; under guidance the network "
        "sees two rows in an evaluation, which count as one. Steps are the most that the budget pays for. Seconds and "
        "memory are those of a process that runs one method, "
        f"{protocol['threads']} thread(s), {protocol['batch']} samples at once.",
        "Intervals: 95 %, over pictures (Student's t; of Frechet distances, from resampled pictures). Frechet "
        "distances depend on the number of pictures and are not FID unless called so. How far a method is behind the "
        "best is the mean difference over the same pictures, with its own interval: where that does not reach 0, the "
        "two are told apart.",
        f"Data {protocol['data_sha256'][:12]}, weights {str(protocol['model_sha256'])[:12]}, {versions}.",
    ]
    left = [TITLES[name] for name, told in protocol["metrics"].items() if told is None]
    if left:
        facts.append(f"Not measured, as their networks were not given: {', '.join(left)}.")
    if suite.source:
        facts.append(f"After: {suite.source}.")
    return facts


def markdown(suite: Suite, protocol: Row, found: Sequence[Row], figures: Sequence[str]) -> str:
    """The report as Markdown; figures lie beside it."""
    lines = [f"# Results: {suite.name}", ""]
    for fact in _facts(suite, protocol):
        lines += [fact, ""]
    lines += [f"![{name}]({suite.name}-{name}.png)\n" for name in figures]
    for title, heads, body in tables(found):
        lines += [f"## {title}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        lines += ["| " + " | ".join(line) + " |" for line in body]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .5rem 0 2rem; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th { cursor: pointer; vertical-align: bottom; } th:first-child, td:first-child { text-align: left; }
tr:hover td { background: #f3f6ff; } img { max-width: 100%; image-rendering: pixelated; }
details { margin: 1rem 0; } summary { font-weight: 600; cursor: pointer; }
"""
SCRIPT = """
document.querySelectorAll('th').forEach(head => head.onclick = () => {
  const body = head.closest('table').tBodies[0], n = head.cellIndex;
  const value = row => { const text = row.cells[n].textContent, x = parseFloat(text); return isNaN(x) ? text : x; };
  const up = head.dataset.up = head.dataset.up === '1' ? '0' : '1';
  const sign = up === '1' ? 1 : -1;
  [...body.rows].sort((a, b) => value(a) < value(b) ? -sign : sign).forEach(row => body.append(row));
});
"""


def as_html(suite: Suite, protocol: Row, found: Sequence[Row], figures: dict[str, bytes]) -> str:
    """The report as one page that loads nothing; a click on a head sorts its table."""
    told = html.escape
    parts = [f"<h1>Results: {told(suite.name)}</h1>", *(f"<p>{told(fact)}</p>" for fact in _facts(suite, protocol))]
    for name, image in figures.items():
        shown = base64.b64encode(image).decode()
        parts.append(f'<img alt="{told(name)}" src="data:image/png;base64,{shown}">')
    for number, (title, heads, body) in enumerate(tables(found)):
        head = "".join(f"<th>{told(one)}</th>" for one in heads)
        rows = "".join("<tr>" + "".join(f"<td>{told(one)}</td>" for one in line) + "</tr>" for line in body)
        opened = " open" if number < 2 else ""
        parts.append(
            f"<details{opened}><summary>{told(title)}</summary>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></details>"
        )
    parts.append(f"<details><summary>protocol</summary><pre>{told(json.dumps(protocol, indent=1))}</pre></details>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{told(suite.name)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}<script>{SCRIPT}</script></body></html>\n"
    )


def pareto(found: Sequence[Row]) -> bytes:
    """Quality over all masks against evaluations and seconds, a panel for each pair, methods joined over budgets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, metrics = _comparable(found), _plotted(found)
    costs: dict[str, Callable[[Row], float]] = {
        "evaluations and gradients of a sample": lambda row: float(row["evaluations"] + row["vjps"]),
        "seconds of a sample": lambda row: float(row["seconds"]),
    }
    figure, axes = pyplot.subplots(len(metrics), 2, figsize=(15, 6.5 * len(metrics)), squeeze=False)
    for panels, metric in zip(axes, metrics, strict=True):
        for panel, (cost, price) in zip(panels, costs.items(), strict=True):
            series: dict[str, list[Row]] = {}
            for row in rows:
                series.setdefault(row["label"], []).append(row)
            points = []
            for number, (label, some) in enumerate(sorted(series.items())):
                some = sorted((row for row in some if row["means"][metric] is not None), key=price)
                x, y = [price(row) for row in some], [row["means"][metric] for row in some]
                marker = "osv^D<>pP*X"[number % 11]
                panel.plot(x, y, marker=marker, ms=5, lw=0.8, color=f"C{number % 10}")
                points += list(zip(x, y, strict=True))
                if x:
                    short = _short(label, list(series))
                    panel.annotate(short, (x[-1], y[-1]), fontsize=7, xytext=(4, 2), textcoords="offset points")
            sign = -1 if metric in RISING else 1
            front = [(x, y) for x, y in points if not any(a <= x and sign * b < sign * y for a, b in points)]
            panel.plot(*zip(*sorted(front), strict=True), color="0.7", lw=4, zorder=0)
            panel.set(xlabel=cost, ylabel=TITLES[metric], xscale="log")
            panel.grid(alpha=0.3)
    figure.tight_layout()
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=80)
    pyplot.close(figure)
    return sink.getvalue()


def _plotted(found: Sequence[Row]) -> list[str]:
    """The two metrics of the plot; fewer where fewer were measured."""
    rows = _comparable(found)
    liked = ("lpips", "fid", "frechet_alexnet", "frechet_classifier", "psnr")
    return [metric for metric in (*liked, *(m for m in TITLES if m not in liked)) if _measured(rows, metric)][:2]


def _measured(rows: Sequence[Row], metric: str) -> bool:
    return any(row["means"].get(metric) is not None for row in rows)


def grid(results: Path, suite: Suite, protocol: Row, data: Path, rows: int) -> bytes:
    """Pictures by methods: the truth, what was shown, and every method's first sample, at the budget most cells have.

    Raises:
        ValueError: if the data is not what the results were made on.
    """
    first, further = make_cases(suite, data, limit=protocol["pictures"])
    if data_sha256([*first, *further]) != protocol["data_sha256"]:
        raise ValueError(f"{data} is not the data that {results} was made on.")
    cells = read_cells(results)
    budgets = [(cell.budget, cell.seconds) for cell, _ in cells]
    most = max(dict.fromkeys(budgets), key=budgets.count)
    shown: dict[tuple[str, str], dict[str, bytes]] = {}
    labels = []
    for cell, folder in cells:
        if (cell.budget, cell.seconds) == most:
            labels.append(cell.label)
            for path in sorted(folder.glob("part-*.parquet")):
                for row in read_rows(path, ["picture", "mask", "sample", "png"]):
                    if row["sample"] == 0:
                        shown.setdefault((row["picture"], row["mask"]), {})[cell.label] = row["png"]
    chosen = _spread_out([c for c in first if len(shown.get((c.picture, c.mask), {})) == len(labels)], suite, rows)
    if not chosen:
        raise ValueError(f"No picture in {results} was painted by all methods; let `bench images` end first.")
    side = max(64, suite.size)
    sheet = Image.new("RGB", (side * (len(labels) + 2), side * len(chosen) + 26), "white")
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(["truth", "shown", *labels]):
        name, _, fields = label.partition(":")
        pen.text((column * side + 2, 1), name, fill="black", font_size=11)
        pen.text((column * side + 2, 13), fields[: side // 5], fill="gray", font_size=9)
    for line, case in enumerate(chosen):
        hidden = np.where(case.hole.reshape(*case.hole.shape, *[1] * (case.truth.ndim - 2)), 128, case.truth)
        pictures = [Image.fromarray(case.truth), Image.fromarray(hidden.astype(np.uint8))]
        pictures += [Image.open(io.BytesIO(shown[case.picture, case.mask][label])) for label in labels]
        for column, picture in enumerate(pictures):
            big = picture.convert("RGB").resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(big, (column * side, 26 + line * side))
    sink = io.BytesIO()
    sheet.save(sink, "PNG", optimize=True)
    return sink.getvalue()


def _spread_out(cases: Sequence[Case], suite: Suite, count: int) -> list[Case]:
    """As many cases as asked for, masks in turn, pictures all different."""
    chosen: list[Case] = []
    by_mask = [[case for case in cases if case.mask == mask["name"]] for mask in suite.masks]
    for place in range(count):
        some = [case for case in by_mask[place % len(by_mask)] if case.picture not in {c.picture for c in chosen}]
        if some:
            chosen.append(some[0])
    return chosen
