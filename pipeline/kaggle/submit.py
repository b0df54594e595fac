"""Send a submission to Kaggle, wait for its score, and record it. Nothing is trained.

Reads submissions/NAME.csv, submissions/scores.csv and params.yaml (data.slug). Writes submissions/kaggle.json and
results/kaggle.json.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import config, files
from pipeline.competition import PUBLIC, SPLIT_ROWS
from pipeline.errors import UserError
from pipeline.evaluation import submission
from pipeline.evaluation.submission import percent
from pipeline.kaggle import client, records
from pipeline.kaggle.client import Kaggle
from pipeline.kaggle.records import COMPLETE, ERROR, PENDING, SENDING, Record

ALTERNATIVE = f"use the local score in {submission.TABLE}"
TIMEOUT = 600  # seconds to wait for a score
INTERVAL = 5  # seconds between two queries


def scored(name: str) -> tuple[Path, dict[str, Any]]:
    """Return the path of a submission and its line of submissions/scores.csv.

    Raises UserError if there is none, if it is not valid in the competition, or if it is not the file that was scored.
    """
    lines = {line["name"]: line for line in submission.scores()}
    if name not in lines:
        raise UserError(f"{submission.TABLE}: no submission {name!r}; choose one of {', '.join(lines)}")
    path, line = submission.FOLDER / f"{name}.csv", lines[name]
    if line["data"] not in ("official", "unofficial"):
        raise UserError(f"{path}: made from data that is not the competition's ({line['data']}); {ALTERNATIVE}")
    submission.read(path, sum(SPLIT_ROWS[PUBLIC:]))
    if submission.sha256(path) != line["sha256"]:
        raise UserError(f"{path}: not the file that {submission.TABLE} scored; make both again: {submission.REMEDY}")
    return path, line


def describe(scores: Mapping[str, Any], suffix: str = "accuracy") -> str:
    """Return the public and the private score as a text."""
    return f"public {percent(scores[f'public_{suffix}'])}, private {percent(scores[f'private_{suffix}'])}"


def send(kaggle: Kaggle, path: Path, line: dict[str, Any], message: str, sent: list[Record]) -> Record:
    """Send a file, and return its record, which is added to `sent` and saved before the upload.

    Raises
    ------
    NotAccepted : if the competition accepts no submissions.
    UserError : if no submission is left today, Kaggle refuses the file or does not respond.
    """
    left = kaggle.remaining()
    message = message or f"{path.stem}: out of fold {percent(line['oof_accuracy'])}"
    message = f"{records.mark(line['sha256'])} {message}"
    print(f"{path}\n  SHA-256  {line['sha256']}\n  to       {kaggle.page}\n  message  {message}\n"
          f"  locally  {describe(line)}\n"
          f"  left     {'unknown number of' if left is None else left} submissions today", flush=True)  # fmt: skip
    if left == 0:
        raise UserError(f"{path}: no submission is left today: run this again after midnight UTC; or {ALTERNATIVE}")
    record: Record = dict.fromkeys(records.KEYS) | {
        "slug": kaggle.slug, "name": path.stem, "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "message": message, "sha256": line["sha256"], "status": SENDING,
    }  # fmt: skip
    sent.append(record)
    files.write_json(records.PATH, sent)  # if this fails, nothing is sent
    try:
        record |= {"ref": kaggle.submit(path, message), "status": PENDING}
    except UserError as error:
        if not isinstance(error, client.Unconfirmed):
            sent.remove(record)
        raise
    finally:
        records.write(sent, kaggle.slug)  # before waiting: the next run must not send it again
    return record


def wait(kaggle: Kaggle, sent: list[Record], record: Record) -> None:
    """Query Kaggle until it has scored a submission, and save the records."""
    end = time.monotonic() + TIMEOUT
    while record["status"] == PENDING and time.monotonic() < end:
        time.sleep(INTERVAL)
        records.update(sent, kaggle.submissions(), [], kaggle.slug)
    records.write(sent, kaggle.slug)


def conclude(record: Record, line: dict[str, Any]) -> None:
    """Print Kaggle's and the local scores. Raise UserError if Kaggle could not score the file."""
    if record["status"] == ERROR:
        raise UserError(f"Kaggle could not score submission {record['ref']} ({record['error'] or 'no reason given'})")
    print(f"submission {record['ref']}: {record['status']}")
    if record["status"] == COMPLETE:
        print(f"Kaggle   {describe(record, 'score')}\nlocally  {describe(line)}")
        print(f"Recorded in {records.PATH}; make leaderboard shows it.")
    else:
        print("Kaggle has not scored it yet: to wait on, run this again without FORCE=1; it sends nothing.")


def main(name: str, message: str = "", force: bool = False) -> None:
    """Send a submission unless Kaggle has the same bytes, and wait for its score."""
    (path, line), slug = scored(name), config.load().data.slug
    with files.locked(records.LOCK, "submits"):
        sent = records.read()
        with client.connect(slug, ALTERNATIVE) as kaggle:
            records.update(sent, kaggle.submissions(), [line], slug)
            record = records.latest(sent, slug, line["sha256"])
            if not record or force:
                try:
                    record = send(kaggle, path, line, message, sent)
                except client.NotAccepted as refusal:
                    print(f"{slug} accepts no submissions ({refusal}), as usual for a competition that has ended.\n"
                          f"The local score: {describe(line)}")  # fmt: skip
                    return
            elif record["ref"] is None:
                raise UserError(
                    f"{path}: Kaggle did not confirm this submission, and does not list it: wait some minutes and run "
                    f"this again, or check {kaggle.page}/submissions and send it again with FORCE=1"
                )
            else:
                print(f"Kaggle already has these bytes, as submission {record['ref']}: not sent again without FORCE=1")
            wait(kaggle, sent, record)
    conclude(record, line)
