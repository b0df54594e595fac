"""Print our submissions, the best out of fold first, beside the ten best teams of 2013, with Kaggle's own scores.

Reads submissions/scores.csv and submissions/kaggle.json. With --refresh it asks Kaggle first, and writes
submissions/kaggle.json and results/kaggle.json.
"""

import json
import textwrap
from typing import Any

import pandas as pd
from tabulate import tabulate

from pipeline import config
from pipeline.competition import TEAMS_2013
from pipeline.evaluation import board, submission
from pipeline.evaluation.submission import percent
from pipeline.kaggle import client, records
from pipeline.kaggle.records import Record

HEADERS = ("", "out of\nfold", "public", "private", "95 % interval", "no\ncopy")  # 80 columns wide
KAGGLE_HEADERS = ("Kaggle", "status", "private", "differs\nby", "public", "differs\nby")


def columns(lines: list[list[str]], headers: tuple[str, ...], texts: int) -> str:
    """A table of so many columns of text, then numbers."""
    align = ["left"] * texts + ["right"] * (len(headers) - texts)
    return tabulate(lines, headers, disable_numparse=True, colalign=align)


def against_kaggle(record: Record, entry: dict[str, Any]) -> list[str]:
    """A line of Kaggle's scores, each with the percentage points by which it lies above the local one."""
    cells = [entry["name"], record["status"]]
    for kind in ("private", "public"):
        score, local = record[f"{kind}_score"], percent(entry[f"{kind}_accuracy"])
        known = score is not None and local.endswith("%")
        cells += [percent(score or ""), f"{100 * (score - float(entry[f'{kind}_accuracy'])):+.2f}" if known else ""]
    return cells


def shown(scores: list[dict[str, Any]], sent: list[Record], slug: str) -> str:
    """The board for a terminal, with notes."""
    lines = [[cell.replace("% to", " to") for cell in line[: len(HEADERS)]] for line in board.rows(scores)]
    parts = [columns(lines, HEADERS, 1)]
    known = [(records.latest(sent, slug, entry["sha256"]), entry) for entry in scores]
    if judged := [against_kaggle(record, entry) for record, entry in known if record]:
        parts.append(columns(judged, KAGGLE_HEADERS, 2))
    notes = [board.places(scores)] if board.places(scores) else []
    notes.append(
        f"Places are among the {TEAMS_2013} teams of 2013, by PrivateTest (private). 'no copy' leaves out its rows "
        "whose picture stands in Training. results/report.md tells the rest."
    )
    notes += [board.NOTES[kind] for kind in dict.fromkeys(entry["data"] for entry in scores) if kind in board.NOTES]
    return "\n\n".join([*parts, "\n".join(textwrap.fill(note, 80) for note in notes)])


def main(ask: bool = False, form: str = "text") -> None:
    """Run the command.

    Parameters
    ----------
    ask : whether to ask Kaggle first.
    form : "text" for a terminal with Kaggle's scores and notes; "md", the same board for a page; "csv" and "json", all
        columns of submissions/scores.csv.
    """
    scores, slug, sent = submission.scores(), config.load().data.slug, records.read()
    if ask:
        with client.connect(slug, "see the board without Kaggle's part: make leaderboard") as kaggle:
            records.update(sent, kaggle.submissions(), scores, slug)
        records.write(sent, slug)
    if form == "json":
        print(json.dumps(scores, indent=2))
    elif form == "csv":
        print(pd.DataFrame(scores, dtype=object).to_csv(index=False), end="")
    else:
        print(board.markdown(board.table(scores)) if form == "md" else shown(scores, sent, slug))
