"""Run the sources' own protocols, to show what their figures owe to them: random splits, epochs that test rows choose.

It trains on rows that its own test rows are near to, and looks at test labels on purpose: nothing that it makes may be
used for a submission. Each network is trained twice by its source's recipe: on the source's rows, judged on the
source's, and on all of Training, judged on PrivateTest after the last epoch. Reads the faces and data/solution.csv.
Writes results/claims.json, which the report shows. A training that is finished is kept, and not run again here.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from pipeline import config, files
from pipeline.competition import TRAINING
from pipeline.config import Recipe, Section
from pipeline.data import faces, solution
from pipeline.data.faces import Faces
from pipeline.errors import UserError
from pipeline.experiments import runner
from pipeline.experiments.runner import Result, Training

RESULT = Path("results/claims.json")
FOLDER = Path("artifacts/claims")


class Claim(Section):
    """What a source says, on which rows, and how it trained.

    Parameters
    ----------
    chooses_epoch : whether the rows that it was measured on chose the epoch, too.
    protocol : "random": the part `held_out` of all rows, drawn by chance; "official": trained on Training, judged on
        both test splits; "private": the same, judged on PrivateTest; "unknown": cannot be run.
    recipe : the source's (plateau watches the training loss; no early stopping).
    """

    claimed: str
    measured_on: str
    chooses_epoch: bool = False
    protocol: str
    recipe: Recipe
    held_out: float = 0.0


CLAIMS = {
    name: Claim.model_validate(entry)
    for name, entry in YAML(typ="safe").load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")).items()
}
HONEST = "private"


def split(protocol: str, held_out: float, usage: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to judge under a Claim's `protocol`; int64 each."""
    rows = np.arange(len(usage))
    if protocol == "random":
        order = np.random.default_rng(seed).permutation(len(rows))
        count = round(held_out * len(rows))
        return np.sort(order[count:]), np.sort(order[:count])
    judged = usage == usage.max() if protocol == HONEST else usage != TRAINING
    return rows[usage == TRAINING], rows[judged]


def plan(name: str, epochs: int | None, data: Faces, labels: np.ndarray) -> dict[str, Training]:
    """The trainings of a network, by protocol: its source's, if it can be run, and the honest one.

    Parameters
    ----------
    epochs : None for the source's. labels : int [n], of all rows.
    """
    claim, settings = CLAIMS[name], config.load()
    recipe = claim.recipe.model_copy(update={"epochs": epochs or claim.recipe.epochs})
    found = {}
    for protocol in sorted({claim.protocol, HONEST} - {"unknown"}):
        rows, judged = split(protocol, claim.held_out, data.usage, settings.seed)
        found[protocol] = Training(
            f"{name}, {protocol}", name, recipe, settings.seed, settings.backend, rows, labels, judged, judged[:0]
        )
    return found


def entry(name: str, tasks: dict[str, Training], results: dict[str, Result]) -> dict[str, Any]:
    """What results/claims.json says of a network, by protocol: epochs, rows, and accuracies after epochs."""
    claim, found = CLAIMS[name], {}
    for protocol, task in tasks.items():
        accuracies = results[protocol].watched
        found[protocol] = {
            "epochs": task.recipe.epochs, "trained_rows": len(task.rows), "rows": len(task.watched),
            "best_epoch": round(accuracies.max(), 5) if claim.chooses_epoch and protocol != HONEST else None,
            "last_epoch": round(accuracies[-1], 5),
        }  # fmt: skip
    return {
        "claimed": claim.claimed, "measured_on": claim.measured_on, "epochs_there": claim.recipe.epochs,
        "theirs_here": found.get(claim.protocol), "honest": found[HONEST],
        "recipe": tasks[HONEST].recipe.model_dump(),
    }  # fmt: skip


def main(name: str, epochs: int | None) -> None:
    """Run the command. Every network's result is written as soon as it is finished."""
    if name and name not in CLAIMS:
        raise UserError(f"no source claims anything for {name!r}; there are {', '.join(CLAIMS)}")
    data, found = faces.load(), runner.record(RESULT)
    labels = solution.join(data.labels, solution.load(data))
    if (labels < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows, which this needs")
    for each in [name] if name else CLAIMS:
        tasks = plan(each, epochs, data, labels)
        found[each] = entry(each, tasks, runner.run(data, tasks, FOLDER))
        files.write_json(RESULT, {other: found[other] for other in CLAIMS if other in found})
