"""Print our submissions with the ten best teams of 2013, best out-of-fold accuracy first, and Kaggle's scores.

Reads submissions/scores.csv and submissions/kaggle.json. With --refresh it first queries Kaggle, and writes
submissions/kaggle.json and results/kaggle.json.
"""

import json
import textwrap
from typing import Any

import pandas as pd
from tabulate import tabulate

from pipeline import config, files
from pipeline.competition import TEAMS_2013
from pipeline.evaluation import board, submission
from pipeline.evaluation.submission import percent
from pipeline.kaggle import client, records

HEADERS = ("", "out of\nfold", "public", "private", "95 % interval", "no\ndupl.")  # 80 columns wide
KAGGLE_HEADERS = ("Kaggle", "status", "private", "differs\nby", "public", "differs\nby")


def columns(rows: Any, headers: tuple[str, ...], texts: int) -> str:
    """Return a table whose first `texts` columns are aligned left, and the others right."""
    align = ["left"] * texts + ["right"] * (len(headers) - texts)
    return tabulate(rows, headers, disable_numparse=True, showindex=False, colalign=align)


def against_kaggle(record: records.Record, entry: dict[str, Any]) -> list[str]:
    """Return a row of Kaggle's scores, each followed by its difference from the local one in percentage points."""
    cells = [entry["name"], record["status"]]
    for kind in ("private", "public"):
        score, local = record[f"{kind}_score"], percent(entry[f"{kind}_accuracy"])
        known = score is not None and local.endswith("%")
        cells += [percent(score or ""), f"{100 * (score - float(entry[f'{kind}_accuracy'])):+.2f}" if known else ""]
    return cells


def shown(scores: list[dict[str, Any]], sent: list[records.Record], slug: str) -> str:
    """Return the leaderboard for a terminal, with notes."""
    rows = board.table(scores).reset_index().iloc[:, : len(HEADERS)].replace("% to", " to", regex=True)
    parts = [columns(rows, HEADERS, 1)]
    known = [(records.latest(sent, slug, entry["sha256"]), entry) for entry in scores]
    if scored := [against_kaggle(record, entry) for record, entry in known if record]:
        parts.append(columns(scored, KAGGLE_HEADERS, 2))
    notes = [
        board.places(scores),
        f"Our submissions are sorted by out-of-fold accuracy. Places are among the {TEAMS_2013} teams of 2013, by "
        "PrivateTest (private). 'no dupl.' excludes test rows with a duplicate in Training. For details see "
        "results/report.md.",
        *(board.NOTES.get(kind) for kind in dict.fromkeys(entry["data"] for entry in scores)),
    ]
    return "\n\n".join([*parts, "\n".join(textwrap.fill(note, 80) for note in notes if note)])


def main(refresh: bool = False, form: str = "text") -> None:
    """Run the command.

    Parameters
    ----------
    refresh : whether to query Kaggle first.
    form : "text" for a terminal, with Kaggle's scores and notes; "md" for the same table in Markdown; "csv" or "json"
        for all columns of submissions/scores.csv.
    """
    scores, slug = submission.scores(), config.load().data.slug
    if refresh:
        without = "show the leaderboard without Kaggle's scores: make leaderboard"
        with files.locked(records.LOCK, "submits"), client.connect(slug, without) as kaggle:
            sent = records.read()
            records.update(sent, kaggle.submissions(), scores, slug)
            records.write(sent, slug)
    sent = records.read()
    if form == "json":
        print(json.dumps(scores, indent=2))
    elif form == "csv":
        print(pd.DataFrame(scores, dtype=object).to_csv(index=False), end="")
    else:
        print(board.markdown(board.table(scores)) if form == "md" else shown(scores, sent, slug))
