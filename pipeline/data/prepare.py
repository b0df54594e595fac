"""Turn the competition's files, in whichever form they came, into one table of faces, and put the test labels away.

Reads data/raw/. Writes data/faces.npz (where every row that is not Training has the label -1) and data/solution.csv
(the labels of the test rows: of the stages, only audit and score may read it).
"""

import codecs
import gzip
import itertools
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.competition import CLASSES, PRIVATE, PUBLIC, SIDE, SPLIT_ROWS, SPLITS, TRAINING
from pipeline.data import pictures, solution
from pipeline.data.faces import Faces
from pipeline.errors import UserError

RAW = Path("data/raw")
PIXELS = SIDE * SIDE
BLOCK = 64  # rows read at a time
TOGETHER = 4  # rows decoded at a time: arrays stay below the 128 kB from which malloc asks the system, 3 times as slow
UNKNOWN = -1  # the label of a row that has none


class BadField(Exception):
    """What is wrong with the field of one row: (index of the row in its block, what)."""


@dataclass(frozen=True)
class Table:
    """What one of the competition's files holds.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]; labels : int8 [n], -1 where the file has none;
    usage : uint8 [n] (see Faces), or None where the file has no such column.
    may_lack : splits that need not be there.
    """

    pixels: np.ndarray
    labels: np.ndarray
    usage: np.ndarray | None
    may_lack: tuple[int, ...] = ()


def decode_pixels(fields: list[bytes]) -> np.ndarray:
    """Decode whole rows of grey levels: n texts of 2,304 whole numbers between blanks to uint8 [n, 2304].

    Raises BadField for the first row that is not 2,304 whole numbers from 0 to 255.
    """
    parts = [_values(fields[start : start + TOGETHER]) for start in range(0, len(fields), TOGETHER)]
    good = [part for part in parts if part is not None]
    if len(good) == len(parts):
        return np.concatenate(good)
    for index, field in enumerate(fields):
        numbers = field.split()
        for number in numbers:
            if not (number.isdigit() and len(number) <= 3 and int(number) <= 255):
                raise BadField(index, f"the pixel {_shown(number)} is not a whole number from 0 to 255")
        if len(numbers) != PIXELS:
            raise BadField(index, f"there are {len(numbers):,} pixels instead of {PIXELS:,}")
    odd = next(index for index, field in enumerate(fields) if field.strip(b" 0123456789"))
    raise BadField(odd, "the pixels stand between characters that are not blanks")


def _values(fields: list[bytes]) -> np.ndarray | None:
    """As decode_pixels; None where it would raise.

    Instead of one number after the other, the value that would end at each byte is computed from it and the two before,
    for all bytes together, and kept where a number ends.
    """
    text = np.frombuffer(b"   " + b" ".join(fields) + b" ", dtype=np.uint8)
    digit = text - np.uint8(ord("0"))  # wraps around for what is no digit
    is_digit, is_blank = digit <= 9, text == ord(" ")
    digit *= is_digit
    ends = (is_digit[3:-1] & is_blank[4:]).nonzero()[0]
    hundreds = (digit[1:-3] * is_digit[2:-2])[ends]
    values = (digit[3:-1] + np.uint8(10) * digit[2:-2])[ends] + np.uint8(100) * hundreds
    too_large = (hundreds > 2) | (values < np.uint8(100) * hundreds)  # above 255 it has wrapped around
    too_long = is_digit[3:] & is_digit[2:-1] & is_digit[1:-2] & is_digit[:-3]
    edges = np.cumsum([len(field) + 1 for field in fields])
    clean = np.count_nonzero(is_digit) + np.count_nonzero(is_blank) == len(text)
    whole = ends.searchsorted(edges).tolist() == list(range(PIXELS, PIXELS * len(fields) + 1, PIXELS))
    good = clean and whole and not too_large.any() and not too_long.any()
    return values.reshape(len(fields), PIXELS) if good else None


def _shown(field: bytes) -> str:
    return repr(field[:20].decode(errors="replace"))


