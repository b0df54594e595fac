"""Turn the competition's files, in whichever form they came, into one table of faces, and put the test labels away.

Reads data/raw/. Writes data/faces.npz (where every row that is not Training has the label -1) and data/solution.csv
(the labels of the test rows: of the stages, only audit and score may read it).
"""

import io
import warnings
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.competition import CLASSES, PRIVATE, PUBLIC, SIDE, SPLIT_ROWS, SPLITS, TRAINING
from pipeline.data import incoming, pictures, provenance, solution
from pipeline.data.faces import PATH, Faces
from pipeline.errors import UserError

RAW = Path("data/raw")
WHOLE = ("fer2013.tar.gz", "fer2013.csv", "icml_face_data.csv")  # each holds all of the competition
PIXELS = SIDE * SIDE
UNKNOWN = -1  # the label of a row that has none
EMOTIONS = tuple(map(str, range(len(CLASSES))))


class Table(NamedTuple):
    """What one of the competition's files holds.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]. labels : int8 [n], -1 where the file has none.
    usage : uint8 [n] (see Faces), or None where the file has no such column.
    """

    pixels: np.ndarray
    labels: np.ndarray
    usage: np.ndarray | None


def _wrong(name: str, row: Any, what: str) -> UserError:
    """What is wrong with one row of a file; the header is line 1."""
    return UserError(f"{name}, line {row + 2}: {what}; correct it, or bring the file again")


def _pixels(fields: pd.Series, name: str) -> np.ndarray:
    """Texts of 2,304 grey levels between blanks as uint8 [n, 48, 48]. Raises UserError for any other."""
    found = np.empty((len(fields), PIXELS), "uint8")
    with warnings.catch_warnings(action="error", category=DeprecationWarning):  # numpy's, of what is no number
        for place, (row, field) in enumerate(fields.items()):
            try:
                levels = np.fromstring(field, "int64", sep=" ")
            except (DeprecationWarning, ValueError):
                levels = np.empty(0)
            if len(levels) != PIXELS or levels.min() < 0 or levels.max() > 255:
                count = len(field.split())
                wanted = f"pixels must be {PIXELS:,} whole numbers from 0 to 255 between blanks"
                raise _wrong(name, row, f"there are {count:,} pixels; {wanted}")
            found[place] = levels
    return found.reshape(-1, SIDE, SIDE)


def _codes(column: pd.Series, known: tuple[str, ...], name: str) -> np.ndarray:
    """The place of every word of a column among the known ones. Raises UserError for any other word."""
    codes = column.map({word: code for code, word in enumerate(known)})
    for row, word in column[codes.isna()].items():
        raise _wrong(name, row, f"{column.name} {word[:20]!r} is none of {', '.join(known)}")
    return codes.to_numpy()


def read_table(content: IO[bytes] | Path, name: str) -> Table:
    """Read a file of the competition in any of its layouts: columns emotion, pixels and Usage, in any order.

    Raises
    ------
    UserError, ValueError, Warning : where a row, or the whole, is not as the competition writes it.
    """
    text = pd.read_csv(content, dtype=str, keep_default_na=False, skipinitialspace=True, skip_blank_lines=False,
                       index_col=False, encoding="utf-8-sig", encoding_errors="replace").fillna("")  # fmt: skip
    if "pixels" not in text or not {"emotion", "pixels", "Usage"}.issuperset(text):
        raise ValueError(f"its columns must be pixels, and may be emotion and Usage; they are {list(text)[:5]}")
    text = text[(text != "").any(axis=1)]
    if text.empty:
        raise ValueError("it has no rows")
    labels = _codes(text["emotion"], EMOTIONS, name) if "emotion" in text else np.full(len(text), UNKNOWN)
    usage = _codes(text["Usage"], SPLITS, name).astype("uint8") if "Usage" in text else None
    return Table(_pixels(text["pixels"], name), labels.astype("int8"), usage)


def read_file(path: Path) -> Table:
    """Read one of the competition's files. Raises UserError that names the user's own file, and the line."""
    name = provenance.original(path)
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            if path.suffix != ".gz":
                return read_table(path, name)
            for _, content in incoming.unpack(path, lambda place: PurePosixPath(place).name == "fer2013.csv", name):
                return read_table(io.BytesIO(content), name)
            raise ValueError("it holds no fer2013.csv")
    except (*files.DAMAGE, pd.errors.ParserWarning) as trouble:
        raise UserError(f"{name} cannot be read ({trouble}); bring the competition's own file") from None


def read_folder(folder: Path) -> Table:
    """Read the competition from the fullest of its files in `folder`; `usage` is there."""
    packed = folder / pictures.NAME
    if packed.exists():
        with files.reading(packed, "dvc repro -f download"), np.load(packed, allow_pickle=False) as arrays:
            return Table(arrays["pixels"], arrays["labels"], arrays["usage"])
    for path in (folder / name for name in WHOLE):
        if path.exists():
            table = read_file(path)
            if table.usage is None:
                raise UserError(f"{provenance.original(path)} has no column Usage; bring the competition's own file")
            return table
    train, test = read_file(folder / "train.csv"), read_file(folder / "test.csv")
    if train.usage is not None:
        where = provenance.original(folder / "train.csv")
        raise UserError(f"{where} has the column Usage, so it is all of the competition: name it fer2013.csv")
    halves = np.where(np.arange(len(test.labels)) < len(test.labels) // 2, PUBLIC, PRIVATE)
    usage = [np.full(len(train.labels), TRAINING), halves if test.usage is None else test.usage]
    pixels, labels = (np.concatenate(both) for both in zip(train[:2], test[:2], strict=True))
    return Table(pixels, labels, np.concatenate(usage).astype("uint8"))


def hide_test_labels(table: Table) -> tuple[Faces, pd.DataFrame]:
    """Put the rows into the order Training, PublicTest, PrivateTest, and part the test labels from the faces.

    Returns
    -------
    Faces with the label -1 for every test row, and the solution (see solution.py).
    """
    assert table.usage is not None  # read_folder gives no other
    order = np.argsort(table.usage, kind="stable")
    usage, labels = table.usage[order], table.labels[order]
    training = usage == TRAINING
    if not training.any() or (labels[training] == UNKNOWN).any() or PRIVATE not in usage:
        raise UserError(f"{RAW} lacks Training rows with labels, or PrivateTest rows; bring all of the competition")
    hidden = solution.table(np.flatnonzero(~training), usage[~training], labels[~training])
    return Faces(table.pixels[order], np.where(training, labels, UNKNOWN).astype("int8"), usage), hidden


def main() -> None:
    """Run the stage."""
    faces, hidden = hide_test_labels(read_folder(RAW))
    faces.save()
    solution.save(hidden)
    counts = np.bincount(faces.usage, minlength=len(SPLITS)).tolist()
    parts = ", ".join(f"{count:,} {split}" for count, split in zip(counts, SPLITS, strict=True))
    unknown = "; test labels unknown" if hidden["emotion"].isna().all() else ""
    other = "" if tuple(counts) == SPLIT_ROWS else "; NOT the competition's own row counts"
    print(f"{PATH}: {parts}{unknown}{other}")
