"""Labels of the test rows. No code that trains for a submission, selects models or fits weights reads them.

Reads and writes data/solution.csv with the columns row, usage and emotion; an unknown emotion is empty.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.competition import CLASSES, SPLITS
from pipeline.data.faces import Faces

PATH = Path("data/solution.csv")


def table(rows: np.ndarray, usage: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return the solution from rows, splits (indices into SPLITS) and labels (-1: unknown), int [k] each."""
    return pd.DataFrame({
        "row": rows,
        "usage": [SPLITS[code] for code in usage],
        "emotion": pd.Series(labels, dtype="Int64").where(labels >= 0),
    })  # fmt: skip


def save(hidden: pd.DataFrame) -> None:
    """Write the result of `table` to data/solution.csv."""
    files.write(PATH, hidden.to_csv(index=False).encode())


def load(data: Faces) -> np.ndarray:
    """Return the labels of all rows, int64 [n], -1 if unknown. Raises UserError where data/solution.csv is unusable."""
    with files.reading(PATH, "dvc repro -f prepare"):
        solution = pd.read_csv(PATH, dtype={"row": "int64", "emotion": "Int64"})
        if not np.array_equal(solution["row"], data.test_rows()):
            raise ValueError("its rows are not the test rows of data/faces.npz")
        labels = data.labels.astype(np.int64)
        labels[data.test_rows()] = solution["emotion"].fillna(-1).to_numpy("int64")
        if labels.max() >= len(CLASSES):
            raise ValueError(f"an emotion is not 0 to {len(CLASSES) - 1}")
        return labels
