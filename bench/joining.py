"""Comparison of methods to combine the models of the run, each fitted on all folds except the one it is evaluated on.

Reads artifacts/blends/. Writes results/joining.md: accuracy and log-loss out of fold, and the difference in accuracy
from equal weights, in percentage points. Every result is scaled by the temperature with the least log-loss. No test
label is read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import typer
from scipy.optimize import minimize
from scipy.special import softmax
from tabulate import tabulate

from pipeline import config, files
from pipeline.command import guarded
from pipeline.data import faces, folds
from pipeline.evaluation import ensemble, limits, metrics

RESULT = Path("results/joining.md")
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

    def loss(scores: np.ndarray) -> float:
        return metrics.cross_entropy(np.tensordot(softmax(scores), every, 1), labels)

    weights = softmax(minimize(loss, np.zeros(len(every)), method="Nelder-Mead").x)
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


def main() -> None:
    """Compare methods to combine the models, nested over the folds."""
    settings, data = config.load(), faces.load()
    assignment = folds.load(data)
    labels, groups = data.labels[assignment.rows].astype(int), faces.picture_groups(data.pixels)[assignment.rows]
    oof = [ensemble.load(name, data, assignment).oof for name in settings.ensemble.members]
    every = np.stack(oof).astype("float64")
    lines, base = [], None
    for name, way in WAYS.items():
        joined = nested(way, every, labels, assignment.fold_of)
        hits = metrics.right(joined, labels)
        base = hits if base is None else base
        low, high = limits.interval_95(limits.bootstrap(hits[:, None] * 1.0 - base[:, None], groups, 0)[:, 0])
        points = f"{100 * (hits.mean() - base.mean()):+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
        lines.append([name, f"{hits.mean():.2%}", f"{metrics.cross_entropy(joined, labels):.4f}", points])
    table = tabulate(lines, ["method", "out of fold", "log-loss", "points"], tablefmt="github", disable_numparse=True)
    members = ", ".join(settings.ensemble.members)
    files.write(RESULT, f"# Methods to combine {members}\n\n{table}\n".encode())
    print(table)


if __name__ == "__main__":
    typer.run(guarded(main))
