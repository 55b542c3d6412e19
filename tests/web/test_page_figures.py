"""The figures of docs/page.md: the page in every state, each looked at before it was committed. Slow."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.web.stage import crop, no_serious_fault, run_to_end, under_way

pytestmark = pytest.mark.slow

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"


def figure(page: Page, name: str, width: int = 680) -> None:
    """A screenshot for the documentation, small enough to be kept beside it."""
    page.mouse.move(1, 1)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.save(FIGURES / f"page-{name}.jpg", quality=56, optimize=True, progressive=True)


def example(page: Page) -> None:
    page.click("#example")
    expect(page.locator("#toast")).to_contain_text("spoon")
    page.click("#toast-close")
    expect(page.locator("#run-text")).to_contain_text("about")


@pytest.mark.timeout(1500)  # a slow machine takes its time
def test_painting(visit, server) -> None:
    page = visit(server, advanced=False)
    figure(page, "empty", 640)
    example(page)
    figure(page, "mask")
    page.click("#advanced > summary")
    page.fill("#entry-steps", "40")
    page.click("#advanced > summary")
    page.fill("#entry-samples", "2")
    page.click("#run")
    expect(page.locator("#draft")).to_be_visible()
    figure(page, "draft")
    under_way(page)
    step = re.compile(r"sample 1 of 2, step ([4-9]|\d\d)")
    expect(page.locator("#progress-text")).to_contain_text(step, timeout=240_000)
    figure(page, "running")
    expect(page.locator("#bar")).to_be_visible(timeout=300_000)
    figure(page, "result")
    page.click("#spread")
    expect(page.locator("#legend")).to_be_visible()
    figure(page, "uncertainty")
    page.click("#history-open")
    expect(page.locator("#history-days li")).to_have_count(1)
    page.wait_for_timeout(1000)
    figure(page, "history")
    page.click("#history-close")
    page.fill("#entry-samples", "1")
    page.click("#advanced > summary")
    page.fill("#entry-steps", "10")
    page.click("#advanced > summary")
    page.click("#tab-compare")
    page.get_by_label("ddnm", exact=True).check()
    run_to_end(page)
    figure(page, "compare")


def test_finding_and_asking(visit, server) -> None:
    page = visit(server, advanced=False, color_scheme="dark")
    example(page)
    page.click("[data-do=clear]")
    page.click("[data-tool=object]")
    with page.expect_response(lambda response: response.url.endswith("/find") and response.ok):
        box = page.locator("#canvas").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.60, box["y"] + box["height"] * 0.66)
    page.wait_for_timeout(500)
    page.click("text=Advanced")
    no_serious_fault(page)
    figure(page, "dark")
    page.fill("#entry-average", "64")
    page.click("#run")
    expect(page.locator("#ask")).to_be_visible()
    figure(page, "question", 640)
    page.keyboard.press("Escape")


def test_many(visit, server, tmp_path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    whole = Image.open(crop(tmp_path))
    for k, name in enumerate(("cup", "saucer", "spoon", "table")):
        whole.rotate(90 * k).save(folder / f"{name}.png")
        mask = Image.new("L", whole.size)
        mask.paste(255, (30, 30 + k, 42, 42))
        mask.save(folder / f"{name}-mask.png")
    page = visit(server, advanced=False)
    page.click("#tab-batch")
    with page.expect_file_chooser() as chooser:
        page.click("#batch-folder")
    chooser.value.set_files(folder)
    page.click("#entry-quality span:text-is('Fast')")
    page.click("#run")
    expect(page.locator("#batch-list [data-state=done]").nth(1)).to_be_visible(timeout=240_000)  # two, or more
    figure(page, "batch")
    expect(page.locator("#batch-list [data-state=done]")).to_have_count(4, timeout=240_000)


def test_phone(visit, server) -> None:
    page = visit(
        server, advanced=False, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True,
        device_scale_factor=2,
    )  # fmt: skip
    example(page)
    figure(page, "phone", 330)
    page.click("#advanced > summary")
    page.fill("#entry-steps", "5")
    page.click("#advanced > summary")
    run_to_end(page)
    expect(page.locator("#bar")).to_be_visible()
    page.evaluate("() => scrollTo(0, 0)")
    figure(page, "phone-result", 330)
