"""Records of our submissions to Kaggle (submissions/kaggle.json), and their scores for DVC (results/kaggle.json).

The scores are those of the current submission files, in the competition that params.yaml names. The status of a record
is SENDING (ref null) until Kaggle assigns a number, then PENDING, COMPLETE or ERROR.
"""

import json
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.evaluation import submission

PATH = submission.FOLDER / "kaggle.json"
METRICS = Path("results/kaggle.json")
LOCK = Path("artifacts/submit.lock")  # two processes would send the same bytes twice, or lose a record
SENDING, PENDING, COMPLETE, ERROR = "SENDING", "PENDING", "COMPLETE", "ERROR"
KEYS = ("ref", "slug", "name", "date", "message", "sha256", "status", "public_score", "private_score", "error")
Record = dict[str, Any]


def read() -> list[Record]:
    """Return the records, oldest first; an empty list if nothing was sent yet."""
    if not PATH.exists():
        return []
    remedy = "git restore submissions/kaggle.json; if it is not in git, remove it, and run make leaderboard REFRESH=1"
    with files.reading(PATH, remedy):
        return [{key: record[key] for key in KEYS} for record in json.loads(PATH.read_bytes())]


def write(records: list[Record], slug: str) -> None:
    """Write both files, the records first: an interruption must not lose what was sent."""
    files.write_json(PATH, records)
    current = {(line["name"], line["sha256"]) for line in submission.scores()}
    scores = {
        record["name"]: {"public_accuracy": record["public_score"], "private_accuracy": record["private_score"]}
        for record in records
        if record["status"] == COMPLETE and record["slug"] == slug and (record["name"], record["sha256"]) in current
    }
    files.write_json(METRICS, scores)


def mark(sha256: str) -> str:
    """Return the start of a submission's message, which identifies its bytes in Kaggle's list."""
    return f"[{sha256[:12]}]"


def latest(records: list[Record], slug: str, sha256: str) -> Record | None:
    """Return the newest record of a file's bytes, or None."""
    return next((each for each in reversed(records) if (each["slug"], each["sha256"]) == (slug, sha256)), None)


def update(records: list[Record], listed: list[Record], lines: list[dict[str, Any]], slug: str) -> None:
    """Copy the state of Kaggle's submissions into `records`, and add those that were sent from another checkout.

    Parameters
    ----------
    listed : the account's submissions, see client.Kaggle.submissions; newest first.
    lines : lines of submissions/scores.csv; the mark in a submission's message identifies its line.
    """
    ours = [record for record in records if record["slug"] == slug]
    sending = [record for record in ours if record["ref"] is None]
    for each in reversed(listed):
        if known := [record for record in ours if record["ref"] == each["ref"]]:  # several, if their bytes are equal
            for record in known:
                record |= {key: each[key] for key in ("status", "public_score", "private_score", "error")}
        elif arrived := next((record for record in sending if mark(record["sha256"]) in each["message"]), None):
            arrived.update(each)
            sending.remove(arrived)
        else:
            records += [
                each | {"slug": slug, "name": line["name"], "sha256": line["sha256"]}
                for line in lines
                if mark(line["sha256"]) in each["message"]
            ]
