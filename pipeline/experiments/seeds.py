"""Run the whole of params.yaml again with other seeds, and tell mean and deviation of every score: never the best.

SEEDS="1 2 3" in the environment names them. Reads what download, prepare and audit have made. Writes, for each seed, a
project of its own in seeds/SEED/ (ignored by git; a second start goes on there), and results/seeds.json.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from pipeline import files, params
from pipeline.errors import UserError
from pipeline.evaluation import metrics, submission

FOLDER = Path("seeds")
RESULT = Path("results/seeds.json")
SHARED = ("data/faces.npz", "data/solution.csv", "data/duplicates.csv", "data/raw")
STAGES = ("check", "folds", "train", "teach", "distill", "ensemble", "score")
SCORES = ("oof_accuracy", "public_accuracy", "private_accuracy", "private_no_duplicate")


def wanted() -> list[int]:
    """The seeds that the environment names."""
    words = os.environ.get("SEEDS", "").split()
    numbers = sorted({int(word) for word in words if word.isdecimal()})
    if len(numbers) < 2 or len(numbers) < len(words) or numbers[-1] >= 2**32:
        raise UserError(f"SEEDS={' '.join(words)!r}: must name two or more different whole numbers, like SEEDS='1 2 3'")
    return numbers


def build(folder: Path, seed: int) -> None:
    """Make `folder` a project that shares this one's code and faces, with `seed` in its params.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pipeline", *SHARED):
        link = folder / name
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(Path(name).absolute())
    yaml = YAML()
    document = yaml.load(params.PATH.read_text())
    document["seed"] = seed
    with open(folder / params.PATH, "w") as file:
        yaml.dump(document, file)


def summary(tables: dict[int, pd.DataFrame]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample) over the seeds.

    Parameters
    ----------
    tables : submissions/scores.csv by seed.

    Returns
    -------
    What results/seeds.json holds; `params` is what the runs had in common.
    """
    every = pd.concat(tables.values()).groupby("name", sort=False)
    found: dict[str, Any] = {}
    for name, lines in every:
        known = [score for score in SCORES if pd.to_numeric(lines[score], errors="coerce").notna().all()]
        found[str(name)] = {score: metrics.spread(lines[score].astype(float).to_numpy()) for score in known}
    return {"seeds": list(tables), "params": params.but_seed(), "submissions": found}


def main() -> None:
    """Run the command."""
    numbers = wanted()
    for name in SHARED:
        if not Path(name).exists():
            raise UserError(f"{name} is missing; make it with: dvc repro audit")
    for seed in numbers:
        build(FOLDER / str(seed), seed)  # all now: params.yaml may change in the hours that follow
    for seed in numbers:
        folder = FOLDER / str(seed)
        for stage in STAGES:
            print(f"seed {seed}: {stage}", flush=True)
            if subprocess.run([sys.executable, "-m", f"pipeline.{stage}"], cwd=folder, check=False).returncode:
                raise UserError(f"{stage} failed in {folder}/: see above; the same command goes on from there")
    tables = {seed: pd.read_csv(FOLDER / str(seed) / submission.TABLE) for seed in numbers}
    files.write_json(RESULT, summary(tables))
