"""
The picture work itself: how a picture is cut, printed and put together again.

Pure functions of Pillow images, without Django and without cq. A print is local: every
pixel depends on its own place and on its neighbours within `MARGIN`. So a tile that is
cut with that margin and trimmed afterwards is, pixel by pixel, the piece of the print
that the whole picture would have given; the tests compare exactly that.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

Box = tuple[int, int, int, int]

MARGIN = 8
"""How far a pixel of the print looks around: blur and edges 3, the median 2; rounded up."""

TILES = 300
"""A picture is cut into about this many tiles, and never into fewer."""

INK = (30, 34, 66)
"""The colour of its lines: a blue that is nearly black."""

HATCH = 8
"""The distance of two hatching lines, in pixels."""

WALL_PLACES = 8
"""How many prints hang on the wall."""

WALL_PRINT = (240, 180)
"""The size of a print on the wall, and 20 pixels between two."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One piece of a picture: where it sits in the grid and which pixels it covers."""

    column: int
    row: int
    box: Box

    @property
    def name(self) -> str:
        return f"{self.column}-{self.row}"

    @property
    def is_dark(self) -> bool:
        """Whether this is a dark field of the chessboard: those are printed by async tasks."""
        return (self.column + self.row) % 2 == 1


@dataclass(frozen=True, slots=True)
class Grid:
    """How a picture of this size is cut: square tiles, smaller ones at the right and the foot."""

    width: int
    height: int
    side: int

    @classmethod
    def fit(cls, width: int, height: int) -> Self:
        """Return the grid of about `TILES` squares for a picture of this size."""
        return cls(width, height, max(1, math.floor(math.sqrt(width * height / TILES))))

    @property
    def columns(self) -> int:
        return math.ceil(self.width / self.side)

    @property
    def rows(self) -> int:
        return math.ceil(self.height / self.side)

    def __len__(self) -> int:
        return self.columns * self.rows

    def __iter__(self) -> Iterator[Tile]:
        for row in range(self.rows):
            for column in range(self.columns):
                yield self.tile(column, row)

    def tile(self, column: int, row: int) -> Tile:
        """Return the tile at this place; raise IndexError outside the grid."""
        if not (0 <= column < self.columns and 0 <= row < self.rows):
            raise IndexError(
                f"There is no tile {column}-{row}. The grid has {self.columns} columns and "
                f"{self.rows} rows. Count both from 0."
            )
        left, top = column * self.side, row * self.side
        box = (left, top, min(left + self.side, self.width), min(top + self.side, self.height))
        return Tile(column, row, box)


def with_margin(box: Box, size: tuple[int, int]) -> Box:
    """Return `box` widened by `MARGIN` on every side, as far as the picture reaches."""
    left, top, right, bottom = box
    width, height = size
    return (
        max(0, left - MARGIN),
        max(0, top - MARGIN),
        min(width, right + MARGIN),
        min(height, bottom + MARGIN),
    )


def cut(picture: Image.Image, tile: Tile) -> Image.Image:
    """Return the pixels of `tile` together with the margin its print needs."""
    return picture.crop(with_margin(tile.box, picture.size))


def print_tile(piece: Image.Image, tile: Tile, size: tuple[int, int]) -> Image.Image:
    """Print a piece that `cut` returned, and trim its margin; `size` is the whole picture's."""
    left, top, _, _ = with_margin(tile.box, size)
    printed = print_whole(piece, at=(left, top))
    inner = (tile.box[0] - left, tile.box[1] - top, tile.box[2] - left, tile.box[3] - top)
    return printed.crop(inner)


def stitch(size: tuple[int, int], tiles: Iterable[tuple[Tile, Image.Image]]) -> Image.Image:
    """Put the printed tiles together again."""
    board = Image.new("RGB", size)
    for tile, printed in tiles:
        board.paste(printed, tile.box[:2])
    return board


def print_whole(picture: Image.Image, at: tuple[int, int] = (0, 0)) -> Image.Image:
    """
    Return `picture` as a colour print: flat colours, ink lines and hatched shadows.

    `at` is the place of the upper left pixel in the whole picture; it keeps the hatching
    lines of neighbouring tiles in step.
    """
    fields = colour_fields(picture)
    grey = picture.convert("L").filter(ImageFilter.BoxBlur(1.5))
    ink = ImageChops.darker(pen_lines(grey), hatching(grey, at))
    return Image.composite(fields, Image.new("RGB", picture.size, INK), ink)


def colour_fields(picture: Image.Image) -> Image.Image:
    """Return the picture in few, fresh tones: details are smoothed, brightness goes in steps."""
    smooth = picture.filter(ImageFilter.MedianFilter(5))
    fresh = ImageEnhance.Color(smooth).enhance(1.2)
    brightness, blue, red = fresh.convert("YCbCr").split()
    # Stepping the brightness alone keeps the hues of the original.
    return Image.merge("YCbCr", (brightness.point(steps(9)), blue, red)).convert("RGB")


def steps(count: int) -> list[int]:
    """Return a table that rounds 0…255 to `count` even steps."""
    return [round(round(value / 255 * count) / count * 255) for value in range(256)]


def pen_lines(grey: Image.Image) -> Image.Image:
    """Return a mask that is dark where the picture has an edge, as a pen would follow it."""
    edges = ImageChops.subtract(
        grey.filter(ImageFilter.MaxFilter(3)), grey.filter(ImageFilter.MinFilter(3))
    )
    return edges.point([255 - min(200, max(0, value - 22) * 7) for value in range(256)])


def hatching(grey: Image.Image, at: tuple[int, int]) -> Image.Image:
    """Return a mask of slanted lines in the shadows, thicker the darker the picture is."""
    shadow = grey.point([max(0, 104 - value) for value in range(256)])
    drawn = ImageChops.subtract(shadow, hatch_pattern(grey.size, at))
    return drawn.point([255 - min(140, value * 4) for value in range(256)])


def hatch_pattern(size: tuple[int, int], at: tuple[int, int]) -> Image.Image:
    """Return the hatching of an area: a slanted triangle wave, in step with the whole picture."""
    period = [
        abs((x + y) % HATCH - HATCH // 2) * (120 // (HATCH // 2))
        for y in range(HATCH)
        for x in range(HATCH)
    ]
    unit = Image.frombytes("L", (HATCH, HATCH), bytes(period))
    unit = ImageChops.offset(unit, -(at[0] % HATCH), -(at[1] % HATCH))
    area = Image.new("L", size)
    for top in range(0, size[1], HATCH):
        for left in range(0, size[0], HATCH):
            area.paste(unit, (left, top))
    return area


def wall(prints: Iterable[Image.Image]) -> Image.Image:
    """Return the prints side by side, four in a row, each with a frame of bare wall."""
    width, height = WALL_PRINT[0] + 20, WALL_PRINT[1] + 20
    whole = Image.new("RGB", (4 * width + 20, WALL_PLACES // 4 * height + 20), (228, 220, 205))
    for place, picture in enumerate(list(prints)[:WALL_PLACES]):
        fitted = ImageOps.fit(picture, WALL_PRINT, Image.Resampling.BICUBIC)
        whole.paste(fitted, (20 + place % 4 * width, 20 + place // 4 * height))
    return whole
