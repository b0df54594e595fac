"""How soon the score that won in 2013 can be reached: a few networks, trained on all Training rows, and their mean.

The section `speedrun` of params.yaml says which model, how many networks of it, and for how long; it is to be chosen by
out-of-fold scores. Reads the faces, data/solution.csv and data/duplicates.csv. Writes results/speedrun.json: the scores
of every seed with their intervals, mean and deviation over the seeds (never the best), and the minutes. Finished
networks stay in artifacts/speedrun/; a seed that results/speedrun.json has the scores of is not trained again.
"""

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from tabulate import tabulate

from pipeline import config, files
from pipeline.competition import BOARD_2013, PRIVATE, PUBLIC, SPLIT_ROWS
from pipeline.config import Config
from pipeline.data import faces, folds, solution
from pipeline.data.faces import Faces
from pipeline.errors import UserError
from pipeline.evaluation import board, metrics, score, submission
from pipeline.evaluation.score import Truth
from pipeline.experiments import runner
from pipeline.experiments.runner import Result, Training

FOLDER = Path("artifacts/speedrun")
RESULT = Path("results/speedrun.json")


def plan(settings: Config, data: Faces) -> dict[int, dict[int, Training]]:
    """The networks to train, by seed and number."""
    assert settings.speedrun is not None
    architecture, recipe = settings.models[settings.speedrun.model].architecture, settings.speedrun_recipe()
    rows, found = folds.kept(data, settings.duplicates), {}
    for seed in settings.speedrun.seeds:
        own = np.random.SeedSequence(seed).generate_state(settings.speedrun.networks).tolist()
        found[seed] = {
            number: Training(f"seed {seed}, network {number} of {len(own)}", architecture, recipe, one,
                             settings.backend, rows, data.labels, rows[:0], data.test_rows())
            for number, one in enumerate(own, 1)
        }  # fmt: skip
    return found


def judge(results: list[Result], truth: Truth) -> dict[str, Any]:
    """The scores of one seed: those of its networks' mean.

    The minutes are those that the slowest network takes, as often as networks follow each other.

    Parameters
    ----------
    truth : of the test rows.
    """
    probabilities = np.mean([each.probabilities for each in results], axis=0, dtype="float32")
    public, private = truth.usage == PUBLIC, truth.usage == PRIVATE
    parts = {"public": public, "private": private, "private_no_duplicate": private & (truth.identical == 0)}
    entry: dict[str, Any] = {}
    for name, rows in parts.items():
        entry |= score.accuracy(probabilities[rows], truth.labels[rows], name)
    about = [json.loads(str(each.about)) for each in results]
    minutes = [
        float(each.seconds + each.prediction_seconds) / 60 * math.ceil(len(results) / told["jobs"])
        for each, told in zip(results, about, strict=True)
    ]
    machines = [told for number, told in enumerate(about) if told not in about[:number]]
    return entry | {"minutes": round(max(minutes), 1), "trained_with": machines}


def summary(by_seed: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation (of a sample) of the scores of two seeds or more, and the mean minutes; then the entries."""
    found: dict[str, Any] = {}
    for split in board.SEED_SCORES:
        values = [entry[split] for entry in by_seed.values()]
        if len(values) > 1 and submission.UNKNOWN not in values:
            found[split] = metrics.spread(values)
    return found | {"minutes": round(mean(entry["minutes"] for entry in by_seed.values()), 1), "by_seed": by_seed}


def show(found: dict[str, Any]) -> str:
    """The scores as a table."""
    table = tabulate(board.seed_rows(found), board.SEED_HEADERS, disable_numparse=True, stralign="right")
    return f"{table}\n\nthe contest was won with {BOARD_2013[0][1] / SPLIT_ROWS[PRIVATE]:.3%} of PrivateTest"


def main(jobs: int) -> None:
    """Run the command. Every seed's scores are written as soon as its networks are trained."""
    settings, data = config.load(), faces.load()
    if settings.speedrun is None:
        raise UserError(f"{config.PATH} has no section speedrun; pipeline/config.py says what stands there")
    truth = score.read_truth(data, np.zeros(0, "int64"))
    if (truth.labels < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows, which this needs")
    tasks, before = plan(settings, data), runner.entries(RESULT, "by_seed")
    keys = {seed: runner.digest(data, each) for seed, each in tasks.items()}
    by_seed = {seed: before[str(seed)] for seed in tasks if before.get(str(seed), {}).get("key") == keys[seed]}
    about = {
        "model": settings.speedrun.model, "networks": settings.speedrun.networks,
        "recipe": settings.speedrun_recipe().model_dump(),
    }  # fmt: skip
    for seed in tasks:
        if seed not in by_seed:
            results = [*runner.run(data, tasks[seed], FOLDER, jobs).values()]
            by_seed[seed] = judge(results, truth) | {"key": keys[seed]}
        files.write_json(RESULT, about | summary({each: by_seed[each] for each in tasks if each in by_seed}))
    print(show(summary({seed: by_seed[seed] for seed in tasks})))
