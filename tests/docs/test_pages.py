"""
The pages together: links lead somewhere, names are named, sessions and files are real.

What a page shows of the API is compared with the API, so that neither can change alone.
"""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import sys
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.db.models import Model

import cq
from cq import conf, errors, signals
from cq.decorators import TaskFunction
from cq.definition import registry
from cq.definition.status import Status
from cq.execution.context import Context
from cq.models import RepeatingTask, Task
from tests.docs.written_project import ROOT, blocks_of

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("demo/*.md")])
DOCS = ROOT / "docs"
FROM_INDEX = re.compile(r"""pip3? install (-\S+ )*["'`]?django-cq\b""")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(?:img|a)[^>]+(?:src|href)=\"([^\"]+)\"")
COMMANDS = sorted(path.stem for path in ROOT.glob("cq/management/commands/cq_*.py"))


def prose(path: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in (first or second for first, second in LINK.findall(prose(page))):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(link)
    assert dead == []


def test_each_page_is_reached_from_the_index() -> None:
    linked = {
        (DOCS / link.partition("#")[0]).resolve()
        for link, _ in LINK.findall((DOCS / "index.md").read_text())
    }
    assert [page for page in DOCS.glob("**/*.md") if page not in {*linked, DOCS / "index.md"}] == []


def test_no_page_tells_to_install_the_package_of_2019() -> None:
    assert [page for page in PAGES if FROM_INDEX.search(page.read_text())] == []


@pytest.mark.parametrize(
    ("text", "is_index"),
    [
        ("pip install django-cq", True),
        ('`pip install "django-cq[cli]"`', True),
        ("pip install -U 'django-cq'", True),
        ("pip install ./django-cq", False),
        ('pip install "./django-cq[postgres]"', False),
        ("pip install ~/django-cq", False),
    ],
)
def test_an_installation_from_the_index_is_recognised(text: str, is_index: bool) -> None:
    assert bool(FROM_INDEX.search(text)) is is_index


# --- names ----------------------------------------------------------------------------------------

EVERYTHING = "\n".join(page.read_text() for page in PAGES)


def named(names: Any) -> list[str]:
    return [name for name in names if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", EVERYTHING)]


def test_everything_public_is_named_in_the_pages() -> None:
    classes = [name for name, _ in inspect.getmembers(errors, inspect.isclass)]
    assert named(conf.keys()) == []
    assert named(status.name for status in Status) == []
    assert named(COMMANDS) == []
    assert named(classes) == []
    assert named(name for name in vars(signals) if name.startswith("task_")) == []


def first_cells(page: str, heading: str) -> list[str]:
    """The names in backquotes in the first column of the tables below a heading of a page."""
    text = prose(DOCS / page).partition(f"\n{heading}\n")[2]
    level = heading.split(" ")[0]
    text = re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", text, re.MULTILINE)
    found = [name for cell in cells for name in re.findall(r"`(?:\w+\.)?(\w+)[^`]*`", cell)]
    assert found, heading
    return found


def own(model: type[Model]) -> set[str]:
    """What a model adds to Django's: its fields by name, its verbs and its properties."""
    fields = {field.name for field in model._meta.get_fields()}
    made = {"DoesNotExist", "MultipleObjectsReturned", "NotUpdated", "objects"}
    return fields | {
        name
        for name in set(dir(model)) - set(dir(Model)) - made
        if not name.startswith(("_", "get_", "STATUS_")) and not name.endswith("_id")
    }


def test_the_page_of_the_api_lists_the_package() -> None:
    listed = set(first_cells("reference/api.md", "## The package"))
    assert listed == set(cq.__all__) - {"__version__"}


def test_the_page_of_the_api_lists_what_a_task_has() -> None:
    listed = first_cells("reference/api.md", "## Task")
    assert len(listed) == len(set(listed))
    beside = {"is_terminal", "root_uuid", "is_merged"}
    twins = {name for name in own(Task) if name[0] == "a" and name[1:] in own(Task)}
    assert set(listed) - {"refresh_from_db"} | beside == own(Task) - twins
    text = (DOCS / "reference" / "api.md").read_text()
    assert [twin for twin in twins if f"`{twin}()`" not in text] == []
    constants = [name for name in dir(Task) if name.startswith("STATUS_")]
    assert [name for name in constants if f"{name}`" not in text] == []


def test_the_page_of_the_api_lists_what_cqt_has() -> None:
    inner = {"claimed", "buffer", "committer", "drafts", "has_committed", "link"}
    members = {name for name in dir(Context) if not name.startswith("_")} - inner
    assert set(first_cells("reference/api.md", "## cqt")) == members


def test_the_page_of_the_api_lists_how_to_call_a_task_function() -> None:
    calls = {name for name in dir(TaskFunction) if not name.startswith("_")}
    text = (DOCS / "reference" / "api.md").read_text()
    inner = {"call_options", "function"}
    assert [name for name in calls - inner if f"add.{name}(" not in text] == []


def test_the_page_of_the_api_lists_what_a_repeating_task_has() -> None:
    listed = set(first_cells("reference/api.md", "## Repeating tasks"))
    beside = {"function", "call_options", "tasks"}
    assert listed - {"schedule_task"} | beside == own(RepeatingTask) - {"id"}


def options_of(command: str) -> set[str]:
    """The options that a command adds to those of Django's."""
    parser: ArgumentParser = load_command_class("cq", command).create_parser("manage.py", command)
    base = BaseCommand().create_parser("manage.py", "any")
    known = {option for action in base._actions for option in action.option_strings}
    return {option for action in parser._actions for option in action.option_strings} - known


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_of_the_commands_lists_each_with_its_options(command: str) -> None:
    text = (DOCS / "reference" / "commands.md").read_text()
    section = text.partition(f"\n## `{command}`\n")[2].partition("\n## ")[0]
    assert section
    assert [option for option in options_of(command) if f"{option}" not in section] == []


def test_the_commands_of_the_readme_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    typed = set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", EVERYTHING, re.MULTILINE))
    assert typed >= {"demo", "test", "check", "cluster", "install"}
    assert typed <= targets


def test_the_map_shows_each_room() -> None:
    page = DOCS / "inside" / "architecture.md"
    (drawing,) = (block.text for block in blocks_of(page) if block.text.startswith("apps"))
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(one for one in contract["contracts"] if one["id"] == "layers")["layers"]
    rooms = [set(re.findall(r"\w+", layer)) for layer in layers]
    shown = [set(re.findall(r"\w+", line.split("  ")[0])) for line in drawing.splitlines()]
    exists = {path.stem for path in (ROOT / "cq").iterdir()}
    assert shown == [room & exists for room in rooms]


# --- sessions -------------------------------------------------------------------------------------

SHOP = """
from cq import task


@task
def add(cqt, a, b):
    return a + b
"""


@pytest.fixture
def shop() -> Iterator[None]:
    """The reader's app."""
    package, tasks = ModuleType("shop"), ModuleType("shop.tasks")
    sys.modules |= {"shop": package, "shop.tasks": tasks}
    exec(compile(SHOP, "shop/tasks.py", "exec"), tasks.__dict__)
    yield
    registry.unregister(tasks.__dict__["add"])
    del sys.modules["shop"], sys.modules["shop.tasks"]


@pytest.mark.parametrize("page", ["reference/api.md", "guides/errors-and-bad-input.md"])
def test_the_sessions_are_real(page: str, database: Any, shop: None) -> None:
    text = "\n".join(block.text for block in blocks_of(DOCS / page) if block.language == "pycon")
    # The name of the module is part of what a session shows.
    test = doctest.DocTestParser().get_doctest(text, {"__name__": "shop.tasks"}, page, None, None)
    assert test.examples
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.DocTestRunner(verbose=False, optionflags=flags).run(test).failed == 0


def test_the_receiver_of_the_signals_page_counts(database: Any) -> None:
    (block,) = blocks_of(DOCS / "reference" / "signals.md")
    module: dict[str, Any] = {"__name__": "shop.metrics"}
    exec(block.text, module)
    try:
        signals.task_finished.send(None, task_id=None, func_name="f", attempt=1, status="S")
        assert module["ended"] == {("f", "Success"): 1}
    finally:
        signals.task_finished.disconnect(module["count"])


def test_the_asgi_application_of_the_configure_page_can_be_loaded(tmp_path: Path) -> None:
    text = next(
        block.text
        for block in blocks_of(DOCS / "guides" / "configure.md")
        if block.first_line == "# config/asgi.py"
    )
    path = tmp_path / "asgi.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("written_asgi", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.application)
