"""The page in a real browser: what people do with it, by mouse and by keyboard. Slow.

The content security policy forbids `eval`, so the tests look at elements and never at functions of their own.
"""

from __future__ import annotations

import csv
import io
import re

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from paintback.images import read_settings
from tests.web.stage import (
    OWN,
    SIDE,
    crop,
    differs,
    drop,
    mask_of,
    no_serious_fault,
    open_picture,
    run_long,
    run_to_end,
    screen,
    shows,
    stroke,
    upload_mask,
)

pytestmark = pytest.mark.slow


def test_draw_run_compare_download_drop_back(visit, server, tmp_path) -> None:
    paints = []
    for _ in range(3):  # each with an empty cache
        page = visit(server, advanced=False)
        paints += page.evaluate("() => performance.getEntriesByName('first-contentful-paint').map((e) => e.startTime)")
    print(f"first paint after {', '.join(f'{paint:.0f}' for paint in paints)} ms")
    assert min(paints) < 1000  # the other tests of a busy machine are no part of the page
    no_serious_fault(page)
    page.click("text=Advanced")
    photo = crop(tmp_path)
    open_picture(page, photo)

    # brush, eraser, box, lasso, undo, redo, invert, grow, clear, each seen in the downloaded mask
    stroke(page, (30, 30), (50, 30))
    drawn = mask_of(page, tmp_path)
    assert drawn.shape == (SIDE, SIDE) and drawn[30, 40] and not drawn[60, 60]
    page.click("[data-tool=eraser]")
    stroke(page, (30, 30), (34, 30))
    assert not mask_of(page, tmp_path)[30, 30]
    page.keyboard.press("Control+z")
    assert (mask_of(page, tmp_path) == drawn).all()
    page.click("[data-tool=box]")
    stroke(page, (60, 60), (70, 66))
    boxed = mask_of(page, tmp_path)
    assert boxed[61:65, 61:69].all() and abs(int(boxed.sum() - drawn.sum()) - 60) <= 18
    page.click("[data-tool=lasso]")
    stroke(page, (10, 60), (20, 60), (20, 70), (10, 70))
    assert mask_of(page, tmp_path)[62:68, 12:18].all()
    page.click("[data-do=undo]")
    assert (mask_of(page, tmp_path) == boxed).all()
    page.click("[data-do=redo]")
    assert mask_of(page, tmp_path)[65, 15]
    page.click("[data-do=invert]")
    assert not mask_of(page, tmp_path)[65, 15]
    page.click("[data-do=undo]")
    before = mask_of(page, tmp_path)
    page.click("[data-do=grow]")
    grown = mask_of(page, tmp_path)
    assert (grown | ~before).all() and grown[30 - 3, 40] and grown.sum() > before.sum()
    page.click("[data-do=clear]")
    assert not mask_of(page, tmp_path).any()
    page.click("#run")
    expect(page.locator("#toast")).to_contain_text("Paint over what shall be replaced")

    # a mask from a file
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[30:42, 40:52] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    upload_mask(page, tmp_path / "mask.png", mask > 0)

    # run, look, compare
    page.fill("#entry-steps", "4")
    page.fill("#entry-samples", "3")
    page.fill("#seed", "11")
    run_to_end(page)
    expect(page.locator("#strip .tile:enabled")).to_have_count(3)
    expect(page.locator("#strip .tile").nth(2)).to_contain_text("seed 13")
    spent = httpx.get(f"{server.url}api/jobs").json()[0]["outputs"][0]["evaluations"]
    expect(page.locator("#strip .tile").nth(0)).to_contain_text(re.compile(rf"{spent:g} ev, .* s"))
    expect(page.locator("#seed-help")).to_contain_text("11 to 13")
    expect(page.locator("#bar")).to_be_visible()
    page.locator("#slider").fill("100")
    after_slider = screen(page)
    page.locator("#slider").fill("0")
    assert differs(screen(page), after_slider)  # left is before, right is after
    page.locator("#canvas").focus()
    result = screen(page)
    page.keyboard.down("Tab")
    page.wait_for_timeout(400)
    original = screen(page)
    page.keyboard.up("Tab")
    assert differs(original, result)
    shows(page, result)
    expect(page.locator("#canvas")).to_be_focused()  # a long press moves no focus, a short one does
    page.keyboard.press("Tab")
    expect(page.locator("#canvas")).not_to_be_focused()
    page.click("#spread")
    expect(page.locator("#legend")).to_be_visible()
    expect(page.locator("#legend-most")).to_contain_text("of 255")
    assert differs(screen(page), result)
    no_serious_fault(page)

    # download the second sample, and drop it back on a page that knows nothing
    page.locator("#strip .tile").nth(1).click()
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == f"cup-{OWN}-12.png"
    saved = tmp_path / f"cup-{OWN}-12.png"
    download.value.save_as(saved)
    assert read_settings(saved)["seed"] == 12
    made = np.asarray(Image.open(saved))
    assert (made[mask == 0] == np.asarray(Image.open(photo))[mask == 0]).all()

    page = visit(server)
    drop(page, saved)
    expect(page.locator("#toast")).to_contain_text(f"settings, the picture and the mask of cup-{OWN}-12.png are back")
    for name, value in (
        ("#entry-steps", "4"),
        ("#seed", "12"),
        ("#method", OWN),
        ("#model", "photo"),
        ("#entry-samples", "1"),
    ):
        expect(page.locator(name)).to_have_value(value)
    assert (mask_of(page, tmp_path) == (mask > 0)).all()
    run_to_end(page)
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "again.png")
    assert (np.asarray(Image.open(tmp_path / "again.png")) == made).all()
    page.click("#continue")
    expect(page.locator("#picture-name")).to_contain_text(f"cup-{OWN}-12.png")
    assert not mask_of(page, tmp_path).any()


