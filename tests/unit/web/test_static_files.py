"""What a page has to load: small, whole, and nobody else's."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from cq.definition.status import Status

FOLDER = Path(__file__).resolve().parents[3] / "cq" / "static" / "cq"
SCRIPTS = sorted(FOLDER.rglob("*.js"))


def weight(*names: str) -> int:
    """Bytes over the wire."""
    return sum(len(gzip.compress((FOLDER / name).read_bytes(), 9)) for name in names)


def test_the_element_weighs_at_most_twelve_kilobytes():
    assert weight("cq.js") <= 12 * 1024


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_imports_nothing_that_is_not_ours_and_makes_no_markup(path: Path):
    text = path.read_text()
    for address in re.findall(r"""(?:from|import|URL)\s*\(?\s*["']([^"']+)["']""", text):
        assert (path.parent / address).is_file(), address
    assert "innerHTML" not in text
    assert "insertAdjacentHTML" not in text
    assert not re.search(r"\beval\(|new Function\(|document\.write", text)
    assert "https://" not in text


def test_the_element_alone_is_enough():
    """The colours of terminals are the one file it loads later, when a line needs them."""
    text = (FOLDER / "cq.js").read_text()
    assert not re.search(r"^\s*import\s", text, re.MULTILINE)
    assert re.findall(r'URL\("(\./[^"]+)"', text) == ["./cq-ansi.js"]


def test_a_status_has_one_sign_and_one_word_here_and_on_the_server():
    text = (FOLDER / "cq.js").read_text()
    signs = re.findall(r'^  (\w+): \["(.)", "(\w+)"\],$', text, re.MULTILINE)
    assert signs == [(status.name.lower(), status.sign, status.label) for status in Status]
    counted = re.search(r"COUNTED = \{(.*)\};", text)
    assert counted
    assert dict(re.findall(r'(\w+): "([^"]+)"', counted[1])) == {
        status.name.lower(): status.counted
        for status in Status
        if status.counted != status.name.lower()
    }
