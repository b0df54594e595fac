"""Annotated pictures: a box around each face, its label, and a bar for every class."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.competition import CLASSES

ACCENT, PAPER, INK, SOFT = (59, 130, 214), (18, 21, 26, 205), (240, 242, 245), (150, 158, 168)
SHORTEST = 360  # pixels: smaller pictures are enlarged, so that the text is legible

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def annotate(
    pixels: np.ndarray, boxes: np.ndarray, probabilities: np.ndarray, heat: np.ndarray | None = None
) -> Image.Image:
    """Return a picture with boxes, labels and bars drawn into it.

    Parameters
    ----------
    pixels : uint8 [h, w] or [h, w, 3]. boxes : float [n, 3], left, top, side. probabilities : float [n, 7].
    heat : float [n, 48, 48], 0 to 1, an overlay for each box.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    factor = math.ceil(SHORTEST / min(picture.size))
    if max(picture.size) * factor <= 4096:
        picture, boxes = ImageOps.scale(picture, factor), boxes * factor
    squares = [(left, top, left + side, top + side) for left, top, side in boxes]
    for square, values in zip(squares, [] if heat is None else heat, strict=False):
        left, top, right, bottom = (round(edge) for edge in square)
        overlay = glow(values, (max(1, right - left), max(1, bottom - top)))
        picture.paste(overlay, (left, top), overlay)
    pen = ImageDraw.Draw(picture, "RGBA")
    occupied = list(squares)
    for square, values in zip(squares, probabilities, strict=True):
        size = min(max(11, (square[2] - square[0]) / 11), max(11, min(picture.size) / 26))
        occupied.append(_face(pen, picture.size, square, values, size, occupied))
    return picture


def glow(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Return heat values, float [48, 48] from 0 to 1, as a translucent colour overlay of `size` pixels."""
    import matplotlib as mpl  # slow to import and rarely needed

    levels = Image.fromarray((values * 255).astype("uint8")).resize(size, Image.Resampling.BICUBIC)
    colours = Image.fromarray(mpl.colormaps["inferno"](np.asarray(levels), bytes=True)[..., :3])
    colours.putalpha(levels.point(lambda level: int(40 + 0.6 * level)))
    return colours


def _intersection(a: Rectangle, b: Rectangle) -> float:
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return max(0.0, width) * max(0.0, height)


def _face(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], square: Rectangle, values: np.ndarray, letter: float,
    occupied: list[Rectangle],
) -> Rectangle:  # fmt: skip
    """Draw the box, label and bars of one face; return the panel of bars, placed where it hides least of `occupied`."""
    font = ImageFont.load_default(letter)
    left, top, right, bottom = square
    pen.rectangle(square, outline=ACCENT, width=max(2, round(letter / 7)))
    best = int(values.argmax())
    label_top = top - 1.5 * letter if top >= 1.5 * letter else top
    label = f"{CLASSES[best]} {values[best]:.0%}"
    label_right, label_bottom = left + pen.textlength(label, font) + letter, label_top + 1.5 * letter
    pen.rectangle((left, label_top, label_right, label_bottom), fill=ACCENT)
    pen.text((left + letter / 2, label_top + 0.75 * letter), label, INK, font, "lm")
    names = max(pen.textlength(name, font) for name in CLASSES)
    width, height, bar, gap = names + 9 * letter, (1.4 * len(CLASSES) + 0.8) * letter, 4.6 * letter, letter / 2
    corners = [(right + gap, top), (left - width - gap, top), (left, bottom + gap), (left, label_top - height - gap)]
    inside = [(min(max(x, 0), max(0, size[0] - width)), min(max(y, 0), max(0, size[1] - height))) for x, y in corners]
    panels = [(x, y, x + width, y + height) for x, y in inside]
    panel = min(panels, key=lambda each: sum(_intersection(each, other) for other in occupied))
    pen.rounded_rectangle(panel, gap, fill=PAPER)
    for row, (name, probability) in enumerate(zip(CLASSES, values, strict=True)):
        middle, start = panel[1] + (1.1 + 1.4 * row) * letter, panel[0] + names + 1.2 * letter
        text, fill = (INK, ACCENT) if row == best else (SOFT, SOFT)
        pen.text((start - gap, middle), name, text, font, "rm")
        length = max(1.0, float(probability) * bar)
        pen.rectangle((start, middle - 0.38 * letter, start + length, middle + 0.38 * letter), fill=fill)
        pen.text((panel[2] - gap, middle), f"{probability:.0%}", text, font, "rm")
    return panel
