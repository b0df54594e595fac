"""The complete pipeline on a small competition in a separate folder: drawn faces, or a fifth of the real faces.

Reads demo.yaml or quick.yaml next to this file (used as params.yaml); `quick` also reads the faces and their solution.
Writes demo/ or quick/, which git ignores. The real results stay untouched.
"""

import os
import shutil
from functools import partial
from pathlib import Path

from pipeline.command import python
from pipeline.data import faces, solution, synthetic
from pipeline.errors import UserError

STEP = 5  # `quick` uses every fifth real face
DVC_CONFIG = "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
FOLDERS = (".dvc", "data/incoming", "external", "artifacts/students")  # dependencies of DVC stages


def build(folder: Path) -> None:
    """Make `folder` a DVC project that links to this project's code and dvc.yaml, with the parameters of its name."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / ".dvc/config").write_text(DVC_CONFIG)
    for name in ("pipeline", "dvc.yaml"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(os.path.relpath(name, folder))
    shutil.copyfile(Path(__file__).with_name(f"{folder}.yaml"), folder / "params.yaml")


def take(folder: Path) -> None:
    """Write every fifth real face of each split to `folder`, as competition files, in the original order."""
    data = faces.load()
    labels = solution.load(data)
    rows = [row for split in range(3) for row in data.rows(split)[::STEP]]
    names = {"train.csv", "test.csv"} if (labels < 0).any() else {"fer2013.csv"}
    synthetic.write(folder, data.pixels[rows], labels[rows], data.usage[rows], names)


def main(quick: bool = False) -> None:
    """Run the command."""
    if not Path("pipeline").is_dir():
        raise UserError("pipeline/ is missing in the current folder; run the command in the project folder")
    folder = Path("quick" if quick else "demo")
    build(folder)
    if quick:
        python("dvc", "repro", "--quiet", "prepare")
        shutil.rmtree(folder / "data/incoming")  # may hold the files of another form
        take(folder / "data/incoming")
    run = partial(python, folder=folder, YES="1")  # the trainings take longer than ten minutes on slow machines
    run("pipeline", "train", "--jobs", "2", "--threads", "1")
    run("dvc", "repro")
    run("pipeline", "leaderboard")
    print(f"\nAll files named above are in {folder}/, for example:")
    print(f"{folder}/submissions/ensemble.csv\n{folder}/results/report.html")
