"""Synthetic competition of drawn faces, in the file formats of Kaggle, for the demo and the tests; free of copyright.

The seven expressions differ in brows, eyes, nose and mouth. Shape, pose, light, position and noise vary. Equal seeds
give equal bytes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from pipeline.competition import CLASSES, SIDE, SPLITS, TRAINING

SCALE = 4  # factor of supersampling, for smooth edges
REPEATS = 0.05  # fraction of the rows that repeat an earlier picture, similar to the real data


@dataclass(frozen=True)
class Expression:
    """Displacements of the parts of a face, relative to a neutral face; unit: half the width of the head."""

    brow_inner: float = 0.0  # inner ends, up (+) or down (-)
    brow_outer: float = 0.0
    eye: float = 0.0  # wider (+) or narrower (-)
    mouth_corners: float = 0.0  # up (+) or down (-)
    mouth_open: float = 0.0
    mouth_width: float = 0.0
    nose: float = 0.0  # wrinkled


EXPRESSIONS = {  # positional arguments in the order of the fields
    "angry": Expression(-0.22, 0.08, -0.05, -0.04, 0.07),
    "disgust": Expression(-0.10, -0.06, -0.09, -0.16, 0.0, -0.12, 1.0),
    "fear": Expression(0.20, 0.06, 0.10, -0.06, 0.14, 0.08),
    "happy": Expression(0.0, 0.03, -0.04, 0.24, 0.06, 0.14),
    "sad": Expression(0.16, -0.14, -0.07, -0.22, 0.0, -0.06),
    "surprise": Expression(0.18, 0.18, 0.11, 0.0, 0.30, -0.20),
    "neutral": Expression(),
}


class Pen:
    """Drawing tool with coordinates relative to the centre of the head; unit: half its width."""

    def __init__(self, picture: Image.Image, unit: float, side: float, dark: float, width: int) -> None:
        self.draw, self.centre = ImageDraw.Draw(picture), picture.width / 2
        self.unit, self.side, self.dark, self.width = unit, side, dark, width

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Convert coordinates to pixels of the picture."""
        return self.centre + (x + self.side) * self.unit, self.centre + y * self.unit

    def oval(self, x: float, y: float, half_width: float, half_height: float, grey: float) -> None:
        """Fill an oval."""
        corners = *self.at(x - half_width, y - half_height), *self.at(x + half_width, y + half_height)
        self.draw.ellipse(corners, fill=round(grey))

    def curve(self, points: list[tuple[float, float]]) -> None:
        """Draw a dark line."""
        self.draw.line([self.at(x, y) for x, y in points], fill=round(self.dark), width=self.width, joint="curve")

    def half(self, hand: int, expression: Expression, strength: float) -> None:
        """Draw the eye, the brow and the wrinkles of the nose on one side: -1 left, 1 right."""
        eye = max(0.03, 0.11 + expression.eye * strength)
        self.oval(hand * 0.40, -0.25, 0.19, eye, 240)
        self.oval(hand * 0.40 + self.side * 0.3, -0.25, min(0.09, eye), min(0.09, eye), self.dark * 0.5)
        inner, outer = (-0.50 - move * strength for move in (expression.brow_inner, expression.brow_outer))
        self.curve([(hand * 0.17, inner), (hand * 0.40, (inner + outer) / 2 - 0.05), (hand * 0.65, outer)])
        for height in (-0.05, 0.06) if expression.nose else ():
            self.curve([(hand * 0.10, height), (hand * 0.24, height - 0.10 * strength)])

    def mouth(self, expression: Expression, strength: float) -> None:
        """Draw the mouth."""
        width = 0.36 + expression.mouth_width * strength
        gap = max(0.0, expression.mouth_open * strength)
        corners = 0.58 - expression.mouth_corners * strength
        upper, lower = (
            [(width * x, corners + (0.58 + move - corners) * (1 - x * x)) for x in np.linspace(-1, 1, 9)]
            for move in (-gap, gap)
        )
        if gap:
            self.draw.polygon([self.at(x, y) for x, y in upper + lower[::-1]], fill=round(self.dark * 0.4))
        self.curve(upper)
        self.curve(lower)


