"""Run the whole pipeline on a small competition, in a folder of its own: drawn faces, or a fifth of the real ones.

Reads demo.yaml or quick.yaml beside this file (the params.yaml), and for `quick` the faces and their solution. Writes
demo/ or quick/, which git ignores; the real results are never touched.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.data import faces, solution, synthetic
from pipeline.errors import UserError

DEMO, QUICK = Path("demo"), Path("quick")
PARAMS = Path(__file__).with_suffix(".yaml")
SHARE = 5  # of so many real faces `quick` takes one
DVC_CONFIG = "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
FOLDERS = (".dvc", "data/incoming", "external", "artifacts/students")  # which the graph's stages depend on


def build(folder: Path, params: Path = PARAMS) -> None:
    """Make `folder` a DVC project that shares this one's code and graph, with `params` as its params.yaml."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / ".dvc/config").write_text(DVC_CONFIG)
    for name in ("pipeline", "dvc.yaml"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(os.path.relpath(name, folder))
    shutil.copyfile(params, folder / "params.yaml")


def run(folder: Path, *words: str) -> None:
    """Run `python -m WORDS` in `folder`, by this Python. Raises UserError where it fails (it has printed why)."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # DVC's stages take python from it
    environment = os.environ | {"PATH": path, "YES": "1"}  # its trainings are short: they need no consent
    if subprocess.run([sys.executable, "-m", *words], cwd=folder, env=environment, check=False).returncode:
        raise UserError(f"{' '.join(words)} failed in {folder}/: see above; the same command goes on from there")


def take(folder: Path) -> None:
    """Write every fifth of the real faces to `folder`, as the competition's files; each split keeps its order."""
    data = faces.load()
    labels = solution.join(data.labels, solution.load(data))
    rows = [row for split in range(3) for row in data.rows(split)[::SHARE]]
    names = {"train.csv", "test.csv"} if (labels < 0).any() else {"icml_face_data.csv"}
    synthetic.write(folder, data.pixels[rows], labels[rows], data.usage[rows], names)


def main(quick: bool = False) -> None:
    """Run the command."""
    if not Path("pipeline").is_dir():
        raise UserError("pipeline/ is missing here; run from the project's folder")
    folder = QUICK if quick else DEMO
    if quick:
        run(Path(), "dvc", "repro", "--quiet", "prepare")
        build(folder, PARAMS.with_stem("quick"))
        take(folder / "data/incoming")
    else:
        build(folder)
    run(folder, "pipeline", "train", "--jobs", "2", "--threads", "1", "--yes")
    run(folder, "dvc", "repro")
    run(folder, "pipeline", "leaderboard")
    print(f"\nThe submission: {folder}/submissions/ensemble.csv")
    print(f"The report, for a browser: {folder}/results/report.html")
