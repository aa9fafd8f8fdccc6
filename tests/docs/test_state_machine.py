"""docs/inside/state-machine.md is drawn from the table of arrows; this file draws it."""

from __future__ import annotations

import re

from cq.definition.status import TRANSITIONS, Status, Transition
from tests.docs.written_project import ROOT

PAGE = ROOT / "docs" / "inside" / "state-machine.md"
BY_WORKERS = ("a worker", "the worker", "the worker, stopping", "the last child's completion")


def draw(arrows: list[Transition]) -> str:
    """Draw arrows as a Mermaid diagram, those between the same two statuses on one line."""
    lines: dict[tuple[str, str], list[str]] = {}
    for arrow in arrows:
        for source in [status for status in Status if status in arrow.sources] or [None]:
            for target in [status for status in Status if status in arrow.targets] or [None]:
                ends = tuple(end.label if end else "[*]" for end in (source, target))
                lines.setdefault(ends, []).append(arrow.id)  # type: ignore[arg-type]
    drawn = [f"    {a} --> {b}: {', '.join(ids)}" for (a, b), ids in lines.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *drawn, "```"])


def pictures() -> list[str]:
    """The pictures of the page: how a run goes, and everything that cuts it short or repeats it."""
    runs = [a for a in TRANSITIONS if not a.sources or a.who in BY_WORKERS or a.id == "T3"]
    return [draw(runs), draw([arrow for arrow in TRANSITIONS if arrow not in runs])]


def test_the_pictures_are_drawn_from_the_code() -> None:
    drawn = re.findall(r"^```mermaid\n.*?^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert drawn == pictures(), "\n\n".join(pictures())


def test_each_arrow_is_told() -> None:
    rows = re.findall(r"^\| (T\d+) \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [arrow.id for arrow in TRANSITIONS]
