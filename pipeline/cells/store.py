"""Where cells lie, and how one is written, read and held to what it says of itself.

A cell is what training/cell.py describes: predictions.npz, history.csv and cell.json in artifacts/cells/MODEL/foldK/,
and for a student in artifacts/students/STUDENT/foldK/. Its weights, which no stage reads, lie in artifacts/weights/.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from pipeline import files
from pipeline.competition import CLASSES, SIDE
from pipeline.config import Config
from pipeline.data.faces import Faces
from pipeline.data.folds import Folds
from pipeline.training.cell import HISTORY
from pipeline.training.plan import Plan

CELLS = Path("artifacts/cells")
STUDENTS = Path("artifacts/students")
WEIGHTS = Path("artifacts/weights")
FILES = ("predictions.npz", "history.csv", "cell.json")  # in the order in which they are written


class About(BaseModel, frozen=True, strict=True):
    """What cell.json says.

    Parameters
    ----------
    key : of all that decides the weights. faces, folds : digests of the data.
    sha256 : of the other files, by name. carried_over : how it came from an earlier version's files, if it did.
    """

    model: str
    fold: int
    key: str
    faces: str
    folds: str
    seconds: float
    parameters: int
    multiply_adds: int
    precision: str
    backend: str
    processor: str
    weights_sha256: str
    sha256: dict[str, str]
    plan: Plan
    carried_over: str = ""
    model_config = {"extra": "allow"}  # the versions of what computed it

    def computed_with(self) -> str:
        """Backend, versions, precision and processor, in words."""
        return ", ".join(
            f"{key} {value}" for key, value in (
                ("backend", self.backend), *sorted((self.model_extra or {}).items()), ("precision", self.precision),
                ("processor", self.processor),
            )
        )  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A cell's content; probabilities are float32 and sum to 1.

    Parameters
    ----------
    rows : int32 [m], held-out rows, in rising order.
    oof, test : with test-time augmentation, [m, 7] and [k, 7]; oof_plain, test_plain : without.
    train : of the rows that it was trained on, [t, 7]; None in a cell of an earlier version.
    attention : uint8 [7, 48, 48], likewise.
    """

    about: About
    rows: np.ndarray
    oof: np.ndarray
    test: np.ndarray
    oof_plain: np.ndarray
    test_plain: np.ndarray
    train: np.ndarray | None
    attention: np.ndarray | None
    history: pd.DataFrame


def folder(config: Config, name: str, fold: int) -> Path:
    """The folder of a cell."""
    return (STUDENTS if name in config.students else CELLS) / name / f"fold{fold}"


def weights(name: str, fold: int) -> Path:
    """The weights of a cell."""
    return WEIGHTS / name / f"fold{fold}.weights.h5"


def stage(config: Config, name: str, fold: int) -> str:
    """The DVC stage that makes a cell."""
    return f"{'distill' if name in config.students else 'train'}@{name}-{fold}"


def about(path: Path) -> About | None:
    """What the cell in a folder says of itself, if its files are there and are those that it tells of; else None."""
    try:
        found = About.model_validate_json((path / "cell.json").read_bytes())
        whole = all(files.sha256((path / name).read_bytes()) == found.sha256[name] for name in FILES[:-1])
    except files.DAMAGE:
        return None
    return found if whole else None


def write(path: Path, weights_path: Path, contents: dict[str, bytes]) -> None:
    """Write a cell, weights first and cell.json last; what was there stays until its file is replaced whole."""
    files.write(weights_path, contents["weights"])
    for name in FILES:
        files.write(path / name, contents[name])


def load(config: Config, name: str, fold: int, faces: Faces, folds: Folds) -> Cell:
    """Read a cell of this run. Raises UserError where it is missing, damaged, or of another model, fold or data."""
    path, remedy = folder(config, name, fold), f"dvc repro {stage(config, name, fold)}"
    with files.reading(path / "cell.json", remedy):
        text = json.loads((path / "cell.json").read_bytes())
        found = About.model_validate(text)
        told = (found.model, found.fold, found.faces, found.folds)
        if told != (name, fold, faces.digest, folds.digest):
            raise ValueError(f"it is of {found.model} fold {found.fold}, or of other faces or folds")
    contents = {}
    for file in FILES[:-1]:
        with files.reading(path / file, remedy):
            contents[file] = (path / file).read_bytes()
            if files.sha256(contents[file]) != found.sha256[file]:
                raise ValueError("it is not the file that cell.json tells of")
    with files.reading(path / "predictions.npz", remedy):
        arrays = _arrays(contents["predictions.npz"], folds.held_out(fold), len(faces.test_rows()))
    with files.reading(path / "history.csv", remedy):
        history = pd.read_csv(io.BytesIO(contents["history.csv"]))
        if list(history) != list(HISTORY) or len(history) != found.plan.recipe["epochs"]:
            raise ValueError("it has other columns, or not a line for every epoch")
    return Cell(found, history=history, **arrays)


def _arrays(content: bytes, rows: np.ndarray, tests: int) -> dict[str, Any]:
    """The arrays of predictions.npz. Raises ValueError where one has another shape, or is no probabilities."""
    with np.load(io.BytesIO(content), allow_pickle=False) as opened:
        arrays = dict(opened)
    if not np.array_equal(arrays["rows"], rows):
        raise ValueError("it is of other rows")
    found: dict[str, Any] = {"rows": arrays["rows"], "train": None, "attention": None}
    for name, length in (("oof", len(rows)), ("oof_plain", len(rows)), ("test", tests), ("test_plain", tests)):
        found[name] = probabilities(arrays[name], length)
    if "train" in arrays:
        found["train"] = probabilities(arrays["train"].astype("float32") / 255, len(arrays["train"]))
    if "attention" in arrays:
        found["attention"] = arrays["attention"].reshape(len(CLASSES), SIDE, SIDE)
    return found


def probabilities(array: np.ndarray, rows: int) -> np.ndarray:
    """An array as probabilities: float32 [rows, 7] that sum to 1.

    Raises ValueError where it has another shape, numbers that are none, are negative, or sum to less or more than 1
    (by more than rounding to 8 bits does).
    """
    if array.shape != (rows, len(CLASSES)) or array.dtype.kind != "f":
        raise ValueError(
            f"probabilities must be floats of shape {[rows, len(CLASSES)]}, not {array.dtype} {list(array.shape)}"
        )
    array = array.astype("float32")
    total = array.sum(axis=1, keepdims=True)
    if not (np.isfinite(array).all() and (array >= 0).all() and (abs(total - 1) < 0.02).all()):
        raise ValueError("some rows are no probabilities: NaN, negative, or with another sum than 1")
    if (abs(total - 1) < 1e-5).all():  # they were not rounded
        return array
    exact: np.ndarray = array / total
    return exact
