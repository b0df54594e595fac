"""Turn the competition's files, in whichever form they came, into one table of faces, and put the test labels away.

Reads data/raw/. Writes data/faces.npz (where every row that is not Training has the label -1) and data/solution.csv
(the labels of the test rows: of the stages, only audit and score may read it).
"""

import codecs
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from pipeline.competition import CLASSES, PRIVATE, PUBLIC, SIDE, SPLIT_ROWS, SPLITS, TRAINING
from pipeline.data import archives, pictures, provenance, solution
from pipeline.data.faces import Faces
from pipeline.errors import UserError

RAW = Path("data/raw")
PIXELS = SIDE * SIDE
LINE = 2**16  # bytes of one line; the competition's longest has 0.15 * 2**16
BLOCK = 64  # rows read at a time
TOGETHER = 4  # rows decoded at a time: arrays stay below the 128 kB from which malloc asks the system, 3 times as slow
UNKNOWN = -1  # the label of a row that has none


class BadField(Exception):
    """What is wrong with the field of one row: (index of the row in its block, what is wrong)."""


@dataclass(frozen=True)
class Table:
    """What one of the competition's files holds.

    Parameters
    ----------
    pixels : uint8 [n, 48, 48]; labels : int8 [n], -1 where the file has none;
    usage : uint8 [n] (see Faces), or None where the file has no such column.
    name : what messages call the file.
    may_lack : splits that need not be there.
    """

    pixels: np.ndarray
    labels: np.ndarray
    usage: np.ndarray | None
    name: str
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


def columns(first: bytes) -> list[bytes]:
    """The names of the columns, by a file's first line; none where it is not the competition's."""
    names = _fields(first.removeprefix(codecs.BOM_UTF8))
    known = b"pixels" in names and not set(names) - {b"emotion", b"pixels", b"Usage"}
    return names if known and len(set(names)) == len(names) else []


