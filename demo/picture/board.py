"""
The board: which task prints which tile, and how each one stands.

Enters: a picture. Leaves: one `Cell` per tile for the page's first paint, and the map from
task id to tile with which the page places the news that arrive afterwards.
"""

from dataclasses import dataclass
from uuid import UUID

from django.urls import reverse

from cq.models import Task
from picture.models import Picture
from picture.painting import Tile

Rows = dict[tuple[int, int], Task]


@dataclass(frozen=True, slots=True)
class Cell:
    """One tile on the page."""

    tile: Tile
    kind: str
    task_id: UUID | None
    state: str
    image: str

    @property
    def width(self) -> int:
        return self.tile.box[2] - self.tile.box[0]

    @property
    def height(self) -> int:
        return self.tile.box[3] - self.tile.box[1]

    @property
    def middle(self) -> tuple[int, int]:
        return self.tile.box[0] + self.width // 2, self.tile.box[1] + self.height // 2

    @property
    def mark(self) -> tuple[int, int, int]:
        """The little square or circle in the middle: left, top and side."""
        half = max(1, min(self.width, self.height) // 12)
        return self.middle[0] - half, self.middle[1] - half, 2 * half


def tile_tasks(picture: Picture) -> Rows:
    """Return the tile tasks of a picture by column and row; empty before it was cut."""
    if picture.root is None:
        return {}
    tasks = Task.objects.filter(parent=picture.root).order_by("id")
    return {(task.args[3], task.args[4]): task for task in tasks}


def cells(picture: Picture) -> list[Cell]:
    """Return every tile as it stands now."""
    tasks = tile_tasks(picture)
    board = []
    for tile in picture.grid:
        task = tasks.get((tile.column, tile.row))
        printed = picture.folder.printed(tile).exists() if task is None else task.status == "S"
        board.append(
            Cell(
                tile=tile,
                kind="async" if tile.is_dark else "sync",
                task_id=task.pk if task else None,
                state=state_of(task, printed),
                image=reverse("tile", args=[picture.pk, tile.column, tile.row]),
            )
        )
    return board


def state_of(task: Task | None, printed: bool) -> str:
    """Return the state's word; a tile whose task is long deleted is printed or still to come."""
    if task is not None:
        return task.get_status_display().lower()
    return "success" if printed else "pending"


def places(picture: Picture) -> dict[str, str]:
    """Return `{task id: "column-row"}` of all tiles that have a task."""
    tasks = tile_tasks(picture)
    return {str(task.pk): f"{column}-{row}" for (column, row), task in tasks.items()}
