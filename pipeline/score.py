"""Write every submission in the competition's form, and score it where the test labels are known.

Reads data/faces.npz, data/solution.csv, data/raw/PROVENANCE.json, artifacts/bags/, artifacts/histories/ and
artifacts/timings/. Writes submissions/A.csv for every architecture A and submissions/ensemble.csv,
submissions/scores.csv, results/scores.json (the same, nested by name), results/metrics/ and results/plots/. Nothing
that trains or chooses reads what it writes.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score, log_loss

from pipeline import command, ensemble, faces, figures, folds, provenance, recipe, solution, submission
from pipeline.command import Refusal
from pipeline.competition import BOARD_2013, CLASSES, PRIVATE, PUBLIC, SPLIT_ROWS, TRAINING
from pipeline.faces import Faces, picture_groups
from pipeline.submission import UNKNOWN

ARTIFACTS = Path("artifacts")
NESTED = Path("results/scores.json")
METRICS = Path("results/metrics")  # the ratios alone, a file each: `dvc metrics show` makes a table of them

Score = float | int | str


def rank_2013(right: int, rows: int) -> Score:
    """The place that `right` answers of `rows` would have had on the final board of 2013.

    Ties share the better place. Below the tenth team places are not known (">10"); rows of another number than the
    board's 3,589 have no place ("none").
    """
    if rows != SPLIT_ROWS[PRIVATE]:
        return "none"
    place = 1 + sum(team > right for _, team in BOARD_2013)
    return place if place <= len(BOARD_2013) else f">{len(BOARD_2013)}"


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """Part of the rows whose most likely class is the label; "unknown" where there are no labels, or no rows."""
    if not len(labels) or (labels < 0).any():
        return UNKNOWN
    return round(float((probabilities.argmax(axis=1) == labels).mean()), 5)


def judge(
    bag: ensemble.Bag, train_labels: np.ndarray, labels: np.ndarray, usage: np.ndarray, twin: np.ndarray
) -> dict[str, Score]:
    """Score one submission.

    Parameters
    ----------
    train_labels : int [n], of the Training rows.
    labels, usage : int [k], of the test rows; labels are -1 where unknown.
    twin : bool [k], whether Training holds the identical picture.

    Returns
    -------
    The columns of submissions/scores.csv from oof_accuracy to rank_2013. private_low and private_high are the 95 %
    interval of Wilson's score method (Wilson 1927; scipy's binomtest).
    """
    private = usage == PRIVATE
    truth, probabilities = labels[private], bag.test[private]
    scores: dict[str, Score] = {
        "oof_accuracy": accuracy(bag.oof, train_labels),
        "public_accuracy": accuracy(bag.test[usage == PUBLIC], labels[usage == PUBLIC]),
        "private_accuracy": accuracy(probabilities, truth),
    }
    if scores["private_accuracy"] == UNKNOWN:
        names = ("low", "high", "no_twin", "log_loss", "macro_f1")
        return scores | {f"private_{name}": UNKNOWN for name in names} | {"rank_2013": UNKNOWN}
    right = int((probabilities.argmax(axis=1) == truth).sum())
    exact = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)  # to 1 beyond float32's digits
    interval = binomtest(right, len(truth)).proportion_ci(confidence_level=0.95, method="wilson")
    every = np.arange(len(CLASSES))
    return scores | {
        "private_low": round(float(interval.low), 5),
        "private_high": round(float(interval.high), 5),
        "private_no_twin": accuracy(probabilities[~twin[private]], truth[~twin[private]]),
        "private_log_loss": round(float(log_loss(truth, exact, labels=every)), 5),
        "private_macro_f1": round(
            float(f1_score(truth, probabilities.argmax(axis=1), labels=every, average="macro")), 5
        ),
        "rank_2013": rank_2013(right, len(truth)),
    }


def effort(architecture: str, count: int) -> tuple[int, float]:
    """Parameters of one network, and the seconds that all its folds took to train and predict."""
    timings = []
    for number in range(count):
        path = ARTIFACTS / f"timings/{architecture}/fold{number}.json"
        try:
            timing = json.loads(path.read_text())
            timings.append((timing["parameters"], timing["seconds"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise Refusal(f"{path} is missing or damaged; run: dvc repro -f train@{architecture}-{number}") from None
    return timings[0][0], sum(seconds for _, seconds in timings)


def scoreboard(
    data: Faces, hidden: pd.DataFrame, bags: dict[str, ensemble.Bag], efforts: dict[str, tuple[int, float]], worth: str
) -> pd.DataFrame:
    """Write a submission file for every bag, and return the table of submissions/scores.csv.

    Parameters
    ----------
    worth : whether the data are "official", "unofficial" or "drawn"; it goes with every score.
    """
    test = data.test_rows()
    labels = solution.join(data.labels, hidden)[test]
    groups = picture_groups(data.pixels)
    twin = np.isin(groups[test], groups[data.rows(TRAINING)])
    lines = []
    for name, bag in bags.items():
        digest = submission.write(submission.FOLDER / f"{name}.csv", bag.test.argmax(axis=1))
        parameters, seconds = efforts[name]
        scores = judge(bag, data.labels[data.rows(TRAINING)], labels, data.usage[test], twin)
        lines.append({
            "name": name, "parameters": parameters, **scores, "train_seconds": round(seconds), "sha256": digest,
            "data": worth,
        })  # fmt: skip
    return pd.DataFrame(lines)


def write_metrics(table: pd.DataFrame) -> None:
    """Write the table for DVC and other programs: results/scores.json and results/metrics/."""
    nested: dict[Any, dict[Any, Any]] = table.set_index("name").to_dict(orient="index")
    shutil.rmtree(METRICS, ignore_errors=True)  # with what is no submission any more
    METRICS.mkdir(parents=True)
    NESTED.write_text(json.dumps(nested, indent=2) + "\n")
    ratios = ("oof_accuracy", "public_accuracy", "private_accuracy", "private_no_twin", "private_macro_f1")
    for name, entry in nested.items():
        (METRICS / f"{name}.json").write_text(json.dumps({key: entry[key] for key in ratios}, indent=2) + "\n")


def draw(
    data: Faces, bags: dict[str, ensemble.Bag], table: pd.DataFrame, histories: dict[str, list[pd.DataFrame]]
) -> None:
    """Draw results/plots/."""
    labels = data.labels[data.rows(TRAINING)]
    every = range(len(CLASSES))
    matrices = {name: confusion_matrix(labels, bag.oof.argmax(axis=1), labels=every) for name, bag in bags.items()}
    figures.confusions(matrices, figures.FOLDER / "confusion.png")
    figures.curves(histories, figures.FOLDER / "curves.png")
    known = table[table["private_accuracy"] != UNKNOWN]
    columns = ["name", "private_accuracy", "private_low", "private_high"]
    ranked = not set(table["rank_2013"]) & {"none", UNKNOWN}
    figures.board(known[columns], ranked, figures.FOLDER / "board.png")


def main() -> None:
    """Run the stage."""
    data, hidden, names, count = faces.load(), solution.load(), recipe.names(), len(folds.numbers())
    bags = {name: ensemble.load(name) for name in (*names, ensemble.NAME)}
    efforts = {name: effort(name, count) for name in names}
    members = [efforts[name] for name in ensemble.read_params().members]
    efforts[ensemble.NAME] = (sum(each[0] for each in members), sum(each[1] for each in members))
    table = scoreboard(data, hidden, bags, efforts, provenance.standing(provenance.read()))
    table.to_csv(submission.TABLE, index=False)
    write_metrics(table)
    paths = {name: [ARTIFACTS / f"histories/{name}/fold{number}.csv" for number in range(count)] for name in names}
    draw(data, bags, table, {name: [pd.read_csv(path) for path in files] for name, files in paths.items()})


if __name__ == "__main__":
    command.run(main, "python -m pipeline.score")
