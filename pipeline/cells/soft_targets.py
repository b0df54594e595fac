"""Average what a student's teachers say of the rows that they were trained on.

Reads the teachers' cells, data/folds.csv and the student's plan. Writes artifacts/soft_targets/STUDENT.npz: foldK,
uint8 [t, 7], 255 times the mean probabilities of the rows outside of fold K, by teachers that have not seen fold K
either. So the student's out-of-fold score is as honest as any other.

Cells of an earlier version lack these predictions. Then the file holds their names instead, under `absent`: a student
that is trained already stays, and one that must be trained is refused.
"""

import io
from pathlib import Path

import numpy as np

from pipeline import config, files
from pipeline.cells import planning, store
from pipeline.data import faces, folds
from pipeline.errors import UserError

FOLDER = Path("artifacts/soft_targets")


def path(student: str) -> Path:
    """Where the soft targets of a student lie."""
    return FOLDER / f"{student}.npz"


def mean(predictions: list[np.ndarray]) -> np.ndarray:
    """The mean of probabilities, float [t, 7] each, as uint8 [t, 7]."""
    found: np.ndarray = (255 * np.mean(predictions, axis=0)).round().astype("uint8")
    return found


def load(student: str, fold: int) -> np.ndarray:
    """The soft targets of a student's cell: float32 [t, 7]. Raises UserError where its teachers' cells lack them."""
    with files.reading(path(student), f"dvc repro soft_targets@{student}"), np.load(path(student)) as opened:
        arrays = dict(opened)
    if "absent" in arrays:
        names = ", ".join(map(str, arrays["absent"]))
        raise UserError(
            f"{student} cannot be trained: the cells of {names} hold no predictions of the rows they were trained on, "
            "as they are of an earlier version; train each anew: python -m pipeline train NAME FOLD --anew"
        )
    with files.reading(path(student), f"dvc repro -f soft_targets@{student}"):
        levels = arrays[f"fold{fold}"]
        return store.probabilities(levels.astype("float32") / 255, len(levels))


def main(student: str) -> None:
    """Run the stage for one student."""
    settings, data = config.load(), faces.load()
    dealt, teachers = folds.load(data), planning.load(student).teachers
    cells = {name: [store.load(settings, name, fold, data, dealt) for fold in settings.folds] for name in teachers}
    absent = [name for name, each in cells.items() if any(cell.train is None for cell in each)]
    if absent:
        arrays = {"absent": np.array(absent)}
    else:
        arrays = {
            f"fold{fold}": mean([cells[name][fold].train for name in teachers])  # type: ignore[misc]
            for fold in settings.folds
        }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    files.write(path(student), content.getvalue())
    older = "none, as cells of its teachers are of an earlier version"
    print(f"soft targets of {student}: {older if absent else 'the mean of ' + ', '.join(teachers)}")
