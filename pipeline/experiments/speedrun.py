"""Speedrun: the shortest training that reaches the winning score of 2013, on all Training rows without folds.

The section `speedrun` of params.yaml sets the architecture, the recipe and the seeds. The first two should be chosen by
out-of-fold scores. Reads the faces, data/solution.csv and data/duplicates.csv. By default, trains with the first seed
and writes its network (for `predict --network speedrun`), submission.csv and scores.json to artifacts/speedrun/. With
`every` seed, writes results/speedrun.json instead: the scores of every seed with their intervals, mean and deviation
over the seeds (never the best), and the minutes. Finished networks are not trained again.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from pipeline import config, files
from pipeline.competition import PRIVATE, PUBLIC
from pipeline.data import faces, folds
from pipeline.errors import UserError
from pipeline.evaluation import board, metrics, score, submission
from pipeline.experiments import runner
from pipeline.experiments.runner import Result, Training

FOLDER = Path("artifacts/speedrun")
RESULT = Path("results/speedrun.json")  # the record
OWN = FOLDER / "scores.json"
SUBMISSION = FOLDER / "submission.csv"
NETWORK = FOLDER / "network.json"


def plan(settings: config.Config, data: faces.Faces) -> dict[int, Training]:
    """Return the training of every seed."""
    assert settings.speedrun is not None
    section, rows = settings.speedrun, folds.kept(data, settings.duplicates)
    return {
        seed: Training(f"seed {seed}", section.architecture, section.resolved(),
                       int(np.random.SeedSequence(seed).generate_state(1)[0]), settings.backend, rows, data.labels,
                       rows[:0], data.test_rows())
        for seed in section.seeds
    }  # fmt: skip


def judge(result: Result, truth: score.Truth) -> dict[str, Any]:
    """Return the scores of one seed.

    Parameters
    ----------
    truth : of the test rows.
    """
    probabilities = result.probabilities.astype("float32")
    public, private = truth.usage == PUBLIC, truth.usage == PRIVATE
    parts = {"public": public, "private": private, "private_no_duplicate": private & (truth.identical == 0)}
    entry: dict[str, Any] = {}
    for name, rows in parts.items():
        entry |= score.accuracy(probabilities[rows], truth.labels[rows], name)
    minutes = round(float(result.seconds + result.prediction_seconds) / 60, 1)
    return entry | {"minutes": minutes, "trained_with": [json.loads(str(result.about))]}


def summary(by_seed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return mean and sample deviation of the scores (from two seeds on), the mean minutes, and the entries."""
    spreads: dict[str, Any] = {}
    for split in board.SEED_SCORES:
        values = [entry[split] for entry in by_seed.values()]
        if len(values) > 1 and submission.UNKNOWN not in values:
            spreads[split] = metrics.spread(values)
    return spreads | {"minutes": round(mean(entry["minutes"] for entry in by_seed.values()), 1), "by_seed": by_seed}


def show(record: dict[str, Any]) -> str:
    """Return the scores as a table."""
    rows = board.seeds(record).replace("% to", " to", regex=True)
    rows = rows[:1] if len(rows) == 2 else rows  # one seed has no mean
    table = rows.to_markdown(tablefmt="simple", disable_numparse=True, stralign="right")
    return f"{table}\n\nthe competition was won with {board.WINNER:.3%} of PrivateTest"


def leave(data: faces.Faces, task: Training, result: Result) -> None:
    """Write the submission of a seed, and the description of its network for `predict`."""
    submission.write(SUBMISSION, result.probabilities.argmax(axis=1))
    files.write_json(NETWORK, {
        "model": "speedrun", "architecture": task.architecture, "seed": task.seed, "recipe": task.recipe.model_dump(),
        "precision": json.loads(str(result.about))["precision"], "weights": str(runner.weights(data, task, FOLDER)),
    })  # fmt: skip
    print(f"{SUBMISSION}: to score it: make score FILE={SUBMISSION}\n"
          f'{NETWORK}: to use the network: make predict INPUT=face.png OPTIONS="--network speedrun"')  # fmt: skip


def main(every: bool = False) -> None:
    """Run the command for the first seed, or for every seed."""
    settings, data = config.load(), faces.load()
    if settings.speedrun is None:
        raise UserError(f"{config.PATH} has no section speedrun; class Speedrun in pipeline/config.py documents it")
    truth = score.read_truth(data).of(data.test_rows())
    tasks, first = plan(settings, data), settings.speedrun.seeds[0]
    tasks = tasks if every else {first: tasks[first]}
    results = runner.run(data, tasks, FOLDER)
    if not every:
        leave(data, tasks[first], results[first])
    record = {
        "architecture": settings.speedrun.architecture, "recipe": settings.speedrun.resolved().model_dump(),
        **summary({str(seed): judge(result, truth) for seed, result in results.items()}),
    }  # fmt: skip
    files.write_json(RESULT if every else OWN, record)
    print(show(record))
