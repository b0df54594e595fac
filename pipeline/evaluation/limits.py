"""Estimates of the score of an ensemble of infinitely many networks, from one or two trainings of each recipe.

Reads the cells of models, prints tables, and writes nothing. No test label is read.

The errors of a network are its probabilities minus the one-hot labels. For trainings a and b, C(a, b) is the mean over
rows of the product of their errors, summed over classes. The Brier score of a weighted mean is w'Cw. Two trainings of
one recipe that share no randomness have only the errors of the recipe's mean network in common. So the mean of C over
pairs of different trainings is the Brier score of infinitely many networks (B-infinity). It equals twice the Brier
score of a pair's mean, minus the mean Brier score of its members. Accuracy-infinity is the same extrapolation of
accuracy. It is approximate, and the cells of a run cannot provide it, as one network of a model predicts each
out-of-fold row.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from tabulate import tabulate

from pipeline import config
from pipeline.cells import store
from pipeline.competition import CLASSES
from pipeline.data import faces
from pipeline.evaluation import ensemble, metrics

REPLICATES = 1000  # of the bootstrap
BUDGETS = (1.0, 2.0, 5.0, 10.0)  # core-hours per fold


@dataclass(frozen=True)
class Limits:
    """Estimated limits of R recipes.

    Parameters
    ----------
    names : of the R recipes.
    single : float [R], mean Brier score of one network.
    common : float [R, R], C: B-infinity of each recipe on the diagonal, cross-covariances off the diagonal.
    spread : float [K, R, R], `common` of K bootstrap replicates.
    accuracy : float [R, 2], of one network and of infinitely many; None where one network predicts each row.
    accuracy_spread : float [K, R, 2], `accuracy` of K bootstrap replicates.
    """

    names: list[str]
    single: np.ndarray
    common: np.ndarray
    spread: np.ndarray
    accuracy: np.ndarray | None = None
    accuracy_spread: np.ndarray | None = None


def interval_95(replicates: np.ndarray) -> np.ndarray:
    """Return the 2.5 % and 97.5 % quantiles of bootstrap replicates over the first axis: float [2, ...]."""
    return np.asarray(np.quantile(replicates, [0.025, 0.975], axis=0))


def products(trainings: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Return the product of the errors of every two trainings in every row, summed over classes: float32 [n, t, t].

    Parameters
    ----------
    trainings : probabilities, float [n, 7] each. labels : int [n].
    """
    errors = np.stack(trainings, axis=1).astype("float32") - np.eye(len(CLASSES), dtype="float32")[labels][:, None]
    return np.asarray(np.einsum("nac,nbc->nab", errors, errors))


def measure(recipes: dict[str, list[np.ndarray]], labels: np.ndarray, groups: np.ndarray) -> Limits:
    """Estimate the limits of recipes with two or more trainings each.

    Parameters
    ----------
    recipes : by name, the probabilities of the same rows by each training, float [n, 7], at a common temperature.
    labels : int [n]. groups : int [n], groups of identical pictures; the bootstrap draws whole groups.
    """
    owner = np.repeat(np.arange(len(recipes)), [len(each) for each in recipes.values()])
    rows = products([training for each in recipes.values() for training in each], labels)
    own = np.eye(len(recipes), dtype=bool)[owner]
    mask = np.einsum("ar,bs->rsab", own, own) & ~np.eye(len(owner), dtype=bool)  # no training with itself
    parts = np.einsum("nab,rsab->nrs", rows, mask.astype("float32")) / mask.sum(axis=(2, 3))
    single = np.array([np.diagonal(rows, axis1=1, axis2=2)[:, owner == r].mean() for r in range(len(recipes))])
    hits = np.stack([accuracies(each, labels) for each in recipes.values()], axis=1)
    spreads = bootstrap(parts, groups), bootstrap(hits, groups)
    return Limits(list(recipes), single, parts.mean(axis=0), spreads[0], hits.mean(axis=0), spreads[1])


