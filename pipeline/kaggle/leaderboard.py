"""Print our submissions among the ten best teams of 2013, best first, with Kaggle's own scores where they are known.

Reads submissions/scores.csv, results/analysis.json and submissions/kaggle.json. REFRESH=1 in the environment asks
Kaggle first, and writes what it says into submissions/kaggle.json and results/kaggle.json.
"""

import os
from typing import Any

from tabulate import tabulate

from pipeline.competition import TEAMS_2013
from pipeline.data import download
from pipeline.evaluation import board, submission
from pipeline.evaluation.submission import UNKNOWN, percent
from pipeline.kaggle import answers, client
from pipeline.kaggle.answers import COMPLETE, Record

KAGGLE_HEADERS = ("Kaggle private", "differs by", "Kaggle public", "differs by")


def against_kaggle(answer: Record | None, entry: dict[str, Any]) -> tuple[str, ...]:
    """Kaggle's private and public score, each with the percentage points by which it lies above the local one.

    Parameters
    ----------
    answer : Kaggle's, if there is one; what it has not judged yet shows its status instead.
    entry : a line of submissions/scores.csv.
    """
    if answer is None or answer["status"] != COMPLETE:
        return answer["status"] if answer else "", "", "", ""
    cells = []
    for kind in ("private", "public"):
        score, local = answer[f"{kind}_score"], entry[f"{kind}_accuracy"]
        known = score is not None and local != UNKNOWN
        cells += [
            UNKNOWN if score is None else percent(score),
            f"{100 * (score - float(local)):+.2f}" if known else "",
        ]
    return tuple(cells)


def refresh(scores: list[dict[str, Any]], slug: str) -> None:
    """Ask Kaggle for the state of our submissions, and write it down."""
    with answers.alone():
        records = answers.read()
        with client.connect(slug, "see the board without Kaggle's part: make leaderboard") as kaggle:
            answers.update(records, kaggle.submissions(), scores, slug)
        answers.write(records, slug)


def main() -> None:
    """Run the command."""
    scores, slug = submission.scores(), download.read_params().slug
    if os.environ.get("REFRESH") == "1":
        refresh(scores, slug)
    records = answers.read()
    found = {entry["sha256"]: answers.latest(records, slug, entry["sha256"]) for entry in scores}
    kaggle = {digest: record for digest, record in found.items() if record}
    theirs = {e["sha256"]: against_kaggle(kaggle.get(e["sha256"]), e) for e in scores} if kaggle else {}
    headers = (*board.HEADERS, *(KAGGLE_HEADERS if kaggle else ()))
    alignment = ("right", "left", *["right"] * (len(headers) - 2))
    print(tabulate(board.rows(scores, theirs), headers, disable_numparse=True, colalign=alignment))
    print(
        f"\n* ours. Ranks are places among the {TEAMS_2013} teams of 2013; no duplicate: rows whose picture Training lacks."
        "\nEach is the mean of all its folds' networks; parameters are of one network of each kind that has a say, "
        "minutes of all."
    )
    if kaggle:
        print('"differs by" is Kaggle\'s score less ours, in percentage points.')
    if len(scores) > 1 and submission.ANALYSIS.exists():
        best_first = sorted(scores, key=lambda entry: -float(entry["oof_accuracy"]))
        print(f"\n{board.differences(submission.analysis(), [entry['name'] for entry in best_first])}\n")
    for worth in dict.fromkeys(entry["data"] for entry in scores):
        if worth in board.NOTES:
            print(board.NOTES[worth])
