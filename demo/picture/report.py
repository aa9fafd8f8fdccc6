"""
The report of one print, made from the rows that its tasks left behind.

Enters: a picture. Leaves: a page with what every tile took, as a table and as a drawing
in which each tile is a bar from its start to its end.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.template.loader import render_to_string
from django.utils import timezone

from cq.models import Task
from picture import board
from picture.models import Picture

CHART_WIDTH = 960
BAR_HEIGHT = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One tile in the report."""

    name: str
    kind: str
    pid: int
    attempts: int
    waited: float
    ran: float
    pixels: float
    left: float
    length: float
    top: int

    @property
    def retried(self) -> bool:
        return self.attempts > 1


def render(picture: Picture, stitched: dict[str, int]) -> str:
    """Return the report as a page."""
    head = Task.objects.get(pk=picture.root)
    cells = {(cell.tile.column, cell.tile.row): cell.kind for cell in board.cells(picture)}
    tasks = sorted(board.tile_tasks(picture).items(), key=lambda item: began(item[1]))
    opened = min((began(task) for _, task in tasks), default=head.submitted)
    closed = max((ended(task) for _, task in tasks), default=head.submitted)
    span = max((closed - opened).total_seconds(), 0.001)
    lines = [
        line(number, f"{column}-{row}", cells[column, row], task, opened, span)
        for number, ((column, row), task) in enumerate(tasks)
    ]
    return render_to_string(
        "picture/report.html", context(picture, head, lines, span) | {"stitched": stitched}
    )


def began(task: Task) -> datetime:
    return task.started or task.submitted


def ended(task: Task) -> datetime:
    return task.finished or began(task)


def line(number: int, name: str, kind: str, task: Task, opened: datetime, span: float) -> Line:
    """Return one tile's line; `opened` and `span` place its bar in the drawing."""
    start = (began(task) - opened).total_seconds()
    ran = (ended(task) - began(task)).total_seconds()
    result = task.result or {}
    return Line(
        name=name,
        kind=kind,
        pid=result.get("pid", 0),
        attempts=task.attempts,
        waited=(began(task) - task.submitted).total_seconds(),
        ran=ran,
        pixels=result.get("seconds", 0.0),
        left=round(start / span * CHART_WIDTH, 1),
        length=max(2.0, round(ran / span * CHART_WIDTH, 1)),
        top=number * BAR_HEIGHT,
    )


def context(picture: Picture, head: Task, lines: list[Line], span: float) -> dict[str, Any]:
    """Return what the template shows."""
    return {
        "picture": picture,
        "lines": lines,
        "written": timezone.now(),
        "span": span,
        "total": (timezone.now() - head.submitted).total_seconds(),
        "work": sum(entry.ran for entry in lines),
        "pixels": sum(entry.pixels for entry in lines),
        "pids": sorted({entry.pid for entry in lines}),
        "retried": [entry.name for entry in lines if entry.retried],
        "chart_width": CHART_WIDTH,
        "chart_height": len(lines) * BAR_HEIGHT,
        "bar_height": BAR_HEIGHT - 2,
    }
