"""
The tasks of a print.

    make_print ─┬─ print_tile          (a thread, for every second tile)
                └─ print_tile_async    (the event loop, for the others)
        └─▸ stitch ─▸ write_report

`make_print` cuts the picture and makes a subtask of each tile. The tile in the middle
smudges on its first attempt and is retried. Who asks for it gets a torn tile, too, which
fails for good until it is mended. When all tiles are printed, the chain puts them together
and writes the report. Beside it, `heartbeat` runs every minute, and `hang_wall` on request.

Every task may run twice (its worker may die): it then writes equal files again.
"""

import asyncio
import os
import shutil
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from cq import Context, task
from cq.models import Task
from picture import board, files, painting, report
from picture.models import Beat, Picture

KEEP = timedelta(days=1)
"""How long a picture stays before the heartbeat removes it."""


BACKOFF = [2, 4]
"""Seconds before the second attempt at a tile, and before the third."""


class Smudged(Exception):
    """The paper moved under the press; the next attempt usually succeeds."""


class Torn(Exception):
    """The paper of a tile is torn; no further attempt can print it."""


@task("make_print")
def make_print(cqt: Context, picture_id: str, torn: bool = False) -> None:
    """Cut the picture; each tile becomes a subtask. With `torn` one of them cannot be printed."""
    picture = Picture.objects.get(pk=picture_id)
    whole, grid = files.read(picture.folder.source), picture.grid
    for tile in grid:
        files.write(painting.cut(whole, tile), picture.folder.piece(tile))
        printer = print_tile_async if tile.is_dark else print_tile
        cqt.subtask(printer, picture_id, grid.width, grid.height, tile.column, tile.row)
    if torn:
        tear(picture.folder.piece(torn_tile(grid)))
    cqt.log(f"Cut {picture.name} ({grid.width} × {grid.height}) into {len(grid)} tiles.")


@task("print_tile", retries=2, backoff=BACKOFF)
def print_tile(
    cqt: Context, picture_id: str, width: int, height: int, column: int, row: int
) -> dict[str, Any]:
    """Print one tile in a thread."""
    grid = painting.Grid.fit(width, height)
    tile = grid.tile(column, row)
    cqt.progress(0, 2, "inked")
    # A thread that waits is a thread less for others; see the async twin below.
    threading.Event().wait(settings.DEMO_PACE / 5)
    check_paper(cqt, grid, tile)
    return told(cqt, tile, press(picture_id, grid, tile))


@task("print_tile_async", retries=2, backoff=BACKOFF)
async def print_tile_async(
    cqt: Context, picture_id: str, width: int, height: int, column: int, row: int
) -> dict[str, Any]:
    """Print one tile from the event loop: all of them dry at the same time, without a thread."""
    grid = painting.Grid.fit(width, height)
    tile = grid.tile(column, row)
    cqt.progress(0, 2, "inked")
    place = (row * grid.columns + column) / len(grid)
    await asyncio.sleep(settings.DEMO_PACE * (0.5 + 2.5 * place))
    check_paper(cqt, grid, tile)
    return told(cqt, tile, await asyncio.to_thread(press, picture_id, grid, tile))


def check_paper(cqt: Context, grid: painting.Grid, tile: painting.Tile) -> None:
    """Smudge the tile in the middle of the picture, on its first attempt only."""
    if cqt.attempt == 1 and (tile.column, tile.row) == (grid.columns // 2, grid.rows // 2):
        cqt.log(f"Tile {tile.name} smudged; it will be printed again.", "warning")
        raise Smudged(f"Tile {tile.name} smudged on the press. The next attempt prints it anew.")


def torn_tile(grid: painting.Grid) -> painting.Tile:
    """Return the tile that tears when somebody wants to see a failure."""
    return grid.tile(grid.columns // 4, grid.rows // 3)


def tear(piece: Path) -> None:
    """Leave half of a piece."""
    data = piece.read_bytes()
    piece.write_bytes(data[: len(data) // 2])


def mend(picture: Picture) -> None:
    """Cut the pieces anew of all tiles whose tasks have failed."""
    whole = files.read(picture.folder.source)
    for place, printer in board.tile_tasks(picture).items():
        if printer.status in Task.STATUS_ERROR:
            tile = picture.grid.tile(*place)
            files.write(painting.cut(whole, tile), picture.folder.piece(tile))


def press(picture_id: str, grid: painting.Grid, tile: painting.Tile) -> float:
    """Do the pixel work of one tile and return how long it took."""
    began = time.perf_counter()
    folder = files.Folder.of(picture_id)
    try:
        piece = files.read(folder.piece(tile))
    except OSError as damage:
        raise Torn(
            f"The paper of tile {tile.name} is torn. Mend it on the picture's page; then only "
            "what failed is printed again."
        ) from damage
    files.write(painting.print_tile(piece, tile, (grid.width, grid.height)), folder.printed(tile))
    return round(time.perf_counter() - began, 4)


def told(cqt: Context, tile: painting.Tile, seconds: float) -> dict[str, Any]:
    """Say that a tile is printed, in the log and as the result of its task."""
    cqt.progress(2, 2, "printed")
    cqt.log(f"Tile {tile.name} printed in {seconds * 1000:.0f} ms.", "debug")
    return {"pid": os.getpid(), "seconds": seconds}


@task("stitch")
def stitch(cqt: Context, picture_id: str) -> dict[str, int]:
    """Put the printed tiles together."""
    picture = Picture.objects.get(pk=picture_id)
    grid, folder = picture.grid, picture.folder
    tiles = ((tile, files.read(folder.printed(tile))) for tile in grid)
    files.write(painting.stitch((grid.width, grid.height), tiles), folder.finished)
    cqt.log(f"Put {len(grid)} tiles together.")
    return {"tiles": len(grid), "bytes": folder.finished.stat().st_size}


@task("write_report")
def write_report(cqt: Context, stitched: dict[str, int], picture_id: str) -> None:
    """Write down what every tile took: when, where, how often."""
    picture = Picture.objects.get(pk=picture_id)
    files.write_text(report.render(picture, stitched), picture.folder.report)
    cqt.log("The report is written.")


@task("hang_wall", coalesce=True)
def hang_wall(cqt: Context) -> int:
    """Hang the latest prints on one wall; presses of the button that come early share a run."""
    prints = [
        files.read(picture.folder.finished)
        for picture in Picture.objects.all()[: painting.WALL_PLACES]
        if picture.folder.finished.exists()
    ]
    files.write(painting.wall(prints), files.wall())
    cqt.log(f"Hung {len(prints)} prints.")
    return len(prints)


@task("heartbeat")
def heartbeat(cqt: Context) -> int:
    """Note the minute, and clear away what is older than a day; run by cron."""
    now = timezone.now()
    Beat.objects.create(pid=os.getpid())
    Beat.objects.filter(at__lt=now - timedelta(hours=1)).delete()
    old = list(Picture.objects.filter(created__lt=now - KEEP))
    for picture in old:
        shutil.rmtree(picture.folder.path, ignore_errors=True)
        picture.delete()
    if old:
        cqt.log(f"Removed {len(old)} pictures older than a day.")
    return len(old)
