"""Metrics of probabilities against labels: accuracy with its interval, calibration, and tests of differences.

In all functions, `probabilities` is float [n, 7] with rows that sum to 1, and `labels` is int [n] from 0 to 6.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.metrics import f1_score, log_loss, precision_recall_fscore_support, top_k_accuracy_score

from pipeline.competition import CLASSES

EVERY = np.arange(len(CLASSES))
BINS = 15  # of confidence, as in Guo et al. 2017
TINY = 1e-12


def right(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return whether the most likely class is the label: bool [n]."""
    return np.asarray(probabilities.argmax(axis=1) == labels)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return `accuracy` and the ends `low` and `high` of its 95 % interval by Wilson's score method (1927; scipy)."""
    return share(right(probabilities, labels))


def share(hits: np.ndarray) -> dict[str, float]:
    """Return the result of `accuracy` for hits, bool [n]."""
    count = int(hits.sum())
    interval = binomtest(count, len(hits)).proportion_ci(confidence_level=0.95, method="wilson")
    return {"accuracy": count / len(hits), "low": float(interval.low), "high": float(interval.high)}


def spread(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return `mean` and sample standard deviation (`deviation`) of the scores of several runs, and the `values`."""
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    return {"mean": round(mean, 7), "deviation": round(deviation, 7), "values": np.round(values, 7).tolist()}


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return the p-value of McNemar's exact test (1947) of two classifiers, rounded to three significant digits.

    Under the null hypothesis, each is right in half of the rows that only one of them has right.

    Parameters
    ----------
    first, second : bool [n], whether each classifier is right about the same rows.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    different = only_first + only_second
    return float(f"{binomtest(only_first, different).pvalue:.3g}") if different else 1.0


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the Brier score: mean squared error, summed over the classes, from 0 to 2 (Brier 1950)."""
    return float(((probabilities - np.eye(len(CLASSES))[labels]) ** 2).sum(axis=1).mean())


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """Return rows, mean confidence and accuracy in each of BINS equal bins of the confidence in the predicted class."""
    confidence, hits = probabilities.max(axis=1), right(probabilities, labels)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, values, minlength=BINS) / rows.clip(1) for values in (confidence, hits)]
    return {"rows": rows.tolist(), "confidence": sums[0].round(6).tolist(), "accuracy": sums[1].round(6).tolist()}


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error: mean of |accuracy - confidence| (Guo et al. 2017, arXiv 1706.04599)."""
    bins = {key: np.array(values) for key, values in reliability(probabilities, labels).items()}
    return float((bins["rows"] * np.abs(bins["confidence"] - bins["accuracy"])).sum() / len(labels))


def temper(probabilities: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Return softer (temperature above 1) or sharper probabilities, as from logits / temperature: float64 [..., 7]."""
    return np.asarray(softmax(np.log(probabilities.astype(np.float64).clip(TINY)) / temperature, axis=-1))


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean log-loss in nats."""
    exact = probabilities.astype(np.float64).clip(TINY)
    return float(log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=EVERY))


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the least log-loss on these rows (Guo et al. 2017, 4.2)."""
    logits = np.log(probabilities.astype(np.float64).clip(TINY))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-5}).x))


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return log-loss, Brier score and expected calibration error."""
    return {
        "log_loss": round(cross_entropy(probabilities, labels), 6),
        "brier": round(brier(probabilities, labels), 6),
        "calibration_error": round(calibration_error(probabilities, labels), 6),
    }


def top_2(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows whose label is one of the two most likely classes."""
    return float(top_k_accuracy_score(labels, probabilities, k=2, labels=EVERY))


def macro_f1(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean F1 over the classes."""
    return float(f1_score(labels, probabilities.argmax(axis=1), labels=EVERY, average="macro", zero_division=0))


def by_class(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and number of rows of each class."""
    *ratios, rows = precision_recall_fscore_support(labels, probabilities.argmax(axis=1), labels=EVERY, zero_division=0)
    table = pd.DataFrame(np.round(ratios, 6).T, columns=["precision", "recall", "f1"]).assign(rows=rows)
    return dict(zip(CLASSES, table.to_dict("records"), strict=True))  # type: ignore[arg-type]
