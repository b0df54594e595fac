"""Run the sources' own protocols, to show what their figures owe to them: random splits, epochs that test rows choose.

Outside the graph: it trains on rows that its own test rows are near to, and looks at test labels on purpose, so nothing
that it makes may be used for a submission. Reads data/faces.npz, data/solution.csv and params.yaml. Writes
results/claims.json, which the report shows. What was run already, and would be the same, is not run again; with NETWORK
only that one is run.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import architectures, backend, command, faces, files, machine, params, recipe, solution, train
from pipeline.command import Refusal
from pipeline.competition import TRAINING

RESULT = Path("results/claims.json")
CHECKPOINTS = train.ARTIFACTS / "claims"


@dataclass(frozen=True)
class Claim:
    """What a source says, and on which rows.

    Parameters
    ----------
    chooses_epoch : whether the rows that it was measured on chose the epoch, too.
    protocol : "random": the part `held_out` of all rows, drawn by chance; "official": trained on Training, judged on
        both test splits; "private": the same, judged on PrivateTest; "unknown": cannot be run.
    """

    claimed: str
    measured_on: str
    epochs: int
    chooses_epoch: bool
    protocol: str
    held_out: float = 0.0


CLAIMS = {
    "vgg8": Claim("65.41 %", "random 20 % of all rows, which chose the epoch", 100, True, "random", 0.2),
    "alizadeh_valid": Claim("62 %", "PrivateTest", 35, False, "private"),
    "alizadeh_sigmoid": Claim("65.55 %", "random 10 % of all rows", 124, False, "random", 0.1),
    "alizadeh_shallow": Claim("56.31 %", "random 10 % of all rows", 15, False, "random", 0.1),
    "alizadeh_same": Claim("62.5 %", "validation rows of other people's split", 15, False, "unknown"),
    "mini_xception": Claim("66 %", "PublicTest and PrivateTest, which chose the epoch", 110, True, "official"),
}


def split(claim: Claim, usage: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to judge, as the source has them; int64 each."""
    rows = np.arange(len(usage))
    if claim.protocol == "random":
        order = np.random.default_rng(seed).permutation(len(rows))
        count = round(claim.held_out * len(rows))
        return np.sort(order[count:]), np.sort(order[:count])
    judged = usage == usage.max() if claim.protocol == "private" else usage != TRAINING
    return rows[usage == TRAINING], rows[judged]


def run(name: str, claim: Claim, data: faces.Faces, labels: np.ndarray, before: dict[str, Any]) -> dict[str, Any]:
    """Train `name` by its source's protocol with the recipe of params.yaml: its entry in results/claims.json.

    Parameters
    ----------
    labels : int [n], of all rows. before : the entry of an earlier run; what it measured is kept if nothing changed.
    """
    entry: dict[str, Any] = {
        "claimed": claim.claimed, "measured_on": claim.measured_on, "epochs_there": str(claim.epochs),
    }  # fmt: skip
    if claim.protocol == "unknown" or name not in recipe.names():
        return before or entry  # hours of an earlier run are not thrown away with a line of params.yaml
    library, seed = machine.choose(params.backend()), params.seed()
    settings = recipe.read(name)
    settings = settings.model_copy(update={"precision": machine.products(settings.precision, library)})
    facts = [Path(__file__).read_text(), train.code_digest(name), settings.model_dump(), seed, library]
    digest = hashlib.sha256(data.digest + labels.tobytes() + json.dumps(facts, sort_keys=True).encode())
    key = digest.hexdigest()[:16]
    if before.get("key") == key:
        return before
    backend.start(library, cache_folder=train.CHECKPOINTS.absolute() / "compiled")
    from pipeline import fit

    trained, judged = split(claim, data.usage, seed)
    trainer = fit.Trainer(
        partial(architectures.build, name),
        data.pixels,
        settings,
        seed,
        len(trained) // settings.batch_size,
    )
    show = train.Display(f"{name} by its source's protocol", settings.epochs, watched=True)
    checkpoint = CHECKPOINTS / f"{name}-{key}.npz"
    progress = fit.fit(
        trainer, trained, labels[trained], judged, labels[judged], seed, fit.Checkpoint(checkpoint), show.epoch,
        show.batch,
    )  # fmt: skip
    checkpoint.unlink(missing_ok=True)
    accuracies = [epoch["val_accuracy"] for epoch in progress.history]
    measured = {
        "epochs": settings.epochs, "trained_rows": len(trained), "rows": len(judged),
        "best_epoch": round(max(accuracies), 5) if claim.chooses_epoch else None,
        "last_epoch": round(accuracies[-1], 5),
    }  # fmt: skip
    return entry | {"theirs_here": measured, "recipe": recipe.read(name).model_dump(), "key": key}


def read() -> dict[str, Any]:
    """What earlier runs wrote to results/claims.json, {} where it is missing. Raises Refusal where it is no JSON."""
    try:
        found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    except ValueError as trouble:
        raise Refusal(f"{RESULT} cannot be read ({trouble}); delete it, or bring it back from git") from None
    return found


def save(found: dict[str, Any]) -> None:
    """Write results/claims.json in one step, the networks in the order of CLAIMS."""
    ordered = {name: found[name] for name in CLAIMS if name in found}
    text = json.dumps(ordered, indent=2) + "\n"
    files.replace(RESULT, lambda file: file.write(text.encode()))


def main(name: str | None = None) -> None:
    """Run the command. Every network's result is written as soon as it is finished."""
    if name is not None and name not in CLAIMS:
        raise Refusal(f"no source claims anything for {name!r}; there are {', '.join(CLAIMS)}")
    data = faces.load()
    labels = solution.join(data.labels, solution.load())
    if (labels < 0).any():
        raise Refusal(f"{solution.PATH} does not know the labels of all test rows; the sources' protocols need them")
    found = read()
    for each, claim in CLAIMS.items():
        if name in (None, each):
            found[each] = run(each, claim, data, labels, found.get(each, {}))
            save(found)


if __name__ == "__main__":
    command.run(main, "python -m pipeline.claims [NETWORK]")
