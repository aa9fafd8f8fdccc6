"""Tables, plots, the page and the guard, made from a report with known numbers."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import guard, page, plots, tables
from benchmarks.__main__ import DURABLE, GROWTH, PEERS
from benchmarks.campaign import Cell, Report, said_last
from benchmarks.environments import environments


def told(title: str, store: str) -> dict[str, str]:
    return {"title": title, "store": store, "settings": "the usual", "version": "1"}


@pytest.fixture
def report() -> Report:
    return Report(
        facts={"Python": "3.11"},
        about={
            "huey": told("Huey", "Redis"),
            "pgqueuer": told("pgqueuer", "PostgreSQL"),
            "cq": told("cq", "PostgreSQL"),
        },
        limits={"PostgreSQL claim and end": 50_000.0, "PostgreSQL commit": 5_000.0},
        found={
            "throughput 20000": {
                "cq": {"tasks/s": 20_000.0, "saved/s": 19_000.0},
                "pgqueuer": {"tasks/s": 10_000.0},
                "huey": {"tasks/s": 25_000.0},
            },
            "latency 300": {"cq": {"start p50 ms": 1.0}, "huey": {"start p50 ms": 0.5}},
            "grow-backlog 1000": {"cq": {"tasks/s": 100.0}},
            "grow-backlog 1000000": {"cq": {"tasks/s": 90.0}},
        },
        problems=["rq cannot be installed here: no network."],
    )


def test_durable_contenders_stand_first_and_the_best_is_bold(report: Report):
    lines = tables.comparison(report, tables.COMMON).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| cq", "| pgqueuer", "| Huey"]
    assert "**25,000**" in lines[4]
    assert "20,000" in lines[2]
    assert tables.DASH in lines[2]


def test_synchronous_peers_stand_in_both_columns(report: Report):
    report.about["huey"]["kinds"] = "sync"
    report.found[tables.SYNC] = {"cq": {"tasks/s": 4_000.0}}
    assert tables.values(report, tables.COMMON[1]) == {"cq": 4_000.0, "huey": 25_000.0}


def test_ratios_name_whom_they_compare_with(report: Report):
    first = tables.ratios(report).splitlines()[2]
    assert first == (
        "| throughput 20000: tasks/s | 20,000 | 2.00× (pgqueuer) | 0.80× (Huey) "
        "| 40 % (PostgreSQL claim and end) |"
    )
    assert "0.50× (Huey)" in tables.ratios(report)


@pytest.mark.parametrize(
    ("value", "text"), [(33526.4, "33,526"), (14.43, "14.4"), (1.444, "1.44"), (None, "–")]
)
def test_numbers_have_the_digits_that_count(value: float | None, text: str):
    assert tables.number(value) == text


def test_growth_is_in_the_order_of_the_sizes(report: Report):
    lines = tables.growth(report, "grow-backlog", "rows waiting").splitlines()
    assert lines[2:] == ["| 1,000 | 100 |", "| 1,000,000 | 90.0 |"]


def test_the_page_is_written_between_its_markers(report: Report, tmp_path: Path):
    written = tmp_path / "performance.md"
    written.write_text(
        "before\n<!-- peers: made by x -->\nold\n<!-- /peers -->\n"
        "<!-- growth: made by x -->\n<!-- /growth -->\nafter\n"
    )
    page.write_peers(report, written)
    page.write_growth(report, written)
    text = written.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "2.00× (pgqueuer)" in text
    assert "rq cannot be installed here" in text
    images = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert images == [
        "performance-grow-backlog.svg",
        "performance-noops.svg",
        "performance-start.svg",
    ]
    for name in images:
        assert f"(images/{name})" in text
        ElementTree.parse(tmp_path / "images" / name)


def test_a_page_without_the_marker_is_refused(report: Report, tmp_path: Path):
    written = tmp_path / "performance.md"
    written.write_text("nothing")
    with pytest.raises(KeyError, match="no part 'peers'"):
        page.write_peers(report, written)


def test_the_page_of_this_repository_has_its_markers():
    text = page.PAGE.read_text()
    assert page.replaced(text, "peers", "x") != text
    assert page.replaced(text, "growth", "x") != text


def test_a_bar_is_as_long_as_its_share():
    drawn = plots.bars("A & B", {"a": 100.0, "b": 50.0}, {"a": "ours"})
    tree = ElementTree.fromstring(drawn)
    widths = [float(rect.attrib["width"]) for rect in tree.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == pytest.approx(2 * widths[1])


def test_a_line_goes_through_every_point():
    drawn = plots.line("t", [(1000, 5.0), (1_000_000, 10.0), (10_000, 0.0)], "rows")
    tree = ElementTree.fromstring(drawn)
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}circle"))) == 3
    plots.line("one point", [(1, 1.0)], "rows")


def test_the_guard_compares_with_the_limits_of_the_same_run(report: Report):
    floors = (guard.Floor("throughput 20000", "tasks/s", "PostgreSQL claim and end", 0.4),)
    assert guard.shortfalls(report, floors) == []
    report.limits["PostgreSQL claim and end"] = 60_000.0
    (text,) = guard.shortfalls(report, floors)
    assert "0.333" in text
    report.found.clear()
    (text,) = guard.shortfalls(report, floors)
    assert "was not measured" in text


def test_floors_and_targets_name_cells_that_are_measured():
    names = {cell.name for cell in guard.CELLS}
    assert {floor.cell for floor in guard.FLOORS} <= names
    assert {cell for cell, _ in guard.TARGETS} <= names
    assert {cell.workload for cell in guard.CELLS} == set(guard.SHOWN)


def test_columns_name_cells_that_are_measured():
    names = {cell.name for cell in PEERS}
    columns = (*tables.COMMON, *tables.DELAYS, *tables.REST, *tables.DURABLE)
    assert {column.cell for column in columns} <= names
    assert {cell.workload for cell in GROWTH} == set(page.GROWING)


def test_every_pinned_contender_has_a_module():
    named = {name for environment in environments() for name in environment.contenders}
    for name in named:
        path = Path(page.ROOT) / "benchmarks" / "contenders" / f"{name}.py"
        assert path.exists(), name
    assert find_spec("benchmarks.contenders") is not None
    assert set(DURABLE) <= {*named, "cq"}
    asked = {name for cell in PEERS for name in cell.contenders or ()}
    assert asked <= {*named, "cq"}


def test_a_smaller_scale_keeps_the_least_size():
    assert Cell("waits", 5_000, least=200).scaled(0.01) == 200
    assert Cell("waits", 5_000).scaled(0.5) == 2_500


def test_a_failure_is_told_by_the_line_of_its_error():
    said = "Traceback:\n  File x\npsycopg.errors.SyntaxError: at )\nLINE 1: SELECT )\n     ^\n"
    assert said_last(said) == "psycopg.errors.SyntaxError: at )"
    assert said_last("Killed\n") == "Killed"
    assert said_last("") == "it printed nothing."


def test_a_report_survives_its_file(report: Report, tmp_path: Path):
    report.save(tmp_path / "x" / "report.json")
    assert Report.load(tmp_path / "x" / "report.json") == report
