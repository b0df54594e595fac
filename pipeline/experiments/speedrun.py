"""How soon the score that won in 2013 can be reached: a few networks, trained on all Training rows, and their mean.

The section `speedrun` of params.yaml says which model, how many networks of it, and for how long; it is to be chosen by
out-of-fold scores. Reads the faces, data/solution.csv and data/duplicates.csv. Writes to artifacts/speedrun/ the
networks of the first seed, which `predict --network speedrun` takes, their submission.csv and scores.json. With `every`
seed it writes results/speedrun.json instead: the scores of every seed with their intervals, mean and deviation over the
seeds (never the best), and the minutes. A network that is trained is kept, and not trained again here.
"""

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

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
RESULT = Path("results/speedrun.json")  # the record
OWN = FOLDER / "scores.json"
SUBMISSION = FOLDER / "submission.csv"
NETWORKS = FOLDER / "networks.json"


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


def mean_of(results: list[Result]) -> np.ndarray:
    """The mean probabilities of several networks, float32 [k, 7]."""
    mean: np.ndarray = np.mean([each.probabilities for each in results], axis=0, dtype="float32")
    return mean


def judge(results: list[Result], truth: Truth) -> dict[str, Any]:
    """The scores of one seed: those of its networks' mean.

    The minutes are those that the slowest network takes, as often as networks follow each other.

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
        float(each.seconds + each.prediction_seconds) / 60 * math.ceil(len(results) / told["jobs"])
        for each, told in zip(results, about, strict=True)
    ]
    machines = [told for number, told in enumerate(about) if told not in about[:number]]
    return entry | {"minutes": round(max(minutes), 1), "trained_with": machines}


def summary(by_seed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation (of a sample) of the scores of two seeds or more, and the mean minutes; then the entries."""
    found: dict[str, Any] = {}
    for split in board.SEED_SCORES:
        values = [entry[split] for entry in by_seed.values()]
        if len(values) > 1 and submission.UNKNOWN not in values:
            found[split] = metrics.spread(values)
    return found | {"minutes": round(mean(entry["minutes"] for entry in by_seed.values()), 1), "by_seed": by_seed}


def show(found: dict[str, Any]) -> str:
    """The scores as a table."""
    rows = board.seeds(found).replace("% to", " to", regex=True)
    rows = rows[:1] if len(rows) == 2 else rows  # of one seed there is no mean
    table = rows.to_markdown(tablefmt="simple", disable_numparse=True, stralign="right")
    return f"{table}\n\nthe contest was won with {BOARD_2013[0][1] / SPLIT_ROWS[PRIVATE]:.3%} of PrivateTest"


def leave(data: Faces, tasks: dict[int, Training], results: list[Result]) -> None:
    """Write the submission of a seed, and what one must know to use its networks."""
    submission.write(SUBMISSION, mean_of(results).argmax(axis=1))
    networks = [
        {"model": "speedrun", "architecture": task.architecture, "fold": 0, "seed": task.seed,
         "recipe": task.recipe.model_dump(), "precision": json.loads(str(result.about))["precision"],
         "weights": str(runner.weights(data, task, FOLDER))}
        for task, result in zip(tasks.values(), results, strict=True)
    ]  # fmt: skip
    files.write_json(NETWORKS, networks)
    print(f"{SUBMISSION}: see its scores: make score FILE={SUBMISSION}\n"
          f'{NETWORKS}: use them: make predict INPUT=face.png OPTIONS="--network speedrun"')  # fmt: skip


def show_record() -> None:
    """Print what results/speedrun.json holds."""
    with files.reading(RESULT, "make speedrun ALL=1"):
        print(show(json.loads(RESULT.read_bytes())))


def main(jobs: int, every: bool = False) -> None:
    """Run the command for the first seed, or for every one."""
    settings, data = config.load(), faces.load()
    if settings.speedrun is None:
        raise UserError(f"{config.PATH} has no section speedrun; pipeline/config.py says what stands there")
    truth = score.read_truth(data, np.zeros(0, "int64"))
    if (truth.labels < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows, which this needs")
    tasks = plan(settings, data)
    tasks = tasks if every else dict([next(iter(tasks.items()))])
    by_seed = {}
    for seed, each in tasks.items():
        results = [*runner.run(data, each, FOLDER, jobs).values()]
        by_seed[str(seed)] = judge(results, truth)
        if not every:
            leave(data, each, results)
    found = {
        "model": settings.speedrun.model, "networks": settings.speedrun.networks,
        "recipe": settings.speedrun_recipe().model_dump(), **summary(by_seed),
    }  # fmt: skip
    files.write_json(RESULT if every else OWN, found)
    print(show(found))
