"""Deal the Training rows into folds: stratified by label, and identical pictures always into the same fold.

Reads data/faces.npz. Writes data/folds.csv: row,fold, a line for every Training row that `twins` in params.yaml keeps.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from pipeline import command, params
from pipeline.command import Refusal
from pipeline.competition import TRAINING
from pipeline.data import faces

PATH = Path("data/folds.csv")
TWINS = ("keep", "drop_test_twins", "drop_repeats")


def numbers() -> list[int]:
    """The fold numbers of params.yaml: 0, 1, 2 and so on, as DVC's matrix wants them."""
    found = params.document()["folds"]
    if not isinstance(found, list) or [type(n) for n in found] != [int] * len(found) or len(found) < 2:
        raise Refusal(f"{params.PATH}: folds = {found!r}: must list at least two folds, like [0, 1, 2]")
    if found != list(range(len(found))):
        raise Refusal(f"{params.PATH}: folds = {found!r}: must count up from 0, like {list(range(len(found)))}")
    return found


def number(text: str) -> int:
    """The fold that a command line names. Raises Refusal where there is none such."""
    if text not in map(str, numbers()):
        raise Refusal(f"there is no fold {text!r}; {params.PATH} has {', '.join(map(str, numbers()))}")
    return int(text)


def twins() -> str:
    """What params.yaml does with identical pictures: one of TWINS."""
    value = params.document()["twins"]
    if value not in TWINS:
        raise Refusal(f"{params.PATH}: twins = {value!r}: must be one of {', '.join(TWINS)}")
    return str(value)


def kept(data: faces.Faces, choice: str) -> np.ndarray:
    """The Training rows that train and are judged out of fold: int64, in rising order.

    Parameters
    ----------
    choice : "keep" takes all; "drop_test_twins" leaves out those whose picture stands in a test split, byte for byte;
        "drop_repeats" takes one row of every picture: the first with the label that most of its rows have.
    """
    rows, groups = data.rows(TRAINING), faces.picture_groups(data.pixels)
    if choice == "drop_test_twins":
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
        raise Refusal(
            f"{count} folds need at least {count} different Training pictures of every class; one has {smallest}"
        )
    fold = np.full(len(labels), -1)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        if (fold[held_out] != -1).any():
            raise AssertionError("a row stands in two folds")
        fold[held_out] = number
    if (fold == -1).any():
        raise AssertionError("a row stands in no fold")
    return fold


def load(data: faces.Faces) -> tuple[np.ndarray, np.ndarray]:
    """Read data/folds.csv: rows of `data`, in rising order, and their folds, int64 [n] each."""
    try:
        table = pd.read_csv(PATH, dtype={"row": "uint32", "fold": "uint8"})
        if list(table) != ["row", "fold"] or table.empty or not isinstance(table.index, pd.RangeIndex):
            raise ValueError("it has other columns, or no rows")
        rows, fold = table["row"].to_numpy("int64"), table["fold"].to_numpy("int64")
    except FileNotFoundError:
        raise Refusal(f"{PATH} is missing; make it with: dvc repro folds") from None
    except (ValueError, OverflowError) as trouble:
        raise Refusal(f"{PATH} is not a table of row,fold ({trouble}); make it with: dvc repro -f folds") from None
    if (np.diff(rows) <= 0).any() or not np.isin(rows, data.rows(TRAINING)).all():
        raise Refusal(f"{PATH} is not of these faces; make it again with: dvc repro -f folds")
    return rows, fold


def main() -> None:
    """Run the stage."""
    count, seed, choice = len(numbers()), params.seed(), twins()
    data = faces.load()
    rows = kept(data, choice)
    fold = deal(data.labels[rows], faces.picture_groups(data.pixels[rows]), count, seed)
    pd.DataFrame({"row": rows, "fold": fold}).to_csv(PATH, index=False)
    dropped = len(data.rows(TRAINING)) - len(rows)
    out = f"; {dropped:,} rows left out ({choice})" if dropped else ""
    print(f"{len(rows):,} Training rows in {count} folds of {', '.join(f'{n:,}' for n in np.bincount(fold))}{out}")


if __name__ == "__main__":
    command.run(main, "python -m pipeline.data.folds")