def draw(expression: Expression, rng: np.random.Generator) -> np.ndarray:
    """Draw one face, uint8 [48, 48]."""
    big = SIDE * SCALE
    skin, ground = rng.uniform(120, 215), rng.uniform(20, 235)
    dark = skin * rng.uniform(0.15, 0.4)
    unit = big * rng.uniform(0.30, 0.38)  # half the width of the head
    tall = unit * rng.uniform(1.15, 1.4)
    strength = rng.uniform(0.75, 1.25)
    side = rng.uniform(-0.15, 0.15)  # how far the face is turned sideways
    line = max(2, round(unit * rng.uniform(0.06, 0.10)))
    picture = Image.new("L", (big, big), round(ground))
    pen, centre = Pen(picture, unit, side, dark, line), big / 2
    hair = rng.uniform(10, 200)
    top, bottom = centre - tall * 1.12, centre + tall * 0.5
    pen.draw.ellipse((centre - unit * 1.08, top, centre + unit * 1.08, bottom), fill=round(hair))
    pen.draw.ellipse((centre - unit, centre - tall, centre + unit, centre + tall), fill=round(skin))
    for hand in (-1, 1):
        pen.half(hand, expression, strength)
    pen.curve([(0.0, -0.10), (side * 0.6 + 0.06, 0.18), (-0.06, 0.20)])
    pen.mouth(expression, strength)
    moved = picture.rotate(
        rng.normal(0, 7),
        resample=Image.Resampling.BILINEAR,
        translate=(round(rng.normal(0, big * 0.03)), round(rng.normal(0, big * 0.03))),
        fillcolor=round(ground),
    )
    return _lit(np.asarray(moved.reduce(SCALE), dtype=np.float64), rng)


def _lit(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add light from one side, and noise."""
    slope = rng.uniform(-0.35, 0.35, size=2)
    y, x = np.mgrid[-0.5 : 0.5 : SIDE * 1j, -0.5 : 0.5 : SIDE * 1j]
    lit = face * (1 + slope[0] * x + slope[1] * y) + rng.normal(0, rng.uniform(2, 12), face.shape)
    return np.asarray(lit.clip(0, 255).astype(np.uint8))


def competition(training: int, test: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the faces of a competition.

    Parameters
    ----------
    training, test : number of faces in Training, and in each of PublicTest and PrivateTest.

    Returns
    -------
    pixels uint8 [n, 48, 48], labels int64 [n], usage int64 [n] (indices into SPLITS), sorted by split.
    """
    rng = np.random.default_rng(seed)
    counts = (training, test, test)
    labels = np.concatenate([rng.permutation(np.arange(count) % len(CLASSES)) for count in counts])
    pixels = np.stack([draw(EXPRESSIONS[CLASSES[label]], rng) for label in labels])
    for row in np.flatnonzero(rng.random(len(labels)) < REPEATS):
        same = np.flatnonzero(labels[:row] == labels[row])
        if len(same):
            pixels[row] = pixels[rng.choice(same)]
    return pixels, labels, np.repeat(np.arange(len(SPLITS)), counts)


def write(folder: Path, pixels: np.ndarray, labels: np.ndarray, usage: np.ndarray, names: set[str]) -> None:
    """Write those of the competition's files that are in `names`, in the formats of Kaggle.

    Parameters
    ----------
    pixels, labels, usage : result of `competition`.
    """
    fields = [" ".join(map(str, picture.ravel())) for picture in pixels]
    table = pd.DataFrame({"emotion": labels, "pixels": fields, "Usage": np.array(SPLITS)[usage]})
    training = table["Usage"] == SPLITS[TRAINING]
    tables = {
        "train.csv": table[training][["emotion", "pixels"]],
        "test.csv": table[~training][["pixels"]],
        "fer2013.csv": table,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        tables[name].to_csv(folder / name, index=False)
