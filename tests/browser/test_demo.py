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
from playwright.sync_api import Browser, Page, expect

from demo.picture import painting
from tests.waiting import wait_until

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
def slow_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo whose prints take long enough to do something in their midst."""
    with running_demo(tmp_path_factory.mktemp("slow-demo"), pace=3) as running:
        yield running


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


def test_a_picture_fills_in_tile_by_tile_and_survives_a_reload(slow_demo: Demo, page: Page) -> None:
    seed = time.time_ns()
    picture = made_picture(seed)
    upload(page, slow_demo, picture)
    tiles = page.locator(".tile")
    assert tiles.count() == 300

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
    expect(page.locator("tbody tr")).to_have_count(300)


@pytest.mark.slow
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


def printing(page: Page, demo: Demo, sample: str, *, torn: bool = False) -> None:
    """Press the button of a sample and wait until the first tiles are printed."""
    page.goto(demo.url)
    page.locator("[name=torn]").set_checked(torn)
    page.get_by_role("button", name=sample).click()
    wait_until(lambda: printed(page) >= 3, timeout=40)


def test_a_torn_tile_fails_and_is_mended(demo: Demo, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    printing(page, demo, "Sunflower", torn=True)
    mend = page.get_by_role("button", name="Mend it, print only what failed")
    expect(mend).to_be_visible(timeout=60_000)
    assert "y" in "".join(boards(page)), "its retries were seen"
    expect(page.locator(".legend [data-state=failure] .count")).to_have_text("1")
    expect(page.locator("#tile-5-5")).to_have_attribute("data-state", "failure")
    expect(page.locator("#open-print")).to_be_hidden()
    shoot_all(page, "torn")
    mend.click()
    expect(page.locator("#open-report")).to_be_visible(timeout=60_000)
    expect(page.locator(".legend [data-state=success] .count")).to_have_text("300")
    expect(mend).to_be_hidden()
    assert page.request.get(page.url + "finished.png").ok


@pytest.mark.slow
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_print_is_revoked_midway(slow_demo: Demo, page: Page, is_cut: bool) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    printing(page, slow_demo, "City")
    if is_cut:
        page.get_by_role("button", name="Leave it cut").click()
        expect(page.locator("#cord .transport")).to_have_text("By polling.", timeout=15_000)
    page.get_by_role("button", name="Revoke").first.click()
    ended = ":not([data-state=success]):not([data-state=revoked])"
    expect(page.locator(f".tile{ended}")).to_have_count(0, timeout=20_000)
    assert page.locator(".tile[data-state=revoked]").count() > 50
    page.reload()
    assert page.locator(f".tile{ended}").count() == 0
    shoot(page, "revoked")


def test_a_cord_that_is_cut_for_a_moment_leaves_no_gap(demo: Demo, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    printing(page, demo, "Aurora")
    cord, transport = page.locator("#cord"), page.locator("#cord .transport")
    expect(cord).to_have_attribute("data-transport", "ws", timeout=10_000)
    for _ in range(2):
        page.locator("#cut-short").click()
        expect(transport).to_have_text("Cut off.")
        shoot(page, "cut-off")
        expect(transport).to_have_text(re.compile("Live|polling"), timeout=10_000)
    expect(page.locator("#open-report")).to_be_visible(timeout=60_000)
    assert_whole_record(page)


@pytest.mark.slow
def test_a_cord_that_stays_cut_leaves_the_page_to_polling(demo: Demo, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    printing(page, demo, "Balloons")
    expect(page.locator("#cord")).to_have_attribute("data-transport", "ws", timeout=10_000)
    page.get_by_role("button", name="Leave it cut").click()
    expect(page.locator("#cord .transport")).to_have_text("By polling.", timeout=15_000)
    shoot_all(page, "polling")
    expect(page.locator("#open-report")).to_be_visible(timeout=60_000)
    assert_whole_record(page)


def assert_whole_record(page: Page) -> None:
    """The page heard each line once, up to the last one there is."""
    words = page.locator("#cord .record")
    last = json.loads(page.request.get(page.url + "places.json").text())
    expect(words).to_have_text(
        re.compile(rf"Lines \d+ to \d{{{len(str(len(last)))}}}: none missing, none twice\."),
        timeout=20_000,
    )


@pytest.mark.slow
def test_two_readers_see_what_their_tokens_allow(demo: Demo, page: Page, browser: Browser) -> None:
    page.emulate_media(reduced_motion="reduce")
    printing(page, demo, "Dunes")
    page.get_by_role("button", name="Printer").click()
    expect(page.locator(".scope")).to_contain_text("printer: everything, with buttons")
    assert page.locator("cq-task [part~=log]").count() == 1
    shoot_all(page, "printer")
    with browser.new_context() as context:
        other = context.new_page()
        other.goto(page.url)
        other.get_by_role("button", name="Customer").click()
        expect(other.locator(".scope")).to_contain_text("customer: the bar alone")
        expect(other.locator("cq-task [part~=bar]")).to_be_visible()
        assert other.locator("cq-task [part~=log] *").count() == 0
        assert other.get_by_role("button", name="Revoke").count() == 0
        shoot_all(other, "customer")
        token = page.locator("cq-task").get_attribute("token")
        address = page.locator("cq-task").get_attribute("poll")
        said = other.request.get(
            demo.url.rstrip("/") + str(address), headers={"Authorization": f"Bearer {token}"}
        )
        assert said.status in {403, 404}
        expect(other.locator("#open-report")).to_be_visible(timeout=60_000)
    expect(page.locator("#open-report")).to_be_visible(timeout=60_000)


def test_five_presses_of_the_wall_are_one_run(demo: Demo, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto(demo.url)
    for _ in range(5):
        page.get_by_role("button", name="Hang the wall").click()
    expect(page.locator("#presses")).to_have_text("5 presses, 1 run")
    expect(page.locator("#runs cq-task")).to_have_count(1)
    expect(page.locator("#wall")).to_have_attribute("src", re.compile(r"\?"), timeout=20_000)
    shoot_all(page, "wall")


FRAMES = 40
LARGEST_FILM = 1_500_000


@pytest.mark.slow
def test_the_film_of_the_readme(slow_demo: Demo, page: Page) -> None:
    """A print from its first tile to its last, filmed; CQ_SCREENSHOTS receives the file."""
    page.set_viewport_size({"width": 1180, "height": 690})
    film = filmed(page, slow_demo)
    file = io.BytesIO()
    film[0].save(
        file,
        format="WEBP",
        save_all=True,
        append_images=film[1:],
        duration=[8_000 // len(film)] * (len(film) - 1) + [3_000],
        loop=0,
        quality=58,
        method=4,
    )
    assert len(file.getvalue()) < LARGEST_FILM
    with Image.open(file) as shown:
        assert getattr(shown, "n_frames", 1) > 1
    if folder := os.environ.get("CQ_SCREENSHOTS"):
        (Path(folder) / "demo.webp").write_bytes(file.getvalue())


def filmed(page: Page, demo: Demo) -> list[Image.Image]:
    """Take a picture as often as possible while a picture is printed; keep FRAMES of them."""
    page.goto(demo.url)
    page.get_by_role("button", name="Sunflower").click()
    expect(page.locator("#board")).to_be_visible()
    page.evaluate("window.scrollTo(0, document.querySelector('.title').offsetTop)")
    film: list[Image.Image] = []
    report = page.locator("#open-report")
    while len(film) < 10 * FRAMES and not report.is_visible():
        film.append(frame(page))
    expect(report).to_be_visible(timeout=60_000)
    wait_until(lambda: page.evaluate("document.getAnimations().length") == 0, timeout=20)
    return [*film[:: len(film) // FRAMES + 1], frame(page)]


def frame(page: Page) -> Image.Image:
    with Image.open(io.BytesIO(page.screenshot(type="jpeg", quality=92))) as shot:
        return shot.convert("RGB").resize((885, 518), Image.Resampling.LANCZOS)


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
