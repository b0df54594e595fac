"""Deal the Training rows into folds: stratified by label, and identical pictures always into the same fold.

Reads data/faces.npz. Writes data/folds.csv: row,fold, a line for every Training row that `duplicates` in params.yaml
keeps.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import config, files
from pipeline.competition import TRAINING
from pipeline.data import faces
from pipeline.errors import UserError

PATH = Path("data/folds.csv")


@dataclass(frozen=True)
class Folds:
    """Which Training rows take part, and the fold of each.

    Parameters
    ----------
    rows : int64 [n], in rising order. fold_of : int64 [n].
    """

    rows: np.ndarray
    fold_of: np.ndarray

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of both arrays."""
        return hashlib.sha256(self.rows.tobytes() + self.fold_of.tobytes()).hexdigest()[:16]

    def held_out(self, fold: int) -> np.ndarray:
        """The rows of a fold, int64 [m]."""
        found: np.ndarray = self.rows[self.fold_of == fold]
        return found

    def seen(self, fold: int) -> np.ndarray:
        """The rows outside of a fold, int64 [t]: what its networks are trained on."""
        found: np.ndarray = self.rows[self.fold_of != fold]
        return found


def kept(data: faces.Faces, choice: str) -> np.ndarray:
    """The Training rows that train and are judged out of fold: int64, in rising order.

    Parameters
    ----------
    choice : "keep" takes all; "drop_test_duplicates" leaves out those whose picture, byte for byte, stands in a test
        split; "drop_repeats" takes one row of every picture: the first with the label that most of its rows have.
    """
    rows, groups = data.rows(TRAINING), faces.picture_groups(data.pixels)
    if choice == "drop_test_duplicates":
        return rows[~np.isin(groups[rows], groups[data.test_rows()])]
    if choice == "drop_repeats":
        table = pd.DataFrame({"row": rows, "group": groups[rows], "label": data.labels[rows]})
        table["votes"] = table.groupby(["group", "label"])["row"].transform("size")
        best = table.sort_values(["votes", "row"], ascending=[False, True]).drop_duplicates("group")
        return np.sort(best["row"].to_numpy())
    return rows


def deal(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Assign each row to a fold.

    Parameters
    ----------
    labels : int [n], balanced over the folds. groups : int [n], never parted. count : number of folds, from 2 up.

    Returns
    -------
    int64 [n], 0 to count - 1.
    """
    smallest = min((len(np.unique(groups[labels == label])) for label in np.unique(labels)), default=0)
    if smallest < count:
        raise UserError(
            f"{count} folds need at least {count} different Training pictures of every class; one has {smallest}"
        )
    from sklearn.model_selection import StratifiedGroupKFold  # takes seconds, which most verbs need not

    fold = np.empty(len(labels), int)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        fold[held_out] = number
    return fold


def load(data: faces.Faces, count: int | None = None) -> Folds:
    """Read data/folds.csv. Raises UserError where it is missing, no such table, or of other faces or folds.

    Parameters
    ----------
    count : how many folds there must be; None takes params.yaml's.
    """
    count = len(config.load().folds) if count is None else count
    with files.reading(PATH, "dvc repro folds"):
        rows, fold = pd.read_csv(PATH, dtype="int64")[["row", "fold"]].to_numpy().T.copy()
        if (np.diff(rows) <= 0).any() or not np.isin(rows, data.rows(TRAINING)).all():
            raise ValueError("it is not of these faces")
        if set(fold) != set(range(count)):
            raise ValueError(f"it has other folds than 0 to {count - 1}")
        return Folds(rows, fold)


def main() -> None:
    """Run the stage."""
    settings = config.load()
    data = faces.load()
    rows = kept(data, settings.duplicates)
    fold = deal(data.labels[rows], faces.picture_groups(data.pixels[rows]), len(settings.folds), settings.seed)
    files.write(PATH, pd.DataFrame({"row": rows, "fold": fold}).to_csv(index=False).encode())
    print(f"{PATH}: {len(rows):,} of {len(data.rows(TRAINING)):,} Training rows in {len(settings.folds)} folds")