def test_by_keyboard_alone(visit, server, tmp_path) -> None:
    page = visit(server, advanced=False)
    page.on("filechooser", lambda chooser: None)  # asked for early: it takes the driver a moment to catch them
    page.keyboard.press("Tab")
    expect(page.locator("#open")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(crop(tmp_path))
    expect(page.locator("#picture-name")).to_contain_text("×")
    order = []
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(page.evaluate("() => document.activeElement.id || document.activeElement.dataset.tool"))
    assert order[:5] == [
        "tab-paint",
        "history-open",
        "keys-open",
        "brush",
        "canvas",
    ]  # tabs and tools are one stop each
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#canvas")).to_be_focused()
    page.keyboard.press("r")
    expect(page.locator("[data-tool=box]")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("[data-do=undo]")).to_be_enabled()
    mask = mask_of(page, tmp_path)
    assert mask[48:58, 48:58].all() and mask.sum() == 100
    page.locator("#canvas").focus()
    page.keyboard.press("b")
    size = page.locator("#size-out").inner_text()
    page.keyboard.press("]")
    assert int(page.locator("#size-out").inner_text()) > int(size)
    page.locator("#entry-quality input:checked").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("Fast", exact=True)).to_be_checked()
    page.locator("#advanced > summary").focus()
    page.keyboard.press("Enter")
    page.locator("#entry-steps").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("3")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#bar")).to_be_visible(timeout=240_000)
    page.locator("#canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    expect(page.locator("#picture-name")).to_contain_text(f"cup-{OWN}")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    no_serious_fault(page)
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()


def test_extend_by_dragging_the_frame_and_compare_methods(visit, server, tmp_path) -> None:
    page = visit(server)
    open_picture(page, crop(tmp_path))
    page.click("[data-tool=frame]")
    stroke(page, (SIDE, 48), (SIDE + 8, 48))
    value = int(page.locator("[data-side=right]").input_value())
    assert 6 <= value <= 10
    page.fill("[data-side=right]", "8")
    page.click("#tab-compare")
    ticked = page.locator("#compare-methods input:checked")
    while ticked.count():
        ticked.first.uncheck()
    for name in ("ddnm", "ding"):
        page.get_by_label(name, exact=True).check()
    page.fill("#entry-steps", "3")
    run_to_end(page)
    tiles = page.locator("#grid .tile:enabled")
    expect(tiles).to_have_count(2)
    for k, name in enumerate(("ding", "ddnm")):
        expect(tiles.nth(k)).to_contain_text(re.compile(rf"{name}.*evaluations, .* s"))
    no_serious_fault(page)
    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open(newline="")))
    assert [row["method"] for row in rows] == ["ding", "ddnm"] and rows[0]["seed"] == rows[1]["seed"]
    jobs = httpx.get(f"{server.url}api/jobs").json()[::-1]
    for row, job, shown in zip(rows, jobs, page.locator("#table tbody tr").all(), strict=True):
        output = job["outputs"][0]
        assert float(row["evaluations"]) == output["evaluations"] and float(row["seconds"]) == output["seconds"]
        assert row["picture"] == "cup.png" and row["steps"] == "3"
        expect(shown).to_contain_text(job["request"]["method"])
    tiles.nth(1).click()
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "wide.png")
    assert Image.open(tmp_path / "wide.png").size == (SIDE + 8, SIDE)


