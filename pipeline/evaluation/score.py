"""Submission files of all models and the ensemble, and their scores where the test labels are known.

Reads data/faces.npz, data/folds.csv, data/folds/, data/solution.csv, data/duplicates.csv, data/raw/PROVENANCE.json,
all cells, artifacts/blends/ and results/ensemble.json. Writes submissions/NAME.csv for every model, external member and
the ensemble, submissions/scores.csv, results/analysis.json (by class, by confidence, and tests of differences),
results/metrics/ and results/plots/. No code that trains or selects reads them.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from pipeline import config, files
from pipeline.cells import store
from pipeline.competition import BOARD_2013, CLASSES, PRIVATE, PUBLIC, SPLIT_ROWS, TRAINING
from pipeline.data import faces, folds, provenance, solution
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, ensemble, figures, metrics, submission
from pipeline.evaluation.submission import INTEGERS, UNKNOWN, percent
from pipeline.training.cell import HISTORY

METRICS = Path("results/metrics")  # one file of ratios per submission, for `dvc metrics show`
RATIOS = (
    "oof_accuracy", "public_accuracy", "private_accuracy", "private_low", "private_high", "private_no_duplicate",
    "private_macro_f1", "private_log_loss_tempered", "private_brier_tempered",
)  # fmt: skip
Value = float | int | str
By = dict[str, np.ndarray]  # probabilities [m, 7] by submission, for the rows of a Truth


@dataclass(frozen=True)
class Truth:
    """Labels and duplicates of some rows; a submission is evaluated on those of data/folds.csv, then all test rows.

    Parameters
    ----------
    labels : int64 [m], -1 where unknown. usage : uint8 [m].
    identical, near : int64 [m], number of other Training rows with the same and with nearly the same picture.
    source : kind of the data, see data/provenance.py.
    """

    labels: np.ndarray
    usage: np.ndarray
    identical: np.ndarray
    near: np.ndarray
    source: str

    def of(self, rows: np.ndarray) -> "Truth":
        """Return the Truth of a subset of these rows."""
        return Truth(self.labels[rows], self.usage[rows], self.identical[rows], self.near[rows], self.source)


def read_truth(data: faces.Faces) -> Truth:
    """Read the Truth of all rows."""
    labels = solution.load(data)
    if (labels[data.rows(PRIVATE)] < 0).any():  # an incomplete PrivateTest would give a different score
        labels[data.rows(PRIVATE)] = -1
    duplicates = audit.load_duplicates(len(labels))
    source = provenance.kind(provenance.read())
    return Truth(labels, data.usage, duplicates["identical"].to_numpy(), duplicates["near"].to_numpy(), source)


def rank_2013(right: int, rows: int, source: str) -> Value:
    """Return the rank on the final leaderboard of 2013 for `right` correct of `rows` rows.

    Ties share the better rank. Ranks below the tenth team are unknown (">10"). There is no rank ("none") for drawn
    faces, or for another split or number of rows than the leaderboard's 3,589.
    """
    if rows != SPLIT_ROWS[PRIVATE] or source in (provenance.OTHER_SPLIT, "drawn"):
        return "none"
    place = 1 + sum(team > right for _, team in BOARD_2013)
    return place if place <= len(BOARD_2013) else f">{len(BOARD_2013)}"


def accuracy(probabilities: np.ndarray, labels: np.ndarray, what: str) -> dict[str, Value]:
    """Return the columns WHAT_accuracy, WHAT_low and WHAT_high: accuracy and 95 % interval (see metrics.accuracy).

    All are "unknown" where a row has no label, or there are no rows.
    """
    if not len(labels) or (labels < 0).any():
        return dict.fromkeys((f"{what}_accuracy", f"{what}_low", f"{what}_high"), UNKNOWN)
    return {f"{what}_{key}": round(value, 7) for key, value in metrics.accuracy(probabilities, labels).items()}


def judge(probabilities: np.ndarray, tempered: np.ndarray, truth: Truth) -> dict[str, Value]:
    """Score one submission. Return the columns of submissions/scores.csv from oof_accuracy to rank_2013.

    Parameters
    ----------
    probabilities, tempered : float [m, 7], before and after temperature scaling (fitted out of fold); rows of `truth`.
    """
    oof, public, private = (truth.usage == split for split in (TRAINING, PUBLIC, PRIVATE))
    no_duplicate = truth.identical == 0
    no_near = no_duplicate & (truth.near == 0)
    parts = {
        "oof": oof, "oof_no_near_duplicate": oof & no_near, "public": public, "private": private,
        "private_no_duplicate": private & no_duplicate, "private_no_near_duplicate": private & no_near,
    }  # fmt: skip
    scores: dict[str, Value] = {}
    for name, rows in parts.items():
        columns = accuracy(probabilities[rows], truth.labels[rows], name)
        scores |= {key.replace("duplicate_accuracy", "duplicate"): value for key, value in columns.items()}
    known = scores["private_accuracy"] != UNKNOWN
    # Without labels, any labels give the names of the columns.
    mine, labels = probabilities[private], truth.labels[private] if known else np.arange(private.sum()) % len(CLASSES)
    more: dict[str, Value] = {
        "private_macro_f1": round(metrics.macro_f1(mine, labels), 6),
        "private_top_2": round(metrics.top_2(mine, labels), 6),
        **{f"private_{key}": value for key, value in metrics.calibration(mine, labels).items()},
        **{f"private_{key}_tempered": value for key, value in metrics.calibration(tempered[private], labels).items()},
        "rank_2013": rank_2013(int(metrics.right(mine, labels).sum()), len(labels), truth.source),
    }
    return scores | (more if known else dict.fromkeys(more, UNKNOWN))


def analysis(probabilities: By, tempered: By, truth: Truth) -> dict[str, dict[str, Any]]:
    """Return the part of results/analysis.json for out-of-fold rows and, where their labels are known, PrivateTest.

    Returns
    -------
    By rows: `by_class` and `reliability` (see metrics) of every submission, the latter before and after temperature
    scaling, and `paired`: McNemar's p-value of every two submissions, nested by their names.
    """
    result: dict[str, dict[str, Any]] = {}
    for title, split in (("out of fold", TRAINING), ("PrivateTest", PRIVATE)):
        rows = truth.usage == split
        labels = truth.labels[rows]
        if (labels < 0).any():
            continue
        plain, scaled = ({name: each[rows] for name, each in by.items()} for by in (probabilities, tempered))
        kinds = {"as_it_is": plain, "tempered": scaled}
        hits = {name: metrics.right(each, labels) for name, each in plain.items()}
        result[title] = {
            "by_class": {name: metrics.by_class(each, labels) for name, each in plain.items()},
            "reliability": {
                name: {when: metrics.reliability(by[name], labels) for when, by in kinds.items()} for name in plain
            },
            "paired": {
                first: {second: metrics.mcnemar(hits[first], hits[second]) for second in hits if second != first}
                for first in hits
            },
        }
    return result


def single_networks(cells: list[store.Cell], truth: Truth) -> dict[str, Any]:
    """Return mean and deviation of the PrivateTest accuracies of a model's single networks, one per fold.

    Keys with `no_duplicate_` exclude rows whose picture is in Training. They are comparable with out-of-fold accuracy,
    which is measured without duplicates as well. `agree` is the share of all test rows, the rows of `truth`, for which
    two networks predict the same class, averaged over all pairs; the more they agree, the less averaging them gains.
    """
    predicted = [cell.test.argmax(axis=1) for cell in cells]
    agree = np.mean([(first == second).mean() for first, second in itertools.combinations(predicted, 2)])
    entry: dict[str, Any] = {"multiply_adds": cells[0].about.multiply_adds, "agree": round(float(agree), 6)}
    hits, private = [metrics.right(cell.test, truth.labels) for cell in cells], truth.usage == PRIVATE
    for name, rows in {"": private, "no_duplicate_": private & (truth.identical == 0)}.items():
        known = rows.any() and (truth.labels[private] >= 0).all()
        spread = metrics.spread([each[rows].mean() for each in hits]) if known else {}
        entry |= {f"{name}{key}": spread.get(key, UNKNOWN) for key in ("mean", "deviation")}
    return entry


def scoreboard(probabilities: By, tempered: By, costs: By, truth: Truth) -> pd.DataFrame:
    """Write every submission file. Return the table of submissions/scores.csv; `costs` as in ensemble.Predictions."""
    lines = []
    for name, each in probabilities.items():
        digest = submission.write(submission.FOLDER / f"{name}.csv", each[truth.usage != TRAINING].argmax(axis=1))
        _, parameters, seconds = costs[name]
        scores = judge(each, tempered[name], truth)
        lines.append({"name": name, "parameters": parameters, **scores, "train_seconds": seconds, "sha256": digest,
                      "data": truth.source})  # fmt: skip
    return pd.DataFrame(lines).round(dict.fromkeys(INTEGERS, 0)).astype(INTEGERS)


def write_tables(table: pd.DataFrame, result: ensemble.Result) -> None:
    """Write submissions/scores.csv and results/metrics/."""
    files.write(submission.TABLE, table.to_csv(index=False).encode())
    for line in submission.plain(table):
        calibration = result.submissions[line["name"]].calibration_tempered
        oof = {f"oof_{key}_tempered": calibration[key] for key in ("log_loss", "brier")}
        files.write_json(METRICS / f"{line['name']}.json", {key: line[key] for key in RATIOS} | oof)
    files.remove_others(METRICS, ".json", table["name"])


def curves(cells: dict[str, list[store.Cell]]) -> pd.DataFrame:
    """Return the learning curves of all cells: name, part (the fold), and the columns of history.csv."""
    every = [cell.history.assign(name=name, part=f"fold {cell.about.fold}") for name in cells for cell in cells[name]]
    return pd.concat(every)[["name", "part", *HISTORY]].drop(columns="learning_rate")


def reliability(bins: dict[str, Any]) -> pd.DataFrame:
    """Return accuracy by confidence: name, part, rows, confidence, accuracy; `bins` as in results/analysis.json."""
    ideal, tables = {"rows": 20, "confidence": [0, 1], "accuracy": [0, 1]}, []
    for name, each in bins.items():
        kinds = {"after scaling": each["tempered"], "before scaling": each["as_it_is"], "accuracy = confidence": ideal}
        for part, values in kinds.items():
            tables.append(pd.DataFrame(values).query("rows >= 20").assign(name=name, part=part))  # fewer: only noise
    return pd.concat(tables)


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies of submissions/scores.csv and of the teams of 2013: name, part (rows), accuracy, low, high."""
    parts = {"oof": "out of fold", "public": "PublicTest", "private": "PrivateTest"}
    scores = submission.plain(table)
    lines = [
        (line["name"], title, *(line[f"{key}_{end}"] for end in ("accuracy", "low", "high")))
        for line in scores for key, title in parts.items()
    ]  # fmt: skip
    if board.places(scores):
        lines += [(team, "PrivateTest", ratio, ratio, ratio) for team, ratio in board.TEAMS.items()]
    plotted = pd.DataFrame(lines, columns=["name", "part", "accuracy", "low", "high"])
    return plotted[plotted["accuracy"] != UNKNOWN]