def accuracies(trainings: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Return each row's contribution to the accuracy of one network and of infinitely many: float [n, 2]."""
    single = np.mean([metrics.right(each, labels) for each in trainings], axis=0)
    pairs = np.mean([metrics.right(a + b, labels) for a, b in itertools.combinations(trainings, 2)], axis=0)
    return np.stack([single, 2 * pairs - single], axis=1)


def bootstrap(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the means of bootstrap replicates, which draw whole groups: float [REPLICATES, ...] from [n, ...]."""
    by_group = pd.DataFrame(rows.reshape(len(rows), -1)).astype("float64").groupby(groups)
    sums, sizes = by_group.sum().to_numpy(), by_group.size().to_numpy()
    count = len(sizes)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), REPLICATES).astype("float32")
    return np.asarray((drawn @ sums) / (drawn @ sizes)[:, None]).reshape(REPLICATES, *rows.shape[1:])


def tempered(trainings: list[np.ndarray], labels: np.ndarray) -> list[np.ndarray]:
    """Return the trainings of one recipe at their common temperature, fitted on all of them."""
    temperature = metrics.fit_temperature(np.concatenate(trainings), np.tile(labels, len(trainings)))
    return [metrics.temper(each, temperature) for each in trainings]


def limits_of_run(names: list[str]) -> tuple[Limits, np.ndarray]:
    """Return the limits of models of the run, each at its own temperature, and the core-hours of one network of each.

    One network of a model predicts each out-of-fold row. So B-infinity is its Brier score minus the variance between
    its networks. Two models on the same folds share their training rows and maybe seeds; so from their products, the
    covariance of their networks over the folds is subtracted. Neither needs labels. They are measured on the test rows
    without a duplicate in Training, which the networks of all folds have predicted.
    """
    settings, data, assignment, labels = ensemble.inputs()
    groups = faces.picture_groups(data.pixels)
    unseen = ~np.isin(groups[data.test_rows()], groups[assignment.rows])
    oof, deviations, hours = [], [], []
    for name in names:
        cells = store.load_all(settings, name, data)
        predicted = ensemble.averaged(cells).oof
        temperature = metrics.fit_temperature(predicted, labels)
        oof.append(metrics.temper(predicted, temperature))
        tests = np.stack([metrics.temper(cell.test[unseen], temperature) for cell in cells])
        deviations.append(tests - tests.mean(axis=0))
        hours.append(np.mean([cell.about.seconds for cell in cells]) / 3600)
    shared = np.array([[covariance(first, second) for second in deviations] for first in deviations])
    rows = products(oof, labels) - shared.astype("float32")
    single = np.diagonal(rows.mean(axis=0)) + np.diagonal(shared)
    return Limits(names, single, rows.mean(axis=0), bootstrap(rows, groups[assignment.rows])), np.array(hours)


def covariance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the covariance over the folds of two models' probabilities, summed over classes, as a mean over rows.

    Parameters
    ----------
    first, second : deviations from the mean over the folds, float [folds, k, 7]; for other folds, the result is 0.
    """
    count = len(first)
    return float((first * second).sum(axis=(0, 2)).mean() / (count - 1)) if len(second) == count else 0.0


def least(matrix: np.ndarray) -> np.ndarray:
    """Return the weights w, float [R], non-negative and with sum 1, that minimise w'Mw for a matrix M."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(values.clip(0))[:, None] * vectors.T
    weights, _ = nnls(np.vstack([root, np.ones(len(matrix))]), np.append(np.zeros(len(matrix)), 1.0))
    return np.asarray(weights / weights.sum())


def best(limits: Limits, hours: np.ndarray, budget: float | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the weights with the least expected Brier score under a budget, the networks of each recipe, the score.

    Without a budget, the numbers of networks are NaN.

    Averaging n networks of a recipe with variance V and weight w leaves w^2 V / n. For given weights, the best n under
    a budget H and costs c leave (sum of w sqrt(V c))^2 / H in total (Cauchy-Schwarz inequality). So the score is
    quadratic in w, and non-negative least squares finds its minimum.

    Parameters
    ----------
    hours : float [R], core-hours of one network of each recipe. budget : core-hours; None for no limit.
    """
    deviation = np.sqrt((limits.single - np.diag(limits.common)).clip(0))
    effort = deviation * np.sqrt(hours)
    matrix = limits.common + (np.outer(effort, effort) / budget if budget else 0)
    weights = least(matrix)
    share = weights * deviation / np.sqrt(hours)
    networks = (budget or np.nan) * share / max(share @ hours, metrics.TINY)
    return weights, networks, float(weights @ matrix @ weights)


def table(limits: Limits, hours: np.ndarray) -> str:
    """Return a table of recipes: core-hours, one and infinitely many networks, the latter minus the least; then C."""
    lines, heads = [], ["recipe", "core-h", "Brier", "B-infinity", "95 %", "minus least", "95 %"]
    limit, spread = np.diag(limits.common), np.diagonal(limits.spread, axis1=1, axis2=2)
    for number, name in enumerate(limits.names):
        low, high = interval_95(spread[:, number])
        difference = interval_95(spread[:, number] - spread[:, limit.argmin()])
        lines.append([name, f"{hours[number]:.2f}", f"{limits.single[number]:.4f}",
                      f"{limit[number]:.4f}", f"{low:.4f} to {high:.4f}", f"{limit[number] - limit.min():+.4f}",
                      "{:+.4f} to {:+.4f}".format(*difference) if limit[number] > limit.min() else ""])  # fmt: skip
    if limits.accuracy is not None and limits.accuracy_spread is not None:
        heads += ["accuracy", "A-infinity", "95 %"]
        for line, (single, many), spread in zip(lines, limits.accuracy, limits.accuracy_spread[:, :, 1].T, strict=True):
            low, high = interval_95(spread)
            line += [f"{single:.2%}", f"{many:.2%}", f"{low:.2%} to {high:.2%}"]
    cross = [[f"{number} {name}", *(f"{value:.4f}" for value in common)]
             for number, (name, common) in enumerate(zip(limits.names, limits.common, strict=True), 1)]  # fmt: skip
    numbered = ["in common", *map(str, range(1, len(cross) + 1))]
    tables = (tabulate(*each, tablefmt="github", disable_numparse=True) for each in ((lines, heads), (cross, numbered)))
    return "\n\n".join(tables)


def main(names: list[str] | None, hours: list[float] | None) -> None:
    """Print the limits of models (default: all) and the best weights for budgets of core-hours per fold."""
    limits, costs = limits_of_run(names or config.load().names)
    print(f"Expected Brier scores of one network, and of the mean of infinitely many (B-infinity).\n"
          f"In common: mean product of two recipes' errors (docs/ablation.md).\n\n{table(limits, costs)}")  # fmt: skip
    columns = {"core-hours per fold": ["Brier", "width of 95 %", *limits.names]}
    for budget in [*(hours or BUDGETS), None]:
        weights, networks, score = best(limits, costs, budget)
        low, high = interval_95(np.einsum("r,krs,s->k", weights, limits.spread, weights))  # of w'Cw
        cells = [f"{w:.2f} x {n:.1f}" if budget else f"{w:.2f}" for w, n in zip(weights, networks, strict=True)]
        columns[f"{budget:g}" if budget else "no limit"] = [f"{score:.4f}", f"{high - low:.4f}", *cells]
    print(f"\nBest weights x numbers of networks (on average)\n\n{tabulate(columns, 'keys', disable_numparse=True)}")
