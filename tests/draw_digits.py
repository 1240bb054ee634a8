"""Digits as people write, paint and photograph them, drawn by program: nothing here is of MNIST.

python tests/draw_digits.py FOLDER

writes every style of every digit as `<style>-<digit>.png` or .jpg, and `sheet.png` of them all.
A digit is one or more strokes, splines through points that differ a little from one drawing to the
next, drawn with a round pen; the styles of `PRINT` are fonts instead.
"""

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.interpolate import make_interp_spline

# Points x,y, in hundredths of the digit's height, y down, its width about 60; a corner ends a
# stroke.
STROKES = {
    0: "34,0 6,22 3,70 30,100 56,72 55,25 32,0",
    1: "18,20 34,0 / 34,0 32,50 30,100",
    2: "6,22 28,0 52,24 32,62 2,100 / 2,100 30,98 60,100",
    3: "6,10 32,0 50,22 22,46 / 22,46 54,70 32,100 3,88",
    4: "34,0 4,62 / 4,62 60,60 / 46,30 42,100",
    5: "54,2 14,3 / 14,3 10,44 / 10,44 36,38 56,66 34,98 4,90",
    6: "46,0 16,36 7,74 28,100 52,78 36,55 9,72",
    7: "4,5 30,4 56,2 / 56,2 34,50 22,100",
    8: "48,16 26,0 12,20 32,46 50,76 30,100 10,78 30,48 50,16",
    9: "50,22 28,2 10,26 26,48 50,22 / 50,22 48,60 38,100",
}
FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"
SIZE = 280  # of a canvas, pixels


class Pen(NamedTuple):
    """A pen on the canvas; lengths are fractions of its side."""

    width: float = 0.055
    height: float = 0.62  # of the digit
    slant: float = 0.1  # to the right, by so much of its height
    centre: tuple[float, float] = (0.5, 0.5)  # (x, y)
    wobble: float = 0.012  # standard deviation of the points, fraction of the height


def cover(digit: int, rng: np.random.Generator, pen: Pen, size: int = SIZE) -> np.ndarray:
    """Return the share of each pixel that the pen covers, (size, size), in [0, 1]."""
    scale = max(2, 560 // size)  # drawn large, then averaged: Pillow's shapes have hard edges
    image = Image.new("L", (scale * size, scale * size))
    draw = ImageDraw.Draw(image)
    radius = pen.width * image.width / 2
    for stroke in STROKES[digit].split(" / "):
        points = np.array([[float(x) for x in point.split(",")] for point in stroke.split()]) / 100
        points += rng.normal(0, pen.wobble, points.shape)
        points[:, 0] += pen.slant * (0.5 - points[:, 1])
        points = (points - (0.3, 0.5)) * pen.height + pen.centre
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        along = np.concatenate([[0], np.cumsum(steps)])
        spline = make_interp_spline(along, points, k=min(3, len(points) - 1))
        for x, y in spline(np.linspace(0, along[-1], 250)) * image.width:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(image.reduce(scale), float) / 255


def picture(pixels: np.ndarray) -> Image.Image:
    """Of (h, w) or (h, w, 3) in [0, 1]."""
    return Image.fromarray(np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8))


def blend(covered: np.ndarray, ink: tuple[float, ...], paper: np.ndarray) -> np.ndarray:
    """Ink of a colour on paper of a colour, or of one for each pixel."""
    share = covered[..., None]
    return paper * (1 - share) + np.array(ink) * share


def paint(**pen: object) -> Callable[[int, np.random.Generator], Image.Image]:
    """Black on white, as paint programs have it."""

    def draw(digit: int, rng: np.random.Generator) -> Image.Image:
        return picture(1 - cover(digit, rng, Pen(**pen)))  # type: ignore[arg-type]

    return draw


