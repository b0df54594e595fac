"""Write every submission in the competition's form, and score it where the test labels are known.

Reads data/faces.npz, data/folds.csv, data/solution.csv, data/duplicates.csv, data/raw/PROVENANCE.json, results/ensemble.json
(for the temperatures), artifacts/bags/, artifacts/predictions/, artifacts/histories/ and artifacts/timings/. Writes
submissions/A.csv for every architecture A and submissions/ensemble.csv, submissions/scores.csv, results/scores.json
(the same, nested by name), results/analysis.json (by class, by confidence, and tests of differences), results/metrics/
and results/plots/. Nothing that trains or chooses reads what it writes.
"""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from pipeline import files, recipe
from pipeline.competition import BOARD_2013, PRIVATE, PUBLIC, SPLIT_ROWS, TRAINING
from pipeline.data import faces, folds, provenance, solution
from pipeline.data.faces import Faces
from pipeline.errors import UserError
from pipeline.evaluation import audit, ensemble, figures, metrics, submission
from pipeline.evaluation.submission import UNKNOWN
from pipeline.training import cells

NESTED = Path("results/scores.json")
METRICS = Path("results/metrics")  # the ratios alone, a file each: `dvc metrics show` makes a table of them

Score = float | int | str
MORE = (
    "private_macro_f1", "private_top_2",
    *(f"private_{key}{when}" for when in ("", "_tempered") for key in ("log_loss", "brier", "calibration_error")),
    "rank_2013",
)  # fmt: skip


def rank_2013(right: int, rows: int) -> Score:
    """The place that `right` answers of `rows` would have had on the final board of 2013.

    Ties share the better place. Below the tenth team places are not known (">10"); rows of another number than the
    board's 3,589 have no place ("none").
    """
    if rows != SPLIT_ROWS[PRIVATE]:
        return "none"
    place = 1 + sum(team > right for _, team in BOARD_2013)
    return place if place <= len(BOARD_2013) else f">{len(BOARD_2013)}"


def accuracy(probabilities: np.ndarray, labels: np.ndarray, what: str) -> dict[str, Score]:
    """The columns WHAT_accuracy, WHAT_low and WHAT_high; "unknown" where there are no labels, or no rows.

    The last two are the ends of the 95 % interval (see metrics.accuracy).
    """
    if not len(labels) or (labels < 0).any():
        return dict.fromkeys((f"{what}_accuracy", f"{what}_low", f"{what}_high"), UNKNOWN)
    return {f"{what}_{key}": round(value, 6) for key, value in metrics.accuracy(probabilities, labels).items()}


def judge(
    bag: ensemble.Bag, temperature: float, train_labels: np.ndarray, labels: np.ndarray, usage: np.ndarray,
    duplicates: pd.DataFrame,
) -> dict[str, Score]:  # fmt: skip
    """Score one submission.

    Parameters
    ----------
    temperature : fitted out of fold; what ends in "_tempered" is measured with it.
    train_labels : int [n], of the Training rows.
    labels, usage : int [k], of the test rows; labels are -1 where unknown.
    duplicates : [n + k], of all rows, columns identical and near: how many other Training rows show the same picture, and
        nearly the same.

    Returns
    -------
    The columns of submissions/scores.csv from oof_accuracy to rank_2013.
    """
    covered = ~np.isnan(bag.oof[:, 0])
    unlike = covered & ((duplicates["identical"] == 0) & (duplicates["near"] == 0)).to_numpy()[: len(covered)]
    duplicates = duplicates[len(covered) :]
    public, private = usage == PUBLIC, usage == PRIVATE
    truth, probabilities = labels[private], bag.test[private]
    if (truth < 0).any():  # a part of them would be another score
        truth = np.full_like(truth, -1)
    alone = (duplicates["identical"] == 0).to_numpy()[private]
    apart = alone & (duplicates["near"] == 0).to_numpy()[private]
    scores = {
        **accuracy(bag.oof[covered], train_labels[covered], "oof"),
        **accuracy(bag.oof[unlike], train_labels[unlike], "oof_no_near_duplicate"),
        **accuracy(bag.test[public], labels[public], "public"),
        **accuracy(probabilities, truth, "private"),
        **accuracy(probabilities[alone], truth[alone], "private_no_duplicate"),
        **accuracy(probabilities[apart], truth[apart], "private_no_near_duplicate"),
    }
    scores = {name.replace("duplicate_accuracy", "duplicate"): value for name, value in scores.items()}
    if scores["private_accuracy"] == UNKNOWN:
        return scores | dict.fromkeys(MORE, UNKNOWN)
    tempered = metrics.calibration(metrics.temper(probabilities, temperature), truth)
    return scores | {
        "private_macro_f1": round(metrics.macro_f1(probabilities, truth), 6),
        "private_top_2": round(metrics.top_2(probabilities, truth), 6),
        **{f"private_{key}": value for key, value in metrics.calibration(probabilities, truth).items()},
        **{f"private_{key}_tempered": value for key, value in tempered.items()},
        "rank_2013": rank_2013(int(metrics.right(probabilities, truth).sum()), len(truth)),
    }


