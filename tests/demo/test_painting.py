"""The print of the demo: tiles cut with a margin equal the one-piece print, pixel by pixel."""

from random import Random

import pytest
from PIL import Image, ImageChops

from demo.picture import painting
from demo.picture.painting import Grid

SIZES = [(1600, 1200), (301, 777), (97, 64), (64, 64), (1200, 64), (1600, 5)]


def static(width: int, height: int, seed: int = 1) -> Image.Image:
    """A picture without any order: every wrong pixel of a print would show."""
    return Image.frombytes("RGB", (width, height), Random(seed).randbytes(width * height * 3))


def in_tiles(picture: Image.Image) -> Image.Image:
    grid = Grid.fit(*picture.size)
    printed = (
        (tile, painting.print_tile(painting.cut(picture, tile), tile, picture.size))
        for tile in grid
    )
    return painting.stitch(picture.size, printed)


@pytest.mark.parametrize("size", SIZES)
def test_a_print_in_tiles_equals_the_print_in_one_piece(size: tuple[int, int]) -> None:
    picture = static(*size)
    assert in_tiles(picture).tobytes() == painting.print_whole(picture).tobytes()


def test_the_margin_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = static(400, 300)
    whole = painting.print_whole(picture)
    monkeypatch.setattr(painting, "MARGIN", 1)
    assert ImageChops.difference(in_tiles(picture), whole).getbbox() is not None


def test_a_print_differs_from_its_picture_almost_everywhere() -> None:
    picture = static(320, 240)
    difference = ImageChops.difference(picture, painting.print_whole(picture)).convert("L")
    untouched = difference.histogram()[0] / (320 * 240)
    assert untouched < 0.05


@pytest.mark.parametrize("size", SIZES)
def test_tiles_cover_the_picture_once_and_are_enough(size: tuple[int, int]) -> None:
    grid = Grid.fit(*size)
    covered = Image.new("L", size)
    area = 0
    for tile in grid:
        left, top, right, bottom = tile.box
        area += (right - left) * (bottom - top)
        covered.paste(1, tile.box)
    assert area == size[0] * size[1]
    assert covered.getextrema() == (1, 1)
    assert len(list(grid)) == len(grid) > 250


def test_a_large_picture_has_both_kinds_of_tiles() -> None:
    tiles = list(Grid.fit(1600, 1200))
    dark = sum(tile.is_dark for tile in tiles)
    assert len(tiles) == 300
    assert dark == 150


def test_a_tile_outside_the_grid_is_named() -> None:
    with pytest.raises(IndexError, match=r"There is no tile 20-0\. The grid has 20 columns"):
        Grid.fit(1600, 1200).tile(20, 0)


def test_a_wall_holds_the_first_prints_and_no_more() -> None:
    prints = [Image.new("RGB", (30 * number, 90), (number, 0, 0)) for number in range(1, 12)]
    wall = painting.wall(prints)
    assert wall.size == (1060, 420)
    assert wall.getpixel((30, 30)) == (1, 0, 0)
    assert wall.getpixel((1030, 390)) == (8, 0, 0)
    assert painting.wall([]).size == wall.size
