"""Comparison of methods to combine the members of the ensemble, and what each member adds.

Reads artifacts/blends/. Writes results/joining.md, .csv and .png: Brier score and accuracy out of fold of every method,
fitted on all folds except the one it is evaluated on; of every member, and of the ensemble without it; and of the
ensemble by core-hours and number of networks. No test label is read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer
from scipy.optimize import minimize
from scipy.special import softmax
from tabulate import tabulate

from bench.ablation import gains
from pipeline import files
from pipeline.command import guarded
from pipeline.data import faces
from pipeline.evaluation import ensemble, figures, limits, metrics
from pipeline.evaluation.ensemble import Predictions

RESULT = Path("results/joining.md")
INTRODUCTION = """# Members and methods of the ensemble

All scores are out of fold, at the best temperature, which is fitted on the evaluated rows.
The methods also scale each fold by a temperature that is fitted on the other folds.
Below the methods, ensembles have equal weights."""
ROUNDS = 20  # steps of the greedy selection
Joined = Callable[[np.ndarray], np.ndarray]  # probabilities [models, n, 7] to [n, 7]


def equal(every: np.ndarray, labels: np.ndarray) -> Joined:
    """Return a mean with equal weights."""
    return lambda models: np.mean(models, axis=0)


def own_temperatures(every: np.ndarray, labels: np.ndarray) -> Joined:
    """Return a mean with equal weights and a separate temperature for each model."""
    temperatures = [metrics.fit_temperature(each, labels) for each in every]
    return lambda models: np.mean([metrics.temper(*pair) for pair in zip(models, temperatures, strict=True)], axis=0)


def least_brier(every: np.ndarray, labels: np.ndarray) -> Joined:
    """Return the weighted mean with the least Brier score, w'Cw."""
    weights = limits.least(limits.products(list(every), labels).mean(axis=0))
    return lambda models: np.tensordot(weights, models, 1)


def least_log_loss(every: np.ndarray, labels: np.ndarray) -> Joined:
    """Return the weighted mean with the least log-loss."""
    weights = ensemble.fit_weights(every, labels)
    return lambda models: np.tensordot(weights, models, 1)


def greedy(every: np.ndarray, labels: np.ndarray) -> Joined:
    """Return the greedy selection: repeatedly add the model that most increases accuracy (Caruana et al. 2004)."""
    weights = np.zeros(len(every))
    for _ in range(ROUNDS):
        total = np.tensordot(weights, every, 1)
        weights[np.argmax([metrics.right(total + each, labels).mean() for each in every])] += 1
    return lambda models: np.tensordot(weights / ROUNDS, models, 1)


def class_bias(every: np.ndarray, labels: np.ndarray) -> Joined:
    """Return a mean with equal weights, at the best temperature, with one factor per class of the least log-loss."""
    temperature = metrics.fit_temperature(every.mean(axis=0), labels)

    def even(models: np.ndarray) -> np.ndarray:
        return metrics.temper(models.mean(axis=0), temperature)

    logits = np.log(even(every))

    def loss(factors: np.ndarray) -> float:
        return metrics.cross_entropy(softmax(logits + factors, axis=1), labels)

    factors = minimize(loss, np.zeros(logits.shape[1]), method="L-BFGS-B").x
    return lambda models: softmax(np.log(even(models)) + factors, axis=1)


WAYS = {
    "equal weights": equal, "equal weights, own temperatures": own_temperatures,
    "least Brier score": least_brier, "least log-loss": least_log_loss, "greedy selection": greedy,
    "a factor for each class": class_bias,
}  # fmt: skip


def nested(way: Any, every: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Return the predictions of a method for rows that it was not fitted on: float [n, 7]."""
    joined = np.zeros(every.shape[1:])
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        known = every[:, ~held_out], labels[~held_out]
        join = way(*known)
        temperature = metrics.fit_temperature(join(known[0]), known[1])
        joined[held_out] = metrics.temper(join(every[:, held_out]), temperature)
    return joined


def growth(run: dict[str, Predictions], labels: np.ndarray) -> str:
    """Return a table of the ensemble as its members are joined one after the other; write it as RESULT.csv and .png.

    Parameters
    ----------
    run : predictions of the members, in the order of params.yaml. labels : int [n].
    """
    lines, points, members = [], [], list(run.values())
    for count, name in enumerate(run, 1):
        joined = np.mean([each.oof for each in members[:count]], axis=0)
        networks, _, hours = np.sum([each.cost for each in members[:count]], axis=0) / (1, 1, 3600)
        score = metrics.accuracy(joined, labels)
        costs = ["unknown" if np.isnan(each) else f"{each:.{digits}f}" for each, digits in ((networks, 0), (hours, 1))]
        lines.append([name, *costs, f"{score['accuracy']:.2%}",
                      f"{metrics.cross_entropy(joined, labels):.4f}"])  # fmt: skip
        points.append((f"+ {name}" if count > 1 else name, hours, *score.values()))
    table = pd.DataFrame(points, columns=["name", "value", "accuracy", "low", "high"]).assign(cost="by core-hours")
    figures.draw(table.dropna(), RESULT.with_suffix(""), template="points", title=figures.COSTS)
    titles = ["joined with the models above", "networks", "core-hours", "out of fold", "log-loss"]
    return tabulate(lines, titles, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Compare methods to combine the members, nested over the folds, and show what each member adds."""
    settings, data, assignment, labels = ensemble.inputs()
    groups = faces.picture_groups(data.pixels)[assignment.rows]
    run = {name: ensemble.load(name, data, assignment) for name in settings.ensemble.members}
    every = np.stack([each.oof for each in run.values()]).astype("float64")
    tables = {
        "Methods to combine the members": {
            name: [nested(way, every, labels, assignment.fold_of)] for name, way in WAYS.items()
        },
        "Members": {name: [each.oof] for name, each in run.items()},
        "Ensemble without a member": {"all members": [every.mean(axis=0)]}
        | {f"without {name}": [np.delete(every, at, 0).mean(axis=0)] for at, name in enumerate(run) if len(run) > 1},
    }
    shown = {title: gains(table, labels, groups, "predictions of") for title, table in tables.items()}
    shown["Growth of the ensemble"] = f"{growth(run, labels)}\n"
    text = f"{INTRODUCTION}\n\n" + "\n\n".join(f"## {title}\n\n{table}" for title, table in shown.items())
    files.write(RESULT, text.encode())
    print(text)


if __name__ == "__main__":
    typer.run(guarded(main))
