"""The reference pages say what the code says: each key, status, error and check, once."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

from cq import checks, conf, errors
from cq.definition import status
from cq.definition.status import TRANSITIONS, Status

PAGES = Path(__file__).parents[2] / "docs" / "reference"


def page(name: str) -> str:
    return (PAGES / name).read_text(encoding="utf-8")


def table(text: str, *header: str) -> list[list[str]]:
    """Return the rows of every table of a page that has this header, without backquotes."""
    rows: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|"):
            inside = False
        elif cells == list(header):
            inside = True
        elif inside and not set(line) <= set("|- "):
            rows.append([cell.replace("`", "") for cell in cells])
    assert rows, f"no table with the header {header}"
    return rows


# --- settings -------------------------------------------------------------------------------------

SETTINGS = table(page("settings.md"), "Key", "Default", "Unit", "Meaning")


def test_each_setting_is_listed_once_with_its_default() -> None:
    assert len(SETTINGS) == len({row[0] for row in SETTINGS})
    documented = {key: default for key, default, _, _ in SETTINGS}
    assert documented == {key: repr(default) for key, default in conf.keys().items()}


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row[0])
def test_each_setting_has_a_unit_and_a_sentence(row: list[str]) -> None:
    key, _, unit, meaning = row
    assert unit
    assert meaning.endswith(".")
    kind = conf._TYPES[key.lower()]
    assert (unit == "switch") == (bool in getattr(kind, "__args__", (kind,)))
    assert (unit == "bytes") == key.endswith("_BYTES")
    if key.endswith("_TTL") or kind is float:
        assert unit == "s"


def test_each_historic_setting_is_listed() -> None:
    rows = table(page("settings.md"), "Setting", "Key")
    assert dict(rows) == conf._ALIASES


def test_the_example_is_usable() -> None:
    example = re.search(r"```python\nCQ = (.*?)```", page("settings.md"), re.DOTALL)
    assert example
    namespace: dict[str, object] = {}
    exec(f"CQ = {example[1]}", namespace)
    assert conf.problems(namespace["CQ"]) == []  # type: ignore[arg-type]


# --- errors ---------------------------------------------------------------------------------------


def test_each_error_is_listed_with_its_bases() -> None:
    rows = table(page("errors.md"), "Error", "Bases", "Meaning")
    assert len(rows) == len({row[0] for row in rows})
    classes = {
        name: ", ".join(base.__name__ for base in cls.__bases__)
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__
    }
    assert {name: bases for name, bases, _ in rows} == classes
    assert all(meaning.endswith(".") for _, _, meaning in rows)


def test_the_tree_in_the_module_has_each_error() -> None:
    drawn = set(re.findall(r"[├└]─ (\w+)", errors.__doc__ or ""))
    classes = {
        name
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.CQError)
    }
    assert drawn == classes - {"CQError"}


def test_the_session_in_the_errors_page_is_real() -> None:
    sessions = "".join(re.findall(r"```python\n(.*?)```", page("errors.md"), re.DOTALL))
    test = doctest.DocTestParser().get_doctest(sessions, {}, "errors.md", None, None)
    assert test.examples
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


# --- checks ---------------------------------------------------------------------------------------

HEADINGS = re.findall(r"^### (cq\.[EW]\d{3}): (.+)$", page("checks.md"), re.MULTILINE)


def test_each_check_has_its_paragraph() -> None:
    assert len(HEADINGS) == len(checks.CATALOGUE)
    assert dict(HEADINGS) == checks.CATALOGUE


def test_the_catalogue_has_each_id_that_the_code_gives() -> None:
    source = inspect.getsource(checks)
    given = set(re.findall(r"\"(cq\.[EW]\d{3})\"", source.split("}", 1)[1]))
    assert given == set(checks.CATALOGUE)


def test_each_check_has_a_test() -> None:
    files = (Path(__file__).parents[1] / "unit").glob("test_checks*.py")
    tests = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [id for id in checks.CATALOGUE if f'"{id}"' not in tests] == []


# --- statuses -------------------------------------------------------------------------------------

DRAWN_ORDER = "PQRYWSFILE"


def letters(statuses: frozenset[Status]) -> str:
    return " ".join(sorted((one.value for one in statuses), key=DRAWN_ORDER.index)) or "–"


def test_each_status_is_listed() -> None:
    rows = table(page("statuses.md"), "Letter", "Status", "Word", "Meaning")
    assert [tuple(row[:3]) for row in rows] == [(one.value, one.name, one.label) for one in Status]


def test_each_family_of_statuses_is_listed() -> None:
    rows = table(page("statuses.md"), "Set", "Statuses", "Meaning")
    families = {
        name: letters(value) for name, value in vars(status).items() if isinstance(value, frozenset)
    }
    assert {name: members for name, members, _ in rows} == families


def test_each_arrow_is_listed() -> None:
    rows = table(page("statuses.md"), "Arrow", "From", "To", "Who", "Guard")
    assert rows == [
        [arrow.id, letters(arrow.sources), letters(arrow.targets), arrow.who, arrow.guard]
        for arrow in TRANSITIONS
    ]


def test_the_drawing_has_each_arrow() -> None:
    drawn = {
        (source, target, arrow)
        for source, target, arrows in re.findall(
            r"^ +(\S+) --> (\S+): (.+)$", page("statuses.md"), re.MULTILINE
        )
        for arrow in arrows.split(", ")
    }
    assert drawn == {
        (source, target, arrow.id)
        for arrow in TRANSITIONS
        for source in [one.label for one in arrow.sources] or ["[*]"]
        for target in [one.label for one in arrow.targets] or ["[*]"]
    }
