"""Send a submission to Kaggle, wait for its score, and write it down. It never trains.

Reads submissions/NAME.csv, submissions/scores.csv and params.yaml (data.slug). Writes submissions/kaggle.json and
results/kaggle.json.
"""

import time
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

OTHERWISE = f"keep the local score, which stands in {submission.TABLE}"
PATIENCE = 600  # seconds to wait for a score
LOCK = Path("artifacts/submit.lock")  # two at once would send the same bytes twice
PAUSE = 5  # seconds between two looks


def local_score(name: str) -> dict[str, Any]:
    """The line of submissions/scores.csv for `name`."""
    lines = {line["name"]: line for line in submission.scores()}
    if name not in lines:
        raise UserError(f"there is no submission {name!r}; {submission.TABLE} has {', '.join(lines)}")
    return lines[name]


def validate(name: str, line: dict[str, Any]) -> Path:
    """The path of a submission that has the competition's form and is the one that was scored."""
    path = submission.FOLDER / f"{name}.csv"
    if line["data"] not in ("official", "unofficial"):
        raise UserError(f"{path} is of data that is not the competition's ({line['data']}); {OTHERWISE}")
    submission.read(path, sum(SPLIT_ROWS[PUBLIC:]))
    if submission.sha256(path) != line["sha256"]:
        raise UserError(f"{path} is not the file that {submission.TABLE} scored; make both again: dvc repro -f score")
    return path


def describe(public: object, private: object) -> str:
    """Two scores in words."""
    return f"public {percent(public)}, private {percent(private)}"


def send(kaggle: Kaggle, path: Path, line: dict[str, Any], message: str, sent: list[Record]) -> Record:
    """Send a file, and return the record of it, which stands in `sent` and on the disk before.

    Raises NotAccepted where the competition takes none, and UserError where Kaggle refuses it or gives no answer.
    """
    left = kaggle.remaining()
    message = message or f"{path.stem}: out of fold {percent(line['oof_accuracy'])}"
    message = f"{records.mark(line['sha256'])} {message}"
    print(f"{path}\n  SHA-256  {line['sha256']}\n  to       {kaggle.page}\n  message  {message}\n"
          f"  locally  {describe(line['public_accuracy'], line['private_accuracy'])}\n"
          f"  entries  {'unknown how many are' if left is None else left} left today", flush=True)  # fmt: skip
    if left == 0:
        raise UserError(f"no entry is left today: run this again after midnight UTC; or {OTHERWISE}")
    record: Record = {
        "ref": None, "slug": kaggle.slug, "name": path.stem, "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "message": message, "sha256": line["sha256"], "status": SENDING, "public_score": None, "private_score": None,
        "error": None,
    }  # fmt: skip
    sent.append(record)
    records.write(sent, kaggle.slug)  # what cannot be noted must not be sent
    try:
        record |= {"ref": kaggle.submit(path, message), "status": PENDING}
    except client.Unsure:
        raise
    except UserError:
        sent.remove(record)
        raise
    finally:
        records.write(sent, kaggle.slug)  # before the wait: what breaks it off must not make the next run send again
    return record


def wait(kaggle: Kaggle, sent: list[Record], record: Record) -> None:
    """Ask until Kaggle has judged a submission, and write it down."""
    end = time.monotonic() + PATIENCE
    while record["status"] == PENDING and time.monotonic() < end:
        time.sleep(PAUSE)
        records.update(sent, kaggle.submissions(), [], kaggle.slug)
    records.write(sent, kaggle.slug)


def conclude(record: Record, line: dict[str, Any]) -> None:
    """Print Kaggle's scores beside ours. Raises UserError where it could not score the file."""
    if record["status"] == ERROR:
        raise UserError(f"Kaggle could not score submission {record['ref']} ({record['error'] or 'no reason given'})")
    print(f"submission {record['ref']}: {record['status']}")
    if record["status"] == COMPLETE:
        print(f"Kaggle   {describe(record['public_score'], record['private_score'])}")
        print(f"locally  {describe(line['public_accuracy'], line['private_accuracy'])}")
        print(f"It stands in {records.PATH}; make leaderboard shows it.")
    else:
        print("Kaggle is still at it: the same command waits on, and sends nothing.")


def main(name: str, message: str = "", force: bool = False) -> None:
    """Send it, if Kaggle has not these very bytes, and wait for its score."""
    line, slug = local_score(name), config.load().data.slug
    path = validate(name, line)
    with files.alone(LOCK, "submits"):
        sent = records.read()
        with client.connect(slug, OTHERWISE) as kaggle:
            records.update(sent, kaggle.submissions(), [line], slug)
            record = records.latest(sent, slug, line["sha256"])
            if not record or force:
                try:
                    record = send(kaggle, path, line, message, sent)
                except client.NotAccepted as answer:
                    local = describe(line["public_accuracy"], line["private_accuracy"])
                    print(f"{slug} takes no submission ({answer}), which is usual for a contest that is long over.\n"
                          f"The local score stands: {local}")  # fmt: skip
                    return
            elif record["ref"] is None:
                raise UserError(
                    f"{path} was sent without an answer, and Kaggle does not list it: wait some minutes and run this "
                    f"again, or see {kaggle.page}/submissions and send it again with FORCE=1"
                )
            else:
                print(f"Kaggle already has these bytes, as submission {record['ref']}: not sent again without FORCE=1")
            wait(kaggle, sent, record)
    conclude(record, line)
