"""Run the sources' own protocols, to show what their figures owe to them: random splits, epochs that test rows choose.

Outside the graph: it trains on rows that its own test rows are near to, and looks at test labels on purpose, so nothing
that it makes may be used for a submission. Each network is trained twice by its source's recipe: on the source's rows,
judged on the source's, and on all of Training, judged on PrivateTest after the last epoch. Reads data/faces.npz,
data/solution.csv and, for what a recipe leaves open, the section `train` of params.yaml. Writes results/claims.json,
which the report shows. What was run already, and would be the same, is not run again; with NETWORK only that one is
run, with EPOCHS for so many instead of the source's.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import architectures, files, params, recipe
from pipeline.competition import TRAINING
from pipeline.data import faces, solution
from pipeline.errors import UserError
from pipeline.stages import train
from pipeline.training import backend, cells, machine

RESULT = Path("results/claims.json")
CHECKPOINTS = cells.ARTIFACTS / "claims"


@dataclass(frozen=True)
class Claim:
    """What a source says, on which rows, and how it trained.

    Parameters
    ----------
    chooses_epoch : whether the rows that it was measured on chose the epoch, too.
    protocol : "random": the part `held_out` of all rows, drawn by chance; "official": trained on Training, judged on
        both test splits; "private": the same, judged on PrivateTest; "unknown": cannot be run.
    recipe : the source's, as keys of params.yaml (plateau watches the training loss; no early stopping).
    """

    claimed: str
    measured_on: str
    chooses_epoch: bool
    protocol: str
    recipe: dict[str, Any]
    held_out: float = 0.0


CLAIMS = {
    "vgg8": Claim(
        "65.41 %", "random 20 % of all rows, which chose the epoch", True, "random",
        {"epochs": 100, "batch_size": 64, "schedule": "plateau", "plateau_factor": 0.9, "plateau_patience": 3,
         "rotation": 20.0, "shift": 0.1, "flip": True}, 0.2,
    ),
    "alizadeh_valid": Claim("62 %", "PrivateTest", False, "private", {"epochs": 35, "learning_rate": 0.01}),
    "alizadeh_sigmoid": Claim("65.55 %", "random 10 % of all rows", False, "random",
                              {"epochs": 124, "loss": "binary"}, 0.1),
    "alizadeh_shallow": Claim("56.31 %", "random 10 % of all rows", False, "random",
                              {"epochs": 15, "loss": "binary"}, 0.1),
    "alizadeh_same": Claim(
        "62.5 %", "validation rows of other people's split", False, "unknown",
        {"epochs": 15, "batch_size": 64, "learning_rate": 0.0005, "schedule": "plateau", "plateau_patience": 2,
         "scaling": "raw", "flip": True},
    ),
    "mini_xception": Claim(
        "66 %", "PublicTest and PrivateTest, which chose the epoch", True, "official",
        {"epochs": 110, "batch_size": 32, "schedule": "plateau", "plateau_patience": 12, "scaling": "symmetric",
         "rotation": 10.0, "shift": 0.1, "zoom": 0.1, "flip": True},
    ),
}  # fmt: skip
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


def train_by(
    protocol: str, name: str, settings: recipe.Recipe, data: faces.Faces, labels: np.ndarray, key: str
) -> dict[str, Any]:
    """Train `name` under a protocol: rows trained on and judged, and the accuracy of the best and the last epoch."""
    from pipeline.training import loop

    trained, judged = split(protocol, CLAIMS[name].held_out, data.usage, params.seed())
    steps = len(trained) // settings.batch_size
    trainer = loop.Trainer(partial(architectures.build, name), data.pixels, settings, params.seed(), steps)
    show = train.Display(f"{name}, {protocol}", settings.epochs, watched=True)
    checkpoint = CHECKPOINTS / f"{name}-{protocol}-{key}.npz"
    progress = loop.fit(
        trainer, trained, labels[trained], judged, labels[judged], params.seed(), loop.Checkpoint(checkpoint),
        show.epoch, show.batch,
    )  # fmt: skip
    accuracies = [epoch["val_accuracy"] for epoch in progress.history]
    return {
        "epochs": settings.epochs, "trained_rows": len(trained), "rows": len(judged),
        "best_epoch": round(max(accuracies), 5), "last_epoch": round(accuracies[-1], 5),
    }  # fmt: skip


def run(name: str, epochs: int | None, data: faces.Faces, labels: np.ndarray, before: dict[str, Any]) -> dict[str, Any]:
    """Train `name` by its source's recipe and protocol, and by the honest one: its entry in results/claims.json.

    Parameters
    ----------
    epochs : None for the source's. labels : int [n], of all rows.
    before : the entry of an earlier run; what it measured is kept if nothing changed.
    """
    claim = CLAIMS[name]
    library, shared = machine.choose(params.backend()), params.section("train", recipe.Recipe).model_dump()
    own = claim.recipe if epochs is None else claim.recipe | {"epochs": epochs}
    settings = params.parse(f"claims.{name}", recipe.Recipe, shared | own)
    settings = settings.model_copy(update={"precision": machine.products(settings.precision, library, name)})
    facts = [Path(__file__).read_text(), train.code_digest(name), settings.model_dump(), params.seed(), library]
    digest = hashlib.sha256(data.digest + labels.tobytes() + json.dumps(facts, sort_keys=True).encode())
    key = digest.hexdigest()[:16]
    if before.get("key") == key:
        return before
    backend.start(library, cache_folder=train.CHECKPOINTS.absolute() / "compiled")
    protocols = sorted({claim.protocol, HONEST} - {"unknown"})
    found = {protocol: train_by(protocol, name, settings, data, labels, key) for protocol in protocols}
    for path in CHECKPOINTS.glob(f"{name}-*.npz"):  # both protocols are through
        path.unlink()
    theirs = found.get(claim.protocol)
    if theirs and not claim.chooses_epoch:
        theirs = theirs | {"best_epoch": None}
    return {
        "claimed": claim.claimed, "measured_on": claim.measured_on, "epochs_there": claim.recipe["epochs"],
        "theirs_here": theirs, "honest": found[HONEST] | {"best_epoch": None}, "recipe": settings.model_dump(),
        "key": key,
    }  # fmt: skip


def read() -> dict[str, Any]:
    """What earlier runs wrote to results/claims.json, {} where it is missing. Raises UserError where it is no JSON."""
    try:
        found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    except ValueError as trouble:
        raise UserError(f"{RESULT} cannot be read ({trouble}); delete it, or bring it back from git") from None
    return found


def save(found: dict[str, Any]) -> None:
    """Write results/claims.json in one step, the networks in the order of CLAIMS."""
    ordered = {name: found[name] for name in CLAIMS if name in found}
    files.write_json(RESULT, ordered)


def main(name: str = "", epochs: str = "") -> None:
    """Run the command. Every network's result is written as soon as it is finished."""
    if name and name not in CLAIMS:
        raise UserError(f"no source claims anything for {name!r}; there are {', '.join(CLAIMS)}")
    if epochs and not (epochs.isdecimal() and int(epochs)):
        raise UserError(f"EPOCHS={epochs}: must be a whole number from 1 up")
    data = faces.load()
    labels = solution.join(data.labels, solution.load())
    if (labels < 0).any():
        raise UserError(f"{solution.PATH} does not know the labels of all test rows; the sources' protocols need them")
    found = read()
    for each in CLAIMS:
        if name in ("", each):
            found[each] = run(each, int(epochs) if epochs else None, data, labels, found.get(each, {}))
            save(found)
