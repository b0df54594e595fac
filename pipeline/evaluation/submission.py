"""The submission file, as the competition takes it: no header, one class from 0 to 6 a line, one line a test row."""

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
DIGITS = [str(label) for label in range(len(CLASSES))]
UNKNOWN = "unknown"  # instead of a number that needs labels which are not known
REMEDY = "dvc repro -f score"
# Columns of scores.csv that are shown, and blank in no line.
WHOLE = ("name", "oof_accuracy", "public_accuracy", "private_accuracy", "private_low", "private_high",
         "private_no_duplicate", "rank_2013", "sha256", "data")  # fmt: skip
INTEGERS = {"parameters": "Int64", "train_seconds": "Int64"}  # blank where they are not known
PLACE = r">?\d{1,2}|none|unknown"


def write(path: Path, labels: np.ndarray) -> str:
    """Write a submission, and return its SHA-256 in hexadecimal.

    Parameters
    ----------
    labels : int [k], classes of all test rows: PublicTest, then PrivateTest.
    """
    files.write(path, "".join(f"{label}\n" for label in labels).encode())
    return sha256(path)


def read(path: Path, rows: int) -> np.ndarray:
    """Read a submission: int8 [rows]. Raises UserError that names the file and line where it is malformed."""
    form = f"a submission is {rows:,} lines with one class from 0 to 6 each, and no header"
    with files.reading(path, REMEDY):
        lines = path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if line not in DIGITS:
            raise UserError(f"{path}, line {number}: {line[:20]!r} is no class; {form}")
    if len(lines) != rows:
        raise UserError(f"{path} has {len(lines):,} lines; {form}")
    return np.array(lines).astype(np.int8)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return files.sha256(path.read_bytes())


def scores() -> list[dict[str, Any]]:
    """The lines of submissions/scores.csv, the best out of fold first. Raises UserError where it cannot be used."""
    with files.reading(TABLE, REMEDY):
        table = pd.read_csv(TABLE, dtype=INTEGERS)
        whole, ranks = table[[*WHOLE, *INTEGERS]][list(WHOLE)], table["rank_2013"].astype(str)
        if whole.isna().any(axis=None) or not ranks.str.fullmatch(PLACE).all():
            raise ValueError("a line is cut off, or a rank is none")
        return plain(table.sort_values("oof_accuracy", ascending=False, kind="stable"))


def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's lines as JSON has them; None where a number is missing."""
    filled = table.astype(object).where(table.notna(), None)
    return [dict(zip(map(str, table), line, strict=True)) for line in filled.to_numpy().tolist()]


def analysis() -> dict[str, Any]:
    """What results/analysis.json holds. Raises UserError where it is something else."""
    with files.reading(ANALYSIS, REMEDY):
        found: dict[str, Any] = json.loads(ANALYSIS.read_bytes())
        found[judged_rows(found)], found["single_networks"], found["trained_with"]
        return found


def singles(found: dict[str, Any], name: str) -> dict[str, Any]:
    """What results/analysis.json, as `found`, says of the single networks of a model, one a fold."""
    with files.reading(ANALYSIS, REMEDY):
        entry: dict[str, Any] = found["single_networks"][name]
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
