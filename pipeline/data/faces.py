"""The one data type that flows through the pipeline: pictures, labels, and which split each row belongs to.

Reads and writes data/faces.npz.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline import files
from pipeline.competition import CLASSES, SIDE, SPLITS, TRAINING

PATH = Path("data/faces.npz")


@dataclass(frozen=True)
class Faces:
    """Faces in the competition's row order: Training, then PublicTest, then PrivateTest.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48], grey levels.
    labels : int8 [n], class 0 to 6; -1 for every row that is not Training, and so in data/faces.npz.
    usage : uint8 [n], 0 Training, 1 PublicTest, 2 PrivateTest.

    Raises
    ------
    ValueError : where shapes, types or values are not these.
    """

    pixels: np.ndarray
    labels: np.ndarray
    usage: np.ndarray

    def __post_init__(self) -> None:
        rows = len(self.pixels)
        forms = {"pixels": ("uint8", (rows, SIDE, SIDE)), "labels": ("int8", (rows,)), "usage": ("uint8", (rows,))}
        for name, form in forms.items():
            array = getattr(self, name)
            if (array.dtype, array.shape) != form:
                raise ValueError(f"{name} must be {form}, not {array.dtype} {array.shape}")
        if (self.usage >= len(SPLITS)).any() or (self.labels < -1).any() or (self.labels >= len(CLASSES)).any():
            raise ValueError(f"usage must be 0 to {len(SPLITS) - 1}, labels -1 to {len(CLASSES) - 1}")
        if (self.labels[self.usage != TRAINING] != -1).any():
            raise ValueError("labels must be -1 for every row that is not Training")

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of the SHA-256 of pixels and labels."""
        return hashlib.sha256(self.pixels.tobytes() + self.labels.tobytes()).hexdigest()[:16]

    def rows(self, split: int) -> np.ndarray:
        """Row numbers of a split (int64), in order."""
        return np.flatnonzero(self.usage == split)

    def test_rows(self) -> np.ndarray:
        """Row numbers of both test splits, in the order of the competition's test.csv."""
        return np.flatnonzero(self.usage != TRAINING)

    def save(self, path: Path = PATH) -> None:
        """Write the arrays uncompressed: it takes a tenth of a second, and the same bytes every time."""
        files.replace(path, lambda file: np.savez(file, pixels=self.pixels, labels=self.labels, usage=self.usage))


def load(path: Path = PATH) -> Faces:
    """Read what `Faces.save` wrote. Raises UserError where the file is missing or is something else."""
    with files.reading(path, "dvc repro prepare"), np.load(path, allow_pickle=False) as arrays:
        return Faces(arrays["pixels"], arrays["labels"], arrays["usage"])


def picture_groups(pixels: np.ndarray) -> np.ndarray:
    """Number the distinct pictures.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]

    Returns
    -------
    int64 [n] : equal numbers for byte-identical pictures, numbered by first appearance.
    """
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(picture.tobytes(), len(first)) for picture in pixels], dtype=np.int64)
