"""An import as people run them: many parts, a few of which fail, with a log in colours."""

from __future__ import annotations

import asyncio

from cq import task


class BadTile(ValueError):
    """A file that is no picture."""


@task
async def import_csv(cqt, tiles: int, seconds: float, corrupt: tuple[int, ...] = ()) -> None:
    cqt.log("reading \x1b[1mupload.csv\x1b[0m")
    for number in range(4):
        cqt.subtask(parse, number, seconds)
    for number in range(tiles):
        cqt.subtask(render_tile, number, seconds, number in corrupt)
    cqt.log(f"\x1b[32m4 parts\x1b[0m and \x1b[36m{tiles} tiles\x1b[0m are under way")
    await asyncio.sleep(0)


@task
async def parse(cqt, number: int, seconds: float) -> int:
    for step in range(1, 6):
        cqt.progress(step, 5, f"part {number}")
        await asyncio.sleep(seconds)
    cqt.log(f"part {number}: \x1b[32m500 rows\x1b[0m")
    return 500


@task
async def render_tile(cqt, number: int, seconds: float, is_corrupt: bool) -> None:
    await asyncio.sleep(seconds * (1 + number % 7))
    if is_corrupt:
        cqt.log(f"tile {number}: bad magic number", level=40)
        raise BadTile(f"tile {number} starts with 0x00, not with a picture")
    if number % 9 == 0:
        cqt.log(f"tile {number}: no colour profile, taking sRGB", level=30)
    else:
        cqt.log(f"tile {number}: \x1b[90m256 × 256\x1b[0m")
