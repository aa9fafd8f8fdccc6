"""
Where the files of one picture lie, and how they are written.

Every process of the demo sees the same folder. A file is written beside its place and
moved there in one step: whoever reads it sees all of it or none of it, and a task that
runs twice only replaces a file by an equal one.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.conf import settings
from PIL import Image

from picture.painting import Tile


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one picture."""

    path: Path

    @classmethod
    def of(cls, picture_id: UUID | str) -> "Folder":
        return cls(Path(settings.MEDIA_ROOT) / UUID(str(picture_id)).hex)

    @property
    def source(self) -> Path:
        """The picture as it was uploaded: upright, RGB, without loss."""
        return self.path / "source.png"

    @property
    def finished(self) -> Path:
        return self.path / "finished.png"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def piece(self, tile: Tile) -> Path:
        """A tile with its margin, as it was cut from the source."""
        return self.path / "pieces" / f"{tile.name}.png"

    def printed(self, tile: Tile) -> Path:
        return self.path / "tiles" / f"{tile.name}.png"


def wall() -> Path:
    """Where the wall of the latest prints hangs."""
    return Path(settings.MEDIA_ROOT) / "wall.png"


def read(path: Path) -> Image.Image:
    """Return the picture in `path`, decoded."""
    with Image.open(path) as picture:
        picture.load()
        return picture


def write(picture: Image.Image, path: Path) -> None:
    """Save `picture` as PNG in one step; fast rather than small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".draft")
    with os.fdopen(handle, "wb") as file:
        picture.save(file, format="PNG", compress_level=1)
    os.replace(draft, path)


def write_text(text: str, path: Path) -> None:
    """Save `text` as UTF-8 in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".draft")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(draft, path)
