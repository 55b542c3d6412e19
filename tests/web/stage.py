"""What tests do with the page in a browser."""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from paintback.models.catalogue import recommended
from tests.web.sites import EXAMPLES

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SIDE = 96
OWN = recommended("photo").method  # by which a result is called that nobody chose a method for


def crop(tmp_path: Path, name: str = "cup.png") -> Path:
    """A small photograph, for speed."""
    path = tmp_path / name
    Image.open(EXAMPLES / "object.jpg").convert("RGB").crop((300, 120, 300 + SIDE, 120 + SIDE)).save(path)
    return path


def open_picture(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#open")
    chooser.value.set_files(path)
    expect(page.locator("#welcome")).to_be_hidden()
    expect(page.locator("#picture-name")).to_contain_text("×")


def spot(page: Page, x: float, y: float, side: int = SIDE) -> tuple[float, float]:
    """Where a pixel of a square picture that fits the stage is on the screen."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    scale = min(16, (box["width"] - 52) / side, (box["height"] - 52) / side)
    return (
        box["x"] + box["width"] / 2 + (x - side / 2) * scale,
        box["y"] + box["height"] / 2 + (y - side / 2) * scale,
    )


def stroke(page: Page, *points: tuple[float, float]) -> None:
    page.mouse.move(*spot(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*spot(page, *point), steps=4)
    page.mouse.up()


def mask_of(page: Page, tmp_path: Path) -> np.ndarray:
    """The mask that the page lets one download, True = white."""
    with page.expect_download() as download:
        page.click("[data-do=save]")
    path = tmp_path / "downloaded-mask.png"
    download.value.save_as(path)
    return np.asarray(Image.open(path).convert("L")) > 127


def upload_mask(page: Page, path: Path, wanted: np.ndarray) -> None:
    """Takes a mask from a file, and waits until it is the one that is wanted."""
    with page.expect_file_chooser() as chooser:
        page.click("[data-do=load]")
    with page.expect_response(lambda response: "/mask" in response.url):
        chooser.value.set_files(path)
    for _ in range(20):
        if (mask_of(page, path.parent) == wanted).all():
            return
        page.wait_for_timeout(100)
    raise AssertionError("the mask is another one")


def run_to_end(page: Page) -> None:
    """Runs what is set, however slow this machine is: the page asks first about what takes more than a minute."""
    page.click("#run")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#run:visible, #ask:visible").first).to_be_visible(timeout=240_000)
    if page.locator("#ask").is_visible():
        page.click("#ask button[value=run]")
        expect(page.locator("#run")).to_be_visible(timeout=240_000)


def run_long(page: Page) -> None:
    """Runs what takes more than a minute, which is asked about where it is known."""
    expect(page.locator("#run-text")).to_contain_text("about")
    page.click("#run")
    under_way(page)


def under_way(page: Page) -> None:
    """Waits for the first step of what was begun, and answers the question if it is asked."""
    for _ in range(3000):
        if page.locator("#ask").is_visible():
            page.click("#ask button[value=run]")
        if page.locator("#progress-text").inner_text().find("step") >= 0:
            return
        page.wait_for_timeout(100)
    raise AssertionError("it does not run")


def screen(page: Page) -> np.ndarray:
    """The stage within the ring that shows the focus."""
    shot = np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")).astype(int)
    return shot[8:-8, 8:-8]


def differs(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two screens show something else, beyond the odd pixel of a button's edge and rounding."""
    return bool((np.abs(first - second).max(-1) > 8).sum() > 100)


def shows(page: Page, wanted: np.ndarray) -> None:
    """Waits until the stage looks like this."""
    for _ in range(100):
        if not differs(screen(page), wanted):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{(screen(page) != wanted).any(-1).sum()} pixels differ")


def no_serious_fault(page: Page) -> None:
    found = Axe().run(page)
    faults = [
        f"{fault['id']}: {fault['help']} ({', '.join(str(node['target']) for node in fault['nodes'])})"
        for fault in found.response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert not faults, "\n".join(faults)


def drop(page: Page, path: Path) -> None:
    """Drops a file on the page, as the browser does it."""
    page.evaluate(
        """async ([name, data]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: "image/png" }));
            for (const kind of ["dragenter", "dragover", "drop"]) {
                const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
                document.body.dispatchEvent(new DragEvent(kind, options));
            }
        }""",
        [path.name, b64encode(path.read_bytes()).decode()],
    )


def drop_folder(page: Page, path: Path) -> None:
    """Drops a folder on the page as a hand does it: the browser reads it from the disk, with all that lies in it."""
    box = page.locator("#batch-drop").bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **at})
