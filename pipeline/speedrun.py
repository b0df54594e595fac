"""How soon the score that won in 2013 can be reached: a few small networks, trained on all Training rows, that vote.

Outside the graph. The section `speedrun` of params.yaml says which network, how many of it, and for how long; it is to
be chosen by out-of-fold scores, and PrivateTest only tells what came of it. Reads data/faces.npz and data/solution.csv.
Writes results/speedrun.json: PublicTest and PrivateTest for every seed, mean and deviation over the seeds (never the
best), and the minutes. JOBS=2 trains two networks at a time. What is finished stays in artifacts/speedrun/.
"""

import io
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from pipeline import command, engine, faces, files, machine, metrics, params, recipe, solution, train, trained
from pipeline.command import Refusal
from pipeline.competition import BOARD_2013, PRIVATE, PUBLIC, SPLIT_ROWS, TRAINING

FOLDER = trained.ARTIFACTS / "speedrun"
RESULT = Path("results/speedrun.json")


def plan(settings: recipe.Speedrun, own: recipe.Recipe, data: faces.Faces) -> dict[tuple[int, int], train.Cell]:
    """The cells to train, by seed and number of the network: each sees all Training rows."""
    library = machine.choose(params.backend())
    exact = own.model_copy(update={"precision": machine.products(own.precision, library, settings.network)})
    every = np.full(len(data.rows(TRAINING)), -1)
    found = {}
    for seed in settings.seeds:
        for number in range(settings.networks):
            key = train.fingerprint(data, every, own, settings.network, number, seed, params.backend())
            code = train.code_digest(settings.network)
            found[seed, number] = train.Cell(settings.network, number, seed, library, exact, key, code)
    return found


def place(cell: train.Cell) -> Path:
    """Where what a cell says of the test rows is kept."""
    return FOLDER / f"{cell.architecture}-{cell.seed}-{cell.checkpoint().name}"


def write(cell: train.Cell, contents: dict[str, bytes], jobs: int) -> None:
    """Keep what a trained cell says of the test rows, and the seconds that it took, as one of `jobs` at a time."""
    with np.load(io.BytesIO(contents["predictions"])) as said:
        test = said["test"]
    seconds = json.loads(contents["timing"])["seconds"]
    about = {"processor": machine.processor(), "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", ""), "jobs": jobs}
    files.replace(place(cell), partial(np.savez, test=test, seconds=seconds / jobs, about=json.dumps(about)))


def summary(hits: dict[int, dict[str, np.ndarray]], seconds: list[float]) -> dict[str, Any]:
    """Scores of every seed, their mean and deviation (of a sample), and the minutes.

    Parameters
    ----------
    hits : bool [k] by seed and split. seconds : of every network, divided by how many were trained at a time.
    """
    found: dict[str, Any] = {"minutes": round(sum(seconds) / len(hits) / 60, 1), "seeds": list(hits)}
    for split in ("public_accuracy", "private_accuracy"):
        found[split] = metrics.spread([float(each[split].mean()) for each in hits.values()])
    return found


def show(found: dict[str, Any]) -> str:
    """The scores as a table."""
    scores = [found[split] for split in ("public_accuracy", "private_accuracy")]
    rows = [[seed, *(f"{score['values'][n]:.2%}" for score in scores)] for n, seed in enumerate(found["seeds"])]
    rows.append(["mean", *(f"{score['mean']:.2%} ± {score['deviation']:.2%}" for score in scores)])
    table = tabulate(rows, ["seed", "PublicTest", "PrivateTest"], disable_numparse=True, stralign="right")
    won = BOARD_2013[0][1] / SPLIT_ROWS[PRIVATE]
    return f"{table}\n\n{found['minutes']} minutes a seed; the contest was won with {won:.3%}"


def main() -> None:
    """Run the command."""
    settings, own = recipe.speedrun()
    data, jobs = faces.load(), train.jobs()
    truth = solution.join(data.labels, solution.load())
    if (truth < 0).any():
        raise Refusal(f"{solution.PATH} does not know the labels of all test rows")
    rows, cells = data.rows(TRAINING), plan(settings, own, data)
    every = np.full(len(rows), -1)  # no row is in a cell's fold
    FOLDER.mkdir(parents=True, exist_ok=True)  # states stay where the project's artifacts are
    tasks = {
        key: (rows, every, cell, (FOLDER / f"states/{place(cell).name}").absolute(), jobs == 1)
        for key, cell in cells.items() if not place(cell).exists()
    }  # fmt: skip
    for key, contents in engine.results(train.train, data, tasks, "loky", jobs, None):
        write(cells[key], contents, jobs)
        tasks[key][3].unlink(missing_ok=True)
        print(f"seed {key[0]}: network {key[1] + 1} of {settings.networks} is trained", flush=True)
    test = data.test_rows()
    hits, seconds, trained_with = {}, [], set()
    for seed in settings.seeds:
        said = []
        for number in range(settings.networks):
            with np.load(place(cells[seed, number])) as kept:
                said.append(kept["test"])
                seconds.append(float(kept["seconds"]))
                trained_with.add(str(kept["about"]))
        right = metrics.right(np.mean(said, axis=0), truth[test])
        splits = {"public_accuracy": PUBLIC, "private_accuracy": PRIVATE}
        hits[seed] = {name: right[data.usage[test] == split] for name, split in splits.items()}
    found = summary(hits, seconds)
    about = {
        "network": settings.network, "networks": settings.networks, "recipe": own.model_dump(),
        "trained_with": [json.loads(each) for each in sorted(trained_with)],
    }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found | about, indent=2) + "\n")
    print(show(found))


if __name__ == "__main__":
    from pipeline import speedrun as importable  # what workers are sent must have a name that they know

    command.run(importable.main, "python -m pipeline.speedrun")