def _lines(content: IO[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number. Raises UserError where a line or the file is too long."""
    size = 0
    for number in itertools.count(1):
        line = content.readline(LINE)
        size += len(line)
        if len(line) == LINE or size > archives.LARGEST:
            raise UserError(f"{name}, line {number}: it is too long for a file of the competition; bring its own file")
        if not line:
            return
        if not line.isspace():
            yield number, line


def _decode(header: list[bytes], lines: list[bytes]) -> tuple[np.ndarray, list[int], list[int]]:
    """Pixels, labels and usage of some rows; labels and usage are empty where the file has none. Raises BadField."""
    rows = [_fields(line) for line in lines]
    for index, (line, row) in enumerate(zip(lines, rows, strict=True)):
        if b'"' in line and line.count(b'"') % 2:
            raise BadField(index, "a quotation mark is missing (is the file cut off?)")
        if len(row) != len(header):
            raise BadField(index, f"it has {len(row)} fields instead of {len(header)} (is the file cut off?)")
    fields = dict(zip(header, zip(*rows, strict=True), strict=True))
    pixels = decode_pixels(list(fields[b"pixels"]))
    if header[-1] == b"pixels" and not lines[-1].endswith((b"\n", b'"')):  # its last number may be cut
        raise BadField(len(lines) - 1, "the line does not end (is the file cut off?)")
    labels = _codes(fields.get(b"emotion", ()), tuple(map(str, range(len(CLASSES)))), "emotion")
    return pixels, labels, _codes(fields.get(b"Usage", ()), SPLITS, "Usage")


def read_table(content: IO[bytes], name: str) -> Table:
    """Read a file of the competition in any of its layouts: columns emotion, pixels and Usage, in any order.

    Parameters
    ----------
    name : what messages call the file.

    Raises
    ------
    UserError : naming file and line, where the header or a row is not as the competition writes it.
    """
    lines = _lines(content, name)
    _, first = next(lines, (1, b""))
    header = columns(first)
    if not header:
        raise UserError(
            f"{name}: the first line must name the column pixels, and may name emotion and Usage, each once; "
            f"it is {first[:60].decode(errors='replace')!r}; bring the competition's own file"
        )
    parts = []
    while block := list(itertools.islice(lines, BLOCK)):
        try:
            parts.append(_decode(header, [line for _, line in block]))
        except BadField as bad:
            line = block[bad.args[0]][0]
            raise UserError(f"{name}, line {line}: {bad.args[1]}; bring the file again, or correct it") from None
    if not parts:
        raise UserError(f"{name} has no rows; bring the file again")
    pixels = np.concatenate([part for part, _, _ in parts]).reshape(-1, SIDE, SIDE)
    labels, usage = ([code for part in parts for code in part[column]] for column in (1, 2))
    return Table(
        pixels, np.array(labels if b"emotion" in header else [UNKNOWN] * len(pixels), dtype=np.int8),
        np.array(usage, dtype=np.uint8) if b"Usage" in header else None, name,
    )  # fmt: skip


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    """A CSV file, or fer2013.csv in a .tar.gz."""
    if path.suffix != ".gz":
        with open(path, "rb") as file:
            yield file
        return
    with archives.reading(path, name) as members:
        member = next((each for each in members if each.name == "fer2013.csv"), None)
        if member is None:
            raise UserError(f"{name} holds no fer2013.csv; bring the competition's own file")
        with member.open() as content:
            yield content


def read_file(path: Path) -> Table:
    """Read one of the competition's files."""
    name = provenance.original(path)
    with _opened(path, name) as content:
        return read_table(content, name)


def join(train: Table, test: Table) -> Table:
    """One table of train.csv and test.csv. The latter holds PublicTest and PrivateTest, in equal parts."""
    if train.usage is not None:
        raise UserError(f"{train.name} has the column Usage, so it is all of the competition: name it fer2013.csv")
    if (train.labels == UNKNOWN).any():
        raise UserError(f"{train.name}: the column emotion is missing; bring the competition's own file")
    count = len(test.labels)
    if count % 2:
        raise UserError(f"{test.name} has {count:,} rows, which are no two equal parts: bring the file again")
    halves = np.where(np.arange(count) < count // 2, PUBLIC, PRIVATE)
    if test.usage is not None and (test.usage != halves).any():
        raise UserError(f"{test.name}: its column Usage is not PublicTest, then PrivateTest; bring Kaggle's own file")
    return Table(
        np.concatenate([train.pixels, test.pixels]),
        np.concatenate([train.labels, test.labels]),
        np.concatenate([np.full(len(train.labels), TRAINING), halves]).astype(np.uint8),
        train.name,
    )


def read_folder(folder: Path) -> Table:
    """Read the competition from the fullest of its files in `folder`; where test.csv is there too, compare them."""
    if (folder / pictures.NAME).exists():
        return Table(*pictures.read(folder / pictures.NAME), pictures.NAME, may_lack=(PUBLIC,))
    train, test = folder / "train.csv", folder / "test.csv"
    for path in (folder / name for name in ("fer2013.tar.gz", "fer2013.csv", "icml_face_data.csv")):
        if path.exists():
            table = read_file(path)
            if table.usage is None:
                raise UserError(f"{table.name}: the column Usage is missing; bring the competition's own file")
            if test.exists():
                _compare(table, read_file(test))
            return table
    if train.exists() and test.exists():
        return join(read_file(train), read_file(test))
    raise UserError(
        f"{folder} holds none of fer2013.tar.gz, icml_face_data.csv, or train.csv with test.csv; run: dvc repro"
    )


def _compare(whole: Table, test: Table) -> None:
    """Raise UserError where test.csv does not hold the whole file's test pictures: PublicTest, then PrivateTest."""
    rows = np.concatenate([np.flatnonzero(whole.usage == split) for split in (PUBLIC, PRIVATE)])
    if not np.array_equal(test.pixels, whole.pixels[rows]):
        raise UserError(
            f"{test.name} does not hold the test pictures of {whole.name} in their order; bring files of one kind"
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
            raise UserError(f"{table.name} has no {split} rows; bring all of the competition")
    training = usage == TRAINING
    if (labels[training] == UNKNOWN).any():
        raise UserError(f"{table.name} has no labels for its Training rows: the column emotion is missing")
    if missing := [name for code, name in enumerate(CLASSES) if code not in labels[training]]:
        raise UserError(f"{table.name} has no Training rows of {', '.join(missing)}; bring all of the competition")
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
    solution.save(hidden)
    print(describe(faces, hidden))
