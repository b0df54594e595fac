"""Complete runs of params.yaml with other seeds; mean and standard deviation of every score, never the best score.

Reads the results of download, prepare and audit. Writes results/seeds.json and a project for each seed in seeds/SEED/,
which git ignores. Running the command again continues unfinished projects.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import config, files
from pipeline.command import python
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
        if Path(name).exists():
            if link.is_symlink():
                link.unlink()  # the project may have been moved
            link.symlink_to(Path(name).absolute())
    document = config.read()
    for model in (*document["models"].values(), *document["students"].values()):
        if model.get("seed") is not None:
            model["seed"] = (model["seed"] - document["seed"] + seed) % 2**32
    document["seed"] = seed
    files.write_json(folder / config.PATH, document)  # JSON is valid YAML


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
    document, wanted = config.read(), sorted(set(numbers))
    if len(wanted) < max(2, len(numbers)):
        raise UserError(f"two or more different seeds are needed, not {' '.join(map(str, numbers))}")
    for name in SHARED[:-1]:
        if not Path(name).exists():
            raise UserError(f"{name} is missing; make it with: dvc repro audit")
    for seed in wanted:
        build(FOLDER / str(seed), seed)  # all at once: params.yaml may change during the runs
    for seed in wanted:
        for verb in ("train", "ensemble", "score"):
            print(f"seed {seed}: {verb}", flush=True)
            python("pipeline", verb, folder=FOLDER / str(seed), YES="1")
    tables = {seed: pd.read_csv(FOLDER / str(seed) / submission.TABLE) for seed in wanted}
    files.write_json(RESULT, summary(tables, document))
