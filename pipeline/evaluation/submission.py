"""Submission files in the competition's format (no header, a class from 0 to 6 per test row), and tables of scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.competition import CLASSES
from pipeline.errors import UserError

FOLDER = Path("submissions")
TABLE = FOLDER / "scores.csv"  # one row per submission, written by score
ANALYSIS = Path("results/analysis.json")  # comparison of all submissions, written by score
DIGITS = [str(label) for label in range(len(CLASSES))]
UNKNOWN = "unknown"  # replaces numbers that need unknown labels
REMEDY = "dvc repro ensemble audit && dvc repro -fs score"  # -f alone would also force the trainings
# Columns of scores.csv that are shown and never blank.
WHOLE = ["name", "oof_accuracy", "public_accuracy", "private_accuracy", "private_low", "private_high",
         "private_no_duplicate", "rank_2013", "sha256", "data"]  # fmt: skip
INTEGERS = {"parameters": "Int64", "train_seconds": "Int64"}  # blank where unknown


def write(path: Path, labels: np.ndarray) -> str:
    """Write a submission and return its SHA-256 in hexadecimal.

    Parameters
    ----------
    labels : int [k], predicted classes of all test rows: PublicTest, then PrivateTest.
    """
    files.write(path, "".join(f"{label}\n" for label in labels).encode())
    return sha256(path)


def read(path: Path, rows: int) -> np.ndarray:
    """Read a submission: int8 [rows]. Raises UserError with the file and line where it is malformed."""
    form = f"a submission has {rows:,} lines, each one class from 0 to 6, and no header"
    with files.reading(path, REMEDY):
        lines = path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if line not in DIGITS:
            raise UserError(f"{path}, line {number}: {line[:20]!r} is not a class; {form}")
    if len(lines) != rows:
        raise UserError(f"{path} has {len(lines):,} lines; {form}")
    return np.array(lines).astype(np.int8)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return files.sha256(path.read_bytes())


def scores() -> list[dict[str, Any]]:
    """Return the rows of submissions/scores.csv, best out of fold first. Raises UserError where it is unusable."""
    with files.reading(TABLE, REMEDY):
        table = pd.read_csv(TABLE, dtype=INTEGERS, keep_default_na=False, na_values=[""])  # a model may be named nan
        if table[WHOLE].isna().any(axis=None):
            raise ValueError("a row is incomplete")
        return plain(table.sort_values("oof_accuracy", ascending=False, kind="stable"))


def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dictionaries for JSON; missing numbers are None."""
    filled = table.astype(object).where(table.notna(), None)
    return [dict(zip(map(str, table), line, strict=True)) for line in filled.to_numpy().tolist()]


def analysis() -> dict[str, Any]:
    """Read results/analysis.json. Raises UserError where it is missing, damaged or incomplete."""
    with files.reading(ANALYSIS, REMEDY):
        content: dict[str, Any] = json.loads(ANALYSIS.read_bytes())
        content[evaluated_rows(content)], content["single_networks"], content["trained_with"]
        return content


def evaluated_rows(content: dict[str, Any]) -> str:
    """Return the rows of results/analysis.json to show: PrivateTest, or out of fold where its labels are unknown."""
    return "PrivateTest" if "PrivateTest" in content else "out of fold"


def percent(value: object) -> str:
    """Return a ratio as a percentage; text that is no number, such as "unknown", stays unchanged."""
    try:
        return f"{float(str(value)):.2%}"
    except ValueError:
        return str(value)
