"""The submission file, as the competition takes it: no header, one class from 0 to 6 a line, one line a test row."""

import hashlib
from pathlib import Path

import numpy as np

from pipeline.command import Refusal
from pipeline.competition import CLASSES

FOLDER = Path("submissions")


def write(path: Path, labels: np.ndarray) -> str:
    """Write a submission, read it back, and return its SHA-256 in hexadecimal.

    Parameters
    ----------
    labels : int [k], classes of all test rows: PublicTest, then PrivateTest.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{label}\n" for label in labels).encode())
    if not np.array_equal(read(path, len(labels)), labels):
        raise Refusal(f"{path} does not read as it was written; is the disk full?")
    return sha256(path)


def read(path: Path, rows: int) -> np.ndarray:
    """Read a submission: int8 [rows]. Raises Refusal that names the file and line where it is malformed."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Refusal(f"{path} is missing; make it with: dvc repro -f score") from None
    lines = content.split(b"\n")
    if lines.pop() != b"":
        raise Refusal(f"{path}, line {len(lines) + 1}: the last line does not end; make it again: dvc repro -f score")
    digits = {str(label).encode(): label for label in range(len(CLASSES))}
    for number, line in enumerate(lines, start=1):
        if line not in digits:
            shown = repr(line[:20].decode(errors="replace"))
            raise Refusal(f"{path}, line {number}: {shown} is no class from 0 to 6; make it again: dvc repro -f score")
    if len(lines) != rows:
        raise Refusal(f"{path} has {len(lines):,} lines instead of {rows:,}; make it again: dvc repro -f score")
    return np.array([digits[line] for line in lines], dtype=np.int8)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