def _codes(fields: Iterable[bytes], known: tuple[str, ...], what: str) -> list[int]:
    code_of = {text.encode(): code for code, text in enumerate(known)}
    codes = []
    for index, field in enumerate(fields):
        code = code_of.get(field)
        if code is None:
            raise BadField(index, f"the {what} {_shown(field)} is none of {', '.join(known)}")
        codes.append(code)
    return codes


def _fields(line: bytes) -> list[bytes]:
    # The competition's fields hold no commas, so no CSV parser is needed (Python's takes seven times as long).
    return [field.strip(b' "\r\n') for field in line.split(b",")]


def read_table(lines: Iterable[bytes], name: str) -> Table:
    """Read a file of the competition in any of its layouts: columns emotion, pixels and Usage, in any order.

    Parameters
    ----------
    lines : the file's lines, header first. name : what messages call the file.

    Raises
    ------
    UserError : naming file and row, where the header or a row is not as the competition writes it.
    """
    lines = iter(lines)
    first = next(lines, b"").removeprefix(codecs.BOM_UTF8)
    header = _fields(first)
    if b"pixels" not in header or set(header) - {b"emotion", b"pixels", b"Usage"} or len(set(header)) < len(header):
        raise UserError(
            f"{name}: the first line must name the column pixels, and may name emotion and Usage, each once; "
            f"it is {first[:60].decode(errors='replace')!r}; bring the competition's own file"
        )
    blocks: list[np.ndarray] = []
    labels: list[int] = []
    usage: list[int] = []
    done = 0  # rows before this block
    filled = (line for line in lines if not line.isspace())
    try:
        while whole := list(itertools.islice(filled, BLOCK)):
            block = [_fields(line) for line in whole]
            for index, line in enumerate(whole):
                if b'"' in line and line.count(b'"') % 2:
                    raise BadField(index, "a quotation mark is missing (is the file cut off?)")
            for index, row in enumerate(block):
                if len(row) != len(header):
                    raise BadField(index, f"it has {len(row)} fields instead of {len(header)} (is the file cut off?)")
            columns = dict(zip(header, zip(*block, strict=True), strict=True))
            blocks.append(decode_pixels(list(columns[b"pixels"])))
            if header[-1] == b"pixels" and not whole[-1].endswith((b"\n", b'"')):  # its last number may be cut
                raise BadField(len(whole) - 1, "the line does not end (is the file cut off?)")
            if b"emotion" in columns:
                labels += _codes(columns[b"emotion"], tuple(map(str, range(len(CLASSES)))), "emotion")
            if b"Usage" in columns:
                usage += _codes(columns[b"Usage"], SPLITS, "Usage")
            done += len(block)
    except BadField as bad:
        raise UserError(
            f"{name}, row {done + bad.args[0] + 1}: {bad.args[1]}; bring the file again, or mend it"
        ) from None
    if not done:
        raise UserError(f"{name} has no rows; bring the file again")
    return Table(
        np.concatenate(blocks).reshape(done, SIDE, SIDE),
        np.array(labels if b"emotion" in header else [UNKNOWN] * done, dtype=np.int8),
        np.array(usage, dtype=np.uint8) if b"Usage" in header else None,
    )


@contextmanager
def _lines(path: Path) -> Iterator[Iterable[bytes]]:
    """The lines of a CSV file, or of fer2013.csv in a .tar.gz."""
    if path.suffix != ".gz":
        with open(path, "rb") as file:
            yield file
        return
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.isfile() and Path(member.name).name == "fer2013.csv":
                    content = archive.extractfile(member)
                    assert content is not None  # it is a file
                    yield content
                    while stream.read(2**20):  # to the end, where gzip's own checksum stands
                        pass
                    return
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as trouble:
        raise UserError(f"{path} is damaged or cut off ({trouble}); bring the file again") from None
    raise UserError(f"{path} holds no fer2013.csv; bring the competition's own file")


def read_file(path: Path) -> Table:
    """Read one of the competition's files."""
    with _lines(path) as lines:
        return read_table(lines, str(path))