def test_refusals_previews_and_stop(visit, server, tmp_path) -> None:
    page = visit(server, refusals=True)
    broken = tmp_path / "broken.png"
    data = crop(tmp_path).read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    # The server may be quicker than the browser, which looks at the file too.
    page.evaluate(
        """() => {
            const quick = createImageBitmap;
            window.createImageBitmap = async (...given) => {
                window.createImageBitmap = quick;
                await new Promise((done) => setTimeout(done, 1000));
                return quick(...given);
            };
        }"""
    )
    drop(page, broken)
    expect(page.locator("#toast")).to_contain_text("truncated")
    expect(page.locator("#welcome")).to_be_visible()
    held = []  # a picture that is slow to arrive does not come back over the next one
    page.route("**/api/pictures?name=first.png", lambda route: held.append(route))
    open_picture(page, crop(tmp_path, "first.png"))
    open_picture(page, crop(tmp_path, "second.png"))
    expect(page.locator("#picture-name")).to_contain_text("second.png")
    stroke(page, (40, 40), (44, 40))
    with page.expect_response(lambda response: "name=first.png" in response.url):
        held[0].continue_()
    page.wait_for_timeout(500)
    expect(page.locator("#picture-name")).to_contain_text("second.png")
    assert mask_of(page, tmp_path)[40, 42]
    page.click("[data-tool=box]")
    stroke(page, (24, 24), (56, 56))  # wide, so that what is predicted changes to the end
    page.select_option("#method", "lanpaint")  # of several evaluations a step: long enough on any machine
    page.fill("#entry-steps", "1000")
    run_long(page)
    expect(page.locator("#progress-text")).to_contain_text(re.compile(r"step [1-9]\d* of \d{3,4}, .* left"))
    seen = screen(page)
    for _ in range(100):
        page.wait_for_timeout(300)
        if differs(screen(page), seen):
            break
    assert differs(screen(page), seen)  # the prediction is shown as it changes
    page.click("#stop")
    expect(page.locator("#strip .tile").first).to_have_attribute("aria-label", re.compile("stopped"))
    expect(page.locator("#run")).to_be_visible()


