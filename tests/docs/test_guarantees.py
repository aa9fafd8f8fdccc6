"""Each promise of the page names its tests, so does each fault, and each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.written_project import ROOT

TEXT = (ROOT / "docs" / "inside" / "guarantees.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
FAULTS = (ROOT / "docs" / "inside" / "faults.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT + FAULTS)))


@cache
def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists(path: str, name: str) -> None:
    assert (ROOT / path).exists()
    assert name in functions_in(ROOT / path)


def test_each_promise_has_a_sentence_and_its_proof() -> None:
    promises = {heading: text for heading, text in SECTIONS.items() if heading != "Not promised"}
    assert len(promises) >= 16
    assert [heading for heading, text in promises.items() if "**" not in text] == []
    proof = "Proved by\n\n- `tests/"
    assert [heading for heading, text in promises.items() if proof not in text] == []
