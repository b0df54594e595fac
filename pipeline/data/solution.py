"""The labels of the test rows: written by prepare, and read by nothing that trains for a submission, chooses or weighs.

Reads and writes data/solution.csv: row,usage,emotion; emotion is empty where it is unknown.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.competition import SPLITS
from pipeline.errors import UserError

PATH = Path("data/solution.csv")


def table(rows: np.ndarray, usage: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The solution of `rows` (int [k]) with their splits (indices into SPLITS) and labels (-1 where unknown)."""
    return pd.DataFrame({
        "row": rows,
        "usage": [SPLITS[code] for code in usage],
        "emotion": pd.array([None if label < 0 else label for label in labels.tolist()], dtype="Int64"),
    })  # fmt: skip


def load() -> pd.DataFrame:
    """Read data/solution.csv."""
    try:
        table = pd.read_csv(PATH, dtype={"row": "int64", "usage": "str", "emotion": "Int64"})
        if list(table) != ["row", "usage", "emotion"]:
            raise ValueError("it has other columns")
        return table
    except FileNotFoundError:
        raise UserError(f"{PATH} is missing; make it with: dvc repro prepare") from None
    except ValueError as trouble:
        raise UserError(f"{PATH} is not a table of row,usage,emotion ({trouble}); run: dvc repro -f prepare") from None


def join(labels: np.ndarray, solution: pd.DataFrame) -> np.ndarray:
    """Labels of all rows, int64 [n]: those of Training from `labels`, the others from `solution`; -1 where unknown."""
    joined = labels.astype(np.int64)
    if not np.array_equal(solution["row"], np.arange(len(labels) - len(solution), len(labels))):
        raise UserError(f"{PATH} is not of these faces; make both again with: dvc repro -f prepare")
    joined[solution["row"].to_numpy()] = solution["emotion"].fillna(-1).to_numpy("int64")
    return joined
