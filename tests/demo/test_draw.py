"""The demo's own pictures are what their script draws, and small."""

from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from demo.pictures import draw

FOLDER = Path(draw.__file__).parent


def test_every_scene_is_in_the_repository_and_nothing_else() -> None:
    assert {path.stem for path in FOLDER.glob("*.jpg")} == set(draw.SCENES)


@pytest.mark.parametrize("name", draw.SCENES)
def test_a_stored_picture_is_what_the_script_draws(name: str) -> None:
    path = FOLDER / f"{name}.jpg"
    drawn = draw.picture(name)
    with Image.open(path) as stored:
        difference = ImageChops.difference(stored.convert("RGB"), drawn)
    assert path.stat().st_size < 150_000
    assert drawn.size == (1200, 900)
    # JPEG is lossy, and another version of Pillow may round differently.
    assert max(ImageStat.Stat(difference).mean) < 3


def test_a_scene_is_drawn_the_same_twice() -> None:
    assert draw.picture("dunes").tobytes() == draw.picture("dunes").tobytes()
