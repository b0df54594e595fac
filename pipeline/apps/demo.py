"""Run the whole pipeline on a small competition of drawn faces, in a folder of its own: no credentials, no data needed.

Reads pipeline/apps/demo.yaml (its params.yaml). Writes demo/, which git ignores; the real results are never touched.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.errors import UserError

FOLDER = Path("demo")
PARAMS = Path(__file__).with_suffix(".yaml")
DVC_CONFIG = "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
FOLDERS = (".dvc", "data/incoming", "external", "artifacts/students")  # which the graph's stages depend on


def build(folder: Path) -> None:
    """Make `folder` a DVC project of its own that shares this one's code and graph, with the demo's params."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / ".dvc/config").write_text(DVC_CONFIG)
    for name in ("pipeline", "dvc.yaml"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(os.path.relpath(name, folder))
    shutil.copyfile(PARAMS, folder / "params.yaml")


def run(folder: Path, *words: str) -> None:
    """Run `python -m WORDS` in `folder`, by this Python. Raises UserError where it fails (it has printed why)."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # DVC's stages take python from it
    environment = os.environ | {"PATH": path, "YES": "1"}  # its trainings are short: they need no consent
    if subprocess.run([sys.executable, "-m", *words], cwd=folder, env=environment, check=False).returncode:
        raise UserError(f"{' '.join(words)} failed in {folder}/: see above; the same command goes on from there")


def main() -> None:
    """Run the command."""
    if not Path("pipeline").is_dir():
        raise UserError("pipeline/ is missing here; run from the project's folder")
    build(FOLDER)
    run(FOLDER, "dvc", "repro")
    run(FOLDER, "pipeline", "leaderboard")
    print(
        f"\nThe submission: {FOLDER}/submissions/ensemble.csv. The report, for a browser: {FOLDER}/results/report.html"
    )
