"""The tutorial, followed word by word in an empty folder: every file, command and answer."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from tests.docs.written_project import ROOT, SET_UP, Block, Project, blocks_of
from tests.waiting import wait_until

BLOCKS = blocks_of(ROOT / "docs" / "tutorial.md")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def import_books(project: Project, line: str) -> None:
    """Start the server, press Import on its page, and wait for the books to be on it."""
    address = f"127.0.0.1:{free_port()}"
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def page(data: dict[str, str] | None = None) -> str:
        body = urllib.parse.urlencode(data).encode() if data else None
        try:
            with browser.open(f"http://{address}/", body, timeout=10) as answer:
                text: str = answer.read().decode()
        except urllib.error.URLError as problem:
            if isinstance(problem.reason, ConnectionError):
                return ""  # it does not listen yet
            raise
        return text

    with project.serving(f"{line} {address} --noreload", "Starting ASGI/Daphne"):
        form = wait_until(page)
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
        books = re.search(r"<textarea.*?>(.*?)</textarea>", form, re.DOTALL)
        assert token
        assert books
        shown = page({"csrfmiddlewaretoken": token[1], "text": books[1]})
        assert re.search(r'<cq-task task="[\w-]+" token="\S+" show="bar tree log"', shown)
        wait_until(lambda: "<li>Ulysses, by James Joyce</li>" in page(), 20)


def type_command(project: Project, line: str, shown: str) -> None:
    if line.startswith(SET_UP):
        return
    if line.endswith(" runserver"):
        import_books(project, line)
    elif line.endswith(" cq_runworker"):
        with project.serving(line, "is ready"):
            pass
    else:
        project.run(line, shown)


def follow(project: Project, block: Block) -> None:
    if block.language == "console":
        for line, shown in block.commands:
            type_command(project, line, shown)
    elif block.language == "pycon":
        project.type_into_shell(block.text)
    elif project.write(block) is None:
        assert block.first_line.startswith("@task("), block.text
        compile(f"{block.text}def body(cqt): ...", "the page", "exec")


@pytest.mark.long
@pytest.mark.timeout(180)
def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for block in BLOCKS:
        follow(project, block)
    assert len(BLOCKS) == 16
