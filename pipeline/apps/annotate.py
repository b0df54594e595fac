"""Draw what was found into a picture: a box around each face, its label, and a bar for every class."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.competition import CLASSES

ACCENT, PAPER, INK, SOFT = (59, 130, 214), (18, 21, 26, 205), (240, 242, 245), (150, 158, 168)
SHORTEST = 360  # pixels: smaller pictures are enlarged, so that letters can be read

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def annotate(
    pixels: np.ndarray, boxes: np.ndarray, probabilities: np.ndarray, heat: np.ndarray | None = None
) -> Image.Image:
    """A picture with what was found in it.

    Parameters
    ----------
    pixels : uint8 [h, w] or [h, w, 3]. boxes : float [n, 3], left, top, side. probabilities : float [n, 7].
    heat : float [n, 48, 48], 0 to 1, laid over each box.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    larger = math.ceil(SHORTEST / min(picture.size))
    if max(picture.size) * larger <= 4096:
        picture, boxes = ImageOps.scale(picture, larger), boxes * larger
    squares = [(left, top, left + side, top + side) for left, top, side in boxes]
    for square, values in zip(squares, [] if heat is None else heat, strict=False):
        left, top, right, bottom = (round(edge) for edge in square)
        shades = glow(values, (max(1, right - left), max(1, bottom - top)))
        picture.paste(shades, (left, top), shades)
    pen = ImageDraw.Draw(picture, "RGBA")
    taken = list(squares)
    for square, values in zip(squares, probabilities, strict=True):
        size = min(max(11, (square[2] - square[0]) / 11), max(11, min(picture.size) / 26))
        taken.append(_face(pen, picture.size, square, values, size, taken))
    return picture


def glow(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Heat, float [48, 48] from 0 to 1, as colours that are laid over a face of this size."""
    import matplotlib as mpl  # takes its time, and few ask for heat

    levels = Image.fromarray((values * 255).astype("uint8")).resize(size, Image.Resampling.BICUBIC)
    colours = Image.fromarray(mpl.colormaps["inferno"](np.asarray(levels), bytes=True)[..., :3])
    colours.putalpha(levels.point(lambda level: int(40 + 0.6 * level)))
    return colours


def _shared(one: Rectangle, other: Rectangle) -> float:
    across, down = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(0.0, across) * max(0.0, down)


def _face(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], square: Rectangle, values: np.ndarray, letter: float,
    taken: list[Rectangle],
) -> Rectangle:  # fmt: skip
    """Draw one face's box, label and bars, the latter where they hide least of what is `taken`; return their place."""
    font = ImageFont.load_default(letter)
    left, top, right, bottom = square
    pen.rectangle(square, outline=ACCENT, width=max(2, round(letter / 7)))
    best = int(values.argmax())
    tag = top - 1.5 * letter if top >= 1.5 * letter else top
    label = f"{CLASSES[best]} {values[best]:.0%}"
    pen.rectangle((left, tag, left + pen.textlength(label, font) + letter, tag + 1.5 * letter), fill=ACCENT)
    pen.text((left + letter / 2, tag + 0.75 * letter), label, INK, font, "lm")
    names = max(pen.textlength(name, font) for name in CLASSES)
    width, height, bar, gap = names + 9 * letter, (1.4 * len(CLASSES) + 0.8) * letter, 4.6 * letter, letter / 2
    places = [(right + gap, top), (left - width - gap, top), (left, bottom + gap), (left, tag - height - gap)]
    inside = [(min(max(x, 0), max(0, size[0] - width)), min(max(y, 0), max(0, size[1] - height))) for x, y in places]
    spots = [(x, y, x + width, y + height) for x, y in inside]
    spot = min(spots, key=lambda each: sum(_shared(each, other) for other in taken))
    pen.rounded_rectangle(spot, gap, fill=PAPER)
    for row, (name, part) in enumerate(zip(CLASSES, values, strict=True)):
        middle, start = spot[1] + (1.1 + 1.4 * row) * letter, spot[0] + names + 1.2 * letter
        text, fill = (INK, ACCENT) if row == best else (SOFT, SOFT)
        pen.text((start - gap, middle), name, text, font, "rm")
        length = max(1.0, float(part) * bar)
        pen.rectangle((start, middle - 0.38 * letter, start + length, middle + 0.38 * letter), fill=fill)
        pen.text((spot[2] - gap, middle), f"{part:.0%}", text, font, "rm")
    return spot
