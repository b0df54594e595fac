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


def load(data: Faces) -> pd.DataFrame:
    """Load data/solution.csv. Raises UserError if it is missing, invalid, or for a different dataset than `data`."""
    with files.reading(PATH, "dvc repro -f prepare"):
        solution = pd.read_csv(PATH, dtype={"row": "int64", "emotion": "Int64"})
        if not solution["emotion"].dropna().isin(range(len(CLASSES))).all():
            raise ValueError(f"an emotion is not 0 to {len(CLASSES) - 1}")
        usage = [SPLITS[code] for code in data.usage[data.test_rows()]]
        if not np.array_equal(solution["row"], data.test_rows()) or list(solution["usage"]) != usage:
            raise ValueError("its rows are not the test rows of data/faces.npz")
        return solution


def join(labels: np.ndarray, solution: pd.DataFrame) -> np.ndarray:
    """Return the labels of all rows, int64 [n]: Training from `labels`, the others from `solution`; -1 if unknown."""
    joined = labels.astype(np.int64)
    joined[solution["row"].to_numpy()] = solution["emotion"].fillna(-1).to_numpy("int64")
    return joined
