"""Write every submission in the competition's form, and score it where the test labels are known.

Reads data/faces.npz, data/folds.csv, data/solution.csv, data/duplicates.csv, data/raw/PROVENANCE.json, all cells,
artifacts/blends/ and results/ensemble.json. Writes submissions/NAME.csv for every model, external member and the
ensemble, submissions/scores.csv, results/scores.json (the same by name), results/analysis.json (by class, by
confidence, and tests of differences), results/metrics/ and results/plots/. Nothing that trains or chooses reads them.
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
from pipeline.cells.store import Cell
from pipeline.competition import BOARD_2013, CLASSES, PRIVATE, PUBLIC, SPLIT_ROWS, TRAINING
from pipeline.config import ENSEMBLE
from pipeline.data import faces, folds, provenance, solution
from pipeline.data.faces import Faces
from pipeline.data.folds import Folds
from pipeline.errors import UserError
from pipeline.evaluation import audit, board, ensemble, figures, metrics, submission
from pipeline.evaluation.submission import INTEGERS, UNKNOWN, percent
from pipeline.training.cell import HISTORY

NESTED = Path("results/scores.json")
METRICS = Path("results/metrics")  # ratios, a file each: `dvc metrics show` makes a table of them
RATIOS = (
    "oof_accuracy", "public_accuracy", "private_accuracy", "private_low", "private_high", "private_no_duplicate",
    "private_macro_f1", "private_log_loss_tempered", "private_brier_tempered",
)  # fmt: skip
NEED_LABELS = (
    "private_macro_f1", "private_top_2",
    *(f"private_{key}{when}" for when in ("", "_tempered") for key in ("log_loss", "brier", "calibration_error")),
    "rank_2013",
)  # fmt: skip
Value = float | int | str
By = dict[str, np.ndarray]  # probabilities [m, 7] by submission, of the rows of a Truth


@dataclass(frozen=True)
class Truth:
    """What is known of the rows on which submissions are scored: those of data/folds.csv, then all test rows.

    Parameters
    ----------
    labels : int64 [m], -1 where unknown. usage : uint8 [m].
    identical, near : int64 [m], how many other Training rows show the same picture, and nearly the same.
    source : what the data are, see data/provenance.py.
    """

    labels: np.ndarray
    usage: np.ndarray
    identical: np.ndarray
    near: np.ndarray
    source: str

    def of(self, rows: np.ndarray) -> "Truth":
        """The same of some of these rows."""
        return Truth(self.labels[rows], self.usage[rows], self.identical[rows], self.near[rows], self.source)


def read_truth(data: Faces, training_rows: np.ndarray) -> Truth:
    """The Truth of these Training rows and all test rows."""
    labels = solution.join(data.labels, solution.load(data))
    if (labels[data.rows(PRIVATE)] < 0).any():  # a part of them would be another score
        labels[data.rows(PRIVATE)] = -1
    duplicates = audit.load_duplicates(len(labels))
    source = provenance.standing(provenance.read())
    everyone = Truth(labels, data.usage, duplicates["identical"].to_numpy(), duplicates["near"].to_numpy(), source)
    return everyone.of(np.concatenate([training_rows, data.test_rows()]))


def rank_2013(right: int, rows: int, source: str) -> Value:
    """The place that so many right of `rows` would have had on the final board of 2013.

    Ties share the better place. Below the tenth team places are not known (">10"); rows of another split, or of another
    number than the board's 3,589, have no place ("none").
    """
    if rows != SPLIT_ROWS[PRIVATE] or source == provenance.OTHER_SPLIT:
        return "none"
    place = 1 + sum(team > right for _, team in BOARD_2013)
    return place if place <= len(BOARD_2013) else f">{len(BOARD_2013)}"


def accuracy(probabilities: np.ndarray, labels: np.ndarray, what: str) -> dict[str, Value]:
    """The columns WHAT_accuracy, and WHAT_low and WHAT_high, the ends of its 95 % interval (see metrics.accuracy).

    They are "unknown" where there is a row without a label, or no row.
    """
    if not len(labels) or (labels < 0).any():
        return dict.fromkeys((f"{what}_accuracy", f"{what}_low", f"{what}_high"), UNKNOWN)
    return {f"{what}_{key}": round(value, 6) for key, value in metrics.accuracy(probabilities, labels).items()}


def judge(probabilities: np.ndarray, tempered: np.ndarray, truth: Truth) -> dict[str, Value]:
    """Score one submission: the columns of submissions/scores.csv from oof_accuracy to rank_2013.

    Parameters
    ----------
    probabilities, tempered : float [m, 7], as they are and at the temperature fitted out of fold; rows as in `truth`.
    """
    oof, public, private = (truth.usage == split for split in (TRAINING, PUBLIC, PRIVATE))
    alone = truth.identical == 0
    apart = alone & (truth.near == 0)
    parts = {
        "oof": oof, "oof_no_near_duplicate": oof & apart, "public": public, "private": private,
        "private_no_duplicate": private & alone, "private_no_near_duplicate": private & apart,
    }  # fmt: skip
    scores: dict[str, Value] = {}
    for name, rows in parts.items():
        found = accuracy(probabilities[rows], truth.labels[rows], name)
        scores |= {key.replace("duplicate_accuracy", "duplicate"): value for key, value in found.items()}
    if scores["private_accuracy"] == UNKNOWN:
        return scores | dict.fromkeys(NEED_LABELS, UNKNOWN)
    mine, labels = probabilities[private], truth.labels[private]
    return scores | {
        "private_macro_f1": round(metrics.macro_f1(mine, labels), 6),
        "private_top_2": round(metrics.top_2(mine, labels), 6),
        **{f"private_{key}": value for key, value in metrics.calibration(mine, labels).items()},
        **{f"private_{key}_tempered": value for key, value in metrics.calibration(tempered[private], labels).items()},
        "rank_2013": rank_2013(int(metrics.right(mine, labels).sum()), len(labels), truth.source),
    }


def analysis(probabilities: By, tempered: By, truth: Truth) -> dict[str, dict[str, Any]]:
    """What results/analysis.json says of the out-of-fold rows and, where their labels are known, of PrivateTest.

    Returns
    -------
    By rows: `by_class` and `reliability` (see metrics) of every submission, the latter as it is and tempered, and
    `paired`: McNemar's p-value of every two submissions, as a mapping from name to name to value.
    """
    found: dict[str, dict[str, Any]] = {}
    for title, split in (("out of fold", TRAINING), ("PrivateTest", PRIVATE)):
        rows = truth.usage == split
        labels = truth.labels[rows]
        if (labels < 0).any():
            continue
        mine = {name: each[rows] for name, each in probabilities.items()}
        softer = {name: each[rows] for name, each in tempered.items()}
        hits = {name: metrics.right(each, labels) for name, each in mine.items()}
        reliability = {"as_it_is": mine, "tempered": softer}
        found[title] = {
            "by_class": {name: metrics.by_class(each, labels) for name, each in mine.items()},
            "reliability": {
                name: {when: metrics.reliability(each[name], labels) for when, each in reliability.items()}
                for name in mine
            },
            "paired": {
                one: {other: float(f"{metrics.mcnemar(hits[one], hits[other]):.3g}") for other in hits if other != one}
                for one in hits
            },
        }
    return found


def folds_agree(tests: list[np.ndarray]) -> float:
    """Part of the test rows of which two folds' networks predict the same class, the mean over all pairs of them.

    The more alike they are, the less their mean gains. `tests` are float [k, 7], one a fold.
    """
    guesses = [each.argmax(axis=1) for each in tests]
    return float(np.mean([(one == other).mean() for one, other in itertools.combinations(guesses, 2)]))


def singles(cells: list[Cell], truth: Truth) -> dict[str, Any]:
    """PrivateTest accuracy of the single networks of a model, one a fold: mean and deviation.

    `no_duplicate_` leaves out the rows whose picture stands in Training, so that it compares with out-of-fold accuracy,
    which knows no duplicates either. `agree` is folds_agree over all test rows, of which `truth` is.
    """
    agree = round(folds_agree([cell.test for cell in cells]), 6)
    found: dict[str, Any] = {"multiply_adds": cells[0].about.multiply_adds, "agree": agree}
    hits, private = [metrics.right(cell.test, truth.labels) for cell in cells], truth.usage == PRIVATE
    for name, rows in {"": private, "no_duplicate_": private & (truth.identical == 0)}.items():
        known = rows.any() and (truth.labels[private] >= 0).all()
        spread = metrics.spread([each[rows].mean() for each in hits]) if known else {}
        found |= {f"{name}{key}": spread.get(key, UNKNOWN) for key in ("mean", "deviation")}
    return found


def efforts(cells: dict[str, list[Cell]], weights: dict[str, float | None]) -> pd.DataFrame:
    """Parameters and seconds of training of each submission, blank where they are not known.

    The ensemble's parameters are those of members whose weight is not 0, its seconds those of all.
    """
    models = {
        name: (each[0].about.parameters, sum(cell.about.seconds for cell in each)) for name, each in cells.items()
    }
    found = pd.DataFrame.from_dict(models, orient="index", columns=list(INTEGERS)).reindex([*{**models, **weights}])
    members = found.loc[list(weights)]
    weighing = [weight != 0 for weight in weights.values()]
    found.loc[ENSEMBLE] = members["parameters"][weighing].sum(skipna=False), members["train_seconds"].sum(skipna=False)
    return found


def scoreboard(probabilities: By, tempered: By, took: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """Write every submission's file, and return the table of submissions/scores.csv; `took` as `efforts` gives it."""
    lines = []
    for name, each in probabilities.items():
        digest = submission.write(submission.FOLDER / f"{name}.csv", each[truth.usage != TRAINING].argmax(axis=1))
        parameters, seconds = took.loc[name]
        scores = judge(each, tempered[name], truth)
        lines.append({"name": name, "parameters": parameters, **scores, "train_seconds": seconds, "sha256": digest,
                      "data": truth.source})  # fmt: skip
    return pd.DataFrame(lines).round({"train_seconds": 0}).astype(INTEGERS)


