"""Complete runs of params.yaml with other seeds; mean and standard deviation of every score, never the best score.

Reads the results of download, prepare and audit. Writes results/seeds.json and a project for each seed in seeds/SEED/,
which git ignores. Running the command again continues unfinished projects.
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
    """Create a project in `folder` that shares the code and faces of this one, with `seed` in its params.yaml.

    A model with its own seed keeps its difference from the seed of the project.
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
    """Return the command lines of a run, in order; each skips finished work."""
    trained = [["train", name, "--yes"] for name in settings.models]
    distilled = [line for name in settings.students for line in (["soft-targets", name], ["train", name, "--yes"])]
    return [["folds"], ["plan"], *trained, *distilled, ["ensemble"], ["score"]]


def summary(tables: dict[int, pd.DataFrame], document: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of results/seeds.json: mean and sample standard deviation over the seeds.

    Parameters
    ----------
    tables : submissions/scores.csv by seed. document : params.yaml of the runs.

    Returns
    -------
    seeds, params (everything except the seed) and submissions (the spread of the known scores of each).
    """
    submissions: dict[str, Any] = {}
    for name, lines in pd.concat(tables.values()).groupby("name", sort=False):
        known = [score for score in SCORES if pd.to_numeric(lines[score], errors="coerce").notna().all()]
        submissions[str(name)] = {score: metrics.spread(lines[score].astype(float).to_numpy()) for score in known}
    params = {key: value for key, value in document.items() if key != "seed"}
    return {"seeds": list(tables), "params": params, "submissions": submissions}


def main(numbers: list[int]) -> None:
    """Run the command."""
    settings, document, wanted = config.load(), config.read(), sorted(set(numbers))
    if len(wanted) < max(2, len(numbers)):
        raise UserError(f"two or more different seeds are needed, not {' '.join(map(str, numbers))}")
    for name in SHARED[:-1]:
        if not Path(name).exists():
            raise UserError(f"{name} is missing; make it with: dvc repro audit")
    for seed in wanted:
        build(FOLDER / str(seed), seed)  # all at once: params.yaml may change during the runs
    for seed in wanted:
        for words in verbs(settings):
            print(f"seed {seed}: {' '.join(words)}", flush=True)
            folder = FOLDER / str(seed)
            if subprocess.run([sys.executable, "-m", "pipeline", *words], cwd=folder, check=False).returncode:
                raise UserError(f"{words[0]} failed in {folder}/ (see above); run the same command again to continue")
    tables = {seed: pd.read_csv(FOLDER / str(seed) / submission.TABLE) for seed in wanted}
    files.write_json(RESULT, summary(tables, document))
