"""Turn the competition's files, in whichever form they came, into one table of faces, and put the test labels away.

Reads data/raw/. Writes data/faces.npz (where every row that is not Training has the label -1) and data/solution.csv
(the labels of the test rows: of the stages, only audit and score may read it).
"""

import io
import warnings
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.competition import CLASSES, PRIVATE, PUBLIC, SIDE, SPLIT_ROWS, SPLITS, TRAINING
from pipeline.data import archives, pictures, provenance, solution
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


class BadRow(Exception):
    """What is wrong with one row: (its number, counted from 0, and what is wrong)."""


def decode_pixels(fields: pd.Series) -> np.ndarray:
    """Texts of 2,304 grey levels between blanks as uint8 [n, 48, 48].

    Raises BadRow for any other.
    """
    with warnings.catch_warnings(action="error", category=DeprecationWarning):
        return _decoded(fields)


def _decoded(fields: pd.Series) -> np.ndarray:
    found = np.empty((len(fields), PIXELS), "uint8")
    for place, (row, field) in enumerate(fields.items()):
        try:
            levels = np.fromstring(field, "int64", sep=" ")
        except (DeprecationWarning, ValueError):  # numpy warns of what is no number
            raise BadRow(row, "pixels must be whole numbers between blanks") from None
        if len(levels) != PIXELS:
            raise BadRow(row, f"there are {len(levels):,} pixels instead of {PIXELS:,}")
        if levels.min() < 0 or levels.max() > 255:
            raise BadRow(row, "pixels must be from 0 to 255")
        found[place] = levels
    return found.reshape(-1, SIDE, SIDE)


def _codes(column: pd.Series, known: tuple[str, ...]) -> np.ndarray:
    """The place of every word of a column among the known ones. Raises BadRow for any other word."""
    codes = column.map({word: code for code, word in enumerate(known)})
    if codes.isna().any():
        place = int(codes.isna().argmax())
        raise BadRow(column.index[place], f"{column.name} {column.iloc[place][:20]!r} is none of {', '.join(known)}")
    return codes.to_numpy()


def read_table(content: IO[bytes] | Path) -> Table:
    """Read a file of the competition in any of its layouts: columns emotion, pixels and Usage, in any order.

    Raises
    ------
    BadRow, ValueError, Warning : where a row, or the whole, is not as the competition writes it.
    """
    text = pd.read_csv(content, dtype=str, keep_default_na=False, skipinitialspace=True, skip_blank_lines=False,
                       index_col=False, encoding="utf-8-sig", encoding_errors="replace").fillna("")  # fmt: skip
    if "pixels" not in text or not {"emotion", "pixels", "Usage"}.issuperset(text):
        raise ValueError(f"its columns must be pixels, and may be emotion and Usage; they are {list(text)[:5]}")
    text = text[(text != "").any(axis=1)]
    if text.empty:
        raise ValueError("it has no rows")
    labels = _codes(text["emotion"], EMOTIONS) if "emotion" in text else np.full(len(text), UNKNOWN)
    usage = _codes(text["Usage"], SPLITS).astype("uint8") if "Usage" in text else None
    return Table(decode_pixels(text["pixels"]), labels.astype("int8"), usage)


def read_file(path: Path) -> Table:
    """Read one of the competition's files. Raises UserError that names the user's own file, and the line."""
    name = provenance.original(path)
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            if path.suffix != ".gz":
                return read_table(path)
            with archives.reading(path, name) as members:
                for member in members:
                    if member.name == "fer2013.csv":
                        return read_table(io.BytesIO(member.read()))
                raise ValueError("it holds no fer2013.csv")
    except BadRow as bad:
        row, wrong = bad.args
        raise UserError(f"{name}, line {row + 2}: {wrong}; correct it, or bring the file again") from None
    except (*files.DAMAGE, pd.errors.ParserWarning) as trouble:
        raise UserError(f"{name} cannot be read ({trouble}); bring the competition's own file") from None


def read_folder(folder: Path) -> Table:
    """Read the competition from the fullest of its files in `folder`; `usage` is there."""
    if (folder / pictures.NAME).exists():
        return Table(*pictures.read(folder / pictures.NAME))
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
    known = "unknown" if hidden["emotion"].isna().all() else "known"
    other = "" if tuple(counts) == SPLIT_ROWS else "; NOT the competition's own row counts"
    print(f"{PATH}: {sum(counts):,} faces ({parts}); test labels {known}{other}")