def write_tables(table: pd.DataFrame, found: ensemble.Result) -> None:
    """Write submissions/scores.csv, results/scores.json and results/metrics/."""
    files.write(submission.TABLE, table.to_csv(index=False).encode())
    nested = {line.pop("name"): line for line in submission.plain(table)}
    files.write_json(NESTED, nested)
    for path in METRICS.glob("*.json"):
        path.unlink()
    for name, line in nested.items():
        calibration = found.submissions[name].calibration_tempered
        oof = {f"oof_{key}_tempered": calibration[key] for key in ("log_loss", "brier")}
        files.write_json(METRICS / f"{name}.json", {key: line[key] for key in RATIOS} | oof)


def curves(cells: dict[str, list[Cell]]) -> pd.DataFrame:
    """The learning curves of all cells: name, part (the fold), and the columns of history.csv."""
    every = [cell.history.assign(name=name, part=f"fold {cell.about.fold}") for name in cells for cell in cells[name]]
    return pd.concat(every)[["name", "part", *HISTORY]].drop(columns="learning_rate")


def reliability(found: dict[str, Any]) -> pd.DataFrame:
    """Accuracy by confidence: name, part, rows, confidence, accuracy; `found` as in results/analysis.json."""
    ideal, bins = {"rows": 20, "confidence": [0, 1], "accuracy": [0, 1]}, []
    for name, by_when in found.items():
        for part, each in {"tempered": by_when["tempered"], "as it is": by_when["as_it_is"], "ideal": ideal}.items():
            bins.append(pd.DataFrame(each).query("rows >= 20").assign(name=name, part=part))  # fewer rows say nothing
    return pd.concat(bins)


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of submissions/scores.csv, then of the teams of 2013: name, part (the rows), accuracy, low, high."""
    parts = {"oof": "out of fold", "public": "PublicTest", "private": "PrivateTest"}
    lines = [
        (line["name"], title, *(line[f"{key}_{end}"] for end in ("accuracy", "low", "high")))
        for line in submission.plain(table) for key, title in parts.items()
    ]  # fmt: skip
    if board.places(submission.plain(table)):
        lines += [(team, "PrivateTest", ratio, ratio, ratio) for team, ratio in board.TEAMS.items()]
    found = pd.DataFrame(lines, columns=["name", "part", "accuracy", "low", "high"])
    return found[found["accuracy"] != UNKNOWN]


def costs(table: pd.DataFrame, folds: int) -> pd.DataFrame:
    """Parameters and minutes of one network, and its accuracy out of fold, where they are known."""
    known = table.dropna(subset=list(INTEGERS)).rename(columns=lambda name: name.removeprefix("oof_"))
    values = {"accuracy out of fold by million parameters": known["parameters"] / 1e6,
              "accuracy out of fold by minutes of training one fold": known["train_seconds"] / 60 / folds}  # fmt: skip
    columns = known[["name", "accuracy", "low", "high"]]
    return pd.concat([columns.assign(cost=cost, value=value.astype(float)) for cost, value in values.items()])


def draw(table: pd.DataFrame, probabilities: By, cells: dict[str, list[Cell]], found: dict[str, Any], data: Faces,
         dealt: Folds) -> None:  # fmt: skip
    """Fill results/plots/, submissions in the order of `table`; without attention maps there is no attention.png."""
    labels, names, rows = data.labels[dealt.rows].astype(int), list(table["name"]), submission.judged_rows(found)
    models = {name: cells[name] for name in names if name in cells}
    guesses, folder = probabilities[ENSEMBLE][: len(labels)].argmax(axis=1), figures.FOLDER
    figures.draw(curves(models), folder / "curves", template="lines", title="Accuracy of the held-out fold",
                 x="epoch", y="val_accuracy")  # fmt: skip
    bins = reliability({name: found[rows]["reliability"][name] for name in names})
    figures.draw(bins, folder / "calibration", template="lines", title=f"Calibration on {rows} rows", x="confidence",
                 y="accuracy")  # fmt: skip
    figures.draw(intervals(table), folder / "board", template="intervals")
    figures.draw(costs(table, len(cells[next(iter(cells))])), folder / "effort", template="points")
    errors = pd.DataFrame(np.array(CLASSES)[np.stack([labels, guesses], axis=1)], columns=["actual", "predicted"])
    errors = errors.sort_values(["actual", "predicted"])  # the order of the data is not ours to publish
    title = f"The ensemble out of fold: {(guesses == labels).mean():.2%} of {len(labels):,} rows are right"
    figures.draw(errors, folder / "confusion", template="confusion", title=title)
    maps = {name: each[0].attention / 255 for name, each in models.items() if each[0].attention is not None}
    (folder / "attention.png").unlink(missing_ok=True)
    if maps:
        means = [data.pixels[dealt.rows[labels == label]].mean(axis=0) for label in metrics.EVERY]
        figures.attention(maps, np.stack(means), folder / "attention.png")


def main() -> None:
    """Run the stage."""
    settings, data = config.load(), faces.load()
    dealt = folds.load(data)
    truth, labels = read_truth(data, dealt.rows), data.labels[dealt.rows]
    names = [*settings.names, *settings.externals, ENSEMBLE]
    found = ensemble.result(names)
    cells = {name: [store.load(settings, name, k, data, dealt) for k in settings.folds] for name in settings.names}
    probabilities, tempered = {}, {}
    for name in names:
        blend = ensemble.load(name, data, dealt)
        fitted = ensemble.fit_temperatures(blend.oof, labels, dealt.fold_of)
        oof, test = ensemble.tempered(blend.oof, fitted, dealt.fold_of), blend.test
        probabilities[name] = np.concatenate([blend.oof, test])
        tempered[name] = np.concatenate([oof, metrics.temper(test, found.submissions[name].temperature)])
    table = scoreboard(probabilities, tempered, efforts(cells, found.weights), truth)
    write_tables(table, found)
    whole = analysis(probabilities, tempered, truth)
    whole["single_networks"] = {name: singles(each, truth.of(truth.usage != TRAINING)) for name, each in cells.items()}
    used = sorted({cell.about.computed_with() for each in cells.values() for cell in each})
    files.write_json(submission.ANALYSIS, whole | {"trained_with": used})
    best_first = table.sort_values("oof_accuracy", ascending=False, kind="stable")
    draw(best_first, probabilities, cells, whole, data, dealt)
    print(f"{submission.TABLE}: {len(table)} submissions; see them: make leaderboard")


def score_file(path: Path) -> None:
    """Print how good a submission file is; write nothing."""
    if not path.is_file():
        raise UserError(f"{path} is no file; name a submission: make score FILE=mine.csv")
    data = faces.load()
    guesses = submission.read(path, len(data.test_rows()))
    truth = read_truth(data, np.empty(0, dtype=np.int64))
    probabilities = np.eye(len(metrics.EVERY))[guesses]
    scores = judge(probabilities, probabilities, truth)
    parts = {"PublicTest": "public_accuracy", "PrivateTest": "private_accuracy",
             "PrivateTest, no duplicate": "private_no_duplicate"}  # fmt: skip
    lines = [[title, percent(scores[column]), board.interval(scores, column)] for title, column in parts.items()]
    print(tabulate(lines, [str(path), "accuracy", "95 % interval"], colalign=("left", "right", "right")))
    print(f"\nmacro-F1 on PrivateTest: {scores['private_macro_f1']}; rank in 2013: {scores['rank_2013']}")
    if truth.source in board.NOTES:
        print(board.NOTES[truth.source])
