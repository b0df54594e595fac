"""The submission file, as the competition takes it: no header, one class from 0 to 6 a line, one line a test row."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.competition import CLASSES
from pipeline.errors import UserError

FOLDER = Path("submissions")
TABLE = FOLDER / "scores.csv"  # of every submission, written by score
ANALYSIS = Path("results/analysis.json")  # of all submissions together, written by score
UNKNOWN = "unknown"  # stands there instead of a number that needs labels which are not known
AGAIN = "make it again with: dvc repro -f score"


def write(path: Path, labels: np.ndarray) -> str:
    """Write a submission, read it back, and return its SHA-256 in hexadecimal.

    Parameters
    ----------
    labels : int [k], classes of all test rows: PublicTest, then PrivateTest.
    """
    files.write(path, "".join(f"{label}\n" for label in labels).encode())
    if not np.array_equal(read(path, len(labels)), labels):
        raise UserError(f"{path} does not read as it was written; is the disk full?")
    return sha256(path)


def read(path: Path, rows: int) -> np.ndarray:
    """Read a submission: int8 [rows]. Raises UserError that names the file and line where it is malformed."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {AGAIN}") from None
    lines = content.split(b"\n")
    if lines.pop() != b"":
        raise UserError(f"{path}, line {len(lines) + 1}: the last line does not end; {AGAIN}")
    digits = {str(label).encode(): label for label in range(len(CLASSES))}
    for number, line in enumerate(lines, start=1):
        if line not in digits:
            shown = repr(line[:20].decode(errors="replace"))
            raise UserError(f"{path}, line {number}: {shown} is no class from 0 to 6; {AGAIN}")
    if len(lines) != rows:
        raise UserError(f"{path} has {len(lines):,} lines instead of {rows:,}; {AGAIN}")
    return np.array([digits[line] for line in lines], dtype=np.int8)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scores() -> list[dict[str, Any]]:
    """The lines of submissions/scores.csv. Raises UserError where it is missing or something else."""
    try:
        table = pd.read_csv(TABLE)
        lines: list[Any] = table.to_dict("records")
        if not {"name", "private_accuracy", "sha256", "data"} <= set(table):
            raise ValueError("it has other columns")
    except FileNotFoundError:
        raise UserError(f"{TABLE} is missing; make it with: make repro") from None
    except ValueError as trouble:
        raise UserError(f"{TABLE} cannot be read ({trouble}); {AGAIN}") from None
    return lines


def analysis() -> dict[str, Any]:
    """What stands in results/analysis.json. Raises UserError where it is something else."""
    try:
        found: dict[str, Any] = json.loads(ANALYSIS.read_text())
        if "out of fold" not in found:
            raise ValueError("it has other keys")
    except (OSError, ValueError, TypeError) as trouble:
        raise UserError(f"{ANALYSIS} cannot be read ({trouble}); {AGAIN}") from None
    return found


def singles(found: dict[str, Any], name: str) -> dict[str, Any]:
    """What results/analysis.json, as `found`, says of the single networks of `name`, one a fold."""
    try:
        entry: dict[str, Any] = found["single_networks"][name]
        if not {"mean", "deviation", "no_duplicate_mean", "agree"} <= entry.keys():
            raise KeyError(name)
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{ANALYSIS} is of another run or version; {AGAIN}") from None
    return entry


def judged_rows(found: dict[str, Any]) -> str:
    """Which rows of results/analysis.json to show: PrivateTest, or out of fold where its labels are unknown."""
    return "PrivateTest" if "PrivateTest" in found else "out of fold"


def percent(value: object) -> str:
    """A ratio as a percentage, or what stands there instead of a number."""
    try:
        return f"{float(str(value)):.2%}"
    except ValueError:
        return str(value)
