"""
What a person may upload, and the one sentence they read otherwise.

Enters: an open file, its name and its size. Leaves: an upright RGB picture that is not
larger than a print needs, or `UnusablePicture` with a sentence for the page. The pixels
are decoded only after the header's measures were found harmless.
"""

import struct
import zlib
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_BYTES = 12_000_000
MAX_PIXELS = 40_000_000
MIN_SIDE = 64
PRINT_SIDE = 1600
"""The longer side of a print; a larger picture is scaled down to it."""

BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
DAMAGED = (OSError, SyntaxError, ValueError, OverflowError, struct.error, zlib.error)
"""What Pillow's decoders raise for files that are cut short or were never right."""


class UnusablePicture(ValueError):
    """An upload that cannot be printed; its text is one sentence for the person."""


def open_picture(file: IO[bytes], name: str, size: int) -> Image.Image:
    """Return the uploaded picture, ready for the print, or raise UnusablePicture."""
    if size > MAX_BYTES:
        raise UnusablePicture(
            f"“{name}” has {size / 1e6:.1f} MB: pictures up to {MAX_BYTES // 1_000_000} MB can be "
            "printed, so save it smaller and try again."
        )
    try:
        with Image.open(file, formats=FORMATS) as picture:
            check_measures(name, *picture.size)
            return ready(picture)
    except BOMBS:
        raise UnusablePicture(too_many_pixels(name, "more pixels than a print can hold")) from None
    except Image.UnidentifiedImageError:
        raise UnusablePicture(
            f"“{name}” is not a picture that can be read: choose a JPEG, PNG or WebP file."
        ) from None
    except UnusablePicture:
        raise
    except DAMAGED:
        raise UnusablePicture(
            f"“{name}” is damaged and could not be read to its end: choose another file."
        ) from None


def open_sample(path: Path) -> Image.Image:
    """Return one of the demo's own pictures, ready for the print."""
    with path.open("rb") as file:
        return open_picture(file, path.name, path.stat().st_size)


def check_measures(name: str, width: int, height: int) -> None:
    """Refuse pictures that would take too much memory, and those too small to be cut."""
    if width * height > MAX_PIXELS:
        raise UnusablePicture(too_many_pixels(name, f"{width:,} × {height:,} pixels"))
    if min(width, height) < MIN_SIDE:
        raise UnusablePicture(
            f"“{name}” measures {width} × {height} pixels: a print needs at least "
            f"{MIN_SIDE} × {MIN_SIDE}, so choose a larger picture."
        )


def too_many_pixels(name: str, measures: str) -> str:
    return (
        f"“{name}” measures {measures}: pictures up to {MAX_PIXELS // 1_000_000} megapixels can "
        "be printed, so scale it down and try again."
    )


def ready(picture: Image.Image) -> Image.Image:
    """Return the picture upright, without transparency, and scaled to the print."""
    upright = ImageOps.exif_transpose(picture)
    upright.thumbnail((PRINT_SIDE, PRINT_SIDE), Image.Resampling.LANCZOS)
    if upright.mode in {"RGB", "L", "CMYK"}:
        return upright.convert("RGB")
    layered = upright.convert("RGBA")
    paper = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(paper, layered).convert("RGB")
