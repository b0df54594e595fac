"""The labels of the test rows: written by prepare, and read by nothing that trains for a submission, chooses or weighs.

Reads and writes data/solution.csv: row,usage,emotion; emotion is empty where it is unknown.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.competition import CLASSES, SPLITS
from pipeline.data.faces import Faces

PATH = Path("data/solution.csv")


def table(rows: np.ndarray, usage: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The solution of `rows` (int [k]) with their splits (indices into SPLITS) and labels (-1 where unknown)."""
    return pd.DataFrame({
        "row": rows,
        "usage": [SPLITS[code] for code in usage],
        "emotion": pd.Series(labels, dtype="Int64").where(labels >= 0),
    })  # fmt: skip


def save(hidden: pd.DataFrame) -> None:
    """Write what `table` gave to data/solution.csv."""
    files.write(PATH, hidden.to_csv(index=False).encode())


def load(data: Faces | None = None) -> pd.DataFrame:
    """Read data/solution.csv. Raises UserError where it is missing, no such table, or of other faces than `data`."""
    with files.reading(PATH, "dvc repro -f prepare"):
        found = pd.read_csv(PATH, dtype={"row": "int64", "emotion": "Int64"})
        if not found["emotion"].dropna().isin(range(len(CLASSES))).all():
            raise ValueError(f"an emotion is not 0 to {len(CLASSES) - 1}")
        if data is not None:
            usage = [SPLITS[code] for code in data.usage[data.test_rows()]]
            if not np.array_equal(found["row"], data.test_rows()) or list(found["usage"]) != usage:
                raise ValueError("it is not of these faces")
        return found


def join(labels: np.ndarray, solution: pd.DataFrame) -> np.ndarray:
    """Labels of all rows, int64 [n]: those of Training from `labels`, the others from `solution`; -1 where unknown."""
    joined = labels.astype(np.int64)
    joined[solution["row"].to_numpy()] = solution["emotion"].fillna(-1).to_numpy("int64")
    return joined
