"""What the demo accepts as an upload, and the one sentence that answers the rest."""

import contextlib
import io
import struct
import zlib
from random import Random
from typing import Any

import pytest
from PIL import Image

from demo.picture import uploads
from demo.picture.uploads import UnusablePicture, open_picture


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


def opened(data: bytes, name: str = "photo.png") -> Image.Image:
    return open_picture(io.BytesIO(data), name, len(data))


def refusal(data: bytes, name: str = "photo.png") -> str:
    with pytest.raises(UnusablePicture) as caught:
        opened(data, name)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert ". " not in sentence
    return sentence


def header_only(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be as large as this."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    measures = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = (
        chunk(b"IHDR", measures) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_usual_formats_are_read(kind: str) -> None:
    picture = opened(encoded(Image.new("RGB", (300, 200), "teal"), kind))
    assert (picture.mode, picture.size) == ("RGB", (300, 200))


def test_a_png_keeps_every_pixel() -> None:
    picture = Image.frombytes("RGB", (160, 120), Random(2).randbytes(160 * 120 * 3))
    assert opened(encoded(picture)).tobytes() == picture.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert opened(encoded(Image.new(mode, (80, 80)))).mode == "RGB"


def test_transparency_becomes_white_paper() -> None:
    assert opened(encoded(Image.new("RGBA", (80, 80), (255, 0, 0, 0)))).getpixel((5, 5)) == (
        255,
        255,
        255,
    )


def test_a_photo_is_turned_upright() -> None:
    photo = Image.new("RGB", (200, 100))
    exif = photo.getexif()
    exif[0x0112] = 6
    assert opened(encoded(photo, "JPEG", exif=exif)).size == (100, 200)


def test_a_large_picture_is_scaled_to_the_print() -> None:
    assert opened(encoded(Image.new("RGB", (3200, 2400)))).size == (1600, 1200)


def test_another_kind_of_file_is_refused() -> None:
    assert refusal(b"%PDF-1.7 no picture", "notes.pdf") == (
        "“notes.pdf” is not a picture that can be read: choose a JPEG, PNG or WebP file."
    )
    assert "not a picture that can be read" in refusal(encoded(Image.new("RGB", (80, 80)), "GIF"))
    assert "not a picture that can be read" in refusal(b"")


def test_a_large_file_is_refused_before_it_is_read() -> None:
    file = io.BytesIO(b"never looked at")
    with pytest.raises(UnusablePicture, match=r"has 25\.5 MB: pictures up to 12 MB"):
        open_picture(file, "big.png", 25_500_000)
    assert file.tell() == 0


def test_a_picture_with_too_many_pixels_is_refused_by_its_header() -> None:
    sentence = refusal(header_only(8000, 6000))
    assert "measures 8,000 × 6,000 pixels: pictures up to 40 megapixels" in sentence


@pytest.mark.parametrize("side", [10_000, 15_000, 60_000])
def test_a_decompression_bomb_is_refused(side: int) -> None:
    assert "up to 40 megapixels" in refusal(header_only(side, side))


def test_a_tiny_picture_is_refused() -> None:
    assert "measures 20 × 300 pixels" in refusal(encoded(Image.new("RGB", (20, 300))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_file_is_refused_or_read_but_never_crashes(kind: str) -> None:
    random = Random(7)
    whole = encoded(Image.frombytes("RGB", (90, 90), random.randbytes(90 * 90 * 3)), kind)
    assert "damaged" in refusal(whole[: len(whole) // 2])
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 8)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        with contextlib.suppress(UnusablePicture):
            opened(bytes(damaged))


def test_the_limits_are_what_the_sentences_say() -> None:
    assert uploads.MAX_BYTES == 12_000_000
    assert uploads.MAX_PIXELS == 40_000_000