def test_everyday_and_advanced(visit, server, tmp_path) -> None:
    """Everybody sees quality and samples; the rest is under Advanced, and is what is asked for."""
    page = visit(server, advanced=False)
    open_picture(page, crop(tmp_path))
    seen = [
        one.get_attribute("id")
        for one in page.locator("#panel input, #panel select, #panel textarea").all()
        if one.is_visible()
    ]
    assert seen == [None] * 3 + ["entry-samples"]  # the three buttons of quality
    stroke(page, (40, 40), (44, 40))
    page.click("#entry-quality span:text-is('Fast')")
    with page.expect_request(lambda request: request.url.endswith("/api/jobs")) as asked:
        run_to_end(page)
    posted = asked.value.post_data_json
    assert posted["quality"] == "fast" and posted["method"] is None and posted["seed"] is None
    assert not {"steps", "strength", "padding", "average", "mask_is", "grow"} & set(posted)
    page.click("text=Advanced")
    for name in ("strength", "padding", "average", "steps", "grow", "blur", "mask-is"):
        expect(page.locator(f"#entry-{name}")).to_be_visible()
    for name in ("prompt", "height", "latent-mask", "leaky-encoding"):  # nothing that the model does not take
        expect(page.locator(f"#entry-{name}")).to_be_hidden()
    page.click("#entry-quality span:text-is('Best')")
    page.fill("#entry-strength", "0.5")
    page.fill("#entry-padding", "24")
    page.fill("#entry-average", "2")
    page.fill("#entry-steps", "4")
    no_serious_fault(page)
    with page.expect_request(lambda request: request.url.endswith("/api/jobs")) as asked:
        run_to_end(page)
    posted = asked.value.post_data_json
    wanted = {"quality": "best", "strength": 0.5, "padding": 24, "average": 2, "steps": 4}
    assert {name: posted[name] for name in wanted} == wanted
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "made.png")
    assert {name: read_settings(tmp_path / "made.png")[name] for name in wanted} == wanted
    page.fill("#entry-strength", "0")
    page.click("#run")
    expect(page.locator("#run")).to_be_visible()  # the browser says what is wrong with the field
    page = visit(server)
    drop(page, tmp_path / "made.png")
    expect(page.locator("#toast")).to_contain_text("are back")
    for name, value in (
        ("#entry-strength", "0.5"),
        ("#entry-padding", "24"),
        ("#entry-average", "2"),
        ("#entry-steps", "4"),
    ):
        expect(page.locator(name)).to_have_value(value)
    expect(page.get_by_label("Best", exact=True)).to_be_checked()


def test_an_uploaded_mask_is_read_by_the_rule_of_the_command_line(visit, server, tmp_path) -> None:
    page = visit(server)
    open_picture(page, crop(tmp_path))
    mask = np.zeros((SIDE, SIDE, 3), np.uint8)
    mask[30:42, 40:52] = 255, 220, 200
    Image.fromarray(mask).save(tmp_path / "red.png")
    for kind, wanted in (("", mask[..., 0] > 0), ("black", mask[..., 0] == 0)):
        page.fill("#entry-mask-is", kind)
        upload_mask(page, tmp_path / "red.png", wanted)


def test_a_new_entry_of_the_request_is_on_the_page(visit, serve, warmer, tmp_path) -> None:
    """One line in painting/request.py, and it is in the schema, on the page, in the job and in the PNG."""
    server = serve(package=warmer)
    schema = httpx.get(f"{server.url}api/openapi.json", timeout=300).json()["components"]["schemas"]["JobRequest"]
    assert schema["properties"]["warmth"] == {
        "default": 0.5, "description": "How warm the colours are.", "maximum": 1, "minimum": 0, "title": "Warmth",
        "type": "number",
    }  # fmt: skip
    httpx.get(f"{server.url}api/options", timeout=300)
    page = visit(server)
    control = page.get_by_label("Warmth")
    expect(control).to_have_value("0.5")
    assert (control.get_attribute("min"), control.get_attribute("max")) == ("0", "1")
    expect(page.locator("#entry-warmth-help")).to_have_text("How warm the colours are.")
    open_picture(page, crop(tmp_path))
    stroke(page, (40, 40), (44, 40))
    control.fill("0.25")
    page.fill("#entry-steps", "2")
    run_to_end(page)
    assert httpx.get(f"{server.url}api/jobs").json()[0]["request"]["warmth"] == 0.25
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "made.png")
    assert read_settings(tmp_path / "made.png")["warmth"] == 0.25


