"""How fast the page is, in a real Chromium, beside a server of this machine: the figures of docs/page.md.

    python -m research.page_speed

Each number is the median of several tries; times are taken inside the page, from the event to the frame after it.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from paintback.cli.output import Format, emit, format_option, table
from research.command import run

__all__ = ["measure"]

EXAMPLES = Path(__file__).resolve().parents[1] / "paintback" / "examples"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu"]
SETTLED = 1500  # milliseconds, after which what was sent has been looked at
# From a click on Run to the frame that shows the draft, and to the frame that shows the first prediction.
RUN = """() => new Promise((resolve) => {
    const began = performance.now(), draft = document.getElementById("draft"), found = {};
    document.getElementById("run").click();
    const look = () => {
        const now = performance.now() - began;
        document.querySelector("#ask[open] button[value=run]")?.click(); // a busy machine asks first
        if (!draft.hidden) found.draft ??= now;
        else if (found.draft) found.preview ??= now;
        if (!document.getElementById("bar").hidden) return resolve({ ...found, result: now });
        setTimeout(() => requestAnimationFrame(look));
    };
    look();
})"""
OPENED = """() => { window.opened = new Promise((resolve) => {
    document.getElementById("picture-name").textContent = "";
    document.getElementById("file").addEventListener("change", () => {
        const began = performance.now();
        const look = () => (/ × /.test(document.getElementById("picture-name").textContent)
            ? setTimeout(() => resolve(performance.now() - began)) : requestAnimationFrame(look));
        look();
    }, { once: true });
}); }"""
LATE = """() => {
    window.late = [];
    document.getElementById("canvas").addEventListener("pointermove", (event) => {
        requestAnimationFrame(() => setTimeout(() => window.late.push(performance.now() - event.timeStamp)));
    });
}"""


def large(path: Path) -> None:
    """Twelve megapixels as a camera's: smooth colours and grain."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (300, 400, 3), dtype=np.uint8)).resize((4000, 3000))
    grain = rng.normal(0, 4, (3000, 4000, 1))
    Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def measure(times: int, folder: Path, address: str) -> list[dict[str, Any]]:
    """What is measured, and its milliseconds.

    Args:
        times: tries of each.
        folder: for pictures.
        address: of a server.
    """
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise ValueError("there is no Chromium here; install it.")
    large(folder / "large.jpg")
    rows: list[dict[str, Any]] = []

    def tell(what: str, values: list[float]) -> None:
        rows.append({"what": what, "ms": round(statistics.median(values)), "of": len(values)})

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=ARGUMENTS)

        def visit() -> Any:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            page.wait_for_selector("#method option", state="attached", timeout=120_000)
            return page

        def opened(page: Any, name: Path) -> float:
            with page.expect_file_chooser() as chooser:
                page.click("#open")
            page.evaluate(OPENED)
            chooser.value.set_files(name)
            took = float(page.evaluate("() => window.opened"))
            page.wait_for_timeout(SETTLED)
            return took

        paints = []
        for _ in range(times):
            page = visit()
            entries = "() => performance.getEntriesByName('first-contentful-paint').map((one) => one.startTime)"
            paints += page.evaluate(entries)
            page.close()
        tell("page load: first paint, empty cache", paints)
        page = visit()
        tell("open, 600 x 400", [opened(page, EXAMPLES / "object.jpg") for _ in range(times)])
        page.click("#entry-quality span:text-is('Fast')")
        runs = []
        for _ in range(times):
            opened(page, EXAMPLES / "object.jpg")
            box = page.locator("#canvas").bounding_box()
            page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"])
            page.mouse.down()
            page.mouse.move(box["x"] + 0.62 * box["width"], box["y"] + 0.72 * box["height"], steps=4)
            page.mouse.up()
            page.wait_for_timeout(SETTLED)
            runs.append(page.evaluate(RUN))
        for name, text in (("draft", "first draft"), ("preview", "first preview"), ("result", "result")):
            tell(f"Run, Fast, 600 x 400: {text}", [one[name] for one in runs if name in one])
        tell("open, 12 megapixels", [opened(page, folder / "large.jpg") for _ in range(times)])
        page.evaluate(LATE)
        box = page.locator("#canvas").bounding_box()
        late: list[float] = []
        for k in range(times):
            page.evaluate("() => { window.late.length = 0; }")
            y = box["y"] + box["height"] * (0.3 + 0.4 * k / times)
            page.mouse.move(box["x"] + box["width"] * 0.25, y)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * 0.75, y + 40, steps=60)
            page.mouse.up()
            page.wait_for_timeout(200)
            late += page.evaluate("() => window.late")
        tell("brush at 12 megapixels: from the hand to after the frame", late)
        rows.append(
            {"what": "the same, 95 % of the moves", "ms": round(sorted(late)[int(0.95 * len(late))]), "of": len(late)}
        )
        browser.close()
    return rows


@click.command(name="page-speed")
@click.option("--times", type=click.IntRange(1), default=3, show_default=True, help="Tries of each.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of the server.")
@format_option
def main(times: int, threads: int | None, form: Format) -> None:
    """Measure the page in a real Chromium."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "paintback", "serve", "--port", "0", "--data", str(folder / "data")]
        command += [] if threads is None else ["--threads", str(threads)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            rows = measure(times, folder, server.stdout.readline().strip())
        finally:
            server.terminate()
            server.wait(30)
    cells = [("what", "ms", "tries"), *((row["what"], str(row["ms"]), str(row["of"])) for row in rows)]
    emit(form, rows, table(cells))


if __name__ == "__main__":
    run(main)
