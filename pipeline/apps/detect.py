"""Face detection with OpenCV's Haar cascades, as in FER2013, and tracking of faces over video frames.

OpenCV also reads video and resizes pictures for outside.py. It is installed by the extra `predict`.
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

# Measured: of OpenCV's frontal cascades, alt2 with these values finds the most faces without false positives
# (docs/howto.md gives its detection rate). FER2013's pictures are its boxes plus the margin.
CASCADE, STEP, NEIGHBOURS = "haarcascade_frontalface_alt2.xml", 1.1, 3
MARGIN = 0.02  # added on every side, as a share of the box's side
LONGEST = 960  # pixels: larger pictures are downscaled to this size for the search
SMALLEST = 24  # pixels, in the downscaled picture: side of the smallest face
OVERLAP = 0.3  # lowest intersection over union of two boxes of the same face in successive frames
FORGET = 1.0  # seconds without detection after which a track ends


def opencv() -> Any:
    """Import and return the module cv2. Raises UserError if it is missing or has no cascades."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # unreadable files are reported by the caller
    # A video file can refer to other files and URLs.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        cv2 = importlib.import_module("cv2")
        cv2.CascadeClassifier  # noqa: B018 (OpenCV 5 has none)
    except (ImportError, AttributeError) as missing:
        raise UserError(
            f"face detection and video need OpenCV 4 ({missing}); install it: pip install 'opencv-python-headless<5'. "
            "For pictures that show only a face, --no-detect works without it"
        ) from None
    return cv2


class Detector:
    """Detector of upright faces that roughly look at the camera."""

    def __init__(self) -> None:
        self.cv2 = opencv()
        self.cascade = self.cv2.CascadeClassifier(self.cv2.data.haarcascades + CASCADE)

    def boxes(self, grey: np.ndarray) -> np.ndarray:
        """Return a square around each face in uint8 [h, w], largest first: float [n, 3], left, top, side in pixels."""
        scale = min(1.0, LONGEST / max(grey.shape))
        if min(grey.shape) * scale < SMALLEST:
            return np.zeros((0, 3))
        if scale < 1:
            grey = self.cv2.resize(grey, None, fx=scale, fy=scale, interpolation=self.cv2.INTER_AREA)
        rectangles = self.cascade.detectMultiScale(grey, STEP, NEIGHBOURS, minSize=(SMALLEST, SMALLEST))
        left, top, side = np.array(rectangles, dtype="float64").reshape(-1, 4)[:, :3].T / scale
        boxes = np.stack([left - MARGIN * side, top - MARGIN * side, side * (1 + 2 * MARGIN)], axis=1)
        return np.asarray(boxes[np.argsort(-side, kind="stable")])


def crop(grey: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the square `box` (float [3]) of uint8 [h, w] as uint8 [48, 48]. Pixels beyond the edge repeat it."""
    left, top, side = box
    margin = math.ceil(max(0, -left, -top, left + side - grey.shape[1], top + side - grey.shape[0]))
    padded = np.pad(grey, margin, mode="edge")
    corners = (left + margin, top + margin, left + margin + side, top + margin + side)
    corners = tuple(np.clip(corners, 0, [padded.shape[1], padded.shape[0]] * 2))  # against rounding errors
    return np.asarray(Image.fromarray(padded).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=corners))


def middle(grey: np.ndarray) -> np.ndarray:
    """Return the central square of uint8 [h, w] as a box, float [3]."""
    height, width = grey.shape
    side = min(height, width)
    return np.array([(width - side) / 2, (height - side) / 2, side])


def faces(pixels: np.ndarray, detector: Detector | None, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the `most` largest faces of a picture: boxes, float [n, 3], and crops, uint8 [n, 48, 48].

    Without `detector`, its central square is the face.
    """
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))
    boxes = middle(grey)[None] if detector is None else detector.boxes(grey)[:most]
    crops = [crop(grey, box) for box in boxes]
    return boxes, np.array(crops, "uint8").reshape(-1, SIDE, SIDE)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the intersection over union of two squares, float [3] each."""
    width, height = (min(a[i] + a[2], b[i] + b[2]) - max(a[i], b[i]) for i in (0, 1))
    intersection = max(0.0, width) * max(0.0, height)
    return float(intersection / (a[2] ** 2 + b[2] ** 2 - intersection))


@dataclass
class Tracks:
    """Exponential moving averages of the box and the probabilities of each face in one video.

    Parameters
    ----------
    seconds : time constant of the averages: after it, 63 % of a change are visible. 0 disables smoothing.
    """

    seconds: float
    # Time of the last detection, box, probabilities.
    faces: list[tuple[float, np.ndarray, np.ndarray]] = field(default_factory=list)

    def follow(self, now: float, boxes: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the smoothed boxes, float [n, 3], and probabilities, [n, 7], of the frame at `now` (seconds)."""
        if not self.seconds or not len(boxes):
            return boxes, probabilities
        known = [face for face in self.faces if 0 <= now - face[0] <= FORGET]
        smooth = []
        for box, row in zip(boxes, probabilities, strict=True):  # the largest face chooses first
            overlaps = [overlap(box, face[1]) for face in known]
            if max(overlaps, default=0) >= OVERLAP:
                last, old_box, old_row = known.pop(int(np.argmax(overlaps)))
                weight = 1 - math.exp(-(now - last) / self.seconds)
                box, row = old_box + weight * (box - old_box), old_row + weight * (row - old_row)
            smooth.append((now, box, row))
        self.faces = smooth + known
        return np.stack([box for _, box, _ in smooth]), np.stack([row for *_, row in smooth])
