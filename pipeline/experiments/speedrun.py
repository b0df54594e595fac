"""Speedrun: the shortest training that reaches the winning score of 2013, on all Training rows without folds.

The section `speedrun` of params.yaml sets the architecture, the recipe, and the number of networks, whose mean is
evaluated. It should be chosen by out-of-fold scores. Reads the faces, data/solution.csv and data/duplicates.csv. By
default, trains with the first seed and writes its networks (for `predict --network speedrun`), submission.csv and
scores.json to artifacts/speedrun/. With `every` seed, writes results/speedrun.json instead: the scores of every seed
with their intervals, mean and deviation over the seeds (never the best), and the minutes. Finished networks are not
trained again.
"""

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from pipeline import config, files
from pipeline.competition import BOARD_2013, PRIVATE, PUBLIC, SPLIT_ROWS
from pipeline.data import faces, folds
from pipeline.errors import UserError
from pipeline.evaluation import board, metrics, score, submission
from pipeline.experiments import runner
from pipeline.experiments.runner import Result, Training

FOLDER = Path("artifacts/speedrun")
RESULT = Path("results/speedrun.json")  # the record
OWN = FOLDER / "scores.json"
SUBMISSION = FOLDER / "submission.csv"
NETWORKS = FOLDER / "networks.json"


def plan(settings: config.Config, data: faces.Faces) -> dict[int, dict[int, Training]]:
    """Return the networks to train, by seed and number."""
    assert settings.speedrun is not None
    architecture, recipe = settings.speedrun.architecture, settings.speedrun.resolved()
    rows, tasks = folds.kept(data, settings.duplicates), {}
    for seed in settings.speedrun.seeds:
        seeds = np.random.SeedSequence(seed).generate_state(settings.speedrun.networks).tolist()
        tasks[seed] = {
            number: Training(f"seed {seed}, network {number} of {len(seeds)}", architecture, recipe, network_seed,
                             settings.backend, rows, data.labels, rows[:0], data.test_rows())
            for number, network_seed in enumerate(seeds, 1)
        }  # fmt: skip
    return tasks


def mean_of(results: list[Result]) -> np.ndarray:
    """Return the mean probabilities of several networks, float32 [k, 7]."""
    return np.asarray(np.mean([each.probabilities for each in results], axis=0, dtype="float32"))


def judge(results: list[Result], truth: score.Truth) -> dict[str, Any]:
    """Return the scores of one seed: those of the mean of its networks.

    The minutes are those of the slowest network, times the number of networks trained one after another.

    Parameters
    ----------
    truth : of the test rows.
    """
    probabilities = mean_of(results)
    public, private = truth.usage == PUBLIC, truth.usage == PRIVATE
    parts = {"public": public, "private": private, "private_no_duplicate": private & (truth.identical == 0)}
    entry: dict[str, Any] = {}
    for name, rows in parts.items():
        entry |= score.accuracy(probabilities[rows], truth.labels[rows], name)
    about = [json.loads(str(each.about)) for each in results]
    minutes = [
        float(each.seconds + each.prediction_seconds) / 60 * math.ceil(len(results) / machine["jobs"])
        for each, machine in zip(results, about, strict=True)
    ]
    machines = [machine for number, machine in enumerate(about) if machine not in about[:number]]
    return entry | {"minutes": round(max(minutes), 1), "trained_with": machines}


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
    return f"{table}\n\nthe competition was won with {BOARD_2013[0][1] / SPLIT_ROWS[PRIVATE]:.3%} of PrivateTest"


def leave(data: faces.Faces, tasks: dict[int, Training], results: list[Result]) -> None:
    """Write the submission of a seed, and the description of its networks for `predict`."""
    submission.write(SUBMISSION, mean_of(results).argmax(axis=1))
    networks = [
        {"model": "speedrun", "architecture": task.architecture, "seed": task.seed,
         "recipe": task.recipe.model_dump(), "precision": json.loads(str(result.about))["precision"],
         "weights": str(runner.weights(data, task, FOLDER))}
        for task, result in zip(tasks.values(), results, strict=True)
    ]  # fmt: skip
    files.write_json(NETWORKS, networks)
    print(f"{SUBMISSION}: to score it: make score FILE={SUBMISSION}\n"
          f'{NETWORKS}: to use the networks: make predict INPUT=face.png OPTIONS="--network speedrun"')  # fmt: skip


def show_record() -> None:
    """Print results/speedrun.json."""
    with files.reading(RESULT, "make speedrun ALL=1"):
        print(show(json.loads(RESULT.read_bytes())))


def main(jobs: int, every: bool = False) -> None:
    """Run the command for the first seed, or for every seed."""
    settings, data = config.load(), faces.load()
    if settings.speedrun is None:
        raise UserError(f"{config.PATH} has no section speedrun; class Speedrun in pipeline/config.py documents it")
    truth = score.read_truth(data).of(data.test_rows())
    tasks = plan(settings, data)
    tasks = tasks if every else dict([next(iter(tasks.items()))])
    by_seed = {}
    for seed, each in tasks.items():
        results = [*runner.run(data, each, FOLDER, jobs).values()]
        by_seed[str(seed)] = judge(results, truth)
        if not every:
            leave(data, each, results)
    record = {
        "architecture": settings.speedrun.architecture, "networks": settings.speedrun.networks,
        "recipe": settings.speedrun.resolved().model_dump(), **summary(by_seed),
    }  # fmt: skip
    files.write_json(RESULT if every else OWN, record)
    print(show(record))
