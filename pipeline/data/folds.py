"""Assign the Training rows to folds, stratified by label, with identical pictures in the same fold.

Reads data/faces.npz. Writes data/folds.csv with the columns row and fold: one line per Training row that `duplicates`
in params.yaml keeps. Writes the same for each model, which can have its own number of folds, to data/folds/MODEL.csv.
"""

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
FOLDER = Path("data/folds")


@dataclass(frozen=True)
class Folds:
    """Fold assignment of the Training rows that take part.

    Parameters
    ----------
    rows : int64 [n], in ascending order. fold_of : int64 [n].
    """

    rows: np.ndarray
    fold_of: np.ndarray

    @cached_property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of both arrays."""
        return files.sha256(self.rows.tobytes() + self.fold_of.tobytes())[:16]

    def held_out(self, fold: int) -> np.ndarray:
        """Return the rows of a fold, int64 [m]."""
        return np.asarray(self.rows[self.fold_of == fold])


def kept(data: faces.Faces, choice: str) -> np.ndarray:
    """Return the Training rows to train on and to evaluate out of fold: int64, in ascending order.

    Parameters
    ----------
    choice : "keep" returns all rows. "drop_test_duplicates" drops rows whose picture, byte for byte, is also in a test
        split. "drop_repeats" returns one row per picture: the first with the most frequent label of the picture.
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


def assign(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Assign each row to a fold.

    Parameters
    ----------
    labels : int [n], balanced over the folds.
    groups : int [n], rows with equal numbers are assigned to the same fold.
    count : number of folds, at least 2.

    Returns
    -------
    int64 [n], 0 to count - 1.

    Raises
    ------
    UserError : if a class has fewer different pictures than there are folds.
    """
    smallest = min((len(np.unique(groups[labels == label])) for label in np.unique(labels)), default=0)
    if smallest < count:
        raise UserError(f"a class has {smallest} different Training pictures; {count} folds need at least {count}")
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and needed only by this stage

    fold = np.empty(len(labels), int)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        fold[held_out] = number
    return fold


def path(name: str | None) -> Path:
    """Return the file with the folds of a model; None: with those of the run."""
    return FOLDER / f"{name}.csv" if name else PATH


def load(data: faces.Faces, name: str | None = None) -> Folds:
    """Load the folds of a model, by default those of the run.

    Raises UserError if the file is missing, invalid, or for another dataset or number of folds.
    """
    settings = config.load()
    count = len(settings.folds_of(name)) if name else settings.folds
    with files.reading(path(name), "dvc repro folds"):
        rows, fold = pd.read_csv(path(name), dtype="int64")[["row", "fold"]].to_numpy().T.copy()
        if (np.diff(rows) <= 0).any() or not np.isin(rows, data.rows(TRAINING)).all():
            raise ValueError("its rows are not those of data/faces.npz")
        if set(fold) != set(range(count)):
            raise ValueError(f"its folds are not 0 to {count - 1}")
        return Folds(rows, fold)


def main() -> None:
    """Run the stage."""
    settings, data, content = config.load(), faces.load(), {}
    rows = kept(data, settings.duplicates)
    labels, groups = data.labels[rows], faces.picture_groups(data.pixels[rows])
    counts = {None: settings.folds} | {name: len(settings.folds_of(name)) for name in settings.names}
    for count in set(counts.values()):
        fold = assign(labels, groups, count, settings.seed)
        content[count] = pd.DataFrame({"row": rows, "fold": fold}).to_csv(index=False).encode()
    for name, count in counts.items():
        files.write(path(name), content[count])
    files.remove_others(FOLDER, ".csv", settings.names)
    numbers = " and ".join(map(str, sorted(content)))
    print(f"{PATH}: {len(rows):,} of {len(data.rows(TRAINING)):,} Training rows in {numbers} folds")
