"""Ask the teachers of a fold, which none of them has seen, what they say of the rows that they were trained on.

Reads data/faces.npz, data/folds.csv and artifacts/models/. Writes artifacts/lessons/foldK.npz: rows int32 [m], and
under each teacher's name its probabilities, float32 [m, 7], the mean of a picture and its mirror image. As neither
teacher nor student sees the fold, what a student says of it is out of fold.
"""

from functools import partial
from typing import Any

import numpy as np

from pipeline import command, files, params, recipe
from pipeline.data import faces, folds
from pipeline.training import backend, cells, machine


def answer(teacher: str, fold: int, data: faces.Faces, rows: np.ndarray, library: str) -> np.ndarray:
    """What `teacher` says of `rows`, asked by `library`, which runs already: float32 [m, 7]."""
    from pipeline.training import augment, loop

    remedy = cells.remedy(teacher, fold)
    _, settings = cells.metadata(cells.path("about", teacher, fold), remedy)
    backend.prepare(0, machine.suitable(settings.precision, library, teacher))
    network = cells.restore(teacher, cells.path("weights", teacher, fold), remedy)
    two = settings.model_copy(update={"flip_at_test": True, "shift_at_test": 0, "zoom_at_test": 0.0})
    mean: np.ndarray = (
        loop.Predictor(loop.Feed(data.pixels, settings), network).views(rows, augment.views(two)).mean(axis=0)
    )
    return mean


def main(fold: str | None = None) -> None:
    """Run the stage for one fold, or for all."""
    wanted = folds.numbers() if fold is None else [folds.number(fold)]
    data, teachers = faces.load(), recipe.teachers()
    rows, fold_of = folds.load(data)
    library = machine.choose(params.backend())
    if teachers:
        backend.start(library)
    for number in wanted:
        seen = rows[fold_of != number]
        answers: dict[str, Any] = {name: answer(name, number, data, seen, library) for name in teachers}
        files.replace(cells.lessons(number), partial(np.savez, rows=seen.astype("int32"), **answers))


if __name__ == "__main__":
    command.run(main, "python -m pipeline.stages.teach [FOLD]")