def photo(digit: int, rng: np.random.Generator) -> Image.Image:
    """Blue ink on a ruled sheet of paper, the light falling off to one side; grain."""
    size = 800
    pen = Pen(width=0.025, height=0.4, centre=tuple(rng.uniform(0.4, 0.6, 2)))
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    turn = rng.uniform(0, 2 * np.pi)
    light = 0.62 + 0.45 * (np.cos(turn) * x + np.sin(turn) * y) - 0.25 * (x**2 + y**2)
    ruled = np.where(np.arange(size) % (size // 9) < 3, 0.85, 1.0)[:, None, None]
    sheet = blend(cover(digit, rng, pen, size), (0.2, 0.2, 0.42), np.array([0.97, 0.95, 0.9]))
    return picture(light[..., None] * ruled * sheet + rng.normal(0, 0.02, (size, size, 3)))


def lighting(size: int, rng: np.random.Generator, fall: float) -> np.ndarray:
    """Light that falls off to one side, and the soft shadow of a hand: (size, size, 1)."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    turn, (right, down) = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5, 2)
    light = 0.7 + fall * (np.cos(turn) * x + np.sin(turn) * y) - 0.2 * (x**2 + y**2)
    shadow = 1 / (1 + np.exp((np.hypot(x - right, y - down) - 0.25) / 0.03))
    return (light * (1 - rng.uniform(0.1, 0.4) * shadow))[..., None]


def pencil(digit: int, rng: np.random.Generator) -> Image.Image:
    """Grey, grainy strokes of a pencil on white paper under uneven light."""
    size = 600
    pen = Pen(width=0.016, height=0.35, centre=tuple(rng.uniform(0.4, 0.6, 2)))
    grain = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), 1)
    covered = cover(digit, rng, pen, size) * np.clip(0.75 + 1.2 * grain, 0.2, 1)
    paper = blend(covered * rng.uniform(0.45, 0.7), (0.25,) * 3, np.array([0.95, 0.94, 0.92]))
    return picture(paper * lighting(size, rng, 0.5) + rng.normal(0, 0.02, (size, size, 3)))


def table(digit: int, rng: np.random.Generator) -> Image.Image:
    """A small sheet of paper on a wooden table, seen at an angle."""
    size, (height, width) = 640, (480, int(rng.uniform(360, 480)))
    pen = Pen(width=0.028, height=rng.uniform(0.3, 0.5), centre=tuple(rng.uniform(0.4, 0.6, 2)))
    covered = cover(digit, rng, pen, height)[:, (height - width) // 2 :][:, :width]
    sheet = picture(blend(covered, (0.15, 0.15, 0.35), np.array([0.95, 0.94, 0.9])))
    turn, scale = rng.uniform(-0.2, 0.2), rng.uniform(0.7, 0.95)
    corners = np.array([(-width, -height), (width, -height), (width, height), (-width, height)])
    turned = corners @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    placed = scale * turned / 2 + rng.normal(0, 12, (4, 2)) + size / 2 + rng.normal(0, 20, 2)
    # Pillow wants the eight numbers that take a place on the table to one on the sheet.
    rows = [
        row
        for (x, y), (u, v) in zip(placed, (corners + np.array([width, height])) / 2, strict=True)
        for row in ([x, y, 1, 0, 0, 0, -u * x, -u * y, u], [0, 0, 0, x, y, 1, -v * x, -v * y, v])
    ]
    *terms, right = np.array(rows).T
    numbers = np.linalg.solve(np.array(terms).T, right).tolist()
    kinds = Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC
    there = np.asarray(Image.new("L", sheet.size, 255).transform((size, size), *kinds)) / 255
    seen = np.asarray(sheet.transform((size, size), *kinds)) / 255
    streaks = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), (2, 40))
    wood = rng.uniform(0.2, 0.55) * np.array([1, 0.75, 0.5]) * (1 + 1.5 * streaks[..., None])
    shadow = 1 - 0.4 * ndimage.gaussian_filter(there, 6)[..., None]
    both = np.where(there[..., None] > 0.5, seen, wood * shadow)
    return picture(both * lighting(size, rng, 0.3) * 1.2 + rng.normal(0, 0.015, (size, size, 3)))


def squared(digit: int, rng: np.random.Generator) -> Image.Image:
    """Black ink on paper with a grid of dark lines, slightly turned."""
    size = 560
    pen = Pen(width=0.026, height=rng.uniform(0.3, 0.45), centre=tuple(rng.uniform(0.4, 0.6, 2)))
    y, x = np.mgrid[0:size, 0:size]
    turn, step, tone = rng.uniform(-0.05, 0.05), rng.integers(26, 42), rng.uniform(0.15, 0.45)
    across, down = (x + turn * y) % step, (y - turn * x) % step
    lines = np.clip(2.6 - np.minimum(np.minimum(across, step - across),
                                     np.minimum(down, step - down)), 0, 1)  # fmt: skip
    paper = blend(lines, (tone, tone, 1.2 * tone), np.array([0.96, 0.96, 0.94]))
    page = blend(cover(digit, rng, pen, size), (0.12, 0.12, 0.16), paper)
    return picture(page * lighting(size, rng, 0.2) * 1.3 + rng.normal(0, 0.01, (size, size, 3)))


def chalk(digit: int, rng: np.random.Generator) -> Image.Image:
    """Chalk on a rough green board that reflects a window."""
    size = 480
    covered = cover(digit, rng, Pen(), size) * rng.uniform(0.55, 1, (size, size))
    board = np.array([0.1, 0.22, 0.16]) + np.linspace(0, 0.12, size)[:, None, None]
    return picture(blend(covered, (0.9,) * 3, board) + rng.normal(0, 0.015, (size, size, 3)))


def coloured(digit: int, rng: np.random.Generator) -> Image.Image:
    """Red on green of the same brightness."""
    return picture(blend(cover(digit, rng, Pen()), (0.86, 0.3, 0.2), np.array([0.28, 0.58, 0.36])))


def transparent(digit: int, rng: np.random.Generator) -> Image.Image:
    """Black ink on nothing."""
    image = Image.new("RGBA", (SIZE, SIZE))
    image.putalpha(picture(cover(digit, rng, Pen())))
    return image


def sixteen_bit(digit: int, rng: np.random.Generator) -> Image.Image:
    """A scanner's grey: 16 bits, paper at 90%."""
    return Image.fromarray((65535 * (0.9 - 0.7 * cover(digit, rng, Pen()))).astype(np.uint16))


def tiny(digit: int, rng: np.random.Generator) -> Image.Image:
    """White on a black canvas of 28x28, somewhere."""
    pen = Pen(width=0.07, height=0.5, centre=tuple(rng.uniform(0.4, 0.6, 2)))
    return picture(cover(digit, rng, pen, 28))


def printed(font: str) -> Callable[[int, np.random.Generator], Image.Image]:
    """The digit of a font that comes with matplotlib."""

    def draw(digit: int, rng: np.random.Generator) -> Image.Image:
        image = Image.new("L", (SIZE, SIZE), 255)
        shape = ImageFont.truetype(str(FONTS / f"{font}.ttf"), 200)
        ImageDraw.Draw(image).text((SIZE / 2, SIZE / 2), str(digit), 0, shape, anchor="mm")
        return image

    return draw


HANDS = {
    "plain": paint(),
    "thin": paint(width=0.008),
    "thick": paint(width=0.11),
    "slanted": paint(slant=0.38),
    "backward": paint(slant=-0.15),
    "corner": paint(width=0.03, height=0.25, centre=(0.2, 0.78)),
    "shaky": paint(wobble=0.03),
    "inverted": lambda digit, rng: picture(cover(digit, rng, Pen())),
    "coloured": coloured,
    "photo": photo,
    "pencil": pencil,
    "table": table,
    "squared": squared,
    "chalk": chalk,
    "transparent": transparent,
    "16-bit": sixteen_bit,
    "28x28": tiny,
}
PRINT = {
    "sans": printed("DejaVuSans"),
    "bold": printed("DejaVuSans-Bold"),
    "italic": printed("DejaVuSerif-Italic"),
}


def draw(style: str, digit: int, variant: int = 0) -> Image.Image:
    """Draw a digit in a style of `HANDS` or `PRINT`: for each variant always the same picture."""
    rng = np.random.default_rng([zlib.crc32(f"{style} {digit}".encode()), variant])
    return (HANDS | PRINT)[style](digit, rng)


def save(folder: Path, style: str) -> list[Path]:
    """Draws the ten digits of a style into a folder; their files, in order."""
    end = "jpg" if style == "photo" else "png"
    paths = [folder / f"{style}-{digit}.{end}" for digit in range(10)]
    for digit, path in enumerate(paths):
        draw(style, digit).save(path, compress_level=1)  # of PNG: as exact, and sooner done
    return paths


def sheet(folder: Path, side: int = 96) -> Image.Image:
    """All of them: a row a style, a column a digit."""
    styles = [*HANDS, *PRINT]
    page = Image.new("RGB", (10 * side, len(styles) * side))
    for row, style in enumerate(styles):
        for column, path in enumerate(save(folder, style)):
            image = Image.open(path)
            if image.mode.startswith("I"):
                image = picture(np.asarray(image) / 65535)
            visible = Image.new("RGBA", image.size, "lightgrey")
            visible.alpha_composite(image.convert("RGBA"))
            page.paste(visible.convert("RGB").resize((side, side)), (column * side, row * side))
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws every style of every digit.")
    parser.add_argument("folder", type=Path, help="where to; made if it is not there")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    sheet(folder).save(folder / "sheet.png")
