"""What bfloat16 costs in accuracy: one network, one seed, trained in both precisions and judged out of fold."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from pipeline.stages import train
from tqdm import tqdm

from pipeline import params, recipe
from pipeline.errors import UserError
from pipeline.evaluation import metrics
from pipeline.training import machine

NETWORK = "small_resnet"  # of those that params.yaml trains
EPOCHS = {"epochs": 6, "early_epochs": 2}  # of its recipe there; the rest stays
PRECISIONS = ("float32", "bfloat16")


def halves(fold_of: np.ndarray) -> np.ndarray:
    """The folds of params.yaml dealt into two, so that identical pictures stay together: int [n], 0 or 1."""
    return (fold_of >= len(np.unique(fold_of)) // 2).astype(fold_of.dtype)


def paired(hits: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """How many points the accuracy of bool [n] lies above that of `base`.

    Returns
    -------
    The points, their 95 % interval (of paired proportions: its variance is that of the rows that only one has right;
    Fleiss, Levin & Paik 2003, section 13.1), and McNemar's exact p-value.
    """
    gained, lost = float((hits & ~base).mean()), float((base & ~hits).mean())
    difference = gained - lost
    reach = 1.96 * np.sqrt((gained + lost - difference**2) / len(base))
    return {
        "points": round(100 * difference, 3),
        "points_95": [round(100 * (difference - reach), 3), round(100 * (difference + reach), 3)],
        "p_value": float(f"{metrics.mcnemar(hits, base):.3g}"),
    }


def compare(probabilities: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Both precisions' accuracies, and how much they differ.

    Parameters
    ----------
    probabilities : float [n, 7] by precision. labels : int [n].

    Returns
    -------
    Accuracy and log-loss of each, and how they differ: see `paired`.
    """
    hits = [metrics.right(probabilities[name], labels) for name in PRECISIONS]
    return {
        **{
            name: {
                "oof_accuracy": round(float(hit.mean()), 5),
                "oof_log_loss": round(metrics.cross_entropy(probabilities[name], labels), 5),
            }
            for name, hit in zip(PRECISIONS, hits, strict=True)
        },
        **paired(hits[1], hits[0]),
        "rows": len(labels),
    }


def measure(folder: Path, bar: tqdm) -> dict[str, Any]:
    """Train and compare, on the faces in data/. What is finished stays, epoch by epoch, in artifacts/checkpoints/."""
    if not machine.bfloat16_on_cpu():
        raise UserError("this processor has no bfloat16 products: there is nothing to compare")
    if NETWORK not in recipe.names():
        raise UserError(f"{params.PATH} does not train {NETWORK}, which both precisions are compared by")
    data, rows, fold_of, cells = train.planned()
    cell = next(cell for cell in cells if cell.architecture == NETWORK)
    fold_of, found = halves(fold_of), {}
    for precision in PRECISIONS:
        judged = np.full((len(rows), 7), np.nan, "float32")
        for half in (0, 1):
            bar.set_description(f"{NETWORK} in {precision}, half {half + 1} of 2")
            settings = cell.settings.model_copy(update=EPOCHS | {"precision": precision})
            one = train.Cell(NETWORK, half, cell.seed, cell.library, settings, f"{cell.key} in halves", cell.code)
            contents = train.train(data, rows, fold_of, one, one.checkpoint())
            with np.load(io.BytesIO(contents["predictions"])) as predicted:
                judged[fold_of == half] = predicted["validation"]
            bar.update()
        found[precision] = judged
    return {"network": NETWORK, **EPOCHS, **compare(found, data.labels[rows])}
