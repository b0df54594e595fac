"""Storage of cells: paths, writing, reading and validation.

A cell (see training/cell.py) consists of predictions.npz, history.csv and cell.json in artifacts/cells/MODEL/foldK/, or
in artifacts/students/STUDENT/foldK/. Its weights, which no stage needs, are in artifacts/weights/.
"""

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel

from pipeline import files
from pipeline.competition import CLASSES
from pipeline.config import Config
from pipeline.data import folds
from pipeline.data.faces import Faces
from pipeline.data.folds import Folds
from pipeline.training.plan import Plan

CELLS = Path("artifacts/cells")
STUDENTS = Path("artifacts/students")
WEIGHTS = Path("artifacts/weights")
FILES = ("predictions.npz", "history.csv", "cell.json")  # in the order of writing


class About(BaseModel, frozen=True, strict=True):
    """Content of cell.json.

    Parameters
    ----------
    key : digest of everything that determines the weights. faces, folds : digests of the data.
    sha256 : digests of the other files, by name.
    carried_over : reason why a cell of an earlier version or of other code is still valid; usually empty.
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
    model_config = {"extra": "allow"}  # versions of the libraries

    def computed_with(self) -> str:
        """Return backend, library versions, precision and processor as text."""
        versions = sorted((self.model_extra or {}).items())
        parts = [("backend", self.backend), *versions, ("precision", self.precision), ("processor", self.processor)]
        return ", ".join(f"{key} {value}" for key, value in parts)


@dataclass(frozen=True)
class Cell:
    """Content of a cell. Probabilities are float32 and sum to 1.

    Parameters
    ----------
    rows : int64 [m], held-out rows, in ascending order.
    oof, test : probabilities of the held-out rows, [m, 7], and test rows, [k, 7], with test-time augmentation.
    oof_plain, test_plain : the same without test-time augmentation.
    train : probabilities of the training rows, [t, 7]; None in a cell of an earlier version.
    attention : attention map per class, uint8 [7, 48, 48]; None in a cell of an earlier version.
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
    """Return the folder of a cell."""
    return (STUDENTS if name in config.students else CELLS) / name / f"fold{fold}"


def weights(name: str, fold: int) -> Path:
    """Return the path of the weights of a cell."""
    return WEIGHTS / name / f"fold{fold}.weights.h5"


def usable_weights(about: About) -> bytes | None:
    """Return the weights of a cell, or None if they are missing or of another training."""
    path = weights(about.model, about.fold)
    content = path.read_bytes() if path.exists() else b""
    return content if files.sha256(content) == about.weights_sha256 else None


def stage(config: Config, name: str) -> str:
    """Return the name of the DVC stage that makes the cells of a model."""
    return f"{'distill' if name in config.students else 'train'}@{name}"


def about(path: Path) -> About | None:
    """Read cell.json in a folder. Returns None if it is damaged, or another file is missing or has another digest."""
    with suppress(*files.DAMAGE):
        return _verified(path)[0]
    return None


def _verified(path: Path) -> tuple[About, dict[str, bytes]]:
    """Read cell.json in a folder and the other files. Raises an error of files.DAMAGE if they do not fit together."""
    about = About.model_validate_json((path / "cell.json").read_bytes())
    contents = {name: (path / name).read_bytes() for name in FILES[:-1]}
    if different := [name for name in contents if files.sha256(contents[name]) != about.sha256[name]]:
        raise ValueError(f"the digest of {different[0]} differs from the one in cell.json")
    return about, contents


def write(path: Path, weights_path: Path, contents: dict[str, bytes]) -> None:
    """Write a cell, weights first and cell.json last. Each old file is replaced atomically.

    Temporary files of an earlier process that was killed are deleted.
    """
    for part in [*weights_path.parent.glob(f"{weights_path.name}.*.part"), *path.glob("*.part")]:
        part.unlink()
    files.write(weights_path, contents["weights"])
    for name in FILES:
        files.write(path / name, contents[name])


def load_all(config: Config, name: str, faces: Faces) -> list[Cell]:
    """Load the cells of all folds of a model. Raises UserError if one is unusable, see `load`."""
    assignment = folds.load(faces, name)
    return [load(config, name, fold, faces, assignment) for fold in config.folds_of(name)]


def load(config: Config, name: str, fold: int, faces: Faces, folds: Folds) -> Cell:
    """Load a cell. Raises UserError if it is missing, damaged, or for a different model, fold or dataset."""
    path = folder(config, name, fold)
    with files.reading(path, f"dvc repro {stage(config, name)}"):
        about, contents = _verified(path)
        if (about.model, about.fold, about.faces, about.folds) != (name, fold, faces.digest, folds.digest):
            raise ValueError(f"it is for {about.model} fold {about.fold}, or for a different dataset or folds")
        history = pd.read_csv(io.BytesIO(contents["history.csv"]))
        rows, tests, train = folds.held_out(fold), len(faces.test_rows()), None
        with np.load(io.BytesIO(contents["predictions.npz"])) as stored:
            if not np.array_equal(stored["rows"], rows):
                raise ValueError("its rows are not those of the fold")
            sizes = {"oof": len(rows), "oof_plain": len(rows), "test": tests, "test_plain": tests}
            arrays = {name: probabilities(stored[name], size) for name, size in sizes.items()}
            if "train" in stored:
                train = probabilities(stored["train"].astype("float32") / 255, len(folds.rows) - len(rows))
            return Cell(about, rows, **arrays, train=train, attention=stored.get("attention"), history=history)


def probabilities(array: np.ndarray, rows: int) -> np.ndarray:
    """Validate probabilities and return them as float32 [rows, 7], normalised to sum 1.

    Raises ValueError if the shape is different, or if a row has NaN, negative values or a sum outside 0.98 to 1.02.
    This tolerance allows for rounding to 8 bits.
    """
    shape = (rows, len(CLASSES))
    if array.shape != shape or array.dtype.kind != "f":
        raise ValueError(f"probabilities must be floats of shape {shape}, not {array.dtype} {array.shape}")
    array = array.astype("float32")
    total = array.sum(axis=1, keepdims=True)
    if not (np.isfinite(array).all() and (array >= 0).all() and (abs(total - 1) < 0.02).all()):
        raise ValueError("some rows are not probabilities: NaN, negative, or their sum is not 1")
    return array if (abs(total - 1) < 1e-5).all() else np.asarray(array / total)  # unchanged if never rounded