def test_everything_comes_back_after_a_reload(visit, server, tmp_path) -> None:
    """The picture, the mask, the settings, the results, and a job in the middle."""
    page = visit(server)
    open_picture(page, crop(tmp_path))
    stroke(page, (40, 40), (48, 40))
    page.fill("#entry-steps", "2")
    page.fill("#entry-strength", "0.5")
    page.click("#entry-quality span:text-is('Best')")
    page.fill("#entry-samples", "2")
    run_to_end(page)
    expect(page.locator("#strip .tile:enabled")).to_have_count(2)
    page.keyboard.press("Escape")
    page.fill("#entry-samples", "1")
    page.fill("#entry-strength", "1")
    page.select_option("#method", "lanpaint")  # of several evaluations a step: long enough on any machine
    page.fill("#entry-average", "1")  # which beats the quality
    page.fill("#entry-steps", "1000")
    run_long(page)
    expect(page.locator("#progress-text")).to_contain_text(re.compile(r"step [1-9]\d* of 1000"))
    drawn = httpx.get(f"{server.url}api/jobs").json()[0]["request"]["mask"]
    mask = np.asarray(Image.open(io.BytesIO(httpx.get(f"{server.url}api/pictures/{drawn}").content)).convert("L")) > 127

    page.reload()
    expect(page.locator("#picture-name")).to_contain_text("cup.png")
    expect(page.locator("#progress-text")).to_contain_text(re.compile(r"step [1-9]\d* of 1000"))
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#strip .tile:enabled")).to_have_count(2)
    for name, value in (
        ("#entry-steps", "1000"),
        ("#entry-strength", "1"),
        ("#entry-samples", "1"),
        ("#method", "lanpaint"),
    ):
        expect(page.locator(name)).to_have_value(value)
    expect(page.get_by_label("Best", exact=True)).to_be_checked()
    page.click("#stop")
    expect(page.locator("#strip .tile:enabled")).to_have_count(3)
    expect(page.locator("#bar")).to_be_visible()
    page.keyboard.press("Escape")
    assert (mask_of(page, tmp_path) == mask).all()

    page.wait_for_timeout(1000)
    stroke(page, (60, 60), (70, 60))
    page.wait_for_timeout(2000)  # what is drawn is sent once the hand rests
    page.reload()
    expect(page.locator("#strip .tile:enabled")).to_have_count(3)
    wider = mask_of(page, tmp_path)
    assert wider[60, 65] and (wider | ~mask).all()
    page.locator("#strip .tile").nth(0).click()
    expect(page.locator("#bar")).to_be_visible()
    with page.expect_download() as download:
        page.click("#download")
    assert re.fullmatch(rf"cup-{OWN}-\d+\.png", download.value.suggested_filename)


def test_zoom_copy_and_what_covers_what(visit, server, tmp_path) -> None:
    page = visit(server)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url.rstrip("/"))
    open_picture(page, crop(tmp_path))
    stage = page.locator("#stage").bounding_box()
    scale = min(16, (stage["width"] - 52) / SIDE, (stage["height"] - 52) / SIDE)
    expect(page.locator("#zoom")).to_have_text(f"{round(scale * 100)} %")
    page.click("#zoom")
    expect(page.locator("#zoom")).to_have_text("100 %")
    page.click("#zoom")
    expect(page.locator("#zoom")).to_have_text(f"{round(scale * 100)} %")
    stroke(page, (40, 40), (44, 40))
    page.fill("#entry-steps", "2")
    page.fill("#entry-samples", "2")
    run_to_end(page)
    assert page.locator("#stage").bounding_box() == stage  # results take nothing of it
    page.keyboard.press("Control+c")
    toast = page.locator("#toast")
    expect(toast).to_contain_text("on the clipboard")
    size = page.evaluate(
        """async () => {
            const [item] = await navigator.clipboard.read();
            const bitmap = await createImageBitmap(await item.getType("image/png"));
            return [bitmap.width, bitmap.height];
        }"""
    )
    assert size == [SIDE, SIDE]
    box = toast.bounding_box()
    assert box["y"] + box["height"] <= stage["y"]  # and off the picture
    expect(page.locator("#bar")).to_be_visible()
    page.click("#grid-open")
    expect(page.locator("#grid")).to_be_visible()
    expect(page.locator("#bar")).to_be_hidden()
    page.click("#tab-paint")
    expect(page.locator("#bar")).to_be_visible()
    for _ in range(2):  # what earlier results added to the name does not pile up
        page.click("#continue")
        expect(page.locator("#bar")).to_be_hidden()
        stroke(page, (40, 40), (44, 40))
        run_to_end(page)
        with page.expect_download() as download:
            page.click("#download")
        assert re.fullmatch(rf"cup-{OWN}-\d+\.png", download.value.suggested_filename)
