"""Run the whole pipeline on a small competition of drawn faces, in a folder of its own: no credentials, no data needed.

Reads pipeline/demo.yaml (its params.yaml). Writes demo/, which git ignores; the real results are never touched.
"""

import os
import shutil
import subprocess
from pathlib import Path

from pipeline import command
from pipeline.command import Refusal

FOLDER = Path("demo")


def build(folder: Path, params: Path) -> None:
    """Make `folder` a DVC project of its own that shares this one's code and graph, with other params."""
    (folder / "data/incoming").mkdir(parents=True, exist_ok=True)
    for name in ("pipeline", "dvc.yaml"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(os.path.relpath(name, folder))
    shutil.copyfile(params, folder / "params.yaml")
    if not (folder / ".dvc").exists():
        _dvc(folder, "init", "--no-scm", "--quiet")
        _dvc(folder, "config", "core.analytics", "false")
        _dvc(folder, "config", "core.check_update", "false")


def _dvc(folder: Path, *words: str) -> None:
    if subprocess.run(["dvc", "--cd", str(folder), *words], check=False).returncode:
        raise Refusal(f"dvc {' '.join(words)} failed in {folder}/ (its messages stand above); then run this again")


def main() -> None:
    """Run the command."""
    if not Path("pipeline").is_dir():
        raise Refusal("pipeline/ is missing here; run from the project's folder")
    build(FOLDER, Path(__file__).with_suffix(".yaml"))
    lock = FOLDER / "dvc.lock"
    before = lock.read_bytes() if lock.exists() else b""
    _dvc(FOLDER, "repro")
    if lock.read_bytes() == before:
        print("\nThe demo is up to date: nothing had to run.")
    print()
    subprocess.run(["python", "-m", "pipeline.leaderboard"], cwd=FOLDER, check=True)
    print(f"\nThe submission: {FOLDER}/submissions/ensemble.csv. Plots: {FOLDER}/results/plots/.")


if __name__ == "__main__":
    command.run(main, "python -m pipeline.demo")
