"""How to spend the speedrun's minutes: on one long training, or on several short ones that vote.

Reads faces, folds, seed and the section `speedrun` of params.yaml. Each line of the table is the work of the speedrun,
to within an epoch a network: so many networks by its recipe, for so many epochs, trained on the rows outside fold FOLD
(0) and judged on those inside, one by one and as the mean of their answers. Prints it and writes results/budget.json;
with NETWORKS only the line with so many is trained. What is finished stays in artifacts/ablation/. It is fastest on
two cores with TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 JOBS=2 before it.
"""

from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from bench.ablation import STATES, Variant, judge, path, read
from pipeline import command, engine, faces, files, folds, machine, metrics, params, recipe, train
from pipeline.command import Refusal

RESULT = Path("results/budget.json")
NETWORKS = (1, 2, 4)  # lines of the table


def variants(networks: int, fold: int) -> list[Variant]:
    """The trainings of one line; the small pictures' part of the epochs is the speedrun's."""
    settings, own = recipe.speedrun()
    epochs = round(settings.networks * own.epochs / networks)
    change = {
        "epochs": epochs, "early_epochs": round(epochs * own.early_epochs / own.epochs),
        "precision": machine.products(own.precision, "tensorflow", settings.network),
    }  # fmt: skip
    exact = own.model_copy(update=change)
    return [
        Variant(f"{number + 1} of {networks}", settings.network, exact, fold, params.seed() + number)
        for number in range(networks)
    ]


def line(parts: list[dict[str, np.ndarray]], labels: np.ndarray, epochs: int) -> dict[str, Any]:
    """What results/budget.json holds of networks that were trained for `epochs` each.

    Parameters
    ----------
    parts : what `ablation.judge` wrote of each. labels : int [m], of the rows that were judged.
    """
    answers = [part["said"].astype(float) for part in parts]
    mean = np.mean(answers, axis=0)
    return {
        "epochs": epochs, "rows": len(labels),
        "alone": [round(float(metrics.right(one, labels).mean()), 6) for one in answers],
        "oof_accuracy": round(float(metrics.right(mean, labels).mean()), 6),
        "oof_log_loss": round(metrics.cross_entropy(mean, labels), 6),
        "core_minutes": round(sum(float(part["seconds"]) for part in parts) / 60, 1),
    }  # fmt: skip


def show(found: dict[str, Any]) -> str:
    """The lines as a table."""
    rows = [
        [networks, each["epochs"], ", ".join(f"{one:.2%}" for one in each["alone"]),
         f"{each['oof_accuracy']:.2%}", f"{each['oof_log_loss']:.4f}", each["core_minutes"], f"{each['rows']:,}"]
        for networks, each in found.items()
    ]  # fmt: skip
    titles = ["networks", "epochs each", "alone", "out of fold", "log-loss", "core minutes", "rows"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def main(networks: str = "", fold: str = "0") -> None:
    """Run the command; with 0 NETWORKS the table is made of what is finished."""
    if networks not in ("", "0", *map(str, NETWORKS)):
        raise Refusal(f"{networks!r}: must be one of {', '.join(map(str, NETWORKS))}, or 0")
    data = faces.load()
    rows, fold_of = folds.load(data)
    left_out = folds.number(fold)
    every = {count: variants(count, left_out) for count in NETWORKS}
    tasks = {
        (count, number): (rows, fold_of, variant)
        for count, line_of in every.items()
        for number, variant in enumerate(line_of)
        if networks in ("", str(count)) and not path(variant, data, rows, fold_of).exists()
    }
    STATES.mkdir(parents=True, exist_ok=True)
    for _ in engine.results(judge, data, tasks, "loky", train.jobs(), None):
        pass  # each has written what it found
    found = {}
    for count, line_of in every.items():
        paths = [path(variant, data, rows, fold_of) for variant in line_of]
        if all(each.exists() for each in paths):
            judged = data.labels[rows[fold_of == left_out]]
            found[str(count)] = line([read(each) for each in paths], judged, line_of[0].settings.epochs)
    if not found:
        raise Refusal("nothing is trained yet: python -m bench.budget [NETWORKS]")
    network, own = recipe.speedrun()
    about = {"network": network.network, "fold": left_out, "recipe": own.model_dump(), "processor": machine.processor()}
    files.write_json(RESULT, about | {"lines": found})
    print(show(found))


if __name__ == "__main__":
    from bench import budget as importable  # what workers are sent must have a name that they know

    command.run(importable.main, "python -m bench.budget [NETWORKS] [FOLD]")
