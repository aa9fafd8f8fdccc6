"""
The demo in a real browser: a picture goes in, and its print comes out, tile by tile.

Each test starts `demo/run.py` as a person would, on a private folder, and looks at its
pages with Chromium. CQ_SCREENSHOTS names a folder that then receives pictures of them.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demo.picture import painting
from tests.waiting import wait_until
from tools import chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parent.parent.parent

RECORDER = """
    // Every state of the board, as one letter per tile, in the order in which it was shown.
    window.boards = [];
    const look = () => {
        const tiles = [...document.querySelectorAll(".tile")];
        const board = tiles.map((tile) => {
            const { state } = tile.dataset;
            return state === "retry" ? "y" : tile.querySelector("image") ? "s" : state[0];
        }).join("");
        if (board && board !== window.boards.at(-1)) window.boards.push(board);
    };
    new MutationObserver(look).observe(document, {
        subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"],
    });
"""


@dataclass(slots=True)
class Demo:
    """A running demo: its process, its address and everything it printed."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+/", self.output())
        return found[0] if found else ""

    def interrupt(self) -> float:
        """Press Ctrl-C and return the seconds until the process has ended."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=20)
        return time.monotonic() - began


@contextmanager
def running_demo(folder: Path, pace: float = 1.0) -> Iterator[Demo]:
    """Start `demo/run.py` on a folder of its own; end it whatever happens."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"}
    }
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "output.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "demo" / "run.py")],
            cwd=folder,
            env={
                **inherited,
                "PYTHONPATH": str(ROOT),
                "DEMO_DATA": str(folder / "data"),
                "DEMO_PACE": str(pace),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    demo = Demo(process, log)
    try:
        wait_until(lambda: answers(demo), timeout=30)
        yield demo
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(timeout=10)


def answers(demo: Demo) -> bool:
    if demo.process.poll() is not None:
        raise AssertionError(f"The demo ended by itself. It printed:\n{demo.output()}")
    if not demo.url:
        return False
    try:
        with urllib.request.urlopen(demo.url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        pytest.fail(chromium.MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that records the boards it shows, and fails on any word in the console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(RECORDER)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert said == []


def made_picture(seed: int) -> Image.Image:
    """A random picture: shapes over static, so that every pixel of a print matters."""
    random = Random(seed)
    picture = Image.frombytes("RGB", (400, 300), random.randbytes(400 * 300 * 3))
    picture = picture.resize((1600, 1200), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(120):
        x, y, size = random.uniform(0, 1600), random.uniform(0, 1200), random.uniform(20, 260)
        colour = tuple(random.randbytes(3))
        draw.regular_polygon((x, y, size), random.randint(3, 8), random.uniform(0, 360), colour)
    return picture


def as_png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the page, if somebody wants to look at it."""
    if folder := os.environ.get("CQ_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def boards(page: Page) -> list[str]:
    return [str(board) for board in page.evaluate("window.boards")]


def printed(page: Page) -> int:
    return int(page.locator(".legend [data-state=success] .count").inner_text())


def upload(page: Page, demo: Demo, picture: Image.Image) -> None:
    page.goto(demo.url)
    page.locator("#upload").set_input_files(
        {"name": "made-up.png", "mimeType": "image/png", "buffer": as_png(picture)}
    )
    expect(page.locator("#chosen")).to_have_text("made-up.png")
    page.get_by_role("button", name="Print it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("made-up.png")


def test_a_picture_fills_in_tile_by_tile_and_survives_a_reload(demo: Demo, page: Page) -> None:
    seed = time.time_ns()
    picture = made_picture(seed)
    upload(page, demo, picture)
    tiles = page.locator(".tile")
    assert tiles.count() >= 48

    wait_until(lambda: printed(page) >= 5, timeout=40)
    seen, before = boards(page), printed(page)
    page.reload()
    assert before <= printed(page) < tiles.count()
    if not any("y" in board for board in seen):
        expect(page.locator(".tile[data-state=retry]")).to_have_count(1, timeout=40_000)
    shoot(page, "running-made-up")

    expect(page.locator("#open-report")).to_be_visible(timeout=60_000)
    expect(page.locator(".legend [data-state=success] .count")).to_have_text(str(tiles.count()))
    seen += boards(page)
    between = {board for board in seen if set(board) != {"s"} and "s" in board}
    assert len(between) >= 20
    assert {board.count("y") for board in seen} == {0, 1}, "one tile, and only one, is retried"
    assert not any("f" in board or "i" in board for board in seen)
    shoot(page, "finished-made-up")

    answer = page.request.get(page.url + "finished.png")
    with Image.open(io.BytesIO(answer.body())) as finished:
        is_equal = finished.tobytes() == painting.print_whole(picture).tobytes()
    assert is_equal, f"the print of made_picture({seed}) differs from the one-piece print"

    page.get_by_role("link", name="Read the report").click()
    retried = page.locator("tr.retried")
    expect(retried).to_have_count(1)
    expect(retried.locator("td").nth(2)).to_have_text("2")
    expect(page.locator("tbody tr")).to_have_count(63)


def test_a_small_screen_shows_everything(demo: Demo, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto(demo.url)
    shoot_all(page, "index")
    page.get_by_role("button", name="Harbour").click()
    wait_until(lambda: printed(page) >= 10, timeout=40)
    shoot_all(page, "running")
    expect(page.locator("#open-report")).to_be_visible(timeout=60_000)
    shoot_all(page, "finished")
    page.get_by_role("link", name="Read the report").click()
    shoot_all(page, "report")


def shoot_all(page: Page, name: str) -> None:
    """Look at the page small and wide, light and dark; nothing may stick out at 320 pixels."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        for width in (320, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            shoot(page, f"{name}-{width}-{scheme}")


def test_what_is_not_a_picture_is_answered_with_one_sentence(demo: Demo, page: Page) -> None:
    page.goto(demo.url)
    page.get_by_role("button", name="Print it").click()
    expect(page.get_by_role("alert")).to_contain_text("No picture was chosen")
    page.locator("#upload").set_input_files(
        {"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7"}
    )
    page.get_by_role("button", name="Print it").click()
    expect(page.get_by_role("alert")).to_have_text(
        "“notes.pdf” is not a picture that can be read: choose a JPEG, PNG or WebP file."
    )
    shoot(page, "refusal")


def test_every_page_forbids_foreign_and_inline_code(demo: Demo) -> None:
    with urllib.request.urlopen(demo.url, timeout=5) as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
        text = answer.read().decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


def test_ctrl_c_ends_at_once_and_the_next_start_goes_on(tmp_path: Path, browser: Browser) -> None:
    page = browser.new_page()
    with running_demo(tmp_path) as first:
        page.goto(first.url)
        page.get_by_role("button", name="Dunes").click()
        wait_until(lambda: printed(page) >= 5, timeout=40)
        path = page.url.removeprefix(first.url)
        assert first.interrupt() < 3
        assert first.process.returncode == 0
        assert "Traceback" not in first.output()
        assert "password" in first.output()
    with running_demo(tmp_path, pace=0.2) as second:
        page.goto(second.url + path)
        expect(page.locator("#open-report")).to_be_visible(timeout=60_000)
        places = json.loads(page.request.get(page.url + "places.json").text())
        assert len(places) == page.locator(".tile").count()
        assert second.interrupt() < 3
        assert "Traceback" not in second.output()
    page.close()
