"""How soon the score that won in 2013 can be reached: a network or a few, trained on all Training rows, that vote.

Outside the graph. The section `speedrun` of params.yaml says which network, how many of it, and for how long; it is to
be chosen by out-of-fold scores. Reads data/faces.npz, data/solution.csv and data/duplicates.csv. Writes
results/speedrun.json: the scores of every seed with their intervals, mean and deviation over the seeds (never the
best), and the minutes. JOBS=2 trains two networks of a seed at a time. What is finished stays in artifacts/speedrun/; a
seed that results/speedrun.json has the scores of, from the same data, recipe and code, is not trained again.
"""

import hashlib
import io
import json
import math
import os
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from tabulate import tabulate

from pipeline import files, params, recipe
from pipeline.competition import BOARD_2013, PRIVATE, PUBLIC, SPLIT_ROWS
from pipeline.data import faces, folds, solution
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, metrics, score, submission
from pipeline.stages import train
from pipeline.training import cells, executors, machine

FOLDER = cells.ARTIFACTS / "speedrun"
RESULT = Path("results/speedrun.json")


def plan(
    settings: recipe.Speedrun, own: recipe.Recipe, data: faces.Faces, rows: np.ndarray
) -> dict[int, list[train.Cell]]:
    """The cells to train, by seed: each sees all `rows`, int [m]."""
    library = machine.choose(params.backend())
    exact = own.model_copy(update={"precision": machine.products(own.precision, library, settings.network)})
    every, code = np.full(len(rows), -1), train.code_digest(settings.network)
    found: dict[int, list[train.Cell]] = {seed: [] for seed in settings.seeds}
    for seed, cells in found.items():
        for number in range(settings.networks):
            key = train.fingerprint(data, every, own, settings.network, number, seed, params.backend())
            cells.append(train.Cell(settings.network, number, seed, library, exact, key, code))
    return found


def place(cell: train.Cell) -> Path:
    """Where what a cell says of the test rows is kept."""
    return FOLDER / f"{cell.architecture}-{cell.seed}-{cell.checkpoint().name}"


def write(cell: train.Cell, contents: dict[str, bytes], jobs: int) -> None:
    """Keep what a trained cell says of the test rows, and the seconds that it took beside `jobs` - 1 others."""
    with np.load(io.BytesIO(contents["predictions"])) as said:
        test = said["test"]
    about = {"processor": machine.processor(), "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", ""), "jobs": jobs}
    seconds = json.loads(contents["timing"])["seconds"]
    files.replace(place(cell), partial(np.savez, test=test, seconds=seconds, about=json.dumps(about)))


def digest(cells: list[train.Cell]) -> str:
    """16 hexadecimal digits of all that a seed's score depends on."""
    return hashlib.sha256("".join(place(cell).name for cell in cells).encode()).hexdigest()[:16]


def run(
    cells: list[train.Cell], data: faces.Faces, rows: np.ndarray, truth: np.ndarray, duplicates: np.ndarray, jobs: int
) -> dict[str, Any]:
    """Train the networks of one seed, `jobs` at a time, and score the mean of their answers: the seed's entry.

    Parameters
    ----------
    rows : that train, int [m]. truth : int [n], labels of all rows.
    duplicates : bool [n], which rows show a picture that stands in Training as well.

    The minutes are those that the slowest network takes, as often as networks follow each other.
    """
    every = np.full(len(rows), -1)  # no row is in a cell's fold
    tasks = {
        number: (rows, every, cell, (FOLDER / f"states/{place(cell).name}").absolute(), jobs == 1)
        for number, cell in enumerate(cells) if not place(cell).exists()
    }  # fmt: skip
    for number, contents in executors.results(train.train, data, tasks, "loky", jobs, None):
        write(cells[number], contents, jobs)
        tasks[number][3].unlink(missing_ok=True)
        print(f"seed {cells[number].seed}: network {number + 1} of {len(cells)} is trained", flush=True)
    said, minutes, trained_with = [], [], []
    for cell in cells:
        with np.load(place(cell)) as kept:
            said.append(kept["test"])
            about = json.loads(str(kept["about"]))
            minutes.append(float(kept["seconds"]) / 60 * math.ceil(len(cells) / about["jobs"]))
            trained_with += [about] if about not in trained_with else []
    test, mean_said = data.test_rows(), np.mean(said, axis=0)
    public, private = data.usage[test] == PUBLIC, data.usage[test] == PRIVATE
    judged = {"public": public, "private": private, "private_no_duplicate": private & ~duplicates[test]}
    entry: dict[str, Any] = {}
    for name, chosen in judged.items():
        entry |= score.accuracy(mean_said[chosen], truth[test][chosen], name)
    return entry | {"minutes": round(max(minutes), 1), "trained_with": trained_with, "key": digest(cells)}


def read() -> dict[str, Any]:
    """The seeds' entries of results/speedrun.json, {} where it is missing. Raises UserError where it is none of ours."""
    try:
        found: dict[str, Any] = json.loads(RESULT.read_text())["by_seed"] if RESULT.exists() else {}
    except (ValueError, KeyError, TypeError) as trouble:
        raise UserError(f"{RESULT} cannot be read ({trouble}); delete it, or bring it back from git") from None
    return found


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


def main() -> None:
    """Run the command. Every seed's scores are written as soon as its networks are trained."""
    settings, own = recipe.speedrun()
    data, jobs = faces.load(), train.jobs()
    truth = solution.join(data.labels, solution.load())
    if (truth < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows")
    rows, duplicates = (
        folds.kept(data, folds.duplicates()),
        (audit.load_duplicates(len(truth))["identical"] > 0).to_numpy(),
    )
    cells, before = plan(settings, own, data, rows), read()
    by_seed = {seed: before[str(seed)] for seed in cells if before.get(str(seed), {}).get("key") == digest(cells[seed])}
    about = {"network": settings.network, "networks": settings.networks, "recipe": own.model_dump()}
    FOLDER.mkdir(parents=True, exist_ok=True)  # states stay where the project's artifacts are
    for seed in cells:
        if seed not in by_seed:
            by_seed[seed] = run(cells[seed], data, rows, truth, duplicates, jobs)
        files.write_json(RESULT, about | summary({each: by_seed[each] for each in cells if each in by_seed}))
    print(show(summary({seed: by_seed[seed] for seed in cells})))
