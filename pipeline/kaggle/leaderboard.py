"""Print our submissions among the ten best teams of 2013, best first, with Kaggle's own scores where they are known.

Reads submissions/scores.csv, results/analysis.json and submissions/kaggle.json. With --refresh it asks Kaggle first,
and writes submissions/kaggle.json and results/kaggle.json.
"""

from typing import Any

from tabulate import tabulate

from pipeline import config
from pipeline.competition import TEAMS_2013
from pipeline.evaluation import board, submission
from pipeline.evaluation.submission import UNKNOWN, percent
from pipeline.kaggle import client, records
from pipeline.kaggle.records import COMPLETE, Record

KAGGLE_HEADERS = ("Kaggle private", "differs by", "Kaggle public", "differs by")


def against_kaggle(record: Record | None, entry: dict[str, Any]) -> tuple[str, ...]:
    """Kaggle's private and public score, each with the percentage points by which it lies above the local one.

    Parameters
    ----------
    record : Kaggle's, if there is one; what it has not judged yet shows its status instead.
    entry : a line of submissions/scores.csv.
    """
    if record is None or record["status"] != COMPLETE:
        return record["status"] if record else "", "", "", ""
    cells = []
    for kind in ("private", "public"):
        score, local = record[f"{kind}_score"], entry[f"{kind}_accuracy"]
        known = score is not None and local != UNKNOWN
        cells += [
            UNKNOWN if score is None else percent(score),
            f"{100 * (score - float(local)):+.2f}" if known else "",
        ]
    return tuple(cells)


def refresh(scores: list[dict[str, Any]], slug: str) -> None:
    """Ask Kaggle for the state of our submissions, and write it down."""
    with records.alone():
        found = records.read()
        with client.connect(slug, "see the board without Kaggle's part: make leaderboard") as kaggle:
            records.update(found, kaggle.submissions(), scores, slug)
        records.write(found, slug)


def notes(scores: list[dict[str, Any]], kaggle: bool) -> list[str]:
    """What stands below the table, a paragraph each."""
    found = [
        f"* ours. Ranks are places among the {TEAMS_2013} teams of 2013; "
        "no duplicate: rows whose picture Training lacks."
        "\nEach is the mean of all its folds' networks. Parameters are of one network of each model that has weight, "
        "minutes of all." + ('\n"differs by" is Kaggle\'s score less ours, in percentage points.' if kaggle else "")
    ]
    if len(scores) > 1 and submission.ANALYSIS.exists():
        best_first = sorted(scores, key=lambda entry: -float(entry["oof_accuracy"]))
        found.append(board.differences(submission.analysis(), [entry["name"] for entry in best_first]))
    kinds = dict.fromkeys(entry["data"] for entry in scores)
    return found + [board.NOTES[kind] for kind in kinds if kind in board.NOTES]


def main(ask: bool = False) -> None:
    """Run the command.

    Parameters
    ----------
    ask : whether to ask Kaggle first.
    """
    scores, slug = submission.scores(), config.load().data.slug
    if ask:
        refresh(scores, slug)
    sent = records.read()
    found = {entry["sha256"]: records.latest(sent, slug, entry["sha256"]) for entry in scores}
    kaggle = any(found.values())
    theirs = {entry["sha256"]: against_kaggle(found[entry["sha256"]], entry) for entry in scores} if kaggle else {}
    headers = (*board.HEADERS, *(KAGGLE_HEADERS if kaggle else ()))
    alignment = ("right", "left", *["right"] * (len(headers) - 2))
    print(tabulate(board.rows(scores, theirs), headers, disable_numparse=True, colalign=alignment))
    print("", *notes(scores, kaggle), sep="\n")