def join(train: Table, test: Table) -> Table:
    """One table of train.csv and test.csv. The latter holds PublicTest and PrivateTest, in equal parts."""
    if len(test.labels) % 2:
        raise UserError(
            f"{RAW}/test.csv has {len(test.labels):,} rows, which are no two equal parts: bring the file again"
        )
    halves = np.where(np.arange(len(test.labels)) < len(test.labels) // 2, PUBLIC, PRIVATE)
    if test.usage is not None and (test.usage != halves).any():
        raise UserError(
            f"{RAW}/test.csv: its column Usage is not PublicTest, then PrivateTest; bring Kaggle's own file"
        )
    return Table(
        np.concatenate([train.pixels, test.pixels]),
        np.concatenate([train.labels, test.labels]),
        np.concatenate([np.full(len(train.labels), TRAINING), halves]).astype(np.uint8),
    )


def _test_rows(usage: np.ndarray) -> np.ndarray:
    return np.concatenate([np.flatnonzero(usage == PUBLIC), np.flatnonzero(usage == PRIVATE)])


def read_folder(folder: Path) -> Table:
    """Read the competition from the fullest of its files in `folder`; where test.csv is there too, compare them."""
    if (folder / pictures.NAME).exists():
        return Table(*pictures.read(folder / pictures.NAME), may_lack=(PUBLIC,))
    test = folder / "test.csv"
    whole = [folder / name for name in ("fer2013.tar.gz", "fer2013.csv", "icml_face_data.csv")]
    for path in whole:
        if path.exists():
            table = read_file(path)
            if table.usage is None:
                raise UserError(f"{path}: the column Usage is missing; bring the competition's own file")
            if test.exists() and not np.array_equal(read_file(test).pixels, table.pixels[_test_rows(table.usage)]):
                raise UserError(
                    f"{test} does not hold the test pictures of {path} in their order; bring files of one kind"
                )
            return table
    train = folder / "train.csv"
    if train.exists() and test.exists():
        labelled = read_file(train)
        if labelled.usage is not None:
            raise UserError(f"{train} has the column Usage, so it is all of the competition: name it fer2013.csv")
        if (labelled.labels == UNKNOWN).any():
            raise UserError(f"{train}: the column emotion is missing; bring the competition's own file")
        return join(labelled, read_file(test))
    raise UserError(
        f"{folder} holds none of fer2013.tar.gz, icml_face_data.csv, or train.csv with test.csv; run: dvc repro"
    )


def hide_test_labels(table: Table) -> tuple[Faces, pd.DataFrame]:
    """Put the rows into the order Training, PublicTest, PrivateTest, and part the test labels from the faces.

    Returns
    -------
    Faces with the label -1 for every test row, and the solution (see solution.py).
    """
    assert table.usage is not None  # read_folder gives no other
    order = np.argsort(table.usage, kind="stable")
    usage, labels = table.usage[order], table.labels[order]
    for code, split in enumerate(SPLITS):
        if code not in usage and code not in table.may_lack:
            raise UserError(f"{RAW} has no {split} rows; bring all of the competition")
    training = usage == TRAINING
    if (labels[training] == UNKNOWN).any():
        raise UserError(f"{RAW} has no labels for its Training rows: the column emotion is missing")
    pixels = table.pixels if (order[:-1] < order[1:]).all() else table.pixels[order]
    hidden = solution.table(np.flatnonzero(~training), usage[~training], labels[~training])
    return Faces(pixels, np.where(training, labels, UNKNOWN).astype(np.int8), usage), hidden


def describe(faces: Faces, hidden: pd.DataFrame) -> str:
    """What there is, in one line; loudly, if it is not as much as the competition has."""
    counts = [len(faces.rows(code)) for code in range(len(SPLITS))]
    parts = ", ".join(f"{count:,} {split}" for count, split in zip(counts, SPLITS, strict=True))
    known = "unknown" if hidden["emotion"].isna().all() else "known"
    other = "" if tuple(counts) == SPLIT_ROWS else "; NOT the competition's own row counts"
    return f"{sum(counts):,} faces ({parts}); test labels {known}{other}"


def main() -> None:
    """Run the stage."""
    faces, hidden = hide_test_labels(read_folder(RAW))
    faces.save()
    hidden.to_csv(solution.PATH, index=False)
    print(describe(faces, hidden))