def efficiency(table: pd.DataFrame) -> pd.DataFrame:
    """Return core-hours of the submissions with their out-of-fold accuracy, where they are known."""
    known = table.dropna(subset=["train_seconds"]).rename(columns=lambda name: name.removeprefix("oof_"))
    hours = known["train_seconds"].astype(float) / 3600
    return known[["name", "accuracy", "low", "high"]].assign(cost="by core-hours of training", value=hours)


def draw(table: pd.DataFrame, probabilities: By, cells: dict[str, list[store.Cell]], content: dict[str, Any],
         data: faces.Faces, assignment: folds.Folds) -> None:  # fmt: skip
    """Draw all of results/plots/, with submissions in the order of `table`; attention.png only if there are maps."""
    labels, names = data.labels[assignment.rows].astype(int), list(table["name"])
    rows, folder = submission.evaluated_rows(content), figures.FOLDER
    models = {name: cells[name] for name in names if name in cells}
    figures.draw(curves(models), folder / "curves", template="lines", x="epoch", y="val_accuracy",
                 title="Accuracy of the held-out fold, without test-time augmentation")  # fmt: skip
    bins = reliability({name: content[rows]["reliability"][name] for name in names})
    figures.draw(bins, folder / "calibration", template="lines", title=f"Calibration on {rows} rows", x="confidence",
                 y="accuracy")  # fmt: skip
    teams = " and of the ten best teams of 2013 (dashed: the winner)" if board.places(submission.plain(table)) else ""
    figures.draw(intervals(table), folder / "board", template="intervals", title=f"Accuracy of our submissions{teams}")
    figures.draw(efficiency(table), folder / "effort", template="points", title=figures.COSTS)
    predicted = probabilities[config.ENSEMBLE][: len(labels)].argmax(axis=1)
    errors = pd.DataFrame(np.array(CLASSES)[np.stack([labels, predicted], axis=1)], columns=["actual", "predicted"])
    errors = errors.sort_values(["actual", "predicted"])  # the order of the data must not be published
    title = f"Ensemble, out of fold: {(predicted == labels).mean():.2%} of {len(labels):,} rows are correct"
    figures.draw(errors, folder / "confusion", template="confusion", title=title)
    maps = {name: each[0].attention / 255 for name, each in models.items() if each[0].attention is not None}
    (folder / "attention.png").unlink(missing_ok=True)
    if maps:
        means = [data.pixels[assignment.rows[labels == label]].mean(axis=0) for label in metrics.EVERY]
        figures.attention(maps, np.stack(means), folder / "attention.png")


