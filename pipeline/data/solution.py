"""The labels of the test rows: written by prepare, and read by nothing that trains for a submission, chooses or weighs.

Reads and writes data/solution.csv: row,usage,emotion; emotion is empty where it is unknown.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.competition import SPLITS
from pipeline.data.faces import Faces
from pipeline.errors import UserError

PATH = Path("data/solution.csv")
FORM = {"row": r"\d{1,9}", "usage": "|".join(SPLITS[1:]), "emotion": "[0-6]?"}  # of every field


def table(rows: np.ndarray, usage: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The solution of `rows` (int [k]) with their splits (indices into SPLITS) and labels (-1 where unknown)."""
    return pd.DataFrame({
        "row": rows,
        "usage": [SPLITS[code] for code in usage],
        "emotion": pd.array([None if label < 0 else label for label in labels.tolist()], dtype="Int64"),
    })  # fmt: skip


def save(hidden: pd.DataFrame) -> None:
    """Write what `table` gave to data/solution.csv."""
    files.write(PATH, hidden.to_csv(index=False).encode())


def load(data: Faces | None = None) -> pd.DataFrame:
    """Read data/solution.csv. Raises UserError where it is missing, no such table, or of other faces than `data`."""
    with files.reading(PATH, "dvc repro -f prepare"):
        content = PATH.read_bytes()
        if not content.endswith(b"\n"):
            raise ValueError("its last line does not end")
        text = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        if list(text) != list(FORM) or not isinstance(text.index, pd.RangeIndex):
            raise ValueError("it has other columns than row,usage,emotion")
        for name, form in FORM.items():
            wrong = ~text[name].str.fullmatch(form)
            if wrong.any():
                raise ValueError(f"line {wrong.argmax() + 2}: the {name} is {text[name][wrong.argmax()][:20]!r}")
        found = text.astype({"row": "int64"}).assign(emotion=pd.to_numeric(text["emotion"]).astype("Int64"))
        if (np.diff(found["row"]) != 1).any():
            raise ValueError("its rows do not count up")
        if data is not None:
            test = data.test_rows()
            if not np.array_equal(found["row"], test) or list(found["usage"]) != [SPLITS[i] for i in data.usage[test]]:
                raise ValueError("it is not of these faces")
        return found


def join(labels: np.ndarray, solution: pd.DataFrame) -> np.ndarray:
    """Labels of all rows, int64 [n]: those of Training from `labels`, the others from `solution`; -1 where unknown."""
    joined = labels.astype(np.int64)
    if not np.array_equal(solution["row"], np.arange(len(labels) - len(solution), len(labels))):
        raise UserError(f"{PATH} is not of these faces; make both again with: dvc repro -f prepare")
    joined[solution["row"].to_numpy()] = solution["emotion"].fillna(-1).to_numpy("int64")
    return joined
