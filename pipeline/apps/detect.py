"""Find faces in pictures as FER2013's were found, by OpenCV's cascades of Haar features, and follow them over frames.

OpenCV also reads video, and resizes for outside.py; nothing else needs it. It comes with the extra `predict`.
"""

import importlib
import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from pipeline.competition import SIDE
from pipeline.errors import UserError

# Measured (docs/howto.md): of OpenCV's frontal cascades alt2, with these numbers, finds most faces without
# false ones, and FER2013's pictures are as large as its boxes, but for the margin.
CASCADE, STEP, NEIGHBOURS = "haarcascade_frontalface_alt2.xml", 1.1, 3
MARGIN = 0.02  # of the box's side, added on every side
LONGEST = 960  # pixels: larger pictures are searched at this size
SMALLEST = 24  # pixels, at that size, of a face that is looked for
OVERLAP = 0.3  # intersection over union from which a box belongs to the same face as in the frame before
FORGET = 1.0  # seconds after which a face that is not found any more is another one


def opencv() -> Any:
    """The module cv2. Raises UserError where it is missing or has no cascades."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong with a file is told here, once
    # A file may name others elsewhere.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        cv2 = importlib.import_module("cv2")
        cv2.CascadeClassifier  # noqa: B018 (OpenCV 5 has none)
    except (ImportError, AttributeError) as missing:
        raise UserError(
            f"finding faces, and video, need OpenCV 4 ({missing}): pip install 'opencv-python-headless<5'; pictures "
            "that show nothing but a face can do without it, with --no-detect"
        ) from None
    return cv2


class Detector:
    """Finds upright faces that look at the camera, more or less."""

    def __init__(self) -> None:
        self.cv2 = opencv()
        self.cascade = self.cv2.CascadeClassifier(self.cv2.data.haarcascades + CASCADE)

    def boxes(self, grey: np.ndarray) -> np.ndarray:
        """Squares around the faces in uint8 [h, w], largest first: float [n, 3], left, top and side in pixels."""
        scale = min(1.0, LONGEST / max(grey.shape))
        if min(grey.shape) * scale < SMALLEST:
            return np.zeros((0, 3))
        if scale < 1:
            grey = self.cv2.resize(grey, None, fx=scale, fy=scale, interpolation=self.cv2.INTER_AREA)
        found = self.cascade.detectMultiScale(grey, STEP, NEIGHBOURS, minSize=(SMALLEST, SMALLEST))
        left, top, side = np.array(found, dtype="float64").reshape(-1, 4)[:, :3].T / scale
        boxes = np.stack([left - MARGIN * side, top - MARGIN * side, side * (1 + 2 * MARGIN)], axis=1)
        ordered: np.ndarray = boxes[np.argsort(-side, kind="stable")]
        return ordered


def crop(grey: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The square `box` (float [3]) of uint8 [h, w], as uint8 [48, 48]; beyond the picture stands its edge."""
    left, top, side = box
    beyond = math.ceil(max(0, -left, -top, left + side - grey.shape[1], top + side - grey.shape[0]))
    padded = np.pad(grey, beyond, mode="edge") if beyond else grey
    place = (left + beyond, top + beyond, left + beyond + side, top + beyond + side)
    place = tuple(np.clip(place, 0, [padded.shape[1], padded.shape[0]] * 2))  # rounding may leave it by a hair
    return np.asarray(Image.fromarray(padded).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=place))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two squares, float [3] each."""
    sides = [min(one[i] + one[2], other[i] + other[2]) - max(one[i], other[i]) for i in (0, 1)]
    shared = max(0.0, sides[0]) * max(0.0, sides[1])
    return float(shared / (one[2] ** 2 + other[2] ** 2 - shared))


@dataclass
class Tracks:
    """Smooths what is seen of each face over the frames of one video: exponential averages of box and probabilities.

    Parameters
    ----------
    seconds : after which a change is seen to 63 %: the average's time constant. 0: nothing is smoothed.
    """

    seconds: float
    # When each was seen last, its box, its probabilities.
    faces: list[tuple[float, np.ndarray, np.ndarray]] = field(default_factory=list)

    def follow(self, now: float, boxes: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the frame at `now`, in seconds, shows: boxes float [n, 3] and probabilities [n, 7], both smoothed."""
        if not self.seconds or not len(boxes):
            return boxes, probabilities
        known = [face for face in self.faces if now - face[0] <= FORGET]
        pairs = [(overlap(box, face[1]), i, j) for i, box in enumerate(boxes) for j, face in enumerate(known)]
        matched: dict[int, int] = {}
        for share, i, j in sorted(pairs, reverse=True):
            if share >= OVERLAP and i not in matched and j not in matched.values():
                matched[i] = j
        smooth = []
        for i, (box, row) in enumerate(zip(boxes, probabilities, strict=True)):
            if i in matched:
                then, old_box, old_row = known[matched[i]]
                new = 1 - math.exp(-(now - then) / self.seconds)
                box, row = old_box + new * (box - old_box), old_row + new * (row - old_row)
            smooth.append((now, box, row))
        self.faces = smooth + [face for j, face in enumerate(known) if j not in matched.values()]
        return np.stack([box for _, box, _ in smooth]), np.stack([row for *_, row in smooth])
