"""Synthetic competition of drawn faces, in the file formats of Kaggle, for the demo and the tests; free of copyright.

The seven expressions differ in brows, eyes, nose and mouth. Shape, pose, light, position and noise vary. Equal seeds
give equal bytes.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from pipeline.competition import CLASSES, SIDE, SPLITS, TRAINING

SCALE = 4  # factor of supersampling, for smooth edges
CENTRE = SIDE * SCALE / 2
REPEATS = 0.05  # fraction of the rows that repeat an earlier picture, similar to the real data


# Displacements of the parts of a face, relative to a neutral face; unit: half the width of the head. Inner and outer
# ends of the brows up, eyes wider, corners of the mouth up, mouth open, mouth wider; last, the wrinkles of the nose.
EXPRESSIONS = {
    "angry": (-0.22, 0.08, -0.05, -0.04, 0.07, 0, 0),
    "disgust": (-0.10, -0.06, -0.09, -0.16, 0, -0.12, 1),
    "fear": (0.20, 0.06, 0.10, -0.06, 0.14, 0.08, 0),
    "happy": (0, 0.03, -0.04, 0.24, 0.06, 0.14, 0),
    "sad": (0.16, -0.14, -0.07, -0.22, 0, -0.06, 0),
    "surprise": (0.18, 0.18, 0.11, 0, 0.30, -0.20, 0),
    "neutral": (0, 0, 0, 0, 0, 0, 0),
}


def draw(expression: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw one face, uint8 [48, 48]."""
    big, centre = SIDE * SCALE, CENTRE
    skin, ground = rng.uniform(120, 215), rng.uniform(20, 235)
    dark = skin * rng.uniform(0.15, 0.4)
    unit = big * rng.uniform(0.30, 0.38)  # half the width of the head
    tall = unit * rng.uniform(1.15, 1.4)
    moves = np.array(expression) * rng.uniform(0.75, 1.25)
    side = rng.uniform(-0.15, 0.15)  # how far the face is turned sideways
    line = max(2, round(unit * rng.uniform(0.06, 0.10)))
    hair = rng.uniform(10, 200)
    picture = Image.new("L", (big, big), round(ground))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((centre - unit * 1.08, centre - tall * 1.12, centre + unit * 1.08, centre + tall * 0.5), round(hair))
    pen.ellipse((centre - unit, centre - tall, centre + unit, centre + tall), round(skin))
    _add_parts(pen, moves, unit, side, dark, line)
    moved = picture.rotate(
        rng.normal(0, 7), resample=Image.Resampling.BILINEAR, fillcolor=round(ground),
        translate=(round(rng.normal(0, big * 0.03)), round(rng.normal(0, big * 0.03))),
    )  # fmt: skip
    return _lit(np.asarray(moved.reduce(SCALE), dtype=np.float64), rng)


def _add_parts(pen: ImageDraw.ImageDraw, moves: np.ndarray, unit: float, side: float, dark: float, line: int) -> None:
    """Draw eyes, brows, nose and mouth. Coordinates are relative to the centre, in units."""
    brow_inner, brow_outer, eye, smile, gap, wide, nose = moves

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(CENTRE + (x + side) * unit, CENTRE + y * unit) for x, y in points]

    def curve(*points: tuple[float, float]) -> None:
        pen.line(at(*points), fill=round(dark), width=line, joint="curve")

    def oval(x: float, y: float, half_width: float, half_height: float, grey: float) -> None:
        pen.ellipse(at((x - half_width, y - half_height), (x + half_width, y + half_height)), fill=round(grey))

    high, inner, outer = max(0.03, 0.11 + eye), -0.50 - brow_inner, -0.50 - brow_outer
    for hand in (-1, 1):  # left, right
        oval(hand * 0.40, -0.25, 0.19, high, 240)
        oval(hand * 0.40 + side * 0.3, -0.25, min(0.09, high), min(0.09, high), dark * 0.5)
        curve((hand * 0.17, inner), (hand * 0.40, (inner + outer) / 2 - 0.05), (hand * 0.65, outer))
        for height in (-0.05, 0.06) if nose else ():
            curve((hand * 0.10, height), (hand * 0.24, height - 0.10 * nose))
    curve((0.0, -0.10), (side * 0.6 + 0.06, 0.18), (-0.06, 0.20))
    corners, width = 0.58 - smile, 0.36 + wide
    upper, lower = (
        [(width * x, corners + (0.58 + move - corners) * (1 - x * x)) for x in np.linspace(-1, 1, 9)]
        for move in (-gap, gap)
    )
    if gap:
        pen.polygon(at(*upper, *lower[::-1]), fill=round(dark * 0.4))
    curve(*upper)
    curve(*lower)


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
