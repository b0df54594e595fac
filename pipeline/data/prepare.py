"""Convert the competition's files, in any form, to one table of faces, and separate the test labels.

Reads data/raw/. Writes data/faces.npz (all rows that are not Training have the label -1) and data/solution.csv (the
labels of the test rows; of the stages, only audit and score may read it).
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

RAW = provenance.PATH.parent
WHOLE = ("fer2013.tar.gz", "fer2013.csv", "icml_face_data.csv")  # each contains the complete competition
PIXELS = SIDE * SIDE
UNKNOWN = -1  # label of a row without a label
EMOTIONS = tuple(map(str, range(len(CLASSES))))


class Table(NamedTuple):
    """Content of a file of the competition.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]. labels : int8 [n], -1 if the file has no labels.
    usage : uint8 [n] (see Faces), or None if the file has no such column.
    """

    pixels: np.ndarray
    labels: np.ndarray
    usage: np.ndarray | None


def _row_error(name: str, row: Any, problem: str) -> UserError:
    """Return the error for a row of a file. The header is line 1."""
    return UserError(f"{name}, line {row + 2}: {problem}; correct it, or copy the original file again")


def _pixels(fields: pd.Series, name: str) -> np.ndarray:
    """Parse texts of 2,304 grey levels, separated by spaces, to uint8 [n, 48, 48]. Raises UserError for other texts."""
    pixels = np.empty((len(fields), PIXELS), "uint8")
    with warnings.catch_warnings(action="error", category=DeprecationWarning):  # raised by numpy for invalid numbers
        for place, (row, field) in enumerate(fields.items()):
            try:
                levels = np.fromstring(field, "int64", sep=" ")
            except (DeprecationWarning, ValueError):
                levels = np.empty(0)
            if len(levels) != PIXELS or levels.min() < 0 or levels.max() > 255:
                required = f"pixels must be {PIXELS:,} integers from 0 to 255, separated by spaces"
                raise _row_error(name, row, f"there are {len(field.split()):,} pixels; {required}")
            pixels[place] = levels
    return pixels.reshape(-1, SIDE, SIDE)


def _codes(column: pd.Series, known: tuple[str, ...], name: str) -> np.ndarray:
    """Map each word of a column to its index in `known`. Raises UserError for an unknown word."""
    codes = column.map({word: code for code, word in enumerate(known)})
    for row, word in column[codes.isna()].items():
        raise _row_error(name, row, f"{column.name} {word[:20]!r} is not one of {', '.join(known)}")
    return codes.to_numpy()


def read_table(content: IO[bytes] | Path, name: str) -> Table:
    """Read a file of the competition in any of its layouts: columns emotion, pixels and Usage, in any order.

    Raises
    ------
    UserError, ValueError, Warning : if a row or the file does not have the competition's format.
    """
    text = pd.read_csv(content, dtype=str, keep_default_na=False, skipinitialspace=True, skip_blank_lines=False,
                       index_col=False, encoding="utf-8-sig", encoding_errors="replace").fillna("")  # fmt: skip
    if "pixels" not in text or not {"emotion", "pixels", "Usage"}.issuperset(text):
        raise ValueError(f"its columns must be pixels and, optionally, emotion and Usage, not {list(text)[:5]}")
    text = text[(text != "").any(axis=1)]
    if text.empty:
        raise ValueError("it has no rows")
    labels = _codes(text["emotion"], EMOTIONS, name) if "emotion" in text else np.full(len(text), UNKNOWN)
    usage = _codes(text["Usage"], SPLITS, name).astype("uint8") if "Usage" in text else None
    return Table(_pixels(text["pixels"], name), labels.astype("int8"), usage)


def read_file(path: Path) -> Table:
    """Read a file of the competition. Raises UserError with the name of the user's file and the line."""
    name = provenance.original(path)
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            if path.suffix.lower() != ".gz":
                return read_table(path, name)
            unpacked = list(incoming.unpack(path, lambda place: PurePosixPath(place).name == "fer2013.csv", name))
            if not unpacked:
                raise ValueError("it does not contain fer2013.csv")
            return read_table(io.BytesIO(unpacked[0][1]), name)
    except (*files.DAMAGE, pd.errors.ParserWarning) as error:
        raise UserError(f"{name} cannot be read ({error}); use the original file of the competition") from None


def read_folder(folder: Path) -> Table:
    """Read the competition from the most complete of its files in `folder`. The result contains `usage`."""
    packed = folder / pictures.NAME
    if packed.exists():
        with files.reading(packed, "dvc repro -f download"), np.load(packed, allow_pickle=False) as arrays:
            return Table(arrays["pixels"], arrays["labels"], arrays["usage"])
    for path in (folder / name for name in WHOLE):
        if path.exists():
            table = read_file(path)
            if table.usage is None:
                raise UserError(f"{provenance.original(path)} has no column Usage; use the competition's original file")
            return table
    train, test = read_file(folder / "train.csv"), read_file(folder / "test.csv")
    if train.usage is not None:
        where = provenance.original(folder / "train.csv")
        raise UserError(f"{where} has the column Usage, so it is the complete competition: rename it to fer2013.csv")
    halves = np.where(np.arange(len(test.labels)) < len(test.labels) // 2, PUBLIC, PRIVATE)
    usage = [np.full(len(train.labels), TRAINING), halves if test.usage is None else test.usage]
    pixels, labels = (np.concatenate(both) for both in zip(train[:2], test[:2], strict=True))
    return Table(pixels, labels, np.concatenate(usage).astype("uint8"))


def hide_test_labels(table: Table) -> tuple[Faces, pd.DataFrame]:
    """Sort the rows by split (Training, PublicTest, PrivateTest), and separate the test labels.

    Returns
    -------
    Faces with the label -1 for all test rows, and the solution (see solution.py).
    """
    assert table.usage is not None  # guaranteed by read_folder
    order = np.argsort(table.usage, kind="stable")
    usage, labels = table.usage[order], table.labels[order]
    training = usage == TRAINING
    if not training.any() or (labels[training] == UNKNOWN).any() or PRIVATE not in usage:
        raise UserError(f"{RAW} lacks labelled Training rows or PrivateTest rows; provide the complete competition")
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
    other = "" if tuple(counts) == SPLIT_ROWS else "; NOT the competition's row counts"
    print(f"{PATH}: {parts}{unknown}{other}")
