"""
What drives a page in the tests: a running site, and what an element said and sent.

CQ_SCREENSHOTS names a folder that then receives pictures of the pages.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Page

from tests.waiting import wait_until
from tests.web_process import WebProcess
from tests.workers import WorkerFactory

RECORDER = """
    // Everything the element said, and every socket it opened with what went over it.
    window.heard = [];
    window.sockets = [];
    for (const name of ["state", "progress", "log", "child", "success", "failure", "end",
                        "transport", "error", "expired"]) {
        addEventListener(`cq:${name}`, (event) => heard.push([name, event.detail]), true);
    }
    const Socket = window.WebSocket;
    window.WebSocket = class extends Socket {
        constructor(...args) {
            super(...args);
            this.sent = [];
            sockets.push(this);
        }
        send(text) {
            this.sent.push(JSON.parse(text));
            super.send(text);
        }
    };
"""
NO_SOCKETS = """
    window.WebSocket = class {
        static OPEN = 1;
        constructor() { setTimeout(() => this.onclose?.({ code: 1006 })); }
        close() {}
        send() {}
    };
"""

SETTINGS = {"TASK_MODULES": ["tests.browser.site_tasks", "tests.sampleapp.imports"]}


class Site(WebProcess):
    """A running daphne, and the pages one can open there."""

    def __init__(self, factory: WorkerFactory) -> None:
        super().__init__(factory, "tests.browser.site_asgi:application", cq=SETTINGS)

    def start(self, name: str, *args: Any, **query: str) -> str:
        """The address that enqueues a sample task and leads to its page."""
        data = urlencode({"args": json.dumps(args), **query})
        return f"{self.url}/start/{name}?{data}"


def heard(page: Page, name: str) -> list[Any]:
    """The details of every event of this name so far."""
    return [detail for kind, detail in page.evaluate("window.heard") if kind == name]


def ends(page: Page) -> int:
    """How often the end was told, once it was."""
    wait_until(lambda: heard(page, "end"), timeout=10)
    return len(heard(page, "end"))


def numbers(page: Page) -> list[str]:
    """The numbers of the lines that are shown."""
    return page.locator("cq-task .line .number").all_inner_texts()


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("CQ_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")
