"""Print our submissions among the ten best teams of 2013, best first, with Kaggle's own scores where they are known.

Reads submissions/scores.csv and submissions/kaggle.json. REFRESH=1 in the environment asks Kaggle first, and writes
what it says into submissions/kaggle.json and results/kaggle.json.
"""

import os
from typing import Any

from tabulate import tabulate

from pipeline import answers, command, download, kaggle_client, submission
from pipeline.answers import COMPLETE, Record
from pipeline.competition import BOARD_2013, PRIVATE, SPLIT_ROWS, TEAMS_2013
from pipeline.submission import UNKNOWN, percent

HEADERS = ("rank", "", "PrivateTest", "95 % interval", "no twin", "PublicTest", "out of fold", "parameters", "minutes")
KAGGLE_HEADERS = ("Kaggle private", "differs by", "Kaggle public", "differs by")
NOTES = {
    "unofficial": "Measured on files that are not Kaggle's own; results/data.json says what is known of them.",
    "drawn": "Measured on drawn faces: these scores say nothing about the competition.",
}


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


def rows(scores: list[dict[str, Any]], kaggle: dict[str, Record]) -> list[tuple[str, ...]]:
    """The lines of the board, best first; submissions whose score is unknown come last.

    Parameters
    ----------
    scores : the lines of submissions/scores.csv.
    kaggle : Kaggle's answers by SHA-256 of the file; the columns for them are left out where there are none.
    """
    lines: list[tuple[float, tuple[str, ...]]] = []
    for entry in scores:
        known = entry["private_accuracy"] != UNKNOWN
        interval = f"{percent(entry['private_low'])} to {percent(entry['private_high'])}" if known else UNKNOWN
        theirs = against_kaggle(kaggle.get(entry["sha256"]), entry) if kaggle else ()
        lines.append((
            float(entry["private_accuracy"]) if known else -1.0,
            (
                str(entry["rank_2013"]), f"{entry['name']} *", percent(entry["private_accuracy"]), interval,
                percent(entry["private_no_twin"]), percent(entry["public_accuracy"]), percent(entry["oof_accuracy"]),
                f"{entry['parameters']:,}", f"{entry['train_seconds'] / 60:.1f}", *theirs,
            ),
        ))  # fmt: skip
    if any(entry[1][0] not in ("none", UNKNOWN) for entry in lines):
        for place, (team, right) in enumerate(BOARD_2013, start=1):
            ratio = right / SPLIT_ROWS[PRIVATE]
            lines.append((ratio, (str(place), team, f"{ratio:.2%}", *[""] * (6 + len(KAGGLE_HEADERS) * bool(kaggle)))))
    return [line for _, line in sorted(lines, key=lambda entry: -entry[0])]


def refresh(scores: list[dict[str, Any]], records: list[Record], slug: str) -> None:
    """Ask Kaggle for the state of our submissions, and write it down."""
    with kaggle_client.connect(slug, "see the board without Kaggle's part: make leaderboard") as kaggle:
        answers.update(records, kaggle.submissions(), scores, slug)
    answers.write(records)


def main() -> None:
    """Run the command."""
    scores, records, slug = submission.scores(), answers.read(), download.read_params().slug
    if os.environ.get("REFRESH") == "1":
        refresh(scores, records, slug)
    found = {entry["sha256"]: answers.latest(records, slug, entry["sha256"]) for entry in scores}
    kaggle = {digest: record for digest, record in found.items() if record}
    headers = (*HEADERS, *(KAGGLE_HEADERS if kaggle else ()))
    alignment = ("right", "left", *["right"] * (len(headers) - 2))
    print(tabulate(rows(scores, kaggle), headers, disable_numparse=True, colalign=alignment))
    print(
        f"\n* ours. Ranks are places among the {TEAMS_2013} teams of 2013; no twin: rows whose picture Training lacks."
    )
    if kaggle:
        print('"differs by" is Kaggle\'s score less ours, in percentage points.')
    for worth in dict.fromkeys(entry["data"] for entry in scores):
        if worth in NOTES:
            print(NOTES[worth])


if __name__ == "__main__":
    command.run(main, "python -m pipeline.leaderboard")
