"""Table of faces, the data type of the whole pipeline: the picture, label and split of each row.

Reads and writes data/faces.npz.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.competition import CLASSES, SIDE, SPLITS, TRAINING

PATH = Path("data/faces.npz")


@dataclass(frozen=True)
class Faces:
    """Faces in the competition's row order: Training, then PublicTest, then PrivateTest.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48], grey levels.
    labels : int8 [n], class 0 to 6; -1 for all rows that are not Training.
    usage : uint8 [n], 0 Training, 1 PublicTest, 2 PrivateTest.

    Raises
    ------
    ValueError : if a shape, type or value is different.
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
        """First 16 hexadecimal digits of the SHA-256 of pixels and labels."""
        return files.sha256(self.pixels.tobytes() + self.labels.tobytes())[:16]

    def rows(self, split: int) -> np.ndarray:
        """Return the row numbers of a split, int64, in order."""
        return np.flatnonzero(self.usage == split)

    def test_rows(self) -> np.ndarray:
        """Return the row numbers of both test splits, int64, in the order of the competition's test.csv."""
        return np.flatnonzero(self.usage != TRAINING)

    def save(self, path: Path = PATH) -> None:
        """Write the arrays uncompressed, which takes 0.1 s. Equal arrays give equal bytes."""
        files.replace(path, lambda file: np.savez(file, pixels=self.pixels, labels=self.labels, usage=self.usage))


def load(path: Path = PATH) -> Faces:
    """Load data/faces.npz. Raises UserError if it is missing or invalid."""
    with files.reading(path, "dvc repro prepare"), np.load(path, allow_pickle=False) as arrays:
        return Faces(arrays["pixels"], arrays["labels"], arrays["usage"])


def picture_groups(pixels: np.ndarray) -> np.ndarray:
    """Number the distinct pictures by first appearance.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]

    Returns
    -------
    int64 [n], equal for pictures that are identical byte for byte.
    """
    return pd.factorize(np.array([picture.tobytes() for picture in pixels], dtype=object))[0]
