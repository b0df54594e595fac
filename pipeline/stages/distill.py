"""Train the students: networks that learn from the labels and from what others, their teachers, say of the same rows.

Reads data/faces.npz, data/folds.csv and artifacts/lessons/. Writes what train writes, the weights under
artifacts/students/. Without STUDENT and FOLD every student's cell is trained that is out of date; JOBS, BACKEND and
ADDRESS mean what they mean to train.
"""

from pipeline import command, recipe
from pipeline.stages import train


def main(student: str | None = None, fold: str | None = None) -> None:
    """Run one cell of the stage, or all that are out of date."""
    train.run(recipe.students(), student, fold)


if __name__ == "__main__":
    from pipeline.stages import distill as importable

    command.run(importable.main, "python -m pipeline.stages.distill [STUDENT] [FOLD]")