def main() -> None:
    """Run the stage."""
    settings, data, assignment, labels = ensemble.inputs()
    truth = read_truth(data).of(np.concatenate([assignment.rows, data.test_rows()]))
    names = [*settings.names, *settings.externals, config.ENSEMBLE]
    result = ensemble.result(names)
    cells = {name: store.load_all(settings, name, data) for name in settings.names}
    probabilities, tempered, costs = {}, {}, {}
    for name in names:
        oof, test, costs[name] = ensemble.load(name, data, assignment)
        fold_of = folds.load(data, name if name in settings.names else None).fold_of
        temperatures = ensemble.fit_temperatures(oof, labels, fold_of)
        probabilities[name] = np.concatenate([oof, test])
        oof = ensemble.tempered(oof, temperatures, fold_of)
        tempered[name] = np.concatenate([oof, metrics.temper(test, result.submissions[name].temperature)])
    table = scoreboard(probabilities, tempered, costs, truth)
    write_tables(table, result)
    content = analysis(probabilities, tempered, truth)
    tests = truth.of(truth.usage != TRAINING)
    content["single_networks"] = {name: single_networks(each, tests) for name, each in cells.items()}
    used = sorted({cell.about.computed_with() for each in cells.values() for cell in each})
    files.write_json(submission.ANALYSIS, content | {"trained_with": used})
    best_first = table.sort_values("oof_accuracy", ascending=False, kind="stable")
    draw(best_first, probabilities, cells, content, data, assignment)
    print(f"{submission.TABLE}: {len(table)} submissions; view them: make leaderboard")


def score_file(path: Path) -> None:
    """Print the scores of a submission file; write nothing."""
    if not path.is_file():
        raise UserError(f"{path} is not a file; name a submission: make score FILE=mine.csv")
    data = faces.load()
    predicted = submission.read(path, len(data.test_rows()))
    truth = read_truth(data).of(data.test_rows())
    probabilities = np.eye(len(metrics.EVERY))[predicted]
    scores = judge(probabilities, probabilities, truth)
    parts = {"PublicTest": "public_accuracy", "PrivateTest": "private_accuracy",
             "PrivateTest, no duplicate": "private_no_duplicate"}  # fmt: skip
    lines = [[title, percent(scores[column]), board.interval(scores, column)] for title, column in parts.items()]
    print(tabulate(lines, [str(path), "accuracy", "95 % interval"], colalign=("left", "right", "right")))
    print(f"\nmacro-F1 on PrivateTest: {scores['private_macro_f1']}; rank in 2013: {scores['rank_2013']}")
    if truth.source in board.NOTES:
        print(board.NOTES[truth.source])
