"""Kaggle's records of our submissions: submissions/kaggle.json, and their scores for DVC: results/kaggle.json.

The scores are those of the submissions as they are now, in the competition that params.yaml names. A record's status is
SENDING (ref null) from before it is sent until Kaggle has given it a number, then PENDING, COMPLETE or ERROR.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from pipeline import files
from pipeline.evaluation import submission

PATH = submission.FOLDER / "kaggle.json"
METRICS = Path("results/kaggle.json")
SENDING, PENDING, COMPLETE, ERROR = "SENDING", "PENDING", "COMPLETE", "ERROR"


class Form(BaseModel):
    """What a record holds."""

    ref: int | None
    slug: str
    name: str
    date: str | None
    message: str
    sha256: str
    status: str
    public_score: float | None
    private_score: float | None
    error: str | None


Record = dict[str, Any]


def read() -> list[Record]:
    """The records, oldest first; none where nothing was sent yet."""
    if not PATH.exists():
        return []
    with files.reading(PATH, "git restore submissions/kaggle.json"):
        return [form.model_dump() for form in TypeAdapter(list[Form]).validate_json(PATH.read_bytes())]


def write(records: list[Record], slug: str) -> None:
    """Write both files, the records first: what breaks this off must not lose what was sent."""
    files.write_json(PATH, records)
    current = {(line["name"], line["sha256"]) for line in submission.scores()}
    scores = {
        record["name"]: {"public_accuracy": record["public_score"], "private_accuracy": record["private_score"]}
        for record in records
        if record["status"] == COMPLETE and record["slug"] == slug and (record["name"], record["sha256"]) in current
    }
    files.write_json(METRICS, scores)


def mark(sha256: str) -> str:
    """What the message of every submission begins with, so that Kaggle's own list tells which bytes it has."""
    return f"[{sha256[:12]}]"


def latest(records: list[Record], slug: str, sha256: str) -> Record | None:
    """The newest record of a file's bytes."""
    return next((each for each in reversed(records) if (each["slug"], each["sha256"]) == (slug, sha256)), None)


def update(records: list[Record], listed: list[Record], lines: list[dict[str, Any]], slug: str) -> None:
    """Take over what Kaggle lists of the submissions in `records`, and add those that another checkout sent.

    Parameters
    ----------
    listed : the account's submissions, as Kaggle lists them (see client.py), newest first.
    lines : of submissions/scores.csv; by the mark in its message a submission is known to be one of these files.
    """
    known = {record["ref"]: record for record in records if record["slug"] == slug and record["ref"] is not None}
    sending = [record for record in records if record["slug"] == slug and record["ref"] is None]
    for each in reversed(listed):
        if each["ref"] in known:
            known[each["ref"]] |= {key: each[key] for key in ("status", "public_score", "private_score", "error")}
        elif arrived := [record for record in sending if mark(record["sha256"]) in each["message"]]:
            arrived[0].update(each)
            sending.remove(arrived[0])
        else:
            records += [
                each | {"slug": slug, "name": line["name"], "sha256": line["sha256"]}
                for line in lines
                if mark(line["sha256"]) in each["message"]
            ]
