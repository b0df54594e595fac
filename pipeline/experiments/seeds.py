"""Run the whole of params.yaml again with other seeds, and tell mean and deviation of every score: never the best.

Reads what download, prepare and audit have made. Writes, for each seed, a project of its own in seeds/SEED/ (ignored by
git; a second start goes on there), and results/seeds.json.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from pipeline import config, files
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation import metrics, submission

FOLDER = Path("seeds")
RESULT = Path("results/seeds.json")
SHARED = ("data/faces.npz", "data/solution.csv", "data/duplicates.csv", "data/raw", "external")
SCORES = ("oof_accuracy", "public_accuracy", "private_accuracy", "private_no_duplicate")


def build(folder: Path, seed: int) -> None:
    """Make `folder` a project that shares this one's code and faces, with `seed` in its params.yaml.

    A model that has a seed of its own, so as to differ from another, gets one that is as far from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pipeline", *SHARED):
        link = folder / name
        link.parent.mkdir(exist_ok=True)
        if Path(name).exists() and not link.is_symlink():
            link.symlink_to(Path(name).absolute())
    yaml = YAML()
    document = yaml.load(config.PATH.read_text(encoding="utf-8"))
    for model in (*document["models"].values(), *document.get("students", {}).values()):
        if model.get("seed") is not None:
            model["seed"] = (model["seed"] - document["seed"] + seed) % 2**32
    document["seed"] = seed
    with open(folder / config.PATH, "w", encoding="utf-8") as file:
        yaml.dump(document, file)


def verbs(settings: Config) -> list[list[str]]:
    """The command lines that a run is made of, in order; each skips what is finished."""
    cells = {name: [["train", name, str(fold), "--yes"] for fold in settings.folds] for name in settings.names}
    trained = [cell for name in settings.models for cell in cells[name]]
    distilled = [line for name in settings.students for line in (["soft-targets", name], *cells[name])]
    return [["folds"], ["plan"], *trained, *distilled, ["ensemble"], ["score"]]


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
    params = {key: value for key, value in config.read().items() if key != "seed"}
    return {"seeds": list(tables), "params": params, "submissions": found}


def main(numbers: list[int]) -> None:
    """Run the command."""
    settings, wanted = config.load(), sorted(set(numbers))
    if len(wanted) < max(2, len(numbers)):
        raise UserError(f"name two or more different seeds, not {' '.join(map(str, numbers))}")
    for name in SHARED[:-1]:
        if not Path(name).exists():
            raise UserError(f"{name} is missing; make it with: dvc repro audit")
    for seed in wanted:
        build(FOLDER / str(seed), seed)  # all now: params.yaml may change in the hours that follow
    for seed in wanted:
        for words in verbs(settings):
            print(f"seed {seed}: {' '.join(words)}", flush=True)
            folder = FOLDER / str(seed)
            if subprocess.run([sys.executable, "-m", "pipeline", *words], cwd=folder, check=False).returncode:
                raise UserError(f"{words[0]} failed in {folder}/: see above; the same command goes on from there")
    tables = {seed: pd.read_csv(FOLDER / str(seed) / submission.TABLE) for seed in wanted}
    files.write_json(RESULT, summary(tables))
