"""
The demo's own pictures, drawn from numbers.

    python demo/pictures/draw.py            # draws every picture beside this file
    python demo/pictures/draw.py --into DIR

Nothing is downloaded and nothing is random: every scene has its own fixed seed, so a
second run draws the same pixels. Each scene is drawn at twice its size and scaled down,
which gives smooth edges, and is saved as a JPEG of well under 150 KB.
"""

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]

WIDTH, HEIGHT = 2400, 1800
"""The size of the drawing board; a saved picture is half as wide and half as high."""


def gradient(*stops: Colour, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Return a vertical run through `stops`, top to bottom."""
    strip = Image.new("RGB", (1, len(stops)))
    strip.putdata(stops)
    # Bicubic sampling from the centres of the end pixels keeps the outer colours pure.
    box = (0, 0.5, 1, len(stops) - 0.5)
    return strip.resize(size, Image.Resampling.BICUBIC, box=box)


def glow(at: Point, radius: float, strength: float = 1.0) -> Image.Image:
    """Return a mask that is bright at `at` and fades out towards `radius`."""
    side = int(radius * 2)
    away = Image.radial_gradient("L").resize((side, side), Image.Resampling.BICUBIC)
    # The gradient reaches white in the corners only; the sides of the square are at 180.
    fade = [max(0.0, 1 - value / 178) ** 2 for value in range(256)]
    light = away.point([int(strength * value * 255) for value in fade])
    mask = Image.new("L", (WIDTH, HEIGHT))
    mask.paste(light, (int(at[0] - radius), int(at[1] - radius)))
    return mask


def noise(random: Random, columns: int, rows: int) -> Image.Image:
    """Return soft grey clouds: a coarse grid of random values, smoothly enlarged."""
    grid = Image.frombytes("L", (columns, rows), random.randbytes(columns * rows))
    return grid.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def ridge(random: Random, base: float, height: float, roughness: float = 0.5) -> list[Point]:
    """Return a mountain line from the left edge to the right one, by midpoint displacement."""
    heights = [random.uniform(-1, 1), random.uniform(-1, 1)]
    swing = 1.0
    while len(heights) < 512:
        swing *= roughness
        longer = [heights[0]]
        for left, right in pairwise(heights):
            longer += [(left + right) / 2 + random.uniform(-swing, swing), right]
        heights = longer
    step = WIDTH / (len(heights) - 1)
    return [(index * step, base - height * value) for index, value in enumerate(heights)]


def fill(board: Image.Image, line: Iterable[Point], paint: Image.Image) -> None:
    """Lay `paint` on the board everywhere below `line`."""
    mask = Image.new("L", board.size)
    ImageDraw.Draw(mask).polygon([(0, HEIGHT), *line, (WIDTH, HEIGHT)], fill=255)
    board.paste(paint, (0, 0), mask)


def stars(board: Image.Image, random: Random, count: int, lowest: float) -> None:
    """Scatter small stars of different brightness over the upper part of the board."""
    draw = ImageDraw.Draw(board)
    for _ in range(count):
        x, y = random.uniform(0, WIDTH), random.uniform(0, lowest)
        size = random.choice((1.5, 1.5, 2, 3))
        light = random.randint(130, 245)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=(light, light, 235))


def reflect(board: Image.Image, waterline: int, tint: Colour, amount: float) -> None:
    """Mirror what stands above `waterline` below it, blurred by still water and tinted."""
    depth = HEIGHT - waterline
    above = board.crop((0, waterline - depth, WIDTH, waterline))
    below = above.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    # Squeezing and stretching the columns alone smears the mirror image downwards.
    below = below.resize((WIDTH, depth // 24)).resize((WIDTH, depth), Image.Resampling.BICUBIC)
    water = Image.new("RGB", below.size, tint)
    board.paste(Image.blend(below, water, amount), (0, waterline))


def dunes() -> Image.Image:
    """Sand in the last light: each crest lit on one side."""
    random = Random(11)
    board = gradient((54, 66, 104), (150, 110, 132), (236, 164, 128), (252, 214, 160))
    board.paste((255, 240, 205), (0, 0), glow((1640, 760), 900, 0.75))
    ImageDraw.Draw(board).ellipse((1530, 650, 1750, 870), fill=(255, 246, 222))
    shades: list[tuple[Colour, Colour]] = [
        ((203, 138, 116), (222, 160, 128)),
        ((190, 112, 92), (218, 146, 104)),
        ((168, 88, 74), (206, 122, 84)),
        ((136, 66, 64), (186, 98, 70)),
        ((98, 46, 56), (150, 72, 60)),
        ((58, 28, 46), (104, 48, 52)),
    ]
    for depth, (dark, light) in enumerate(shades):
        base = 900 + depth * 150
        turn, phase = random.uniform(1.2, 2.2), random.uniform(0, 6)
        line = [
            (x, base - (60 + 26 * depth) * math.sin(x / WIDTH * turn * math.pi + phase)
             - (14 + 5 * depth) * math.sin(x / WIDTH * turn * 3.7 * math.pi + phase * 2))
            for x in range(0, WIDTH + 1, 6)
        ]  # fmt: skip
        fill(board, line, gradient(light, light, light, dark))
        lee = [(x, y + 20 + 140 * (0.5 + 0.5 * math.sin(x / 310 + phase))) for x, y in line]
        shadow = Image.blend(gradient(dark, dark), gradient(light, dark), 0.35)
        fill(board, lee, shadow)
    return board


def harbour() -> Image.Image:
    """Boats before an evening sun, and its path on the water."""
    random = Random(23)
    board = gradient((38, 70, 110), (96, 122, 150), (242, 180, 120), (250, 214, 150), (90, 90, 110))
    board.paste((255, 230, 170), (0, 0), glow((1080, 1010), 1000, 0.8))
    draw = ImageDraw.Draw(board)
    draw.ellipse((960, 880, 1200, 1120), fill=(255, 236, 190))
    fill(board, ridge(random, 1010, 60, 0.55), gradient((96, 96, 130), (120, 108, 132)))
    fill(board, ridge(random, 1050, 40, 0.5), gradient((72, 76, 110), (84, 82, 110)))
    horizon = 1080
    water = gradient((214, 164, 130), (96, 120, 146), (36, 66, 96), (18, 36, 62),
                     size=(WIDTH, HEIGHT - horizon))  # fmt: skip
    board.paste(water, (0, horizon))
    for _ in range(2600):
        near = random.random() ** 1.6
        y = horizon + 4 + near * (HEIGHT - horizon)
        spread = 60 + 520 * near
        x = random.gauss(1080, spread)
        path = math.exp(-(((x - 1080) / (90 + 320 * near)) ** 2))
        tone = (255, 222, 164) if random.random() < path else random.choice(
            ((58, 92, 122), (30, 58, 88), (120, 140, 158)))  # fmt: skip
        half = 8 + 60 * near * random.random()
        draw.line((x - half, y, x + half, y), fill=tone, width=int(2 + 5 * near))
    for x, y, size in ((500, 1190, 1.0), (1560, 1290, 1.55), (880, 1120, 0.5), (1980, 1130, 0.55)):
        sail(draw, x, y, size)
    return board


def sail(draw: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    """Draw one sailing boat and its broken mirror image."""

    def at(points: list[Point], flip: float = -1) -> list[Point]:
        return [(x + size * across, y + flip * size * up) for across, up in points]

    main, front = [(8, 20), (8, 330), (150, 36)], [(-8, 30), (-8, 290), (-110, 40)]
    hull: list[Point] = [(-130, 14), (150, 14), (112, -26), (-96, -26)]
    draw.polygon(at(main, 0.55), fill=(150, 120, 116))
    draw.polygon(at(front, 0.5), fill=(164, 132, 122))
    for line in range(6):
        level = y + size * (40 + line * 26)
        draw.line((x - 170 * size, level, x + 170 * size, level), fill=(46, 72, 100),
                  width=max(2, int(7 * size)))  # fmt: skip
    draw.polygon(at(main), fill=(250, 238, 220))
    draw.polygon(at(front), fill=(206, 84, 66))
    draw.line(at([(0, 10), (0, 350)]), fill=(60, 40, 44), width=max(3, int(7 * size)))
    draw.polygon(at(hull), fill=(52, 34, 46))


def city() -> Image.Image:
    """A town at night with its windows lit, doubled in the river."""
    random = Random(37)
    board = gradient((10, 14, 38), (24, 30, 70), (66, 54, 104), (150, 90, 120), (40, 40, 70))
    stars(board, random, 420, 760)
    board.paste((240, 236, 220), (0, 0), glow((1820, 330), 420, 0.55))
    draw = ImageDraw.Draw(board)
    draw.ellipse((1720, 230, 1920, 430), fill=(246, 242, 226))
    waterline = 1330
    for depth, (tone, tallest) in enumerate((((58, 50, 96), 420), ((36, 34, 74), 620),
                                             ((18, 20, 48), 760))):  # fmt: skip
        x = -40
        while x < WIDTH:
            width = random.randint(90, 210)
            centre = 1 - abs((x + width / 2) / WIDTH - 0.42) * 1.5
            top = waterline - 110 - int(tallest * max(0.08, centre) * random.uniform(0.45, 1))
            draw.rectangle((x, top, x + width, waterline), fill=tone)
            if random.random() < 0.3:
                draw.line((x + width / 2, top, x + width / 2, top - 90), fill=tone, width=8)
            windows(draw, random, (x, top, x + width, waterline), depth)
            x += width + random.randint(-20, 14)
    reflect(board, waterline, (14, 18, 46), 0.45)
    for _ in range(500):
        y = random.uniform(waterline + 6, HEIGHT)
        half = random.uniform(10, 70)
        middle = random.uniform(0, WIDTH)
        draw.line((middle - half, y, middle + half, y), fill=(38, 40, 84), width=3)
    return board


def windows(
    draw: ImageDraw.ImageDraw, random: Random, box: tuple[int, int, int, int], depth: int
) -> None:
    """Light about a third of one house's windows; far houses show fainter ones."""
    left, top, right, bottom = box
    lit = ((120, 98, 118), (196, 150, 108), (255, 208, 128))[depth]
    side = 8 + 4 * depth
    for y in range(top + 26, bottom - 20, side * 3):
        for x in range(left + 16, right - side - 8, side * 2 + 6):
            if random.random() < 0.34:
                draw.rectangle((x, y, x + side, y + int(side * 1.5)), fill=lit)


def sunflower() -> Image.Image:
    """Seeds on a golden spiral, with two rings of petals behind them."""
    random = Random(5)
    board = gradient((22, 78, 92), (40, 118, 116), (120, 168, 128), (212, 204, 140))
    clouds = noise(random, 9, 7).filter(ImageFilter.GaussianBlur(60))
    board = Image.composite(board, ImageChops.screen(board, gradient((40, 60, 50), (70, 70, 30))),
                            clouds)  # fmt: skip
    draw = ImageDraw.Draw(board)
    centre = (1200.0, 900.0)
    rings: list[tuple[int, float, float, Colour]] = [
        (34, 830, 0.05, (214, 128, 24)), (34, 790, 0.14, (240, 164, 32)),
        (29, 700, 0.0, (252, 196, 56)),
    ]  # fmt: skip
    for count, reach, turn, tone in rings:
        for index in range(count):
            angle = math.tau * index / count + turn
            petal(draw, centre, angle, reach * random.uniform(0.93, 1.04), tone)
    draw.ellipse((770, 470, 1630, 1330), fill=(52, 30, 24))
    golden = math.pi * (3 - math.sqrt(5))
    for index in range(1500, 0, -1):
        radius = 11.6 * math.sqrt(index)
        x = centre[0] + radius * math.cos(index * golden)
        y = centre[1] + radius * math.sin(index * golden)
        share = index / 1500
        size = 6 + 9 * share
        tone = (int(70 + 110 * share**3), int(38 + 66 * share**3), int(26 + 8 * share))
        draw.ellipse((x - size, y - size, x + size, y + size), fill=tone)
        spark = size * 0.45
        bright = tuple(min(255, value + 46) for value in tone)
        draw.ellipse((x - spark, y - spark, x + spark * 0.4, y + spark * 0.4), fill=bright)
    return board


def petal(
    draw: ImageDraw.ImageDraw, centre: Point, angle: float, reach: float, tone: Colour
) -> None:
    """Draw one pointed petal from the heart outwards, with a darker vein."""
    across = angle + math.pi / 2
    sides: list[list[Point]] = [[], []]
    for step in range(21):
        along = step / 20
        half = 92 * math.sin(math.pi * along**0.8) * (1 - 0.25 * along)
        for side, points in zip((-1, 1), sides, strict=True):
            points.append((
                centre[0] + (300 + (reach - 300) * along) * math.cos(angle)
                + side * half * math.cos(across),
                centre[1] + (300 + (reach - 300) * along) * math.sin(angle)
                + side * half * math.sin(across),
            ))  # fmt: skip
    draw.polygon(sides[0] + sides[1][::-1], fill=tone)
    vein = tuple(int(value * 0.82) for value in tone)
    far = reach * 0.9
    draw.line((centre[0] + 340 * math.cos(angle), centre[1] + 340 * math.sin(angle),
               centre[0] + far * math.cos(angle), centre[1] + far * math.sin(angle)),
              fill=vein, width=5)  # fmt: skip


def aurora() -> Image.Image:
    """Northern lights over snow, pines and a lake."""
    random = Random(71)
    board = gradient((6, 12, 34), (10, 26, 56), (22, 58, 84), (70, 110, 120))
    stars(board, random, 520, 1000)
    for tone, swing, base in (((70, 240, 170), 150, 560), ((90, 190, 240), 110, 420),
                              ((190, 110, 220), 90, 320)):  # fmt: skip
        board.paste(tone, (0, 0), curtain(random, base, swing))
    fill(board, ridge(random, 1120, 230, 0.52), gradient((220, 236, 244), (60, 92, 118)))
    fill(board, ridge(random, 1210, 150, 0.55), gradient((120, 152, 172), (28, 52, 78)))
    waterline = 1400
    fill(board, ridge(random, 1330, 30, 0.5), gradient((16, 36, 50), (8, 20, 32)))
    draw = ImageDraw.Draw(board)
    for x, size in pines(random):
        pine(draw, x, waterline + 6, size)
    reflect(board, waterline, (8, 26, 44), 0.35)
    return board


def curtain(random: Random, base: float, swing: float) -> Image.Image:
    """Return one hanging band of light: bright at its lower hem, fading upwards."""
    mask = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(mask)
    turn, phase = random.uniform(1.0, 1.8), random.uniform(0, 6)
    rays = [random.random() for _ in range(WIDTH // 40 + 2)]
    for x in range(0, WIDTH, 4):
        near = x / 40 - int(x / 40)
        ray = rays[x // 40] * (1 - near) + rays[x // 40 + 1] * near
        hem = base + swing * math.sin(x / WIDTH * turn * math.tau + phase) + 40 * ray
        length = 200 + 380 * ray
        for step in range(36):
            y = hem - length * step / 36
            light = int((40 + 170 * ray) * (1 - step / 36) ** 1.5)
            draw.rectangle((x, y - length / 36, x + 3, y), fill=light)
    return mask.filter(ImageFilter.GaussianBlur(9))


def pines(random: Random) -> Iterator[tuple[float, float]]:
    """Yield the place and size of every pine, from the small ones behind to those in front."""
    for size in sorted(random.uniform(60, 300) for _ in range(70)):
        x = random.uniform(0, WIDTH)
        if abs(x - 1300) > 420 or size < 110:
            yield x, size


def pine(draw: ImageDraw.ImageDraw, x: float, foot: float, size: float) -> None:
    """Draw one pine as a stack of five skirts."""
    tone = (int(14 - size / 40), int(36 - size / 16), int(44 - size / 14))
    for level in range(5):
        low = foot - size * level * 0.17
        half = size * (0.24 - level * 0.04)
        draw.polygon([(x - half, low), (x + half, low), (x, low - size * 0.36)], fill=tone)


def balloons() -> Image.Image:
    """Balloons over hills in the morning haze."""
    random = Random(97)
    board = gradient((92, 156, 206), (160, 202, 224), (246, 226, 200), (250, 214, 176))
    for depth in range(5):
        haze = 1 - depth / 5
        tone = (int(60 + 150 * haze), int(104 + 96 * haze), int(90 + 110 * haze))
        low = tuple(int(value * 0.72) for value in tone)
        fill(board, ridge(random, 1130 + depth * 130, 120 - depth * 8, 0.42),
             gradient(tone, tone, tone, (low[0], low[1], low[2])))  # fmt: skip
    stripes: list[tuple[Colour, Colour]] = [
        ((214, 72, 60), (250, 232, 206)), ((40, 110, 140), (246, 196, 84)),
        ((122, 70, 130), (240, 170, 150)), ((236, 150, 50), (252, 236, 200)),
        ((60, 130, 100), (236, 226, 170)),
    ]  # fmt: skip
    places = ((1560, 560, 300), (640, 430, 210), (1040, 860, 130), (2060, 820, 100), (300, 900, 84))
    for (x, y, radius), (one, two) in zip(places, stripes, strict=True):
        balloon(board, (x, y), radius, one, two)
    return board


def balloon(board: Image.Image, at: Point, radius: float, one: Colour, two: Colour) -> None:
    """Draw one striped balloon: narrowing ellipses give the gores, a pale glow the light."""
    x, y = at
    draw = ImageDraw.Draw(board)
    for index, share in enumerate((1, 0.8, 0.58, 0.35, 0.12)):
        tone = one if index % 2 == 0 else two
        half = radius * share
        skirt = y + radius * 0.62
        draw.ellipse((x - half, y - radius, x + half, y + radius), fill=tone)
        draw.polygon([(x - half * 0.79, skirt), (x + half * 0.79, skirt),
                      (x + radius * 0.16 * share, y + radius * 1.32),
                      (x - radius * 0.16 * share, y + radius * 1.32)], fill=tone)  # fmt: skip
    light = glow((x - radius * 0.4, y - radius * 0.45), radius * 0.9, 0.5)
    board.paste((255, 250, 236), (0, 0), light)
    basket = (x - radius * 0.14, y + radius * 1.52, x + radius * 0.14, y + radius * 1.72)
    for side in (-1, 1):
        draw.line((x + side * radius * 0.15, y + radius * 1.3, x + side * radius * 0.12, basket[1]),
                  fill=(70, 52, 44), width=4)  # fmt: skip
    draw.rounded_rectangle(basket, radius * 0.04, fill=(112, 74, 48))


SCENES: dict[str, Callable[[], Image.Image]] = {
    "aurora": aurora,
    "balloons": balloons,
    "city": city,
    "dunes": dunes,
    "harbour": harbour,
    "sunflower": sunflower,
}


def picture(name: str) -> Image.Image:
    """Draw the scene called `name` and return it at its final size."""
    board = SCENES[name]()
    return board.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS)


def main() -> None:
    """Draw every scene into one folder."""
    parser = argparse.ArgumentParser(description="Draw the demo's pictures.")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent)
    folder: Path = parser.parse_args().into
    folder.mkdir(parents=True, exist_ok=True)
    for name in SCENES:
        path = folder / f"{name}.jpg"
        picture(name).save(path, quality=84, optimize=True, progressive=True)
        print(f"{path}  {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
