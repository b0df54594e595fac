"""Soft targets: the mean predictions of a student's teachers for the rows on which they were trained.

Reads the teachers' cells, data/folds/ and the student's plan. Writes artifacts/soft_targets/STUDENT.npz: foldK,
uint8 [t, 7], 255 times the mean probabilities of the rows outside fold K, and the digest of the folds in `of`. They
come from teachers for which fold K was held out too, so the student's out-of-fold score stays unbiased.

Cells of an earlier version lack these predictions. Then the file contains the names of these teachers in `absent`; a
trained student stays valid, and training a student raises an error.
"""

from collections.abc import Container
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipeline import config, files
from pipeline.cells import planning, store
from pipeline.data import faces, folds
from pipeline.errors import UserError

FOLDER = Path("artifacts/soft_targets")


def path(student: str) -> Path:
    """Return the path of the soft targets of a student."""
    return FOLDER / f"{student}.npz"


def require(student: str, retrained: Container[str] = ()) -> None:
    """Raise UserError if cells of its teachers, except `retrained`, lack predictions of their training rows."""
    if older := [name for name in absent(student) if name not in retrained]:
        raise UserError(
            f"{student} cannot be trained: the cells of {', '.join(older)} are from an earlier version, without "
            "predictions of their training rows; retrain each: .venv/bin/python -m pipeline train NAME --retrain -y; "
            f"or remove {student} from students (students: {{}} if it is the only one) and from ensemble.members"
        )


def absent(student: str) -> list[str]:
    """Return the teachers of a student whose cells lack predictions of their training rows."""
    with suppress(*files.DAMAGE), np.load(path(student)) as arrays:
        return [str(name) for name in arrays["absent"]]
    return []


def load(student: str, fold: int, digest: str) -> np.ndarray:
    """Load the soft targets of a student's cell, float32 [t, 7]. Raises UserError if the teachers' cells lack them.

    Parameters
    ----------
    digest : of the folds.
    """
    require(student)
    with files.reading(path(student), f"dvc repro -f soft_targets@{student}"), np.load(path(student)) as arrays:
        if arrays["of"] != digest:
            raise ValueError("it is for different folds")
        levels = arrays[f"fold{fold}"]
        return store.probabilities(levels.astype("float32") / 255, len(levels))


def main(student: str) -> None:
    """Run the stage for one student."""
    settings, data = config.load(), faces.load()
    if student not in settings.students:
        raise UserError(f"{config.PATH} has no student {student!r}{config.suggestion(student, settings.students)}")
    teachers = planning.load(student).teachers
    trained = {name: [cell.train for cell in store.load_all(settings, name, data)] for name in teachers}
    if older := [name for name, folds_of in trained.items() if any(each is None for each in folds_of)]:
        arrays = {"absent": np.array(older)}
    else:
        means = [255 * np.mean(each, axis=0) for each in zip(*trained.values(), strict=True)]
        arrays = {f"fold{fold}": mean.round().astype("uint8") for fold, mean in enumerate(means)}
        arrays["of"] = np.array(folds.load(data, student).digest)
    files.replace(path(student), lambda file: np.savez(file, allow_pickle=False, **arrays))
    mean = f"soft targets of {student}: mean of {', '.join(teachers)}"
    none = f"{student}: its cells stay valid; to retrain it, first retrain its teachers\n{', '.join(older)}"
    print(none if older else mean)
