"""`paintback bench report`: the numbers, the pictures, and a page that needs nothing else."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student

from paintback.bench.pictures import report
from paintback.bench.pictures.cell import Cell
from paintback.bench.pictures.summary import ALL, summarise
from tests.bench.pictures.conftest import write_idx_folder

LABELS = ("ddnm", "ding", "dps")


@pytest.fixture(scope="module")
def made(done, idx, tmp_path_factory):
    """The report of the finished run, with its grid."""
    from tests.bench.pictures.conftest import run_command

    out = tmp_path_factory.mktemp("report")
    assert run_command("bench", "report", done[1], "-o", out, "--data", idx, "--rows", 2) == 0
    return out


def test_its_files(made, done):
    names = ["small-grid.png", "small-pareto.png", "small.html", "small.json", "small.md"]
    assert sorted(path.name for path in made.iterdir()) == names
    assert (made / "small.json").read_bytes() == (done[1] / "summary.json").read_bytes()
    for name in ("pareto", "grid"):
        with Image.open(made / f"small-{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 100 and len(picture.convert("L").getcolors()) > 10


def test_the_page_loads_nothing(made):
    page = (made / "small.html").read_text(encoding="utf-8")
    sources = re.findall(r"""\b(?:src|href|action|data|poster)\s*=\s*["']?([^"'\s>]+)""", page)
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,") for source in sources)
    without = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?://|url\(|@import|<link|<iframe|fetch\(", without)
    for label in LABELS:
        assert page.count(f"<td>{label}</td>") >= 3
    assert page.count("<table>") == page.count("</table>") == 6  # both masks and all, everything and in common
    assert "under guidance the network sees two rows in an evaluation, which count as one" in page


def sections(made):
    """Rows of the Markdown by title."""
    found = {}
    for part in (made / "small.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line[:1] == "|"]
        found[title] = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    return found


def test_the_markdown_has_the_summarys_numbers(made, done):
    rows = json.loads((done[1] / "summary.json").read_text())["rows"]
    shown = sections(made)
    least = min(row["pictures"] for row in rows)
    more = [row for row in rows if not row["common"] and row["pictures"] > least]
    shared = [row for row in rows if row["common"]]
    assert len(rows) == 18 and len(shared) == 9 and 0 < len(more) < 9
    assert sum(map(len, shown.values())) == len(more) + len(shared)
    for row in more + shared:
        title = f"6 evaluations, {row['mask']}"
        title += f", the {least} pictures that all methods painted" if row["common"] else ", methods that painted more"
        (line,) = [line for line in shown[title] if line["method"] == row["label"]]
        for head, key, digits in (
            ("PSNR, dB (more is better)", "psnr", 2),
            ("SSIM (more is better)", "ssim", 4),
            ("accuracy (more is better)", "accuracy", 3),
        ):
            assert line[head] == f"{row['means'][key]:.{digits}f} ± {row['intervals'][key]:.{digits}f}"
        assert [line[head] for head in ("steps", "pictures", "evaluations", "gradients")] == [
            f"{row[key]:g}" for key in ("steps", "pictures", "evaluations", "vjps")
        ]
        assert line["spread of samples"] == f"{row['diversity']:.1f}"
    best = [line["method"] for line in shown[f"6 evaluations, {ALL}, the {least} pictures that all methods painted"]]
    by_psnr = {row["label"]: row["means"]["psnr"] for row in shared if row["mask"] == ALL}
    assert best == sorted(by_psnr, key=lambda label: -by_psnr[label])


def test_the_grid_shows_what_was_painted(made, done, idx):
    from tests.bench.pictures.test_run import painted

    sheet = np.asarray(Image.open(made / "small-grid.png"))
    assert sheet.shape == (26 + 2 * 64, (2 + len(LABELS)) * 64, 3)
    pictures = painted(done[1])
    for row, key in enumerate((("00000", "box"), ("00001", "half"))):
        for column, label in enumerate(LABELS):
            big = pictures[(label, *key, 0)].repeat(2, 0).repeat(2, 1)
            tile = sheet[26 + row * 64 : 90 + row * 64, (2 + column) * 64 : (3 + column) * 64]
            assert np.array_equal(tile, np.repeat(big[..., None], 3, axis=2))


def test_other_data_is_refused(done, call, tmp_path):
    other = write_idx_folder(tmp_path / "other", seed=5)
    code, _, err = call("bench", "report", done[1], "-o", tmp_path / "out", "--data", other)
    assert code == 2 and "is not the data that" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folders_without_results_are_refused(done, call, tmp_path):
    code, _, err = call("bench", "report", tmp_path, "-o", tmp_path / "out")
    assert code == 2 and "holds no results; `paintback bench images` makes them." in err
    shutil.copytree(done[1], tmp_path / "copy")
    for text, message in ((None, "lacks protocol.json"), ("{", "is not JSON"), ("[]", "is no protocol")):
        path = tmp_path / "copy" / "protocol.json"
        path.unlink() if text is None else path.write_text(text)
        code, _, err = call("bench", "report", tmp_path / "copy", "-o", tmp_path / "out")
        assert code == 2 and message in err
    assert not (tmp_path / "out").exists()


def row(label, mask=ALL, common=False, **means):
    cost = {"steps": 5, "evaluations": 5.0, "vjps": 0, "seconds": 0.1, "peak_memory_bytes": None}
    return {
        "label": label, "budget": 6, "budget_seconds": None, "mask": mask, "common": common, "pictures": 2, **cost,
        "diversity": None, "means": means, "intervals": dict.fromkeys(means), "behind": None, "behind_interval": None,
    }  # fmt: skip


def test_tables_of_what_was_measured_in_part():
    """A method with too few pictures for a Frechet distance comes last and does not take the column away."""
    rows = [
        row("few", frechet_alexnet=None, ssim=0.5),
        row("b", frechet_alexnet=3.0, ssim=0.2),
        row("a", frechet_alexnet=2.0, ssim=0.1),
    ]
    ((title, heads, body),) = report.tables(rows)
    assert title == "6 evaluations, all masks"
    assert [line[0] for line in body] == ["a", "b", "few"]
    place = heads.index("Frechet (AlexNet) (less is better)")
    assert [line[place] for line in body] == ["2.00", "3.00", ""]
    rising = [row("none", psnr=None), row("low", psnr=10.0), row("high", psnr=20.0)]
    assert [line[0] for line in report.tables(rising)[0][2]] == ["high", "low", "none"]


def test_methods_are_compared_picture_by_picture():
    """Pictures that differ by 1 and methods by 0.01: the intervals overlap, and the difference is told all the same."""
    cells = [Cell(name, name, {}, 6, None, 5) for name in ("close", "best", "alone")]
    scores = {"best": {"a": 0.1, "b": 1.1, "c": 2.1}, "close": {"a": 0.11, "b": 1.12, "c": 2.13}}
    scores["alone"] = {"a": 3.0}

    def holes(name):
        cost = {"evaluations": 5, "vjps": 0, "seconds": 0.1, "peak_memory_bytes": None}
        return [{"picture": at, "mask": "box", "sample": 0, "lpips": one, **cost} for at, one in scores[name].items()]

    rows = summarise([(cell, holes(cell.label)) for cell in cells])
    found = {(row.label, row.mask): row for row in rows if not row.common}
    assert found["best", ALL].behind is None and found["alone", ALL].behind is None  # one picture
    assert found["close", ALL].behind == pytest.approx(0.02)
    assert found["close", ALL].behind_interval == pytest.approx(student.ppf(0.975, 2) * 0.01 / math.sqrt(3))
    heads, body = next(
        (heads, body) for title, heads, body in report.tables([asdict(row) for row in rows if not row.common])
        if ALL in title
    )  # fmt: skip
    place = heads.index("LPIPS behind the best, by picture")
    assert {line[0]: line[place] for line in body} == {"best": "", "close": "0.0200 ± 0.0248", "alone": ""}


def test_the_plot_takes_any_metrics(done, tmp_path, call):
    for means in ({"ssim": 0.5}, {"psnr": 20.0, "lpips": 0.1, "ssim": 0.5}, {"psnr": 20.0, "lpips": None}):
        with Image.open(io.BytesIO(report.pareto([row("a", **means), row("b", **means)]))) as picture:
            assert picture.width > 500
    shutil.copytree(done[1], tmp_path / "copy")  # a suite without metrics: costs alone
    from paintback.bench.pictures.cell import read_rows, write_rows

    for path in (tmp_path / "copy").glob("cells/*/score-*.parquet"):
        keys = ("picture", "number", "mask", "sample")
        write_rows([{key: one[key] for key in keys} for one in read_rows(path)], path)
    code, _, err = call("bench", "report", tmp_path / "copy", "-o", tmp_path / "out")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["small.html", "small.json", "small.md"]
