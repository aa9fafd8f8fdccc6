"""
The snippets of pages that bear `<!-- snippets: run -->`, run in order as a reader would.

A `python` block whose first line is a path (`# shop/tasks.py`) is that file, or is added to it; any
other `python` block is run, with the tests it defines. What `pycon` sessions show is compared; a
worker does what is due, and the clock goes on a day, wherever a session waits. `shop.models` is
the sample app's.
"""

from __future__ import annotations

import doctest
import re
import sys
import threading
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from django.db import connections, transaction

from cq.definition import registry
from cq.testing import drain
from tests.docs.written_project import FILE_COMMENT, ROOT, Block, blocks_of
from tests.sampleapp.models import Note

MARK = "<!-- snippets: run -->"
PAGES = sorted(page for page in ROOT.glob("docs/**/*.md") if MARK in page.read_text())
WAITS = re.compile(r"\.wait\(")


class Reader:
    """Types the blocks of one page into modules and sessions."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.ran = 0

    def read(self, block: Block) -> None:
        """Run one block, if it is Python."""
        file = FILE_COMMENT.match(block.first_line)
        if block.language == "python" and file:
            self._write(file["path"], block.text)
        elif block.language == "python":
            self._run(block.text)
        elif block.language == "pycon":
            self._type(block.text)
        else:
            return
        self.ran += 1

    def _write(self, path: str, text: str) -> None:
        name = path.removesuffix(".py").replace("/", ".")
        for parent in (name.rpartition(".")[0], name):
            sys.modules.setdefault(parent, ModuleType(parent))
        exec(compile(text, path, "exec"), sys.modules[name].__dict__)

    def _run(self, text: str) -> None:
        names = dict(self.names)
        with worker_beside() if "wait_for(" in text else transaction.atomic():
            exec(compile(text, "the page", "exec"), names)
        for name, value in names.items():
            if isinstance(value, type) and value.__module__ == "__main__":
                cases = unittest.defaultTestLoader.loadTestsFromTestCase(value)
                result = unittest.TestResult()
                cases.run(result)
                assert result.testsRun
                assert result.wasSuccessful(), result.failures + result.errors
            elif name.startswith("test_"):
                with transaction.atomic():
                    value()
                    transaction.set_rollback(True)

    def _type(self, text: str) -> None:
        session = doctest.DocTestParser().get_doctest(text, self.names, "the page", None, 0)
        for example in session.examples:
            if WAITS.search(example.source):
                example.source = f"_drain(now=86400); {example.source}"
        session.globs["_drain"] = drain_aside
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        runner = doctest.DocTestRunner(verbose=False, optionflags=flags)
        runner.run(session, clear_globs=False)
        assert runner.summarize(verbose=False).failed == 0
        self.names = session.globs


def drain_aside(**options: Any) -> None:
    """Run what is due without a word in the session."""
    drain(**options)


@contextmanager
def worker_beside() -> Iterator[None]:
    """Run what is due in another thread while the block runs."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            drain()
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


@pytest.fixture
def shop() -> Iterator[None]:
    """The reader's app, which is forgotten afterwards."""
    models = ModuleType("shop.models")
    models.Note = Note  # type: ignore[attr-defined]
    sys.modules |= {"shop": ModuleType("shop"), "shop.models": models}
    yield
    for function in registry.functions():
        if function.path.startswith("shop."):
            registry.unregister(function)
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_snippets_run(page: Any, database: Any, shop: None) -> None:
    reader = Reader()
    for block in blocks_of(page):
        reader.read(block)
    assert reader.ran


def test_the_guides_of_the_api_are_among_them() -> None:
    names = {page.stem for page in PAGES}
    guides = {"retries", "coalescing", "transactions", "subtasks-and-chains", "testing"}
    assert names >= guides