def analysis(
    bags: dict[str, ensemble.Bag], temperatures: dict[str, float], train_labels: np.ndarray, fold: np.ndarray,
    truth: np.ndarray, private: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """What results/analysis.json says, for the out-of-fold rows and, where their labels are known, for PrivateTest.

    Parameters
    ----------
    train_labels : int [n]. fold : int, of the Training rows that have out-of-fold predictions.
    truth : int [k], labels of the test rows. private : bool [k], which are PrivateTest.

    Returns
    -------
    By rows: `by_class` and `reliability` (see metrics) of every submission, the latter as it is and tempered, and
    `paired`: McNemar's p-value of every two submissions, as a mapping from name to name to value.
    """
    covered = ~np.isnan(next(iter(bags.values())).oof[:, 0])
    oof = {name: bag.oof[covered] for name, bag in bags.items()}
    known = train_labels[covered]
    parts = {"out of fold": (oof, {name: ensemble.tempered(one, known, fold) for name, one in oof.items()}, known)}
    if (truth[private] >= 0).all():
        tests = {name: bag.test[private] for name, bag in bags.items()}
        parts["PrivateTest"] = (
            tests, {name: metrics.temper(one, temperatures[name]) for name, one in tests.items()}, truth[private],
        )  # fmt: skip
    found: dict[str, Any] = {}
    for rows, (probabilities, tempered, labels) in parts.items():
        hits = {name: metrics.right(each, labels) for name, each in probabilities.items()}
        paired: dict[str, dict[str, float]] = {name: {} for name in bags}
        for one, other in itertools.permutations(bags, 2):
            paired[one][other] = float(f"{metrics.mcnemar(hits[one], hits[other]):.3g}")
        found[rows] = {
            "by_class": {name: metrics.by_class(each, labels) for name, each in probabilities.items()},
            "reliability": {
                name: {
                    "as_it_is": metrics.reliability(each, labels),
                    "tempered": metrics.reliability(tempered[name], labels),
                }
                for name, each in probabilities.items()
            },
            "paired": paired,
        }
    return found


def folds_agree(tests: list[np.ndarray]) -> float:
    """Part of the test rows of which two folds' networks say the same class, the mean over all pairs of them.

    The more alike they are, the less their mean gains. `tests` are float [k, 7], one a fold; 1 for a lone one.
    """
    guesses = [each.argmax(axis=1) for each in tests]
    pairs = [(one == other).mean() for one, other in itertools.combinations(guesses, 2)]
    return float(np.mean(pairs)) if pairs else 1.0


def singles(name: str, count: int, truth: np.ndarray, private: np.ndarray, duplicates: np.ndarray) -> dict[str, Any]:
    """PrivateTest accuracy of each single network of an architecture (one a fold), their mean and deviation.

    `plain_mean` is without test-time augmentation, `no_duplicate_mean` without the rows whose picture stands in Training as
    well (`duplicates`, bool [k]): what out-of-fold accuracy, which knows no duplicates either, can be compared with. `agree` is
    folds_agree over all test rows.
    """
    agree = round(folds_agree([ensemble.read_cell(name, number)[2] for number in range(count)]), 6)
    if (truth[private] < 0).any():
        return {"agree": agree} | dict.fromkeys(
            ("folds", "mean", "deviation", "plain_mean", "no_duplicate_mean"), UNKNOWN
        )

    def each(rows: np.ndarray, plain: bool) -> list[float]:
        asked = (ensemble.read_cell(name, number, plain)[2] for number in range(count))
        return [float(metrics.right(said[rows], truth[rows]).mean()) for said in asked]

    found, alone = metrics.spread(each(private, plain=False)), private & ~duplicates
    return {
        "agree": agree, "folds": found.pop("values"), **found,
        "plain_mean": round(float(np.mean(each(private, plain=True))), 6),
        "no_duplicate_mean": round(float(np.mean(each(alone, plain=False))), 6) if alone.any() else UNKNOWN,
    }  # fmt: skip


def timings(architecture: str, count: int) -> list[dict[str, Any]]:
    """What train wrote of each fold: parameters, seconds to train and predict, and what computed."""
    found = []
    for number in range(count):
        path = cells.path("timing", architecture, number)
        try:
            timing = json.loads(path.read_text())
            if not {"parameters", "seconds"} <= timing.keys():
                raise ValueError
        except (OSError, ValueError, AttributeError):
            raise UserError(f"{path} is missing or damaged; run: {cells.remedy(architecture, number)}") from None
        found.append(timing)
    return found


def trained_with(cells: list[dict[str, Any]]) -> list[str]:
    """The different machines, versions and precisions that trained, as words, from `timings`."""
    return sorted({", ".join(f"{key} {value}" for key, value in cells.computed_with(cell).items()) for cell in cells})


def scoreboard(
    data: Faces, labels: np.ndarray, bags: dict[str, ensemble.Bag], temperatures: dict[str, float],
    efforts: dict[str, tuple[int, float]], duplicates: pd.DataFrame, worth: str,
) -> pd.DataFrame:  # fmt: skip
    """Write a submission file for every bag, and return the table of submissions/scores.csv.

    Parameters
    ----------
    labels : int [k], of the test rows. temperatures, efforts : by the bags' names. duplicates : see `judge`.
    worth : what the data are, by provenance.standing; it goes with every score. Another split has no rank.
    """
    test, training = data.test_rows(), data.rows(TRAINING)
    lines = []
    for name, bag in bags.items():
        digest = submission.write(submission.FOLDER / f"{name}.csv", bag.test.argmax(axis=1))
        parameters, seconds = efforts[name]
        scores = judge(bag, temperatures[name], data.labels[training], labels, data.usage[test], duplicates)
        if worth == provenance.OTHER_SPLIT:
            scores["rank_2013"] = "none"
        lines.append({
            "name": name, "parameters": parameters, **scores, "train_seconds": round(seconds), "sha256": digest,
            "data": worth,
        })  # fmt: skip
    return pd.DataFrame(lines)


def write_metrics(table: pd.DataFrame) -> None:
    """Write the table for DVC and other programs: results/scores.json and results/metrics/."""
    nested: dict[Any, dict[Any, Any]] = table.set_index("name").to_dict(orient="index")
    shutil.rmtree(METRICS, ignore_errors=True)  # with what is no submission any more
    files.write_json(NESTED, nested)
    ratios = (
        "oof_accuracy", "public_accuracy", "private_accuracy", "private_low", "private_high", "private_no_duplicate",
        "private_macro_f1",
    )  # fmt: skip
    for name, entry in nested.items():
        files.write_json(METRICS / f"{name}.json", {key: entry[key] for key in ratios})


def draw(
    data: Faces, bags: dict[str, ensemble.Bag], table: pd.DataFrame, histories: dict[str, list[pd.DataFrame]],
    found: dict[str, Any],
) -> None:  # fmt: skip
    """Draw results/plots/."""
    labels = data.labels[data.rows(TRAINING)]
    covered = ~np.isnan(next(iter(bags.values())).oof[:, 0])
    matrices = {
        name: confusion_matrix(labels[covered], bag.oof[covered].argmax(axis=1), labels=metrics.EVERY)
        for name, bag in bags.items()
    }
    figures.confusions(matrices, figures.FOLDER / "confusion.png")
    figures.curves(histories, figures.FOLDER / "curves.png")
    rows = submission.judged_rows(found)
    figures.calibration(found[rows]["reliability"], rows, figures.FOLDER / "calibration.png")
    figures.splits(table, figures.FOLDER / "splits.png")
    figures.effort(table, len(next(iter(histories.values()))), figures.FOLDER / "effort.png")
    known = table[table["private_accuracy"] != UNKNOWN]
    columns = ["name", "private_accuracy", "private_low", "private_high"]
    ranked = not set(table["rank_2013"]) & {"none", UNKNOWN}
    figures.board(known[columns], ranked, figures.FOLDER / "board.png")


def main() -> None:
    """Run the stage."""
    data, hidden, names, count = faces.load(), solution.load(), recipe.names(), len(folds.numbers())
    bags = {name: ensemble.load(name) for name in (*names, ensemble.NAME)}
    temperatures = ensemble.temperatures(list(bags))
    took = {name: timings(name, count) for name in names}
    efforts = {name: (cells[0]["parameters"], sum(cell["seconds"] for cell in cells)) for name, cells in took.items()}
    members = ensemble.result(lambda whole: [(weight, *efforts[name]) for name, weight in whole["weights"].items()])
    # who has no weight was trained, but has no say
    parameters = sum(count for weight, count, _ in members if weight != 0)
    efforts[ensemble.NAME] = (parameters, sum(seconds for _, _, seconds in members))
    test, train_labels = data.test_rows(), data.labels[data.rows(TRAINING)]
    truth, private = solution.join(data.labels, hidden)[test], data.usage[test] == PRIVATE
    duplicates, worth = audit.load_duplicates(len(data.labels)), provenance.standing(provenance.read())
    table = scoreboard(data, truth, bags, temperatures, efforts, duplicates, worth)
    table.to_csv(submission.TABLE, index=False)
    write_metrics(table)
    found = analysis(bags, temperatures, train_labels, folds.load(data)[1], truth, private)
    same = (duplicates["identical"] > 0).to_numpy()[test]
    found["single_networks"] = {name: singles(name, count, truth, private, same) for name in names}
    found["trained_with"] = trained_with([cell for cells in took.values() for cell in cells])
    files.write_json(submission.ANALYSIS, found)
    paths = {name: [cells.path("history", name, number) for number in range(count)] for name in names}
    draw(data, bags, table, {name: [pd.read_csv(path) for path in each] for name, each in paths.items()}, found)
