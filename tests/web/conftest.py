"""A server in this process, or one in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.testclient import TestClient

from paintback.web.app import make_app
from paintback.web.config import Config, Limits, offers
from tests.web.sites import HOME, Server, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path / "data", offers(), Limits(pixels=1_000_000, upload_bytes=2**20), threads=1)


@pytest.fixture
def open_site(config: Config) -> Iterator[Callable[..., Site]]:
    """Starts servers one after another on the same folder."""
    opened: list[TestClient] = []

    def start(**changes: Any) -> Site:
        stop()
        own = replace(config, **changes)
        client = TestClient(make_app(own), base_url=HOME)
        client.__enter__()
        opened.append(client)
        return Site(client, own)

    def stop() -> None:
        while opened:
            opened.pop().__exit__(None, None, None)

    yield start
    stop()


@pytest.fixture
def site(open_site: Callable[..., Site]) -> Site:
    return open_site()


@pytest.fixture
def warmer(tmp_path: Path) -> Path:
    """The package with one entry more in its request, and nothing else changed."""
    package = tmp_path / "warmer" / "paintback"
    shutil.copytree(ROOT / "paintback", package, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    request = package / "painting" / "request.py"
    text = request.read_text(encoding="utf-8")
    request.unlink()
    place = "    seed: Seed = 0\n"
    entry = '    warmth: Annotated[float, Field(ge=0, le=1, description="How warm the colours are."), Ask()] = 0.5\n'
    request.write_text(text.replace(place, place + entry, 1), encoding="utf-8")
    return package


@contextmanager
def serving(folder: Path) -> Iterator[Callable[..., Server]]:
    """Starts `paintback serve` on a folder; all are ended afterwards."""
    servers: list[Server] = []

    def start(*arguments: str, descriptors: int | None = None, package: Path | None = None) -> Server:
        command = [sys.executable, "-m", "paintback", "serve", "--port", "0", "--data", str(folder / "served")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        root = ROOT if package is None else package.parent
        environment["PYTHONPATH"] = str(root)
        if descriptors is not None:
            command = ["bash", "-c", f'ulimit -n {descriptors}; exec "$@"', "bash", *command]
        log = folder / "served.log"
        with log.open("a") as file:
            process = subprocess.Popen(
                [*command, "--threads", "1", *arguments], stdout=subprocess.PIPE, stderr=file, text=True,
                env=environment, cwd=root,
            )  # fmt: skip
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), f"paintback serve did not start: {log.read_text()}"
        server = Server(process, url, log)
        servers.append(server)
        return server

    try:
        yield start
    finally:
        for server in servers:
            server.process.terminate()
        for server in servers:
            server.process.wait(30)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts `paintback serve` on a folder; all are ended after the test."""
    with serving(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    from tests.web.stage import ARGUMENTS

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("There is no Chromium to show the page in; install it, on Debian by `apt-get install chromium`.")
    expect.set_options(timeout=60_000)  # 5 seconds are too few where other programs run
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that has imported torch, which it does beside the first visit."""
    with serving(tmp_path_factory.mktemp("server")) as start:
        found: Server = start()
        httpx.get(f"{found.url}api/options", timeout=300)
        yield found


@pytest.fixture
def server(one_server: Server) -> Server:
    """That of the module, on which nothing has been painted; starting one takes seconds."""
    with httpx.Client(base_url=one_server.url, timeout=60) as client:
        for job in client.get("api/jobs").json():
            client.post(f"api/jobs/{job['id']}/stop")
            while client.delete(f"api/jobs/{job['id']}").status_code == 409:  # it runs to the end of its step
                time.sleep(0.05)
    return one_server


@pytest.fixture
def visit(browser: Browser, serve: Any) -> Iterator[Callable[..., Page]]:
    """Opens the page and waits for its settings; whatever goes wrong in it fails the test at its end.

    Pages are closed before their servers, for which they would ask in vain.
    """
    from playwright.sync_api import expect

    faults: list[str] = []
    pages: list[Page] = []

    def start(server: Server, *, refusals: bool = False, advanced: bool = True, **options: Any) -> Page:
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **options})
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.append(request.url) if "://" in request.url
                and not request.url.removeprefix("blob:").startswith(server.url) else None)  # fmt: skip
        if not refusals:
            page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(server.url)
        expect(page.locator("#method option").nth(5)).to_be_attached()
        if advanced:
            page.click("text=Advanced")
        pages.append(page)
        return page

    yield start
    for page in pages:
        page.close()
    assert not faults, "\n".join(faults)
